"""Values: what a tensor holds and how it lies in memory, as data that no device has touched yet.

The numbers are small integers: sums and products of them are exact in every floating dtype and in
any order, so specs compare for equality and never within a tolerance.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from hypothesis import strategies as st

# Simple before complex: a counterexample shrinks towards the front.
SHAPES = (
    (),
    (1,),
    (2,),
    (3,),
    (2, 3),
    (1, 3),
    (2, 1),
    (3, 2),
    (2, 2),
    (0,),
    (1, 1),
    (2, 1, 3),
    (2, 0),
    (3, 2, 2),
    (24,),
    (1, 2, 1, 2),
)
NONEMPTY = tuple(shape for shape in SHAPES if 0 not in shape)
LAYOUTS = ("contiguous", "offset", "strided", "transposed", "expanded")
DTYPES = ("float64", "float32")
SMALL_DTYPES = ("float64", "float32", "bfloat16", "float16")  # for integers up to 256

_NUMBERS = (1, 2, -1, 3, -2, 0, 4, -3, -4)


@dataclass(frozen=True)
class Values:
    """Integers in a shape, with a dtype and a memory layout.

    contiguous  as PyTorch lays a new tensor out
    offset      a slice that begins behind the first element of its storage
    strided     every second element of a larger storage
    transposed  dimensions in the opposite order of memory
    expanded    one element of memory stands for all along the first dimension (stride 0)
    """

    shape: tuple[int, ...]
    numbers: tuple[int, ...]
    dtype: str = "float64"
    layout: str = "contiguous"

    def tensor(self, device: torch.device | str) -> torch.Tensor:
        """The tensor on `device`; it doesn't require grad."""
        shape, numbers, view = self._memory()
        made = torch.tensor(_rows(shape, numbers), dtype=getattr(torch, self.dtype), device=device)
        if made.shape != shape:  # as code() does, and nowhere else: what reshape makes is a view
            made = made.reshape(shape)
        return view(made) if view else made

    def code(self, device: str = "") -> str:
        """The expression of plain PyTorch that makes the same tensor on `device` (an expression, too)."""
        shape, numbers, _ = self._memory()
        where = f", device={device}" if device else ""
        made = f"torch.tensor({_nested(shape, numbers)}, dtype=torch.{self.dtype}{where})"
        if 0 in shape and len(shape) > 1:  # a nested list can't tell (2, 0) from (2, 0, 3)
            made += f".reshape({shape})"
        dimensions = range(len(self.shape))
        views = {
            "contiguous": "",
            "offset": "[1:]",
            "strided": "[..., ::2]",
            "transposed": f".permute({', '.join(map(str, reversed(dimensions)))})",
            "expanded": f".expand({', '.join(map(str, self.shape))})",
        }
        return made + views[self.layout]

    def _memory(self):
        """What lies in memory (shape and numbers), and the view of it that has our shape and numbers."""
        shape, numbers = self.shape, self.numbers
        if self.layout == "offset":
            row = math.prod(shape[1:])
            return (shape[0] + 1, *shape[1:]), (9,) * row + numbers, lambda t: t[1:]
        if self.layout == "strided":
            gaps = tuple(itertools.chain.from_iterable((number, 9) for number in numbers))
            return (*shape[:-1], 2 * shape[-1]), gaps, lambda t: t[..., ::2]
        if self.layout == "transposed":
            order = tuple(reversed(range(len(shape))))
            return shape[::-1], _permuted(shape, numbers), lambda t: t.permute(order)
        if self.layout == "expanded":
            return (1, *shape[1:]), numbers[: math.prod(shape[1:])], lambda t: t.expand(shape)
        return shape, numbers, None


def _permuted(shape: Sequence[int], numbers: Sequence[int]) -> tuple[int, ...]:
    """The numbers of a row-major array of `shape`, listed with the first index running fastest."""
    strides = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    indexes = itertools.product(*(range(size) for size in reversed(shape)))
    return tuple(numbers[sum(i * s for i, s in zip(reversed(index), strides, strict=True))] for index in indexes)


def _rows(shape: Sequence[int], numbers: Sequence[int]) -> int | list:
    """The numbers as nested lists."""
    if not shape:
        return numbers[0]
    if len(shape) == 1:
        return list(numbers)
    step = math.prod(shape[1:])
    return [_rows(shape[1:], numbers[i * step : (i + 1) * step]) for i in range(shape[0])]


