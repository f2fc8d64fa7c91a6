"""What changed from one release to the next by the committed ledgers, and why."""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from ..documents import DocumentError
from .compare import Change, Comparison, compare

PATH = Path(__file__).parents[1] / "changes.toml"
FINDS = "FINDINGS.md"  # where a change is told that PyTorch doesn't speak of


@dataclass(frozen=True)
class Explanation:
    """Why claims are made or decided otherwise since a release."""

    release: Version
    says: str
    link: str  # where PyTorch says so, or into the page of finds
    claims: tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """What changed between the ledgers of two releases."""

    before: Version
    after: Version
    comparison: Comparison
    devices: str = "cpu"  # on which, parted by commas

    @property
    def changes(self) -> tuple[Change, ...]:
        """The changes of PyTorch; a claim that only one of the ledgers knows tells of the suite."""
        return tuple(change for change in self.comparison.changes if change.kind not in ("new", "gone"))


def read(path: Path = PATH) -> tuple[Explanation, ...]:
    """The explanations in the TOML file at `path`; DocumentError says what is wrong with it."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DocumentError(f"{path.name} cannot be read: {error}") from error
    if unknown := data.keys() - {"change"}:
        raise DocumentError(f"{path.name} has the unknown entry {', '.join(sorted(unknown))}")
    result = []
    for number, entry in enumerate(data.get("change", []), start=1):
        where = f"{path.name}, change {number}"
        if entry.keys() != {"release", "says", "link", "claims"}:
            raise DocumentError(f"{where} has not the four entries release, says, link and claims")
        if not entry["link"].startswith(("https://", FINDS)):
            raise DocumentError(f"{where}: the link {entry['link']!r} leads neither to the web nor into {FINDS}")
        try:
            release = Version(entry["release"])
        except InvalidVersion as error:
            raise DocumentError(f"{where}: {error}") from error
        result.append(Explanation(release, entry["says"], entry["link"], tuple(entry["claims"])))
    return tuple(result)


def steps(ledgers: Iterable[dict[str, Any]]) -> Iterator[Step]:
    """What changed between each two neighbours of the ledgers, which come oldest release first, of the same devices."""
    series: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for ledger in ledgers:
        ran = sorted(device for device, facts in ledger["devices"].items() if "not_run" not in facts)
        series.setdefault(tuple(ran), []).append(ledger)
    for ran, runs in series.items():
        for before, after in itertools.pairwise(runs):
            yield Step(release(before), release(after), compare(before, after), ", ".join(ran))


def release(ledger: dict[str, Any]) -> Version:
    """The release of PyTorch that the ledger is of."""
    return Version(Version(ledger["environment"]["torch"]).base_version)


def explain(step: Step, explanations: Iterable[Explanation]) -> dict[Explanation | None, list[Change]]:
    """The changes of the step by what explains them, in the order of the explanations; under None those without one."""
    result: dict[Explanation | None, list[Change]] = {}
    left = list(step.changes)
    for explanation in explanations:
        if not step.before < explanation.release <= step.after:
            continue
        if mine := [change for change in left if change.claim in explanation.claims]:
            result[explanation] = mine
            left = [change for change in left if change not in mine]
    return result | ({None: left} if left else {})
