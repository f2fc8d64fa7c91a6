"""The claim decorator: what it records, and what it refuses."""

import importlib
import sys
import types

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from specs.kit.claim import CLAIMS, ClaimError, claim
from specs.kit.world import World

CITED = "article/accumulates-into-dot-grad"


@pytest.fixture(autouse=True)
def chapter(monkeypatch):
    """A chapter of its own for the claims of a test, and a registry that is restored."""
    monkeypatch.setattr(sys.modules["specs.kit.claim"], "CLAIMS", dict(CLAIMS))
    monkeypatch.setitem(sys.modules, "specs.sample", types.ModuleType("specs.sample"))


def declared(name="spec_sample", doc="Something is so.", **options):
    def spec(world):
        pass

    spec.__name__, spec.__doc__, spec.__module__ = name, doc, "specs.sample"
    return claim(**{"cites": [CITED], **options})(spec).claim


def test_the_record_is_made_of_module_function_and_docstring():
    made = declared(doc="Something is so,\n    on two lines.", since="2.0", until="2.3", needs=["float64"])
    assert made.id == "sample/sample"
    assert made.chapter == "sample"
    assert made.sentence == "Something is so, on two lines."
    assert made.standing == "promised"
    assert made.releases == "since 2.0, before 2.3"


@pytest.mark.parametrize(
    ("options", "telling"),
    [
        ({"doc": None}, "needs a sentence"),
        ({"doc": "no full stop"}, "needs a sentence"),
        ({"doc": "It should be so."}, "'should'"),
        ({"doc": "Test that it is so."}, "'test that'"),
        ({"cites": ["article/no-such-statement"]}, "which no document has"),
        ({"cites": []}, "cites the statement that promises it"),
        ({"needs": ["wings"]}, "is none of"),
        ({"since": "two"}, "Invalid version"),
        ({"name": "sample"}, "begins with 'spec_'"),
    ],
)
def test_a_claim_that_cannot_stand_is_refused_in_one_sentence(options, telling):
    with pytest.raises(ClaimError, match=telling) as refused:
        declared(**options)
    assert "\n" not in str(refused.value)


def test_an_id_is_taken_once():
    declared()
    with pytest.raises(ClaimError, match="exists already"):
        declared()


def test_a_former_id_stays_taken():
    declared("spec_new", formerly=["sample/old"])
    with pytest.raises(ClaimError, match="'sample/old' exists already"):
        declared("spec_old")


@pytest.mark.parametrize(
    ("since", "until", "applies"),
    [(None, None, True), ("1.0", None, True), ("99.0", None, False), (None, "1.0", False), (None, "99.0", True)],
)
def test_a_claim_applies_on_its_releases(since, until, applies):
    reason = declared(since=since, until=until).why_not_applicable(World(torch.device("cpu")))
    assert (reason is None) is applies


def test_until_is_exclusive_and_a_nightly_build_counts_as_its_release(monkeypatch):
    made = declared(since="2.1", until="2.3")
    world = World(torch.device("cpu"))
    monkeypatch.setattr(torch, "__version__", "2.3.0a0+git123")
    assert made.why_not_applicable(world) == "the claim is made since 2.1, before 2.3"
    monkeypatch.setattr(torch, "__version__", "2.1.0.dev20230707")
    assert made.why_not_applicable(world) is None


def test_a_missing_capability_is_named(monkeypatch):
    world = World(torch.device("cpu"))
    monkeypatch.setattr(world, "_has", {"float64": False})
    assert declared(needs=["float64", "in-place"]).why_not_applicable(world) == "needs float64"


def test_the_examples_depend_on_the_id_alone(monkeypatch, tmp_path):
    from specs.kit.examples import watched
    from specs.verdicts import profiles
    from specs.verdicts.decide import decide

    drawn = []

    def spec_numbers(world, n):
        """Numbers are drawn."""
        drawn.append(n)

    spec_numbers.__module__ = "specs.sample"
    numbers = st.tuples(*[st.integers(0, 10**9)] * 10)
    made = claim(cites=[CITED])(given(n=numbers)(spec_numbers)).claim
    profiles.load("quick")
    with watched():
        decide(made, World(torch.device("cpu")))
        first, drawn[:] = list(drawn), []
        # Hypothesis mixes the constants of local modules into what it draws; not here.
        monkeypatch.syspath_prepend(tmp_path)
        (tmp_path / "local_module.py").write_text("CONSTANTS = [" + ", ".join(map(str, range(5000, 6000))) + "]")
        importlib.import_module("local_module")
        decide(made, World(torch.device("cpu")))
        again, drawn[:] = list(drawn), []
        decide(made, World(torch.device("cpu")), example_seed=1)
    assert first == again
    assert first != drawn
    profiles.load("gate")
