"""Hooks of modules in the backward pass, which see and change the gradients by inputs and outputs."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import NONEMPTY, claim, raises, same, silent, values, warns
from .kit.choices import some_of
from .kit.layers import Mix, Times

KINDS = ("leaf", "result", "constant", "number", "text", "nothing")


def positional(kind, x, number):
    """An argument of the kind, tensors with the values of the leaf x."""
    made = {"leaf": x, "result": x * 1, "constant": x.detach() * 1, "number": number, "text": "text", "nothing": None}
    return made[kind]


@claim(
    cites=[
        "torch_nn/backward-hook-gets-the-gradients",
        "torch_nn/backward-hook-gets-positional-inputs-only",
        "torch_nn/backward-hook-gets-none-for-non-tensors",
    ]
)
@given(
    v=values(shapes=NONEMPTY),
    kinds=st.lists(st.sampled_from(KINDS), min_size=0, max_size=3),
    rows=st.lists(st.tuples(*[st.sampled_from((1, 2, -1, 0))] * 4), min_size=1, max_size=3),
    named=st.booleans(),
    text=st.booleans(),
)
def spec_a_full_backward_hook_gets_the_gradients_of_a_module(world, v, kinds, rows, named, text):
    """A full backward hook gets the module and two tuples: the gradients by the positional inputs, and those by the
    outputs. Arguments and outputs that are no tensors have None there; keyword arguments have no place there."""
    x = world.leaf(v)
    leaves = [world.leaf(v) for _ in ["leaf", *kinds]]
    inputs = [positional(kind, leaf, 5) for kind, leaf in zip(["leaf", *kinds], leaves)]
    module = Mix(rows, x, shape=(lambda sums: (*sums, "text")) if text else tuple)
    calls = []
    module.register_full_backward_hook(lambda mod, by_input, by_output: calls.append((mod, by_input, by_output)))
    extra = world.leaf(v) if named else None

    outputs = module(*inputs, extra=extra)
    sum((y * (number + 1)).sum() for number, y in enumerate(outputs[: len(rows)])).backward()

    same(len(calls), 1, why="the module was called once, and differentiated once")
    mod, by_input, by_output = calls[0]
    same([mod is module, type(by_input), type(by_output)], [True, tuple, tuple], why="that is what a hook gets")
    same([len(by_input), len(by_output)], [len(inputs), len(rows) + text], why="there is a place for each")
    cotangents = [torch.full_like(x, number + 1) for number in range(len(rows))]
    same(list(by_output), cotangents + [None] * text, why="these are the gradients by the outputs")
    scale = extra.detach() if named else torch.ones_like(x)
    for place, kind in enumerate(["leaf", *kinds]):
        expected = sum(row[place] * (number + 1) for number, row in enumerate(rows)) * scale
        if kind in ("leaf", "result"):
            same(by_input[place], expected, why=f"that is the gradient by input {place}, a {kind}")
            same(leaves[place].grad, expected, why="a hook that returns nothing changes nothing")
        elif kind != "constant":
            same(by_input[place], None, why=f"input {place} is no tensor")


@claim(observed=True)
@given(v=values(shapes=NONEMPTY), order=st.permutations(("leaf", "constant", "unused")), outputs=st.integers(1, 3))
def spec_constants_count_as_zeros_and_unused_outputs_as_none(world, v, order, outputs):
    """Where some input requires grad, a full backward hook gets zeros for a tensor that doesn't and for one that no
    output depends on; for an output that isn't used, or doesn't require grad, it gets None."""
    x, unused = world.leaf(v), world.leaf(v)
    made = {"leaf": x, "constant": x.detach() * 1, "unused": unused}
    place = order.index("leaf")

    class Chosen(torch.nn.Module):
        def forward(self, *inputs):
            return (*(inputs[place] * (n + 2) for n in range(outputs)), torch.ones_like(x))

    module, calls = Chosen(), []
    module.register_full_backward_hook(lambda mod, by_input, by_output: calls.append((by_input, by_output)))
    module(*(made[kind] for kind in order))[0].sum().backward()

    expected = {"leaf": torch.full_like(x, 2), "constant": torch.zeros_like(x), "unused": torch.zeros_like(x)}
    same(list(calls[0][0]), [expected[kind] for kind in order], why="only the leaf was used")
    same(list(calls[0][1]), [torch.ones_like(x), *[None] * outputs], why="only the first output was used")
    same(unused.grad is None or not unused.grad.any(), True, why="no output depends on it")


FIRING = {
    "y.backward()": (lambda y, x, p: y.backward(), True),
    "y.backward(retain_graph=True)": (lambda y, x, p: y.backward(retain_graph=True), True),
    "torch.autograd.grad(y, x)": (lambda y, x, p: torch.autograd.grad(y, x, retain_graph=True), True),
    "torch.autograd.grad(y, [p, x])": (lambda y, x, p: torch.autograd.grad(y, [p, x], retain_graph=True), True),
    "torch.autograd.grad(y, p)": (lambda y, x, p: torch.autograd.grad(y, p, retain_graph=True), False),
    "y.backward(inputs=[x])": (lambda y, x, p: y.backward(inputs=[x], retain_graph=True), True),
    "y.backward(inputs=[p])": (lambda y, x, p: y.backward(inputs=[p], retain_graph=True), False),
}


@claim(cites=["torch_nn/backward-hook-fires-with-the-input-gradients"])
@given(
    v=values(shapes=NONEMPTY),
    ways=st.lists(st.sampled_from([*FIRING]), min_size=1, max_size=3),
    calls=st.integers(1, 3),
)
def spec_a_full_backward_hook_fires_when_input_gradients_are_computed(world, v, ways, calls):
    """If an input requires grad, a full backward hook is called once for each call of the module and each time that
    the gradients by its inputs are computed, and not when gradients by its parameters alone are asked for."""
    x = world.leaf(v)
    module = Times(2, x)
    seen = []
    module.register_full_backward_hook(lambda mod, by_input, by_output: seen.append((by_input[0], by_output[0])))
    total = 0
    for way in ways:
        y = x
        for _ in range(calls):
            y = module(y)
        run, fires = FIRING[way]
        run(y.sum(), x, module.p)
        # All calls but the first have inputs that the parameter's gradient needs, too.
        total += calls if fires else calls - 1
        same(len(seen), total, why=f"the module was called {calls} times, and then {way}")
    ones = torch.ones_like(x)
    fired = seen[-calls:] if FIRING[ways[-1]][1] else []
    same(
        [by_output for _, by_output in fired], [ones * 2**n for n in range(len(fired))], why="the last call comes first"
    )
    same([by_input for by_input, _ in fired], [ones * 2 ** (n + 1) for n in range(len(fired))], why="times two each")


@claim(cites=["torch_nn/backward-hook-fires-with-the-output-gradients", "torch_nn/backward-hook-does-not-fire"])
@given(
    v=values(shapes=NONEMPTY),
    frozen=st.booleans(),
    recording=st.booleans(),
    only=st.booleans(),
    several=st.integers(1, 2),
)
def spec_a_full_backward_hook_of_constant_inputs_fires_with_the_outputs(world, v, frozen, recording, only, several):
    """If no input requires grad, but an output does, a full backward hook is called with the gradients by the outputs,
    and None for each input. If no output requires grad, for frozen parameters or under no_grad, it isn't called."""
    x = world.constant(v)
    module, seen = Mix([[2, 3]], x), []
    module.register_full_backward_hook(lambda mod, by_input, by_output: seen.append((by_input, by_output)))
    module.requires_grad_(not frozen)
    with torch.set_grad_enabled(recording):
        (y,) = module(*[x] * several)
    fires = recording and not frozen
    same(y.requires_grad, fires, why="the parameter is all that may require grad")
    z = (y + world.leaf(v)).sum()
    torch.autograd.grad(z, module.p) if fires and only else z.backward()

    same(len(seen), int(fires), why="it fires if the output requires grad")
    if fires:
        same(list(seen[0][0]), [None] * several, why="no input requires grad")
        same(list(seen[0][1]), [torch.ones_like(x)], why="that is the gradient by the output")


