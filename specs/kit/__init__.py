"""What a chapter is written with."""

from .claim import claim
from .comparisons import raises, same, silent, warns
from .graphs import graphs
from .values import LAYOUTS, NONEMPTY, SHAPES, SMALL_DTYPES, WRITABLE, values, values_that_broadcast

__all__ = [
    "LAYOUTS",
    "NONEMPTY",
    "SHAPES",
    "SMALL_DTYPES",
    "WRITABLE",
    "claim",
    "graphs",
    "raises",
    "same",
    "silent",
    "values",
    "values_that_broadcast",
    "warns",
]
