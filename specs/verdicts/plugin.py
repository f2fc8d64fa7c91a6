"""The pytest plugin: options, worlds, and the way from a claim's outcome to terminal and ledger.

Nothing here imports PyTorch before `pytest_configure` has made sure that it is there.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from .. import CHAPTERS, INSTALLED, OLDEST_TORCH
from . import FAILING, terminal
from .devices import Devices

DEVICES = pytest.StashKey[Devices]()
AGAINST = pytest.StashKey[dict[str, Any]]()
DECIDED = pytest.StashKey[dict[tuple[str, str], dict[str, Any]]]()
EXPECTED = pytest.StashKey[list[Any]]()  # the expectations, of which this file knows nothing before it is configured
RECORD = pytest.StashKey[dict[str, Any]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("autograd conformance")
    group.addoption(
        "--device",
        action="append",
        default=[],
        help="run on this device (cpu, cuda, cuda:1, ...); may be given several times. Default: every kind present.",
    )
    group.addoption(
        "--require-device",
        action="append",
        default=[],
        metavar="DEVICE",
        help="run on this device too, and stop with an error if it is absent.",
    )
    group.addoption(
        "--import",
        action="append",
        default=[],
        dest="imports",
        metavar="MODULE",
        help="import this module first, as for the backend of an out-of-tree device.",
    )
    group.addoption("--ledger", metavar="PATH", help="write verdicts and environment to this JSON file.")
    group.addoption(
        "--resume",
        action="store_true",
        help="go on from what a run with the same --ledger had decided when it was stopped.",
    )
    group.addoption(
        "--against",
        metavar="LEDGER",
        help="show only what changed since this ledger was written; what failed there already doesn't fail the run.",
    )
    group.addoption(
        "--expectations",
        metavar="FILE",
        help="the claims that are known to fail, where and why; they don't fail the run as long as they do, and fail it"
        " when they don't any more. Default: expectations.toml beside the specs.",
    )
    group.addoption(
        "--profile",
        default="gate",
        choices=("quick", "gate", "nightly", "fuzz"),
        help="how many examples decide a claim: 25, 100 or 2000 (default: %(default)s); or fuzz: no claims are decided,"
        " but random programs run in lock step with the reference model until --budget is used up.",
    )
    group.addoption("--budget", metavar="TIME", help="how long --profile fuzz takes: 90s, 10m or 2h. Default: 60s.")
    group.addoption(
        "--findings",
        metavar="DIR",
        default="findings",
        help="where --profile fuzz writes a script for each kind of difference. Default: %(default)s.",
    )
    group.addoption(
        "--observed",
        action="store_true",
        help="let claims that no documentation promises fail the run, too.",
    )
    group.addoption(
        "--example-seed",
        type=int,
        default=0,
        metavar="N",
        help="draw other examples than the usual ones (which are those of 0), as a nightly run may.",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Fuzz in place of a session, if the profile says so."""
    if config.getoption("--profile") != "fuzz":
        return None
    if config.option.help or config.option.version:
        return None
    _require_packages()
    from . import devices, fuzz

    if config.getoption("--ledger"):
        raise pytest.UsageError("--profile fuzz decides no claims, so there is no ledger to write")
    try:
        seconds = fuzz.parse_budget(config.getoption("--budget") or "60s")
    except ValueError as error:
        raise pytest.UsageError(f"--budget: {error}") from None
    try:
        found = _devices(config)
    except devices.DeviceError as error:
        raise pytest.UsageError(str(error)) from None
    workers = config.getoption("numprocesses", None) or 1  # pytest-xdist has made a number of `auto`
    seed, folder = config.getoption("--example-seed"), Path(config.getoption("--findings"))
    return fuzz.main(list(found.present), seconds, seed, workers, found.imports, folder)


def _devices(config: pytest.Config) -> Devices:
    from . import devices

    return devices.find(*map(config.getoption, ("--device", "--require-device", "imports")))


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--profile") == "fuzz":
        return
    if config.getoption("--budget"):
        raise pytest.UsageError("--budget is for --profile fuzz")
    _require_packages()
    import torch

    from . import devices, expectations, ledger, profiles

    if INSTALLED and config.args_source is not pytest.Config.ArgsSource.ARGS:
        folder = Path(__file__).parents[1]  # and not the folder that the command is called from
        config.args = [str(folder / f"{chapter}.py") for chapter in CHAPTERS]
    torch.set_num_threads(1)  # tensors are tiny; one worker, one core
    path = config.getoption("--ledger")
    try:
        config.stash[DEVICES] = _devices(config)
        if path:
            ledger.check_writable(Path(path))
        if against := config.getoption("--against"):
            config.stash[AGAINST] = ledger.read(Path(against))
        config.stash[EXPECTED] = expectations.of_run(config.getoption("--expectations"))
        config.stash[DECIDED] = _decided(config)
    except (devices.DeviceError, expectations.ExpectationError, ledger.LedgerError) as error:
        raise pytest.UsageError(str(error)) from None
    profiles.load(config.getoption("--profile"))
    if hasattr(config, "workerinput"):  # a worker of pytest-xdist, which sends its reports
        devices.spread(config.stash[DEVICES].present, int(config.workerinput["workerid"].removeprefix("gw")))
    else:
        try:
            verdicts = Verdicts(config, config.stash[DEVICES], Path(path) if path else None)
        except ledger.LedgerError as error:
            raise pytest.UsageError(str(error)) from None
        config.pluginmanager.register(verdicts, "autograd-conformance-verdicts")


