"""Hooks: functions that see the gradient of a tensor during backward, and may put another in its place."""

import contextlib

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import SMALL_DTYPES, WRITABLE, claim, graphs, raises, same, values
from .kit.tensors import WITHOUT_GRAD

# What a hook is registered on: a leaf, or a result of it that has its values and its shape.
HOOKED = {
    "x": lambda x: x,
    "x * 1": lambda x: x * 1,
    "x.clone()": lambda x: x.clone(),
    "x[...]": lambda x: x[...],
    "torch.stack([x, x])[1]": lambda x: torch.stack([x, x])[1],
}
ANYTHING = st.sampled_from(list(HOOKED))

# What a hook makes of a gradient.
CHANGES = {
    "None": lambda grad: None,
    "grad * 2": lambda grad: grad * 2,
    "grad + 1": lambda grad: grad + 1,
    "-grad": lambda grad: -grad,
    "grad": lambda grad: grad,
    "torch.full_like(grad, 5)": lambda grad: torch.full_like(grad, 5),
    "torch.zeros_like(grad)": lambda grad: torch.zeros_like(grad),
}

# Tensors with the values of y, a result of x or x itself.
COPIES = {
    "y.clone()": lambda x, y: y.clone(),
    "y[...]": lambda x, y: y[...],
    "y.view_as(y)": lambda x, y: y.view_as(y),
    "x * 1": lambda x, y: x * 1,
    "y.detach().requires_grad_()": lambda x, y: y.detach().requires_grad_(),
    "torch.nn.Parameter(y.detach())": lambda x, y: torch.nn.Parameter(y.detach()),
}

# What a hook must not return: the error, how it says why, and the value.
UNFIT = {
    "3": (TypeError, "", lambda grad: 3),
    "False": (TypeError, "", lambda grad: False),
    "(grad,)": (TypeError, "", lambda grad: (grad,)),
    "grad.tolist()": (TypeError, "", lambda grad: grad.tolist()),
    "grad.unsqueeze(0)": (RuntimeError, "changed the size", lambda grad: grad.unsqueeze(0)),
    "torch.stack([grad, grad])": (RuntimeError, "changed the size", lambda grad: torch.stack([grad, grad])),
    "grad.to(torch.float16)": (RuntimeError, "changed the type", lambda grad: grad.to(torch.float16)),
    "grad.long()": (RuntimeError, "changed the type", lambda grad: grad.long()),
}

