"""What a program is made of, and what may be said of a statement."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

LIMIT = 2**16  # of numbers and derivatives: float32 and sums of them stay exact
STEPS = 64  # numbers are whole multiples of 1/64, for the same reason

LEAF_WRITE = "leaf Variable that requires grad"
VIEW_WRITE = "is being modified inplace"
WRITTEN = "modified by an inplace operation"
VIEW_WRITTEN = "has been modified inplace"
FREED = "backward through the graph a second time"
NO_GRAD_ROOT = "does not require grad"
NOT_RETAINED = "can't retain_grad on Tensor that has requires_grad=False"
DETACHED = ("detached in-place", "No grad_fn for non-leaf saved tensor")
NO_SCALAR = "grad can be implicitly created only for"
UNUSED = "appears to not have been used in the graph"
INFERENCE_SAVED = "Inference tensors cannot be saved for backward"
INFERENCE_WRITE = "Inplace update to inference tensor outside InferenceMode"


# What a statement does if it is no operation; each is a method of the tape, behind an underscore.
STATEMENTS = frozenset([
    "leaf", "detach", "data", "detach_", "requires_grad_", "retain_grad", "clear_grad", "zero_grad", "set_grad",
    "enter", "leave", "set_grad_enabled", "hook", "unhook", "forget", "backward", "grad",
])  # fmt: skip
MODES = {"no_grad": 0, "enable_grad": 0, "set_grad_enabled": 1, "inference_mode": 1}  # with so many arguments


class Refused(Exception):
    """The tape doesn't say what the statement does."""


class Statement(NamedTuple):
    """One statement of a program: plain data."""

    does: str  # an operation's name, or one of STATEMENTS
    makes: tuple[str, ...] = ()  # the names that it binds
    of: tuple[str, ...] = ()  # the names that it uses; `x.grad` for the gradient in x
    options: tuple[Any, ...] = ()


@dataclass
class Plan:
    """What a statement may do: the errors that it may raise, by a telling part, and its effect."""

    carry_out: Callable[[bool], None]  # told whether there was an error
    errors: tuple[str, ...] = ()
    surely: bool = False  # whether it raises one of them for certain


def check_exact(numbers: Iterable[float]) -> None:
    """Refuse numbers that float32, or a sum in another order, might round."""
    for number in numbers:
        if not -LIMIT <= number <= LIMIT or number * STEPS % 1:
            raise Refused("a number that might not be exact everywhere")