@claim(cites=["torch_nn/backward-hook-replaces-grad-input"])
@given(
    v=values(shapes=NONEMPTY),
    factors=st.lists(st.sampled_from((None, 2, -1, 0, 3)), min_size=1, max_size=3),
    inputs=st.integers(1, 3),
    deep=st.booleans(),
)
def spec_what_a_full_backward_hook_returns_replaces_the_input_gradients(world, v, factors, inputs, deep):
    """The tuple that a full backward hook returns takes the place of the input gradients, for the hooks behind it and
    for what comes before the module; the gradients of the module's own parameters stay what they are."""
    x = world.leaf(v)
    leaves = [world.leaf(v) for _ in range(inputs)]
    inner = Mix([[1, 2, 3]], x, shape=lambda sums: sums[0])
    module = Mix([[1]], x, shape=lambda sums: sums[0]) if deep else None
    seen = []
    for factor in factors:

        def hook(mod, by_input, by_output, factor=factor):
            seen.append([g.detach().clone() for g in by_input])
            return None if factor is None else tuple(g * factor for g in by_input)

        inner.register_full_backward_hook(hook)
    before = Times(5, x)
    y = inner(*(before(leaf) for leaf in leaves))
    (module(y) if deep else y).sum().backward()

    expected, total = [], 1
    for factor in factors:
        expected.append([torch.full_like(x, (i + 1) * total) for i in range(inputs)])
        total *= 1 if factor is None else factor
    same(seen, expected, why=f"the hooks multiply by {factors}")
    for i, leaf in enumerate(leaves):
        same(
            leaf.grad, torch.full_like(leaf, 5 * (i + 1) * total), why="what is before the module gets what they return"
        )
    weight = sum((i + 1) * 5 * leaf.detach().sum() for i, leaf in enumerate(leaves))
    same(inner.p.grad, weight, why="the module's own parameter gets its own gradient")
    same(before.p.grad, weight * total, why="a parameter before the module gets what they return")


