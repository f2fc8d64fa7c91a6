"""What a ledger says where continuous integration shows it: a badge, a summary, annotations."""

from __future__ import annotations

import json
from typing import Any

from . import FAILING
from .compare import compare, escaped, fenced, printable
from .terminal import counts

MOST_ANNOTATIONS = 10  # of one step; GitHub drops the others without a word


def badge(ledger: dict[str, Any]) -> str:
    """The JSON that shields.io's endpoint badge reads; red if a promised claim fails."""
    devices = _counted(ledger)
    message = " | ".join(f"{device}: {said}" for device, said in devices.items()) or "not run"
    if not ledger["complete"]:
        message = f"interrupted, {message}"
    colour = "red" if _failing(ledger) else "brightgreen" if ledger["complete"] and devices else "lightgrey"
    label = f"autograd on torch {ledger['environment']['torch']}"
    return json.dumps({"schemaVersion": 1, "label": label, "message": message, "color": colour}) + "\n"


def summary(ledger: dict[str, Any]) -> str:
    """The run as Markdown: how many claims got which verdict, and those that fail with their scripts."""
    text = f"### Autograd on torch {escaped(ledger['environment']['torch'])}\n\n"
    counted = _counted(ledger)
    for device, facts in ledger["devices"].items():
        said = f"not run: {facts['not_run']}" if "not_run" in facts else counted[device]
        text += f"- {escaped(device)}: {escaped(said)}\n"
    if not ledger["complete"]:
        text += "\n> The run was interrupted: these are the claims that it came to.\n"
    for record in _failing(ledger, also_observed=True):
        observed = ", observed, not promised" if record["standing"] == "observed" else ""
        head = f"{record['verdict']} {record['claim']} on {record['device']}{observed}"
        text += f"\n<details><summary>{escaped(head)}</summary>\n\n"
        text += f"{escaped(record['sentence'])}\n\n{escaped(_why(record))}\n"
        if record.get("script"):
            text += f"\n{fenced(record['script'])}\n"
        text += "\n</details>\n"
    return text


def annotations(ledger: dict[str, Any], before: dict[str, Any] | None = None) -> str:
    """An error of GitHub's for each promised claim that fails, and didn't in the ledger `before`."""
    failing = _failing(ledger)
    if before:
        worse = {(change.claim, change.device) for change in compare(before, ledger).changes if change.gates}
        failing = [record for record in failing if (record["claim"], record["device"]) in worse]
    shown = failing if len(failing) <= MOST_ANNOTATIONS else failing[: MOST_ANNOTATIONS - 1]
    lines = []
    for record in shown:
        title = _property(f"{record['verdict']}: {record['claim']} [{record['device']}]")
        lines.append(f"::error title={title}::{_data(record['sentence'] + chr(10) + _why(record))}\n")
    if more := len(failing) - len(shown):
        lines.append(f"::error::{more} more claims fail; the summary of this run has them all.\n")
    return "".join(lines)


def _counted(ledger: dict[str, Any]) -> dict[str, str]:
    """How many claims got which verdict, by device that was run on."""
    ran = [device for device, facts in ledger["devices"].items() if "not_run" not in facts]
    return {device: counts([r for r in ledger["verdicts"] if r["device"] == device]) for device in ran}


def _failing(ledger: dict[str, Any], also_observed: bool = False) -> list[dict[str, Any]]:
    """The records of claims that fail, and aren't known to, broken ones first."""
    found = [r for r in ledger["verdicts"] if r["verdict"] in FAILING and not r.get("expectation", {}).get("met")]
    found = [r for r in found if also_observed or r["standing"] == "promised"]
    return sorted(found, key=lambda record: FAILING.index(record["verdict"]))


def _why(record: dict[str, Any]) -> str:
    """Why the claim fails, in one line."""
    if record["verdict"] != "broken":
        return record["reason"]
    return f"{record['reason']}: expected {record['expected']}, came {record['came']}"


def _data(text: str) -> str:
    """`text` as the message of a workflow command, which it can't end."""
    return printable(text).replace("%", "%25").replace("\n", "%0A")


def _property(text: str) -> str:
    """`text` as a property of a workflow command, which it can't end either."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")
