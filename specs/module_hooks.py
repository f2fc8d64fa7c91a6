"""Hooks of modules in the forward pass, which see and change arguments and outputs; and the order of all hooks."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import NONEMPTY, claim, raises, same, values
from .kit.layers import Mix, Times


@claim(cites=["torch_nn/forward-pre-hook-changes-the-input", "torch_nn/hook-handle-removes-the-hook"])
@given(
    v=values(),
    returns=st.lists(st.sampled_from(("nothing", "a value", "a tuple")), min_size=1, max_size=4),
    removed=st.integers(0, 15),
    raised=st.booleans(),
)
def spec_forward_pre_hooks_change_the_input(world, v, returns, removed, raised):
    """Forward pre-hooks run before forward in the order of registration, each with the module and the tuple of
    positional arguments that the one before left. What one returns, alone or in a tuple, replaces them."""
    x = world.leaf(v)
    module = Times(2, x)
    seen, handles = [], []

    def hook(number, kind):
        def run(mod, args):
            seen.append((number, mod is module, isinstance(args, tuple), [a.detach() for a in args]))
            changed = args[0] * (number + 2)
            return {"nothing": None, "a value": changed, "a tuple": (changed,)}[kind]

        return run

    def fail(mod, args):
        raise ArithmeticError("on purpose")

    for number, kind in enumerate(returns):
        handles.append(module.register_forward_pre_hook(hook(number, kind)))
    if raised:
        handle = module.register_forward_pre_hook(fail)
        with raises(ArithmeticError, "on purpose", why="a hook failed"):
            module(x)
        handle.remove()
        seen.clear()
    for number, handle in enumerate(handles):
        if removed >> number & 1:
            handle.remove()
    y = module(x)
    y.backward(torch.ones_like(y))

    factor, expected = 1, []
    for number, kind in enumerate(returns):
        if not removed >> number & 1:
            expected.append((number, True, True, [x.detach() * factor]))
            factor *= 1 if kind == "nothing" else number + 2
    same(seen, expected, why=f"the hooks return {returns}")
    same(y, x.detach() * factor * 2, why="forward gets what the hooks leave")
    same(x.grad, torch.full_like(x, factor * 2), why="what a hook computes is recorded")
    same(module.p.grad, x.detach().sum() * factor * 2, why="forward gets what the hooks leave")


@claim(cites=["torch_nn/forward-hook-changes-the-output", "torch_nn/hook-handle-removes-the-hook"])
@given(
    v=values(),
    returns=st.lists(st.sampled_from((None, 1, 2, -1)), min_size=1, max_size=4),
    removed=st.integers(0, 15),
    raised=st.booleans(),
    recording=st.booleans(),
)
def spec_forward_hooks_change_the_output(world, v, returns, removed, raised, recording):
    """Forward hooks run after forward in the order of registration, each with the module, its positional arguments and
    the output that the one before left. What one returns, unless it is None, replaces the output, with its graph."""
    x = world.leaf(v)
    module = Times(2, x)
    seen, handles = [], []

    def hook(number, factor):
        def run(mod, args, output):
            seen.append((number, mod is module, [a is x for a in args], output.detach()))
            return None if factor is None else output * factor

        return run

    def fail(mod, args, output):
        raise ArithmeticError("on purpose")

    for number, factor in enumerate(returns):
        handles.append(module.register_forward_hook(hook(number, factor)))
    if raised:
        handle = module.register_forward_hook(fail)
        with raises(ArithmeticError, "on purpose", why="a hook failed"):
            module(x)
        handle.remove()
        seen.clear()
    for number, handle in enumerate(handles):
        if removed >> number & 1:
            handle.remove()
    with torch.set_grad_enabled(recording):
        y = module(x)

    total, expected = 2, []
    for number, factor in enumerate(returns):
        if not removed >> number & 1:
            expected.append((number, True, [True], x.detach() * total))
            total *= 1 if factor is None else factor
    same(seen, expected, why=f"the hooks return {returns}")
    same([y, y.requires_grad], [x.detach() * total, recording], why="a call gives what the hooks leave")
    if recording:
        y.backward(torch.ones_like(y))
        same(x.grad, torch.full_like(x, total), why="what a hook computes is recorded")
        same(module.p.grad, x.detach().sum() * total, why="what a hook computes is recorded")


@claim(
    cites=["torch_nn/forward-hooks-with-kwargs", "torch_nn/forward-pre-hook-changes-the-input"],
    since="2.0",
)
@given(v=values(), w=values(shapes=((),)), factor=st.sampled_from((None, 2, -1)), last=st.sampled_from((None, 3)))
def spec_hooks_with_kwargs_get_and_change_the_keyword_arguments(world, v, w, factor, last):
    """With with_kwargs=True forward pre-hooks and forward hooks get the keyword arguments, too, as a dictionary; a
    pre-hook changes arguments of both kinds by returning both. Without it hooks never see keyword arguments."""
    x, k = world.leaf(v), world.leaf(w).detach().to(world.leaf(v).dtype).requires_grad_()
    module = Mix([[1]], x, shape=lambda sums: sums[0])
    seen = []

    def before(mod, args, kwargs):
        seen.append(("before", len(args), list(kwargs), kwargs["extra"] is k))
        return None if factor is None else ((args[0] * factor,), {"extra": kwargs["extra"] * 2})

    def after(mod, args, kwargs, output):
        seen.append(("after", len(args), list(kwargs), factor is not None or kwargs["extra"] is k))
        return None if last is None else output * last

    module.register_forward_pre_hook(lambda mod, args: seen.append(("plain", len(args))))
    module.register_forward_pre_hook(before, with_kwargs=True)
    module.register_forward_hook(after, with_kwargs=True)
    module.register_forward_hook(lambda mod, args, output: seen.append(("plain", len(args))))
    y = module(x, extra=k)
    y.backward(torch.ones_like(y))

    expected = [("plain", 1), ("before", 1, ["extra"], True), ("after", 1, ["extra"], True), ("plain", 1)]
    same(seen, expected, why="keyword arguments are for hooks that ask for them")
    total = (1 if factor is None else factor * 2) * (last or 1)
    same(y, x.detach() * k.detach() * total, why="forward gets what the hooks leave")
    same(x.grad, torch.ones_like(x) * k.detach() * total, why="what a hook computes is recorded")
    same(k.grad, x.detach().sum() * total, why="what a hook computes is recorded")


@claim(cites=["torch_nn/always-called-forward-hooks"], since="2.1")
@given(v=values(), always=st.lists(st.booleans(), min_size=1, max_size=3), fails=st.booleans())
def spec_always_called_forward_hooks_run_when_forward_fails(world, v, always, fails):
    """When forward raises an exception, forward hooks registered with always_call=True run once all the same, with
    None for an output, and others don't; the exception is the caller's, and the module can be called again."""
    x = world.leaf(v)
    module = Times(2, x)
    seen = []
    for number, flag in enumerate(always):

        def hook(mod, args, output, number=number):
            seen.append((number, args[0] is x, output is None))

        module.register_forward_hook(hook, always_call=flag)
    module.factor = "text" if fails else 2  # a tensor can't be multiplied by that
    if fails:
        with raises(TypeError, why="forward failed"):
            module(x)
        same(seen, [(n, True, True) for n, flag in enumerate(always) if flag], why="these are always called")
        seen.clear()
        module.factor = 2
    y = module(x)
    same(seen, [(number, True, False) for number in range(len(always))], why="forward came to its end")
    y.backward(torch.ones_like(y))
    same(x.grad, torch.full_like(x, 2), why="the module can be called again")


@claim(cites=["torch_nn/forward-hook-changes-the-output", "torch_tensor/hook-is-called-with-each-gradient"])
@given(
    v=values(shapes=NONEMPTY),
    factors=st.lists(st.sampled_from((1, 2, -1, 3)), min_size=1, max_size=4),
    retained=st.booleans(),
)
def spec_forward_hooks_collect_the_gradients_of_outputs(world, v, factors, retained):
    """A forward hook that registers a tensor hook on the output, or lets it retain its .grad, finds out the gradient by
    the output of each module, while the gradients of everything else are as without it."""
    x = world.leaf(v)
    parts = [Times(factor, x) for factor in factors]
    outputs, gradients = {}, {}

    def collect(mod, args, output):
        if retained:
            output.retain_grad()
        else:
            output.register_hook(lambda g: gradients.update({mod: g}))
        outputs[mod] = output

    for part in parts:
        part.register_forward_hook(collect)
    torch.nn.Sequential(*parts)(x).sum().backward()

    total = 1
    for part, factor in zip(reversed(parts), reversed(factors)):
        found = outputs[part].grad if retained else gradients[part]
        same(found, torch.full_like(x, total), why="that is the product of the factors behind")
        total *= factor
    same(x.grad, torch.full_like(x, total), why="that is the product of all factors")


REGISTER = {
    "forward_pre": lambda m, f, **o: m.register_forward_pre_hook(lambda mod, args: f(), **o),
    "forward": lambda m, f, **o: m.register_forward_hook(lambda mod, args, output: f(), **o),
    "backward_pre": lambda m, f, **o: m.register_full_backward_pre_hook(lambda mod, by_output: f(), **o),
    "backward": lambda m, f, **o: m.register_full_backward_hook(lambda mod, by_input, by_output: f(), **o),
}


FOR_ALL = {
    "forward_pre": lambda f: torch.nn.modules.module.register_module_forward_pre_hook(lambda mod, args: f()),
    "forward": lambda f: torch.nn.modules.module.register_module_forward_hook(lambda mod, args, output: f()),
    "backward_pre": lambda f: torch.nn.modules.module.register_module_full_backward_pre_hook(lambda mod, g: f()),
    "backward": lambda f: torch.nn.modules.module.register_module_full_backward_hook(lambda mod, g, h: f()),
}


@claim(
    cites=["torch_nn/hooks-run-in-order-unless-prepended", "torch_nn/global-module-hooks-run-first"],
    since="2.0",
)
@given(
    v=values(shapes=NONEMPTY),
    kinds=st.lists(st.tuples(st.sampled_from([*REGISTER]), st.booleans()), min_size=2, max_size=5),
    removed=st.integers(0, 31),
    everywhere=st.sampled_from([None, *FOR_ALL]),
)
def spec_module_hooks_run_in_order_unless_prepended(world, v, kinds, removed, everywhere):
    """Hooks of one kind run in the order in which they were registered, but one with prepend=True before all that are
    there; hooks registered for all modules run before those of a module, and hooks that were removed don't run."""
    x = world.leaf(v)
    module, seen, handles = Times(2, x), [], []
    expected = {kind: [] for kind in REGISTER}
    for number, (kind, prepend) in enumerate(kinds):
        handles.append(REGISTER[kind](module, lambda number=number: seen.append(number), prepend=prepend))
        expected[kind].insert(0 if prepend else len(expected[kind]), number)
    for number, (kind, _) in enumerate(kinds):
        if removed >> number & 1:
            handles[number].remove()
            expected[kind].remove(number)
    if everywhere is None:
        module(x).sum().backward()
    else:
        expected[everywhere].insert(0, "all")
        with FOR_ALL[everywhere](lambda: seen.append("all")):  # leaving the block removes the hook
            module(x).sum().backward()
    same(seen, [number for kind in REGISTER for number in expected[kind]], why=f"registered were {kinds}")

    seen.clear()
    module(x).sum().backward()
    same("all" in seen, False, why="the hook for all modules was removed")
    same(x.grad, torch.full_like(x, 4), why="no hook returns anything")


OLD_AND_NEW = {
    "full, then regular": ("register_full_backward_hook", "register_backward_hook"),
    "regular, then full": ("register_backward_hook", "register_full_backward_hook"),
}


@claim(observed=True)
@given(v=values(shapes=NONEMPTY), order=st.sampled_from([*OLD_AND_NEW]), removed=st.booleans())
def spec_regular_and_full_backward_hooks_exclude_each_other(world, v, order, removed):
    """A module that ever had a full backward hook, removed or not, takes none of the old kind, which
    register_backward_hook() registers, and the other way round: it is an error, and the module works on."""
    x = world.leaf(v)
    module, seen = Times(2, x), []
    first, second = OLD_AND_NEW[order]
    handle = getattr(module, first)(lambda mod, by_input, by_output: seen.append("first"))
    if removed:
        handle.remove()
    with raises(RuntimeError, "both regular backward hooks and full backward hooks", why=order):
        getattr(module, second)(lambda mod, by_input, by_output: seen.append("second"))
    if first == "register_full_backward_hook" or removed:
        module(x).sum().backward()
        same(seen, [] if removed else ["first"], why="only the first was registered")
        same(x.grad, torch.full_like(x, 2), why="the module works on")
