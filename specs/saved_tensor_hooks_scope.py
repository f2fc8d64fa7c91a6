"""Where hooks for saved tensors apply: contexts, threads, what is saved in them, save_on_cpu, and where they can't."""

import contextlib
import threading

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks

from .kit import WRITABLE, claim, graphs, raises, same, values
from .kit.choices import some_of
from .saved_tensor_hooks import FAITHFUL
from .saved_tensors import CHAIN, EXACT, NOT_RECORDED, READABLE, SAVING_INPUT


def logged(log, name):
    """Hooks that note their name in the log."""
    return saved_tensors_hooks(
        lambda t: log.append(f"pack {name}") or t.detach(), lambda packed: log.append(f"unpack {name}") or packed
    )


STEPS = st.sampled_from(["enter 0", "enter 1", "enter 2", "leave", "multiply"])


@claim(
    cites=[
        "torch_autograd/only-the-inner-most-pair-applies",
        "torch_autograd/pack-is-called-for-each-saved-tensor",
        "autograd_mechanics/default-hooks-apply-to-all",
    ]
)
@given(v=values(), steps=st.lists(STEPS, min_size=2, max_size=8), retained=st.booleans())
def spec_only_the_inner_most_hooks_apply(world, v, steps, retained):
    """Of nested contexts, the same one repeated included, the hooks of the inner-most apply to what is saved, and
    those of none outside of all. What was packed is unpacked by the same pair, wherever that happens."""
    x, log, products = world.leaf(v), [], []
    contexts = [logged(log, number) for number in range(3)]

    with contextlib.ExitStack() as everything:
        entered = []
        for step in ["multiply", *steps, "multiply"]:
            if step == "multiply":
                products.append((x * x, [which for which, _ in entered][-1:]))
                same(log, [f"pack {which}" for which in products[-1][1]] * 2, why=f"in {[e[0] for e in entered]}")
                log.clear()
            elif step == "leave" and entered:
                entered.pop()[1].close()
            elif step != "leave":
                entered.append((int(step[-1]), everything.enter_context(contextlib.ExitStack())))
                entered[-1][1].enter_context(contexts[entered[-1][0]])

        for number, (y, pair) in enumerate(products, start=1):
            y.sum().backward(retain_graph=retained)
            same(log, [f"unpack {which}" for which in pair] * 2, why=f"{pair or 'no pair'} had packed it")
            same(x.grad, 2 * number * x.detach(), why=f"this was product {number}")
            log.clear()
    (x * x).sum().backward()
    same(log, [], why="all contexts are left")


@claim(cites=["torch_autograd/only-the-inner-most-pair-applies", "torch_autograd/pack-is-called-for-each-saved-tensor"])
@given(v=values(), depth=st.integers(1, 3), caught=st.integers(0, 2))
def spec_leaving_a_context_by_an_exception_takes_its_hooks_away(world, v, depth, caught):
    """An exception that leaves contexts takes their hooks away and leaves those of the contexts further out."""
    x, log = world.leaf(v), []
    caught %= depth

    def fall(level):
        with logged(log, level):
            if level == depth:
                raise KeyError("on purpose")
            if level == caught:
                with contextlib.suppress(KeyError):
                    fall(level + 1)
                x * x
            else:
                fall(level + 1)

    if caught == 0:
        with contextlib.suppress(KeyError):
            fall(1)
        y = x * x
    else:
        fall(1)
        y = x * x

    same(log, [f"pack {caught}"] * 2 if caught else [], why=f"caught in context {caught} of {depth}, then left")
    y.sum().backward()
    same(x.grad, 2 * x.detach(), why="outside of all contexts there are no hooks")


@claim(cites=["autograd_mechanics/default-hooks-are-thread-local", "autograd_mechanics/default-hooks-apply-to-all"])
@given(v=values(), own=st.booleans(), used_there=st.booleans())
def spec_hooks_hold_for_their_own_thread(world, v, own, used_there):
    """The hooks of a context apply in the thread that entered it and in no other. What they packed is unpacked by
    them in whatever thread backward runs."""
    x, log, made = world.leaf(v), [], {}

    def elsewhere():
        if own:
            with logged(log, "there"):
                made["there"] = x * x
        else:
            made["there"] = x * x
        if used_there:
            made["here"].sum().backward()

    with logged(log, "here"):
        made["here"] = x * x
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        same(len(log), 2 + 2 * own + 2 * used_there, why="each thread's operations saved two tensors")
        after = x * x
    expected = ["pack here"] * 2 + ["pack there"] * 2 * own + ["unpack here"] * 2 * used_there + ["pack here"] * 2
    same(log, expected, why="the hooks of one thread don't show in the other")

    log.clear()
    made["there"].sum().backward()
    after.sum().backward()
    same(log, ["unpack there"] * 2 * own + ["unpack here"] * 2, why="each is unpacked by the hooks that packed it")
    same(x.grad, (3 if used_there else 2) * 2 * x.detach(), why="so many products were differentiated")


