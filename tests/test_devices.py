"""Devices: the loopback device, a device that the suite knows nothing about, and several of a kind."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from specs.verdicts import devices

from . import loopback

ROOT = Path(__file__).parents[1]
CHEAP = "specs/mode_blocks.py"
needs_loopback = pytest.mark.skipif(not loopback(), reason="there is no loopback device here")


def pytest_run(*options: str, profile: str = "quick", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", f"--profile={profile}", *options],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


# ---- Without a compiler, or with a broken one, there is one sentence, and everything else works.


@pytest.mark.parametrize(
    ("compiler", "telling"),
    [("no-such-compiler", "there is no 'no-such-compiler'"), ("false", "could not be built, as")],
)
def test_a_loopback_device_that_cannot_be_built_is_told_in_a_sentence(tmp_path, compiler, telling):
    hidden = {"CXX": compiler, "TORCH_EXTENSIONS_DIR": str(tmp_path)}
    done = pytest_run("--device", "loopback", CHEAP, **hidden)
    assert done.returncode == 4
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    assert telling in line
    assert "Traceback" not in done.stderr

    done = pytest_run("--require-device", "loopback", CHEAP, **hidden)
    assert done.returncode == 4
    assert "'loopback' is required, but there is no loopback device" in done.stderr

    done = pytest_run("--device", "cpu", "--device", "loopback", CHEAP, **hidden)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "loopback  not run: no loopback device: " in done.stdout


def test_a_failed_build_leaves_its_log_and_nothing_else(tmp_path):
    pytest_run("--device", "loopback", CHEAP, CXX="false", TORCH_EXTENSIONS_DIR=str(tmp_path))
    left = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert left == ["failed.txt"]


def test_a_cache_that_cannot_be_written_is_told_in_a_sentence(tmp_path):
    blocked = tmp_path / "a file"
    blocked.write_text("")
    done = pytest_run("--device", "loopback", CHEAP, TORCH_EXTENSIONS_DIR=str(blocked))
    assert done.returncode == 4
    assert "Traceback" not in done.stderr


# ---- The loopback device is a device like others.


@needs_loopback
def test_both_devices_run_in_one_run_and_see_the_same_examples(tmp_path):
    path = tmp_path / "both.json"
    done = pytest_run("--device", "cpu", "--device", "loopback", f"--ledger={path}", "specs/accumulation.py", "-n", "2")
    assert done.returncode == 0, done.stdout
    ledger = json.loads(path.read_text())
    verdicts = {}
    for record in ledger["verdicts"]:
        verdicts.setdefault(record["claim"], {})[record["device"]] = (record["verdict"], record["examples"])
    assert all(of["cpu"] == of["loopback"] for of in verdicts.values())
    assert ledger["devices"]["loopback"]["name"]


@needs_loopback
def test_a_lacking_capability_is_probed():
    done = pytest_run("--device", "loopback", "specs/sparse_gradients.py")
    assert done.returncode == 0, done.stdout
    assert "not applicable: needs sparse" in done.stdout


@needs_loopback
@pytest.mark.parametrize("lacking", ["float64", "float16,bfloat16,complex64,complex128", "random"])
def test_nothing_fails_on_a_device_that_lacks_what_claims_need(lacking):
    chapters = ["leaves", "grad_dtypes", "hooks", "devices"]
    paths = [f"specs/{chapter}.py" for chapter in chapters]
    done = pytest_run("--device=loopback", "--observed", *paths, AUTOGRAD_LOOPBACK_LACKS=lacking)
    assert done.returncode == 0, done.stdout
    first = lacking.partition(",")[0]
    assert any("not applicable: needs" in line and first in line for line in done.stdout.splitlines())


@needs_loopback
def test_each_worker_takes_its_own_of_several_devices():
    kind = torch.loopback
    before = kind.current_device()
    try:
        seen = []
        for worker in range(3):
            devices.spread(["cpu", "loopback"], worker)
            seen.append(torch.empty(0, device="loopback").device.index)
        assert seen == [0, 1, 0]
        devices.spread(["loopback:0"], 1)
        assert kind.current_device() == 0
    finally:
        kind.set_device(before)


@needs_loopback
@pytest.mark.parametrize("device", ["loopback", "loopback:1"])
def test_show_prints_a_script_that_runs_on_the_device(device):
    command = [sys.executable, "-m", "specs", "show", "accumulation/backward_adds_to_the_grad_of_a_leaf"]
    shown = subprocess.run([*command, "--device", device], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "import specs.loopback\n" in shown.stdout
    assert f"device='{device}'" in shown.stdout
    done = subprocess.run([sys.executable, "-"], cwd=ROOT, input=shown.stdout, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@needs_loopback
def test_random_programs_run_on_it(tmp_path):
    options = ["--budget=3s", "--device=loopback", f"--findings={tmp_path}"]
    done = pytest_run(*options, profile="fuzz")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no difference between PyTorch and the tape" in done.stdout


# ---- A device of someone else's, of which the suite knows the name of a module and nothing else.

DEVIATES = """

