"""A counterexample's script runs by itself: plain PyTorch, nothing of this suite."""

import warnings

import pytest
import torch

from specs.kit.claim import CLAIMS
from specs.verdicts.decide import decide
from specs.verdicts.expectations import takes_down
from specs.verdicts.script import script

from . import all_claims, world_of
from .faults import FAULTS

all_claims()

pytestmark = pytest.mark.usefixtures("no_shrinking")


def run(text: str) -> None:
    assert "specs" not in text.replace("import specs.loopback\n", ""), text  # which brings the device
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(text, "script", "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("claim", CLAIMS)
def test_the_script_of_an_example_that_holds_runs_to_its_end(claim):
    claim, world = CLAIMS[claim], world_of(CLAIMS[claim])
    if isinstance(world, str):
        pytest.skip(world)
    if reason := takes_down(claim, "cpu"):
        pytest.skip(reason)
    run(script(claim, world, decide(claim, world).example))


@pytest.mark.parametrize("fault", FAULTS)
def test_the_script_of_a_counterexample_fails_by_assertion_under_the_fault(fault):
    claim = CLAIMS[FAULTS[fault].breaks[0]]
    world = world_of(claim)
    if isinstance(world, str):
        pytest.skip(world)
    with FAULTS[fault].installed():
        outcome = decide(claim, world)
        with pytest.raises(AssertionError):
            run(outcome.script)
