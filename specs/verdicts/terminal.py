"""What a run says at its end: broken claims first, each with its sentence and script, then the counts."""

from __future__ import annotations

import textwrap
from collections import Counter
from typing import Any

from .devices import Devices

_WORST_FIRST = ("broken", "undecided", "vacuous")


def describe(record: dict[str, Any]) -> list[str]:
    """The lines that tell of one claim that doesn't hold."""
    observed = ", observed only: doesn't fail the run" if record["standing"] == "observed" else ""
    lines = [f"{record['verdict'].upper()} {record['claim']}  [{record['device']}]{observed}"]
    lines += textwrap.wrap(record["sentence"], 96, initial_indent="  ", subsequent_indent="  ")
    if record["verdict"] != "broken":
        return [*lines, f"  {record['reason']}"]
    lines += [f"    because   {record['reason']}", f"    expected  {record['expected']}"]
    lines += [f"    came      {record['came']}", "  a script that shows it:", ""]
    return [*lines, textwrap.indent(record["script"].rstrip(), "      "), ""]


def counts(records: list[dict[str, Any]]) -> str:
    """How many claims got which verdict, in words."""
    number = Counter(record["verdict"] for record in records)
    parts = [f"{number['holds']} of {len(records)} claims hold"]
    parts += [f"{number[v]} {v}" for v in (*_WORST_FIRST, "not applicable") if number[v]]
    return ", ".join(parts)


def summary(reporter: Any, records: list[dict[str, Any]], devices: Devices) -> None:
    """Write the summary of a run to pytest's terminal reporter."""
    import torch

    reporter.section(f"autograd on torch {torch.__version__}", blue=True)
    for verdict in _WORST_FIRST:
        for record in sorted(records, key=lambda r: (r["claim"], r["device"])):
            if record["verdict"] == verdict:
                head, *rest = describe(record)
                reporter.write_line(head, red=True, bold=True)
                for line in rest:
                    reporter.write_line(line)
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
