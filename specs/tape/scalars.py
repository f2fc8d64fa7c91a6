"""Exact scalars that remember how they came about, and the chain rule over them.

A scalar is a number with its parents and the derivative of the number by each: all that the chain
rule needs. Nothing here knows of tensors. A derivative may be a number, or a scalar itself; then it
can be differentiated again.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping

_order = itertools.count()


class Scalar:
    """A number, its parents, and the derivative of the number by each parent."""

    __slots__ = ("number", "order", "parents")

    def __init__(self, number: float, parents: tuple[tuple[Scalar, float | Scalar], ...] = ()):
        self.number, self.parents = number, parents
        self.order = next(_order)  # parents are made before their children

    def __add__(self, other: Scalar | float) -> Scalar:
        if isinstance(other, Scalar):
            return Scalar(self.number + other.number, ((self, 1), (other, 1)))
        if isinstance(other, Complex):
            return NotImplemented
        return Scalar(self.number + other, ((self, 1),))

    def __mul__(self, other: Scalar | float) -> Scalar:
        if isinstance(other, Scalar):
            return Scalar(self.number * other.number, ((self, other), (other, self)))
        if isinstance(other, Complex):
            return NotImplemented
        return self.times(other)

    __radd__, __rmul__ = __add__, __mul__

    def times(self, factor: float) -> Scalar:
        """The product with a number that isn't differentiated."""
        return Scalar(self.number * factor, ((self, factor),))

    def at(self, number: float) -> Scalar:
        """The same scalar with another number, as after a write that nothing records."""
        return self if number == self.number else Scalar(number, ((self, 1),))


class Complex:
    """A complex number as the pair of its real and its imaginary part, each a scalar.

    The derivative of a real number by it is the pair of the derivatives by its parts. No rule about
    conjugates is needed: which conjugates PyTorch has to take follows from this.
    """

    __slots__ = ("imag", "real")

    def __init__(self, real: Scalar, imag: Scalar):
        self.real, self.imag = real, imag

    @staticmethod
    def of(element: Scalar | Complex) -> Complex:
        """A complex number as it is, and a real one with the imaginary part 0."""
        return element if isinstance(element, Complex) else Complex(element, Scalar(0))

    def __add__(self, other: Scalar | Complex) -> Complex:
        other = Complex.of(other)
        return Complex(self.real + other.real, self.imag + other.imag)

    def __mul__(self, other: Scalar | Complex) -> Complex:
        other = Complex.of(other)
        real = self.real * other.real + (self.imag * other.imag).times(-1)
        return Complex(real, self.real * other.imag + self.imag * other.real)

    __radd__, __rmul__ = __add__, __mul__

    def times(self, factor: float) -> Complex:
        """The product with a real number that isn't differentiated."""
        return Complex(self.real.times(factor), self.imag.times(factor))

    def conjugate(self) -> Complex:
        """The number with the opposite imaginary part."""
        return Complex(self.real, self.imag.times(-1))


def number_of(value: float | Scalar) -> float:
    """The number alone."""
    return value.number if isinstance(value, Scalar) else value


def gradients(
    roots: Iterable[tuple[Scalar, float | Scalar]],
    passed: Mapping[Scalar, Callable[[float | Scalar], float | Scalar]] | None = None,
    differentiable: bool = False,
) -> dict[Scalar, float | Scalar]:
    """The derivative of the weighted sum of the roots by every scalar that they came from.

    The chain rule: a scalar's derivative is the sum over its children of their derivative times
    the local one; children come before parents.

    passed          what becomes of the derivative by a scalar when it is complete, before its
                    parents see it: this is what hooks do
    differentiable  whether derivatives are scalars with parents of their own, where they depend on any
    """
    roots = list(roots)
    reached: set[Scalar] = set()
    stack = [root for root, _ in roots]
    while stack:
        scalar = stack.pop()
        if scalar not in reached:
            reached.add(scalar)
            stack.extend(parent for parent, _ in scalar.parents)
    derivative: dict[Scalar, float | Scalar] = dict.fromkeys(reached, 0)
    for root, weight in roots:
        derivative[root] = derivative[root] + weight
    for scalar in sorted(reached, key=lambda s: -s.order):
        own = derivative[scalar]
        if passed and scalar in passed:
            own = derivative[scalar] = passed[scalar](own)
        for parent, local in scalar.parents:
            share = own * (local if differentiable else number_of(local))
            derivative[parent] = derivative[parent] + share
    return derivative
