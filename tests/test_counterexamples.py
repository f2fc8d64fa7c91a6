"""Counterexamples as text: every kind of drawn argument goes there and back, and nothing in a text is run."""

import json
import random

import pytest
import torch

from specs.kit.claim import CLAIMS
from specs.kit.comparisons import Broken
from specs.kit.world import World
from specs.verdicts import profiles
from specs.verdicts.counterexamples import CounterexampleError, from_text, to_text
from specs.verdicts.decide import decide, replay
from specs.verdicts.expectations import takes_down

from . import all_claims
from .faults import FAULTS

all_claims()
WORLD = World(torch.device("cpu"))
VALUES = '{"v": {"Values": [{"tuple": [2]}, {"tuple": [1, 2]}, "float64", "contiguous"]}}'


@pytest.fixture(scope="module")
def texts():
    """By claim what it draws, and the text of that: the last of three examples of every claim."""
    profiles.load("quick", shrink=False, examples=3)
    claims = [c for c in CLAIMS.values() if not (c.why_not_applicable(WORLD) or takes_down(c, "cpu"))]
    examples = {claim.id: decide(claim, WORLD).example for claim in claims}
    profiles.load("gate")
    return {claim: (example, to_text(example)) for claim, example in examples.items()}


def test_what_every_claim_draws_goes_to_text_and_back(texts):
    for claim, (example, text) in texts.items():
        again = from_text(text)
        assert (again, to_text(again)) == (example, text), claim
        assert "\n" not in text
    kinds = (
        "tuple",
        "set",
        "bytes",
        "dtype",
        "Values",
        "Graph",
        "Statement",
        "Operation",
        "Network",
        "Part",
        "Program",
    )
    together = " ".join(text for _, text in texts.values())
    assert [kind for kind in kinds if f'{{"{kind}": ' not in together] == []


@pytest.mark.parametrize(
    "value", [float("inf"), 0.5, 1 + 2j, frozenset([1]), {(1, 2): {"x"}}, b"\0'", "'\"\u2028\ud800"]
)
def test_rare_kinds_go_to_text_and_back(value):
    assert from_text(to_text({"x": [value]})) == {"x": [value]}
    assert repr(from_text(to_text({"x": float("nan")}))) == "{'x': nan}"


def test_a_value_of_an_unknown_kind_is_refused():
    with pytest.raises(CounterexampleError, match="object is no kind"):
        to_text({"x": [object()]})


@pytest.mark.parametrize("fault", list(FAULTS)[::40])
def test_a_counterexample_that_was_read_breaks_the_claim_again(fault):
    claim = CLAIMS[FAULTS[fault].breaks[0]]
    if reason := claim.why_not_applicable(WORLD):
        pytest.skip(reason)
    profiles.load("gate", shrink=False)
    with FAULTS[fault].installed():
        first = decide(claim, WORLD)
        again = replay(claim, WORLD, from_text(to_text(first.example)))
    profiles.load("gate")
    assert isinstance(again.error, Broken)
    assert (again.verdict, again.reason) == ("broken", first.reason)
    assert again.examples == 1
    assert replay(claim, WORLD, from_text(to_text(first.example))).verdict != "broken"


def test_an_example_of_something_else_is_no_counterexample():
    claim = CLAIMS["accumulation/backward_adds_to_the_grad_of_a_leaf"]
    assert replay(claim, WORLD, from_text(VALUES)).verdict == "vacuous"
    assert replay(claim, WORLD, from_text(VALUES) | {"passes": 2}).reason == ""


CALL = "__import__('os')._exit(9)"


@pytest.mark.parametrize(
    "value",
    [
        {"Exception": []},
        {"os.system": ["true"]},
        {"tuple": [], "list": []},
        {"tuple": 3},
        {"dtype": "nn"},
        {"dtype": CALL},
        {"layout": "float64"},
        {"Operation": CALL},
        {"Operation": []},
        {"Values": [{"tuple": [2]}, {"tuple": [1]}, "float64", "contiguous"]},
        {"Values": [{"tuple": [10**9]}, {"tuple": []}, "float64", "contiguous"]},
        {"Values": [{"tuple": [1]}, {"tuple": [CALL]}, "float64", "contiguous"]},
        {"Values": [{"tuple": [1]}, {"tuple": [1]}, CALL, "contiguous"]},
        {"Values": [{"tuple": [1]}, {"tuple": [1]}, "float64", CALL]},
        {"Part": [CALL, "linear", {"tuple": []}]},
        {"Part": ["a", CALL, {"tuple": []}]},
        {"Part": ["a", "linear", {"tuple": [CALL]}]},
        {"Statement": [CALL, {"Operation": "{0} + 1"}, {"tuple": ["a"]}]},
        {"Program": [["leaf", ["a"], [], ["float64", [1], [1], True]], ["requires_grad_", [], ["a"], [CALL]]]},
        {"Program": [["leaf", [CALL], [], ["float64", [1], [1], True]]]},
        {"Program": [["leaf", ["a"], [], ["float64", [1], [1], True]], ["hook", ["h"], ["a"], [CALL]]]},
        {"bytes": "xy"},
        {"set": [[1]]},
        {"dict": [[1]]},
        {"float": []},
    ],
)
def test_what_is_no_counterexample_is_refused(value):
    with pytest.raises(CounterexampleError, match=r"."):
        from_text(json.dumps({"x": value}))


@pytest.mark.parametrize("text", ["", "[]", "1", "{", "[" * 100_000, '{"x":' * 100_000, '{"x": ' + "9" * 9999 + "}"])
def test_text_that_is_not_of_the_form_is_refused(text):
    with pytest.raises(CounterexampleError, match=r"."):
        from_text(text)


def test_a_text_that_was_altered_is_read_or_refused_and_runs_nothing(texts):
    random_ = random.Random(0)
    known = [text for _, text in texts.values() if any(f'"{kind}"' in text for kind in ("Graph", "Network", "Program"))]
    read, refused = 0, []
    for _ in range(1000):
        text = list(random_.choice(known))
        for _ in range(random_.choice([1, 1, 3])):
            at = random_.randrange(len(text))
            text[at : at + random_.choice([0, 1, 20])] = random_.choice(["", "1", "-", '"', "]", "[", "{", "null", "x"])
        try:
            from_text("".join(text))
            read += 1
        except CounterexampleError as error:
            refused.append(str(error))
    assert 0 < read < 1000
    assert not any("\n" in sentence for sentence in refused)
