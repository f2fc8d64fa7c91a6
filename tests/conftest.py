"""Fixtures of the suite's own tests."""

import pytest


@pytest.fixture(scope="module")
def no_shrinking():
    """Decide claims with the examples of the gate, and leave the first counterexample as it is found."""
    from specs.verdicts import profiles

    profiles.load("gate", shrink=False)
    yield
    profiles.load("gate")
