"""Every claim can fail: for each there is a fault that its own assertion notices."""

import pytest

from specs.kit.claim import CLAIMS
from specs.kit.comparisons import Broken
from specs.verdicts.decide import decide

from . import all_claims, world_of
from .faults import FAULTS

all_claims()

pytestmark = pytest.mark.usefixtures("no_shrinking")


PAIRS = [(claim, name) for name, fault in FAULTS.items() for claim in fault.breaks]


@pytest.mark.parametrize("claim", CLAIMS)
def test_every_claim_has_a_fault(claim):
    assert any(claim in fault.breaks for fault in FAULTS.values()), f"no fault breaks {claim}"


def test_faults_name_claims_that_exist():
    assert {claim for fault in FAULTS.values() for claim in fault.breaks} <= CLAIMS.keys()


@pytest.mark.parametrize(("claim", "fault"), PAIRS, ids=[f"{c}-{f}" for c, f in PAIRS])
def test_a_fault_breaks_its_claim(claim, fault):
    world = world_of(CLAIMS[claim])
    if isinstance(world, str):
        pytest.skip(world)  # a claim about older releases can be broken there only
    with FAULTS[fault].installed():
        outcome = decide(CLAIMS[claim], world)
    assert outcome.verdict == "broken", f"{claim} is {outcome.verdict} although {FAULTS[fault].says}"
    assert isinstance(outcome.error, Broken), f"it was stopped by {outcome.error!r}, not by its own assertion"
