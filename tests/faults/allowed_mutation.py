"""Faults in how saved tensors are kept where they may be written."""

import contextlib

import torch

from . import fault, patched

graph = torch.autograd.graph


@contextlib.contextmanager
def not_kept(*operations):
    """Let these operations, by the beginnings of their names, write without keeping what was saved."""

    def make(true):
        def dispatch(mode, func, types, args=(), kwargs=None):
            if str(func).startswith(tuple(f"aten.{name}" for name in operations)):
                return func(*args, **(kwargs or {}))
            return true(mode, func, types, args, kwargs)

        return dispatch

    with patched(graph._CloneArgBeforeMutateMode, "__torch_dispatch__", make):
        yield


@fault("allowed_mutation/saved_tensors_may_be_written_where_that_is_allowed")
def what_is_zeroed_or_filled_is_not_kept():
    """zero_() and fill_() don't keep what was saved."""
    with not_kept("zero_", "fill_"):
        yield


@fault("allowed_mutation/saved_tensors_may_be_written_where_that_is_allowed")
def versions_are_not_told_apart():
    """Of several versions of a tensor that were saved all are taken for the first."""

    def make(true):
        return lambda tensor: (id(tensor), tensor.data_ptr(), 0)

    with patched(graph, "_get_tid", make):
        yield


@fault("allowed_mutation/what_a_write_overwrites_may_have_been_saved_where_that_is_allowed")
def what_is_multiplied_is_not_kept():
    """mul_() doesn't keep what was saved."""
    with not_kept("mul_"):
        yield


@fault("allowed_mutation/writes_are_allowed_inside_the_block_only")
def blocks_can_be_nested():
    """A block inside another is nothing."""

    def make(true):
        return lambda: contextlib.nullcontext() if graph._allow_mutation_on_saved_tensors_enabled else true()

    with patched(graph, "allow_mutation_on_saved_tensors", make):
        yield


@fault("allowed_mutation/writes_are_allowed_inside_the_block_only")
def a_block_that_fails_hides_its_exception():
    """An exception that leaves the block is swallowed."""

    def make(true):
        @contextlib.contextmanager
        def block():
            with contextlib.suppress(ArithmeticError), true() as context:
                yield context

        return block

    with patched(graph, "allow_mutation_on_saved_tensors", make):
        yield


@fault("allowed_mutation/writes_are_allowed_inside_the_block_only")
def graphs_made_inside_are_differentiated_outside():
    """A backward outside the block gives nothing instead of its error."""

    def make(true):
        def backward(*args, **kwargs):
            with contextlib.suppress(AssertionError):
                true(*args, **kwargs)

        return backward

    with patched(torch.autograd, "backward", make):
        yield


@fault("allowed_mutation/several_saved_tensors_may_be_written_at_once_where_that_is_allowed")
def what_is_multiplied_at_once_is_not_kept():
    """torch._foreach_mul_() doesn't keep what was saved."""
    with not_kept("_foreach_mul_"):
        yield


@fault("allowed_mutation/a_tensor_in_the_place_of_a_released_one_is_taken_for_it")
def tensors_are_told_apart_by_their_memory_only():
    """Of two tensors with the same memory and the same version one is taken for the other."""
    with patched(graph, "_get_tid", lambda _: lambda tensor: (0, tensor.data_ptr(), tensor._version)):
        yield
