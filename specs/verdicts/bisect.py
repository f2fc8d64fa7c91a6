"""The first release on which a claim broke, found by running this claim alone in environments of other releases."""

from __future__ import annotations

import configparser
import glob
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from ..kit.claim import Claim
from . import FAILING, ledger
from .terminal import describe

ROOT = Path(__file__).parents[2]
PROFILES = ("quick", "gate")  # a counterexample that the first one finds costs a quarter of the time
Say = Callable[[str], None]


class BisectError(ValueError):
    """A question that can't be answered as it was put; the message is one sentence for the user."""


class NotTried(Exception):
    """An environment in which the claim couldn't be decided; the message says why."""


@dataclass(frozen=True)
class Found:
    """Between which releases the claim broke."""

    good: Version
    bad: Version
    record: dict[str, Any]  # what is known of it on the first bad release
    skipped: dict[Version, str]  # releases between the two that couldn't be tried, and why


def pythons(pattern: str | None) -> dict[Version, Path]:
    """The Python of each release that there is an environment of.

    pattern  where they are, with {} for the release; None for the tox environments of this repository

    Raises BisectError for a pattern without {}, and if there is no environment at all.
    """
    if pattern is None:
        found, where = _of_tox(), f"{ROOT / '.tox'} (make them with tox -e torch2.6 --notest and the like)"
    elif "{}" not in pattern:
        raise BisectError(f"--python-for {pattern} has no {{}} in it, where the release is to be put in")
    else:
        found, where = _of_pattern(os.path.abspath(os.path.expanduser(pattern))), pattern
    if not found:
        raise BisectError(f"there is no environment of any release in {where}")
    return dict(sorted(found.items()))


def _of_tox() -> dict[Version, Path]:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "tox.ini", encoding="utf-8")
    named = re.findall(r"^(torch[\d.]+): torch==(\S+)$", parser.get("testenv", "deps", fallback=""), re.MULTILINE)
    inside = "Scripts/python.exe" if os.name == "nt" else "bin/python"
    found = {Version(release): ROOT / ".tox" / name / inside for name, release in named}
    return {release: python for release, python in found.items() if python.exists()}


def _of_pattern(pattern: str) -> dict[Version, Path]:
    first, *rest = pattern.split("{}")
    named = re.compile(re.escape(first) + r"([^/\\]+)" + r"\1".join(map(re.escape, rest)))
    found = {}
    for path in glob.glob("*".join(map(glob.escape, (first, *rest)))):
        if match := named.fullmatch(path):
            try:
                found[Version(match[1])] = Path(path)
            except InvalidVersion:  # some other folder beside the environments
                continue
    return found