@claim(cites=["torch_autograd/pack-is-called-for-each-saved-tensor"])
@given(v=values(), codes=CHAIN, way=st.sampled_from(list(NOT_RECORDED)))
def spec_pack_is_not_called_for_what_is_not_recorded(world, v, codes, way):
    """Operations that aren't recorded, in a mode or on tensors that don't require grad, call no pack hook, nor
    does a backward that makes no graph."""
    x, calls = world.leaf(v), []
    y = x * x

    with saved_tensors_hooks(lambda t: calls.append("pack") or t.detach(), lambda packed: packed):
        for code in codes:
            NOT_RECORDED[way](SAVING_INPUT[code], x)
        y.sum().backward()

    same(calls, [], why="nothing was saved")
    same(x.grad, 2 * x.detach(), why="y was made before")


# Operations with a number, and the factor by which each multiplies.
WITH_A_NUMBER = {
    "x * number": (lambda x, number: x * number, lambda number: number),
    "number * x": (lambda x, number: number * x, lambda number: number),
    "x / number": (lambda x, number: x / number, lambda number: 1 / number),
    "x.clone().mul_(number)": (lambda x, number: x.clone().mul_(number), lambda number: number),
    "torch.mul(x[...], number)": (lambda x, number: torch.mul(x[...], number), lambda number: number),
}
NUMBERS = st.sampled_from([2, -1, 4, 0.5, -2.0])


@claim(
    cites=["torch_autograd/pack-is-called-for-each-saved-tensor", "autograd_mechanics/default-hooks-apply-to-all"],
    since="2.0",
)
@given(v=values(), codes=some_of(WITH_A_NUMBER), number=NUMBERS)
def spec_numbers_are_not_packed(world, v, codes, number):
    """A Python number, which PyTorch makes a tensor and saves as such, isn't given to pack."""
    for code in codes:
        x, packed = world.leaf(v), []
        operation, factor = WITH_A_NUMBER[code]

        with saved_tensors_hooks(lambda t, packed=packed: packed.append(t) or t * 0, lambda stored: stored):
            y = operation(x, number)
        same(packed, [], why=f"{code} saves nothing but the number")
        same(float(y.grad_fn._saved_other), float(number), why="the number is saved")
        y.sum().backward()

        same(x.grad, torch.full_like(x, factor(number)), why=f"the number is {number}")


@claim(observed=True, until="2.0")
@given(v=values(), codes=some_of(WITH_A_NUMBER), number=NUMBERS)
def spec_numbers_are_packed(world, v, codes, number):
    """A Python number, which PyTorch makes a tensor and saves as such, is given to pack as a tensor without
    dimensions, and backward computes with what unpack returns."""
    for code in codes:
        x, packed = world.leaf(v), []
        operation, factor = WITH_A_NUMBER[code]

        with saved_tensors_hooks(lambda t, packed=packed: packed.append(t.tolist()) or t, lambda stored: stored * 2):
            y = operation(x, number)
        y.sum().backward()

        same(packed, [number], why=f"{code} saves the number")
        same(x.grad, torch.full_like(x, factor(2 * number)), why=f"unpack returned {2 * number}")


class Scaled(torch.autograd.Function):
    """A product that saves one factor for backward, and keeps the other one by itself."""

    @staticmethod
    def forward(ctx, x, w):
        """The product; what is None is saved, too."""
        ctx.save_for_backward(None, x, None)
        ctx.w = w.detach()
        return x * w

    @staticmethod
    def backward(ctx, cotangent):
        """The products with the other factor."""
        first, x, last = ctx.saved_tensors
        same((first, last), (None, None), why="None was saved")
        return cotangent * ctx.w, cotangent * x


@claim(
    cites=[
        "torch_autograd/pack-is-called-for-each-saved-tensor",
        "saved_tensor_hooks/pack-is-called-for-each-saved-tensor",
    ]
)
@given(v=values(), factors=st.tuples(st.integers(-2, 3), st.integers(-2, 3)), alone=st.booleans())
def spec_what_a_custom_function_saves_goes_through_hooks(world, v, factors, alone):
    """The tensors that a custom function gives to save_for_backward are packed and unpacked, if the hooks are set
    by a context or on one of them; None, and what it keeps as an attribute of ctx, is not."""
    x, w, packed = world.leaf(v), world.leaf(v), []

    def pack(t):
        packed.append(t.detach().clone())
        return t.detach() * factors[0]

    def unpack(stored):
        return stored * factors[1]

    if alone:
        y = Scaled.apply(x, w)
        y.grad_fn._raw_saved_tensors[1].register_hooks(pack, unpack)
    else:
        with saved_tensors_hooks(pack, unpack):
            y = Scaled.apply(x, w)
    y.sum().backward()

    same(packed, [x], why="only x was given to save_for_backward")
    same(x.grad, w.detach(), why="its gradient is w, which was kept as an attribute")
    same(w.grad, x.detach() * factors[0] * factors[1], why="its gradient is x, as it came out of the hooks")


