"""What a user sees: runs of pytest over small chapters, with good and with bad input."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from specs.verdicts.ledger import SCHEMA

ROOT = Path(__file__).parents[1]
HEAD = '''
"""A sample."""

import os

import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from .kit import claim, raises, same, values

CITED = ["article/accumulates-into-dot-grad"]
'''
HOLDS = '''
@claim(cites=CITED)
@given(v=values())
def spec_it_holds(world, v):
    """A sum is differentiable."""
    x = world.leaf(v)
    x.sum().backward()
    same(x.grad, torch.ones_like(x), why="each element counts once")
'''
BROKEN = '''
FACTOR = {"three": 3}


def scaled(x, name):
    """x times the factor."""
    return x * FACTOR[name]


@claim(cites=CITED)
@given(v=values(), name=st.sampled_from(sorted(FACTOR)))
def spec_it_is_broken(world, v, name):
    """The derivative of three times x is two."""
    x = world.leaf(v)
    # a comment that the script keeps
    scaled(x, name).sum().backward()
    same(x.grad, torch.full_like(x, 2), why="this is wrong")
'''
STOPPED = '''
@claim(cites=CITED)
@given(v=values())
def spec_it_is_stopped(world, v):
    """Backward goes through a tensor that doesn't require grad."""
    world.constant(v).sum().backward()
'''
VACUOUS = '''
@claim(cites=CITED)
@given(n=st.integers(0, 1000))
def spec_it_is_vacuous(world, n):
    """Some number is a thousand."""
    if n > 990:
        same(n > 990, True, why="n is")


@claim(cites=CITED)
@given(n=st.integers(0, 1000))
def spec_it_never_runs(world, n):
    """No number is below zero."""
    assume(n < 0)
'''
UNDECIDED = '''
calls = []


@claim(cites=CITED)
@given(n=st.integers(0, 10))
def spec_it_contradicts_itself(world, n):
    """Every second call is like the first."""
    calls.append(n)
    same(len(calls) % 3 == 0, False, why="it remembers")
'''
NOT_APPLICABLE = '''
@claim(cites=CITED, until="1.0")
def spec_it_is_of_the_past(world):
    """Variables are not tensors."""
'''
OBSERVED = '''
@claim(observed=True)
def spec_it_is_observed(world):
    """One is two."""
    same(1, 2, why="nobody promises it")
'''
CRASHES = '''
@claim(cites=CITED)
def spec_it_crashes(world):
    """The process lives."""
    os._exit(11)