def _nested(shape: Sequence[int], numbers: Sequence[int]) -> str:
    """The numbers as a nested list, the way torch.tensor reads it."""
    if not shape:
        return f"{numbers[0]}."
    step = math.prod(shape[1:])
    rows = (_nested(shape[1:], numbers[i * step : (i + 1) * step]) for i in range(shape[0]))
    return f"[{', '.join(rows)}]"


def _layouts(shape: tuple[int, ...], layouts: Iterable[str]) -> list[str]:
    """Those of the layouts that differ from contiguous for a tensor of `shape`, and contiguous itself."""
    possible = {
        "contiguous": True,
        "offset": len(shape) >= 1,
        "strided": len(shape) >= 1 and math.prod(shape) > 1,
        "transposed": sum(size > 1 for size in shape) >= 2,
        "expanded": len(shape) >= 1 and shape[0] > 1 and math.prod(shape) > 0,
    }
    return [layout for layout in layouts if possible[layout]]


def forms(
    shapes: Iterable[tuple[int, ...]], layouts: Sequence[str], dtypes: Iterable[str]
) -> list[tuple[tuple[int, ...], str, str]]:
    """Every form that values can have: a shape, a layout that makes sense for it, and a dtype.

    Each shape stands there as often as the others, also one that can lie in memory in a single way;
    0-dim, where implementations take short cuts, stands there three times as often.
    """
    weighted = [shape for shape in shapes for _ in range(1 if shape else 3)]
    return [
        (shape, _pick(_layouts(shape, layouts), i), dtype)
        for i in range(len(LAYOUTS))
        for dtype in dtypes
        for shape in weighted
    ]


def filled(form: tuple[tuple[int, ...], str, str], content: bytes) -> Values:
    """The values of a form (shape, layout, dtype), each number chosen by one byte of the content."""
    shape, layout, dtype = form
    numbers = [_NUMBERS[byte % len(_NUMBERS)] for byte in content[: math.prod(shape)]]
    if layout == "expanded":  # all rows are the first one
        row = math.prod(shape[1:])
        numbers = numbers[:row] * shape[0]
    return Values(shape, tuple(numbers), dtype, layout)


@functools.cache
def values(
    *,
    shapes: tuple[tuple[int, ...], ...] = SHAPES,
    layouts: tuple[str, ...] = LAYOUTS,
    dtypes: tuple[str, ...] = DTYPES,
) -> st.SearchStrategy[Values]:
    """Values of any of the shapes, layouts and dtypes, with numbers from -4 to 4."""
    possible = forms(shapes, layouts, dtypes)
    # Two draws for a whole tensor: each draw costs more than the arithmetic of a spec.
    size = max(math.prod(shape) for shape in shapes)
    return st.builds(filled, st.sampled_from(possible), st.binary(min_size=size, max_size=size))


WRITABLE = tuple(layout for layout in LAYOUTS if layout != "expanded")  # no element stands for two


@functools.cache
def values_that_broadcast(count: int = 2, *, dtypes: tuple[str, ...] = DTYPES) -> st.SearchStrategy[tuple[Values, ...]]:
    """So many values of one dtype, of shapes that broadcast together, equal shapes among them."""
    small = [shape for shape in SHAPES if math.prod(shape) <= 6]
    groups = [group for group in itertools.product(small, repeat=count) if _broadcast(group)]
    forms = [(group, dtype) for dtype in dtypes for group in groups]
    size = max(math.prod(shape) for shape in small)
    content = st.tuples(*[st.binary(min_size=size, max_size=size)] * count)
    return st.builds(
        lambda form, contents, layouts: tuple(
            filled((shape, _pick(_layouts(shape, LAYOUTS), layout), form[1]), content)
            for shape, content, layout in zip(form[0], contents, layouts, strict=True)
        ),
        st.sampled_from(forms),
        content,
        st.tuples(*[st.integers(0, len(LAYOUTS) - 1)] * count),
    )


def _pick(choices: Sequence[str], number: int) -> str:
    return choices[number % len(choices)]


def _broadcast(shapes: Sequence[tuple[int, ...]]) -> bool:
    for sizes in itertools.zip_longest(*(reversed(shape) for shape in shapes), fillvalue=1):
        if len(set(sizes) - {1}) > 1:
            return False
    return True
