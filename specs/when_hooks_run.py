"""When hooks run: before .grad is touched, whichever way gradients are computed, by which value of a tensor."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import WRITABLE, claim, graphs, same, values
from .kit.tensors import HOOKS_MAKE, SAME_VALUES

ANYTHING = st.sampled_from(list(SAME_VALUES))


FACTORS = st.lists(st.sampled_from([2, -1, 3, 0]), max_size=2)


def multiply(tensor, factors):
    """Register on the tensor a hook for each factor, which multiplies the gradient by it."""
    for factor in factors:
        tensor.register_hook(lambda grad, factor=factor: grad * factor)


def cotangents_in_part_by_hooks(world, graph, tensors, by_hook):
    """The cotangents of the graph's roots, in which a zero stands for one that a hook on the root adds.

    That makes no difference to the gradients of what lies below.
    """
    cotangents = []
    for bit, (name, v) in enumerate(graph.cotangents.items()):
        cotangent = world.constant(v)
        if by_hook >> bit & 1:
            tensors[name].register_hook(lambda grad, more=cotangent: grad + more)
            cotangent = torch.zeros_like(cotangent)
        cotangents.append(cotangent)
    return cotangents


def product(factors):
    """The product of the factors."""
    result = 1
    for factor in factors:
        result *= factor
    return result


@claim(
    cites=["torch_tensor/hook-doubles-the-grad-of-a-leaf"],
    formerly=["hooks/the_hooks_of_a_leaf_run_before_its_grad_is_updated"],
)
@given(
    v=values(layouts=WRITABLE),
    parameter=st.booleans(),
    start=st.sampled_from([None, 0, 7]),
    more=st.integers(-3, 3),
    passes=st.integers(1, 3),
)
def spec_the_hooks_of_a_leaf_run_before_its_grad_is_updated(world, v, parameter, start, more, passes):
    """The hooks of a leaf run before backward touches its .grad, to which what they return is added. They
    stay if an optimizer changes the leaf's values and its .grad."""
    x = torch.nn.Parameter(world.constant(v)) if parameter else world.leaf(v)
    x.grad = None if start is None else torch.full_like(x, start).detach()
    inside = []

    def hook(grad):
        inside.append(None if x.grad is None else x.grad.clone())
        return grad + more

    x.register_hook(hook)
    before, total = [], start
    for _ in range(passes):
        before.append(None if total is None else torch.full_like(x, total).detach())
        (x * 2).sum().backward()
        total = (total or 0) + 2 + more
        same(x.grad, torch.full_like(x, total).detach(), why=f"the gradient is 2, and the hook adds {more} to it")
        with torch.no_grad():
            x.add_(1)

    same(inside, before, why="inside the hook .grad is what it was before this backward")


@claim(
    cites=[
        "autograd_mechanics/tensor-hooks-run-for-inputs-of-grad",
        "autograd_mechanics/backward-runs-hooks-with-inputs-too",
    ],
    since="2.0",
    formerly=["hooks/hooks_run_whichever_way_gradients_are_computed"],
)
@given(
    graph=graphs(anywhere=4),
    by_hook=st.integers(0, 15),
    picked=st.integers(1, 2**11 - 1),
    way=st.sampled_from(["one", "leaves", "inputs"]),
)
def spec_hooks_run_whichever_way_gradients_are_computed(world, graph, by_hook, picked, way):
    """What hooks return counts under backward with inputs= and torch.autograd.grad as well, be it on the way
    to what was asked for or on that itself: leaves, or one result."""
    tensors = graph.build(world)
    predicted = graph.gradients(world)
    cotangents = cotangents_in_part_by_hooks(world, graph, tensors, by_hook)
    roots = [tensors[name] for name in graph.cotangents]

    if way == "one":
        names = [[*predicted][picked % len(predicted)]]
    else:
        names = [name for bit, name in enumerate(graph.leaves) if picked >> bit & 1] or list(graph.leaves)
    inputs = [tensors[name] for name in names]
    if way == "inputs":
        torch.autograd.backward(roots, cotangents, inputs=inputs)
    else:
        gradients = torch.autograd.grad(roots, inputs, cotangents, allow_unused=True)
        same(gradients, [predicted[name] for name in names], why=f"{names} were asked for, in {graph}")
    for name in graph.leaves:
        filled = way == "inputs" and name in names
        same(tensors[name].grad, predicted[name] if filled else None, why=f"{way} was asked for {names}")


