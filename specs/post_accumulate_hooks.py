"""Hooks on leaves that run when .grad is complete: an optimizer's step may be taken during backward."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import WRITABLE, claim, graphs, raises, same, values
from .kit.tensors import WITHOUT_GRAD

# Results of x, which are no leaves.
RESULTS = {
    "x * 1": lambda x: x * 1,
    "x.clone()": lambda x: x.clone(),
    "x[...]": lambda x: x[...],
    "torch.stack([x, x])[1]": lambda x: torch.stack([x, x])[1],
}

# What a post-accumulate hook must not return, and the error.
NOT_NONE = {
    "leaf.grad": (lambda leaf: leaf.grad, RuntimeError),
    "torch.ones_like(leaf)": (lambda leaf: torch.ones_like(leaf), RuntimeError),
    "3": (lambda leaf: 3, TypeError),
    "False": (lambda leaf: False, TypeError),
    "()": (lambda leaf: (), TypeError),
}


@claim(
    cites=[
        "torch_tensor/post-accumulate-hook-runs-when-grad-is-complete",
        "torch_tensor/post-accumulate-hook-gets-the-tensor",
        "autograd_mechanics/hooks-run-in-order-of-registration",
    ],
    since="2.1",
)
@given(graph=graphs(anywhere=2), count=st.integers(1, 2), double=st.booleans(), passes=st.integers(1, 3))
def spec_a_hook_sees_the_updated_grad(world, graph, count, double, passes):
    """A hook registered with register_post_accumulate_grad_hook() on a leaf is called with the leaf once for
    each backward that reaches it, when its .grad is complete and all other hooks have run."""
    tensors = graph.build(world)
    predicted = graph.gradients(world)
    calls = {name: [] for name in graph.leaves}
    for name, seen in calls.items():
        for number in range(count):

            def hook(leaf, name=name, seen=seen, number=number):
                seen.append((number, leaf is tensors[name], torch.is_grad_enabled(), leaf.grad.clone()))

            tensors[name].register_post_accumulate_grad_hook(hook)
        if double:  # registered later, called earlier
            tensors[name].register_hook(lambda grad: grad * 2)

    for _ in range(passes):
        cotangents = [world.constant(v) for v in graph.cotangents.values()]
        torch.autograd.backward([tensors[name] for name in graph.cotangents], cotangents, retain_graph=True)

    for name, seen in calls.items():
        expected = []
        for total in range(1, passes + 1) if predicted[name] is not None else ():
            gradient = total * predicted[name] * (2 if double else 1)
            expected += [(number, True, False, gradient) for number in range(count)]
        same(seen, expected, why=f"the hooks of {name} in {graph}: which, the leaf itself, grad mode, .grad")


@claim(
    cites=[
        "torch_tensor/post-accumulate-hook-gets-the-tensor",
        "torch_tensor/post-accumulate-hook-runs-without-grad-mode",
    ],
    since="2.1",
)
@given(
    v=values(layouts=WRITABLE),
    parameter=st.booleans(),
    clear=st.sampled_from(["None", "zero"]),
    passes=st.integers(1, 3),
)
def spec_a_hook_may_change_the_leaf_and_its_grad(world, v, parameter, clear, passes):
    """A post-accumulate hook may write into the leaf and its .grad, and set .grad to None: an optimizer's
    step during backward."""
    x = torch.nn.Parameter(world.constant(v)) if parameter else world.leaf(v)

    def step(leaf):
        leaf.sub_(leaf.grad)
        if clear == "None":
            leaf.grad = None
        else:
            leaf.grad.zero_()

    x.register_post_accumulate_grad_hook(step)
    for number in range(1, passes + 1):
        (x * 3).sum().backward()
        same(x.detach(), world.constant(v) - 3 * number, why=f"the hook subtracted the gradient {number} times")
        same(x.grad, None if clear == "None" else torch.zeros_like(x).detach(), why="the hook cleared it")
    same([x.is_leaf, x.requires_grad], [True, True], why="x is the same leaf")


@claim(
    cites=[
        "torch_tensor/post-accumulate-handle-removes-the-hook",
        "torch_tensor/post-accumulate-hook-runs-when-grad-is-complete",
    ],
    since="2.1",
)
@given(v=values(), parameter=st.booleans(), removed=st.lists(st.integers(0, 2), min_size=1, max_size=3))
def spec_a_hook_runs_only_if_grad_is_updated(world, v, parameter, removed):
    """A post-accumulate hook isn't called by torch.autograd.grad, nor by a backward for other inputs, nor any
    more after its handle's remove(), which takes no other hook away."""
    x = torch.nn.Parameter(world.constant(v)) if parameter else world.leaf(v)
    other = world.leaf(v)
    loss = (x * other).sum()
    calls = []
    x.register_hook(lambda grad: calls.append("gradient"))
    handles = [x.register_post_accumulate_grad_hook(lambda _, n=n: calls.append(n)) for n in range(len(removed))]

    for number in range(2):
        for handle, when in zip(handles, removed):
            if when <= number:
                handle.remove()
        calls.clear()
        torch.autograd.grad(loss, x, retain_graph=True)
        same(calls, ["gradient"], why="torch.autograd.grad updates no .grad")
        loss.backward(inputs=[other], retain_graph=True)
        same(calls, ["gradient"], why="only the other leaf's gradient was asked for")
        loss.backward(retain_graph=True)
        left = [n for n, when in enumerate(removed) if when > number]
        same(calls, ["gradient", "gradient", *left], why=f"hooks were removed before the rounds {removed}")


@claim(cites=["torch_tensor/post-accumulate-hook-is-for-leaves"], since="2.1")
@given(v=values(), tensor=st.sampled_from([*RESULTS, *WITHOUT_GRAD]), retain=st.booleans())
def spec_a_hook_is_refused_by_all_but_leaves(world, v, tensor, retain):
    """register_post_accumulate_grad_hook() on a result of an operation, or on a tensor that doesn't require
    grad, raises an error and registers nothing."""
    x = world.leaf(v)
    y = {**RESULTS, **WITHOUT_GRAD}[tensor](x)
    if retain and y.requires_grad:
        y.retain_grad()
    calls = []

    with raises(RuntimeError, "non-leaf", "doesn't require grad", why=f"y is {tensor}, no leaf that requires grad"):
        y.register_post_accumulate_grad_hook(calls.append)

    (x * 3 + (y.sum() if y.requires_grad else 0)).sum().backward()
    same(calls, [], why="the hook was refused")
    same(y.retains_grad, retain and y.requires_grad, why="nothing else was changed")


@claim(cites=["torch_tensor/post-accumulate-hook-returns-nothing"], since="2.1")
@given(v=values(), returned=st.sampled_from(list(NOT_NONE)))
def spec_backward_raises_if_a_hook_returns_anything(world, v, returned):
    """If a post-accumulate hook returns anything but None, backward raises an error; .grad is complete by then."""
    x = world.leaf(v)
    make, error = NOT_NONE[returned]
    handle = x.register_post_accumulate_grad_hook(lambda leaf: make(leaf))

    with raises(error, "should return None", "hook returned", why=f"the hook returned {returned}"):
        (x * 2).sum().backward()

    same(x.grad, torch.full_like(x, 2), why="the hook runs behind the accumulation")
    handle.remove()
    (x * 2).sum().backward()
    same(x.grad, torch.full_like(x, 4), why="the hook is gone")
