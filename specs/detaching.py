"""Detaching and copying: tensors that leave the graph, and leaves that begin a new one."""

import copy

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import WRITABLE, claim, raises, same, values
from .kit.tensors import IDENTITIES, PLAIN

LEAVES = {
    "a leaf": lambda x: x.requires_grad_(),
    "a constant": lambda x: x,
    "a frozen leaf": lambda x: x.requires_grad_().requires_grad_(False),
    "a Parameter": lambda x: torch.nn.Parameter(x),
    "a frozen Parameter": lambda x: torch.nn.Parameter(x, requires_grad=False),
}

DETACHED = {
    "x.detach()": lambda x: x.detach(),
    "torch.detach(x)": lambda x: torch.detach(x),
    "x.data": lambda x: x.data,
}


@claim(
    cites=["torch_tensor/detach-leaves-the-graph", "torch_tensor/detached-shares-storage"],
    formerly=["leaves/a_detached_tensor_is_a_leaf_that_shares_its_storage"],
    needs=["float16"],
)
@given(
    v=values(layouts=WRITABLE),
    operation=st.one_of(st.none(), st.sampled_from(list(IDENTITIES))),
    way=st.sampled_from(list(DETACHED)),
)
def spec_a_detached_tensor_is_a_leaf_that_shares_its_storage(world, v, operation, way):
    """A detached tensor is a leaf that doesn't require grad. It has the values of the original and shares
    its storage: what is written into the one shows in the other. The original stays as it was."""
    x = world.leaf(v) * 1
    if operation is not None:
        x = IDENTITIES[operation](x)
    history = x.grad_fn

    y = DETACHED[way](x)

    same([y.requires_grad, y.is_leaf, y.grad_fn], [False, True, None], why=f"it is {way}")
    same(y, x, why="detaching changes no value")
    same([x.requires_grad, x.grad_fn is history], [True, True], why="x itself was not detached")
    if operation != "x.expand_as(x)":
        y.fill_(7)
    same(x, y, why="x sees what was written into the detached tensor")


@claim(cites=["torch_tensor/detach-leaves-the-graph"], formerly=["leaves/detaching_always_gives_another_tensor"])
@given(v=values(), kind=st.sampled_from(list(LEAVES)), way=st.sampled_from(list(DETACHED)))
def spec_detaching_always_gives_another_tensor(world, v, kind, way):
    """Detaching gives another tensor, never the original and never a Parameter, even if the original is a
    leaf that doesn't require grad: what the new tensor is told later is no matter of the original."""
    x = LEAVES[kind](world.constant(v))
    required = x.requires_grad

    y = DETACHED[way](x)

    same([y is x, type(y) is torch.Tensor], [False, True], why=f"{way} was called on {kind}")
    same([y.requires_grad, y.is_leaf, y.grad], [False, True, None], why=f"it is {way}")
    y.requires_grad_()
    (y * 2).sum().backward()
    same([x.requires_grad, x.is_leaf, x.grad], [required, True, None], why="x is another tensor than y")


@claim(
    cites=["article/propagates-to-leaves", "torch_tensor/detach-leaves-the-graph"],
    formerly=["leaves/no_gradient_flows_through_a_detached_tensor"],
)
@given(v=values(), factors=st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=3))
def spec_no_gradient_flows_through_a_detached_tensor(world, v, factors):
    """A gradient doesn't flow through a detached tensor, neither right behind a leaf nor deep in a
    graph: it counts as a constant."""
    x = world.leaf(v)

    loss = 0
    for factor, early in factors:
        constant = x.detach() * factor if early else (x * factor).detach()
        loss = loss + (x * constant).sum()
    loss.backward()

    expected = sum(factor for factor, _ in factors) * x.detach()
    same(x.grad, expected, why=f"of sum(x * (f * x).detach()) the gradient is f * x, for each f of {factors}")


@claim(
    cites=["torch_tensor/detach-in-place-makes-a-leaf", "torch_tensor/views-cannot-be-detached-in-place"],
    formerly=["leaves/detach_in_place_makes_a_result_a_leaf"],
)
@given(v=values(), view=st.booleans())
def spec_detach_in_place_makes_a_result_a_leaf(world, v, view):
    """detach_() makes a result itself a leaf that doesn't require grad, and returns it. On a view it raises
    an error, and the view stays in the graph."""
    x = world.leaf(v)
    y = x[...] if view else x * 1

    if view:
        with raises(RuntimeError, "Can't detach views in-place", why="y is a view of x"):
            y.detach_()
    else:
        same(y.detach_() is y, True, why="it works in place")

    same([y.requires_grad, y.is_leaf, y.grad_fn is None], [view, not view, not view], why="a view isn't detached")
    (y * 2 + x * 3).sum().backward()
    same(x.grad, torch.full_like(x, 5 if view else 3).detach(), why="only a view is still in the graph")


