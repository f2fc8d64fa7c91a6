"""What changed between two ledgers: verdicts of claims, and the documentation that claims are taken from."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from . import FAILING

# The kinds of change, worst first, and what each means for a reader.
KINDS = {
    "newly broken": "held before and doesn't any more",
    "newly failing": "could be decided before and can't any more",
    "no longer made": "held before, and isn't made on this release or device",
    "newly holding": "didn't hold before and does now",
    "newly made": "wasn't made on that release or device, and holds now",
    "changed": "fails in another way than before",
    "new": "the other ledger doesn't know the claim",
    "gone": "only the other ledger knows the claim",
}
GATING = ("newly broken", "newly failing")  # of promised claims these turn a gate red


@dataclass(frozen=True)
class Change:
    """A claim on a device whose verdict isn't what it was."""

    kind: str
    claim: str
    device: str
    sentence: str
    standing: str
    releases: str  # on which the claim is made, in words; empty for all
    before: str  # the verdicts; empty for a claim that the ledger doesn't have
    after: str
    reason: str = ""
    expected: str = ""
    came: str = ""
    script: str = ""
    known: str = ""  # why it is expected to fail, if it does so in the way that is expected

    @property
    def gates(self) -> bool:
        """Whether the change turns a gate red."""
        return self.kind in GATING and self.standing == "promised" and not self.known


@dataclass(frozen=True)
class Reread:
    """A docstring that isn't what it was, and the claims that are taken from it."""

    name: str
    how: str  # changed, new or gone
    claims: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """Two ledgers side by side."""

    before: str  # what they are called: the torch of each
    after: str
    changes: tuple[Change, ...]
    still_failing: int
    unchanged: int
    docstrings: tuple[Reread, ...]
    caveats: tuple[str, ...]  # in which respect the comparison isn't sound

    @property
    def gates(self) -> bool:
        """Whether something that documentation promises held before and doesn't any more."""
        return any(change.gates for change in self.changes)


def compare(
    before: dict[str, Any], after: dict[str, Any], asked: Callable[[str], bool] = lambda claim: True
) -> Comparison:
    """What changed from one ledger to the other; ledgers of different suites as far as that is sound.

    asked  whether the second run was for a claim that it has no verdict on; if not, the claim isn't called gone
    """
    old, new = _by_claim(before), _by_claim(after)
    aliases = {former: name for name, _ in new for former in new[name, _].get("formerly", ())}
    old = {(aliases.get(name, name), device): record for (name, device), record in old.items()}
    devices = _compared_devices(before, after)
    changes, failing, unchanged = [], 0, 0
    for key in sorted(old.keys() | new.keys()):
        if key[1] not in devices:
            continue
        was, now = old.get(key), new.get(key)
        if now is None and not asked(key[0]):
            continue
        kind = _kind(was, now)
        if kind:
            changes.append(_change(kind, key, was, now))
        elif now and now["verdict"] in FAILING:
            failing += 1
        else:
            unchanged += 1
    order = list(KINDS)
    changes.sort(key=lambda change: (order.index(change.kind), change.claim, change.device))
    return Comparison(
        before=_called(before),
        after=_called(after),
        changes=tuple(changes),
        still_failing=failing,
        unchanged=unchanged,
        docstrings=tuple(_docstrings(before, after)),
        caveats=tuple(_caveats(before, after)),
    )


def _by_claim(ledger: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(record["claim"], record["device"]): record for record in ledger["verdicts"]}


def _called(ledger: dict[str, Any]) -> str:
    return f"torch {ledger['environment']['torch']}"


def _ran(ledger: dict[str, Any]) -> set[str]:
    return {device for device, facts in ledger["devices"].items() if "not_run" not in facts}


