"""How a backward runs: its order, its depth, calls inside calls, what it leaves alone and what an error leaves."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import claim, graphs, raises, same, values
from .kit.tensors import added, full, prepared

STARTS = st.one_of(st.none(), st.integers(-3, 3))  # what .grad holds beforehand


# The thread of a device may begin with one root before it is told of the next.
@claim(observed=True, cites=["autograd_mechanics/chain-rule-from-roots-to-leaves"], needs=["callers-thread"])
@given(graph=graphs(anywhere=3), flip=st.booleans())
def spec_results_are_gone_through_from_the_latest_to_the_earliest(world, graph, flip):
    """Backward goes through the results that its roots depend on in the opposite order of their making, also from
    several roots, in whatever order these are passed."""
    tensors = graph.build(world)
    names, seen = list(graph.cotangents)[:: -1 if flip else 1], []
    for name in graph.results:
        tensors[name].register_hook(lambda gradient, name=name: seen.append(name))

    torch.autograd.backward(
        [tensors[name] for name in names], [world.constant(graph.cotangents[name]) for name in names]
    )

    predicted = graph.gradients(world)
    expected = [name for name in reversed(graph.results) if predicted[name] is not None]
    same(seen, expected, why=f"backward goes from {names} in {graph}")


# Functions that save values for backward, with their derivatives, by hand.
SAVING = {
    "x * x": (lambda x: x * x, lambda x: 2 * x),
    "x ** 3": (lambda x: x**3, lambda x: 3 * x * x),
    "x.square()": (lambda x: x.square(), lambda x: 2 * x),
    "x.relu() * 3": (lambda x: x.relu() * 3, lambda x: 3 * (x > 0)),
}
# Ways to differentiate z = y * w by a part of what it depends on; none goes through y.
ABOVE = {
    "torch.autograd.grad(z, y)": lambda z, y, w: torch.autograd.grad(z, y)[0],
    "torch.autograd.grad(z, w)": lambda z, y, w: torch.autograd.grad(z, w)[0],
    "torch.autograd.grad(z, [w, y])": lambda z, y, w: torch.autograd.grad(z, [w, y])[1],
    "z.backward(inputs=w)": lambda z, y, w: z.backward(inputs=[w]),
}


@claim(cites=["torch_autograd/graph-is-freed-unless-retained"])
@given(
    v=values(),
    lower=st.sampled_from(list(SAVING)),
    above=st.sampled_from(list(ABOVE)),
    beside=st.sampled_from(list(SAVING)),
)
def spec_a_backward_frees_only_what_it_goes_through(world, v, lower, above, beside):
    """What lies behind the targets of a backward, or on a branch that leads to none of them, is not freed by it
    and can be differentiated later."""
    x = world.leaf(v)
    w = torch.full_like(x, 2).requires_grad_()
    (f, derivative), (g, other) = SAVING[lower], SAVING[beside]
    y, branch = f(x), g(x)
    z = (y * w).sum() + branch.sum()

    ABOVE[above](z, y, w)
    with raises(RuntimeError, "retain_graph=True", why=f"{above} went through the product"):
        ABOVE[above](z, y, w)

    for result, code, slope in ((branch, beside, other), (y, lower, derivative)):
        x.grad = None
        try:
            result.backward(torch.ones_like(result))
            freed = None
        except RuntimeError as error:
            freed = str(error)
        same(freed, None, why=f"{above} didn't go through {code}")
        same(x.grad, torch.ones_like(x) * slope(x.detach()), why=f"the derivative of {code}")


@claim(observed=True, cites=["torch_autograd/unused-inputs-are-an-error-unless-allowed"])
@given(v=values(), w=values(), code=st.sampled_from(list(SAVING)), retain=st.booleans(), position=st.integers(0, 1))
def spec_the_error_for_an_unused_input_comes_when_the_graph_is_used_up(world, v, w, code, retain, position):
    """torch.autograd.grad goes through the graph before it raises the error for an input that isn't used: unless
    it is told to retain the graph, what it went through is freed."""
    x, unused = world.leaf(v), world.leaf(w)
    y = SAVING[code][0](x)
    ones, inputs = torch.ones_like(y), [x]
    inputs.insert(position, unused)

    with raises(RuntimeError, "allow_unused=True", why=f"input {position} is unused"):
        torch.autograd.grad(y, inputs, ones, retain_graph=retain)

    same(x.grad, None, why="grad() writes into no .grad")
    if retain:
        y.backward(ones)
        same(x.grad, ones * SAVING[code][1](x.detach()), why="the graph was retained")
    else:
        with raises(RuntimeError, "retain_graph=True", why="the failing call went through the graph"):
            y.backward(ones)


@claim(observed=True)
def spec_a_graph_may_be_very_deep_or_very_wide(world):
    """Backward goes through a chain of 20,000 operations, and sums over 2,000 uses of one tensor; the deep graph can
    be released as well."""
    x = torch.ones(2, device=world.device, requires_grad=True)
    y = x
    for _ in range(20_000):
        y = y + 1
    wide = torch.stack([y + x] * 2_000).sum(0)

    wide.backward(torch.ones_like(wide), retain_graph=True)
    same(x.grad, torch.full_like(x, 4_000).detach(), why="x comes in twice, 2,000 times")
    x.grad = None
    y.backward(torch.full_like(x, 3))
    same(x.grad, torch.full_like(x, 3).detach(), why="each of the operations passes the gradient on as it is")

    del y, wide
    (x * 2).sum().backward()
    same(x.grad, torch.full_like(x, 5).detach(), why="the deep graph is gone, and a new one works as always")


class CallsBackward(torch.autograd.Function):
    """The identity, which calls a function in the middle of its backward."""

    @staticmethod
    def forward(ctx, x, call):
        """The same numbers."""
        ctx.call = call
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        """The same gradient."""
        ctx.call()
        return gradient, None


def calling(x, place, call):
    """A copy of x through which backward doesn't come without calling the function."""
    if place == "in a custom function":
        return CallsBackward.apply(x, call)
    y = x * 1
    y.register_hook(lambda gradient: call())
    return y


