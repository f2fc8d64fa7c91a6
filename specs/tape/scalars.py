"""Exact scalars, the chain rule over them, and arrays of them.

A scalar is an integer with its parents and the derivative by each: all that the chain rule needs. An
operation on arrays is a plain loop over scalars, so there is no derivative formula of an array
operation that could be wrong here in the same way as in PyTorch.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field


class Scalar:
    """A number, its parents, and the derivative of the number by each parent."""

    __slots__ = ("number", "parents")

    def __init__(self, number: int, parents: tuple[tuple[Scalar, int], ...] = ()):
        self.number, self.parents = number, parents

    def __add__(self, other: Scalar) -> Scalar:
        return Scalar(self.number + other.number, ((self, 1), (other, 1)))

    def __mul__(self, other: Scalar) -> Scalar:
        return Scalar(self.number * other.number, ((self, other.number), (other, self.number)))

    def times(self, factor: int) -> Scalar:
        """The product with a number that isn't differentiated."""
        return Scalar(self.number * factor, ((self, factor),))


def gradients(roots: Iterable[tuple[Scalar, int]]) -> dict[Scalar, int]:
    """The derivative of the weighted sum of the roots by every scalar that they came from.

    The chain rule: a scalar's derivative is the sum over its children of their derivative times
    the local one; children come before parents.
    """
    roots = list(roots)
    order: list[Scalar] = []
    seen: set[Scalar] = set()
    stack = [(root, False) for root, _ in roots]
    while stack:
        scalar, parents_done = stack.pop()
        if parents_done:
            order.append(scalar)
        elif scalar not in seen:
            seen.add(scalar)
            stack.append((scalar, True))
            stack.extend((parent, False) for parent, _ in scalar.parents)
    derivative = dict.fromkeys(order, 0)
    for root, weight in roots:
        derivative[root] += weight
    for scalar in reversed(order):
        for parent, local in scalar.parents:
            derivative[parent] += derivative[scalar] * local
    return derivative


@dataclass(frozen=True)
class Array:
    """Scalars in a shape, row by row."""

    shape: tuple[int, ...]
    scalars: tuple[Scalar, ...] = field(repr=False)

    @staticmethod
    def of(shape: tuple[int, ...], numbers: Iterable[int]) -> Array:
        """An array of new scalars without parents."""
        return Array(shape, tuple(map(Scalar, numbers)))

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers without what they came from."""
        return tuple(scalar.number for scalar in self.scalars)

    def __getitem__(self, index: Sequence[int]) -> Scalar:
        offset = 0
        for i, size in zip(index, self.shape, strict=True):
            offset = offset * size + i
        return self.scalars[offset]

    def gather(self, shape: tuple[int, ...], where: Callable[..., Sequence[int]]) -> Array:
        """The array of `shape` whose element at an index is ours at `where(*index)`: any view or copy."""
        return Array(shape, tuple(self[where(*index)] for index in indexes(shape)))

    def map(self, function: Callable[[Scalar], Scalar]) -> Array:
        """The array of what `function` makes of each element."""
        return Array(self.shape, tuple(map(function, self.scalars)))

    def broadcast_to(self, shape: tuple[int, ...]) -> Array:
        """Our elements repeated along new dimensions in front and along dimensions of size 1."""
        skipped = len(shape) - len(self.shape)
        return self.gather(
            shape, lambda *i: [k if size > 1 else 0 for k, size in zip(i[skipped:], self.shape, strict=True)]
        )


def indexes(shape: Sequence[int]) -> Iterable[tuple[int, ...]]:
    """Every index of an array of `shape`, row by row."""
    return itertools.product(*map(range, shape))


def broadcast_shape(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape that both broadcast to, or None."""
    pairs = list(itertools.zip_longest(reversed(a), reversed(b), fillvalue=1))
    if any(x != y and 1 not in (x, y) for x, y in pairs):
        return None
    return tuple(y if x == 1 else x for x, y in reversed(pairs))


def total(scalars: Sequence[Scalar]) -> Scalar:
    """The sum of any number of scalars."""
    return Scalar(sum(s.number for s in scalars), tuple((s, 1) for s in scalars))


def product(scalars: Sequence[Scalar]) -> Scalar:
    """The product of any number of scalars."""
    return functools.reduce(Scalar.__mul__, scalars, Scalar(1))


def elementwise(function: Callable[[Scalar, Scalar], Scalar]) -> Callable[[Array, Array], Array | None]:
    """The operation on two arrays that applies `function` to the elements that broadcasting pairs."""

    def operation(a: Array, b: Array) -> Array | None:
        shape = broadcast_shape(a.shape, b.shape)
        if shape is None:
            return None
        pairs = zip(a.broadcast_to(shape).scalars, b.broadcast_to(shape).scalars, strict=True)
        return Array(shape, tuple(function(x, y) for x, y in pairs))

    return operation


def matmul(a: Array, b: Array) -> Array | None:
    """The product of two matrices, or of batches of them; a vector stands for a row on the left, for a
    column on the right. None for other shapes."""
    if not a.shape or not b.shape:
        return None
    left = a if len(a.shape) > 1 else Array((1, *a.shape), a.scalars)
    right = b if len(b.shape) > 1 else Array((*b.shape, 1), b.scalars)
    batch = broadcast_shape(left.shape[:-2], right.shape[:-2])
    rows, inner, columns = *left.shape[-2:], right.shape[-1]
    if batch is None or right.shape[-2] != inner:
        return None
    if batch:
        left, right = left.broadcast_to((*batch, rows, inner)), right.broadcast_to((*batch, inner, columns))
    products = (
        total([left[*n, i, k] * right[*n, k, j] for k in range(inner)])
        for n in indexes(batch)
        for i, j in indexes((rows, columns))
    )
    kept = ([rows] if len(a.shape) > 1 else []) + ([columns] if len(b.shape) > 1 else [])
    return Array((*batch, *kept), tuple(products))


def sum_over(a: Array, dim: int) -> Array:
    """The sum over one dimension."""
    shape = a.shape[:dim] + a.shape[dim + 1 :]
    size = a.shape[dim]
    return Array(shape, tuple(total([a[(*i[:dim], k, *i[dim:])] for k in range(size)]) for i in indexes(shape)))


def running_sum(a: Array) -> Array:
    """The sums of all that lies before and at an element along the first dimension."""
    return Array(a.shape, tuple(total([a[(k, *i[1:])] for k in range(i[0] + 1)]) for i in indexes(a.shape)))


def over_first(a: Array, function: Callable[[list[Scalar]], Scalar | list[Scalar]]) -> Array:
    """What `function` makes of each column along the first dimension: one scalar, or a new column."""
    width = size_of(a.shape[1:])
    made = [function(list(a.scalars[i::width])) for i in range(width)]
    if any(isinstance(column, Scalar) for column in made):
        return Array(a.shape[1:], tuple(made))
    return Array(a.shape, tuple(itertools.chain.from_iterable(zip(*made, strict=True))))


def size_of(shape: Sequence[int]) -> int:
    """How many elements an array of `shape` has."""
    return math.prod(shape)