@claim(observed=True, until="2.0", formerly=["hooks/grad_leaves_out_the_hooks_of_its_input"])
@given(v=values(), inner=st.integers(-2, 3))
def spec_grad_leaves_out_the_hooks_of_its_input(world, v, inner):
    """torch.autograd.grad returns the gradient of an input as it is before the hooks of the input change it.
    Hooks on the way to an input count."""
    x = world.leaf(v)
    x.register_hook(lambda grad: grad * 5)
    y = x * inner
    y.register_hook(lambda grad: grad * 7)
    loss = (y * 3).sum()

    by_y = torch.autograd.grad(loss, y, retain_graph=True)
    by_x = torch.autograd.grad(loss, x)

    same(by_y, [torch.full_like(x, 3).detach()], why="the hook of y doesn't count for y")
    same(by_x, [torch.full_like(x, 3 * 7 * inner).detach()], why="the hook of y counts, that of x doesn't")


@claim(observed=True, formerly=["hooks/grad_by_two_tensors_leaves_out_the_hooks_of_the_upper_one"])
@given(v=values(), inner=st.integers(-2, 3), factors=st.lists(st.sampled_from([2, -1, 3, 0]), min_size=1, max_size=2))
def spec_grad_by_two_tensors_leaves_out_the_hooks_of_the_upper_one(world, v, inner, factors):
    """If torch.autograd.grad is asked for a tensor and for another one below it, what the hooks of the upper
    one return counts for the lower one only: the gradient of the upper one is that from before its hooks."""
    x = world.leaf(v)
    y = x * inner
    multiply(y, factors)

    gradients = torch.autograd.grad((y * 3).sum(), [y, x])

    same(gradients[0], torch.full_like(x, 3).detach(), why="the hooks of y don't count for y")
    same(gradients[1], torch.full_like(x, 3 * inner * product(factors)).detach(), why="they do for x, below it")


@claim(
    cites=["autograd_mechanics/tensor-hooks-run-when-gradients-are-computed"],
    formerly=["hooks/a_hook_runs_only_if_its_gradient_is_needed"],
)
@given(
    v=values(),
    length=st.integers(2, 5),
    position=st.integers(0, 4),
    way=st.sampled_from(["grad", "inputs"]),
    passes=st.integers(1, 2),
)
def spec_a_hook_runs_only_if_its_gradient_is_needed(world, v, length, position, way, passes):
    """If torch.autograd.grad or backward was asked for the gradients of some tensors only, hooks of tensors
    behind which there is none of them don't run."""
    x, side = world.leaf(v), world.leaf(v)
    chain = [x]
    for _ in range(length - 1):
        chain.append(chain[-1] * 1)
    position %= length
    calls = []
    for number, tensor in enumerate(chain):
        if number != position:
            tensor.register_hook(lambda grad, number=number: calls.append(number))
    side.register_hook(lambda grad: calls.append("side"))
    loss = (chain[-1] * side).sum()

    for _ in range(passes):
        if way == "grad":
            torch.autograd.grad(loss, chain[position], retain_graph=True)
        else:
            loss.backward(inputs=[chain[position]], retain_graph=True)

    above = list(range(length - 1, position, -1))
    same(calls, above * passes, why=f"of the tensors {list(range(length))} of the chain {position} was asked for")


@claim(
    cites=["torch_tensor/post-accumulate-hook-runs-without-grad-mode"],
    formerly=["hooks/grad_mode_is_off_in_a_hook_unless_a_graph_is_created"],
)
@given(v=values(), hooked=ANYTHING, create_graph=st.booleans(), outside=st.booleans(), passes=st.integers(1, 2))
def spec_grad_mode_is_off_in_a_hook_unless_a_graph_is_created(world, v, hooked, create_graph, outside, passes):
    """In a hook grad mode is on if backward was called with create_graph=True, and off otherwise, whatever
    it is outside. With a graph, what the hook returns can be differentiated in turn."""
    x = world.leaf(v)
    y = SAME_VALUES[hooked](x)
    modes = []

    def hook(grad):
        modes.append(torch.is_grad_enabled())
        return grad * x

    handle = y.register_hook(hook)
    loss = (y * 3).sum()
    for _ in range(passes):
        x.grad = None
        with torch.set_grad_enabled(outside):
            loss.backward(retain_graph=True, create_graph=create_graph)
            same(torch.is_grad_enabled(), outside, why="backward leaves the mode as it was")

    same(modes, [create_graph] * passes, why=f"create_graph is {create_graph}; outside grad mode is {outside}")
    same(x.grad, 3 * x.detach(), why="the hook multiplies by x")
    same(x.grad.requires_grad, create_graph, why="only with grad mode on the hook's product is recorded")
    if create_graph:
        handle.remove()
        second = torch.autograd.grad(x.grad.sum(), x)
        same(second, [torch.full_like(x, 3).detach()], why="the gradient is 3x")


