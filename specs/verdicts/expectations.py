"""Known deviations: claims that are expected to fail, on which releases and devices, why, and what shows it.

They stand in `expectations.toml`, one `[[expectation]]` each:

    claim           the claim's id
    torch           the releases, as pip names them: ">=2.0.1,<2.15"; "" for all
    device          "cuda" stands for "cuda:1" as well; left out for all devices
    verdict         "broken", or "undecided" if the claim takes its process down
    reason, link    for whoever reads it
    counterexample  what the spec draws, as JSON; it is run first, and if it fails nothing else is
    shows           in what way it fails
    gone            releases and devices, as "2.13.0 cpu", on which it was found not to fail (any more)

The last three are written by `update`. It says `gone` rather than to change `torch`: a run knows of one release on one
device, and what is to be said of others is for a person to decide. So nothing that somebody wrote is ever lost.
"""

from __future__ import annotations

import functools
import json
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import Version

from .. import INSTALLED
from ..kit.claim import Claim
from ..kit.world import World
from .apart import DIED, ApartError, Job, Result, decide_apart
from .compare import printable
from .counterexamples import CounterexampleError, from_text
from .decide import Outcome, decide
from .decide import replay as decide_by
from .ledger import write_whole
from .schema import fault

SPECS = Path(__file__).parents[1]
FILE = (SPECS if INSTALLED else SPECS.parent) / "expectations.toml"  # a wheel has it inside the package
LARGEST = 5_000_000  # bytes of a file that we read; ours has a few thousand
_TEXT = {"type": "string"}
_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "expectation": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["claim", "torch", "verdict", "reason"],
                "properties": {
                    "claim": {"type": "string", "pattern": r"^[a-z_]+/[a-z0-9_]+\Z"},
                    "torch": _TEXT,
                    "device": {"type": "string", "pattern": r"^[a-z0-9]+(:[0-9]+)?\Z"},
                    "verdict": {"type": "string", "enum": ["broken", "undecided"]},
                    "reason": {"type": "string", "pattern": r"\S"},
                    "link": _TEXT,
                    "counterexample": _TEXT,
                    "shows": _TEXT,
                    "gone": {"type": "array", "items": _TEXT},
                },
            },
        }
    },
}


class ExpectationError(ValueError):
    """A file of expectations that can't be read or rewritten; the message is one sentence for the user."""


@dataclass(frozen=True)
class Expectation:
    """A claim that is expected to fail, and where."""

    claim: str
    torch: str
    verdict: str
    reason: str
    device: str = ""
    link: str = ""
    counterexample: str = ""
    shows: str = ""
    gone: tuple[str, ...] = ()

    def applies(self, claim: Claim, device: str) -> bool:
        """Whether it is for this claim on this device and this release."""
        if self.claim not in (claim.id, *claim.formerly) or self.device not in ("", device, device.partition(":")[0]):
            return False
        return _here(device) not in self.gone and SpecifierSet(self.torch).contains(_release(), prereleases=True)

    def shown_by(self, record: dict[str, Any]) -> bool:
        """Whether what came is what is expected."""
        if self.verdict == "undecided":  # which is also said of a spec that contradicts itself
            return record["verdict"] == "undecided" and record["reason"].startswith(DIED)
        same_way = not (self.counterexample and self.shows) or self.shows == _way(record)
        return record["verdict"] == "broken" and same_way


def _release() -> str:
    import torch

    return Version(torch.__version__).base_version  # as claims are compared with since= and until=


def _here(device: str) -> str:
    return f"{_release()} {device.partition(':')[0]}"


def _way(record: dict[str, Any]) -> str:
    """In what way the claim fails: by which of its comparisons, or stopped by which error."""
    if record.get("expected") == "no error":
        return record["came"].partition(":")[0]
    return record.get("reason", "")


def read(path: Path) -> list[Expectation]:
    """The expectations in the file; ExpectationError says why it can't be used."""
    return [Expectation(**entry | {"gone": tuple(entry.get("gone", ()))}) for entry in _entries(_text(path), path)]


def of_run(option: str | None) -> list[Expectation]:
    """The expectations in the file that the option names; without it those of the suite, if it has any."""
    return read(Path(option)) if option else read(FILE) if FILE.exists() else []


def _text(path: Path) -> str:
    try:
        if path.is_file() and path.stat().st_size > LARGEST:
            raise ExpectationError(f"{path} is no file of expectations: it is larger than {LARGEST // 10**6} MB")
        return path.read_bytes().decode()
    except OSError as error:
        raise ExpectationError(f"the expectations {path} can't be read: {error.strerror}") from error
    except ValueError as error:
        raise ExpectationError(f"{path} is no file of expectations: it isn't text in UTF-8") from error