PLACES = ["in a hook", "in a custom function"]


@claim(observed=True)
@given(
    v=values(),
    places=st.lists(st.sampled_from(PLACES), min_size=1, max_size=4),
    ways=st.lists(st.sampled_from(["backward", "grad"]), min_size=4, max_size=4),
    deep=st.sampled_from([1, 1, 1, 1, 1, 1, 1, 30]),
)
def spec_a_backward_may_be_called_in_the_middle_of_another_one(world, v, places, ways, deep):
    """A hook or a custom function may call backward or torch.autograd.grad on another graph in the middle of a
    backward, however deep: each of them gives its own gradients, and those by one leaf add up."""
    x = world.leaf(v)
    places = places * deep
    returned, losses = [], []

    def run(number):  # the backward of this number, which runs the next one
        loss = losses[number]
        if number and ways[number % 4] == "grad":
            returned.append(torch.autograd.grad(loss, x)[0])
        elif number:
            loss.backward()

    for number in reversed(range(len(places))):
        below = (lambda number=number: run(number + 1)) if number + 1 < len(places) else (lambda: None)
        losses.insert(0, (calling(x, places[number], below) * (number + 1)).sum())
    losses[0].backward()

    numbers = range(1, len(places))
    by_grad = [number + 1 for number in numbers if ways[number % 4] == "grad"]
    total = 1 + sum(number + 1 for number in numbers if ways[number % 4] == "backward")
    same(returned, [torch.full_like(x, factor).detach() for factor in reversed(by_grad)], why="each by its own graph")
    same(x.grad, torch.full_like(x, total).detach(), why=f"{len(places)} backwards, one inside the other")