@claim(
    cites=[
        "autograd_mechanics/hooks-see-the-value-before-a-change-in-place",
        "autograd_mechanics/hooks-registered-after-changes-see-the-last-value",
        "autograd_mechanics/hooks-are-bound-to-the-grad-fn",
    ],
    since="2.0",
    formerly=["hooks/a_hook_sees_the_gradient_by_the_value_at_its_registration"],
)
@given(
    v=values(),
    result=st.sampled_from(["x * 1", "x.clone()"]),
    factors=st.lists(st.integers(-2, 3), min_size=1, max_size=3),
    change=st.sampled_from(list(HOOKS_MAKE)),
)
def spec_a_hook_sees_the_gradient_by_the_value_at_its_registration(world, v, result, factors, change):
    """If a tensor is changed in place, hooks that were registered before are called with the gradient with
    respect to the value before the change, those registered after it with that by the new value."""
    x = world.leaf(v)
    y = SAME_VALUES[result](x)
    first = y * 5  # made of the first value
    seen = []

    def hook(grad):
        seen.append(grad.clone())
        return HOOKS_MAKE[change](grad)

    for factor in factors:
        y.register_hook(hook)
        y.mul_(factor)
    y.register_hook(hook)
    ((y * 2).sum() + first.sum()).backward()

    expected, gradient = [], torch.full_like(x, 2).detach()
    for number, factor in enumerate([1, *factors[::-1]]):
        gradient = gradient * factor + (5 if number == len(factors) else 0)
        expected.append(gradient)
        returned = HOOKS_MAKE[change](gradient)
        gradient = gradient if returned is None else returned
    same(seen, expected, why=f"y was multiplied by {factors} after each hook, from the last one back")
    same(x.grad, gradient, why="x gets what the hook by the first value leaves")


@claim(
    cites=["autograd_mechanics/tensor-hooks-run-before-grad-is-retained"],
    since="2.0",
    formerly=["hooks/a_retained_grad_is_what_the_hooks_leave"],
)
@given(v=values(), hooked=ANYTHING, before=FACTORS, after=FACTORS, passes=st.integers(1, 2))
def spec_a_retained_grad_is_what_the_hooks_leave(world, v, hooked, before, after, passes):
    """A retained .grad is the gradient as all hooks of the tensor leave it, be they registered before
    retain_grad() was called or after it."""
    x = world.leaf(v)
    y = SAME_VALUES[hooked](x)
    multiply(y, before)
    y.retain_grad()
    multiply(y, after)

    for _ in range(passes):
        (y * 2).sum().backward(retain_graph=True)

    total = torch.full_like(y, 2 * product(before + after) * passes).detach()
    same(y.grad, total, why=f"the hooks multiply by {before}, and behind retain_grad() by {after}")
    same(x.grad, total, why="x gets what y retains")


@claim(observed=True, until="2.0", formerly=["hooks/a_retained_grad_is_what_hooks_leave_if_one_was_there_before"])
@given(v=values(), before=FACTORS, after=FACTORS)
def spec_a_retained_grad_is_what_hooks_leave_if_one_was_there_before(world, v, before, after):
    """A retained .grad is the gradient as all hooks leave it if one of them was registered before
    retain_grad() was called; if none was, it is the gradient from before all hooks."""
    x = world.leaf(v)
    y = x * 1
    multiply(y, before)
    y.retain_grad()
    multiply(y, after)

    (y * 2).sum().backward()

    kept = 2 * product(before + after) if before else 2
    same(y.grad, torch.full_like(y, kept).detach(), why=f"before retain_grad() the hooks were {before}")
    same(x.grad, torch.full_like(x, 2 * product(before + after)).detach(), why="all hooks count for x")