def _entries(text: str, path: Path) -> list[dict[str, Any]]:
    """The entries in the text of the file, each of which can be used."""
    try:
        found = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        first_line = str(error).partition("\n")[0]
        raise ExpectationError(f"{path} is no file of expectations: it isn't TOML ({first_line})") from error
    if reason := fault(_SCHEMA, found):
        raise ExpectationError(f"{path} is no file of expectations: {reason}")
    entries = found.get("expectation", [])
    for entry in entries:
        try:
            SpecifierSet(entry["torch"])
            if "counterexample" in entry:
                from_text(entry["counterexample"])
        except InvalidSpecifier as error:
            raise ExpectationError(f"{path}: torch of {entry['claim']} names no releases: {error}") from error
        except CounterexampleError as error:
            raise ExpectationError(f"{path}: the counterexample of {entry['claim']} can't be read: {error}") from error
        if not _exists(entry["claim"]):
            raise ExpectationError(f"{path}: there is no claim {entry['claim']}")
    return entries


def _exists(claim: str) -> bool:
    """Whether the suite has the claim, under this name or a later one; no chapter is imported for it."""
    chapter, _, name = claim.partition("/")
    return f"def spec_{name}(" in _sources().get(chapter, "") or any(f'"{claim}"' in s for s in _sources().values())


@functools.cache
def _sources() -> dict[str, str]:
    return {path.stem: path.read_text(encoding="utf-8") for path in SPECS.glob("*.py")}


def that_applies(expectations: Sequence[Expectation], claim: Claim, device: str) -> Expectation | None:
    """The first of the expectations that is for the claim here, if any."""
    return next((e for e in expectations if e.applies(claim, device)), None)


def takes_down(claim: Claim, device: str) -> str | None:
    """Why the claim can't run in this process, if the suite expects it to take its process down; else None."""
    expectation = that_applies(of_run(None), claim, device)
    return expectation.reason if expectation and expectation.verdict == "undecided" else None


def judge(
    claim: Claim, world: World, expectation: Expectation, profile: str, example_seed: int, imports: Sequence[str]
) -> dict[str, Any]:
    """The record of a claim that is expected to fail; it says whether it does.

    If the counterexample shows it, nothing more is run. If not, the claim is decided as ever.
    """
    if claim.why_not_applicable(world):
        return decide(claim, world).record()

    def run(example: str) -> dict[str, Any]:
        if expectation.verdict == "undecided":  # it would take this process down
            job = Job(claim, str(world.device), example)
            try:
                return decide_apart([job], profile, example_seed, imports)[0].record
            except ApartError as error:
                return Outcome(claim, job.device, "undecided", str(error)).record()
        if example:
            return decide_by(claim, world, from_text(example)).record()
        return decide(claim, world, example_seed).record()

    record = run(expectation.counterexample)
    met = expectation.shown_by(record)
    if expectation.counterexample and not met:
        record = run("")
    about = {"verdict": expectation.verdict, "reason": _line(expectation.reason), "met": met}
    return record | {"expectation": about | ({"link": _line(expectation.link)} if expectation.link else {})}


def _line(text: str) -> str:
    """The text in one line, with nothing that a terminal would obey."""
    return printable(" ".join(text.split()))


# Rewriting the file


def update(
    path: Path, claims: dict[str, Claim], devices: Sequence[str], imports: Sequence[str] = (), *, add: bool = False
) -> list[str]:
    """Make the file say what is so on this release and these devices, and say in a line each what was changed.

    Where an expected deviation doesn't show any more, the entry says that it is gone here. Counterexamples that are
    missing, or that show nothing any more, are stored. All else in the file stays as it is.

    add  whether promised claims that fail here, and aren't expected to, get an entry
    """
    text = _text(path) if path.exists() or not add else ""
    text += "\n" * (text[-1:] not in ("", "\n"))
    expectations = read(path) if text else []
    chunks = _chunks(text, path)
    said: list[str] = []

    def run(jobs: list[Job]) -> list[Result]:
        return decide_apart(jobs, "gate", 0, imports)

    concerned = [
        (number, claim, device)
        for device in devices
        for claim in claims.values()
        for number, e in enumerate(expectations)
        if e is that_applies(expectations, claim, device)
    ]
    first = run([Job(claim, device, expectations[number].counterexample) for number, claim, device in concerned])
    unshown = [
        where
        for where, result in zip(concerned, first, strict=True)
        if result.record["verdict"] != "not applicable"
        and not (expectations[where[0]].counterexample and expectations[where[0]].shown_by(result.record))
    ]
    # One without a counterexample was run in full at once.
    again = dict(zip(concerned, first, strict=True))
    stored = [where for where in unshown if expectations[where[0]].counterexample]
    again |= zip(stored, run([Job(claim, device) for _, claim, device in stored]), strict=True)
    for where in unshown:
        number, claim, device = where
        result, expectation = again[where], expectations[number]
        if result.record["verdict"] != expectation.verdict:
            expectation = replace(expectation, gone=(*expectation.gone, _here(device)))
            said.append(f"{claim.id}: {result.record['verdict']} on {_here(device)}; its expectation is gone there")
        elif result.counterexample:
            expectation = replace(expectation, counterexample=result.counterexample, shows=_way(result.record))
            said.append(f"{claim.id}: a counterexample from {_here(device)} is stored; it shows: {expectation.shows}")
        expectations[number] = expectation
    for number, expectation in enumerate(expectations):
        chunks[number + 1] = _rewritten(chunks[number + 1], expectation, path)
    if add:
        free = [
            (claim, device)
            for device in devices
            for claim in claims.values()
            if claim.standing == "promised" and not that_applies(expectations, claim, device)
        ]
        for (claim, device), result in zip(free, run([Job(*pair) for pair in free]), strict=True):
            if result.record["verdict"] == "broken" or result.record.get("reason", "").startswith(DIED):
                chunks.append(_new(claim, device, result, first=not "".join(chunks)))
                said.append(f"{claim.id}: {result.record['verdict']} on {_here(device)}; it has an expectation now")
    if said:
        changed = "".join(chunks)
        _entries(changed, path)  # raises rather than to write what can't be read
        write_whole(path, changed)
    return said