def _compared_devices(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    return _ran(before) & _ran(after)


def _kind(was: dict[str, Any] | None, now: dict[str, Any] | None) -> str | None:
    """Which kind of change lies between two records of a claim, or None."""
    if was is None or now is None:
        return "new" if was is None else "gone"
    old, new = was["verdict"], now["verdict"]
    if old == new:
        return None
    if new in FAILING:
        if old in FAILING:
            return "changed"
        return "newly broken" if new == "broken" else "newly failing"
    if new == "not applicable":
        return "no longer made"
    return "newly made" if old == "not applicable" else "newly holding"


def _change(kind: str, key: tuple[str, str], was: dict[str, Any] | None, now: dict[str, Any] | None) -> Change:
    record = now or was or {}
    details = {name: record.get(name, "") for name in ("reason", "expected", "came", "script")} if now else {}
    expectation = now.get("expectation") if now else None
    return Change(
        kind=kind,
        claim=key[0],
        device=key[1],
        sentence=record["sentence"],
        standing=record["standing"],
        releases=record.get("releases", ""),
        before=was["verdict"] if was else "",
        after=now["verdict"] if now else "",
        known=expectation["reason"] if expectation and expectation["met"] else "",
        **details,
    )


def _docstrings(before: dict[str, Any], after: dict[str, Any]) -> Iterable[Reread]:
    """The docstrings that differ, with the claims of the second ledger that cite statements taken from them."""
    old, new = before.get("docstrings"), after.get("docstrings")
    if old is None or new is None:
        return
    citing: dict[str, set[str]] = {}
    for name, facts in new.items():
        statements = set(facts["statements"])
        citing[name] = {r["claim"] for r in after["verdicts"] if statements & set(r["cites"])}
    for name in sorted(old.keys() & new.keys()):
        a, b = old[name]["fingerprint"], new[name]["fingerprint"]
        if a != b:
            how = "new" if not a else "gone" if not b else "changed"
            yield Reread(name, how, tuple(sorted(citing[name])))


def _caveats(before: dict[str, Any], after: dict[str, Any]) -> Iterable[str]:
    """In which respects the two runs can't be compared, one sentence each."""
    if before["suite"] != after["suite"]:
        yield (
            f"The suites differ ({before['suite']} and {after['suite']}): claims that are new or gone tell of the "
            "suite, not of PyTorch."
        )
    if before["profile"] != after["profile"]:
        yield (
            f"The profiles differ ({before['profile']} and {after['profile']}): a claim may break only because more "
            "examples were tried, or hold because fewer were."
        )
    if before["example_seed"] != after["example_seed"]:
        yield "Other examples were drawn (--example-seed): a claim may break or hold only because of that."
    if before["environment"]["hypothesis"] != after["environment"]["hypothesis"]:
        yield "The versions of Hypothesis differ, so other examples may have been drawn."
    for ledger, which in ((before, "first"), (after, "second")):
        if not ledger["complete"]:
            yield f"The {which} run was interrupted: claims that it didn't come to are not compared."
    for device in sorted(_ran(before) ^ _ran(after)):
        where = "first" if device in _ran(before) else "second"
        yield f"Only the {where} run was on {device}; it is not compared."
    if before.get("docstrings") is None or after.get("docstrings") is None:
        yield "One of the ledgers has no fingerprints of docstrings: whether the documentation changed isn't known."


def as_text(comparison: Comparison) -> str:
    """The comparison for a terminal."""
    lines = [_headline(comparison)]
    for change in comparison.changes:
        if change.kind in ("new", "gone"):
            continue
        observed = "" if change.standing == "promised" else ", observed, not promised"
        lines += ["", f"{change.kind.upper()}  {change.claim}  [{change.device}]{observed}"]
        lines += [f"  {change.sentence}", f"  {change.before} -> {change.after}"]
        if change.releases:
            lines.append(f"  the claim is made {change.releases}")
        if change.known:
            lines.append(f"  it is expected to fail: {change.known}")
        if change.script:
            lines += [f"  because {change.reason}: expected {change.expected}, came {change.came}"]
            lines += ["  a script that shows it:", ""]
            lines += [f"      {line}" if line else "" for line in change.script.rstrip().split("\n")]
        elif change.reason and change.after in FAILING:
            lines.append(f"  {change.reason}")
    for kind in ("new", "gone"):
        names = [change.claim for change in comparison.changes if change.kind == kind]
        if names:
            lines += ["", f"{len(names)} {kind} ({KINDS[kind]}): {_some(names)}"]
    if comparison.docstrings:
        lines += ["", "Docstrings that changed, with the claims to read again:"]
        for docstring in comparison.docstrings:
            lines.append(f"  {docstring.how:<8} {docstring.name}: {_some(docstring.claims) or 'no claim'}")
    lines += [f"\nnote: {caveat}" for caveat in comparison.caveats]
    return printable("\n".join(lines)) + "\n"


def printable(text: str) -> str:
    """`text` with everything but line breaks that a terminal might obey written out."""
    return "".join(c if c == "\n" or c.isprintable() else ascii(c)[1:-1] for c in text)


def _headline(comparison: Comparison) -> str:
    number = sum(change.kind not in ("new", "gone") for change in comparison.changes)
    claims = "1 claim" if number == 1 else f"{number} claims"
    still = f", {comparison.still_failing} fail as before" if comparison.still_failing else ""
    return (
        f"{claims} changed from {comparison.before} to {comparison.after} ({comparison.unchanged} are as before{still})"
    )


def _some(names: Iterable[str], most: int = 8) -> str:
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def as_json(comparison: Comparison) -> str:
    """The comparison for programs."""
    return json.dumps(asdict(comparison) | {"gates": comparison.gates}, indent=1, ensure_ascii=False) + "\n"


def escaped(text: str) -> str:
    """`text` from a ledger as Markdown that shows it and does nothing else."""
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "&#124;"), ("`", "&#96;")):
        text = text.replace(character, entity)
    for character in "\\*_[]!#~":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())


