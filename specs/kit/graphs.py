"""Random graphs of operations, as data.

PyTorch builds a graph in a world; the reference model predicts its gradients.

A graph is written down as the statements of a straight-line program. A later statement uses any
earlier tensors, the same one twice included, so subexpressions are shared, paths split and join
again, and branches end without reaching the root.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from hypothesis import strategies as st

from ..tape.arrays import (
    Array,
    broadcast_shape,
    elementwise,
    indexes,
    matmul,
    over_first,
    product,
    running_sum,
    size_of,
    sum_over,
    total,
)
from ..tape.scalars import Scalar, gradients, number_of
from .values import LAYOUTS, Values, filled, forms
from .world import World


class Operation(NamedTuple):
    """An operation in PyTorch's words, and what it is in the reference model (None: not for these shapes)."""

    code: str
    rule: Callable[..., Array | None]
    differentiated: int = 2  # so many of the operands, from the first, get gradients through it


def _positive_part(s: Scalar) -> Scalar:
    return s.times(1 if s.number > 0 else 0)


def _magnitude(s: Scalar) -> Scalar:
    return s.times((s.number > 0) - (s.number < 0))


def _clamped(s: Scalar) -> Scalar:
    return s if -5 < s.number < 5 else Scalar(5 if s.number > 0 else -5, ((s, 0),))


def _clamp(a: Array) -> Array | None:
    # At the limits releases differ: on 2.13.0 the derivative there is 1, on 2.14.1 it is 0.
    return a.map(_clamped) if all(abs(n) != 5 for n in a.numbers) else None


def _constant(number: int) -> Callable[[Scalar], Scalar]:
    """A number in the place of a scalar: one that depends on it by the operation, with the derivative 0."""
    return lambda s: Scalar(number, ((s, 0),))


def _each(function: Callable[[Scalar], Scalar]) -> Callable[[Array], Array]:
    return lambda a: a.map(function)


def _picked(pick: Callable[[list[Scalar]], list[Scalar]]) -> Callable[[Array], Array | None]:
    """What an operation makes of each column along the first dimension that has no number twice.

    A column with ties has no derivative there: libraries may share it out as they like.
    """

    def operation(a: Array) -> Array | None:
        if not a.shape or not a.scalars:
            return None
        width = size_of(a.shape[1:])
        columns = [a.scalars[i::width] for i in range(width)]
        if any(len({s.number for s in column}) < len(column) for column in columns):
            return None
        return over_first(a, pick)

    return operation


def _by_number(column: list[Scalar]) -> list[Scalar]:
    return sorted(column, key=lambda s: s.number)


def _larger(a: Array, b: Array) -> Array | None:
    result = elementwise(lambda x, y: x if x.number > y.number else y)(a, b)
    differences = elementwise(lambda x, y: Scalar(x.number - y.number))(a, b)
    return result if differences and all(differences.numbers) else None  # where they are equal it has none


def _transpose(a: Array) -> Array | None:
    return a.gather(a.shape[::-1], lambda i, j: (j, i)) if len(a.shape) == 2 else None


def _reversed_dimensions(a: Array) -> Array | None:
    return a.gather(a.shape[::-1], lambda *i: i[::-1]) if a.shape else None


def _rows(where: Callable[[int], list[int]], least: int = 0) -> Callable[[Array], Array | None]:
    """The operation that picks these rows out of so many."""

    def operation(a: Array) -> Array | None:
        if not a.shape or a.shape[0] < least:
            return None
        rows = where(a.shape[0])
        return a.gather((len(rows), *a.shape[1:]), lambda i, *r: (rows[i], *r))

    return operation


def _row(number: int) -> Callable[[Array], Array | None]:
    return lambda a: a.gather(a.shape[1:], lambda *i: (range(a.shape[0])[number], *i)) if _has_rows(a) else None


def _has_rows(a: Array) -> bool:
    return bool(a.shape and a.shape[0])


def _last_column(a: Array) -> Array | None:
    return a.gather(a.shape[:-1], lambda *i: (*i, a.shape[-1] - 1)) if a.shape and a.shape[-1] else None


def _windows(a: Array) -> Array | None:
    if not a.shape or a.shape[0] < 2:
        return None
    return a.gather((a.shape[0] - 1, *a.shape[1:], 2), lambda i, *r: (i + r[-1], *r[:-1]))


def _diagonal(a: Array) -> Array | None:
    return a.gather((min(a.shape),), lambda i: (i, i)) if len(a.shape) == 2 else None


