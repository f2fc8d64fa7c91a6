"""The kit's comparisons in the short form that a counterexample's script carries along."""

import contextlib
import warnings

import torch


def same(got, expected, why):
    if isinstance(expected, (list, tuple)):
        assert len(got) == len(expected), f"{why}: expected {expected}, came {got}"
        for one, other in zip(got, expected, strict=True):
            same(one, other, why)
        return
    if isinstance(got, torch.Tensor) and isinstance(expected, torch.Tensor):
        equal = (got.dtype, got.device) == (expected.dtype, expected.device) and torch.equal(got, expected)
    else:
        equal = type(got) is type(expected) and got == expected
    assert equal, f"{why}: expected {expected}, came {got}"


@contextlib.contextmanager
def raises(error, *telling, why):
    try:
        yield
    except AssertionError:
        raise
    except Exception as caught:
        fits = isinstance(caught, error) and (not telling or any(part in str(caught) for part in telling))
        assert fits, f"{why}: expected {error.__name__}, came {caught!r}"
    else:
        raise AssertionError(f"{why}: expected {error.__name__}, came no error")


@contextlib.contextmanager
def warns(category, telling, why):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    assert any(issubclass(w.category, category) and telling in str(w.message) for w in caught), why


@contextlib.contextmanager
def silent(why):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    assert not caught, f"{why}: came {caught[0].message}"
