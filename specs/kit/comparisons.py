"""What a spec may say about what it sees: it is the same, it raises, it warns.

Each comparison that fails raises Broken, which tells what the claim expects and what came. Only
Broken counts as a spec's own assertion; an error from elsewhere proves nothing about the claim.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import torch

from .examples import exercise


class Broken(AssertionError):
    """A claim that does not hold for the example at hand."""

    def __init__(self, why: str, expected: str, came: str):
        super().__init__(f"{why}\nexpected  {expected}\ncame      {came}")
        self.why, self.expected, self.came = why, expected, came
        self.does = ""  # of a program: what the statement does after which it showed


def show(value: Any) -> str:
    """`value` for a reader: a tensor with its values and, if they are not the usual, its dtype and device."""
    if isinstance(value, torch.Tensor):
        value = value.detach()
        extra = "" if value.device.type == "cpu" else f", device='{value.device}'"
        if value.numel() == 0:
            extra += f", size={tuple(value.shape)}"
        numbers = value.tolist() if value.device.type != "meta" else "..."
        return f"tensor({numbers}, dtype={value.dtype}{extra})"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(show, value))}]"
    return repr(value)


def _equal(got: Any, expected: Any) -> bool:
    if isinstance(expected, torch.Tensor) or isinstance(got, torch.Tensor):
        return (
            isinstance(got, torch.Tensor)
            and isinstance(expected, torch.Tensor)
            and got.dtype == expected.dtype
            and got.device == expected.device
            and got.shape == expected.shape
            and torch.equal(got.detach(), expected.detach())
        )
    if isinstance(expected, (list, tuple)) and isinstance(got, (list, tuple)):
        return len(got) == len(expected) and all(map(_equal, got, expected))
    return got is expected or got == expected


def same(got: Any, expected: Any, why: str) -> None:
    """`got` is exactly `expected`: for a tensor its values, shape, dtype and device; `why` says why it must be."""
    if not (isinstance(expected, torch.Tensor) and expected.numel() == 0):
        exercise()  # of empty tensors only shapes differ: that alone proves little
    if not _equal(got, expected):
        raise Broken(why, show(expected), show(got))


@contextlib.contextmanager
def raises(error: type[Exception], *telling: str, why: str) -> Iterator[None]:
    """The block raises `error`, and its message has one of the `telling` parts, if any are given."""
    exercise()
    wanted = error.__name__ + (f" that says {' or '.join(map(repr, telling))}" if telling else "")
    try:
        yield
    except Broken:
        raise
    except Exception as caught:
        message = str(caught)
        if isinstance(caught, error) and (not telling or any(part in message for part in telling)):
            return
        first_line = message.partition("\n")[0]
        raise Broken(why, wanted, f"{type(caught).__name__}: {first_line}") from caught
    raise Broken(why, wanted, "no error")


@contextlib.contextmanager
def warns(category: type[Warning], telling: str, why: str) -> Iterator[None]:
    """The block gives a warning of `category` whose message has `telling` in it."""
    exercise()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    if not any(issubclass(w.category, category) and telling in str(w.message) for w in caught):
        came = "; ".join(f"{w.category.__name__}: {w.message}" for w in caught) or "no warning"
        raise Broken(why, f"{category.__name__} that says {telling!r}", came)


@contextlib.contextmanager
def silent(why: str) -> Iterator[None]:
    """The block gives no warning."""
    exercise()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    if caught:
        raise Broken(why, "no warning", f"{caught[0].category.__name__}: {caught[0].message}")