_true = torch.Tensor.retain_grad


def _retain_grad(tensor):
    if tensor.device.type != "acme":
        _true(tensor)


torch.Tensor.retain_grad = _retain_grad
"""
EXPECTED = """
[[expectation]]
claim = "intermediates/retain_grad_keeps_the_gradient_of_an_intermediate"
torch = ""
device = "acme"
verdict = "broken"
reason = "retain_grad() does nothing yet"
link = "https://example.org/acme/17"
"""


@pytest.fixture(scope="module")
def acme(tmp_path_factory):
    """A folder with a package for a device named acme, which deviates from what is promised in one thing."""
    folder = tmp_path_factory.mktemp("acme")
    package = shutil.copytree(ROOT / "specs" / "loopback", folder / "torch_acme", ignore=lambda *_: ["__pycache__"])
    source = (package / "__init__.py").read_text()
    (package / "__init__.py").write_text(source.replace('NAME = "loopback"', 'NAME = "acme"') + DEVIATES)
    return folder


def test_acme_is_absent_unless_its_module_is_imported():
    done = pytest_run("--device", "acme", "specs/leaves.py")
    assert done.returncode == 4
    assert "'acme' names no device" in done.stderr
    assert "--import" in done.stderr


@needs_loopback
def test_a_device_of_another_package_is_imported_run_and_reported(acme, tmp_path):
    path = tmp_path / "acme.json"
    options = ["--import", "torch_acme", "--device", "acme", f"--ledger={path}", "-n", "2"]
    done = pytest_run(*options, "specs/leaves.py", "specs/device_threads.py", PYTHONPATH=str(acme))
    assert done.returncode == 0, done.stdout + done.stderr
    ledger = json.loads(path.read_text())
    assert list(ledger["devices"]) == ["acme"]
    assert {record["verdict"] for record in ledger["verdicts"]} == {"holds"}


@needs_loopback
def test_the_deviations_of_a_device_are_expected_by_a_file_of_its_own(acme, tmp_path):
    options = ["--import", "torch_acme", "--device", "acme"]
    chapter, environment = "specs/intermediates.py", {"PYTHONPATH": str(acme)}
    done = pytest_run(*options, chapter, **environment)
    assert done.returncode == 1
    failing = {line.split()[1] for line in done.stdout.splitlines() if line.startswith("BROKEN")}
    assert "import torch_acme\n" in done.stdout.replace("      import", "import")

    path = tmp_path / "acme.toml"
    entries = [EXPECTED.replace(EXPECTED.split('"')[1], claim) for claim in sorted(failing)]
    path.write_text("".join(entries))
    done = pytest_run(*options, "--expectations", str(path), chapter, **environment)
    assert done.returncode == 0, done.stdout
    assert "retain_grad() does nothing yet (https://example.org/acme/17)" in done.stdout

    command = [sys.executable, "-m", "specs", "expectations", "update", *options, "--expectations", str(path)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "counterexample" in path.read_text()
    done = pytest_run(*options, "--expectations", str(path), chapter, **environment)
    assert done.returncode == 0, done.stdout


@needs_loopback
def test_there_is_room_for_one_device_of_this_sort(acme):
    options = ["--import", "torch_acme", "--device", "acme", "--device", "loopback"]
    done = pytest_run(*options, "specs/leaves.py", PYTHONPATH=str(acme))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "loopback  not run: no loopback device: PyTorch has room for one out-of-tree device, and acme" in done.stdout


def test_a_module_that_cannot_be_imported_is_told_in_a_sentence(tmp_path):
    (tmp_path / "torch_broken.py").write_text(textwrap.dedent("raise OSError('libbroken.so: no such file')"))
    for name, telling in (("torch_broken", "libbroken.so"), ("torch_nowhere", "No module named")):
        done = pytest_run("--import", name, "specs/leaves.py", PYTHONPATH=str(tmp_path))
        assert done.returncode == 4
        assert f"--import {name}" in done.stderr
        assert telling in done.stderr
        assert "Traceback" not in done.stderr
