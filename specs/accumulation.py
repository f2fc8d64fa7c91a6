"""What backward leaves in .grad: gradients are added up in the leaves."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import SMALL_DTYPES, WRITABLE, claim, raises, same, values


def ones(x, order):
    """Ones in the shape of x, laid out in memory one row after the other, or one column."""
    shape = x.shape if order == "rows" else x.shape[::-1]
    made = torch.ones(shape, dtype=x.dtype, device=x.device)
    return made if order == "rows" else made.permute(*reversed(range(x.dim())))


@claim(cites=["article/dot-grad-is-a-tensor", "torch_tensor/grad-is-none-at-first"])
@given(v=values(dtypes=SMALL_DTYPES))
def spec_grad_is_none_before_the_first_backward(world, v):
    """A leaf's .grad is None until a backward reaches the leaf; recording operations leaves it so."""
    x = world.leaf(v)
    same(x.grad, None, why="x is new")

    y = (x * x).sum()
    same(x.grad, None, why="only operations were recorded")

    y.backward()
    same(x.grad is None, False, why="a backward reached x")


@claim(cites=["article/dot-grad-is-a-tensor", "article/a-grad-is-dloss-da", "torch_tensor/grad-becomes-a-tensor"])
@given(v=values(dtypes=SMALL_DTYPES))
def spec_the_first_backward_makes_a_grad_like_the_leaf(world, v):
    """The first backward that reaches a leaf makes its .grad a tensor of the leaf's shape, dtype and
    device that holds the gradient and doesn't require grad itself."""
    x = world.leaf(v)

    (x * x).sum().backward()

    same(x.grad, 2 * x.detach(), why="the gradient of sum(x*x) is 2x")
    same(x.grad.requires_grad, False, why="no graph of the gradient was asked for")


@claim(cites=["article/accumulates-into-dot-grad", "torch_autograd/backward-accumulates"])
@given(v=values(), passes=st.integers(1, 4))
def spec_backward_adds_to_the_grad_of_a_leaf(world, v, passes):
    """Each backward adds its gradient to what the leaf's .grad already holds."""
    x = world.leaf(v)

    for _ in range(passes):
        (x * x).sum().backward()  # a new graph each time: nothing is retained

    same(x.grad, passes * 2 * x.detach(), why=f"{passes} backwards of sum(x*x) add up")


@claim(cites=["article/accumulates-into-dot-grad", "article/chain-rule-root-to-leaf"])
@given(v=values(), uses=st.lists(st.integers(-3, 3), min_size=1, max_size=5))
def spec_every_use_of_a_leaf_counts(world, v, uses):
    """A leaf that is used several times in one graph gets the sum of the gradients of all its uses."""
    x = world.leaf(v)

    loss = sum((x * factor).sum() for factor in uses)
    loss.backward()

    same(x.grad, torch.full_like(x, sum(uses)), why=f"x was used with the factors {uses}")


@claim(cites=["article/accumulates-into-dot-grad", "torch_autograd/backward-accumulates"])
@given(v=values(), factors=st.permutations([1, 2, -3]))
def spec_the_gradients_of_separate_losses_add_up(world, v, factors):
    """Backward through several losses of one leaf gives the sum of their gradients, in whatever order
    the losses were made and differentiated."""
    x = world.leaf(v)
    losses = {factor: (x * factor).sum() for factor in (1, 2, -3)}

    seen = 0
    for factor in factors:
        losses[factor].backward()
        seen += factor
        same(x.grad, torch.full_like(x, seen), why=f"the factors so far add up to {seen}")


@claim(cites=["torch_tensor/grad-can-be-set", "torch_tensor/grad-accumulates"])
@given(v=values(), start=st.integers(-3, 3))
def spec_backward_adds_to_a_grad_that_the_user_set(world, v, start):
    """A tensor that the user put into .grad is what the next backward adds to."""
    x = world.leaf(v)
    x.grad = torch.full_like(x, start)

    (x * 2).sum().backward()

    same(x.grad, torch.full_like(x, start + 2), why=f".grad was set to {start}, and 2 was added")


@claim(cites=["torch_tensor/grad-can-be-cleared", "torch_autograd/backward-accumulates"])
@given(v=values(), zeroed=st.lists(st.booleans(), min_size=1, max_size=3))
def spec_clearing_or_zeroing_grad_starts_anew(world, v, zeroed):
    """After .grad was set to None or zeroed in place, the next backward leaves its own gradient only."""
    x = world.leaf(v)
    (x * x).sum().backward()

    for factor, in_place in enumerate(zeroed, start=2):
        if in_place:
            x.grad.zero_()
        else:
            x.grad = None
        (x * factor).sum().backward()
        same(x.grad, torch.full_like(x, factor), why="earlier gradients were cleared away")


