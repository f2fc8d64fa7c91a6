"""Arrays of scalars, and the operations on them as plain loops over scalars.

The elements may be anything that an operation can add and multiply, complex numbers included; what
only moves elements about (`gather`) also moves positions, so one rule serves a copy and a view.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from .scalars import Complex, Scalar


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
    if scalars and isinstance(scalars[0], Complex):
        return Complex(total([s.real for s in scalars]), total([s.imag for s in scalars]))
    return Scalar(sum(s.number for s in scalars), tuple((s, 1) for s in scalars))


def product(scalars: Sequence[Scalar]) -> Scalar:
    """The product of any number of scalars."""
    return functools.reduce(operator.mul, scalars, Scalar(1))


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