@claim(observed=True)
@given(v=values(), place=st.sampled_from(PLACES), inside=st.sampled_from(list(SAVING)), start=STARTS)
def spec_an_error_of_a_backward_inside_another_one_reaches_the_caller(world, v, place, inside, start):
    """An error of a backward that was called in the middle of another one ends both: it reaches the outer call's
    caller, and nothing comes to what lies behind the place of the inner call."""
    x = world.leaf(v)
    before = prepared(x, start)
    used = SAVING[inside][0](x).sum()
    torch.autograd.grad(used, x)
    loss = (calling(x, place, used.backward) * 2).sum()

    with raises(RuntimeError, "retain_graph=True", why="the inner backward goes through a freed graph"):
        loss.backward()

    same(x.grad is before, True, why="the gradient didn't come to x")
    same(before, full(x, start), why="the gradient didn't come to x")
    (x * x).sum().backward()
    same(x.grad, added(start, 2 * x.detach()), why="another graph works as always")


def is_one_of(states, grad):
    """Whether .grad is one of these, each of them a tensor or None."""
    return any(
        grad is state or (grad is not None and state is not None and torch.equal(grad, state)) for state in states
    )


@claim(observed=True, cites=["torch_autograd/backward-accumulates"])
@given(graph=graphs(anywhere=2), pick=st.integers(0, 20), start=STARTS)
def spec_an_error_leaves_each_grad_either_complete_or_as_it_was(world, graph, pick, start):
    """If an exception ends a backward in its middle, the .grad of each leaf is either as it was or has got its
    whole gradient. If the graph is retained, it can be used again and gives the same gradients."""
    tensors = graph.build(world)
    for name in graph.leaves:
        prepared(tensors[name], start)
    predicted = graph.gradients(world)
    roots = [tensors[name] for name in graph.cotangents]
    gradients = [world.constant(v) for v in graph.cotangents.values()]
    reached = [name for name in graph.results if predicted[name] is not None] or list(graph.cotangents)
    failing = reached[pick % len(reached)]

    def fail(gradient):
        raise ValueError("this is too much")

    handle = tensors[failing].register_hook(fail)
    with raises(ValueError, "this is too much", why=f"the hook of {failing} raises it"):
        torch.autograd.backward(roots, gradients, retain_graph=True)
    handle.remove()

    for name in graph.leaves:
        x = tensors[name]
        either = [full(x, start)] if predicted[name] is None else [full(x, start), added(start, predicted[name])]
        same(is_one_of(either, x.grad), True, why=f"the .grad of {name}, as backward ended at {failing} in {graph}")
        x.grad = None

    torch.autograd.backward(roots, gradients)
    for name in graph.leaves:
        same(tensors[name].grad, predicted[name], why="the graph was retained")


@claim(observed=True, cites=["torch_autograd/graph-is-freed-unless-retained"])
@given(
    v=values(),
    codes=st.lists(st.sampled_from(list(SAVING)), min_size=1, max_size=4),
    freed=st.integers(0, 3),
    start=STARTS,
)
def spec_a_backward_that_meets_a_freed_part_leaves_each_grad_complete_or_as_it_was(world, v, codes, freed, start):
    """If only a part of a graph was freed, a backward through the whole raises the error for it; the .grad of
    each leaf of the other parts is then as it was or has got its whole gradient, and that behind it is as it was."""
    leaves = [world.leaf(v) for _ in codes]
    before = [prepared(x, start) for x in leaves]
    parts = [SAVING[code][0](x).sum() for code, x in zip(codes, leaves)]
    freed = freed % len(codes)
    torch.autograd.grad(parts[freed], leaves[freed])

    with raises(RuntimeError, "retain_graph=True", why=f"part {freed} was freed"):
        torch.stack(parts).sum().backward()

    same(leaves[freed].grad is before[freed], True, why="no gradient could come to it")
    same(before[freed], full(leaves[freed], start), why="no gradient could come to it")
    for x, code in zip(leaves, codes):
        either = [full(x, start), added(start, torch.ones_like(x) * SAVING[code][1](x.detach()))]
        same(is_one_of(either, x.grad), True, why=f"the .grad of x, as part {freed} of {codes} was freed")