@claim(cites=["article/unused-branch-has-none", "article/only-interest-in-a"])
@given(v=values(), w=values(), start=st.one_of(st.none(), st.integers(-3, 3)))
def spec_a_leaf_that_the_loss_does_not_depend_on_keeps_its_grad(world, v, w, start):
    """Backward leaves the .grad of a leaf that the loss doesn't depend on as it was, be it None or a
    tensor, also if the leaf took part in operations."""
    x, other = world.leaf(v), world.leaf(w)
    before = None if start is None else torch.full_like(other, start)
    other.grad = before
    unused = other * 2

    (x * x).sum().backward()

    same(other.grad is before, True, why="the loss is sum(x*x)")
    same(before, None if start is None else torch.full_like(other, start), why="the loss is sum(x*x)")
    same(unused.requires_grad, True, why="its graph is still there")


@claim(cites=["torch_autograd/grad-accumulates-in-place"])
@given(v=values(layouts=WRITABLE), passes=st.integers(1, 3))
def spec_later_backwards_write_into_the_same_grad(world, v, passes):
    """Without create_graph a later backward adds in place: .grad stays the same tensor, and a
    reference taken before shows the new sum."""
    x = world.leaf(v)
    (x * x).sum().backward()
    first = x.grad

    for _ in range(passes):
        (x * x).sum().backward()

    same(x.grad is first, True, why=".grad is added to in place")
    same(first, (passes + 1) * 2 * x.detach(), why="the earlier reference sees every backward")


@claim(cites=["torch_autograd/first-grad-is-laid-out-like-the-leaf", "torch_autograd/grad-accumulates-in-place"])
@given(
    v=values(shapes=((2, 3), (3, 2), (2, 2), (3, 2, 2))),  # strides along dimensions of size 1 mean nothing
    start=st.sampled_from([None, "rows", "columns"]),
    passed=st.lists(st.sampled_from([None, "rows", "columns"]), min_size=1, max_size=3),
)
def spec_grad_lies_in_memory_like_the_leaf(world, v, start, passed):
    """The .grad that backward makes has the strides of the leaf if the leaf fills its memory without gaps or
    overlaps, and is contiguous otherwise, whatever the cotangent's strides. Later backwards keep the strides
    that .grad has, those of a tensor that the user put there, too."""
    x = world.leaf(v)
    order = "columns" if x.stride() == ones(x, "columns").stride() else "rows"
    if start is not None:
        x.grad, order = ones(x, start), start

    for cotangent in passed:
        if cotangent is None:
            x.sum().backward()
        else:
            x.backward(ones(x, cotangent))
        why = f"the strides of x are {x.stride()}, and .grad was {start} at first"
        same(x.grad.stride(), ones(x, order).stride(), why=why)

    total = len(passed) + (0 if start is None else 1)
    same(x.grad, torch.full_like(x, total), why="where a number lies doesn't change it")


@claim(cites=["torch_autograd/grad-accumulates-out-of-place-with-create-graph"])
@given(v=values(), passes=st.integers(1, 3))
def spec_with_create_graph_backward_leaves_the_old_grad_alone(world, v, passes):
    """With create_graph=True a backward puts a new tensor into .grad and doesn't change the old one."""
    x = world.leaf(v)
    (x * x).sum().backward()

    for number in range(1, passes + 1):
        old = x.grad
        (x * x).sum().backward(create_graph=True)
        same(x.grad is old, False, why=".grad is a new tensor")
        same(old, number * 2 * x.detach(), why="the old tensor is as it was")
        same(x.grad, (number + 1) * 2 * x.detach(), why="the new one is the sum")
        x.grad = x.grad.detach()  # don't keep the graph that refers to x


@claim(cites=["torch_tensor/grad-can-be-set"])
@given(v=values())
def spec_grad_takes_no_tensor_of_another_shape_or_dtype(world, v):
    """Setting .grad to a tensor of another shape or dtype raises an error and leaves .grad as it was."""
    x = world.leaf(v)
    (x * 2).sum().backward()
    old = x.grad

    with raises(RuntimeError, why="the shape differs"):
        x.grad = torch.zeros((*x.shape, 5), dtype=x.dtype, device=x.device)
    with raises(RuntimeError, why="the dtype differs"):
        x.grad = torch.zeros(x.shape, dtype=torch.int64, device=x.device)

    same(x.grad is old, True, why="neither tensor was taken")
    same(old, torch.full_like(x, 2), why="neither tensor was taken")
