"""The derivatives of single operations, in the corners of their parameters, against differences of their values."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import claim, same, values
from .kit.choices import some_of

# A cube of equal sides keeps its shape when dimensions are confused: only the numbers tell.
CUBES = ((2, 2, 2), (3, 3, 3), (2, 3, 2), (3, 2, 3), (2, 2, 3))


def numbers_like(x, shape):
    """Small numbers of the dtype of x, different ones in most places."""
    made = torch.arange(1, 1 + torch.Size(shape).numel(), dtype=x.dtype, device=x.device)
    return (made % 5 - 2).reshape(shape)


def index_like(x, *numbers):
    """A tensor of indices where x is."""
    return torch.tensor(numbers, device=x.device)


def like(x, *ones):
    """Indices, all zeros or all ones, for gathering along the first dimension of x."""
    return torch.full(x.shape, *ones, dtype=torch.int64, device=x.device)


# Operations on three dimensions that are linear or quadratic in each element.
POLYNOMIAL = {
    # the order of dimensions and elements
    "x.permute(1, 2, 0)": lambda x: x.permute(1, 2, 0),
    "x.permute(2, 0, 1)": lambda x: x.permute(2, 0, 1),
    "x.permute(-1, 0, -2)": lambda x: x.permute(-1, 0, -2),
    "x.permute(0, 2, 1)": lambda x: x.permute(0, 2, 1),
    "x.transpose(0, 2)": lambda x: x.transpose(0, 2),
    "x.transpose(-1, 0)": lambda x: x.transpose(-1, 0),
    "x.mT": lambda x: x.mT,
    "x.movedim(0, -1)": lambda x: x.movedim(0, -1),
    "x.movedim((0, 1), (2, 0))": lambda x: x.movedim((0, 1), (2, 0)),
    "x.swapaxes(1, 2)": lambda x: x.swapaxes(1, 2),
    "x.flip(0, 2)": lambda x: x.flip(0, 2),
    "x.flip(1)": lambda x: x.flip(1),
    "x.rot90(1, (0, 2))": lambda x: x.rot90(1, (0, 2)),
    "x.rot90(3, (1, 2))": lambda x: x.rot90(3, (1, 2)),
    "x.roll(1, 1)": lambda x: x.roll(1, 1),
    "x.roll((1, -1), (0, 2))": lambda x: x.roll((1, -1), (0, 2)),
    "x.roll(2)": lambda x: x.roll(2),
    # shapes
    "x.flatten(1)": lambda x: x.flatten(1),
    "x.reshape(x.shape[2], -1)": lambda x: x.reshape(x.shape[2], -1),
    "x.unsqueeze(1).squeeze(1)": lambda x: x.unsqueeze(1).squeeze(1),
    "x.expand(2, *x.shape)": lambda x: x.expand(2, *x.shape),
    "x[:1].expand(3, -1, -1)": lambda x: x[:1].expand(3, -1, -1),
    "x.repeat(2, 1, 2)": lambda x: x.repeat(2, 1, 2),
    "x.repeat(2, 1, 1, 3)": lambda x: x.repeat(2, 1, 1, 3),
    "x.tile(2, 1)": lambda x: x.tile(2, 1),
    "x.repeat_interleave(2, 1)": lambda x: x.repeat_interleave(2, 1),
    "x[:2].repeat_interleave(index, 0)": lambda x: x[:2].repeat_interleave(index_like(x, 1, 3), 0),
    # parts
    "x.select(1, -1)": lambda x: x.select(1, -1),
    "x.narrow(2, 1, 1)": lambda x: x.narrow(2, 1, 1),
    "x[:, 1:]": lambda x: x[:, 1:],
    "x[..., ::2]": lambda x: x[..., ::2],
    "x[-1, :, 1]": lambda x: x[-1, :, 1],
    "x[:, [1, 0, 1]]": lambda x: x[:, [1, 0, 1]],
    "x[[0, 1, 1], [1, 0, 0]]": lambda x: x[[0, 1, 1], [1, 0, 0]],
    "x[[0, 1], :, [1, 1]]": lambda x: x[[0, 1], :, [1, 1]],
    "x[..., None, 1:]": lambda x: x[..., None, 1:],
    "x.diagonal()": lambda x: x.diagonal(),
    "x.diagonal(1)": lambda x: x.diagonal(1),
    "x.diagonal(1, 0, 2)": lambda x: x.diagonal(1, 0, 2),
    "x.diagonal(-1, 1, 2)": lambda x: x.diagonal(-1, 1, 2),
    "x.diagonal(1, 2, 0)": lambda x: x.diagonal(1, 2, 0),
    "x[0].diag(1)": lambda x: x[0].diag(1),
    "x[0, 0].diag(-1)": lambda x: x[0, 0].diag(-1),
    "x.diag_embed(1)": lambda x: x.diag_embed(1),
    "x.diag_embed(-1, 0, 2)": lambda x: x.diag_embed(-1, 0, 2),
    "x.tril(-1)": lambda x: x.tril(-1),
    "x.tril(1)": lambda x: x.tril(1),
    "x.triu(1)": lambda x: x.triu(1),
    "x.triu(-1)": lambda x: x.triu(-1),
    "x[0].trace()": lambda x: x[0].trace(),
    "x.unfold(1, 2, 1)": lambda x: x.unfold(1, 2, 1),
    "x.unfold(0, 1, 2)": lambda x: x.unfold(0, 1, 2),
    "x.reshape(-1).clone().as_strided((3, 2), (1, 2), 1)": lambda x: (
        x.reshape(-1).clone().as_strided((3, 2), (1, 2), 1)
    ),
    "x.reshape(-1).clone().as_strided((2, 3), (0, 1))": lambda x: x.reshape(-1).clone().as_strided((2, 3), (0, 1)),
    "x.split(1, 2)[1]": lambda x: x.split(1, 2)[1],
    "x.chunk(2, 1)[1]": lambda x: x.chunk(2, 1)[1],
    "x.tensor_split(2, 0)[0]": lambda x: x.tensor_split(2, 0)[0],
    "x.unbind(1)[1]": lambda x: x.unbind(1)[1],
    "torch.cat([x, 2 * x, x[:, :1]], 1)": lambda x: torch.cat([x, 2 * x, x[:, :1]], 1),
    "torch.stack([x, -x], 2)": lambda x: torch.stack([x, -x], 2),
    "torch.dstack([x, 3 * x])": lambda x: torch.dstack([x, 3 * x]),
    # through indices
    "x.index_select(1, index)": lambda x: x.index_select(1, index_like(x, 1, 0, 1)),
    "x.gather(0, zeros)": lambda x: x.gather(0, like(x, 0)),
    "x.gather(2, ones)": lambda x: x.gather(2, like(x, 1)),
    "x.take(index)": lambda x: x.take(index_like(x, 7, 0, 7, -1)),
    "x.take_along_dim(ones, 1)": lambda x: x.take_along_dim(like(x, 1), 1),
    "x.masked_fill(mask, 3)": lambda x: x.masked_fill(numbers_like(x, x.shape[1:]) > 0, 3),
    "x.masked_scatter(mask, 2 * x)": lambda x: x.masked_scatter(numbers_like(x, x.shape) > 0, 2 * x),
    "x.scatter(1, index, 2 * x)": lambda x: x.scatter(1, like(x, 1)[:, :1], 2 * x[:, :1]),
    "x.scatter_add(0, ones, 2 * x)": lambda x: x.scatter_add(0, like(x, 1), 2 * x),
    "x.index_add(1, index, x, alpha=2)": lambda x: x[:, :2].index_add(1, index_like(x, 1, 1), x[:, :2], alpha=2),
    "x.index_copy(2, index, -x)": lambda x: x.index_copy(2, index_like(x, 1), -x[..., :1]),
    "x.index_fill(0, index, 2)": lambda x: x.index_fill(0, index_like(x, 1), 2),
    "x.index_put((index,), x, True)": lambda x: x.index_put((index_like(x, 1, 1),), 3 * x[:2], True),
    "x.index_put((index,), x)": lambda x: x.index_put((index_like(x, 0, 1),), 3 * x[:2]),
    "torch.where(mask, x, x * x)": lambda x: torch.where(numbers_like(x, x.shape[2:]) > 0, x, x * x),
    # sums
    "x.sum((0, 2))": lambda x: x.sum((0, 2)),
    "x.sum(1, keepdim=True)": lambda x: x.sum(1, keepdim=True),
    "x.sum(-1) * x.sum(1)[:, :1]": lambda x: x.sum(-1) * x.sum(1)[:, :1],
    "x.cumsum(1)": lambda x: x.cumsum(1),
    "x.cumsum(-1)": lambda x: x.cumsum(-1),
    "x.diff(dim=0)": lambda x: x.diff(dim=0),
    "x.diff(n=2, dim=1)": lambda x: x.diff(n=2, dim=1),
    "x.diff(prepend=x, dim=2)": lambda x: x.diff(prepend=x, dim=2),
    "torch.trapezoid(x, dim=1)": lambda x: torch.trapezoid(x, dim=1),
    "x.nansum(1)": lambda x: x.nansum(1),
    # products
    "x * x.sum(1, keepdim=True)": lambda x: x * x.sum(1, keepdim=True),
    "x @ x.mT": lambda x: x @ x.mT,
    "x.mT @ x": lambda x: x.mT @ x,
    "x @ w": lambda x: x @ numbers_like(x, (x.shape[2], 2)),
    "w @ x": lambda x: numbers_like(x, (2, x.shape[1])) @ x,
    "x @ x[0, 0]": lambda x: x @ x[0, 0],
    "x[:, 0] @ x[0].T": lambda x: x[:, 0] @ x[0].T,
    "torch.bmm(x, x.mT)": lambda x: torch.bmm(x, x.mT),
    "torch.baddbmm(x, w, w, beta=-2, alpha=3)": lambda x: torch.baddbmm(
        x, numbers_like(x, (len(x), x.shape[1], 2)), numbers_like(x, (len(x), 2, x.shape[2])), beta=-2, alpha=3
    ),
    "torch.addmm(x[0], w, x[1], beta=2, alpha=-1)": lambda x: torch.addmm(
        x[0], numbers_like(x, (x.shape[1], x.shape[1])), x[1], beta=2, alpha=-1
    ),
    "torch.addmv(x[0, :, 0], x[1], w)": lambda x: torch.addmv(x[0, :, 0], x[1], numbers_like(x, x.shape[2:]), alpha=2),
    "torch.addr(x[0], x[0, :, 0], w)": lambda x: torch.addr(x[0], x[0, :, 0], numbers_like(x, x.shape[2:]), beta=3),
    "torch.einsum('ijk,ijl->kl', x, x)": lambda x: torch.einsum("ijk,ijl->kl", x, x),
    "torch.einsum('ijk->kij', x)": lambda x: torch.einsum("ijk->kij", x),
    "torch.tensordot(x, x, ([0, 2], [0, 2]))": lambda x: torch.tensordot(x, x, ([0, 2], [0, 2])),
    "torch.kron(x[0], x[1])": lambda x: torch.kron(x[0], x[1]),
    "torch.inner(x, x[1])": lambda x: torch.inner(x, x[1]),
    "torch.outer(x[0, 0], x[1, 1])": lambda x: torch.outer(x[0, 0], x[1, 1]),
    "torch.addcmul(x, x, w, value=-2)": lambda x: torch.addcmul(x, x, numbers_like(x, x.shape[1:]), value=-2),
    "torch.addcdiv(x, x, w, value=3)": lambda x: torch.addcdiv(
        x, x, 2 * (numbers_like(x, x.shape) + 2).clamp(1, 2), value=3
    ),
    "torch.lerp(x, x * x, w)": lambda x: torch.lerp(x, x * x, numbers_like(x, x.shape)),
    "torch.sub(x, x.flip(0), alpha=3)": lambda x: torch.sub(x, x.flip(0), alpha=3),
    "torch.rsub(x, 2, alpha=3)": lambda x: torch.rsub(x, 2, alpha=3),
    "x / 4": lambda x: x / 4,
    "x ** 2": lambda x: x**2,
    "x ** exponents": lambda x: x ** (numbers_like(x, x.shape) + 2).clamp(1, 2),
    "torch.dot(x[0, 0], x[1, 0])": lambda x: torch.dot(x[0, 0], x[1, 0]),
    # layers
    "pad(x, (1, 0, 2, 1))": lambda x: torch.nn.functional.pad(x, (1, 0, 2, 1)),
    "pad(x, (-1, 2), value=3)": lambda x: torch.nn.functional.pad(x, (-1, 2), value=3),
    "pad(x, (1, 1), 'reflect')": lambda x: torch.nn.functional.pad(x, (1, 1), "reflect"),
    "pad(x, (2, 1), 'replicate')": lambda x: torch.nn.functional.pad(x, (2, 1), "replicate"),
    "pad(x, (1, 2), 'circular')": lambda x: torch.nn.functional.pad(x, (1, 2), "circular"),
    "linear(x, w, b)": lambda x: torch.nn.functional.linear(x, numbers_like(x, (2, x.shape[2])), numbers_like(x, (2,))),
    "linear(w, x[0], x[0, :, 0])": lambda x: torch.nn.functional.linear(
        numbers_like(x, (2, 2, x.shape[2])), x[0], x[0, :, 0]
    ),
    "conv1d(x, w, padding=2, dilation=2)": lambda x: torch.nn.functional.conv1d(
        x, numbers_like(x, (2, x.shape[1], 2)), padding=2, dilation=2
    ),
    "conv1d(w, x, stride=2)": lambda x: torch.nn.functional.conv1d(
        numbers_like(x, (2, x.shape[1], 5)), x, x[:, 0, 0], stride=2
    ),
    "conv_transpose1d(x, w, stride=2)": lambda x: torch.nn.functional.conv_transpose1d(
        x, numbers_like(x, (x.shape[1], 2, 2)), stride=2, padding=1, output_padding=1
    ),
    "avg_pool1d(x, 2, 1, 1)": lambda x: torch.nn.functional.avg_pool1d(x, 2, 1, 1),
    "interpolate(x, scale_factor=2)": lambda x: torch.nn.functional.interpolate(x, scale_factor=2),
    "embedding(index, x[0])": lambda x: torch.nn.functional.embedding(index_like(x, 1, 0, 1), x[0]),
    "embedding(index, x[0], padding_idx=1)": lambda x: torch.nn.functional.embedding(index_like(x, 0, 0), x[0], 1),
    "embedding_bag(index, x[0], offsets)": lambda x: torch.nn.functional.embedding_bag(
        index_like(x, 1, 0, 1, 1), x[0], index_like(x, 0, 1), mode="sum"
    ),
    "unfold(x[None], 2, padding=1)": lambda x: torch.nn.functional.unfold(x[None], 2, padding=1, stride=1),
    "mse_loss(x, w)": lambda x: torch.nn.functional.mse_loss(x, numbers_like(x, x.shape), reduction="sum"),
}
# Operations whose derivatives depend on the order of elements, or on their signs; the bounds are even numbers.
BY_ORDER = {
    "x.max(1).values": lambda x: x.max(1).values,
    "x.min(0, keepdim=True).values": lambda x: x.min(0, keepdim=True).values,
    "x.max()": lambda x: x.max(),
    "x.amax((0, 2))": lambda x: x.amax((0, 2)),
    "x.amin(1, keepdim=True)": lambda x: x.amin(1, keepdim=True),
    "x.sort(1, descending=True).values": lambda x: x.sort(1, descending=True).values,
    "x.sort(-1).values": lambda x: x.sort(-1).values,
    "x.msort()": lambda x: x.msort(),
    "x.topk(2, 1).values": lambda x: x.topk(2, 1).values,
    "x.topk(1, 0, largest=False).values": lambda x: x.topk(1, 0, largest=False).values,
    "x.kthvalue(2, 1).values": lambda x: x.kthvalue(2, 1).values,
    "x.median(2).values": lambda x: x.median(2).values,
    "x.median()": lambda x: x.median(),
    "x.nanmedian(0).values": lambda x: x.nanmedian(0).values,
    "x.cummax(1).values": lambda x: x.cummax(1).values,
    "x.cummin(0).values": lambda x: x.cummin(0).values,
    "torch.maximum(x, x.roll(1, 0) - 1)": lambda x: torch.maximum(x, x.roll(1, 0) - 1),
    "torch.fmin(x, x[:1] + 1)": lambda x: torch.fmin(x, x[:1] + 1),
    "x.relu()": lambda x: x.relu(),
    "x.abs()": lambda x: x.abs(),
    "x.sign() * x": lambda x: x.sign() * x,
    "x.clamp(-4, 8)": lambda x: x.clamp(-4, 8),
    "x.clamp(max=2)": lambda x: x.clamp(max=2),
    "x.clamp_min(-6)": lambda x: x.clamp_min(-6),
    "x.clamp(2 * w, 2 * w + 8)": lambda x: x.clamp(2 * numbers_like(x, x.shape[1:]), 2 * numbers_like(x, x.shape) + 8),
    "x.clip(x.flip(0) - 3, 8.5)": lambda x: x.clip(x.flip(0) - 3, 8.5 + 0 * x),
    "hardtanh(x, -4, 6)": lambda x: torch.nn.functional.hardtanh(x, -4, 6),
    "relu6(x)": lambda x: torch.nn.functional.relu6(x),
    "leaky_relu(x, 0.5)": lambda x: torch.nn.functional.leaky_relu(x, 0.5),
    "threshold(x, 2, -3)": lambda x: torch.nn.functional.threshold(x, 2, -3),
    "hardshrink(x, 2)": lambda x: torch.nn.functional.hardshrink(x, 2),
    "softshrink(x, 2)": lambda x: torch.nn.functional.softshrink(x, 2),
    "prelu(x, w)": lambda x: torch.nn.functional.prelu(x, numbers_like(x, x.shape[1:2])),
    "max_pool1d(x, 2, 1)": lambda x: torch.nn.functional.max_pool1d(x, 2, 1),
    "max_pool1d(x, 2, 2, 1)": lambda x: torch.nn.functional.max_pool1d(x, 2, 2, 1),
    "adaptive_max_pool1d(x, 1)": lambda x: torch.nn.functional.adaptive_max_pool1d(x, 1),
    "l1_loss(x, 2 * w)": lambda x: torch.nn.functional.l1_loss(x, 2 * numbers_like(x, x.shape), reduction="none"),
    "smooth_l1_loss(x, w, beta=4)": lambda x: torch.nn.functional.smooth_l1_loss(
        x, 2 * numbers_like(x, x.shape), reduction="none", beta=4.0
    ),
    "huber_loss(x, w, delta=4)": lambda x: torch.nn.functional.huber_loss(
        x, 2 * numbers_like(x, x.shape), reduction="none", delta=4.0
    ),
    "margin_ranking_loss(x, x.roll(1, 2), ones, 1)": lambda x: torch.nn.functional.margin_ranking_loss(
        x, x.roll(1, 2), torch.ones_like(x), margin=1.0, reduction="none"
    ),
    "torch.where(x > 0, x, -2 * x)": lambda x: torch.where(x > 0, x, -2 * x),
    "x[x > 0]": lambda x: x[x > 0],
    "x.masked_fill(x < 2, 0)": lambda x: x.masked_fill(x < 2, 0),
}


def odd_numbers(shape, step, first, device):
    """Odd numbers, none of them twice."""
    numbers = torch.arange(torch.Size(shape).numel(), dtype=torch.float64, device=device)
    return ((numbers * step + first) % 29 * 2 - 29).reshape(shape)


def directions(x):
    """Directions, small numbers in the shape of x; together they tell every element from the others."""
    numbers = torch.arange(x.numel(), dtype=x.dtype, device=x.device).reshape(x.shape)
    return [numbers % 5 - 2, numbers % 7 - 3]


def slope(f, x, along):
    """How f changes at x along a direction, by its values nearby: exact if it is quadratic there at the most."""
    return (f(x + along / 8) - f(x - along / 8)) * 4


@claim(
    cites=["torch_autograd/backward-gives-vector-jacobian-products", "article/a-grad-measures-influence"],
    needs=["float64"],
)
@given(v=values(shapes=CUBES, dtypes=("float64",)), codes=some_of(POLYNOMIAL, 4))
def spec_the_derivatives_of_polynomial_operations_are_their_slopes(world, v, codes):
    """The gradient through an operation that moves, picks, adds or multiplies elements is the slope of its values,
    whatever its dimensions, offsets, indices and other parameters are."""
    x = world.leaf(v)

    for code in codes:
        y = POLYNOMIAL[code](x)
        weight = numbers_like(x, y.shape)
        (g,) = torch.autograd.grad(y, x, weight)
        for along in directions(x):
            expected = (slope(POLYNOMIAL[code], x.detach(), along) * weight).sum()
            same((g * along).sum(), expected, why=f"the slope of {code} along a direction")


@claim(cites=["torch_autograd/backward-gives-vector-jacobian-products"], since="2.1", needs=["float64"])
@given(v=values(shapes=CUBES, dtypes=("float64",)), shape=st.sampled_from(["x", "row", "column"]))
def spec_the_gradient_of_a_masked_selection_goes_to_what_was_selected(world, v, shape):
    """The gradient of masked_select goes to the elements that the mask selected, however the tensor lies in memory
    and also if the mask was broadcast."""
    x = world.leaf(v)
    mask = numbers_like(x, {"x": x.shape, "row": x.shape[1:], "column": (len(x), 1, 1)}[shape]) > 0

    y = x.masked_select(mask)
    weight = torch.arange(1, 1 + y.numel(), dtype=x.dtype, device=world.device)
    y.backward(weight)

    expected = torch.zeros(x.shape, dtype=x.dtype, device=x.device)
    expected[mask.expand(x.shape)] = weight
    same(x.grad, expected, why=f"the mask has the shape {tuple(mask.shape)}, and the strides of x are {x.stride()}")


@claim(observed=True, until="2.1", needs=["float64"])
@given(v=values(shapes=CUBES, layouts=("transposed",), dtypes=("float64",)))
def spec_the_gradient_of_a_masked_selection_is_placed_in_the_order_of_memory(world, v):
    """On the CPU the gradient of masked_select is wrong for a tensor whose dimensions lie in memory in another order:
    it goes to the elements that the mask selected, but in the order in which they lie in memory."""
    x = world.constant(v).cpu().requires_grad_()
    mask = numbers_like(x, x.shape) > 0

    y = x.masked_select(mask)
    weight = torch.arange(1, 1 + y.numel(), dtype=x.dtype)
    y.backward(weight)

    memory = torch.zeros(x.shape[::-1], dtype=x.dtype)
    memory[mask.permute(2, 1, 0)] = weight
    same(x.grad, memory.permute(2, 1, 0), why=f"the strides of x are {x.stride()}")


@claim(
    cites=["torch_autograd/backward-gives-vector-jacobian-products", "article/a-grad-measures-influence"],
    needs=["float64"],
)
@given(
    shape=st.sampled_from(CUBES),
    step=st.integers(1, 28),
    first=st.integers(0, 28),
    turned=st.booleans(),
    codes=some_of(BY_ORDER, 3),
)
def spec_the_derivatives_of_operations_by_order_are_their_slopes(world, shape, step, first, turned, codes):
    """The gradient through an operation that picks elements by their order or sign is the slope of its values where
    it has one: it goes to the elements that were picked."""
    x = odd_numbers(shape, step, first, world.device)
    x = (x.permute(2, 1, 0) if turned else x).requires_grad_()

    for code in codes:
        y = BY_ORDER[code](x)
        weight = numbers_like(x, y.shape)
        (g,) = torch.autograd.grad(y, x, weight)
        for along in directions(x):
            expected = (slope(BY_ORDER[code], x.detach(), along) * weight).sum()
            same((g * along).sum(), expected, why=f"the slope of {code} along a direction")


PRODUCTS = {
    "x.prod()": lambda x: x.prod(),
    "x.prod(0)": lambda x: x.prod(0),
    "x.prod(1, keepdim=True)": lambda x: x.prod(1, keepdim=True),
    "x.prod(-1)": lambda x: x.prod(-1),
    "x.cumprod(0)": lambda x: x.cumprod(0),
    "x.cumprod(1)": lambda x: x.cumprod(1),
    "x.cumprod(-1)": lambda x: x.cumprod(-1),
}


@claim(
    cites=["torch_autograd/backward-gives-vector-jacobian-products", "article/a-grad-measures-influence"],
    needs=["float64"],
)
@given(
    v=values(shapes=((2, 2, 2), (2, 3, 1), (1, 3, 2), (2, 1, 4)), dtypes=("float64",)),
    code=st.sampled_from(list(PRODUCTS)),
    zeros=st.integers(0, 255),  # the bits tell which elements are zeros
)
def spec_the_derivatives_of_products_are_their_slopes_also_at_zeros(world, v, code, zeros):
    """The gradient through a product or a running product along a dimension is the slope of its values, also if one
    of the factors is zero, or several are."""
    point = world.constant(v)
    bits = torch.tensor([zeros >> bit & 1 for bit in range(point.numel())], device=world.device)
    x = (point * (1 - bits.reshape(point.shape))).requires_grad_()

    y = PRODUCTS[code](x)
    weight = numbers_like(x, y.shape)
    (g,) = torch.autograd.grad(y, x, weight)

    # Along a single element a product is linear, along others it is not.
    units = torch.eye(x.numel(), dtype=x.dtype, device=world.device).reshape(-1, *x.shape)
    slopes = [(slope(PRODUCTS[code], x.detach(), unit) * weight).sum() for unit in units]
    same(g.reshape(-1), torch.stack(slopes), why=f"these are the slopes of {code} at x")


# An operation whose derivative has none, which an error tells.
TWICE = {code: f for code, f in POLYNOMIAL.items() if not code.startswith("embedding_bag")}


@claim(
    cites=["torch_autograd/create-graph-allows-higher-orders", "article/a-grad-measures-influence"],
    needs=["float64"],
)
@given(v=values(shapes=CUBES, dtypes=("float64",)), codes=some_of(TWICE, 3))
def spec_the_derivatives_of_polynomial_operations_have_derivatives(world, v, codes):
    """The gradient through an operation that moves, picks, adds or multiplies elements can be differentiated by the
    gradient that was passed, which gives the operation's slope along a direction, and by the operand, which gives how
    its slopes change."""
    x = world.leaf(v)
    along, other = directions(x)

    for code in codes:
        f = TWICE[code]
        y = f(x)
        weight = numbers_like(x, y.shape).requires_grad_()
        (g,) = torch.autograd.grad(y, x, weight, create_graph=True)
        by_weight, by_x = torch.autograd.grad(g, [weight, x], along, allow_unused=True)

        same(by_weight, slope(f, x.detach(), along), why=f"the slope of {code} along a direction")
        by_x = torch.zeros_like(x).detach() if by_x is None else by_x
        change = slope(lambda point, f=f: slope(f, point, along), x.detach(), other)
        same((by_x * other).sum(), (change * weight.detach()).sum(), why=f"how the slope of {code} changes")


@claim(
    cites=["torch_autograd/create-graph-allows-higher-orders", "article/a-grad-measures-influence"],
    needs=["float64"],
)
@given(shape=st.sampled_from(CUBES), step=st.integers(1, 28), first=st.integers(0, 28), codes=some_of(BY_ORDER, 3))
def spec_the_derivatives_of_operations_by_order_have_derivatives(world, shape, step, first, codes):
    """The gradient through an operation that picks elements by their order or sign can be differentiated by the
    gradient that was passed, which gives the operation's slope along a direction."""
    x = odd_numbers(shape, step, first, world.device).requires_grad_()
    along = directions(x)[1]

    for code in codes:
        y = BY_ORDER[code](x)
        weight = numbers_like(x, y.shape).requires_grad_()
        (g,) = torch.autograd.grad(y, x, weight, create_graph=True)
        (by_weight,) = torch.autograd.grad(g, weight, along)
        same(by_weight, slope(BY_ORDER[code], x.detach(), along), why=f"the slope of {code} along a direction")