ERRORS = {"KeyError": KeyError, "RuntimeError": RuntimeError, "ZeroDivisionError": ZeroDivisionError}
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
    cites=[
        "torch_tensor/hook-is-called-with-each-gradient",
        "autograd_mechanics/tensor-hooks-run-when-gradients-are-computed",
    ]
)
@given(graph=graphs(anywhere=3), starts=st.integers(0, 3**11))
def spec_a_hook_is_called_with_each_gradient_that_is_computed(world, graph, starts):
    """A hook is called with the gradient of its tensor once for each backward that computes one, from the
    next backward on if it was registered between two. In other backwards it isn't called."""
    tensors = graph.build(world)
    roots = [tensors[name] for name in graph.cotangents]
    predicted = graph.gradients(world)
    start = {name: starts // 3**number % 3 for number, name in enumerate(predicted)}
    seen = {name: [] for name in predicted}

    for number in range(3):
        for name, gradients in seen.items():
            if start[name] == number:
                tensors[name].register_hook(lambda grad, gradients=gradients: gradients.append(grad.clone()))
        cotangents = [world.constant(v) for v in graph.cotangents.values()]
        torch.autograd.backward(roots, cotangents, retain_graph=True)

    for name, gradient in predicted.items():
        expected = [] if gradient is None else [gradient] * (3 - start[name])
        same(seen[name], expected, why=f"{name} had its hook in all but the first {start[name]} of 3 backwards")
        same([g.requires_grad for g in seen[name]], [False] * len(expected), why="no graph of it was asked for")


@claim(cites=["torch_tensor/hook-may-return-a-new-gradient"])
@given(graph=graphs(anywhere=2), hooked=st.integers(0, 2**11 - 1), count=st.integers(1, 3))
def spec_a_hook_that_returns_none_changes_nothing(world, graph, hooked, count):
    """Hooks that return None, on whichever tensors and however many, change no gradient."""
    tensors = graph.build(world)
    predicted = graph.gradients(world)
    for bit, name in enumerate(predicted):
        tensors[name].retain_grad()
        for _ in range(count if hooked >> bit & 1 else 0):
            tensors[name].register_hook(lambda grad: None)

    cotangents = [world.constant(v) for v in graph.cotangents.values()]
    torch.autograd.backward([tensors[name] for name in graph.cotangents], cotangents)

    for name, gradient in predicted.items():
        same(tensors[name].grad, gradient, why=f"{name} in {graph}, in which all hooks return None")


@claim(cites=["torch_tensor/hook-may-return-a-new-gradient", "torch_tensor/hook-doubles-the-grad-of-a-leaf"])
@given(v=values(dtypes=SMALL_DTYPES), hooked=ANYTHING, parameter=st.booleans(), passes=st.integers(1, 3))
def spec_what_a_hook_returns_is_used_as_the_gradient(world, v, hooked, parameter, passes):
    """If a hook returns a tensor, that is used in place of the gradient, whatever its values and its layout.
    The tensor itself isn't changed by it."""
    x = torch.nn.Parameter(world.constant(v)) if parameter else world.leaf(v)
    y = HOOKED[hooked](x)
    replacement = world.constant(v)
    y.register_hook(lambda grad: replacement)

    for _ in range(passes):
        (y * 3).sum().backward(retain_graph=True)

    same(x.grad, passes * world.constant(v), why=f"the hook on {hooked} returned this in place of threes")
    same(replacement, world.constant(v), why="backward reads what the hook returned and doesn't write into it")


@claim(cites=["torch_tensor/hook-may-return-a-new-gradient", "autograd_mechanics/later-hooks-see-earlier-changes"])
@given(graph=graphs(anywhere=4), by_hook=st.integers(0, 15))
def spec_what_a_hook_returns_flows_to_everything_below(world, graph, by_hook):
    """What a hook returns flows on to all tensors below its own, in place of the gradient; what reaches
    them on other paths is as before."""
    tensors = graph.build(world)
    predicted = graph.gradients(world)

    cotangents = cotangents_in_part_by_hooks(world, graph, tensors, by_hook)
    seen = {name: [] for name in predicted}
    for name, gradients in seen.items():
        tensors[name].register_hook(lambda grad, gradients=gradients: gradients.append(grad.clone()))
    torch.autograd.backward([tensors[name] for name in graph.cotangents], cotangents)

    for name, gradient in predicted.items():
        same(seen[name], [] if gradient is None else [gradient], why=f"{name}, with what hooks above it added")
        if name in graph.leaves:
            same(tensors[name].grad, gradient, why=f"{name} gets what the last of its hooks saw")


@claim(
    cites=[
        "autograd_mechanics/hooks-run-in-order-of-registration",
        "autograd_mechanics/later-hooks-see-earlier-changes",
    ]
)
@given(
    v=values(dtypes=SMALL_DTYPES),
    hooked=ANYTHING,
    changes=st.lists(st.sampled_from(list(CHANGES)), min_size=2, max_size=5),
    passes=st.integers(1, 2),
)
def spec_several_hooks_run_in_the_order_of_registration(world, v, hooked, changes, passes):
    """Several hooks of a tensor run in the order in which they were registered. Each is called with what the
    one before returned, and what the last one leaves is the gradient."""
    x = world.leaf(v)
    y = HOOKED[hooked](x)
    seen = []
    for change in changes:

        def hook(grad, change=change):
            seen.append(grad.clone())
            return CHANGES[change](grad)

        y.register_hook(hook)

    for _ in range(passes):
        (y * 3).sum().backward(retain_graph=True)

    expected, gradient = [], torch.full_like(x, 3).detach()
    for change in changes:
        expected.append(gradient)
        returned = CHANGES[change](gradient)
        gradient = gradient if returned is None else returned
    same(seen, expected * passes, why=f"the hooks return {changes}")
    same(x.grad, passes * gradient, why=f"the hooks return {changes}")


@claim(cites=["torch_tensor/hook-handle-removes-the-hook"])
@given(
    v=values(),
    hooked=ANYTHING,
    parameter=st.booleans(),
    removed=st.lists(st.integers(0, 3), min_size=1, max_size=4),
)
def spec_a_hook_that_was_removed_runs_no_more(world, v, hooked, parameter, removed):
    """remove() of the handle that register_hook() returned takes that hook away and no other. To call it
    again does nothing, and new hooks can be registered behind it."""
    x = torch.nn.Parameter(world.constant(v)) if parameter else world.leaf(v)
    y = HOOKED[hooked](x)
    # Each hook adds another power of two: the sum tells which of them ran.
    handles = [y.register_hook(lambda grad, n=n: grad + 2**n) for n in range(len(removed))]

    for number in range(3):
        for handle, when in zip(handles, removed):
            if when <= number:
                same(handle.remove(), None, why="it returns nothing, also the second and third time")
        if number == 2:
            y.register_hook(lambda grad: grad + 16)
        x.grad = None
        (y * 32).sum().backward(retain_graph=True)

        left = 32 + sum(2**n for n, when in enumerate(removed) if when > number) + (16 if number == 2 else 0)
        same(x.grad, torch.full_like(x, left).detach(), why=f"hooks were removed before the backwards {removed}")


@claim(observed=True)
@given(v=values(), hooked=ANYTHING, error=st.booleans(), removed=st.booleans())
def spec_the_handle_of_a_hook_is_a_context_manager(world, v, hooked, error, removed):
    """The handle that register_hook() returns is a context manager: the hook is removed when its block is
    left, also by an exception. Other hooks stay."""
    x = world.leaf(v)
    y = HOOKED[hooked](x)
    y.register_hook(lambda grad: grad + 1)

    with contextlib.suppress(KeyError), y.register_hook(lambda grad: grad * 2) as handle:
        (y * 3).sum().backward(retain_graph=True)
        same(x.grad, torch.full_like(x, 8).detach(), why="both hooks ran in the block: (3 + 1) * 2")
        if removed:
            handle.remove()
        if error:
            raise KeyError

    x.grad = None
    (y * 3).sum().backward()
    same(x.grad, torch.full_like(x, 4).detach(), why="only the first hook is left: 3 + 1")


@claim(cites=["torch_tensor/hook-is-called-with-each-gradient"])
@given(v=values(), hooked=st.sampled_from(["x", "x * 1", "x[...]"]), copy=st.sampled_from(list(COPIES)))
def spec_a_hook_belongs_to_one_tensor(world, v, hooked, copy):
    """A hook belongs to the tensor on which it was registered. A copy, a view or a detached tensor of that
    doesn't have it, nor does what the same operation makes the next time."""
    x = world.leaf(v)
    y = HOOKED[hooked](x)
    seen = []

    def hook(grad):
        seen.append(grad.clone())
        return grad * 2

    y.register_hook(hook)
    other = COPIES[copy](x, y)
    other.retain_grad()
    (other * 3).sum().backward()

    below = not other.is_leaf and (y is x or copy != "x * 1")  # whether the gradient of y is computed
    threes = torch.full_like(x, 3).detach()
    same(other.grad, threes, why=f"{copy} has no hook that doubles its gradient")
    same(seen, [threes] if below else [], why="the hook is called with the gradient of y only")
    same(x.grad, None if other.is_leaf else threes * (2 if below else 1), why="the hook doubles what flows through y")


@claim(cites=["torch_tensor/hook-is-called-with-each-gradient"])
@given(v=values(), constant=st.sampled_from(list(WITHOUT_GRAD)))
def spec_register_hook_raises_if_the_tensor_does_not_require_grad(world, v, constant):
    """register_hook() on a tensor that doesn't require grad raises an error and registers nothing. When the
    tensor requires grad a hook can be registered on it."""
    x = world.leaf(v)
    y = WITHOUT_GRAD[constant](x)
    calls = []

    with raises(RuntimeError, "doesn't require grad", why=f"y is {constant} and never gets a gradient"):
        y.register_hook(lambda grad: calls.append("refused"))

    same([y.requires_grad, y.is_leaf, y.grad], [False, True, None], why="nothing was changed")
    if y.is_floating_point():
        y.requires_grad_().register_hook(lambda grad: calls.append("registered"))
        (y * 2).sum().backward()
        same(calls, ["registered"], why="the first hook was refused")
        same(y.grad, torch.full_like(y, 2).detach(), why="now it is a leaf that requires grad")


@claim(cites=["torch_tensor/hook-doubles-the-grad-of-a-leaf"])
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


@claim(observed=True, until="2.0")
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


@claim(observed=True)
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


@claim(cites=["autograd_mechanics/tensor-hooks-run-when-gradients-are-computed"])
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


@claim(cites=["torch_tensor/post-accumulate-hook-runs-without-grad-mode"])
@given(v=values(), hooked=ANYTHING, create_graph=st.booleans(), outside=st.booleans(), passes=st.integers(1, 2))
def spec_grad_mode_is_off_in_a_hook_unless_a_graph_is_created(world, v, hooked, create_graph, outside, passes):
    """In a hook grad mode is on if backward was called with create_graph=True, and off otherwise, whatever
    it is outside. With a graph, what the hook returns can be differentiated in turn."""
    x = world.leaf(v)
    y = HOOKED[hooked](x)
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


@claim(cites=["torch_tensor/hook-returns-a-tensor-or-none"])
@given(v=values(), hooked=ANYTHING, unfit=st.sampled_from(list(UNFIT)), start=st.sampled_from([None, 7]))
def spec_backward_raises_if_a_hook_returns_anything_else(world, v, hooked, unfit, start):
    """If a hook returns anything but None or a tensor of the gradient's shape and dtype, backward raises an
    error, and nothing below gets a gradient."""
    x = world.leaf(v)
    x.grad = None if start is None else torch.full_like(x, start).detach()
    y = HOOKED[hooked](x)
    error, telling, make = UNFIT[unfit]
    handle = y.register_hook(lambda grad: make(grad))

    with raises(error, telling, why=f"the hook returned {unfit}"):
        (y * 3).sum().backward(retain_graph=True)

    same(x.grad, None if start is None else torch.full_like(x, start).detach(), why="nothing came through y")
    handle.remove()
    (y * 3).sum().backward()
    same(x.grad, torch.full_like(x, (start or 0) + 3).detach(), why="the hook is gone")


@claim(observed=True)
@given(
    v=values(),
    hooked=ANYTHING,
    error=st.sampled_from(list(ERRORS)),
    passes=st.integers(1, 2),
    start=st.sampled_from([None, 7]),
)
def spec_an_exception_in_a_hook_reaches_the_caller(world, v, hooked, error, passes, start):
    """An exception in a hook ends backward and reaches its caller. Later hooks of the tensor don't run, and
    nothing below gets a gradient; the hooks stay registered, and the graph can be used again."""
    x = world.leaf(v)
    x.grad = None if start is None else torch.full_like(x, start).detach()
    y = HOOKED[hooked](x)
    calls = []

    def fail(grad):
        calls.append("fails")
        raise ERRORS[error]("the hook failed")

    y.register_hook(lambda grad: calls.append("first"))
    handle = y.register_hook(fail)
    y.register_hook(lambda grad: calls.append("last"))
    loss = (y * 3).sum()

    for _ in range(passes):
        with raises(ERRORS[error], "the hook failed", why="the exception is the hook's own"):
            loss.backward(retain_graph=True)
        same(x.grad, None if start is None else torch.full_like(x, start).detach(), why="nothing came through y")
    same(calls, ["first", "fails"] * passes, why="the exception kept the last hook from being called")

    handle.remove()
    loss.backward()
    same(calls[2 * passes :], ["first", "last"], why="only one hook was removed")
    same(x.grad, torch.full_like(x, (start or 0) + 3).detach(), why="only this backward came to its end")


@claim(
    cites=[
        "autograd_mechanics/hooks-see-the-value-before-a-change-in-place",
        "autograd_mechanics/hooks-registered-after-changes-see-the-last-value",
        "autograd_mechanics/hooks-are-bound-to-the-grad-fn",
    ],
    since="2.0",
)
@given(
    v=values(),
    result=st.sampled_from(["x * 1", "x.clone()"]),
    factors=st.lists(st.integers(-2, 3), min_size=1, max_size=3),
    change=st.sampled_from(list(CHANGES)),
)
def spec_a_hook_sees_the_gradient_by_the_value_at_its_registration(world, v, result, factors, change):
    """If a tensor is changed in place, hooks that were registered before are called with the gradient with
    respect to the value before the change, those registered after it with that by the new value."""
    x = world.leaf(v)
    y = HOOKED[result](x)
    first = y * 5  # made of the first value
    seen = []

    def hook(grad):
        seen.append(grad.clone())
        return CHANGES[change](grad)

    for factor in factors:
        y.register_hook(hook)
        y.mul_(factor)
    y.register_hook(hook)
    ((y * 2).sum() + first.sum()).backward()

    expected, gradient = [], torch.full_like(x, 2).detach()
    for number, factor in enumerate([1, *factors[::-1]]):
        gradient = gradient * factor + (5 if number == len(factors) else 0)
        expected.append(gradient)
        returned = CHANGES[change](gradient)
        gradient = gradient if returned is None else returned
    same(seen, expected, why=f"y was multiplied by {factors} after each hook, from the last one back")
    same(x.grad, gradient, why="x gets what the hook by the first value leaves")


@claim(cites=["autograd_mechanics/tensor-hooks-run-before-grad-is-retained"], since="2.0")
@given(v=values(), hooked=ANYTHING, before=FACTORS, after=FACTORS, passes=st.integers(1, 2))
def spec_a_retained_grad_is_what_the_hooks_leave(world, v, hooked, before, after, passes):
    """A retained .grad is the gradient as all hooks of the tensor leave it, be they registered before
    retain_grad() was called or after it."""
    x = world.leaf(v)
    y = HOOKED[hooked](x)
    multiply(y, before)
    y.retain_grad()
    multiply(y, after)

    for _ in range(passes):
        (y * 2).sum().backward(retain_graph=True)

    total = torch.full_like(y, 2 * product(before + after) * passes).detach()
    same(y.grad, total, why=f"the hooks multiply by {before}, and behind retain_grad() by {after}")
    same(x.grad, total, why="x gets what y retains")


@claim(observed=True, until="2.0")
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
