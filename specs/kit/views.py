"""View operations, each with what it shows, said by hand; and chains of them."""

from __future__ import annotations

import functools
import itertools
import math

import torch
from hypothesis import strategies as st

from .values import LAYOUTS, WRITABLE, Values, filled, forms


def position_of(index, shape):
    """Which element of a tensor of this shape, counted row by row, stands at an index."""
    flat = 0
    for i, size in zip(index, shape):
        flat = flat * size + i
    return flat


def index_of(flat, shape):
    """The index of an element that is counted row by row."""
    index = []
    for size in reversed(shape):
        index.insert(0, flat % size)
        flat //= size
    return tuple(index)


def reordered(order):
    """What a permutation of the dimensions shows."""
    return lambda s: ([s[d] for d in order(len(s))], lambda i: [i[order(len(s)).index(d)] for d in range(len(s))])


def swapped(a, b):
    """What exchanging two dimensions shows."""

    def order(dims):
        dimensions = list(range(dims))
        dimensions[a], dimensions[b] = dimensions[b], dimensions[a]
        return dimensions

    return reordered(order)


def picked(dim, index):
    """What selecting an index along a dimension shows."""

    def shows(s):
        d = dim % len(s)
        return (*s[:d], *s[d + 1 :]), lambda i: (*i[:d], index % s[d], *i[d:])

    return shows


def sliced(dim, start=0, step=1, length=None):
    """What a slice along a dimension shows; a negative start counts from the back."""

    def shows(s):
        d = dim % len(s)
        rows = range(s[d])[start::step][:length]
        return (*s[:d], len(rows), *s[d + 1 :]), lambda i: (*i[:d], rows[i[d]], *i[d + 1 :])

    return shows


def diagonal(offset, a, b):
    """What the diagonal of dimensions a and b shows; it comes last."""

    def shows(s):
        rest = [d for d in range(len(s)) if d not in (a % len(s), b % len(s))]
        down, right = max(-offset, 0), max(offset, 0)

        def where(i):
            index = dict(zip(rest, i)) | {a % len(s): i[-1] + down, b % len(s): i[-1] + right}
            return [index[d] for d in range(len(s))]

        return (*[s[d] for d in rest], max(min(s[a] - down, s[b] - right), 0)), where

    return shows


def windows(dim, size, step):
    """What unfolding a dimension into windows shows; the windows' dimension comes last."""

    def shows(s):
        d = dim % len(s)
        count = (s[d] - size) // step + 1
        return (*s[:d], count, *s[d + 1 :], size), lambda i: (*i[:d], i[d] * step + i[-1], *i[d + 1 : -1])

    return shows


def flattened(shape):
    """What another shape of the same elements, row by row, shows."""
    return lambda s: (shape(s), lambda i: index_of(position_of(i, shape(s)), s))


def strided(shape, strides, start=0):
    """What as_strided shows of a tensor that lies in memory row by row."""
    return lambda s: (shape, lambda i: index_of(start + sum(k * stride for k, stride in zip(i, strides)), s))


def squeezed(s):
    """What is left without the dimensions of size 1."""
    kept = [d for d, size in enumerate(s) if size != 1]
    return [s[d] for d in kept], lambda i: [i[kept.index(d)] if d in kept else 0 for d in range(len(s))]


def repeated(s):
    """What two of the same, one behind the other, show."""
    return (2, *s), lambda i: i[1:]


def all_of_it(s):
    """What a view of everything shows."""
    return s, lambda i: i


def one_more_in_front(s):
    """What a new first dimension of size 1 shows."""
    return (1, *s), lambda i: i[1:]


