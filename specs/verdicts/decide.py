"""The decision on one claim in one world."""

from __future__ import annotations

import functools
import inspect
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import hypothesis
from hypothesis.errors import Flaky, Unsatisfiable, UnsatisfiedAssumption

from ..kit.claim import Claim
from ..kit.comparisons import Broken
from ..kit.examples import watched
from ..kit.world import World
from .script import script

REACH = 0.1  # of the examples seen: so many have to contain each thing that the claim reaches
FLOOR = 0.25  # of the examples seen: with fewer that could have failed, the verdict is vacuous


@dataclass(frozen=True)
class Outcome:
    """The verdict on a claim in a world, and how it came about."""

    claim: Claim
    device: str
    verdict: str
    reason: str = ""  # for every verdict but `holds`
    examples: int = 0
    exercised: int = 0
    seconds: float = 0.0
    expected: str = ""
    came: str = ""
    script: str = ""
    example: dict[str, Any] = field(default_factory=dict)  # what was drawn last: of a broken claim the counterexample
    error: Exception | None = None
    reach: dict[str, int] = field(default_factory=dict)  # how many examples contained what

    def record(self) -> dict[str, Any]:
        """The outcome as the ledger keeps it."""
        record = {
            "claim": self.claim.id,
            "device": self.device,
            "sentence": self.claim.sentence,
            "cites": list(self.claim.cites),
            "standing": self.claim.standing,
            "verdict": self.verdict,
            "examples": self.examples,
            "exercised": self.exercised,
            "seconds": round(self.seconds, 4),
        }
        for name in ("reason", "expected", "came", "script"):
            if text := getattr(self, name):
                record[name] = text
        if self.claim.releases:
            record["releases"] = self.claim.releases
        if self.claim.formerly:
            record["formerly"] = list(self.claim.formerly)
        if self.reach:
            pairs = sum(thing.startswith("pair ") for thing in self.reach)
            record["reach"] = {t: n for t, n in sorted(self.reach.items()) if not t.startswith("pair ")}
            record["reach"]["kinds of pairs"] = pairs
        return record


def decide(claim: Claim, world: World, example_seed: int = 0) -> Outcome:
    """Run the claim's spec in the world, with the examples of the profile that is loaded.

    The same `example_seed` gives the same examples, in every world.
    """
    if claim.generated:
        hypothesis.seed(claim.seed + example_seed)(claim.spec)
        # @given took the settings of the profile that was loaded when the chapter was imported.
        claim.spec._hypothesis_internal_use_settings = hypothesis.settings.default
    return _outcome(claim, world, claim.spec)


def replay(claim: Claim, world: World, drawn: dict[str, Any]) -> Outcome:
    """Run the claim's spec on this one example: what it drew, by the name of the argument.

    The verdict is vacuous if that isn't what the spec draws (any more).
    """
    if drawn.keys() != inspect.signature(claim.body).parameters.keys() - {"world"}:
        return Outcome(claim, str(world.device), "vacuous", "the example isn't made of what the spec draws")
    spec = claim.spec.hypothesis.inner_test if claim.generated else claim.spec
    return _outcome(claim, world, functools.partial(spec, **drawn))


def _outcome(claim: Claim, world: World, run: Callable[..., None]) -> Outcome:
    """What becomes of the claim in the world when its spec runs by `run(world=world)`."""
    device = str(world.device)
    if reason := claim.why_not_applicable(world):
        return Outcome(claim, device, "not applicable", reason)
    error: Exception | None = None
    start = time.perf_counter()
    with watched() as examples, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a spec that is about a warning asks for it by itself
        try:
            run(world=world)
        except Exception as caught:
            error = caught
    facts = {
        "examples": examples.seen,
        "exercised": examples.exercised,
        "seconds": time.perf_counter() - start,
        "example": examples.last,
        "error": error,
        "reach": dict(examples.reach),
    }
    if isinstance(error, Flaky):
        reason = "the same example gave different results when it was run again"
        return Outcome(claim, device, "undecided", reason, **facts)
    if isinstance(error, (Unsatisfiable, UnsatisfiedAssumption)):
        return Outcome(claim, device, "vacuous", "no example met the spec's assumptions", **facts)
    if error is not None:
        if isinstance(error, Broken):
            reason, expected, came = error.why, error.expected, error.came
        else:
            first_line = str(error).partition("\n")[0]
            reason, expected = "the spec was stopped by an error", "no error"
            came = f"{type(error).__name__}: {first_line}"
        try:
            text = script(claim, world, examples.last)
        except Exception as failure:  # of ours; a verdict is not to be lost by it
            text = f"# No script could be made of the example {examples.last}: {failure!r}\n"
        return Outcome(claim, device, "broken", reason, expected=expected, came=came, script=text, **facts)
    if examples.exercised < max(1, FLOOR * examples.seen):
        reason = f"only {examples.exercised} of {examples.seen} examples could have failed"
        return Outcome(claim, device, "vacuous", reason, **facts)
    for thing in claim.reaches:
        if examples.reach[thing] < REACH * examples.seen:
            reason = f"only {examples.reach[thing]} of {examples.seen} examples contained: {thing}"
            return Outcome(claim, device, "vacuous", reason, **facts)
    return Outcome(claim, device, "holds", **facts)