def _chunks(text: str, path: Path) -> list[str]:
    """The text cut up: what stands before the first entry, and each entry with what follows it."""
    chunks = re.split(r"(?m)^(?=[ \t]*\[\[[ \t]*expectation[ \t]*\]\])", text)
    try:
        alone = [tomllib.loads(chunk).get("expectation", []) for chunk in chunks]
        if [entry for entries in alone for entry in entries] != _entries(text, path) or alone[0]:
            raise ValueError("they are not one after the other")
    except ValueError as error:
        raise ExpectationError(
            f"{path} can't be rewritten: each entry must begin with a line [[expectation]]"
        ) from error
    return chunks


def _rewritten(chunk: str, expectation: Expectation, path: Path) -> str:
    """The text of an entry, in which the lines that are ours say what the expectation does."""
    (entry,) = tomllib.loads(chunk)["expectation"]
    for key in ("counterexample", "shows", "gone"):
        value = getattr(expectation, key)
        value = list(value) if key == "gone" else value
        if not value or value == entry.get(key):
            continue
        text = _toml(key, value)
        lines = chunk.split("\n")
        places = [i + 1 for i, line in enumerate(lines) if line.strip() and not line.strip().startswith("#")][::-1]
        if key in entry:
            start, lines = _without(lines, key, entry)
            places = [start]
        entry |= tomllib.loads(f"{key} = {text}")
        # The last place that isn't within a string; the one below [[expectation]] never is.
        texts = ("\n".join([*lines[:at], f"{key} = {text}", *lines[at:]]) for at in places)
        chunk = next((text for text in texts if _says(text, entry)), "")
        if not chunk:
            raise ExpectationError(f"{path} can't be rewritten: {key} of {entry['claim']} is written in an unusual way")
    return chunk


def _without(lines: list[str], key: str, entry: dict[str, Any]) -> tuple[int, list[str]]:
    """Where the key stands in the lines of an entry, and the lines without it and its value, if that can be told."""
    rest = {name: value for name, value in entry.items() if name != key}
    for start in (i for i, line in enumerate(lines) if line.strip().startswith(key)):
        for end in range(start + 1, len(lines) + 1):  # the value may be several lines long
            if _says("\n".join(lines[:start] + lines[end:]), rest):
                return start, lines[:start] + lines[end:]
    return len(lines), lines


def _says(text: str, entry: dict[str, Any]) -> bool:
    """Whether the text is this entry."""
    try:
        return tomllib.loads(text) == {"expectation": [entry]}
    except ValueError:
        return False


def _toml(key: str, value: str | list[str]) -> str:
    if key == "counterexample":  # JSON has no quotes but within strings, where they may be written so
        return "'" + str(value).replace("'", "\\u0027") + "'"
    # A string in JSON is one in TOML, but for these.
    text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return text.encode("utf-8", "replace").decode()


def _new(claim: Claim, device: str, result: Result, first: bool) -> str:
    """The text of an entry for a claim that fails."""
    record = result.record
    reason = record["reason"]
    if record["verdict"] == "broken":
        reason += f": expected {record['expected']}, came {record['came']}"
    pairs = {"claim": claim.id, "torch": f"=={_release()}", "device": device.partition(":")[0]}
    pairs |= {"verdict": record["verdict"], "reason": " ".join(reason.split())}
    if result.counterexample:
        pairs |= {"counterexample": result.counterexample, "shows": _way(record)}
    lines = ["[[expectation]]", *(f"{key} = {_toml(key, value)}" for key, value in pairs.items())]
    return ("" if first else "\n") + "\n".join(lines) + "\n"