def _require_packages() -> None:
    """Stop with one sentence if Python, PyTorch or Hypothesis can't be used."""
    if sys.version_info < (3, 11):  # noqa: UP036 (this file is read by older ones before anything can say so)
        raise pytest.UsageError(f"the suite needs Python 3.11 or newer; this is {sys.version.split()[0]}")
    for package, install in (("torch", "torch"), ("hypothesis", "hypothesis")):
        if importlib.util.find_spec(package) is None:
            raise pytest.UsageError(
                f"{sys.executable} has no {package}: install it there (pip install {install})"
                + ("" if INSTALLED else ", or run the environments of tox.ini, which bring their own")
            )
        try:
            importlib.import_module(package)
        except Exception as error:
            raise pytest.UsageError(f"{package} can't be imported: {type(error).__name__}: {error}") from None
    import torch
    from packaging.version import Version

    if Version(torch.__version__) < Version(OLDEST_TORCH):
        raise pytest.UsageError(f"torch {torch.__version__} is too old: the claims begin with {OLDEST_TORCH}")


class Chapter(pytest.Module):
    """A module of claims; one that can't stand is reported by its sentence, without a traceback."""

    def repr_failure(self, excinfo, *args, **kwargs):
        from ..documents import DocumentError
        from ..kit.claim import ClaimError

        if isinstance(excinfo.value, (ClaimError, DocumentError)):
            return str(excinfo.value)
        return super().repr_failure(excinfo, *args, **kwargs)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    if module_path.parent == Path(__file__).parents[1]:
        return Chapter.from_parent(parent, path=module_path)
    return None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "world" in metafunc.fixturenames:
        present = metafunc.config.stash[DEVICES].present
        metafunc.parametrize("world", list(present), indirect=True, scope="session")


@pytest.fixture(scope="session")
def world(request: pytest.FixtureRequest):
    """The world that a spec runs in: one for each device of the run."""
    import torch

    from ..kit.world import World

    return World(torch.device(request.param), request.config.stash[DEVICES].imports)


def _decided(config: pytest.Config) -> dict[tuple[str, str], dict[str, Any]]:
    """The records of a run that was stopped, by claim and device, if this one goes on from it."""
    from . import ledger

    if not config.getoption("--resume"):
        return {}
    if not config.getoption("--ledger"):
        raise ledger.LedgerError("--resume needs --ledger PATH, the same as of the run that was stopped")
    path = ledger.incomplete(Path(config.getoption("--ledger")))
    if not path.exists():
        return {}
    stopped = ledger.read(path)
    if reason := ledger.why_not_resumed(stopped, _begun(config)):
        raise ledger.LedgerError(f"the run can't go on from {path}: {reason}")
    return {(record["claim"], record["device"]): record for record in stopped["verdicts"]}


def _begun(config: pytest.Config, complete: bool = False, records: Iterable[dict[str, Any]] = ()) -> dict[str, Any]:
    """The ledger of this run, with what was decided so far."""
    from . import ledger

    found = config.stash[DEVICES]
    devices = {device: {"name": name} for device, name in found.present.items()}
    devices |= {device: {"not_run": reason} for device, reason in found.absent.items()}
    return ledger.ledger(
        profile=config.getoption("--profile"),
        example_seed=config.getoption("--example-seed"),
        complete=complete,
        devices=devices,
        records=list(records),
    )


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    claim = getattr(pyfuncitem.obj, "claim", None)
    if claim is None:
        return None
    from . import expectations
    from .decide import decide

    config, world = pyfuncitem.config, pyfuncitem.funcargs["world"]
    device = str(world.device)
    record = config.stash[DECIDED].get((claim.id, device))
    seed = config.getoption("--example-seed")
    if record is None and (known := expectations.that_applies(config.stash[EXPECTED], claim, device)):
        profile = config.getoption("--profile")
        record = expectations.judge(claim, world, known, profile, seed, config.stash[DEVICES].imports)
    elif record is None:
        record = decide(claim, world, seed).record()
    pyfuncitem.stash[RECORD] = record
    pyfuncitem.user_properties += [(name, record[name]) for name in ("claim", "device", "verdict")]  # for --junitxml
    if record["verdict"] == "not applicable":
        pytest.skip(record["reason"])
    if expected := record.get("expectation"):
        if expected["met"]:
            pytest.xfail(f"it is expected to fail: {expected['reason']}")
        raise NotHeld(record["verdict"])
    if record["verdict"] in FAILING:
        if claim.standing == "observed" and not config.getoption("--observed"):
            pytest.xfail(f"observed, not promised: {record['reason']}")
        if _failed_before(config, {claim.id, *claim.formerly}, record["device"]):
            pytest.xfail(f"it failed before as well: {record['reason']}")
        raise NotHeld(record["verdict"])
    return True


