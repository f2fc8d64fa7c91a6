"""What backward leaves in .grad: gradients are added up in the leaves."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import SMALL_DTYPES, WRITABLE, claim, raises, same, values
from .kit.choices import some_of

# Functions of x on which x has no influence: their derivative is zero where they have one.
WITHOUT_INFLUENCE = {
    "x * 0": lambda x: x * 0,
    "x - x": lambda x: x - x,
    "x[:0]": lambda x: x.reshape(-1)[:0],
    "x.round()": lambda x: x.round(),
    "x.floor()": lambda x: x.floor(),
    "x.ceil()": lambda x: x.ceil(),
    "x.trunc()": lambda x: x.trunc(),
    "x.sign()": lambda x: x.sign(),
    "x.clamp(50, 60)": lambda x: x.clamp(50, 60),
    "(x - 50).relu()": lambda x: (x - 50).relu(),
    "x.masked_fill(x == x, 3)": lambda x: x.masked_fill(x == x, 3),
    "torch.where(x > 50, x, 1)": lambda x: torch.where(x > 50, x, torch.ones_like(x)),
    "x.clone().zero_()": lambda x: x.clone().zero_(),
    "x.clone().fill_(3)": lambda x: x.clone().fill_(3),
    "torch.maximum(x, 50)": lambda x: torch.maximum(x, torch.full_like(x, 50)),
}

# Ways to clear the .grad of x.
CLEARINGS = {
    "x.grad = None": lambda x: setattr(x, "grad", None),
    "del x.grad": lambda x: delattr(x, "grad"),
    "x.grad.zero_()": lambda x: x.grad.zero_(),
    "x.grad.detach().zero_()": lambda x: x.grad.detach().zero_(),
    "x.grad.fill_(0)": lambda x: x.grad.fill_(0),
    "x.grad.mul_(0)": lambda x: x.grad.mul_(0),
    "x.grad -= x.grad": lambda x: x.grad.sub_(x.grad),
    "x.grad[...] = 0": lambda x: x.grad.__setitem__(..., 0),
    "x.grad = torch.zeros_like(x)": lambda x: setattr(x, "grad", torch.zeros_like(x)),
}

# What can be written into a tensor of small integers, and what becomes of a number.
WRITES = {
    "g.mul_(2)": (lambda g: g.mul_(2), lambda number: number * 2),
    "g.neg_()": (lambda g: g.neg_(), lambda number: -number),
    "g.add_(1)": (lambda g: g.add_(1), lambda number: number + 1),
    "g.clamp_(-1, 1)": (lambda g: g.clamp_(-1, 1), lambda number: max(-1, min(1, number))),
    "g[...] = 3": (lambda g: g.__setitem__(..., 3), lambda number: 3),
    "g.copy_(-g)": (lambda g: g.copy_(-g), lambda number: -number),
}

# What can't be the .grad of x, with the error and what its message tells.
MISFITS = {
    "a dimension more": (lambda x: x.new_zeros((*x.shape, 5)), RuntimeError, "size"),
    "a dimension of one more": (lambda x: x.new_zeros((1, *x.shape)), RuntimeError, "size"),
    "another dimension of one": (lambda x: x.new_zeros((*x.shape, 1)), RuntimeError, "size"),
    "an element more": (lambda x: x.new_zeros(x.numel() + 1), RuntimeError, "size"),
    "integers": (lambda x: x.new_zeros(x.shape, dtype=torch.int64), RuntimeError, "type"),
    "booleans": (lambda x: x.new_zeros(x.shape, dtype=torch.bool), RuntimeError, "type"),
    "another precision": (lambda x: x.new_zeros(x.shape, dtype=torch.bfloat16), RuntimeError, "type"),
    "another device": (lambda x: torch.zeros_like(x, device="meta"), RuntimeError, "type"),
    "x itself": (lambda x: x, RuntimeError, "its own grad"),
    "a number": (lambda x: 3, TypeError, "Tensor or None"),
    "a list": (lambda x: x.tolist(), TypeError, "Tensor or None"),
    "False": (lambda x: False, TypeError, "Tensor or None"),
}

# Sums of tensors of no dimension in which each of them gets a view of one gradient, and sums in which none does.
JOINED = {
    "torch.stack(xs).sum()": lambda xs: torch.stack(xs).sum(),
    "torch.hstack(xs).sum()": lambda xs: torch.hstack(xs).sum(),
    "torch.stack(xs).sum(0) * 1": lambda xs: torch.stack(xs).sum(0) * 1,
    "sum(x.sum() for x in xs)": lambda xs: sum(x.sum() for x in xs),
    "sum(x.view(1) for x in xs)": lambda xs: sum(x.view(1) for x in xs).sum(),
    "torch.cat([x[None] for x in xs]).sum()": lambda xs: torch.cat([x[None] for x in xs]).sum(),
}
APART = {
    "sum(xs)": lambda xs: sum(xs),
    "sum(x * 1 for x in xs)": lambda xs: sum(x * 1 for x in xs),
    "(torch.stack(xs) * 1).sum()": lambda xs: (torch.stack(xs) * 1).sum(),
}

# Views of x, and copies, of the same numbers in the shape (-1,).
VIEWS = {
    "x.view(-1)": lambda x: x.view(-1),
    "x.reshape(-1)": lambda x: x.reshape(-1),
    "x.flatten().view_as(x.view(-1))": lambda x: x.flatten().view_as(x.view(-1)),
    "x.view(-1, 1).squeeze(1)": lambda x: x.view(-1, 1).squeeze(1),
    "x[None].view(-1)": lambda x: x[None].view(-1),
}
COPIES = {
    "x.view(-1) * 1": lambda x: x.view(-1) * 1,
    "-(-x).view(-1)": lambda x: -(-x).view(-1),
    "x.view(-1).exp().log()": lambda x: x.view(-1).exp().log(),
}


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
@given(v=values(), clearings=st.lists(st.sampled_from(list(CLEARINGS)), min_size=1, max_size=3))
def spec_clearing_or_zeroing_grad_starts_anew(world, v, clearings):
    """After .grad was set to None, deleted, replaced by zeros or zeroed in place, the next backward leaves
    its own gradient only."""
    x = world.leaf(v)
    (x * x).sum().backward()

    for factor, clearing in enumerate(clearings, start=2):
        CLEARINGS[clearing](x)
        (x * factor).sum().backward()
        same(x.grad, torch.full_like(x, factor), why=f"earlier gradients were cleared away by {clearing}")


@claim(cites=["torch_tensor/grad-accumulates", "torch_tensor/grad-can-be-set"])
@given(v=values(), writes=st.lists(st.sampled_from(list(WRITES)), min_size=1, max_size=4))
def spec_what_is_written_into_grad_counts(world, v, writes):
    """What the user writes into .grad between two backwards stays there, and the next backward adds to it."""
    x = world.leaf(v)
    (x * 2).sum().backward()

    expected = 2
    for write in writes:
        change, becomes = WRITES[write]
        change(x.grad)
        expected = becomes(expected)
        same(x.grad, torch.full_like(x, expected), why=f"that is what {write} makes of it")
        x.sum().backward()
        expected += 1
        same(x.grad, torch.full_like(x, expected), why=f"1 was added to what {write} had left: {writes}")


@claim(cites=["torch_tensor/grad-can-be-set", "torch_autograd/grad-accumulates-in-place"])
@given(v=values(), w=values(), start=st.integers(-3, 3), rest=st.integers(0, 2), passes=st.integers(1, 2))
def spec_a_grad_can_be_a_part_of_a_larger_tensor(world, v, w, start, rest, passes):
    """A tensor that the user puts into .grad becomes .grad itself, not a copy of it. If it is a part of a
    larger tensor, backward adds to that part and leaves the rest of it as it was."""
    xs = [world.leaf(v), world.leaf(w)]
    buffers = [x.new_full((rest + x.numel() + rest,), start, requires_grad=False) for x in xs]
    for x, buffer in zip(xs, buffers, strict=True):
        part = buffer[rest : rest + x.numel()].view(x.shape)
        x.grad = part
        same(x.grad is part, True, why="it is the tensor that was put there")

    for _ in range(passes):
        sum((x * factor).sum() for factor, x in enumerate(xs, start=2)).backward()

    for factor, (x, buffer) in enumerate(zip(xs, buffers, strict=True), start=2):
        expected = torch.full_like(buffer, start)
        expected[rest : rest + x.numel()] += passes * factor
        same(buffer, expected, why=f"of {len(buffer)} elements the .grad begins with number {rest}")


@claim(observed=True)
@given(v=values(), factors=st.lists(st.integers(-3, 3), min_size=2, max_size=4), passes=st.integers(1, 2))
def spec_leaves_that_were_given_one_grad_add_up_in_it(world, v, factors, passes):
    """If the user puts one tensor into the .grad of several leaves, backward adds the gradients of all of
    them to it."""
    xs = [world.leaf(v) for _ in factors]
    grad = torch.zeros_like(xs[0]).detach()
    for x in xs:
        x.grad = grad

    for _ in range(passes):
        sum((x * factor).sum() for x, factor in zip(xs, factors, strict=True)).backward()

    same([x.grad is grad for x in xs], [True] * len(xs), why="it is added to in place")
    same(grad, torch.full_like(grad, passes * sum(factors)), why=f"the factors are {factors}")


@claim(observed=True)
@given(v=values(shapes=((2,), (3,), (2, 3), (2, 1), (3, 2, 2))), start=st.integers(-3, 3), create_graph=st.booleans())
def spec_backward_cannot_add_to_a_grad_whose_elements_share_memory(world, v, start, create_graph):
    """If elements of a .grad share memory, a backward that would add to it in place raises an error that
    tells to clone it, and leaves it as it was. With create_graph=True backward replaces it."""
    x = world.leaf(v)
    grad = torch.full((), start, dtype=x.dtype, device=x.device).expand(x.shape)
    x.grad = grad

    if create_graph:
        (x * 2).sum().backward(create_graph=True)
    else:
        with raises(RuntimeError, "clone()", why="one element of memory stands for all"):
            (x * 2).sum().backward()
        same(x.grad is grad, True, why="nothing was put in its place")

    same(grad, torch.full_like(x, start).detach(), why="it was not written")
    same(x.grad.detach(), torch.full_like(x, start + 2 * create_graph).detach(), why=f"it began with {start}")
    x.grad = None
    (x * 2).sum().backward()
    same(x.grad, torch.full_like(x, 2).detach(), why="without it backward goes on as ever")


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


@claim(cites=["torch_tensor/grad-becomes-a-tensor", "torch_autograd/backward-accumulates"])
@given(
    v=values(),
    functions=some_of(WITHOUT_INFLUENCE, at_once=3),
    start=st.one_of(st.none(), st.integers(-3, 3)),
)
def spec_a_leaf_without_influence_gets_zeros(world, v, functions, start):
    """A leaf that takes part in the computation of a loss without any influence on it gets zeros, not None; a
    .grad that is there keeps its values."""
    for function in functions:
        x = world.leaf(v)
        x.grad = None if start is None else torch.full_like(x, start)

        WITHOUT_INFLUENCE[function](x).sum().backward()

        same(x.grad, torch.full_like(x, start or 0).detach(), why=f"the derivative of {function} is zero")


@claim(cites=["torch_autograd/backward-accumulates", "article/accumulates-into-dot-grad"])
@given(
    v=values(),
    count=st.integers(2, 4),
    way=st.sampled_from(["sum", "stack", "cat", "nested"]),
    passes=st.integers(1, 3),
    written=st.integers(0, 3),
)
def spec_leaves_that_get_the_same_gradient_get_one_each(world, v, count, way, passes, written):
    """The .grad of leaves that are added up as they are share no memory, although the leaves get the same gradient:
    what is written into one of them doesn't show in another, and each counts its own backwards."""
    xs = [world.leaf(v) for _ in range(count)]

    for _ in range(passes):
        if way == "sum":
            total = sum(xs)
        elif way == "stack":
            total = torch.stack(xs)
        elif way == "cat":
            total = torch.cat([x.reshape(-1) for x in xs])
        else:
            total = xs[0] + (xs[1] + sum(xs[2:])) * 1
        (total * 2).sum().backward()

    for x in xs:
        same(x.grad, torch.full_like(x, 2 * passes).detach(), why=f"{passes} backwards of sum(2 * {way})")
    xs[written % count].grad.fill_(7)
    for number, x in enumerate(xs):
        expected = 7 if number == written % count else 2 * passes
        same(x.grad, torch.full_like(x, expected).detach(), why=f"7 was written into number {written % count}")


