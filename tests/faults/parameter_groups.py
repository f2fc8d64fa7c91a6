"""Faults in the groups of an optimizer, and in what it accepts."""

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from . import fault, patched
from .module_state import converting
from .optimizers import parameters_of, stepping, stepping_without


@contextlib.contextmanager
def adding(spoil: Callable[[Optimizer, Any, Callable[[Any], None]], None]) -> Iterator[None]:
    """Let adding a group to an optimizer do spoil(optimizer, group, what it does truly)."""

    def make(true: Callable[..., None]) -> Callable[..., None]:
        return lambda optimizer, group: spoil(optimizer, group, lambda g: true(optimizer, g))

    with patched(Optimizer, "add_param_group", make):
        yield


@fault("parameter_groups/each_group_is_stepped_with_its_own_options")
def groups_have_the_options_of_the_first():
    """Every group is stepped with the options of the first."""

    def add(optimizer, group, true):
        true(group)
        first = optimizer.param_groups[0]
        optimizer.param_groups[-1].update({k: o for k, o in first.items() if k != "params"})

    with adding(add):
        yield


@fault("parameter_groups/each_group_is_stepped_with_its_own_options")
def a_weight_decay_of_zero_is_the_default():
    """A group whose weight decay is zero has the optimizer's default instead."""

    def add(optimizer, group, true):
        if isinstance(group, dict) and group.get("weight_decay") == 0:
            del group["weight_decay"]
        true(group)

    with adding(add):
        yield


@fault("parameter_groups/each_group_is_stepped_with_its_own_options")
def groups_added_later_are_not_stepped():
    """A step leaves the third group out."""

    with stepping_without(lambda optimizer: [p for group in optimizer.param_groups[2:] for p in group["params"]]):
        yield


@fault("parameter_groups/an_optimizer_refuses_what_cannot_be_optimized")
def results_are_optimized():
    """An optimizer takes any tensor, detached if need be."""

    def add(optimizer, group, true):
        if isinstance(group, dict) and isinstance(group["params"], list):
            tensors = [p if not isinstance(p, torch.Tensor) or p.is_leaf else p.detach() for p in group["params"]]
            group = group | {"params": tensors}
        true(group)

    with adding(add):
        yield


@fault("parameter_groups/an_optimizer_refuses_what_cannot_be_optimized")
def sets_are_optimized():
    """An optimizer takes a set for a list."""

    def add(optimizer, group, true):
        if isinstance(group, dict) and isinstance(group["params"], set):
            group = group | {"params": list(group["params"])}
        true(group)

    with adding(add):
        yield


@fault("parameter_groups/an_optimizer_refuses_what_cannot_be_optimized")
def refused_groups_are_added():
    """add_param_group() raises its error, but the tensors of the refused group are in the last one afterwards."""

    def add(optimizer, group, true):
        try:
            true(group)
        except ValueError:
            if optimizer.param_groups:
                optimizer.param_groups[-1]["params"] += [p for p in group["params"] if p.is_leaf]
            raise

    with adding(add):
        yield


@fault("parameter_groups/a_result_that_retains_its_grad_can_be_optimized")
def steps_of_results_are_recorded():
    """A step of a result is recorded."""

    def step(optimizer, true, closure):
        result = true(closure)
        for p in parameters_of(optimizer):
            if not p.is_leaf:
                with torch.enable_grad():
                    p.mul_(1)
        return result

    with stepping(step):
        yield


@fault("parameter_groups/a_result_that_retains_its_grad_can_be_optimized")
def steps_of_results_detach_them():
    """A step of a result detaches it."""

    def step(optimizer, true, closure):
        result = true(closure)
        for p in parameters_of(optimizer):
            if not p.is_leaf:
                p.detach_().requires_grad_()
        return result

    with stepping(step):
        yield


@fault("parameter_groups/a_parameter_listed_twice_is_stepped_twice")
def duplicates_are_dropped():
    """A parameter that a group lists several times is in it once."""

    def add(optimizer, group, true):
        true(group)
        last = optimizer.param_groups[-1]
        last["params"] = list({id(p): p for p in last["params"]}.values())

    with adding(add):
        yield


@fault("parameter_groups/a_parameter_listed_twice_is_stepped_twice")
def duplicates_are_silent():
    """A parameter that a group lists several times gives no warning."""

    def add(optimizer, group, true):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            true(group)

    with adding(add):
        yield


@fault("parameter_groups/an_optimizer_goes_on_with_a_module_that_was_converted")
def converted_modules_leave_their_optimizer():
    """A conversion puts new parameters, with the .grad of the old ones, in their places."""

    def convert(module, true):
        for name, p in module._parameters.items():
            module._parameters[name] = nn.Parameter(p.detach(), p.requires_grad)
            module._parameters[name].grad = p.grad
        true()

    with converting(convert):
        yield


@fault(
    "parameter_groups/the_state_of_an_optimizer_has_no_graph_and_goes_on",
    "parameter_groups/loading_the_state_of_an_optimizer_copies_it",
)
def loaded_state_begins_anew():
    """load_state_dict() of an optimizer loads zeros."""

    def make(true):
        def load(optimizer, state):
            true(optimizer, state)
            for kept in optimizer.state.values():
                for t in kept.values():
                    if isinstance(t, torch.Tensor):
                        t.zero_()

        return load

    with patched(Optimizer, "load_state_dict", make):
        yield


@fault("parameter_groups/the_state_of_an_optimizer_has_no_graph_and_goes_on")
def state_keeps_the_graph_of_gradients():
    """What an optimizer keeps requires grad if the gradient has a graph."""

    def step(optimizer, true, closure):
        result = true(closure)
        for p, kept in optimizer.state.items():
            for t in kept.values():
                if isinstance(t, torch.Tensor) and p.grad is not None and p.grad.requires_grad and t.is_leaf:
                    t.requires_grad_()
        return result

    with stepping(step):
        yield


@fault("parameter_groups/the_state_of_an_optimizer_has_no_graph_and_goes_on")
def loading_state_freezes_parameters():
    """load_state_dict() of an optimizer under no_grad freezes its parameters."""

    def make(true):
        def load(optimizer, state):
            true(optimizer, state)
            for p in parameters_of(optimizer):
                p.requires_grad_(torch.is_grad_enabled())

        return load

    with patched(Optimizer, "load_state_dict", make):
        yield


@fault("parameter_groups/loading_the_state_of_an_optimizer_shares_it")
def loaded_state_is_copied():
    """load_state_dict() of an optimizer copies the tensors of the state."""

    def make(true):
        return lambda optimizer, state: true(optimizer, copy.deepcopy(state))

    with patched(Optimizer, "load_state_dict", make):
        yield