# What a full backward hook of a module with two inputs may not return: the error, and what it says.
WRONG_RETURNS = {
    "one gradient": (lambda by_input: by_input[:1], RuntimeError, "invalid number"),
    "three gradients": (lambda by_input: (*by_input, by_input[0]), RuntimeError, "invalid number"),
    "no gradient": (lambda by_input: (), RuntimeError, "invalid number"),
    "text": (lambda by_input: "ab", TypeError, "hook"),
    "numbers": (lambda by_input: (1.0, 2.0), TypeError, "hook"),
}


@claim(cites=["torch_nn/backward-hook-replaces-grad-input", "torch_nn/backward-hook-returns-a-tuple-or-none"])
@given(v=values(shapes=NONEMPTY), wrong=st.sampled_from([*WRONG_RETURNS, "an exception"]), retain=st.booleans())
def spec_a_full_backward_hook_may_not_return_anything_else(world, v, wrong, retain):
    """A full backward hook that returns too few or too many gradients, or what is no gradient, ends backward with an
    error, and so does an exception in it; nothing before the module gets a gradient, and later passes work."""
    x, w = world.leaf(v), world.leaf(v)
    module = Mix([[1, 2]], x, shape=lambda sums: sums[0])

    def hook(mod, by_input, by_output):
        if wrong == "an exception":
            raise ArithmeticError("on purpose")
        return WRONG_RETURNS[wrong][0](by_input)

    handle = module.register_full_backward_hook(hook)
    y = module(x * 3, w).sum()
    _, error, telling = WRONG_RETURNS.get(wrong, (None, ArithmeticError, "on purpose"))
    with raises(error, telling, why=f"it returns {wrong}"):
        y.backward(retain_graph=retain)
    same([x.grad, w.grad], [None, None], why="backward stopped at the module")

    handle.remove()
    module.p.grad = None
    module(x * 3, w).sum().backward()
    same([x.grad, w.grad], [torch.full_like(x, 3), torch.full_like(w, 2)], why="the next pass is a new one")
    same(module.p.grad, 5 * x.detach().sum(), why="the next pass is a new one")


@claim(
    cites=["torch_nn/backward-hook-returns-a-tuple-or-none", "torch_nn/backward-hook-fires-with-the-output-gradients"]
)
@given(v=values(shapes=NONEMPTY), nones=st.booleans(), several=st.integers(1, 2))
def spec_where_no_input_requires_grad_no_gradient_is_returned(world, v, nones, several):
    """Where no input requires grad, a full backward hook may return None, alone or in a tuple, and nothing else: a
    gradient is an error."""
    x = world.constant(v)
    module = Mix([[1, 2]], x, shape=lambda sums: sums[0])
    handle = module.register_full_backward_hook(lambda mod, by_input, by_output: (torch.ones_like(x),) * several)
    with raises(RuntimeError, "no input requires gradient", why="there is nothing that it could replace"):
        module(*[x] * several).sum().backward()
    handle.remove()

    module.p.grad = None
    module.register_full_backward_hook(lambda mod, by_input, by_output: (None,) * several if nones else None)
    module(*[x] * several).sum().backward()
    same(module.p.grad, x.sum() * (3 if several == 2 else 1), why="None replaces nothing")


class Changed(torch.nn.Module):
    """The input, perhaps changed, times two."""

    change = staticmethod(lambda x: x)

    def forward(self, x):
        """The product."""
        self.received = x
        return self.change(x) * 2


