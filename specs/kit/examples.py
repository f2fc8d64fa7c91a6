"""What happened while a spec ran: the examples that it saw, and how many of them could have failed.

A comparison that could have failed *exercises* the example in which it stands. An example without
one (all its tensors were empty, say) proves nothing and doesn't count; a claim with too few that
count is vacuous.
"""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Examples:
    """The examples of one run of one spec."""

    seen: int = 0
    exercised: int = 0
    last: dict[str, Any] = field(default_factory=dict)  # what was drawn for the latest one
    comparisons: int = 0  # those that could have failed, in the latest one
    reach: Counter[str] = field(default_factory=Counter)  # how many examples contained what


_running: list[Examples] = []


@contextlib.contextmanager
def watched() -> Iterator[Examples]:
    """Count the examples of the spec that runs in this block."""
    examples = Examples()
    _running.append(examples)
    try:
        yield examples
    finally:
        _running.remove(examples)


def exercise() -> None:
    """Note that a comparison is made now that could fail."""
    if _running:
        _running[-1].comparisons += 1


def reached(things: Iterable[str]) -> None:
    """Note that the example at hand contains these things, each of them once."""
    if _running:
        _running[-1].reach.update(set(things))


def counted(body: Callable[..., None]) -> Callable[..., None]:
    """`body`, run from the same state for each example, and counted by the block that watches."""

    @functools.wraps(body)
    def run(world, **drawn):
        world.fresh()
        if not _running:
            return body(world, **drawn)
        examples = _running[-1]
        examples.seen += 1
        examples.last = drawn
        examples.comparisons = 0
        body(world, **drawn)
        examples.exercised += examples.comparisons > 0

    return run
