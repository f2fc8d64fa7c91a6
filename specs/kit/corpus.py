"""The corpus: small programs that showed something once, kept as text and replayed first."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path

from hypothesis import example

from .programs import Program

FOLDER = Path(__file__).parents[1] / "corpus"


@functools.cache
def corpus() -> dict[str, list[Program]]:
    """The programs by the name of the claim on which each is replayed.

    A file says what was found and by which claims it is told, and has the program's statements as JSON.
    Raises ValueError, naming the file, for one that can't be read.
    """
    found: dict[str, list[Program]] = {}
    for path in sorted(FOLDER.glob("*.json")):
        try:
            entry = json.loads(path.read_text(encoding="utf-8"))
            program = Program.from_json(json.dumps(entry["program"]))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path.name}: {error}") from error
        for claim in entry["claims"]:
            found.setdefault(claim, []).append(program)
    return found


def replayed(spec: Callable[..., None]) -> Callable[..., None]:
    """Let the spec see the corpus' programs for its claim before any other example."""
    for program in corpus().get(spec.__name__.removeprefix("spec_"), []):
        spec = example(program=program)(spec)
    return spec