@claim(
    cites=["torch_tensor/detach-in-place-makes-a-leaf"],
    formerly=["leaves/detach_in_place_only_turns_requires_grad_of_a_leaf_off"],
)
@given(v=values(layouts=("contiguous",)), kind=st.sampled_from(list(LEAVES)), used=st.booleans())
def spec_detach_in_place_only_turns_requires_grad_of_a_leaf_off(world, v, kind, used):
    """detach_() of a leaf that is no view makes it one that doesn't require grad. It has the same values, in
    the same memory, and the same .grad."""
    x = LEAVES[kind](world.constant(v))
    address, x.grad = x.data_ptr(), torch.full_like(x, 2) if used else None
    grad = x.grad

    same(x.detach_() is x, True, why="it works in place")

    same([x.requires_grad, x.is_leaf, x.grad_fn], [False, True, None], why=f"it was {kind}")
    same([x, x.data_ptr()], [world.constant(v), address], why="only the flag has changed")
    same([x.grad is grad, grad], [True, torch.full_like(x, 2) if used else None], why="only the flag has changed")


@claim(
    cites=[
        "torch_tensor/requires-grad-in-place-sets-the-flag",
        "torch_tensor/requires-grad-in-place-begins-recording",
        "torch_tensor/requiring-grad-after-a-copy-makes-a-leaf",
    ],
    formerly=["leaves/a_tensor_without_history_can_become_a_leaf_that_requires_grad"],
    needs=["float16"],
)
@given(v=values(), plain=st.sampled_from(list(PLAIN)), flags=st.sampled_from([[], [True]]))
def spec_a_tensor_without_history_can_become_a_leaf_that_requires_grad(world, v, plain, flags):
    """requires_grad_() makes a tensor that doesn't require grad, wherever its values came from, a leaf that
    does, and returns it. Its gradient goes no further."""
    x = world.leaf(v)
    y = PLAIN[plain](x)
    (y * 2).sum()  # done before y required grad: not recorded

    same(y.requires_grad_(*flags) is y, True, why="it works in place")

    same([y.requires_grad, y.is_leaf, y.grad_fn], [True, True, None], why=f"y was {plain}")
    (y * y).sum().backward()
    same(y.grad, 2 * y.detach(), why="the gradient of sum(y*y) is 2y")
    same(x.grad, None, why="y has no history")


@claim(observed=True, formerly=["leaves/a_deep_copy_of_a_leaf_is_a_leaf_of_its_own"])
@given(v=values(layouts=WRITABLE), kind=st.sampled_from(list(LEAVES)), used=st.booleans())
def spec_a_deep_copy_of_a_leaf_is_a_leaf_of_its_own(world, v, kind, used):
    """copy.deepcopy makes of a leaf another one, with the same values and the same requires_grad, in memory
    of its own. A copied Parameter is a Parameter without .grad; any other leaf's .grad is copied, too. A
    result that requires grad can't be copied so."""
    x = LEAVES[kind](world.constant(v))
    x.grad = torch.full_like(x, 2) if used else None

    y = copy.deepcopy(x)

    same([y is x, type(y) is type(x)], [False, True], why=f"it is a copy of {kind}")
    same([y.requires_grad, y.is_leaf, y.grad_fn], [x.requires_grad, True, None], why=f"it is a copy of {kind}")
    same(y, x, why="it has the same values")
    copied = used and "Parameter" not in kind
    same(y.grad, torch.full_like(x, 2) if copied else None, why=f"it is a copy of {kind}")
    with torch.no_grad():
        y.fill_(7)
        if copied:
            y.grad.fill_(7)
    same(x, world.constant(v), why="the copy has its own memory")
    same(x.grad, torch.full_like(x, 2) if used else None, why="so has its .grad")
    with raises(RuntimeError, "deepcopy protocol", why="x * 2 has a history"):
        copy.deepcopy(x.requires_grad_() * 2)


@claim(observed=True)
@given(v=values(), w=values(), kind=st.sampled_from(list(LEAVES)), used=st.booleans())
def spec_setting_data_gives_a_leaf_other_values_and_leaves_the_rest(world, v, w, kind, used):
    """To set .data of a leaf puts another tensor's values, memory, shape and floating point dtype in place of its own.
    It stays the same leaf, with its .grad, even one that doesn't fit any more, and its hooks; what is done
    afterwards is done with the new values."""
    x = LEAVES[kind](world.constant(v))
    x.grad = grad = torch.full_like(x, 2).detach() if used else None
    required, seen = x.requires_grad, []
    if required:
        x.register_hook(lambda gradient: seen.append(gradient.shape))
    new = world.constant(w)

    x.data = new

    same(x, new, why="the values are the new ones")
    same([x.data_ptr(), x.stride()], [new.data_ptr(), new.stride()], why="they are in the new memory")
    same([x.requires_grad, x.is_leaf, x.grad_fn], [required, True, None], why=f"it is {kind} as before")
    same(x.grad is grad, True, why=".grad was not touched")
    x.grad = None
    if required:
        with raises(RuntimeError, "floating point", why="integers can't require grad"):
            x.data = new.to(torch.int64)
        (x * x).sum().backward()
        same(x.grad, 2 * new, why="the gradient of sum(x*x) is 2x")
        same(seen, [new.shape], why="the hook stayed")
