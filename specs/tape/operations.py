"""The operations of random programs: what each is called in PyTorch, and what it is, scalar by scalar.

No derivative of an operation stands here. A rule says what the elements of the result are, as sums
and products of the operands' elements; the chain rule over scalars does the rest. A rule answers
None where the operation isn't defined, or where PyTorch leaves open what it gives (the derivative of
a maximum where both are equal, say).

What a rule is for
  result    the operation makes a new tensor
  view      it makes a tensor over the same storage; the rule then moves positions, not numbers
  several   it makes several views at once
  in place  it writes its result over its first operand

What the derivatives depend on, and so what an operation has to keep for backward
  nothing    sums and moves: they keep no tensor
  positions  indices, masks and factors that the operation made itself: no tensor that a program can write to
  others     the derivative by one operand is made of the other ones (or of itself, if it is a factor twice)
  signs      comparisons of the operands' numbers; whether operands or result are kept is left open, and
             so is whether a gradient counts as depending on them
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from .arrays import Array, broadcast_shape, elementwise, indexes, matmul, product, size_of, total
from .scalars import Complex, Scalar

Element = Scalar | Complex
Choices = Sequence[tuple[Any, ...]]
REAL, COMPLEX, WHOLE = ("float64", "float32"), ("complex128",), ("int64",)


class Operation(NamedTuple):
    """An operation; `code` has {a}, {b} for operands and {p}, {q}, {r} for parameters."""

    name: str
    code: str
    rule: Callable[..., Array | Sequence[Array] | None]
    choices: Callable[..., Choices] = lambda *arrays: [()]  # the parameters that suit the operands
    kind: str = "result"
    derivative: str = "nothing"
    dtypes: tuple[str, ...] = REAL + COMPLEX + WHOLE  # for which it is defined
    gives: Callable[[str, tuple[Any, ...]], str] | None = None  # the result's dtype, if not the operands' common one
    promotes: bool = False  # whether operands may differ in dtype
    keeps: bool = False  # whether it may keep operands all the same
    contiguous: bool = False  # whether the operand has to lie in memory row by row

    @property
    def operands(self) -> int:
        """How many tensors it takes."""
        return 1 + ("{b}" in self.code)


def _each(function: Callable[[Element], Element]) -> Callable[..., Array]:
    return lambda a: a.map(function)


def _sign(s: Scalar) -> int:
    return (s.number > 0) - (s.number < 0)


def _relu(s: Scalar) -> Scalar:
    return s.times(1 if s.number > 0 else 0)


def _magnitude(s: Scalar) -> Scalar:
    return s.times(_sign(s))


def _clamp(a: Array, low: int, high: int) -> Array | None:
    if any(s.number in (low, high) for s in a.scalars):
        return None  # releases differ in the derivative at the bounds
    return a.map(lambda s: s if low < s.number < high else Scalar(low if s.number < low else high))


def _extreme(sign: int) -> Callable[[Array, Array], Array | None]:
    def rule(a: Array, b: Array) -> Array | None:
        shape = broadcast_shape(a.shape, b.shape)
        if shape is None:
            return None
        pairs = list(zip(a.broadcast_to(shape).scalars, b.broadcast_to(shape).scalars, strict=True))
        if any(x.number == y.number for x, y in pairs):
            return None
        return Array(shape, tuple(x if (x.number - y.number) * sign > 0 else y for x, y in pairs))

    return rule


def _larger(x: Scalar, y: Scalar) -> Scalar:
    return x if x.number > y.number else y


# Parameters that suit an operand.


def _dims(a: Array) -> Choices:
    return [(dim,) for dim in (*range(len(a.shape)), *range(-len(a.shape), 0))]


def _dims_and_keep(a: Array) -> Choices:
    pairs = itertools.combinations(range(len(a.shape)), 2)
    dims = [*(dim for (dim,) in _dims(a)), *pairs]
    return [(dim, keep) for dim in dims for keep in (False, True)]


def _permutations(a: Array) -> Choices:
    return [(order,) for order in itertools.permutations(range(len(a.shape)))][1:]


def _within(a: Array) -> Choices:
    """A dimension and an index into it, from the front or from the back."""
    return [(dim, i) for dim, size in enumerate(a.shape) for i in (*range(size), *range(-size, 0))]


def _rows(a: Array) -> Choices:
    return [(i,) for i in (*range(a.shape[0]), *range(-a.shape[0], 0))] if a.shape else []


def _slices(a: Array) -> Choices:
    if not a.shape:
        return []
    return [(start, step) for start in range(min(a.shape[0], 2) + 1) for step in (1, 2)][1:]


def _ranges(a: Array) -> Choices:
    return [
        (dim, start, length)
        for dim, size in enumerate(a.shape)
        for start in range(size)
        for length in range(1, size - start + 1)
    ]


def _lists(size: int) -> list[list[int]]:
    """Lists of indices into `size` rows: with gaps, out of order, with repeats."""
    return [[size - 1, 0], [0, 0], [0], [size - 1, 0, size - 1]] if size else []


def _index_lists(a: Array) -> Choices:
    return [(rows,) for rows in _lists(a.shape[0])] if a.shape else []


def _masks(a: Array) -> Choices:
    """One mask for each pattern; its elements come and go along the last dimension."""
    size = a.shape[-1] if a.shape else 1
    patterns = ([i % 2 == 0 for i in range(size)], [i % 2 == 1 for i in range(size)], [True] * size)
    return [(mask if a.shape else mask[0],) for mask in patterns]


# Rules that move elements. Each also moves positions, and so defines a view.


def moved(where: Callable[..., tuple[tuple[int, ...], Callable[..., Sequence[int]]] | None]):
    """The rule that gives `where(shape, *parameters)`: a new shape, and for each index in it an old one."""

    def rule(a: Array, *parameters: Any) -> Array | None:
        found = where(a.shape, *parameters)
        return found and a.gather(*found)

    return rule


def _permute(shape, order):
    return tuple(shape[d] for d in order), lambda *i: [i[order.index(d)] for d in range(len(shape))]


def _transpose(shape):
    return _permute(shape, (1, 0)) if len(shape) == 2 else None


def _select(shape, dim, i):
    i %= shape[dim]
    return shape[:dim] + shape[dim + 1 :], lambda *k: (*k[:dim], i, *k[dim:])


def _take(shape, dim, rows):
    return (*shape[:dim], len(rows), *shape[dim + 1 :]), lambda *k: (*k[:dim], rows[k[dim]], *k[dim + 1 :])


def _gather_last(shape, columns):
    return (*shape[:-1], len(columns)), lambda *k: (*k[:-1], columns[k[-1]])


def _slice(shape, start, step):
    return _take(shape, 0, range(shape[0])[start::step])


def _narrow(shape, dim, start, length):
    return _take(shape, dim, range(start, start + length))


def _flip(shape, dim):
    dim %= len(shape)
    return _take(shape, dim, range(shape[dim])[::-1])


def _roll(shape, shift, dim):
    return _take(shape, dim, [(i - shift) % shape[dim] for i in range(shape[dim])])


def _expand(shape, count):
    return (count, *shape), lambda _, *k: k


def _expand_ones(shape, count):
    """Dimensions of size 1 spread out."""
    wide = tuple(count if size == 1 else size for size in shape)
    return wide, lambda *k: [i if size > 1 or size == 0 else 0 for i, size in zip(k, shape, strict=True)]


def _repeat(shape, times):
    return (times * shape[0], *shape[1:]), lambda i, *k: (i % shape[0], *k)


def _unsqueeze(shape, dim):
    dim %= len(shape) + 1
    return (*shape[:dim], 1, *shape[dim:]), lambda *k: (*k[:dim], *k[dim + 1 :])


def _squeeze(shape):
    kept = [dim for dim, size in enumerate(shape) if size != 1]
    return tuple(shape[d] for d in kept), lambda *k: [k[kept.index(d)] if d in kept else 0 for d in range(len(shape))]


def _diagonal(shape, offset):
    if len(shape) != 2:
        return None
    down, right = max(-offset, 0), max(offset, 0)
    return (max(min(shape[0] - down, shape[1] - right), 0),), lambda i: (i + down, i + right)


def _unfold(shape, dim, size, step):
    windows = (shape[dim] - size) // step + 1
    return (*shape[:dim], windows, *shape[dim + 1 :], size), lambda *k: (
        *k[:dim],
        k[dim] * step + k[-1],
        *k[dim + 1 : -1],
    )


def _flat(a: Array, shape: tuple[int, ...]) -> Array:
    return Array(shape, a.scalars)


def _strided(a: Array, shape: tuple[int, ...], strides: tuple[int, ...], offset: int) -> Array:
    """What as_strided gives of an operand that lies in memory row by row."""
    return Array(shape, tuple(a.scalars[offset + sum(map(math.prod, zip(i, strides)))] for i in indexes(shape)))


def _shapes(a: Array) -> Choices:
    """Other shapes for as many elements."""
    n = size_of(a.shape)
    shapes = [(n,), (n, 1), (1, n), *((k, n // k) for k in (2, 3) if n and n % k == 0)]
    return [(shape,) for shape in (*shapes, *[()] * (n == 1)) if shape != a.shape]


def _stridings(a: Array) -> Choices:
    n = size_of(a.shape)
    possible = (
        ((2,), (1,), 0),
        ((2,), (1,), 1),
        ((2, 2), (1, 1), 0),
        ((2, 2), (2, 1), 0),
        ((2,), (0,), 1),
        ((), (), 1),
    )
    return [
        (shape, strides, offset)
        for shape, strides, offset in possible
        if offset + sum((size - 1) * stride for size, stride in zip(shape, strides)) < n
    ]


def _parts(a: Array, dim: int, sizes: Iterable[int]) -> list[Array]:
    start, parts = 0, []
    for size in sizes:
        parts.append(a.gather(*_narrow(a.shape, dim, start, size)))
        start += size
    return parts


def _split(a: Array, size: int, dim: int) -> list[Array]:
    whole, rest = divmod(a.shape[dim], size)
    return _parts(a, dim, [size] * whole + [rest] * (rest > 0))


def _chunk(a: Array, count: int, dim: int) -> list[Array]:
    return _split(a, -(-a.shape[dim] // count), dim)


def _unbind(a: Array, dim: int) -> list[Array]:
    return [a.gather(*_select(a.shape, dim, i)) for i in range(a.shape[dim])]


def _splits(a: Array) -> Choices:
    return [(size, dim) for dim, length in enumerate(a.shape) if length for size in (1, 2)]


def _unbinds(a: Array) -> Choices:
    return [(dim,) for dim, length in enumerate(a.shape) if 0 < length < 4]


# Rules that add and multiply.


def _sum(a: Array, dims: int | tuple[int, ...], keep: bool) -> Array:
    gone = {dim % len(a.shape) for dim in ((dims,) if isinstance(dims, int) else dims)}
    short = tuple(size for dim, size in enumerate(a.shape) if dim not in gone)
    sums: dict[tuple[int, ...], list[Element]] = {i: [] for i in indexes(short)}
    for i, element in zip(indexes(a.shape), a.scalars, strict=True):
        sums[tuple(k for dim, k in enumerate(i) if dim not in gone)].append(element)
    shape = tuple(1 if dim in gone else size for dim, size in enumerate(a.shape)) if keep else short
    return Array(shape, tuple(map(total, sums.values())))


def _mean(a: Array) -> Array | None:
    n = len(a.scalars)
    # A power of two divides without rounding.
    return Array((), (total(a.scalars).times(1 / n),)) if n in (1, 2, 4, 8, 16) else None


def _along(a: Array, dim: int, function: Callable[[list[Element]], list[Element]]) -> Array:
    """What `function` makes of each column along a dimension."""
    columns: dict[tuple[int, ...], list[Element]] = {}
    for i, element in zip(indexes(a.shape), a.scalars, strict=True):
        columns.setdefault((*i[:dim], *i[dim + 1 :]), []).append(element)
    made = {key: function(column) for key, column in columns.items()}
    return Array(a.shape, tuple(made[(*i[:dim], *i[dim + 1 :])][i[dim]] for i in indexes(a.shape)))


def _cumsum(a: Array, dim: int) -> Array:
    dim %= len(a.shape)
    return _along(a, dim, lambda column: [total(column[: k + 1]) for k in range(len(column))])


def _outer(a: Array, b: Array) -> Array | None:
    if not len(a.shape) == len(b.shape) == 1:
        return None
    return Array((*a.shape, *b.shape), tuple(x * y for x in a.scalars for y in b.scalars))


def _product(left: int, right: int) -> Callable[[Array, Array], Array | None]:
    """The matrix product for so many dimensions on each side."""
    return lambda a, b: matmul(a, b) if (len(a.shape), len(b.shape)) == (left, right) else None


def _cat(a: Array, b: Array, dim: int) -> Array | None:
    if (0,) in (a.shape, b.shape):
        return None  # as an exception such operands join in any shape, and count for nothing
    if len(a.shape) != len(b.shape) or any(
        m != n for d, (m, n) in enumerate(zip(a.shape, b.shape, strict=True)) if d != dim
    ):
        return None
    first = a.shape[dim]
    shape = (*a.shape[:dim], first + b.shape[dim], *a.shape[dim + 1 :])
    return Array(
        shape,
        tuple(a[i] if i[dim] < first else b[(*i[:dim], i[dim] - first, *i[dim + 1 :])] for i in indexes(shape)),
    )


def _stack(a: Array, b: Array, dim: int) -> Array | None:
    if a.shape != b.shape:
        return None
    shape = (*a.shape[:dim], 2, *a.shape[dim:])
    return Array(shape, tuple((a, b)[i[dim]][(*i[:dim], *i[dim + 1 :])] for i in indexes(shape)))


def _masked(a: Array, mask: list[bool] | bool, number: int) -> Array:
    return Array(
        a.shape,
        tuple(
            Scalar(number) if (mask[i[-1]] if a.shape else mask) else element
            for i, element in zip(indexes(a.shape), a.scalars, strict=True)
        ),
    )


def _masks_and_numbers(a: Array) -> Choices:
    return [(mask, number) for (mask,) in _masks(a) for number in (2, 0)]


def _added_rows(a: Array, b: Array, rows: list[int]) -> Array | None:
    """The rows of b added to these rows of a; one that is named twice gets both."""
    if not b.shape or b.shape[0] != len(rows) or a.shape[1:] != b.shape[1:]:
        return None
    added: dict[tuple[int, ...], list[Element]] = {i: [a[i]] for i in indexes(a.shape)}
    for i in indexes(b.shape):
        added[(rows[i[0]], *i[1:])].append(b[i])
    return Array(a.shape, tuple(map(total, added.values())))


def _scattered(a: Array, b: Array, columns: list[int]) -> Array | None:
    """The elements of a vector b added to these elements of a vector a."""
    return _added_rows(a, b, columns) if len(a.shape) == len(b.shape) == 1 else None


def _index_lists_for(a: Array, b: Array) -> Choices:
    return [rows for rows in _index_lists(a) if b.shape and len(rows[0]) == b.shape[0]]


def _first_dims(a: Array, b: Array) -> Choices:
    return [(dim,) for dim in range(len(a.shape))]


def _new_dims(a: Array, b: Array) -> Choices:
    return [(dim,) for dim in range(len(a.shape) + 1)]


def _complex_parts(a: Array) -> Array | None:
    """Real and imaginary parts along a new last dimension; as positions, the second lies behind the first."""
    if not a.scalars:
        return None  # PyTorch fails to give some gradients then
    pairs = ((e.real, e.imag) if isinstance(e, Complex) else (e, e + 1) for e in a.scalars)
    return Array((*a.shape, 2), tuple(itertools.chain.from_iterable(pairs)))


def _to_real(dtype: str, _: tuple) -> str:
    return {"complex128": "float64"}[dtype]


# In place: the operand's elements as they are after the write.


def _over(function: Callable[[Element, Element], Element]) -> Callable[[Array, Array], Array | None]:
    def rule(a: Array, b: Array) -> Array | None:
        return elementwise(function)(a, b) if broadcast_shape(a.shape, b.shape) == a.shape else None

    return rule


def _with_rows(a: Array, rows: Sequence[int], new: Callable[[tuple[int, ...]], Element]) -> Array:
    return Array(a.shape, tuple(new(i) if i[0] in rows else a[i] for i in indexes(a.shape)))


def _set_row(a: Array, b: Array, row: int) -> Array | None:
    if broadcast_shape(a.shape[1:], b.shape) != a.shape[1:]:
        return None
    b = b.broadcast_to(a.shape[1:])
    return _with_rows(a, [row % a.shape[0]], lambda i: b[i[1:]])


def _fill_row(a: Array, row: int) -> Array:
    return _with_rows(a, [row % a.shape[0]], lambda i: Scalar(2))


def _set_slice(a: Array, b: Array, start: int, step: int) -> Array | None:
    rows = range(a.shape[0])[start::step]
    shape = (len(rows), *a.shape[1:])
    if broadcast_shape(shape, b.shape) != shape:
        return None
    b = b.broadcast_to(shape)
    return _with_rows(a, rows, lambda i: b[(rows.index(i[0]), *i[1:])])


def _result(name, code, rule, choices=lambda *arrays: [()], **options) -> Operation:
    return Operation(name, code, rule, choices, **options)


def _view(name, code, rule, choices=lambda *arrays: [()], **options) -> Operation:
    return Operation(name, code, rule, choices, kind="view", **options)


def _several(name, code, rule, choices) -> Operation:
    return Operation(name, code, rule, choices, kind="several")


def _in_place(name, code, rule, choices=lambda *arrays: [()], **options) -> Operation:
    return Operation(name, code, rule, choices, kind="in place", **options)


def _minus(x: Element, y: Element) -> Element:
    return x + y.times(-1)


def _of_signs(dtypes: tuple[str, ...] = REAL) -> dict[str, Any]:
    return {"derivative": "signs", "dtypes": dtypes}


_FACTOR = {"derivative": "positions"}
_PRODUCT = {"derivative": "others", "dtypes": REAL + COMPLEX}
_POWER = {"derivative": "others", "dtypes": REAL}  # of complex numbers CUDA takes powers by way of logarithms
_WHERE = {"derivative": "positions", "dtypes": REAL}
_INDEX = "torch.tensor({p}, device={a}.device)"

_ALL = (
    # sums and products
    _result("add", "{a} + {b}", elementwise(lambda x, y: x + y), promotes=True),
    _result("sub", "{a} - {b}", elementwise(_minus), promotes=True),
    _result("mul", "{a} * {b}", elementwise(lambda x, y: x * y), derivative="others", promotes=True),
    _result("add_alpha", "torch.add({a}, {b}, alpha=-2)", elementwise(lambda x, y: x + y.times(-2)), **_FACTOR),
    _result("double", "{a} * 2", _each(lambda s: s.times(2)), **_FACTOR),
    _result("halve", "{a} / 2", _each(lambda s: s.times(0.5)), derivative="positions", dtypes=REAL + COMPLEX),
    _result("plus_one", "{a} + 1", _each(lambda s: s + Scalar(1))),
    _result("neg", "-{a}", _each(lambda s: s.times(-1))),
    _result("square", "{a}.square()", _each(lambda s: s * s), **_POWER),
    _result("cube", "{a} ** 3", _each(lambda s: s * s * s), **_POWER),
    _result("clone", "{a}.clone()", lambda a: a),
    _result("contiguous", "{a}.clone(memory_format=torch.contiguous_format)", lambda a: a),
    _result("to", "{a}.to(torch.{p})", lambda a, p: a, lambda a: [(d,) for d in (*REAL, *COMPLEX, *WHOLE)],
            derivative="nothing", gives=lambda dtype, parameters: parameters[0]),
    _result("conj", "torch.conj_physical({a})", _each(Complex.conjugate), dtypes=COMPLEX),
    # signs
    _result("relu", "{a}.relu()", _each(_relu), **_of_signs()),
    _result("abs", "{a}.abs()", _each(_magnitude), **_of_signs()),
    _result("clamp", "{a}.clamp({p}, {q})", _clamp, lambda a: [(-2, 2), (0, 3)], **_of_signs()),
    _result("maximum", "torch.maximum({a}, {b})", _extreme(1), **_of_signs()),
    _result("minimum", "torch.minimum({a}, {b})", _extreme(-1), **_of_signs()),
    _result("where", "torch.where({a} > {b}, {a}, {b})", elementwise(_larger), **_WHERE),
    # along dimensions
    _result("sum", "{a}.sum()", lambda a: Array((), (total(a.scalars),))),
    _result("sum_dims", "{a}.sum({p}, keepdim={q})", _sum, _dims_and_keep),
    _result("mean", "{a}.mean()", _mean, dtypes=REAL + COMPLEX, keeps=True, **_FACTOR),
    _result("cumsum", "{a}.cumsum({p})", _cumsum, _dims),
    _result("prod", "{a}.prod()", lambda a: Array((), (product(a.scalars),)) if len(a.scalars) <= 4 else None,
            derivative="signs", dtypes=REAL),
    # matrices
    _result("matmul", "{a} @ {b}", _product(2, 2), **_PRODUCT),
    _result("bmm", "torch.matmul({a}, {b})", _product(3, 2), **_PRODUCT),
    _result("mv", "torch.mv({a}, {b})", _product(2, 1), **_PRODUCT),
    _result("dot", "torch.dot({a}, {b})", _product(1, 1), **_PRODUCT),
    _result("outer", "torch.outer({a}, {b})", _outer, **_PRODUCT),
    # elements picked and put
    _result("index", "{a}[{p}]", moved(lambda shape, rows: _take(shape, 0, rows)), _index_lists, **_FACTOR),
    _result("index_select", "{a}.index_select(0, " + _INDEX + ")",
            moved(lambda shape, rows: _take(shape, 0, rows)), _index_lists, **_FACTOR),
    _result("gather", "torch.gather({a}, 0, " + _INDEX + ")",
            moved(lambda shape, rows: _gather_last(shape, rows) if len(shape) == 1 else None), _index_lists,
            keeps=True, **_FACTOR),
    _result("masked_fill", "{a}.masked_fill(torch.tensor({p}, dtype=torch.bool, device={a}.device), {q})", _masked,
            _masks_and_numbers, **_FACTOR),
    _result("index_add", "{a}.index_add(0, " + _INDEX + ", {b})", _added_rows, _index_lists_for, keeps=True, **_FACTOR),
    _result("scatter_add", "{a}.scatter_add(0, " + _INDEX + ", {b})", _scattered, _index_lists_for, **_FACTOR),
    _result("cat", "torch.cat([{a}, {b}], {p})", _cat, _first_dims),
    _result("stack", "torch.stack([{a}, {b}], {p})", _stack, _new_dims),
    _result("flip", "{a}.flip({p})", moved(_flip), _dims),
    _result("roll", "{a}.roll({p}, {q})", moved(_roll),
            lambda a: [(s, d) for d in range(len(a.shape)) for s in (1, -1)]),
    _result("repeat", "{a}.repeat({p}, *[1] * ({a}.dim() - 1))", moved(_repeat),
            lambda a: [(2,), (3,)] if a.shape else []),
    # views
    _view("t", "{a}.t()", moved(_transpose)),
    _view("permute", "{a}.permute({p})", moved(_permute), _permutations),
    _view("select", "{a}.select({p}, {q})", moved(_select), _within),
    _view("row", "{a}[{p}]", moved(lambda shape, i: _select(shape, 0, i)), _rows),
    _view("slice", "{a}[{p}::{q}]", moved(_slice), _slices),
    _view("narrow", "{a}.narrow({p}, {q}, {r})", moved(_narrow), _ranges),
    _view("expand", "{a}.expand({p}, *{a}.shape)", moved(_expand), lambda a: [(2,), (1,), (3,)]),
    _view("expand_ones", "{a}.expand([{p} if n == 1 else n for n in {a}.shape])", moved(_expand_ones),
          lambda a: [(2,), (3,)] if 1 in a.shape else []),
    _view("unsqueeze", "{a}.unsqueeze({p})", moved(_unsqueeze), lambda a: [(d,) for d in range(-1, len(a.shape) + 1)]),
    _view("squeeze", "{a}.squeeze()", moved(_squeeze)),
    _view("diagonal", "{a}.diagonal({p})", moved(_diagonal), lambda a: [(0,), (1,), (-1,)]),
    _view("unfold", "{a}.unfold({p}, {q}, {r})", moved(_unfold),
          lambda a: [(d, n, s) for d, size in enumerate(a.shape) for n in (1, 2) if n <= size for s in (1, 2)]),
    _view("view", "{a}.view({p})", _flat, _shapes, contiguous=True),
    _view("as_strided", "{a}.as_strided({p}, {q}, {r})", _strided, _stridings, contiguous=True),
    _view("view_as", "{a}.view_as({a})", lambda a: a),
    _view("view_as_real", "torch.view_as_real({a})", _complex_parts, dtypes=COMPLEX, gives=_to_real),
    _view("real", "{a}.real", lambda a: a, dtypes=COMPLEX, gives=_to_real),
    _view("imag", "{a}.imag", _each(lambda position: position + 1), dtypes=COMPLEX, gives=_to_real),
    _several("split", "{a}.split({p}, {q})", _split, _splits),
    _several("chunk", "{a}.chunk({p}, {q})", _chunk, _splits),
    _several("unbind", "{a}.unbind({p})", _unbind, _unbinds),
    # in place
    _in_place("add_", "{a}.add_({b})", _over(lambda x, y: x + y), promotes=True),
    _in_place("sub_", "{a}.sub_({b})", _over(_minus), promotes=True),
    _in_place("mul_", "{a}.mul_({b})", _over(lambda x, y: x * y), derivative="others", promotes=True),
    _in_place("copy_", "{a}.copy_({b})", _over(lambda x, y: y), promotes=True),
    _in_place("set_row", "{a}[{p}] = {b}", _set_row, lambda a, b: _rows(a), promotes=True),
    _in_place("set_slice", "{a}[{p}::{q}] = {b}", _set_slice, lambda a, b: _slices(a), promotes=True),
    _in_place("fill_row", "{a}[{p}] = 2", _fill_row, _rows),
    _in_place("double_", "{a}.mul_(2)", _each(lambda s: s.times(2)), **_FACTOR),
    _in_place("plus_one_", "{a}.add_(1)", _each(lambda s: s + Scalar(1))),
    _in_place("neg_", "{a}.neg_()", _each(lambda s: s.times(-1))),
    _in_place("square_", "{a}.square_()", _each(lambda s: s * s), **_POWER),
    _in_place("relu_", "{a}.relu_()", _each(_relu), **_of_signs()),
    _in_place("abs_", "{a}.abs_()", _each(_magnitude), **_of_signs()),
    _in_place("clamp_", "{a}.clamp_({p}, {q})", _clamp, lambda a: [(-2, 2), (0, 3)], **_of_signs()),
    _in_place("zero_", "{a}.zero_()", _each(lambda s: Scalar(0))),
    _in_place("fill_", "{a}.fill_({p})", lambda a, p: a.map(lambda s: Scalar(p)), lambda a: [(2,), (0,)]),
    _in_place("masked_fill_", "{a}.masked_fill_(torch.tensor({p}, dtype=torch.bool, device={a}.device), {q})", _masked,
              _masks_and_numbers, **_FACTOR),
    _in_place("index_add_", "{a}.index_add_(0, " + _INDEX + ", {b})", _added_rows, _index_lists_for,
              keeps=True, **_FACTOR),
    _in_place("scatter_add_", "{a}.scatter_add_(0, " + _INDEX + ", {b})", _scattered, _index_lists_for, **_FACTOR),
    _in_place("cumsum_", "{a}.cumsum_({p})", _cumsum, _dims),
)  # fmt: skip
OPERATIONS = {operation.name: operation for operation in _ALL}