def _failed_before(config: pytest.Config, names: set[str], device: str) -> bool:
    """Whether a claim with one of the names failed on the device in the ledger that the run is compared with."""
    records = config.stash[AGAINST]["verdicts"] if AGAINST in config.stash else ()
    return any(r["claim"] in names and r["device"] == device and r["verdict"] in FAILING for r in records)


class NotHeld(Exception):
    """A claim that doesn't hold; all there is to say is in its outcome."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    report = yield
    if call.when == "call" and (record := item.stash.get(RECORD, None)):
        report.record = record  # JSON, so that a worker can send it
        if call.excinfo and call.excinfo.errisinstance(NotHeld):
            report.longrepr = "\n".join(terminal.describe(report.record))
    return report


class Verdicts:
    """The verdicts of the run, as reports come in from this process or from workers."""

    def __init__(self, config: pytest.Config, devices: Devices, path: Path | None):
        self.config, self.devices, self.path = config, devices, path
        self.records: dict[tuple[str, str], dict[str, Any]] = {}
        self.about_ledger = ""  # what to say of it at the end
        self.journal = None
        if path:
            from .ledger import Journal

            self.journal = Journal(path, _begun(config, records=config.stash[DECIDED].values()))

    def pytest_report_teststatus(self, report: pytest.TestReport):
        # Under their own words claims stay out of pytest's list of tracebacks; the summary tells them better.
        record = getattr(report, "record", None)
        if not (record and report.failed):
            return None
        word = "unexpected" if "expectation" in record else record["verdict"]
        return word, "F", word.upper()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        record = getattr(report, "record", None)
        if record is None and report.failed:
            record = self._undecided(report)
        if record:
            key = record["claim"], record["device"]
            if self.journal and key not in self.records and key not in self.config.stash[DECIDED]:
                self.journal.add(record)
            self.records[key] = record

    def _undecided(self, report: pytest.TestReport) -> dict[str, Any] | None:
        """The record of a claim whose process died, or whose world could not be made."""
        path, _, rest = report.nodeid.partition("::spec_")
        if not rest:
            return None
        name, _, device = rest.rstrip("]").partition("[")
        return {
            "claim": f"{Path(path).stem}/{name}",
            "device": device,
            "sentence": "",
            "cites": [],
            "standing": "promised",
            "verdict": "undecided",
            "reason": report.longreprtext.strip().rpartition("\n")[2],
            "examples": 0,
            "exercised": 0,
            "seconds": 0.0,
        }

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
        records = list(self.records.values())
        if records and AGAINST in self.config.stash:
            terminal.changes(terminalreporter, self._comparison(exitstatus))
            terminal.tallies(terminalreporter, records, self.devices)
            terminal.expected(terminalreporter, records)
        elif records:
            if self.config.get_verbosity() >= 0:
                terminal.article(terminalreporter, records)
            terminal.summary(terminalreporter, records, self.devices)
        if self.about_ledger:
            terminalreporter.write_line(self.about_ledger)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if not self.journal:
            return
        from .ledger import incomplete

        if exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            self.journal.release()
            self.about_ledger = f"{incomplete(self.path)} has what was decided; --resume goes on from it"
            return
        try:
            self.journal.finish(_begun(self.config, True, self.records.values()))
            self.about_ledger = f"ledger: {self.path}"
        except OSError as error:
            self.about_ledger = f"the ledger could not be written to {self.path}: {error.strerror}"
            session.exitstatus = pytest.ExitCode.INTERNAL_ERROR

    def _comparison(self, exitstatus: int) -> Any:
        """The run, compared with the ledger that --against names."""
        from ..kit.claim import CLAIMS
        from .compare import compare

        ran = {claim.chapter for claim in CLAIMS.values()}

        def asked(name: str) -> bool:
            chapter = name.partition("/")[0]
            return name not in CLAIMS and (chapter in ran or chapter not in CHAPTERS)

        complete = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        return compare(self.config.stash[AGAINST], _begun(self.config, complete, self.records.values()), asked)