@claim(cites=["torch_autograd/backward-accumulates"], observed=True)
@given(
    v=values(layouts=("contiguous", "offset")),
    first=st.sampled_from([*VIEWS, *COPIES]),
    second=st.sampled_from([*VIEWS, *COPIES]),
    write=st.booleans(),
)
def spec_leaves_that_are_added_through_views_share_their_grad(world, v, first, second, write):
    """If two leaves are added up, each of them through a view, the .grad of both are the same memory: what is
    written into one shows in the other, and a second backward counts both its gradients in both."""
    x, y = torch.zeros_like(world.constant(v)).requires_grad_(), torch.zeros_like(world.constant(v)).requires_grad_()
    shared = first in VIEWS and second in VIEWS
    ways = {**VIEWS, **COPIES}

    ((ways[first](x) + ways[second](y)) * torch.ones_like(x).view(-1)).sum().backward()
    same([x.grad, y.grad], [torch.ones_like(x).detach()] * 2, why="the first gradients are right")
    if write:
        x.grad.fill_(5)
        same(y.grad, torch.full_like(y, 5 if shared else 1).detach(), why=f"5 was written to x.grad: {first}, {second}")
    else:
        ((ways[first](x) + ways[second](y)) * torch.ones_like(x).view(-1)).sum().backward()
        expected = torch.full_like(x, 3 if shared else 2).detach()
        same([x.grad, y.grad], [expected] * 2, why=f"the derivative of sum({first} + {second}) is 1")


