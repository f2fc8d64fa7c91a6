"""Fuzzing: budgets, shrinking, kinds of difference, and what a user sees."""

import random
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from specs.kit.comparisons import Broken
from specs.kit.drawing import CHUNK, written
from specs.verdicts.fuzz import Finding, Report, kind_of, parse_budget, predictable, program_number, shrink

ROOT = Path(__file__).parents[1]
BREAKS = "import torch\ntrue = torch.Tensor.square\ntorch.Tensor.square = lambda x: true(x) + (x - x.detach())\n"


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("2h", 7200), ("45", 45), ("0.5m", 30)])
def test_budgets_are_times(text, seconds):
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "x", "10 m", "-3s", "0s", "1d", "1e3", "m"])
def test_other_budgets_are_refused_in_a_sentence(text):
    with pytest.raises(ValueError, match="is no time: say how long"):
        parse_budget(text)


def test_programs_shrink_to_what_makes_them_fail():
    """A write behind a view and a backward behind both: four statements, or five where an operation lies between."""

    def fails(program):
        kinds = [content for content in program.contents if content.startswith("statement ")]
        order = [
            kinds.index(f"statement {kind}")
            for kind in ("view", "in place", "backward")
            if f"statement {kind}" in kinds
        ]
        return len(order) == 3 and order == sorted(order)

    sizes = []
    for seed in range(400):
        program = written(random.Random(seed).randbytes(CHUNK * 30))
        if fails(program):
            small = shrink(program, fails)
            assert fails(small)
            assert predictable(small)
            sizes.append(len(small.statements))
    assert len(sizes) >= 20
    assert statistics.median(sizes) <= 6


def test_a_statement_goes_with_all_that_need_it():
    program = written(random.Random(3).randbytes(CHUNK * 40), most=20)
    assert [s.does for s in shrink(program, lambda p: True).statements] in (
        ["leaf"],
        ["enter", "leave"],
        ["set_grad_enabled"],
    )


def broken(why, came, does):
    found = Broken(why, "", came)
    found.does = does
    return found


def test_differences_are_of_one_kind_whatever_tensors_and_numbers_they_show():
    first = broken("gradients of a after b.backward(torch.tensor([1, 2]))", "None", "backward")
    second = broken("gradients of xx after cc.backward(torch.tensor([3]))", "1", "backward")
    assert kind_of(first) == kind_of(second) == "gradients after backward"
    error = "RuntimeError: shape 17"
    assert kind_of(broken("x + y", error, "add")) == kind_of(broken("v + w", "RuntimeError: shape 4", "add"))
    assert kind_of(broken("x + y", error, "add")) != kind_of(broken("x - y", error, "sub"))


def test_the_smallest_program_of_a_kind_is_kept():
    report = Report()
    for lines in (7, 4, 9):
        report.add(Finding("kind", f"program of {lines}", lines, "", ""))
    assert (report.findings["kind"].times, report.findings["kind"].program) == (3, "program of 4")


def test_a_worker_runs_the_same_programs_again():
    assert program_number(0, 1, 17) == program_number(0, 1, 17) != program_number(1, 1, 17)


def pytest_with(tmp_path, *options):
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--device", "cpu", *options]
    findings = ["--findings", str(tmp_path / "findings")] * ("fuzz" in options)
    return subprocess.run(
        [*command, *findings], cwd=ROOT, capture_output=True, text=True, env={"PYTHONPATH": str(tmp_path)}
    )


def test_without_a_fault_it_ends_well_and_tells_what_it_covered(tmp_path):
    run = pytest_with(tmp_path, "--profile", "fuzz", "--budget", "3s", "-n", "2")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "pairs of neighbouring statements" in run.stdout
    assert "no difference between PyTorch and the tape" in run.stdout
    assert not (tmp_path / "findings").exists()


def test_a_fault_is_found_shrunk_and_written_as_a_script_that_shows_it(tmp_path):
    (tmp_path / "broken_backend.py").write_text(BREAKS)
    run = pytest_with(tmp_path, "--profile", "fuzz", "--budget", "3s", "--import", "broken_backend")
    assert run.returncode == 1, run.stdout + run.stderr
    assert run.stdout.count("FOUND gradients after backward") == 1, run.stdout
    scripts = sorted((tmp_path / "findings").glob("gradients*.py"), key=lambda path: len(path.read_text()))
    faulty = scripts[0].read_text().replace("import torch\n", BREAKS, 1)
    shown = subprocess.run([sys.executable, "-c", faulty], capture_output=True, text=True)
    assert "AssertionError" in shown.stderr
    whole = subprocess.run([sys.executable, str(scripts[0])], capture_output=True, text=True)
    assert whole.returncode == 0, whole.stderr


@pytest.mark.parametrize(
    "options",
    [
        ["--profile", "fuzz", "--budget", "soon"],
        ["--profile", "fuzz", "--ledger", "x.json"],
        ["--budget", "3s"],
        ["--profile", "fuzz", "--require-device", "cuda:99"],
        ["--profile", "fuzz", "--import", "no_such_module"],
    ],
)
def test_wrong_options_are_told_in_a_sentence(tmp_path, options):
    run = pytest_with(tmp_path, *options)
    assert run.returncode == 4
    assert "Traceback" not in run.stdout + run.stderr
    assert run.stderr.startswith("ERROR: ")
