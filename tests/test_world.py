"""A world probes what its device can do."""

import torch

from specs.kit.values import Values
from specs.kit.world import CAPABILITIES, World


def test_what_the_cpu_lacks_are_other_devices():
    world = World(torch.device("cpu"))
    others = {"device-threads", "accelerator", "second-device", "pinned-memory", "streams"}
    assert {name for name in CAPABILITIES if not world.has(name)} == others


def test_a_device_without_values_has_no_capability_that_needs_them():
    world = World(torch.device("meta"))
    assert [name for name in CAPABILITIES if world.has(name)] == ["callers-thread"]


def test_a_leaf_requires_grad_and_a_constant_does_not():
    world = World(torch.device("cpu"))
    v = Values((2,), (1, 2))
    assert world.leaf(v).requires_grad
    assert world.leaf(v).is_leaf
    assert not world.constant(v).requires_grad


def test_a_dtype_that_the_device_lacks_gives_way_to_float32():
    world = World(torch.device("cpu"))
    world._has["float64"] = False
    assert world.leaf(Values((2,), (1, 2), "float64")).dtype == torch.float32


def test_each_example_starts_from_the_same_state():
    world = World(torch.device("cpu"))
    world.fresh()
    first = torch.rand(3)
    torch.set_grad_enabled(False)
    world.fresh()
    assert torch.is_grad_enabled()
    assert torch.equal(torch.rand(3), first)
