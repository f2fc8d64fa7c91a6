"""What a tensor is made of: a storage of numbers, places in it, and nodes that gradients go to.

    Storage   the numbers, one place after the other; a complex number takes two places
    Counter   how often a storage was written; tensors that share one notice each other's writes
    Node      one recorded tensor: its scalars, and the nodes that it was made from
    Family    a tensor and all its views: they share storage, counter and node
    Tensor    places in a storage, in a shape, within a family

A tensor that was detached shares the storage and the counter and has a family of its own; `.data` has
a counter of its own, too, which is why nobody notices what is written through it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .arrays import Array, size_of
from .operations import Element
from .scalars import Complex, Scalar

_order = itertools.count()


class Spoiled(Exception):
    """The history of a tensor is asked for that has none any more."""


@dataclass(eq=False)
class Storage:
    """Numbers in memory."""

    numbers: list[float]
    writes: int = 0  # through whichever counter
    seen_in_parts: bool = False  # whether there are views of the parts of complex numbers


@dataclass(eq=False)
class Counter:
    """The version of a storage, as far as those know who share the counter."""

    version: int = 0


@dataclass(frozen=True)
class Saved:
    """What a node may have kept, as it was then."""

    storage: Storage
    counter: Counter
    version: int
    writes: int
    family: Family
    had_node: bool

    @staticmethod
    def of(tensor: Tensor) -> Saved:
        """The tensor as it is now."""
        family = tensor.family
        storage, counter = family.storage, family.counter
        return Saved(storage, counter, counter.version, storage.writes, family, family.node is not None)

    @property
    def written(self) -> bool:
        """Whether it was written since, as the counter tells."""
        return self.counter.version != self.version

    @property
    def detached(self) -> bool:
        """Whether its history was taken from it since."""
        return self.had_node and self.family.node is None

    @property
    def written_unnoticed(self) -> bool:
        """Whether it was written since, past the counter."""
        return self.storage.writes - self.writes > self.counter.version - self.version


@dataclass(frozen=True)
class Parent:
    """A node from which another was made."""

    node: Node
    reads: tuple[Node, ...] = ()  # nodes on which the gradient that goes to the parent depends
    zeros: bool = False  # whether the gradient that goes there is zero whatever comes
    keeps: str = "nothing"  # whether a kept tensor is needed for it: "nothing", "something" or "open"


@dataclass(eq=False)
class Node:
    """A recorded tensor as gradients see it; in PyTorch's words a grad_fn, or a leaf's gradient accumulator.

    An operation makes a node for its result, and a write in place makes a new one for the whole family.
    """

    scalars: Sequence[Scalar]
    parents: tuple[Parent, ...] = ()
    saved: tuple[Saved, ...] = ()  # what may be kept for backward
    owner: Tensor | None = None  # of a leaf's node: the tensor whose .grad it adds to
    hooks: list[Hook] = field(default_factory=list)
    retained: bool = False  # whether a tensor asked for its gradient here
    beside: Sequence[Node] = ()  # the nodes of the other results of the same operation
    freed: str = "no"  # whether what was kept is freed: "no", "yes", or "open" after a backward that failed
    settled: bool = True  # whether it is certain on what the gradients that pass it depend
    order: int = field(default_factory=lambda: next(_order))  # parents come before what is made from them


@dataclass(eq=False)
class Hook:
    """A function that sees the gradient by a tensor: it multiplies it by a factor, or keeps what it sees."""

    factor: float | None  # None: it only looks
    seen: list[tuple[float, ...]] = field(default_factory=list)
    removed: bool = False
    known: bool = True  # false after a backward that failed: it may have been called


@dataclass(eq=False)
class Family:
    """A tensor that is no view, and its views."""

    storage: Storage
    counter: Counter
    places: tuple[int, ...]  # of the tensor that is no view
    node: Node | None = None  # None while it doesn't require grad
    leaf: Node | None = None  # the node that it had, or has, as a leaf
    contiguous: bool = False  # whether it is known to lie in memory row by row
    inference: bool = False
    borrowed: bool = False  # whether others may share the memory, so that it must not be written
    views: int = 0

    def scalar_at(self) -> dict[int, Scalar]:
        """The scalar at each place."""
        if self.node is None:
            return {}
        return dict(zip(self.places, self.node.scalars, strict=True))


@dataclass(eq=False)
class Tensor:
    """A tensor; of one that is no view, `view` is None."""

    family: Family
    shape: tuple[int, ...]
    places: tuple[int, ...]  # element by element, row by row; a complex element has two
    dtype: str
    view: str | None = None  # how a view was made: "recorded", "no_grad", "inference" or "several"
    own: Node | None = None  # the node of a view
    at_version: int = 0  # when that node was made
    grad: Tensor | None = None
    grad_known: bool = True  # false after a backward that failed: it may have got a part
    retains_grad: bool = False

    @property
    def parts(self) -> int:
        """How many places an element takes."""
        return 2 if self.dtype.startswith("complex") else 1

    @property
    def differentiable(self) -> bool:
        """Whether tensors of its dtype can require grad."""
        return self.dtype != "int64"

    @property
    def requires_grad(self) -> bool:
        """A view requires grad as soon as the tensor does whose view it is."""
        return self.family.node is not None and self.differentiable

    @property
    def numbers(self) -> list[float]:
        """The numbers, those of a complex element one after the other."""
        numbers = self.family.storage.numbers
        return [numbers[place] for place in self.places]

    @property
    def outdated(self) -> bool:
        """Whether it is a view that was written since its history was last looked at."""
        return self.view is not None and self.requires_grad and self.at_version != self.family.counter.version

    @property
    def spoiled(self) -> bool:
        """Whether it is a view that a write has cut off from its history.

        After a write a view's history is that of the tensor it is a view of. If the view wasn't recorded
        as one of a single tensor, PyTorch refuses to say what it is.
        """
        return self.outdated and self.view != "recorded"

    @property
    def node(self) -> Node | None:
        """Where gradients by the tensor go, as it is now."""
        if not self.requires_grad:
            return None
        if self.view is None:
            return self.family.node
        if self.spoiled:
            raise Spoiled
        if self.outdated:
            self.at_version = self.family.counter.version
            at = self.family.scalar_at()
            self.own = Node(
                tuple(Scalar(at[place].number, ((at[place], 1),)) for place in self.places),
                (Parent(self.family.node),),
            )
        elif self.own is None:
            # A view of what didn't require grad, or that was made where nothing is recorded: it requires
            # grad like its base, but gradients that reach it go no further.
            self.own = Node(tuple(map(Scalar, self.numbers)))
        return self.own

    @property
    def retaining(self) -> Node | None:
        """Where the gradient is kept that it retains."""
        return self.own if self.spoiled else self.node

    @property
    def is_leaf(self) -> bool:
        """Whether no operation is recorded as having made it."""
        return not self.requires_grad or not self.node.parents

    def elements(self, scalars: Sequence[Scalar] | None) -> Array:
        """The elements, with these scalars for their parts, or with constants."""
        numbers = self.numbers
        if scalars is None:
            parts = list(map(Scalar, numbers))
        else:
            parts = [scalar.at(number) for scalar, number in zip(scalars, numbers, strict=True)]
        return Array(self.shape, tuple(paired(parts) if self.parts == 2 else parts))


def paired(parts: Sequence[Scalar]) -> list[Complex]:
    """Complex numbers of their parts, one after the other."""
    return [Complex(parts[i], parts[i + 1]) for i in range(0, len(parts), 2)]


def flattened(elements: Sequence[Element], dtype: str) -> list[Scalar]:
    """The parts of elements, as they lie in a storage of this dtype."""
    if dtype.startswith("complex"):
        return [part for element in map(Complex.of, elements) for part in (element.real, element.imag)]
    return list(elements)


def placed(shape: tuple[int, ...], places: Sequence[int], parts: int, rule: Callable[[Array], Array]) -> Array:
    """What `rule` makes of the positions within `places` at which elements begin."""
    return rule(Array(shape, tuple(range(0, size_of(shape) * parts, parts))))