# What takes the leaf x to a root, with its derivative.
TO_ROOTS = {
    "x": (lambda x: x, 1),
    "x * 1": (lambda x: x * 1, 1),
    "x.view_as(x)": (lambda x: x.view_as(x), 1),
    "x.view_as(x) + x.view_as(x)": (lambda x: x.view_as(x) + x.view_as(x), 2),
    "x.clone() - 3 * x": (lambda x: x.clone() - 3 * x, -2),
}


# Contiguous, as PyTorch otherwise takes a view of .grad with other strides along a dimension of size 1 for a tensor
# that overlaps with it, and refuses to add the one to the other.
@claim(observed=True, cites=["torch_tensor/grad-accumulates"])
@given(
    v=values(layouts=("contiguous", "offset")), ways=st.lists(st.sampled_from(list(TO_ROOTS)), min_size=1, max_size=3)
)
def spec_the_grad_of_the_leaf_itself_may_be_passed_as_the_gradient(world, v, ways):
    """The gradient passed may be the very .grad that backward is going to add to: it is read as it was before."""
    x = world.leaf(v)
    (x * x).sum().backward()

    expected = 2 * x.detach()
    for way in ways:
        f, derivative = TO_ROOTS[way]
        f(x).backward(x.grad)
        expected = expected + derivative * expected
        same(x.grad, expected, why=f"x.grad was passed to {ways}")


@claim(observed=True, formerly=["backward/backward_returns_none_and_changes_no_values"])
@given(graph=graphs(anywhere=3))
def spec_backward_returns_none_and_changes_no_values(world, graph):
    """Backward returns None; the values of the tensors of the graph and the gradients passed are as they
    were, and none of the latter is the .grad of a leaf."""
    tensors, untouched = graph.build(world), graph.build(world)
    cotangents = {name: world.constant(v) for name, v in graph.cotangents.items()}

    got = torch.autograd.backward([tensors[name] for name in cotangents], list(cotangents.values()))

    same(got, None, why="what backward computes is in .grad")
    for name, tensor in tensors.items():
        same(tensor, untouched[name], why=f"backward reads {name} at the most")
        same(tensor._version, untouched[name]._version, why=f"backward reads {name} at the most")
    for name, v in graph.cotangents.items():
        same(cotangents[name], world.constant(v), why="backward reads it only")
        for leaf in graph.leaves:
            same(tensors[leaf].grad is cotangents[name], False, why=f"{leaf} has a .grad of its own")


VIEWS = {
    "x.reshape(-1)": lambda x: x.reshape(-1),
    "x.view_as(x)": lambda x: x.view_as(x),
    "x.unsqueeze(0)": lambda x: x.unsqueeze(0),
    "x[None].reshape(-1)": lambda x: x[None].reshape(-1),
}
COPIES = {
    "x.clone()": lambda x: x.clone(),
    "x.reshape(-1) * 1": lambda x: x.reshape(-1) * 1,
    "x + 0": lambda x: x + 0,
    "x": lambda x: x,
}


@claim(observed=True, formerly=["backward/grad_shares_memory_with_the_gradient_passed_if_only_views_lie_between"])
@given(v=values(layouts=("contiguous", "offset")), way=st.sampled_from([*VIEWS, *COPIES]))
def spec_grad_shares_memory_with_the_gradient_passed_if_only_views_lie_between(world, v, way):
    """If nothing but views lies between the root and a leaf, the leaf's .grad can be the very memory of the
    gradient that was passed: the next backward adds to the caller's tensor, too. Else it is never changed."""
    x = torch.zeros_like(world.constant(v)).requires_grad_()
    y = VIEWS[way](x) if way in VIEWS else COPIES[way](x)
    gradient = torch.ones_like(y)

    y.backward(gradient)
    same(x.grad, torch.ones_like(x), why="the derivative is 1")
    same(gradient, torch.ones_like(y), why="one backward only reads it")

    (x * 2).sum().backward()
    same(x.grad, torch.full_like(x, 3), why="the second backward adds 2")
    same(gradient, torch.full_like(y, 3 if way in VIEWS else 1), why=f"y is {way}")