class WithLeaf(torch.autograd.Function):
    """A product with a leaf that it makes by itself and saves."""

    @staticmethod
    def forward(ctx, x, k):
        """The product of x and k."""
        ctx.save_for_backward(k.detach().clone().requires_grad_(), x)
        return x * k

    @staticmethod
    def backward(ctx, cotangent):
        """The product with the leaf."""
        leaf, _ = ctx.saved_tensors
        same((leaf.is_leaf, leaf.requires_grad), (True, True), why="a leaf was saved")
        return cotangent * leaf.detach(), None


@claim(cites=["torch_autograd/pack-is-called-for-each-saved-tensor"], since="2.1")
@given(v=values(), pair=st.sampled_from(list(FAITHFUL)), passes=st.integers(1, 2))
def spec_a_saved_leaf_that_is_no_input_goes_through_hooks(world, v, pair, passes):
    """A custom function can save a leaf that is none of its inputs; it goes through hooks as any other."""
    x, k = world.leaf(v), world.constant(v)

    with saved_tensors_hooks(*FAITHFUL[pair]()):
        y = WithLeaf.apply(x, k)
    for _ in range(passes):
        y.sum().backward(retain_graph=True)

    same(x.grad, passes * k, why="the gradient is the leaf, which has the values of k")


@claim(observed=True, until="2.1")
@given(v=values(), pair=st.sampled_from(list(FAITHFUL)))
def spec_a_saved_leaf_that_is_no_input_breaks_under_hooks(world, v, pair):
    """If a custom function saved a leaf that is none of its inputs in a context of hooks, backward raises an error
    that asks to report a bug."""
    x, k = world.leaf(v), world.constant(v)

    with saved_tensors_hooks(*FAITHFUL[pair]()):
        y = WithLeaf.apply(x, k)

    with raises(RuntimeError, "INTERNAL ASSERT FAILED", why="nobody but the hooks knows the leaf"):
        y.sum().backward()
    same(x.grad, None, why="there was no gradient")


@claim(
    cites=[
        "torch_autograd/save-on-cpu-keeps-saved-tensors-on-the-cpu",
        "saved_tensor_hooks/save-on-cpu-is-such-a-pair",
    ]
)
@given(g=graphs(), pinned=st.booleans(), v=values(dtypes=EXACT), codes=some_of(READABLE))
def spec_save_on_cpu_changes_no_gradient(world, g, pinned, v, codes):
    """Under save_on_cpu, with pinned memory or without, gradients are what they are without it, and what was saved
    is read as a tensor on the device where it was."""
    with save_on_cpu(pinned) if pinned else save_on_cpu():
        tensors = g.build(world)
        x, w = world.leaf(v), world.leaf(v)
        results = [READABLE[code][0](x, w) for code in codes]

    tensors[g.root].backward(world.constant(g.cotangent))
    for name in g.leaves:
        same(tensors[name].grad, g.gradients(world)[name], why="saved tensors were brought back")
    for code, y in zip(codes, results, strict=True):
        for attribute, name in READABLE[code][1].items():
            same(getattr(y.grad_fn, attribute), {"x": x, "w": w, "y": y}[name], why=f"{code} saved {name}")
        y.sum().backward()  # or what packing left of y refers to the graph


@claim(cites=["torch_autograd/save-on-cpu-copies-nothing-on-the-cpu"])
@given(v=values(dtypes=EXACT), codes=some_of(READABLE), pinned=st.booleans())
def spec_save_on_cpu_copies_nothing_that_is_there(world, v, codes, pinned):
    """If a saved tensor is on the CPU already, save_on_cpu keeps it as it is, in the same memory. With
    pin_memory=True it makes a copy."""
    x, w = [world.constant(v).cpu().requires_grad_() for _ in range(2)]

    for code in codes:
        operation, attributes = READABLE[code]
        with save_on_cpu(pin_memory=pinned):
            y = operation(x, w)
        for attribute, name in attributes.items():
            original, saved = {"x": x, "w": w, "y": y}[name], getattr(y.grad_fn, attribute)
            same(saved, original, why=f"{code} saved {name}")
            shared = saved.data_ptr() == original.data_ptr()
            same(shared, not pinned or not original.numel(), why="only pinned memory is another")
        y.sum().backward()  # or what packing left of y refers to the graph