def fenced(text: str) -> str:
    """`text` as a code block that it can't end."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}python\n{text.rstrip()}\n{fence}"


def as_markdown(comparison: Comparison) -> str:
    """The comparison for the summary of a CI run."""
    text = f"### {escaped(_headline(comparison))}\n"
    shown = [change for change in comparison.changes if change.kind not in ("new", "gone")]
    if shown:
        text += "\n| change | claim | device | sentence |\n| --- | --- | --- | --- |\n"
        for change in shown:
            mark = "❌ " if change.gates else ""
            made = f" *({escaped(change.releases)})*" if change.releases else ""
            text += f"| {mark}{change.kind} | {escaped(change.claim)} | {escaped(change.device)} "
            known = f" *(expected: {escaped(change.known)})*" if change.known else ""
            text += f"| {escaped(change.sentence)}{made}{known} |\n"
    for change in shown:
        if change.script:
            text += f"\n<details><summary>{escaped(change.claim)} on {escaped(change.device)}</summary>\n\n"
            text += f"{escaped(change.reason)}: expected {escaped(change.expected)}, came {escaped(change.came)}\n\n"
            text += f"{fenced(change.script)}\n\n</details>\n"
    for kind in ("new", "gone"):
        names = [change.claim for change in comparison.changes if change.kind == kind]
        if names:
            text += f"\n{len(names)} {kind}: {escaped(_some(names))}\n"
    if comparison.docstrings:
        text += "\nDocstrings that changed, with the claims to read again:\n\n"
        for docstring in comparison.docstrings:
            text += f"- {docstring.how}: {escaped(docstring.name)} ({escaped(_some(docstring.claims)) or 'no claim'})\n"
    return text + "".join(f"\n> {escaped(caveat)}\n" for caveat in comparison.caveats)


FORMATS: dict[str, Callable[[Comparison], str]] = {"text": as_text, "json": as_json, "markdown": as_markdown}
