"""Writes that put the elements of other tensors in the place of a tensor's own: copies, indices, rows."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import WRITABLE, claim, same, values
from .kit.choices import some_of
from .kit.writes import target_and_operand


@claim(
    cites=["torch_tensor/copy-in-place-copies-the-elements", "torch_tensor/copy-in-place-takes-other-dtypes"],
    needs=["float64", "bfloat16"],
)
@given(
    pair=target_and_operand(),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.int64, torch.bool]),
    computed=st.booleans(),
    assigned=st.booleans(),
)
def spec_copy_takes_the_numbers_and_the_gradients_of_another_tensor(world, pair, dtype, computed, assigned):
    """copy_() and y[...] = w replace the numbers of a tensor by those of another one, which may broadcast and
    may have another dtype. Gradients flow to the other tensor, in its dtype, and as zeros to the old numbers."""
    target, operand = pair
    x, w = world.leaf(target), world.constant(operand).to(dtype)
    numbers = w.clone()
    if dtype.is_floating_point:
        w.requires_grad_()
    y = x * 1 if computed else world.constant(target)

    if assigned:
        y[...] = w
    else:
        y.copy_(w)

    same(y, numbers.to(x.dtype).expand(x.shape), why="y holds what w holds")
    same(y.dtype, x.dtype, why="y keeps its dtype")
    same(y.requires_grad, computed or w.requires_grad, why="y was a result, or has become one")
    if y.requires_grad:
        weights = torch.arange(y.numel(), dtype=y.dtype, device=y.device).reshape(y.shape)
        (y * weights).sum().backward()
        same(x.grad, torch.zeros_like(x) if computed else None, why="nothing of the old numbers is left")
        expected = weights.sum_to_size(w.shape).to(dtype) if w.requires_grad else None
        same(w.grad, expected, why="each element of w was copied")


# Indices to assign to, for tensors of one dimension and more.
INDICES = {
    "y[0]": lambda y: 0,
    "y[-1]": lambda y: -1,
    "y[1:]": lambda y: slice(1, None),
    "y[::2]": lambda y: slice(None, None, 2),
    "y[..., 0]": lambda y: (..., 0),
    "y[..., -1:]": lambda y: (..., slice(-1, None)),
    "y[None]": lambda y: None,
    "y[0, ...]": lambda y: (0, ...),
    "y[[-1]]": lambda y: [-1],
    "y[torch.tensor([0])]": lambda y: torch.tensor([0], device=y.device),
    "y[torch.tensor(-1)]": lambda y: torch.tensor(-1, device=y.device),
    "y[..., [0]]": lambda y: (..., [0]),
    "y[y > 0]": lambda y: y.detach() > 0,
    "y[y > 9]": lambda y: y.detach() > 9,
    "y[y[..., 0] < 0]": lambda y: y.detach()[..., 0] < 0,
    "y[torch.tensor(True)]": lambda y: torch.tensor(True, device=y.device),
    "y[...]": lambda y: ...,
}


@claim(cites=["torch_tensor/index-put-is-an-assignment", "autograd_mechanics/no-error-means-right-gradients"])
@given(
    v=values(shapes=((1,), (3,), (2, 3), (1, 3), (2, 1), (2, 1, 3), (3, 2, 2)), layouts=WRITABLE),
    indices=some_of(INDICES),
    assigned=st.sampled_from(["a number", "a 0-dim tensor", "a row", "elements"]),
    computed=st.booleans(),
)
def spec_an_assignment_to_an_index_takes_the_gradient_with_it(world, v, indices, assigned, computed):
    """To assign to an index of a tensor (numbers, slices, lists, tensors, masks) replaces the elements there and
    no others. Their gradient goes to what was assigned, summed where it was broadcast, and no longer to what
    stood there before."""
    for name in indices:
        x = world.leaf(v)
        y = x * 1 if computed else world.constant(v)
        index = INDICES[name](y)
        positions = torch.arange(y.numel(), device=y.device).reshape(y.shape)
        there = positions[index]
        hit = torch.isin(positions, there.reshape(-1))
        elements = (there * 2 + 100).to(y.dtype)
        w = {
            "a number": lambda: 5.0,
            "a 0-dim tensor": lambda: elements.new_full((), 5).requires_grad_(),
            "a row": lambda: elements.new_full(there.shape[-1:], 5).requires_grad_(),
            "elements": lambda: elements.requires_grad_(),
        }[assigned]()

        y[index] = w

        written = (positions * 2 + 100).to(y.dtype) if assigned == "elements" else torch.full_like(x.detach(), 5)
        same(y, torch.where(hit, written, x.detach()), why=f"{name} was assigned {assigned}")
        if y.requires_grad:
            (y * (positions + 1)).sum().backward()
            expected = torch.where(hit, 0, positions + 1).to(x.dtype) if computed else None
            same(x.grad, expected, why=f"{name} has no old elements any more")
            if assigned != "a number":
                same(w.grad, (there + 1).sum_to_size(w.shape).to(w.dtype), why=f"{name} was assigned {assigned}")


# Writes of rows of y, as many as w has, at the rows that i lists; whether they replace those or add to them.
ROWS = {
    "y.index_add_(0, i, w)": (lambda y, i, w: y.index_add_(0, i, w), "add"),
    "y.index_copy_(0, i, w)": (lambda y, i, w: y.index_copy_(0, i, w), "replace"),
    "y.index_put_((i,), w)": (lambda y, i, w: y.index_put_((i,), w), "replace"),
    "y.index_put_((i,), w, accumulate=True)": (lambda y, i, w: y.index_put_((i,), w, accumulate=True), "add"),
    "y[i] = w": (lambda y, i, w: y.__setitem__(i, w), "replace"),
    "y.scatter_(0, spread(i, w), w)": (lambda y, i, w: y.scatter_(0, spread(i, w), w), "replace"),
    "y.scatter_add_(0, spread(i, w), w)": (lambda y, i, w: y.scatter_add_(0, spread(i, w), w), "add"),
    "y.scatter_reduce_(0, spread(i, w), w, 'sum')": (
        lambda y, i, w: y.scatter_reduce_(0, spread(i, w), w, "sum"),
        "add",
    ),
    "y.index_fill_(0, i, w.sum())": (lambda y, i, w: y.index_fill_(0, i, w.sum()), "fill"),
    "y.masked_fill_(mask(i, y), w.sum())": (lambda y, i, w: y.masked_fill_(mask(i, y), w.sum()), "fill"),
}


def spread(i, w):
    """The index i, which lists rows, for each element of w."""
    return i.reshape(-1, *[1] * (w.dim() - 1)).expand(w.shape)


def mask(i, y):
    """True in the rows of y that i lists."""
    rows = torch.isin(torch.arange(len(y), device=y.device), i)
    return rows.reshape(-1, *[1] * (y.dim() - 1)).expand(y.shape)


@claim(
    cites=[
        "torch_tensor/index-put-is-an-assignment",
        "torch_tensor/index-add-adds-rows",
        "torch_tensor/index-copy-copies-rows",
        "torch_tensor/scatter-writes-elements",
    ]
)
@given(
    v=values(shapes=((3,), (2,), (3, 2), (2, 3), (2, 1, 3)), layouts=WRITABLE),
    order=st.permutations([0, 1]),
    repeats=st.integers(0, 2),
    writes=some_of(ROWS, 4),
    computed=st.booleans(),
)
def spec_rows_are_written_with_their_gradients(world, v, order, repeats, writes, computed):
    """index_add_, index_copy_, index_put_, index_fill_, scatter_ and their like write the rows that an index
    lists. The gradient of a row goes to what was written there; to what stood there before it goes only if
    that was added to."""
    for name in writes:
        run, effect = ROWS[name]
        rows = order[: 1 + repeats % 2] + (order[:1] if repeats and effect == "add" else [])
        x = world.leaf(v)
        w = torch.ones_like(x)[[0] * len(rows)].cumsum(0).requires_grad_()
        y = x * 1 if computed else world.constant(v)
        i = torch.tensor(rows, device=y.device)

        run(y, i, w)

        # as a product of matrices: how often is each row of w in each row of y?
        times = torch.stack([(i == row).to(y.dtype) for row in range(len(y))])
        kept = torch.ones_like(times[:, :1]) if effect == "add" else 1 - times.amax(1, keepdim=True)
        old, new = x.detach().reshape(len(y), -1), w.detach().reshape(len(w), -1)
        weights = torch.arange(y.numel(), dtype=y.dtype, device=y.device).reshape(len(y), -1) + 1
        if effect == "fill":
            numbers, by_w = kept * old + (1 - kept) * new.sum(), ((1 - kept) * weights).sum().expand(new.shape)
        else:
            numbers, by_w = kept * old + times @ new, times.t() @ weights
        same(y, numbers.reshape(x.shape), why=f"{name} was run with i = {rows}")
        (y * weights.reshape(y.shape)).sum().backward()
        same(w.grad, by_w.reshape(w.shape), why=f"{name} was run with i = {rows}")
        same(x.grad, (kept * weights).reshape(x.shape) if computed else None, why=f"{name}: the old rows")