IN_PLACE = {
    "x.add_(1)": lambda x: x.add_(1),
    "x.mul_(2)": lambda x: x.mul_(2),
    "x.zero_()": lambda x: x.zero_(),
    "x.relu_()": lambda x: x.relu_(),
    "x[...] = 3": lambda x: x.__setitem__(..., 3) or x,
}


@claim(cites=["torch_nn/backward-hooks-make-views", "torch_nn/no-change-in-place-with-backward-hooks"])
@given(v=values(shapes=NONEMPTY), change=some_of(IN_PLACE, 3), inside=st.booleans(), leaf=st.booleans())
def spec_a_full_backward_hook_forbids_changes_in_place(world, v, change, inside, leaf):
    """With a full backward hook forward gets a view of an input that requires grad, and the caller a view of the
    output. To change either in place is an error that changes nothing, and the gradients are as they would be."""
    start = world.leaf(v)
    x = start if leaf else start * 1
    old = x.detach().clone()
    module = Changed()
    module.register_full_backward_hook(lambda mod, by_input, by_output: None)

    for name in change:
        if inside:
            module.change = IN_PLACE[name]
            with raises(RuntimeError, "is a view and is being modified inplace", why=f"forward does {name}"):
                module(x)
            module.change = lambda x: x
        y = module(x)
        if not inside:
            with raises(RuntimeError, "is a view and is being modified inplace", why=f"the caller does {name}"):
                IN_PLACE[name](y)
        same([x, y], [old, old * 2], why="the change was refused")
        received = module.received
        same((received is x, received.data_ptr()), (False, x.data_ptr()), why="forward gets a view")
    y.sum().backward()
    same(start.grad, torch.full_like(start, 2), why="the graph is as it was")


@claim(cites=["torch_nn/no-change-in-place-with-backward-hooks"])
@given(
    v=values(shapes=NONEMPTY, layouts=("contiguous", "offset", "strided")),
    name=st.sampled_from([*IN_PLACE]),
    after=st.booleans(),
)
def spec_what_needs_no_hook_may_be_changed_in_place(world, v, name, after):
    """A full backward hook doesn't keep forward from changing an input that doesn't require grad, nor the caller from
    changing a result that was an input, after the call, if nothing saved it; gradients are right."""
    start = world.leaf(v)
    x = start * 1 if after else world.constant(v)
    module = Changed()
    module.register_full_backward_hook(lambda mod, by_input, by_output: None)
    if after:
        y = module(x)
        old = x.detach().clone()
        IN_PLACE[name](x)
        same(y, old * 2, why="y was computed before")
        y.sum().backward()
        same(start.grad, torch.full_like(start, 2), why="y was computed before")
    else:
        module.change = IN_PLACE[name]
        expected = IN_PLACE[name](world.constant(v))
        same(module(x), expected * 2, why="a constant may be changed")
        same(x, expected, why="it was changed in place")


@claim(observed=True)
@given(
    v=values(shapes=NONEMPTY),
    shape=st.sampled_from(("list", "dict", "nested")),
    pre=st.booleans(),
)
def spec_outputs_in_lists_and_dictionaries_run_no_backward_hooks(world, v, shape, pre):
    """A full backward hook isn't called for a module whose output is neither a tensor nor a tuple of tensors: not for
    tensors in a list, a dictionary or a nested tuple, whose gradients are as without a hook."""
    x = world.leaf(v)
    shapes = {
        "list": (lambda sums: list(sums), lambda y: y[0]),
        "dict": (lambda sums: {"y": sums[0]}, lambda y: y["y"]),
        "nested": (lambda sums: ((sums[0],),), lambda y: y[0][0]),
    }
    put, take = shapes[shape]
    module, seen = Mix([[2]], x, shape=put), []
    module.register_full_backward_hook(lambda mod, by_input, by_output: seen.append(by_input))
    take(module(x)).sum().backward()
    same(seen, [], why=f"the output is in a {shape}")
    same(x.grad, torch.full_like(x, 2), why="the gradient is that of the module")
    same(module.p.grad, 2 * x.detach().sum(), why="the gradient is that of the module")


@claim(observed=True, since="2.0")
@given(v=values(shapes=NONEMPTY), text=st.booleans())
def spec_outputs_in_lists_and_dictionaries_are_warned_of(world, v, text):
    """A module with a full backward hook that returns tensors in a list or dictionary gives a warning; one that returns
    a tensor or a tuple of tensors gives none."""
    x = world.leaf(v)
    module = Mix([[2]], x, shape=lambda sums: {"y": sums[0]})
    module.register_full_backward_hook(lambda mod, by_input, by_output: None)
    with warns(UserWarning, "module output should be a Tensor or a tuple of Tensors", why="the output is a dictionary"):
        module(x)
    module.shape = (lambda sums: sums[0]) if text else tuple
    with silent(why="the output is a tensor, or a tuple of tensors"):
        module(x)