# Operations that give a view, by the shapes for which they are defined. Of each: the operation, and what
# it shows: the shape for a shape, and where the element at an index comes from.
ANY_SHAPE = {
    "x[...]": (lambda x: x[...], all_of_it),
    "x[()]": (lambda x: x[()], all_of_it),
    "x[None]": (lambda x: x[None], one_more_in_front),
    "x.unsqueeze(0)": (lambda x: x.unsqueeze(0), one_more_in_front),
    "x.unsqueeze(-1)": (lambda x: x.unsqueeze(-1), lambda s: ((*s, 1), lambda i: i[:-1])),
    "x.reshape(1, *x.shape)": (lambda x: x.reshape(1, *x.shape), one_more_in_front),
    "x.squeeze()": (lambda x: x.squeeze(), squeezed),
    "x.expand(x.shape)": (lambda x: x.expand(x.shape), all_of_it),
    "x.expand(2, *x.shape)": (lambda x: x.expand(2, *x.shape), repeated),
    "x.expand(2, *[-1] * x.dim())": (lambda x: x.expand(2, *[-1] * x.dim()), repeated),
    "x.expand_as(x.new_empty(2, *x.shape))": (lambda x: x.expand_as(x.new_empty(2, *x.shape)), repeated),
    "x.broadcast_to((2, *x.shape))": (lambda x: x.broadcast_to((2, *x.shape)), repeated),
    "x.view(x.shape)": (lambda x: x.view(x.shape), all_of_it),
    "x.view_as(x)": (lambda x: x.view_as(x), all_of_it),
    "x.permute([*range(x.dim())][::-1])": (
        lambda x: x.permute([*range(x.dim())][::-1]),
        reordered(lambda n: list(range(n))[::-1]),
    ),
    "x.as_strided(x.shape, x.stride())": (lambda x: x.as_strided(x.shape, x.stride()), all_of_it),
}
NO_DIMENSIONS = {
    "x.flatten()": (lambda x: x.flatten(), one_more_in_front),
    "x.expand(3)": (lambda x: x.expand(3), lambda s: ((3,), lambda i: ())),
}
AT_MOST_A_MATRIX = {
    "x.t()": (lambda x: x.t(), lambda s: swapped(0, 1)(s) if len(s) == 2 else all_of_it(s)),
    "torch.atleast_3d(x)": (
        lambda x: torch.atleast_3d(x),
        lambda s: ((*s, 1), lambda i: i[:-1]) if len(s) == 2 else ((1, *(s or (1,)), 1), lambda i: i[1 : 1 + len(s)]),
    ),
}
VECTOR = {
    "torch.atleast_2d(x)": (lambda x: torch.atleast_2d(x), one_more_in_front),
    "torch.hsplit(x, [1])[0]": (lambda x: torch.hsplit(x, [1])[0], sliced(0, length=1)),
}
WITH_ROWS = {
    "x[-2:]": (lambda x: x[-2:], lambda s: sliced(0, max(s[0] - 2, 0))(s)),
    "x[0]": (lambda x: x[0], picked(0, 0)),
    "x[-1]": (lambda x: x[-1], picked(0, -1)),
    "x[torch.tensor(0)]": (lambda x: x[torch.tensor(0)], picked(0, 0)),
    "list(x)[-1]": (lambda x: list(x)[-1], picked(0, -1)),
    "x[1:]": (lambda x: x[1:], sliced(0, 1)),
    "x[:1]": (lambda x: x[:1], sliced(0, length=1)),
    "x[::2]": (lambda x: x[::2], sliced(0, step=2)),
    "x[..., -1]": (lambda x: x[..., -1], picked(-1, -1)),
    "x[..., 1::2]": (lambda x: x[..., 1::2], sliced(-1, 1, 2)),
    "x[-1, ..., None]": (
        lambda x: x[-1, ..., None],
        lambda s: ((*s[1:], 1), lambda i: (s[0] - 1, *i[:-1])),
    ),
    "x.select(-1, 0)": (lambda x: x.select(-1, 0), picked(-1, 0)),
    "x.narrow(0, 0, 1)": (lambda x: x.narrow(0, 0, 1), sliced(0, length=1)),
    "x.narrow(-1, x.size(-1) - 1, 1)": (lambda x: x.narrow(-1, x.size(-1) - 1, 1), sliced(-1, -1)),
    "x.transpose(0, -1)": (lambda x: x.transpose(0, -1), swapped(0, -1)),
    "x.swapaxes(-1, 0)": (lambda x: x.swapaxes(-1, 0), swapped(0, -1)),
    "x.swapdims(0, -1)": (lambda x: x.swapdims(0, -1), swapped(0, -1)),
    "x.movedim(0, -1)": (lambda x: x.movedim(0, -1), reordered(lambda n: [*range(1, n), 0])),
    "torch.moveaxis(x, -1, 0)": (lambda x: torch.moveaxis(x, -1, 0), reordered(lambda n: [n - 1, *range(n - 1)])),
    "x.squeeze(0)": (lambda x: x.squeeze(0), lambda s: picked(0, 0)(s) if s[0] == 1 else all_of_it(s)),
    "x.unfold(0, 1, 1)": (lambda x: x.unfold(0, 1, 1), windows(0, 1, 1)),
    "x.unflatten(0, (1, -1))": (lambda x: x.unflatten(0, (1, -1)), one_more_in_front),
    "x.unflatten(-1, (-1, 1))": (lambda x: x.unflatten(-1, (-1, 1)), lambda s: ((*s, 1), lambda i: i[:-1])),
    "x.unbind()[0]": (lambda x: x.unbind()[0], picked(0, 0)),
    "x.unbind(-1)[-1]": (lambda x: x.unbind(-1)[-1], picked(-1, -1)),
    "x.split(1)[0]": (lambda x: x.split(1)[0], sliced(0, length=1)),
    "x.split([1, x.size(-1) - 1], -1)[1]": (lambda x: x.split([1, x.size(-1) - 1], -1)[1], sliced(-1, 1)),
    "x.chunk(2)[0]": (lambda x: x.chunk(2)[0], lambda s: sliced(0, length=(s[0] + 1) // 2)(s)),
    "x.tensor_split(2)[0]": (lambda x: x.tensor_split(2)[0], lambda s: sliced(0, length=(s[0] + 1) // 2)(s)),
    "x.tensor_split([1], -1)[1]": (lambda x: x.tensor_split([1], -1)[1], sliced(-1, 1)),
}
WITH_TWO_ROWS = {
    "x[1]": (lambda x: x[1], picked(0, 1)),
    "x.unfold(0, 2, 1)": (lambda x: x.unfold(0, 2, 1), windows(0, 2, 1)),
    "x.split(1)[-1]": (lambda x: x.split(1)[-1], sliced(0, -1)),
    "x.unbind()[1]": (lambda x: x.unbind()[1], picked(0, 1)),
}
WITH_COLUMNS = {
    "x[0, 1:]": (lambda x: x[0, 1:], lambda s: ((s[1] - 1, *s[2:]), lambda i: (0, i[0] + 1, *i[1:]))),
    "x[:, -1]": (lambda x: x[:, -1], picked(1, -1)),
    "x[:, torch.tensor(0)]": (lambda x: x[:, torch.tensor(0)], picked(1, 0)),
    "x.transpose(0, 1)": (lambda x: x.transpose(0, 1), swapped(0, 1)),
    "x.mT": (lambda x: x.mT, swapped(-1, -2)),
    "x.mH": (lambda x: x.mH, swapped(-1, -2)),
    "x.adjoint()": (lambda x: x.adjoint(), swapped(-1, -2)),
    "x.diagonal()": (lambda x: x.diagonal(), diagonal(0, 0, 1)),
    "x.diagonal(1)": (lambda x: x.diagonal(1), diagonal(1, 0, 1)),
    "x.diagonal(-1, -1, -2)": (lambda x: x.diagonal(-1, -1, -2), diagonal(-1, -1, -2)),
    "x.vsplit([1])[0]": (lambda x: x.vsplit([1])[0], sliced(0, length=1)),
    "x.hsplit([1])[1]": (lambda x: x.hsplit([1])[1], sliced(1, 1)),
    "x.movedim(1, 0)": (lambda x: x.movedim(1, 0), lambda s: reordered(lambda n: [1, 0, *range(2, n)])(s)),
}
MATRIX = {
    "x.T": (lambda x: x.T, swapped(0, 1)),
    "x.H": (lambda x: x.H, swapped(0, 1)),
    "x[-1, 0]": (lambda x: x[-1, 0], lambda s: ((), lambda i: (s[0] - 1, 0))),
}
THREE_DIMENSIONS = {
    "x.permute(1, 2, 0)": (lambda x: x.permute(1, 2, 0), reordered(lambda n: [1, 2, 0])),
    "x.movedim((0, 1), (1, 2))": (lambda x: x.movedim((0, 1), (1, 2)), reordered(lambda n: [2, 0, 1])),
    "x.diagonal(0, 0, 2)": (lambda x: x.diagonal(0, 0, 2), diagonal(0, 0, 2)),
    "x.dsplit([1])[0]": (lambda x: x.dsplit([1])[0], sliced(2, length=1)),
    "x[:, 0, 1:]": (lambda x: x[:, 0, 1:], lambda s: ((s[0], s[2] - 1), lambda i: (i[0], 0, i[1] + 1))),
}
ROW_BY_ROW = {
    "x.view(-1)": (lambda x: x.view(-1), flattened(lambda s: (math.prod(s),))),
    "x.view(1, x.numel())": (lambda x: x.view(1, x.numel()), flattened(lambda s: (1, math.prod(s)))),
    "x.ravel()": (lambda x: x.ravel(), flattened(lambda s: (math.prod(s),))),
    "x.reshape(-1, 1)": (lambda x: x.reshape(-1, 1), flattened(lambda s: (math.prod(s), 1))),
    "x.reshape_as(x.new_empty(x.numel(), 1))": (
        lambda x: x.reshape_as(x.new_empty(x.numel(), 1)),
        flattened(lambda s: (math.prod(s), 1)),
    ),
    "x.as_strided((), ())": (lambda x: x.as_strided((), ()), strided((), ())),
    "x.as_strided((2,), (0,))": (lambda x: x.as_strided((2,), (0,)), strided((2,), (0,))),
}
FOUR_ROW_BY_ROW = {
    "x.as_strided((2, 2), (1, 1))": (lambda x: x.as_strided((2, 2), (1, 1)), strided((2, 2), (1, 1))),
    "x.as_strided((2,), (2,), x.storage_offset() + 1)": (
        lambda x: x.as_strided((2,), (2,), x.storage_offset() + 1),
        strided((2,), (2,), 1),
    ),
}
VIEWS = {
    **ANY_SHAPE, **NO_DIMENSIONS, **AT_MOST_A_MATRIX, **VECTOR, **WITH_ROWS, **WITH_TWO_ROWS, **WITH_COLUMNS,
    **MATRIX, **THREE_DIMENSIONS, **ROW_BY_ROW, **FOUR_ROW_BY_ROW,
}  # fmt: skip
# In grad mode what these give must not be written, nor what is taken of that.
ONE_OF_SEVERAL = ("list(", "x.unbind(", "x.split(", "x.chunk(")


def taken(x, chain):
    """The view that the operations, one after the other, give of x."""
    for name in chain:
        x = VIEWS[name][0](x)
    return x


def shown(x, chain):
    """The shape of what the operations give of x, and for each of its elements which element of x it shows."""
    shape, positions = tuple(x.shape), list(range(x.numel()))
    for name in chain:
        new, where = VIEWS[name][1](shape)
        indices = itertools.product(*map(range, new))
        positions = [positions[position_of(where(index), shape)] for index in indices]
        shape = tuple(new)
    return shape, positions


# Of views of rows, those that are defined also if the rows are empty.
OF_EMPTY_ROWS = [
    "x[0]", "x[-1]", "x[1:]", "x[::2]", "x.narrow(0, 0, 1)", "x.transpose(0, -1)", "x.movedim(0, -1)", "x.unbind()[0]",
    "list(x)[-1]", "x.split(1)[0]", "x.chunk(2)[0]", "x.unflatten(0, (1, -1))", "x.unfold(0, 1, 1)",
]  # fmt: skip


def fitting(shape: tuple[int, ...], row_by_row: bool) -> list[str]:
    """The views that are defined for a tensor of this shape, or only if it lies in memory row by row."""
    full = math.prod(shape) > 0
    if not full:
        return [*ANY_SHAPE, *(OF_EMPTY_ROWS if shape[0] else [])]
    possible = [
        (ANY_SHAPE, True),
        (NO_DIMENSIONS, not shape),
        (AT_MOST_A_MATRIX, len(shape) < 3),
        (VECTOR, len(shape) == 1),
        (WITH_ROWS, shape),
        (WITH_TWO_ROWS, shape and shape[0] > 1),
        (WITH_COLUMNS, len(shape) > 1),
        (MATRIX, len(shape) == 2),
        (THREE_DIMENSIONS, len(shape) == 3),
        (ROW_BY_ROW, row_by_row),
        (FOUR_ROW_BY_ROW, row_by_row and math.prod(shape) >= 4),
    ]
    return [name for table, fits in possible if fits for name in table]


_SHAPES = ((), (1,), (3,), (2, 3), (3, 2), (1, 2), (2, 1), (2, 2), (2, 1, 3), (2, 3, 2), (1, 2, 2), (2, 0), (0,))
_fitting = functools.cache(fitting)


@functools.cache
def view_chains(
    *,
    count: int = 4,
    longest: int = 3,
    writable: bool = False,
    dtypes: tuple[str, ...] = ("float64", "float32"),
    layouts: tuple[str, ...] = LAYOUTS,
    most: int = 12,
) -> st.SearchStrategy[tuple[Values, list[list[str]]]]:
    """Values, and chains of view operations to apply to them, each of up to `longest` operations.

    writable  no element is shown twice, and none of the operations gives several views at once
    most      of the elements that a chain may show
    """
    if writable:
        layouts = tuple(layout for layout in layouts if layout in WRITABLE)

    def chain(v: Values, choices: bytes) -> list[str]:
        shape, row_by_row, names = v.shape, v.layout in ("contiguous", "offset"), []
        for choice in choices[1 : 2 + choices[0] % longest]:
            allowed = _fitting(shape, row_by_row)
            if writable:
                allowed = [name for name in allowed if not _unwritable(name)]
            if v.layout == "expanded":  # as_strided shares gradients among elements in one place
                allowed = [name for name in allowed if "as_strided" not in name]
            name = allowed[choice % len(allowed)]
            new = tuple(VIEWS[name][1](shape)[0])
            if math.prod(new) > most:
                continue
            shape, row_by_row = new, row_by_row and _keeps_rows(name)
            names.append(name)
        return names or ["x[...]"]

    def case(form, content: bytes, choices: bytes) -> tuple[Values, list[list[str]]]:
        v = filled(form, content)
        size = longest + 1
        return v, [chain(v, choices[i * size : (i + 1) * size]) for i in range(count)]

    possible = forms(_SHAPES, layouts, dtypes)
    return st.builds(
        case,
        st.sampled_from(possible),
        st.binary(min_size=12, max_size=12),
        st.binary(min_size=count * (longest + 1), max_size=count * (longest + 1)),
    )


def _unwritable(name: str) -> bool:
    twice = ("expand(2", "expand(3", "expand_as", "broadcast_to", "unfold(0, 2, 1)", "(0,))", "(1, 1))")
    return name.startswith(ONE_OF_SEVERAL) or any(part in name for part in twice)


def _keeps_rows(name: str) -> bool:
    return name in ("x[...]", "x[()]", "x[None]", "x.unsqueeze(0)", "x.unsqueeze(-1)", "x.view_as(x)", "x.squeeze()")
