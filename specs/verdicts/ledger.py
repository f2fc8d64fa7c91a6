"""The ledger: the verdicts of one run and the environment they were reached in, as one JSON file."""

from __future__ import annotations

import json
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

from .. import VERSION
from .docstrings import fingerprints
from .schema import fault

SCHEMA_VERSION = 1
LARGEST = 50_000_000  # bytes of a file that we read; ours have less than one million
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
    write_whole(path, json.dumps(ledger, indent=1, ensure_ascii=False) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def incomplete(path: Path) -> Path:
    """Where the ledger of a run stands until the run is over."""
    return path.with_name(f"{path.name}.incomplete")


class Journal:
    """The ledger of a run that goes on: a whole one after each verdict, so that a run that is killed loses nothing.

    It stands beside `path`, where an older ledger is left alone until this one is complete.
    """

    TAIL = "\n]}\n"

    def __init__(self, path: Path, started: dict[str, Any]):
        """Begin with a ledger that isn't complete; LedgerError if another run is writing to the same path."""
        self.path, self._empty = path, not started["verdicts"]
        self._lock = _locked(incomplete(path))
        head = json.dumps(started, ensure_ascii=False).removesuffix("]}")
        write_whole(incomplete(path), head + self.TAIL)
        self._file = incomplete(path).open("r+b", buffering=0)

    def add(self, record: dict[str, Any]) -> None:
        """Put one more verdict into it."""
        self._file.seek(-len(self.TAIL), os.SEEK_END)
        separator = "\n" if self._empty else ",\n"
        self._file.write((separator + json.dumps(record, ensure_ascii=False) + self.TAIL).encode())
        self._empty = False

    def finish(self, ledger: dict[str, Any]) -> None:
        """Write the whole ledger to its path; the incomplete one is gone then."""
        write(self.path, ledger)
        self._file.close()
        incomplete(self.path).unlink(missing_ok=True)
        self.release()

    def release(self) -> None:
        """Let other runs write to the path."""
        if self._lock is not None:
            self._lock.close()
            Path(self._lock.name).unlink(missing_ok=True)


def _locked(path: Path) -> Any:
    """A lock that ends with the process, however it ends; None where there are no such locks."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        return None
    file = path.with_name(f"{path.name}.lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise LedgerError(f"another run is writing the ledger {path.with_suffix('')}") from None
    return file


def read(path: Path) -> dict[str, Any]:
    """The ledger in the file at `path`; LedgerError says why a file isn't one that we can read."""
    try:
        if path.stat().st_size > LARGEST:
            raise LedgerError(f"{path} is not a ledger: it is larger than {LARGEST // 10**6} MB")
        ledger = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LedgerError(f"the ledger {path} can't be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise LedgerError(f"{path} is not a ledger: it isn't JSON") from error
    if not isinstance(ledger, dict) or "schema" not in ledger:
        raise LedgerError(f"{path} is not a ledger")
    if ledger["schema"] != SCHEMA_VERSION:
        raise LedgerError(f"the ledger {path} has schema {ledger['schema']!r}; this suite reads {SCHEMA_VERSION}")
    if reason := fault(json.loads(SCHEMA.read_text(encoding="utf-8")), ledger):
        raise LedgerError(f"{path} is not a ledger: {reason}")
    return ledger


def why_not_resumed(stopped: dict[str, Any], now: dict[str, Any]) -> str | None:
    """Why a run can't go on from the ledger of one that was stopped, or None if it can."""
    for name in ("suite", "profile", "example_seed", "environment"):
        if stopped[name] != now[name]:
            return f"it was begun with {name} {stopped[name]}, and this run has {now[name]}"
    if stopped["complete"]:
        return "it is complete"
    return None


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
        "docstrings": fingerprints(),
        "verdicts": sorted(records, key=lambda r: (r["claim"], r["device"])),
    }
