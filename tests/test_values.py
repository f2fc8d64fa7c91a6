"""Values are what they say, in PyTorch, as code and on each layout, and the strategies reach every kind."""

import collections
import itertools

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings

from specs.kit import LAYOUTS, SHAPES, SMALL_DTYPES, WRITABLE, values, values_that_broadcast
from specs.kit.values import Values, _layouts


def examples(strategy, count=100):
    """So many examples as a claim in the default profile draws."""
    drawn = []

    @seed(1)
    @settings(
        max_examples=count,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        deadline=None,
    )
    @given(strategy)
    def collect(example):
        drawn.append(example)

    collect()
    return drawn


def every_form():
    for shape, dtype in itertools.product(SHAPES, SMALL_DTYPES):
        for layout in _layouts(shape, LAYOUTS):
            row = max(1, len(torch.empty(shape).flatten()) // (shape[0] if layout == "expanded" else 1))
            numbers = [n % row + 1 for n in range(torch.empty(shape).numel())]
            yield Values(shape, tuple(numbers), dtype, layout)


@pytest.mark.parametrize("v", list(every_form()), ids=lambda v: f"{v.shape}-{v.dtype}-{v.layout}")
def test_a_tensor_has_the_values_shape_dtype_and_layout(v):
    x = v.tensor("cpu")
    assert x.shape == v.shape
    assert x.dtype == getattr(torch, v.dtype)
    assert x.flatten().tolist() == list(v.numbers)
    assert not x.requires_grad
    if v.layout == "contiguous":
        assert x.is_contiguous()
        assert x.storage_offset() == 0
    elif v.layout == "offset":
        assert x.storage_offset() > 0 or x.numel() == 0
    elif v.layout == "expanded":
        assert x.stride(0) == 0
    else:
        assert not x.is_contiguous()


@pytest.mark.parametrize("v", list(every_form()), ids=lambda v: f"{v.shape}-{v.dtype}-{v.layout}")
def test_the_code_makes_the_same_tensor(v):
    x, y = v.tensor("cpu"), eval(v.code("'cpu'"), {"torch": torch})
    assert torch.equal(x, y)
    assert (x.dtype, x.shape, x.stride(), x.storage_offset()) == (y.dtype, y.shape, y.stride(), y.storage_offset())


def test_values_reach_every_kind_of_tensor():
    drawn = examples(values(dtypes=SMALL_DTYPES))
    layouts = collections.Counter(v.layout for v in drawn)
    assert min(layouts[layout] for layout in LAYOUTS) >= 5, layouts
    dtypes = collections.Counter(v.dtype for v in drawn)
    assert min(dtypes[dtype] for dtype in SMALL_DTYPES) >= 10, dtypes
    shapes = [v.shape for v in drawn]
    assert () in shapes
    assert any(0 in shape for shape in shapes)
    assert any(len(shape) > 1 and 1 in shape for shape in shapes)
    assert any(len(shape) == 3 for shape in shapes)
    assert {-4, 0, 4} <= {n for v in drawn for n in v.numbers}


def test_writable_values_have_no_element_twice():
    assert all(0 not in v.tensor("cpu").stride() or 0 in v.shape for v in examples(values(layouts=WRITABLE)))


def test_broadcasting_values_broadcast_and_differ_in_shape():
    pairs = examples(values_that_broadcast(2))
    for v, w in pairs:
        assert v.dtype == w.dtype
        torch.broadcast_shapes(v.shape, w.shape)
    assert sum(v.shape != w.shape for v, w in pairs) >= 30
    assert sum(v.shape == w.shape for v, w in pairs) >= 5
    assert len(examples(values_that_broadcast(3))[0]) == 3