def _diagonal_matrix(a: Array) -> Array | None:
    if len(a.shape) != 1:
        return None
    return _filled((*a.shape, *a.shape), lambda i, j: a[i,] if i == j else None)


def _lower_triangle(a: Array) -> Array | None:
    return _filled(a.shape, lambda i, j: a[i, j] if i >= j else None) if len(a.shape) == 2 else None


def _padded(a: Array) -> Array | None:
    if not a.shape:
        return None
    *front, last = a.shape
    return _filled((*front, last + 2), lambda *i: a[(*i[:-1], i[-1] - 1)] if 1 <= i[-1] <= last else None)


def _filled(shape: tuple[int, ...], element: Callable[..., Scalar | None]) -> Array:
    """The array with these elements, and zeros where there is none."""
    return Array(shape, tuple(element(*i) or Scalar(0) for i in indexes(shape)))


def _without_ones(a: Array) -> Array:
    return Array(tuple(size for size in a.shape if size != 1), a.scalars)


def _twice(a: Array) -> Array | None:
    return a.broadcast_to((2, *a.shape)) if len(a.shape) < 3 else None


def _tiled(a: Array) -> Array:
    *front, last = a.shape or (1,)
    flat = Array((*front, last), a.scalars)
    return flat.gather((*front, 2 * last), lambda *i: (*i[:-1], i[-1] % last))


def _positive_elements(a: Array) -> Array:
    chosen = tuple(s for s in a.scalars if s.number > 0)
    return Array((len(chosen),), chosen)


def _join(a: Array, b: Array) -> Array | None:
    if not a.shape or not b.shape or a.shape[1:] != b.shape[1:]:
        return None
    return Array((a.shape[0] + b.shape[0], *a.shape[1:]), a.scalars + b.scalars)


def _stack(a: Array, b: Array) -> Array | None:
    return Array((2, *a.shape), a.scalars + b.scalars) if a.shape == b.shape else None


def _outer(a: Array, b: Array) -> Array | None:
    if not len(a.shape) == len(b.shape) == 1:
        return None
    return Array((*a.shape, *b.shape), tuple(x * y for x in a.scalars for y in b.scalars))


def _linear(a: Array, b: Array) -> Array | None:
    return matmul(a, _transpose(b)) if a.shape and len(b.shape) == 2 else None


def _into_first(function: Callable[[Scalar, Scalar], Scalar]) -> Callable[[Array, Array], Array | None]:
    """An operation that writes into its first operand, to whose shape the second has to broadcast."""

    def operation(a: Array, b: Array) -> Array | None:
        return elementwise(function)(a, b) if broadcast_shape(a.shape, b.shape) == a.shape else None

    return operation


def _added_to_first_row(a: Array, b: Array) -> Array | None:
    if not _has_rows(a) or not b.shape or a.shape[1:] != b.shape[1:]:
        return None
    width = size_of(a.shape[1:])
    sums = tuple(total([a.scalars[i], *b.scalars[i::width]]) for i in range(width))
    return Array(a.shape, sums + a.scalars[width:])


def _squared_distance(a: Array, b: Array) -> Array | None:
    if a.shape != b.shape:
        return None
    differences = [x + y.times(-1) for x, y in zip(a.scalars, b.scalars, strict=True)]
    return Array((), (total([d * d for d in differences]),))