'''


class Checkout:
    """A copy of the suite with a chapter of our own instead of the real ones."""

    def __init__(self, folder: Path):
        self.folder = folder
        for name in ("kit", "verdicts", "documents", "tape"):
            shutil.copytree(ROOT / "specs" / name, folder / "specs" / name)
        for name in ("specs/__init__.py", "conftest.py", "tox.ini"):
            shutil.copy(ROOT / name, folder / name)

    def run(self, *claims: str, options: tuple[str, ...] = (), path: Path | None = None):
        """Run pytest over a chapter of these claims; `path` goes first when Python looks for modules."""
        (self.folder / "specs" / "sample.py").write_text(HEAD + "\n".join(claims))
        environment = os.environ | {"PYTHONPATH": str(path) if path else ""}
        environment.pop("PYTEST_XDIST_WORKER", None)
        return subprocess.run(
            [sys.executable, "-m", "pytest", *options],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def ledger(self, *claims: str, options: tuple[str, ...] = ()):
        """The exit code and the ledger of such a run, checked against the schema."""
        path = self.folder / "ledger.json"
        done = self.run(*claims, options=("--device", "cpu", "--ledger", str(path), *options))
        ledger = json.loads(path.read_text())
        jsonschema.validate(ledger, json.loads(SCHEMA.read_text()))
        return done, ledger


@pytest.fixture
def checkout(tmp_path):
    """A checkout of the suite that a test may change."""
    return Checkout(tmp_path)


def verdicts(ledger):
    return {record["claim"].partition("/")[2]: record["verdict"] for record in ledger["verdicts"]}


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A run over claims of every kind."""
    checkout = Checkout(tmp_path_factory.mktemp("checkout"))
    return checkout.ledger(HOLDS, BROKEN, STOPPED, VACUOUS, UNDECIDED, NOT_APPLICABLE, OBSERVED)


def test_every_verdict_comes_out(full):
    done, ledger = full
    assert done.returncode == 1
    assert verdicts(ledger) == {
        "it_holds": "holds",
        "it_is_broken": "broken",
        "it_is_stopped": "broken",
        "it_is_vacuous": "vacuous",
        "it_never_runs": "vacuous",
        "it_contradicts_itself": "undecided",
        "it_is_of_the_past": "not applicable",
        "it_is_observed": "broken",
    }


def test_the_ledger_tells_of_environment_devices_and_examples(full):
    import torch

    _, ledger = full
    assert ledger["environment"]["torch"] == torch.__version__
    assert list(ledger["devices"]) == ["cpu"]
    assert ledger["complete"]
    holds = next(record for record in ledger["verdicts"] if record["verdict"] == "holds")
    assert holds["examples"] == 100
    assert 75 <= holds["exercised"] < 100  # some tensors are empty


def test_the_summary_begins_with_what_is_broken_and_counts(full):
    done, _ = full
    summary = done.stdout.partition("= autograd on torch")[2]
    assert summary.index("BROKEN sample/it_is_broken") < summary.index("VACUOUS sample/it_is_vacuous")
    assert "The derivative of three times x is two." in summary
    assert "because   this is wrong" in summary
    assert "came      RuntimeError: element 0 of tensors does not require grad" in summary
    assert "1 of 8 claims hold, 3 broken, 1 undecided, 2 vacuous, 1 not applicable" in summary
    assert "1 not applicable: the claim is made before 1.0" in summary
    assert "Traceback" not in done.stdout


def test_a_script_shows_the_counterexample_by_itself(full, tmp_path):
    _, ledger = full
    record = next(record for record in ledger["verdicts"] if record["claim"] == "sample/it_is_broken")
    assert "# a comment that the script keeps" in record["script"]
    (tmp_path / "script.py").write_text(record["script"])
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "AssertionError: this is wrong" in done.stderr


def test_an_observed_claim_does_not_fail_a_run(checkout):
    done, ledger = checkout.ledger(HOLDS, OBSERVED)
    assert done.returncode == 0
    assert verdicts(ledger)["it_is_observed"] == "broken"
    assert "observed, not promised" in done.stdout


def test_an_observed_claim_fails_a_run_that_asks_for_it(checkout):
    done, ledger = checkout.ledger(HOLDS, OBSERVED, options=("--observed",))
    assert done.returncode == 1
    assert verdicts(ledger)["it_is_observed"] == "broken"


def test_a_crash_costs_one_verdict_and_not_the_run(checkout):
    done, ledger = checkout.ledger(HOLDS, CRASHES, options=("-n", "1"))
    assert done.returncode == 1
    assert verdicts(ledger) == {"it_holds": "holds", "it_crashes": "undecided"}


def test_workers_and_runs_give_the_same_ledger(checkout):
    claims = (HOLDS, BROKEN, STOPPED, VACUOUS, NOT_APPLICABLE, OBSERVED)
    ledgers = []
    for options in ((), (), ("-n", "2")):
        _, ledger = checkout.ledger(*claims, options=options)
        for record in ledger["verdicts"]:
            del record["seconds"]
        ledgers.append(ledger)
    assert ledgers[0] == ledgers[1] == ledgers[2]


def test_profiles_and_seeds_choose_the_examples(checkout):
    quick = checkout.ledger(HOLDS, options=("--profile", "quick"))[1]["verdicts"][0]
    other = checkout.ledger(HOLDS, options=("--profile", "quick", "--example-seed", "7"))[1]
    assert quick["examples"] == 25
    assert other["example_seed"] == 7


def test_devices_that_are_absent_are_named(checkout):
    import torch

    done = checkout.run(HOLDS)
    if not torch.cuda.is_available():
        assert "cuda  not run: no CUDA device" in done.stdout
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("options", "telling"),
    [
        (["--device", "quantum"], "'quantum' names no device"),
        (["--device", "meta"], "no usable device 'meta'"),
        (["--require-device", "quantum"], "'quantum' names no device"),
        (["--ledger", "no/such/folder/ledger.json"], "can't be written to"),
        (["--ledger", "."], "it is a directory"),
        (["--resume"], "needs --ledger"),
        (["--against", "tox.ini"], "isn't JSON"),
        (["--against", "nothing.json"], "can't be read"),
        (["--import", "no_such_module"], "no_such_module"),
        (["--import", "broken_module"], "broken_module: ZeroDivisionError"),
        (["--profile", "slow"], "invalid choice: 'slow'"),
        (["--example-seed", "x"], "invalid int value"),
    ],
)
def test_bad_input_is_told_in_one_sentence(checkout, options, telling):
    (checkout.folder / "broken_module.py").write_text("1 / 0")
    done = checkout.run(HOLDS, options=tuple(options), path=checkout.folder)
    told = done.stdout + done.stderr
    assert done.returncode == 4, told
    assert telling in told
    assert "Traceback" not in told
    assert "it_holds" not in told


@pytest.mark.parametrize("options", [["--require-device", "cuda"], ["--device", "cuda"]])
def test_a_missing_cuda_is_an_error_where_it_is_asked_for(checkout, options):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    done = checkout.run(HOLDS, options=tuple(options))
    assert done.returncode == 4
    assert "no CUDA device" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("claims", "telling"),
    [
        ('@claim(cites=CITED)\ndef spec_x(world):\n    "No full stop"', "sample/x: a claim needs a sentence"),
        ('@claim(cites=["article/nothing"])\ndef spec_x(world):\n    "It is so."', "which no document has"),
        (
            '@claim(cites=CITED)\ndef spec_x(world):\n    "It is so."\n' * 2,
            "sample/x: the id 'sample/x' exists already",
        ),
    ],
)
def test_a_claim_that_cannot_stand_is_told_at_collection(checkout, claims, telling):
    done = checkout.run(claims)
    assert done.returncode == 2
    assert telling in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize(
    ("package", "telling"),
    [
        ("torch", "has no torch: install it"),
        ("hypothesis", "has no hypothesis: install it"),
        (None, "torch 1.12.1 is too old: the claims begin with 1.13.1"),
    ],
)
def test_a_missing_or_old_package_is_told_in_one_sentence(checkout, tmp_path, package, telling):
    before = tmp_path / "before"
    before.mkdir()
    if package:
        (before / "sitecustomize.py").write_text(
            "import importlib.util\n"
            "find = importlib.util.find_spec\n"
            f"importlib.util.find_spec = lambda name, *rest: None if name == {package!r} else find(name, *rest)\n"
        )
    else:
        (before / "torch.py").write_text('__version__ = "1.12.1"')
    done = checkout.run(HOLDS, path=before)
    told = done.stdout + done.stderr
    assert done.returncode == 4, told
    assert telling in told
    assert "Traceback" not in told


def test_a_ledger_that_cannot_be_written_in_the_end_is_told(checkout):
    path = checkout.folder / "folder" / "ledger.json"
    path.parent.mkdir()
    removes = """
@claim(cites=CITED)
def spec_z(world):
    "It is so."
    import shutil
    same(shutil.rmtree("folder"), None, why="it is")
"""
    done = checkout.run(removes, options=("--device", "cpu", "--ledger", str(path)))
    assert done.returncode == 3
    assert "the ledger could not be written to" in done.stdout
    assert "1 of 1 claims hold" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("end", ["raise KeyboardInterrupt", "os.kill(os.getpid(), 9)"])
@pytest.mark.parametrize("older", [False, True])
def test_a_stopped_run_leaves_what_was_decided_and_can_be_resumed(checkout, end, older):
    once = f"""
@claim(cites=CITED)
def spec_z_stops_once(world):
    "It goes on."
    if not os.path.exists("stopped"):
        open("stopped", "w").close()
        {end}
    same(1, 1, why="it went on")
"""
    path = checkout.folder / "ledger.json"
    if older:
        path.write_text("an older ledger")
    options = ("--device", "cpu", "--ledger", str(path))
    assert checkout.run(HOLDS, BROKEN, once, options=options).returncode != 0

    assert path.exists() == older
    left = json.loads(Path(f"{path}.incomplete").read_text())
    jsonschema.validate(left, json.loads(SCHEMA.read_text()))
    assert verdicts(left) == {"it_holds": "holds", "it_is_broken": "broken"}
    assert not left["complete"]

    other = checkout.run(HOLDS, BROKEN, once, options=(*options, "--resume", "--profile", "quick"))
    assert (other.returncode, other.stderr.count("\n")) == (4, 2)
    assert "the run can't go on" in other.stderr
    done = checkout.run(HOLDS, BROKEN, once, options=(*options, "--resume"))
    assert done.returncode == 1, done.stdout
    ledger = json.loads(path.read_text())
    assert ledger["complete"]
    assert verdicts(ledger) == {"it_holds": "holds", "it_is_broken": "broken", "z_stops_once": "holds"}
    assert [r for r in ledger["verdicts"] if "stops" not in r["claim"]] == left["verdicts"]  # decided once
    assert sorted(p.name for p in checkout.folder.glob("ledger*")) == ["ledger.json"]


def test_two_runs_do_not_write_one_ledger(checkout):
    slow = f"""
@claim(cites=CITED)
def spec_it_waits(world):
    "Another run is refused."
    import subprocess
    command = {[sys.executable, "-m", "pytest", "--device", "cpu", "--ledger=ledger.json", "-q"]!r}
    other = subprocess.run(command, capture_output=True, text=True)
    same((other.returncode, "another run is writing" in other.stderr), (4, True), why=other.stdout + other.stderr)
"""
    done, ledger = checkout.ledger(HOLDS, slow)
    assert done.returncode == 0, done.stdout
    assert verdicts(ledger) == {"it_holds": "holds", "it_waits": "holds"}


def test_against_shows_and_fails_only_what_changed(checkout):
    _, ledger = checkout.ledger(HOLDS, BROKEN)
    path, before = checkout.folder / "ledger.json", checkout.folder / "before.json"
    for record in ledger["verdicts"]:
        record.update({"verdict": "broken"} | dict.fromkeys(("reason", "expected", "came", "script"), "?"))
    before.write_text(json.dumps(ledger))
    mended = checkout.run(HOLDS, BROKEN, options=("--device", "cpu", "--against", str(before)))
    assert mended.returncode == 0, mended.stdout
    assert "NEWLY HOLDING  sample/it_holds" in mended.stdout
    assert "sample/it_is_broken" not in mended.stdout
    for record in ledger["verdicts"]:
        record.update(verdict="holds")
    before.write_text(json.dumps(ledger))
    broken = checkout.run(HOLDS, BROKEN, options=("--device", "cpu", "--against", str(before), "-n", "1"))
    assert broken.returncode == 1
    assert "NEWLY BROKEN  sample/it_is_broken" in broken.stdout
    assert "a script that shows it" in broken.stdout
    assert "the article" not in broken.stdout
    assert path.exists()