@claim(observed=True)
@given(v=values(shapes=NONEMPTY), removed=st.booleans(), calls=st.integers(1, 3))
def spec_full_backward_hooks_are_bound_to_a_call(world, v, removed, calls):
    """Which full backward hooks run is settled when the module is called: one that is removed afterwards runs in the
    backward of that call all the same, and one that is registered afterwards doesn't."""
    x = world.leaf(v)
    module, seen = Times(2, x), []
    if removed:
        handle = module.register_full_backward_hook(lambda mod, by_input, by_output: (by_input[0] * 3,))
    module.register_full_backward_hook(lambda mod, by_input, by_output: seen.append("first"))
    outputs = [module(x).sum() for _ in range(calls)]
    if removed:
        handle.remove()
    module.register_full_backward_hook(lambda mod, by_input, by_output: seen.append("second"))
    sum(outputs).backward()
    same(seen, ["first"] * calls, why="only the first was there when the module was called")
    same(x.grad, torch.full_like(x, 2 * calls * (3 if removed else 1)), why="so was the one that was removed")

    seen.clear()
    module(x).sum().backward()
    same(seen, ["first", "second"], why="the module was called again")


@claim(cites=["torch_nn/backward-hook-gets-the-gradients", "torch_nn/backward-hook-replaces-grad-input"])
@given(
    v=values(shapes=NONEMPTY),
    factors=st.lists(st.sampled_from((1, 2, -1, 3)), min_size=1, max_size=4),
    scale=st.sampled_from((None, 2)),
)
def spec_hooks_of_nested_modules_each_get_their_own_gradients(world, v, factors, scale):
    """Each module in a chain, and the chain itself, has its full backward hooks called with its own gradients, the last
    module first and the chain at the end; what a hook returns changes the gradients of those before it."""
    x = world.leaf(v)
    parts = [Times(factor, x) for factor in factors]
    chain = torch.nn.Sequential(*parts)
    seen = []

    def hook(mod, by_input, by_output):
        seen.append((mod, by_input[0], by_output[0]))
        return None if scale is None or mod is chain else (by_input[0] * scale,)

    for part in [chain, *parts]:
        part.register_full_backward_hook(hook)
    y = chain(x)
    y.backward(torch.ones_like(y))

    expected, gradient = [], 1
    for part, factor in zip(reversed(parts), reversed(factors)):
        expected.append((part, torch.full_like(x, gradient * factor), torch.full_like(x, gradient)))
        gradient *= factor * (scale or 1)
    expected.append((chain, torch.full_like(x, gradient), torch.ones_like(x)))
    same(
        [[mod is e for mod, e in zip(s[:1], each[:1])] for s, each in zip(seen, expected)],
        [[True]] * len(seen),
        why="the last comes first",
    )
    same([each[1:] for each in seen], [each[1:] for each in expected], why="each gets its own gradients")
    same(x.grad, torch.full_like(x, gradient), why="what the hooks returned is passed on")


@claim(cites=["torch_nn/backward-hook-gets-the-gradients"])
@given(v=values(shapes=NONEMPTY), scale=st.sampled_from((None, 2, -1)), create_graph=st.booleans())
def spec_full_backward_hooks_are_recorded_with_create_graph(world, v, scale, create_graph):
    """A full backward hook runs with grad mode on exactly with create_graph=True; its gradients have a graph then, and
    what it computes with them is part of the second derivative."""
    x = world.leaf(v)
    seen = []

    class Cube(torch.nn.Module):
        def forward(self, x):
            return x * x * x

    def hook(mod, by_input, by_output):
        seen.append((torch.is_grad_enabled(), by_input[0].requires_grad))
        return None if scale is None else (by_input[0] * scale,)

    module = Cube()
    module.register_full_backward_hook(hook)
    (first,) = torch.autograd.grad(module(x).sum(), x, create_graph=create_graph)

    factor = 1 if scale is None else scale
    same(seen, [(create_graph, create_graph)], why="the graph of the gradients is asked for by create_graph")
    same([first, first.requires_grad], [3 * x.detach() * x.detach() * factor, create_graph], why="that is 3x²")
    if create_graph:
        (second,) = torch.autograd.grad(first.sum(), x)
        same(second, 6 * x.detach() * factor, why="that is 6x")