USING_HOOKS = {
    "saved_tensors_hooks": lambda: saved_tensors_hooks(lambda t: t.detach(), lambda packed: packed),
    "save_on_cpu": lambda: save_on_cpu(),
    "save_on_cpu(pin_memory=True)": lambda: save_on_cpu(pin_memory=True),
}


@claim(cites=["torch_autograd/hooks-can-be-disabled"])
@given(
    v=values(),
    messages=st.lists(st.text(alphabet="abc %{}", min_size=1, max_size=6), min_size=1, max_size=3),
    way=st.sampled_from(list(USING_HOOKS)),
    by_error=st.booleans(),
)
def spec_disabled_hooks_raise_the_message(world, v, messages, way, by_error):
    """Under disable_saved_tensors_hooks, to enter a context of hooks raises a RuntimeError with the message of the
    inner-most block, until that is left, by an exception too. Operations and earlier hooks work as ever."""
    x, log = world.leaf(v), []
    messages = [f"{number}: {message}" for number, message in enumerate(messages)]
    with logged(log, "before"):
        before = x * x

    def inside(left):
        for entering in range(2):
            with raises(RuntimeError, left[0], why="hooks are disabled with this message"):
                with USING_HOOKS[way]():
                    same("entered", left[0], why="hooks are disabled")
            if entering == 0 and left[1:]:
                with contextlib.suppress(KeyError), torch.autograd.graph.disable_saved_tensors_hooks(left[1]):
                    inside(left[1:])
                    if by_error:
                        raise KeyError("on purpose")
        (x * 3).sum().backward()

    with torch.autograd.graph.disable_saved_tensors_hooks(messages[0]):
        inside(messages)
        before.sum().backward()
    same(x.grad, 2 * x.detach() + 3 * len(messages), why="graphs are recorded and differentiated inside, too")
    same(log, ["pack before"] * 2 + ["unpack before"] * 2, why="what was packed before is unpacked")

    log.clear()
    with logged(log, "after"):
        (x * x).sum().backward()
    same(log, ["pack after"] * 2 + ["unpack after"] * 2, why="hooks can be used again")


@claim(cites=["torch_autograd/hooks-can-be-disabled"])
@given(v=values(), message=st.text(alphabet="abc %{}", min_size=1, max_size=6), depth=st.integers(1, 2))
def spec_hooks_that_are_in_force_cannot_be_disabled(world, v, message, depth):
    """Inside a context of hooks, to enter disable_saved_tensors_hooks raises a RuntimeError with its message; the
    hooks stay in force, and can be used afterwards."""
    x, log = world.leaf(v), []

    with contextlib.ExitStack() as entered:
        for number in range(depth):
            entered.enter_context(logged(log, number))
        with raises(RuntimeError, message, why="hooks are in force"):
            with torch.autograd.graph.disable_saved_tensors_hooks(message):
                same("entered", message, why="hooks are in force")
        y = x * x
        same(log, [f"pack {depth - 1}"] * 2, why="the hooks are in force still")
    with logged(log, "later"):
        z = x * x
    same(log[2:], ["pack later"] * 2, why="nothing is disabled")
    (y + z).sum().backward()
    same(x.grad, 4 * x.detach(), why="both were recorded")


@claim(cites=["torch_autograd/hooks-can-be-disabled"], observed=True)
@given(v=values(layouts=WRITABLE), factor=st.sampled_from([2, -1]), there=st.booleans())
def spec_disabling_leaves_single_tensors_and_other_threads_alone(world, v, factor, there):
    """Under disable_saved_tensors_hooks, hooks can be registered on a single saved tensor, and other threads can
    use contexts of hooks."""
    x, log = world.leaf(v), []

    def work():
        y = x.square()
        if there:
            with logged(log, "there"):
                y = x.square()
        else:
            y.grad_fn._raw_saved_self.register_hooks(lambda t: t * factor, lambda packed: packed)
        y.sum().backward()

    with torch.autograd.graph.disable_saved_tensors_hooks("no hooks here"):
        if there:
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        else:
            work()

    same(x.grad, (2 if there else 2 * factor) * x.detach(), why="hooks work there")
    same(log, ["pack there", "unpack there"] * there, why="the other thread's context")


@claim(cites=["torch_autograd/memory-budget-is-for-compiled-regions"], since="2.13")
@given(v=values(), budget=st.sampled_from([0, 0.0, 0.5, 1, 1.0]))
def spec_a_memory_budget_needs_a_compiled_region(world, v, budget):
    """region_activation_memory_budget raises a RuntimeError in code that isn't compiled, for any budget from 0 to
    1; operations are recorded as ever."""
    x = world.leaf(v)

    with raises(RuntimeError, "torch.compile", why="nothing is compiled here"):
        with torch.autograd.graph.region_activation_memory_budget(budget):
            x.square()

    x.square().sum().backward()
    same(x.grad, 2 * x.detach(), why="no budget is set")
