"""What a run says at its end: of the article's statements; of broken claims, each with its script; the counts."""

from __future__ import annotations

import textwrap
from collections import Counter
from typing import Any

from .. import INSTALLED
from .compare import Comparison, as_text
from .devices import Devices

_WORST_FIRST = ("broken", "undecided", "vacuous")
_COLOURS = {
    "holds": {"green": True},
    "qualified": {"yellow": True},
    "refuted": {"red": True},
    "in doubt": {"red": True, "bold": True},
}


def describe(record: dict[str, Any]) -> list[str]:
    """The lines that tell of one claim that doesn't hold."""
    observed = ", observed, not promised" if record["standing"] == "observed" else ""
    unmet = not record.get("expectation", {"met": True})["met"]
    word = "UNEXPECTED" if unmet else record["verdict"].upper()
    lines = [f"{word} {record['claim']}  [{record['device']}]{observed}"]
    lines += textwrap.wrap(record["sentence"], 96, initial_indent="  ", subsequent_indent="  ")
    if unmet:
        lines += textwrap.wrap(_unmet(record), 96, initial_indent="  ", subsequent_indent="  ")
        if record["verdict"] == "holds":
            return lines
    if record["verdict"] != "broken":
        return [*lines, f"  {record['reason']}"]
    lines += [f"    because   {record['reason']}", f"    expected  {record['expected']}"]
    lines += [f"    came      {record['came']}", "  a script that shows it:", ""]
    return [*lines, textwrap.indent(record["script"].rstrip(), "      "), ""]


def _unmet(record: dict[str, Any]) -> str:
    """What is so of a claim that doesn't fail as it is expected to."""
    expected = record["expectation"]
    begin = f"It is expected to be {expected['verdict']} ({expected['reason']}), "
    if record["verdict"] == expected["verdict"]:
        how = "but it isn't in the known way"
    else:
        how = "but it holds" if record["verdict"] == "holds" else f"but it is {record['verdict']}"
    return f"{begin}{how}. To write that down: python -m specs expectations update"


def _as_expected(record: dict[str, Any]) -> bool:
    return record.get("expectation", {"met": False})["met"]


def counts(records: list[dict[str, Any]]) -> str:
    """How many claims got which verdict, in words."""
    number = Counter("failing as expected" if _as_expected(record) else record["verdict"] for record in records)
    parts = [f"{number['holds']} of {len(records)} claims hold"]
    parts += [f"{number[v]} {v}" for v in (*_WORST_FIRST, "failing as expected", "not applicable") if number[v]]
    return ", ".join(parts)


def article(reporter: Any, records: list[dict[str, Any]]) -> None:
    """Write what the run says of each statement of the article, if it ran claims on all of them."""
    from ..documents import documents

    document = documents()["article"]
    citing = {s.id: [r for r in records if s.id in r["cites"]] for s in document.statements}
    if any(not citing[s.id] for s in document.statements if s.finding != "undecidable"):
        return
    reporter.section("the article, statement by statement")
    reporter.ensure_newline()
    for statement in document.statements:
        against = sorted({r["claim"] for r in citing[statement.id] if r["verdict"] in _WORST_FIRST})
        finding = "in doubt" if against else statement.finding
        reporter.write(f"{finding:<12}", **_COLOURS.get(finding, {}))
        reporter.write_line(statement.says + (f"  [see {', '.join(against)}]" if against else ""))
    if not INSTALLED:
        reporter.write_line("why, and by which claims: docs/ARTICLE.md")


def summary(reporter: Any, records: list[dict[str, Any]], devices: Devices) -> None:
    """Write the summary of a run to pytest's terminal reporter."""
    import torch

    reporter.section(f"autograd on torch {torch.__version__}", blue=True)
    for verdict in _WORST_FIRST:
        for record in sorted(records, key=lambda r: (r["claim"], r["device"])):
            if record["verdict"] == verdict and "expectation" not in record:
                _tell(reporter, record)
    tallies(reporter, records, devices)
    expected(reporter, records)


def _tell(reporter: Any, record: dict[str, Any]) -> None:
    head, *rest = describe(record)
    reporter.write_line(head, red=True, bold=True)
    for line in rest:
        reporter.write_line(line)


def expected(reporter: Any, records: list[dict[str, Any]]) -> None:
    """Write of each claim that is expected to fail whether it does."""
    concerned = sorted((r for r in records if "expectation" in r), key=lambda r: (r["claim"], r["device"]))
    for record in concerned:
        if _as_expected(record):
            about = record["expectation"]
            link = f" ({about['link']})" if "link" in about else ""
            line = f"expected: {record['claim']} [{record['device']}] is {record['verdict']}: {about['reason']}{link}"
            reporter.write_line(line, yellow=True)
    for record in concerned:
        if not _as_expected(record):
            _tell(reporter, record)


def changes(reporter: Any, comparison: Comparison) -> None:
    """Write what changed since the ledger that the run is compared with."""
    reporter.section("what changed", blue=True)
    for line in as_text(comparison).rstrip().split("\n"):
        red = line.startswith(("NEWLY BROKEN", "NEWLY FAILING"))
        reporter.write_line(line, red=red, bold=red)


def tallies(reporter: Any, records: list[dict[str, Any]], devices: Devices) -> None:
    """Write how many claims got which verdict on each device."""
    width = max(map(len, [*devices.present, *devices.absent]))
    for device in devices.present:
        mine = [record for record in records if record["device"] == device]
        seconds = sum(record["seconds"] for record in mine)
        reporter.write_line(f"{device:<{width}}  {counts(mine)}  ({seconds:.1f} s of specs)")
        reasons = Counter(r["reason"] for r in mine if r["verdict"] == "not applicable")
        for reason, number in sorted(reasons.items()):
            reporter.write_line(f"{'':<{width}}    {number} not applicable: {reason}")
    for device, reason in devices.absent.items():
        reporter.write_line(f"{device:<{width}}  not run: {reason}", yellow=True)
