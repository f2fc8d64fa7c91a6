"""Hooks: functions that see the gradient of a tensor during backward, and may put another in its place."""

import contextlib

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import SMALL_DTYPES, WRITABLE, claim, graphs, raises, same, values
from .kit.tensors import HOOKS_MAKE, SAME_VALUES, WITHOUT_GRAD

ANYTHING = st.sampled_from(list(SAME_VALUES))

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

# Views of y, a result of x or x itself, that have all its elements.
VIEWS = {
    "y[...]": lambda y: y[...],
    "y.unsqueeze(0)": lambda y: y.unsqueeze(0),
    "y.view_as(y)": lambda y: y.view_as(y),
    "y.expand(2, *y.shape)": lambda y: y.expand(2, *y.shape),
}

ERRORS = {"KeyError": KeyError, "RuntimeError": RuntimeError, "ZeroDivisionError": ZeroDivisionError}
FACTORS = st.lists(st.sampled_from([2, -1, 3, 0]), max_size=2)


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
    y = SAME_VALUES[hooked](x)
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
    changes=st.lists(st.sampled_from(list(HOOKS_MAKE)), min_size=2, max_size=5),
    passes=st.integers(1, 2),
)
def spec_several_hooks_run_in_the_order_of_registration(world, v, hooked, changes, passes):
    """Several hooks of a tensor run in the order in which they were registered. Each is called with what the
    one before returned, and what the last one leaves is the gradient."""
    x = world.leaf(v)
    y = SAME_VALUES[hooked](x)
    seen = []
    for change in changes:

        def hook(grad, change=change):
            seen.append(grad.clone())
            return HOOKS_MAKE[change](grad)

        y.register_hook(hook)

    for _ in range(passes):
        (y * 3).sum().backward(retain_graph=True)

    expected, gradient = [], torch.full_like(x, 3).detach()
    for change in changes:
        expected.append(gradient)
        returned = HOOKS_MAKE[change](gradient)
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
    y = SAME_VALUES[hooked](x)
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
    y = SAME_VALUES[hooked](x)
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
    y = SAME_VALUES[hooked](x)
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


@claim(cites=["torch_tensor/hook-returns-a-tensor-or-none"], needs=["float16"])
@given(v=values(), hooked=ANYTHING, unfit=st.sampled_from(list(UNFIT)), start=st.sampled_from([None, 7]))
def spec_backward_raises_if_a_hook_returns_anything_else(world, v, hooked, unfit, start):
    """If a hook returns anything but None or a tensor of the gradient's shape and dtype, backward raises an
    error, and nothing below gets a gradient."""
    x = world.leaf(v)
    x.grad = None if start is None else torch.full_like(x, start).detach()
    y = SAME_VALUES[hooked](x)
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
    y = SAME_VALUES[hooked](x)
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


@claim(cites=["torch_tensor/hook-must-not-change-its-argument"])
@given(v=values(), factor=st.sampled_from([2, -1, 0]))
def spec_nothing_keeps_a_hook_from_changing_the_gradient_in_place(world, v, factor):
    """A hook that changes its argument in place, which it must not do, is not refused: the gradient is changed, and so
    is the tensor that the caller passed to backward, if that is the argument."""
    x = world.leaf(v)
    y = x * 1
    passed = torch.ones_like(y)

    def change(gradient):
        gradient.mul_(factor)

    y.register_hook(change)
    y.backward(passed)

    same(x.grad, torch.full_like(x, factor), why=f"the hook multiplied the gradient by {factor}")
    same(passed, torch.full_like(x, factor), why="the gradient of y is the tensor that was passed")


@claim(cites=["torch_tensor/hook-is-called-with-each-gradient"])
@given(v=values(layouts=WRITABLE), made=ANYTHING, view=st.sampled_from(list(VIEWS)), writes=st.integers(0, 2))
def spec_a_view_whose_memory_was_written_takes_a_hook(world, v, made, view, writes):
    """A view takes a hook also if its memory was written since it was made: the hook is called with the gradient by
    the view."""
    x = world.leaf(v)
    y = SAME_VALUES[made](x)
    z = VIEWS[view](y)
    seen = []
    with torch.no_grad():
        for _ in range(writes):
            y.mul_(2)

    z.register_hook(lambda grad: seen.append(grad.clone()))
    (z * 3).sum().backward()

    same(seen, [torch.full_like(z, 3).detach().contiguous()], why=f"the loss is the sum of 3 times {view}")
