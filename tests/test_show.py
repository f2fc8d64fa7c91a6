"""`python -m specs show` prints what can be run, and says what it can't find."""

import subprocess
import sys

import pytest

from specs.verdicts.pages import ROOT


def show(*arguments):
    command = [sys.executable, "-m", "specs", "show", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize(
    "claim",
    [
        "accumulation/backward_adds_to_the_grad_of_a_leaf",
        "programs/every_tensor_has_the_numbers_of_its_definition",
        "hooks/a_view_whose_memory_was_written_takes_a_hook",  # which is a crash on some releases
    ],
)
def test_what_is_printed_can_be_run(claim, tmp_path):
    shown = show(claim)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("# ")
    assert subprocess.run([sys.executable, "-"], input=shown.stdout, text=True, cwd=tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "telling"),
    [
        (["accumulation/backward_adds_to_grad"], "is it accumulation/backward_adds_to"),
        (["nothing/at_all"], "there is no claim nothing/at_all"),
        (["accumulation/backward_adds_to_the_grad_of_a_leaf", "--device", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_shown_is_told_in_one_sentence(arguments, telling):
    shown = show(*arguments)
    assert shown.returncode == 2
    assert telling in shown.stderr
    assert shown.stderr.count("\n") == 1
