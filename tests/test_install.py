"""The installed package runs by itself, from any folder, and decides what the checkout decides."""

import json
import subprocess
import sys
import zipfile

import pytest

import specs
from specs.verdicts.pages import ROOT

from . import loopback
from .installed import Environment

OPTIONS = ("--device", "cpu", "--profile", "quick", "-p", "no:cacheprovider", "--ledger")
CLAIM = "programs/every_tensor_has_the_numbers_of_its_definition"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of the suite."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """An environment with the wheel in it, and a project around it whose own settings would stop pytest."""
    environment = Environment(tmp_path_factory.mktemp("installed"))
    environment.install(wheel)
    for folder in (environment.work, environment.work.parent):
        (folder / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
        (folder / "conftest.py").write_text("1 / 0\n")
    return environment


def test_the_wheel_has_all_of_the_specs_and_nothing_else(wheel):
    tracked = subprocess.run(["git", "ls-files", "specs"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    ours = tracked or [str(p.relative_to(ROOT)) for p in (ROOT / "specs").rglob("*.*") if p.suffix != ".pyc"]
    names = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    assert {name.replace("specs/", "autograd_conformance/", 1) for name in ours} <= names
    assert all(name.startswith("autograd_conformance/") for name in names)
    assert wheel.name.startswith(f"autograd_conformance-{specs.VERSION}-")


def test_verdicts_are_those_of_the_checkout(installed, tmp_path):
    before = sorted(installed.packages.rglob("*"))
    chapters = ("accumulation", "programs")
    named = [f"autograd_conformance.{chapter}" for chapter in chapters]
    there = installed.run("autograd-conformance", *OPTIONS, "there.json", "-n", "1", *named)
    assert there.returncode == 0, there.stdout + there.stderr
    assert "warning" not in there.stdout.lower()
    here = tmp_path / "here.json"
    command = [sys.executable, "-m", "pytest", *OPTIONS, str(here), *(f"specs/{chapter}.py" for chapter in chapters)]
    assert subprocess.run(command, cwd=ROOT, capture_output=True).returncode == 0

    ledgers = [json.loads(path.read_text()) for path in (installed.work / "there.json", here)]
    for record in (record for ledger in ledgers for record in ledger["verdicts"]):
        del record["seconds"]
    assert ledgers[0] == ledgers[1]
    assert len(ledgers[0]["verdicts"]) > 20
    after = sorted(installed.packages.rglob("*"))
    assert [p for p in after if p not in before and p.suffix != ".pyc" and p.name != "__pycache__"] == []
    assert not [p for p in after if "pytest" in p.name and "autograd_conformance" in p.parts]


def test_without_a_chapter_all_are_run_and_the_cache_is_here(installed):
    texts = [(ROOT / "specs" / f"{chapter}.py").read_text() for chapter in specs.CHAPTERS]
    number = sum(text.count("\ndef spec_") for text in texts)
    done = installed.run("autograd-conformance", "--device", "cpu", "--profile", "quick", "-k", "adds_to_the_grad_of_a")
    assert "1 of 1 claims hold" in done.stdout, done.stdout + done.stderr
    assert f"1 passed, {number - 1} deselected" in done.stdout
    assert (installed.work / ".pytest_cache").is_dir()


@pytest.mark.skipif(not loopback(), reason="there is no loopback device here")
def test_the_loopback_device_comes_along(installed):
    options = ("--device", "loopback", "-p", "no:cacheprovider", "autograd_conformance.accumulation")
    done = installed.run("autograd-conformance", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "loopback" in done.stdout


def test_examples_and_their_scripts_are_those_of_the_checkout(installed):
    shown = installed.run("autograd-conformance", "show", CLAIM)
    command = [sys.executable, "-m", "specs", "show", CLAIM]
    checkout = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    # Only a checkout has the ledgers that tell where the claim was verified.
    verified = [line for line in checkout.stdout.splitlines() if line.startswith("# cpu: ")]
    assert [line for line in checkout.stdout.splitlines() if line not in verified] == shown.stdout.splitlines()
    assert installed.run("python", "-", stdin=shown.stdout).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code", "telling"),
    [
        (["--against", "nothing.json"], 4, "the ledger nothing.json can't be read"),
        (["compare", "nothing.json", "nothing.json"], 2, "the ledger nothing.json can't be read"),
        (["--help"], 0, "--require-device"),
        (["compare", "--help"], 0, "autograd-conformance compare"),
    ],
)
def test_options_and_commands_are_told_as_in_the_checkout(installed, arguments, code, telling):
    done = installed.run("autograd-conformance", *arguments)
    assert done.returncode == code, done.stdout + done.stderr
    assert telling in done.stdout + done.stderr
    assert "Traceback (most" not in done.stdout + done.stderr
    assert "python -m specs" not in done.stdout
