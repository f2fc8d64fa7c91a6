"""Random graphs of operations, as data.

PyTorch builds a graph in a world; the reference model predicts its gradients.

A graph is written down as the statements of a straight-line program. A later statement uses any
earlier tensors, the same one twice included, so subexpressions are shared, paths split and join
again, and branches end without reaching the root.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from hypothesis import strategies as st

from ..tape.scalars import Array, Scalar, elementwise, gradients, matmul, running_sum, size_of, sum_over, total
from .values import Values, values
from .world import World


class Operation(NamedTuple):
    """An operation in PyTorch's words, and what it is in the reference model (None: not for these shapes)."""

    code: str
    rule: Callable[..., Array | None]


def _positive_part(s: Scalar) -> Scalar:
    return s.times(1 if s.number > 0 else 0)


def _magnitude(s: Scalar) -> Scalar:
    return s.times((s.number > 0) - (s.number < 0))


def _transpose(a: Array) -> Array | None:
    return a.gather(a.shape[::-1], lambda i, j: (j, i)) if len(a.shape) == 2 else None


def _first(a: Array) -> Array | None:
    return a.gather(a.shape[1:], lambda *i: (0, *i)) if a.shape and a.shape[0] else None


def _every_second(a: Array) -> Array | None:
    return a.gather(((a.shape[0] + 1) // 2, *a.shape[1:]), lambda i, *r: (2 * i, *r)) if a.shape else None


def _flip(a: Array) -> Array | None:
    return a.gather(a.shape, lambda i, *r: (a.shape[0] - 1 - i, *r)) if a.shape else None


def _twice(a: Array) -> Array | None:
    return a.broadcast_to((2, *a.shape)) if len(a.shape) < 3 else None


def _join(a: Array, b: Array) -> Array | None:
    if not a.shape or not b.shape or a.shape[1:] != b.shape[1:]:
        return None
    return Array((a.shape[0] + b.shape[0], *a.shape[1:]), a.scalars + b.scalars)


_PLUS_ONE = Operation("{0} + 1", lambda a: a.map(lambda s: s + Scalar(1)))
_SUM = Operation("{0}.sum()", lambda a: Array((), (total(a.scalars),)))
OPERATIONS = (
    Operation("{0} + {1}", elementwise(lambda x, y: x + y)),
    Operation("{0} * {1}", elementwise(lambda x, y: x * y)),
    Operation("{0} - {1}", elementwise(lambda x, y: x + y.times(-1))),
    Operation("{0} @ {1}", matmul),
    Operation("torch.cat([{0}, {1}])", _join),
    Operation("torch.where({0} > {1}, {0}, {1})", elementwise(lambda x, y: x if x.number > y.number else y)),
    Operation("{0} * 3", lambda a: a.map(lambda s: s.times(3))),
    _PLUS_ONE,
    Operation("-{0}", lambda a: a.map(lambda s: s.times(-1))),
    _SUM,
    Operation("{0}.sum(0)", lambda a: sum_over(a, 0) if a.shape else None),
    Operation("{0}.sum(-1)", lambda a: sum_over(a, len(a.shape) - 1) if a.shape else None),
    Operation("{0}.relu()", lambda a: a.map(_positive_part)),
    Operation("{0}.abs()", lambda a: a.map(_magnitude)),
    Operation("{0}.square()", lambda a: a.map(lambda s: s * s)),
    Operation("{0}.clone()", lambda a: a),
    Operation("{0}.t()", _transpose),
    Operation("{0}.reshape(-1)", lambda a: Array((size_of(a.shape),), a.scalars)),
    Operation("{0}[0]", _first),
    Operation("{0}[::2]", _every_second),
    Operation("{0}.flip(0)", _flip),
    Operation("{0}.expand(2, *{0}.shape)", _twice),
    Operation("{0}.cumsum(0)", lambda a: running_sum(a) if a.shape else None),
)
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
    def code(self) -> str:
        return f"{self.name} = {self.operation.code.format(*self.operands)}"


@dataclass(frozen=True)
class Graph:
    """A graph with its root, the tensor made last, and a cotangent of the root's shape."""

    leaves: dict[str, Values]  # the inputs that require grad
    constants: dict[str, Values]  # those that don't
    statements: tuple[Statement, ...]
    cotangent: Values
    predicted: dict[str, Values | None]  # the gradient by each tensor; None if the root doesn't depend on it

    @property
    def root(self) -> str:
        return self.statements[-1].name

    @property
    def results(self) -> list[str]:
        """The names of all tensors that operations made and that require grad."""
        recorded = set(self.leaves)
        for statement in self.statements:
            if recorded.intersection(statement.operands):
                recorded.add(statement.name)
        return [s.name for s in self.statements if s.name in recorded]

    def build(self, world: World) -> dict[str, torch.Tensor]:
        """Every tensor of the graph by name, made in the world."""
        tensors = {name: world.leaf(v) for name, v in self.leaves.items()}
        tensors |= {name: world.constant(v) for name, v in self.constants.items()}
        for name, operation, operands in self.statements:
            tensors[name] = _compiled(operation.code)(*(tensors[operand] for operand in operands))
        return tensors

    def gradients(self, world: World) -> dict[str, torch.Tensor | None]:
        """What the reference model predicts for backward from the root with the cotangent, by name."""
        return {name: v and world.constant(v) for name, v in self.predicted.items()}

    def __repr__(self) -> str:
        return "; ".join(statement.code for statement in self.statements)

    def definition(self, name: str, world: World) -> str:
        """The graph as a class of plain PyTorch that a script can use in its place."""

        def made(v: Values | None) -> str:
            return str(v and world.fitted(v).code(repr(str(world.device))))

        inputs = [f"{n} = {made(v)}.requires_grad_()" for n, v in self.leaves.items()]
        inputs += [f"{n} = {made(v)}" for n, v in self.constants.items()]
        names = [*self.leaves, *self.constants, *(s.name for s in self.statements)]
        lines = [
            f"class {name}:",
            f"    leaves = {list(self.leaves)}",
            f"    constants = {list(self.constants)}",
            f"    results = {self.results}",
            f"    root = {self.root!r}",
            f"    cotangent = lambda: {made(self.cotangent)}",
            "",
            "    def build(world):",
            *(f"        {line}" for line in inputs),
            *(f"        {statement.code}" for statement in self.statements),
            f"        return {{{', '.join(f'{n!r}: {n}' for n in names)}}}",
            "",
            "    def gradients(world):  # by hand, one scalar after the other",
            "        return {",
            *(f"            {n!r}: {made(v)}," for n, v in self.predicted.items()),
            "        }",
            "",
        ]
        return "\n".join(lines)


@functools.cache
def graphs(*, scalar: bool = False, most: int = 8) -> st.SearchStrategy[Graph]:
    """Graphs over one to three leaves and up to two constants, of `most` statements at the most.

    scalar  the root has one element in no dimension, so that backward needs no cotangent
    """
    small = values(shapes=((), (1,), (2,), (3,), (2, 3), (3, 1), (1, 3), (2, 2), (0,)), dtypes=("float64",))
    return st.builds(
        functools.partial(_graph, scalar),
        st.lists(small, min_size=1, max_size=3),
        st.lists(small, max_size=2),
        # One number stands for an operation and its operands, which keeps drawing cheap.
        st.lists(st.integers(0, len(OPERATIONS) * 8**2 - 1), min_size=1, max_size=most),
        st.binary(min_size=24, max_size=24),
    )


def _graph(scalar: bool, leaves: list[Values], constants: list[Values], choices: list[int], content: bytes) -> Graph:
    names = iter("abcdefghijklmnopqrstuvwxyz")
    leaf_values = {next(names): v for v in leaves}
    constant_values = {next(names): v for v in constants}
    arrays = {n: Array.of(v.shape, v.numbers) for n, v in (leaf_values | constant_values).items()}
    statements: list[Statement] = []

    def add(operation: Operation, *operands: str) -> bool:
        result = operation.rule(*(arrays[operand] for operand in operands))
        if result is None or size_of(result.shape) > 24 or any(abs(n) > _LIMIT for n in result.numbers):
            return False
        name = next(names)
        arrays[name] = result
        statements.append(Statement(name, operation, operands))
        return True

    for choice in choices:
        choice, first = divmod(choice, 8)
        number, second = divmod(choice, 8)
        operation = OPERATIONS[number]
        known = list(arrays)[::-1]  # the latest first: graphs grow deep rather than wide
        operands = [known[first % len(known)], known[second % len(known)]]
        if "{1}" not in operation.code:
            operands.pop()
        add(operation, *operands)
    recorded = _depends(statements, set(leaf_values))
    if not statements or statements[-1].name not in recorded:
        add(_PLUS_ONE, next(iter(leaf_values)))  # the root has to require grad
    if scalar and arrays[statements[-1].name].shape:
        add(_SUM, statements[-1].name)
    return _predicted(leaf_values, constant_values, statements, arrays, content)


def _depends(statements: list[Statement], sources: set[str]) -> set[str]:
    """The sources and every result that depends on one of them."""
    found = set(sources)
    for statement in statements:
        if found.intersection(statement.operands):
            found.add(statement.name)
    return found


def _predicted(leaves, constants, statements, arrays, content) -> Graph:
    root = statements[-1].name
    shape = arrays[root].shape
    weights = [(1, 2, -1, 3, 0)[byte % 5] for byte in content[: size_of(shape)]]
    derivative = gradients(zip(arrays[root].scalars, weights, strict=True))

    # Which tensors the root depends on is a matter of operations: x[:0].sum() depends on x.
    recorded = _depends(statements, set(leaves))
    used = {root}
    for statement in reversed(statements):
        if statement.name in used:
            used.update(recorded.intersection(statement.operands))
    predicted = {
        name: Values(array.shape, tuple(derivative.get(s, 0) for s in array.scalars)) if name in used else None
        for name, array in arrays.items()
        if name in recorded
    }
    return Graph(leaves, constants, tuple(statements), Values(shape, tuple(weights)), predicted)
