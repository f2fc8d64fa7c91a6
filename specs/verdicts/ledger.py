"""The ledger: the verdicts of one run and the environment they were reached in, as one JSON file."""

from __future__ import annotations

import json
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

from .. import VERSION

SCHEMA_VERSION = 1
SCHEMA = Path(__file__).with_name("ledger.schema.json")


class LedgerError(ValueError):
    """A path or a file that can't serve as a ledger; the message is one sentence for the user."""


def environment() -> dict[str, Any]:
    """What decides a verdict besides the claim: PyTorch and its build, Python, Hypothesis."""
    import hypothesis
    import torch

    return {
        "torch": torch.__version__,
        "torch_git": torch.version.git_version,
        "torch_cuda": torch.version.cuda,
        "torch_debug": bool(torch.version.debug),
        "python": platform.python_version(),
        "hypothesis": hypothesis.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
    }


def check_writable(path: Path) -> None:
    """Raise LedgerError unless a ledger can be written to `path`; an existing one is left as it is."""
    if path.is_dir():
        raise LedgerError(f"the ledger can't be written to {path}: it is a directory")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
        if path.exists():
            with path.open("ab"):
                pass
    except OSError as error:
        raise LedgerError(f"the ledger can't be written to {path}: {error.strerror}") from error


def write(path: Path, ledger: dict[str, Any]) -> None:
    """Write the ledger to `path`, whole or not at all."""
    text = json.dumps(ledger, indent=1, ensure_ascii=False) + "\n"
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def read(path: Path) -> dict[str, Any]:
    """The ledger in the file at `path`; LedgerError says why a file isn't one that we can read."""
    try:
        ledger = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LedgerError(f"the ledger {path} can't be read: {error.strerror}") from error
    except ValueError as error:
        raise LedgerError(f"{path} is not a ledger: it isn't JSON") from error
    if not isinstance(ledger, dict) or "schema" not in ledger:
        raise LedgerError(f"{path} is not a ledger")
    if ledger["schema"] != SCHEMA_VERSION:
        raise LedgerError(f"the ledger {path} has schema {ledger['schema']}; this suite reads {SCHEMA_VERSION}")
    return ledger


def ledger(
    profile: str,
    example_seed: int,
    complete: bool,
    devices: dict[str, dict[str, Any]],
    records: list[dict[str, Any]],
) -> dict[str, Any]:
    """The ledger of a run: its records in an order that depends on nothing but claims and devices."""
    return {
        "schema": SCHEMA_VERSION,
        "suite": VERSION,
        "profile": profile,
        "example_seed": example_seed,
        "complete": complete,
        "environment": environment(),
        "devices": devices,
        "verdicts": sorted(records, key=lambda r: (r["claim"], r["device"])),
    }