@claim(cites=["torch_autograd/backward-accumulates"], observed=True)
@given(
    count=st.integers(2, 4), way=st.sampled_from([*JOINED, *APART]), passes=st.integers(1, 3), factor=st.integers(1, 3)
)
def spec_leaves_of_no_dimension_that_are_stacked_and_summed_share_their_grad(world, count, way, passes, factor):
    """If leaves of no dimension are stacked and summed, or their sums are added, the .grad of all are the same
    memory: from the second backward on each counts the gradients of all of them."""
    xs = [torch.zeros((), device=world.device, requires_grad=True) for _ in range(count)]

    for _ in range(passes):
        ({**JOINED, **APART}[way](xs) * factor).backward()

    expected = factor + (passes - 1) * factor * (count if way in JOINED else 1)
    why = f"{passes} backwards of {factor} * {way}, of {count} leaves"
    for x in xs:
        same(x.grad, torch.full_like(x, expected).detach(), why=why)
    xs[-1].grad.fill_(50)
    expected = 50 if way in JOINED else expected
    same(xs[0].grad, torch.full_like(xs[0], expected).detach(), why=f"50 was written into the last one's .grad: {way}")


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


@claim(cites=["torch_tensor/grad-can-be-set"], needs=["bfloat16"])
@given(v=values(), misfits=some_of(MISFITS), start=st.one_of(st.none(), st.integers(-3, 3)), required=st.booleans())
def spec_grad_takes_no_tensor_of_another_shape_or_dtype(world, v, misfits, start, required):
    """Setting .grad to anything but None or another tensor of the same shape, dtype and device raises an error
    and leaves .grad as it was: the next backward adds to it."""
    x = world.constant(v).requires_grad_(required)
    x.grad = old = None if start is None else torch.full_like(x, start).detach()

    for misfit in misfits:
        make, error, telling = MISFITS[misfit]
        with raises(error, telling, why=f"{misfit} can't be the .grad of x"):
            x.grad = make(x)
        same(x.grad is old, True, why=f"{misfit} was not taken")
        same(old, None if start is None else torch.full_like(x, start).detach(), why="it was not written either")

    if required:
        (x * 2).sum().backward()
        same(x.grad, torch.full_like(x, (start or 0) + 2).detach(), why="backward goes on as ever")