def search(
    claim: Claim,
    good: Version,
    bad: Version,
    environments: dict[Version, Path],
    releases: list[Version] | None,
    device: str,
    say: Say,
    imports: Sequence[str] = (),
) -> Found | str:
    """The first release from `good` to `bad` on which the claim is broken; or why there is none, in a sentence.

    releases  those to try between the two; None for all that there is an environment of
    imports   modules to import first in each environment, which bring the device
    say       is told of each release as it has been tried

    Raises BisectError if the ends, the releases or the environments aren't such that there is anything to search.
    """
    if not (ROOT / "specs" / f"{claim.chapter}.py").exists():
        raise BisectError("bisect runs the specification in other environments, which needs a checkout of it")
    if good >= bad:
        raise BisectError(f"--good {good} has to be an older release than --bad {bad}")
    for release in (bad, good):
        if not claim.made_on(release):
            return f"{claim.id} isn't made on {release}: it is made {claim.releases}"
    for release in releases or ():
        if not good < release < bad:
            raise BisectError(f"{release} of --releases doesn't lie between {good} and {bad}")
    between = sorted(releases) if releases else [release for release in environments if good < release < bad]
    for release in (good, *between, bad):
        if release not in environments:
            there = ", ".join(map(str, environments))
            raise BisectError(f"there is no environment of {release}; there are those of {there}")

    trial = Trial(claim, device, environments, say, imports)
    for release, broken in ((bad, True), (good, False)):
        try:
            if trial.broken(release) != broken:
                return f"{claim.id} " + (f"holds on --bad {bad}" if broken else f"is broken on --good {good} already")
        except NotTried as error:
            raise BisectError(f"{claim.id} can't be tried on {release}: {error}") from None
    skipped: dict[Version, str] = {}
    record = trial.record
    while between:
        release = between[len(between) // 2]
        try:
            broken = trial.broken(release)
        except NotTried as error:
            skipped[release] = str(error)
            say(f"{release}  not tried: {error}")
            between.remove(release)
            continue
        if broken:
            bad, record = release, trial.record
            between = [other for other in between if other < release]
        else:
            good = release
            between = [other for other in between if other > release]
    return Found(good, bad, record, {r: reason for r, reason in skipped.items() if good < r < bad})


class Trial:
    """Decides one claim on one release after the other; what broke it once is tried first from then on."""

    def __init__(
        self, claim: Claim, device: str, environments: dict[Version, Path], say: Say, imports: Sequence[str] = ()
    ):
        self.claim, self.device, self.environments, self.say, self.imports = claim, device, environments, say, imports
        self.record: dict[str, Any] = {}  # of the latest release on which the spec found the claim broken
        self._profiles = PROFILES
        self._script = ""  # shows a counterexample, and ends with ...
        self._complaint = ""  # ... this line where the claim is broken

    def broken(self, release: Version) -> bool:
        """Whether the claim is broken on the release; NotTried if that can't be known."""
        # Another error may come of what the script names and the release doesn't have: then the spec decides.
        if self._script and _complaint(self.environments[release], self._script) == self._complaint:
            self.say(f"{release}  broken by the same counterexample")
            return True
        for profile in self._profiles:
            record = self._decide(release, profile)
            if record["verdict"] in ("broken", "undecided"):
                break
        if record["verdict"] not in FAILING:
            self.say(f"{release}  holds ({record['examples']} examples)")
            return False
        came = f": expected {record['expected']}, came {record['came']}" if record["verdict"] == "broken" else ""
        self.say(f"{release}  {record['verdict']}: {record['reason']}{came}")
        self.record, self._profiles = record, (profile,)
        if not self._script and "script" in record:
            self._complaint = _complaint(self.environments[release], record["script"])
            # A script that doesn't come to the claim shows nothing.
            shows = self._complaint and not self._complaint.startswith(("ImportError", "ModuleNotFoundError"))
            self._script = record["script"] if shows else ""
        return True

    def _decide(self, release: Version, profile: str) -> dict[str, Any]:
        """The record of the claim on the release."""
        chapter, _, name = self.claim.id.partition("/")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "ledger.json")
            # In one word each: pytest looks for its settings beside files that seem to be arguments.
            options = [f"--device={self.device}", f"--profile={profile}", f"--ledger={path}"]
            options += [f"--import={name}" for name in self.imports]
            what = ["-m", "pytest", "-q", "-p", "no:cacheprovider", *options, f"specs/{chapter}.py::spec_{name}"]
            done = _run(self.environments[release], what, ROOT)
            begun = ledger.incomplete(path)  # stays if the process dies
            try:
                written = ledger.read(begun if begun.exists() else path)
            except ledger.LedgerError:
                raise NotTried(_last_words(done)) from None
        here = Version(written["environment"]["torch"])
        if here.release[: len(release.release)] != release.release or (
            release.is_prerelease and here.public != release.public
        ):
            raise NotTried(f"{self.environments[release]} has torch {here}")
        if not written["verdicts"]:
            if done.returncode in _CRASHES:
                reason = f"the process died of {_CRASHES[done.returncode]}"
                facts = {"sentence": self.claim.sentence, "standing": self.claim.standing, "examples": 0}
                return {"claim": self.claim.id, "device": self.device, "verdict": "undecided", "reason": reason} | facts
            raise NotTried(_last_words(done))
        (record,) = written["verdicts"]
        if record["verdict"] == "not applicable":
            raise NotTried(record["reason"])
        return record


# What a program dies of by its own doing: the exit codes of subprocess, and what they are called.
_CRASHES = {
    -getattr(signal, name): name
    for name in ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE")
    if hasattr(signal, name)
}


def _run(python: Path, arguments: list[str], folder: Path, given: str = "") -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    found = [str(ROOT), *filter(None, [environment.get("PYTHONPATH")])]  # a script may import the loopback device
    environment["PYTHONPATH"] = os.pathsep.join(found)
    command = [str(python), *arguments]
    try:
        return subprocess.run(
            command, cwd=folder, env=environment, input=given, capture_output=True, text=True, errors="replace"
        )
    except OSError as error:
        raise NotTried(f"{python} can't be run: {error.strerror}") from None


def _complaint(python: Path, script: str) -> str:
    """The last line of the error that ends the script in this Python; empty if none does."""
    with tempfile.TemporaryDirectory() as folder:
        done = _run(python, ["-"], Path(folder), script)
    return _last_line(done.stderr) if done.returncode == 1 else ""


def _last_words(done: subprocess.CompletedProcess[str]) -> str:
    """What a run said of its failing, in one line."""
    told = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
    if told:
        return told[0].removeprefix("ERROR: ")
    return _last_line(done.stderr) or _last_line(done.stdout) or f"it ended with exit code {done.returncode}"


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]


def as_text(found: Found) -> str:
    """What was found, for a terminal."""
    lines = [f"{found.record['claim']} broke on torch {found.bad}; the last good release is {found.good}"]
    for release, reason in sorted(found.skipped.items()):
        lines.append(f"  it may have been {release} already, which could not be tried: {reason}")
    return "\n".join([*lines, "", *describe(found.record)]).rstrip() + "\n"