_PLUS_ONE = Operation("{0} + 1", _each(lambda s: s + Scalar(1)))
_SUM = Operation("{0}.sum()", lambda a: Array((), (total(a.scalars),)))
# All exact on integers, and the same on every release.
_COMMON = (
    Operation("{0} + {1}", elementwise(lambda x, y: x + y)),
    Operation("{0} * {1}", elementwise(lambda x, y: x * y)),
    Operation("{0} - {1}", elementwise(lambda x, y: x + y.times(-1))),
    Operation("{0} * 3", _each(lambda s: s.times(3))),
    Operation("{0} @ {1}", matmul),
    Operation("torch.cat([{0}, {1}])", _join),
    _PLUS_ONE,
    _SUM,
    Operation("-{0}", _each(lambda s: s.times(-1))),
    Operation("{0}.sum(0)", lambda a: sum_over(a, 0) if a.shape else None),
    Operation("{0}.relu()", _each(_positive_part)),
    Operation("{0}.square()", _each(lambda s: s * s)),
    Operation("{0}.t()", _transpose),
    Operation("{0}.reshape(-1)", lambda a: Array((size_of(a.shape),), a.scalars)),
    Operation("{0}[0]", _row(0)),
    Operation("{0}.expand(2, *{0}.shape)", _twice),
    Operation("{0}.clone()", lambda a: a),
)
_RARE = (
    # two operands
    Operation("torch.where({0} > {1}, {0}, {1})", elementwise(lambda x, y: x if x.number > y.number else y)),
    Operation("torch.maximum({0}, {1})", _larger),
    Operation("torch.stack([{0}, {1}])", _stack),
    Operation("torch.outer({0}, {1})", _outer),
    Operation("torch.nn.functional.linear({0}, {1})", _linear),
    Operation("torch.add({0}, {1}, alpha=2)", elementwise(lambda x, y: x + y.times(2))),
    Operation("torch.addcmul({0}, {0}, {1}, value=2)", elementwise(lambda x, y: x + (x * y).times(2))),
    Operation("torch.lerp({0}, {1}, 3.0)", elementwise(lambda x, y: x.times(-2) + y.times(3))),
    Operation("torch.nn.functional.mse_loss({0}, {1}, reduction='sum')", _squared_distance),
    Operation("{0}.clone().mul_({1})", _into_first(lambda x, y: x * y)),
    Operation("{0}.clone().copy_({1})", _into_first(lambda x, y: y + x.times(0))),
    Operation(
        "{0}.index_add(0, torch.zeros(len({1}), dtype=torch.int64, device={1}.device), {1})", _added_to_first_row
    ),
    Operation("{0}.masked_fill({1} > 0, 2)", _into_first(lambda x, y: _constant(2)(x) if y.number > 0 else x), 1),
    # elements
    Operation("{0}.abs()", _each(_magnitude)),
    Operation("2 - {0}", _each(lambda s: Scalar(2) + s.times(-1))),
    Operation("{0} / 0.5", _each(lambda s: s.times(2))),
    Operation("{0} ** 3", _each(lambda s: s * s * s)),
    Operation("{0}.clamp(-5, 5)", _clamp),
    Operation("{0}.sign()", _each(lambda s: _constant((s.number > 0) - (s.number < 0))(s))),
    Operation("torch.where({0} > 0, {0}, -2 * {0})", _each(lambda s: s.times(1 if s.number > 0 else -2))),
    Operation("{0}.to(torch.float32, copy=True).to({0}.dtype)", lambda a: a),
    Operation("{0}.clone().zero_()", _each(_constant(0))),
    Operation("{0}.detach()", lambda a: Array.of(a.shape, a.numbers), 0),
    # reductions and what goes along a dimension
    Operation("{0}.sum(-1)", lambda a: sum_over(a, len(a.shape) - 1) if a.shape else None),
    Operation(
        "{0}.sum(0, keepdim=True)", lambda a: Array((1, *a.shape[1:]), sum_over(a, 0).scalars) if a.shape else None
    ),
    Operation(
        "{0}.mean() * {0}.numel()",  # a power of two divides without a rest
        lambda a: _SUM.rule(a) if len(a.scalars) in (1, 2, 4, 8, 16) else None,
    ),
    Operation("{0}.prod()", lambda a: Array((), (product(a.scalars),)) if len(a.scalars) <= 6 else None),
    Operation("{0}.cumsum(0)", lambda a: running_sum(a) if a.shape else None),
    Operation("{0}.amax(0)", _picked(lambda column: _by_number(column)[-1])),
    Operation("{0}.min(0).values", _picked(lambda column: _by_number(column)[0])),
    Operation("{0}.sort(0).values", _picked(_by_number)),
    # parts and views
    Operation("{0}[1:]", _rows(lambda n: list(range(n))[1:])),
    Operation("{0}[::2]", _rows(lambda n: list(range(n))[::2])),
    Operation("{0}[[0, -1, 0]]", _rows(lambda n: [0, n - 1, 0], least=1)),
    Operation("{0}[{0} > 0]", _positive_elements),
    Operation("{0}[..., -1]", _last_column),
    Operation("{0}.unbind()[-1]", _row(-1)),
    Operation("{0}.split(1)[-1]", _rows(lambda n: [n - 1], least=1)),
    Operation("torch.stack({0}.unbind()[::-1])", _rows(lambda n: list(range(n))[::-1], least=1)),
    Operation("sum({0}.unbind())", lambda a: sum_over(a, 0) if _has_rows(a) else None),
    Operation("{0}.flip(0)", _rows(lambda n: list(range(n))[::-1])),
    Operation("{0}.roll(1, 0)", _rows(lambda n: [(i - 1) % n for i in range(n)])),
    Operation("{0}.repeat_interleave(2, 0)", _rows(lambda n: [i // 2 for i in range(2 * n)])),
    Operation("{0}.gather(0, torch.zeros_like({0}, dtype=torch.int64))", _rows(lambda n: [0] * n)),
    Operation("{0}.unfold(0, 2, 1)", _windows),
    Operation("{0}.permute(*range({0}.dim())[::-1])", _reversed_dimensions),
    Operation("{0}.unsqueeze(0)", lambda a: Array((1, *a.shape), a.scalars)),
    Operation("{0}.unsqueeze(-1)", lambda a: Array((*a.shape, 1), a.scalars)),
    Operation("{0}.squeeze()", _without_ones),
    Operation("{0}.tile(2)", _tiled),
    Operation("{0}.diagonal()", _diagonal),
    Operation("{0}.diag_embed()", _diagonal_matrix),
    Operation("{0}.tril()", _lower_triangle),
    Operation("torch.nn.functional.pad({0}, (1, 1))", _padded),
)
OPERATIONS = _COMMON * 3 + _RARE
_EXACT = [o for o in _COMMON + _RARE if o.code != "{0}.prod()"]  # whose derivative is a quotient, and so is inexact
_PRODUCTS = [
    o
    for o in _EXACT
    if any(sign in o.code for sign in ("{0} * {1}", "@", "square", "**", "outer", "linear", "cmul", "mse", "mul_"))
]
_CURVED = (*_PRODUCTS * 4, *_EXACT)  # of which graphs are made whose derivatives have derivatives
_LIMIT = 2**20  # of numbers and derivatives, so that all stay exact in float64, also when they are summed


@functools.cache
def _compiled(code: str) -> Callable[..., torch.Tensor]:
    return eval(f"lambda a, b=None: {code.format('a', 'b')}")


class Statement(NamedTuple):
    """`name` is the result of the operation on the tensors of these names."""

    name: str
    operation: Operation
    operands: tuple[str, ...]

    @property
    def sources(self) -> tuple[str, ...]:
        """The operands to which gradients flow."""
        return self.operands[: self.operation.differentiated]

    @property
    def code(self) -> str:
        """The statement in plain PyTorch."""
        return f"{self.name} = {self.operation.code.format(*self.operands)}"


@dataclass(frozen=True)
class Graph:
    """A graph with one or several roots, and a cotangent of the shape of each."""

    leaves: dict[str, Values]  # the inputs that require grad
    constants: dict[str, Values]  # those that don't
    statements: tuple[Statement, ...]
    cotangents: dict[str, Values]  # by the name of the root
    predicted: dict[str, Values | None]  # the gradient by each tensor; None if no root depends on it
    direction: dict[str, Values] = field(default_factory=dict)  # a tensor of the shape of each leaf
    derived: tuple[dict[str, Values], ...] = ()  # the gradients by the leaves, repeatedly along the direction

    @property
    def root(self) -> str:
        """The name of the tensor from which backward starts, the first one if there are several."""
        return next(iter(self.cotangents))

    @property
    def cotangent(self) -> Values:
        """The cotangent of the root."""
        return self.cotangents[self.root]

    @property
    def results(self) -> list[str]:
        """The names of all tensors that operations made and that require grad."""
        recorded = _depends(self.statements, set(self.leaves))
        return [s.name for s in self.statements if s.name in recorded]

    def build(self, world: World) -> dict[str, torch.Tensor]:
        """Every tensor of the graph by name, made in the world."""
        tensors = {name: world.leaf(v) for name, v in self.leaves.items()}
        tensors |= {name: world.constant(v) for name, v in self.constants.items()}
        for name, operation, operands in self.statements:
            tensors[name] = _compiled(operation.code)(*(tensors[operand] for operand in operands))
        return tensors

    def gradients(self, world: World) -> dict[str, torch.Tensor | None]:
        """What the reference model predicts for backward from the roots with the cotangents, by name."""
        return {name: v and world.constant(v) for name, v in self.predicted.items()}

    def repeated(self, world: World) -> list[dict[str, torch.Tensor]]:
        """By the leaves, the gradient of a number, that of its derivative along the direction, and so on.

        The number is the sum of the squares of the root's elements, weighed with the cotangent. Where nothing
        depends on a leaf its gradient is zeros.
        """
        return [{name: world.constant(v) for name, v in order.items()} for order in self.derived]

    def __repr__(self) -> str:
        return "; ".join(statement.code for statement in self.statements)

    def definition(self, name: str, world: World) -> str:
        """The graph as a class of plain PyTorch that a script can use in its place."""

        inputs = [f"{n} = {world.code(v)}.requires_grad_()" for n, v in self.leaves.items()]
        inputs += [f"{n} = {world.code(v)}" for n, v in self.constants.items()]
        names = [*self.leaves, *self.constants, *(s.name for s in self.statements)]
        several = ", ".join(f"{n!r}: lambda: {world.code(v)}" for n, v in self.cotangents.items())
        lines = [
            f"class {name}:",
            f"    leaves = {list(self.leaves)}",
            f"    constants = {list(self.constants)}",
            f"    results = {self.results}",
            f"    root = {self.root!r}",
            f"    cotangent = lambda: {world.code(self.cotangent)}",
            f"    cotangents = {{{several}}}",
            "",
            "    def build(world):",
            *(f"        {line}" for line in inputs),
            *(f"        {statement.code}" for statement in self.statements),
            f"        return {{{', '.join(f'{n!r}: {n}' for n in names)}}}",
            "",
            "    def gradients(world):  # by hand, one scalar after the other",
            "        return {",
            *(f"            {n!r}: {world.code(v)}," for n, v in self.predicted.items()),
            "        }",
            *(self._definition_of_repeated(world) if self.derived else ()),
            "",
        ]
        return "\n".join(lines)

    def _definition_of_repeated(self, world: World) -> list[str]:
        """What a script needs besides, if there are higher orders."""
        along = ", ".join(f"{n!r}: lambda: {world.code(v)}" for n, v in self.direction.items())
        return [
            "",
            f"    direction = {{{along}}}",
            "",
            "    def repeated(world):  # by hand, one scalar after the other",
            "        return [",
            *(f"            {{{', '.join(f'{n!r}: {world.code(v)}' for n, v in o.items())}}}," for o in self.derived),
            "        ]",
        ]


_FORMS = forms(((), (1,), (2,), (3,), (2, 3), (3, 1), (1, 3), (2, 2), (0,)), LAYOUTS, ("float64",))


@functools.cache
def graphs(*, scalar: bool = False, most: int = 8, anywhere: int = 0, orders: int = 0) -> st.SearchStrategy[Graph]:
    """Graphs over one to three leaves and up to two constants, of `most` statements at the most.

    The root is the tensor made last.
    scalar    the root has one element in no dimension, so that backward needs no cotangent
    anywhere  up to so many tensors, anywhere in the graph and leaves among them, are its roots instead
    orders    so many derivatives along a direction are predicted besides
    """
    # Four draws for a whole graph: each costs as much as an operation.
    return st.builds(
        functools.partial(_graph, scalar, anywhere, orders),
        st.sampled_from(list(itertools.product(range(1, 4), range(3), range(1, most + 1)))),
        st.binary(min_size=5 * 7, max_size=5 * 7),  # for each input its form and up to six numbers
        st.binary(min_size=3 * most, max_size=3 * most),  # for each statement its operation and operands
        st.binary(min_size=24, max_size=24),  # the cotangent
    )


def _graph(
    scalar: bool,
    anywhere: int,
    orders: int,
    counts: tuple[int, int, int],
    inputs: bytes,
    choices: bytes,
    content: bytes,
) -> Graph:
    leaf_count, constant_count, count = counts
    drawn = [filled(_FORMS[inputs[i] % len(_FORMS)], inputs[i + 1 : i + 7]) for i in range(0, len(inputs), 7)]
    leaves, constants = drawn[:leaf_count], drawn[leaf_count : leaf_count + constant_count]
    names = iter("abcdefghijklmnopqrstuvwxyz")
    leaf_values = {next(names): v for v in leaves}
    constant_values = {next(names): v for v in constants}
    arrays = {n: Array.of(v.shape, v.numbers) for n, v in (constant_values | leaf_values).items()}
    statements: list[Statement] = []

    def add(operation: Operation, *operands: str) -> bool:
        result = operation.rule(*(arrays[operand] for operand in operands))
        if result is None or size_of(result.shape) > 24 or any(abs(n) > _LIMIT for n in result.numbers):
            return False
        name = next(names)
        arrays[name] = result.map(lambda s: s.times(1))  # scalars of its own: each tensor has its gradient
        statements.append(Statement(name, operation, operands))
        return True

    operations = _CURVED if orders else OPERATIONS
    for number, first, second in zip(*[iter(choices[: 3 * count])] * 3, strict=True):
        if not number:  # so that a counterexample can lose a statement in the middle
            continue
        known = list(arrays)[::-1]
        # Mostly among the latest: graphs grow deep rather than wide.
        operands = (known[first % 8 % len(known)], known[second % 8 % len(known)])
        for attempt in range(3):  # an operation that doesn't suit the operands gives way to the next one
            operation = operations[(number - 1 + attempt) % len(operations)]
            if add(operation, *operands[: 1 + ("{1}" in operation.code)]):
                break
    recorded = _depends(statements, set(leaf_values))
    while statements and statements[-1].name not in recorded:  # the root has to require grad
        del arrays[statements.pop().name]
    if not statements:
        add(_PLUS_ONE, next(iter(leaf_values)))
    if scalar and arrays[statements[-1].name].shape:
        add(_SUM, statements[-1].name)
    roots = [statements[-1].name]
    if anywhere:
        recorded = _depends(statements, set(leaf_values))
        known = [name for name in arrays if name in recorded][::-1]
        picks = content[: 1 + content[-1] % anywhere]
        roots = list(dict.fromkeys(known[pick % len(known)] for pick in picks))
    graph = _predicted(leaf_values, constant_values, statements, arrays, roots, content)
    if graph and orders:
        graph = _derived(graph, arrays, content[::-1], orders)
    # Too large derivatives: the same with a statement less, and at the end with none but `+ 1`.
    return graph or _graph(scalar, anywhere, orders, (leaf_count, constant_count, count - 1), inputs, choices, content)


def _depends(statements: list[Statement], sources: set[str]) -> set[str]:
    """The sources and every result that depends on one of them."""
    found = set(sources)
    for statement in statements:
        if found.intersection(statement.sources):
            found.add(statement.name)
    return found


def _predicted(leaves, constants, statements, arrays, roots, content) -> Graph | None:
    cotangents = {}
    for root in roots:
        shape = arrays[root].shape
        cotangents[root] = Values(shape, tuple((1, 2, -1, 3, 0)[byte % 5] for byte in content[: size_of(shape)]))
        content = content[1:] + content[:1]  # another one for each
    derivative = gradients(
        (scalar, weight)
        for root, v in cotangents.items()
        for scalar, weight in zip(arrays[root].scalars, v.numbers, strict=True)
    )
    if any(abs(d) > _LIMIT for d in derivative.values()):
        return None

    # Which tensors a root depends on is a matter of operations: x[:0].sum() depends on x.
    recorded = _depends(statements, set(leaves))
    used = set(roots)
    for statement in reversed(statements):
        if statement.name in used:
            used.update(recorded.intersection(statement.sources))
    predicted = {
        name: Values(array.shape, tuple(derivative.get(s, 0) for s in array.scalars)) if name in used else None
        for name, array in arrays.items()
        if name in recorded
    }
    return Graph(leaves, constants, tuple(statements), cotangents, predicted)


def _derived(graph: Graph, arrays: dict[str, Array], content: bytes, orders: int) -> Graph | None:
    """The graph with its derivatives up to so many orders; None if they are too large."""
    direction, derived = {}, []
    for name, v in graph.leaves.items():
        direction[name] = Values(v.shape, tuple((1, 2, -1, 0)[byte % 4] for byte in content[: size_of(v.shape)]))
        content = content[1:] + content[:1]
    start = [(s * s, w) for n, v in graph.cotangents.items() for s, w in zip(arrays[n].scalars, v.numbers, strict=True)]
    for _ in range(orders):
        derivative = gradients(start, differentiable=True)
        if any(abs(number_of(d)) > _LIMIT for d in derivative.values()):
            return None
        found = {name: [derivative.get(s, 0) for s in arrays[name].scalars] for name in graph.leaves}
        derived.append({n: Values(arrays[n].shape, tuple(map(number_of, d))) for n, d in found.items()})
        along = [pair for n, d in found.items() for pair in zip(d, direction[n].numbers, strict=True)]
        start = [(d, weight) for d, weight in along if isinstance(d, Scalar)]
    return replace(graph, direction=direction, derived=tuple(derived))
