"""The comparisons notice every difference, say what was expected and what came, and count what they prove."""

import warnings

import pytest
import torch

from specs.kit import raises, same, silent, warns
from specs.kit.comparisons import Broken
from specs.kit.examples import watched
from specs.verdicts import standalone

X = torch.tensor([1.0, 2.0])
DIFFERENT = {
    "value": (X, torch.tensor([1.0, 3.0])),
    "dtype": (X, X.double()),
    "shape": (X, X.reshape(1, 2)),
    "device": (X, X.to("meta")),
    "empty shape": (torch.empty(0, 2), torch.empty(2, 0)),
    "none": (None, X),
    "tensor": (X, None),
    "flag": (True, False),
    "number": (1, 2),
    "list": ([X], [X + 1]),
    "length": ([X, X], [X]),
}
ALIKE = {
    "tensor": (X, X.clone()),
    "a leaf and its values": (X.clone().requires_grad_(), X),
    "none": (None, None),
    "flag": (True, True),
    "list": ([X, None, 1], (X.clone(), None, 1)),
}
KITS = {"kit": (same, raises, warns, silent)}
KITS["standalone"] = (standalone.same, standalone.raises, standalone.warns, standalone.silent)


@pytest.fixture(params=KITS)
def verbs(request):
    """The comparisons of the kit, and their short forms, which have to agree with them."""
    return KITS[request.param]


@pytest.mark.parametrize("pair", DIFFERENT.values(), ids=list(DIFFERENT))
def test_same_notices_a_difference(verbs, pair):
    with pytest.raises(AssertionError):
        verbs[0](*pair, why="they differ")


@pytest.mark.parametrize("pair", ALIKE.values(), ids=list(ALIKE))
def test_same_accepts_what_is_the_same(verbs, pair):
    verbs[0](*pair, why="they are alike")


def test_a_message_says_why_what_was_expected_and_what_came():
    with pytest.raises(Broken) as broken:
        same(X, X + 1, why="ones were added")
    assert broken.value.why == "ones were added"
    assert broken.value.expected == "tensor([2.0, 3.0], dtype=torch.float32)"
    assert broken.value.came == "tensor([1.0, 2.0], dtype=torch.float32)"


def test_raises_wants_the_error_and_a_telling_part(verbs):
    _, raises, _, _ = verbs
    with raises(ValueError, "other", "telling", why="it must"):
        raise ValueError("a telling message")
    with pytest.raises(AssertionError, match="no error"), raises(ValueError, why="it must"):
        pass
    with pytest.raises(AssertionError), raises(ValueError, "telling", why="it must"):
        raise ValueError("a message")


def test_raises_takes_another_error_for_broken(verbs):
    _, raises, _, _ = verbs
    with pytest.raises(AssertionError, match="TypeError"), raises(ValueError, why="it must"):
        raise TypeError("no")


def test_warns_wants_the_warning(verbs):
    _, _, warns, silent = verbs
    with warns(UserWarning, "telling", why="it must"):
        warnings.warn("a telling warning", stacklevel=1)
    with pytest.raises(AssertionError), warns(UserWarning, "telling", why="it must"):
        pass
    with pytest.raises(AssertionError), warns(DeprecationWarning, "telling", why="it must"):
        warnings.warn("a telling warning", stacklevel=1)
    with pytest.raises(AssertionError), silent(why="it must"):
        warnings.warn("a warning", stacklevel=1)
    with silent(why="it must"):
        pass


def test_only_what_could_fail_exercises_a_claim():
    with watched() as examples:
        same(torch.empty(0), torch.empty(0), why="they are empty")
        assert examples.comparisons == 0
        same(X, X, why="they have values")
        with raises(ValueError, why="it must"):
            raise ValueError
        assert examples.comparisons == 2
