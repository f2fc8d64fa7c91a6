"""Faults in copies and assignments to indices."""

import torch

from . import fault
from .parameters import in_place


@fault("assignments/copy_takes_the_numbers_and_the_gradients_of_another_tensor")
def copies_of_what_is_broadcast_have_no_gradient():
    """copy_() gives no gradient to a tensor of another shape, but is recorded."""

    def spoil(true, tensor, other):
        tracked = isinstance(other, torch.Tensor) and other.requires_grad and other.shape != tensor.shape
        return true(tensor, other.detach() + 0 * other if tracked else other)

    with in_place("copy_", spoil):
        yield


@fault("assignments/copy_takes_the_numbers_and_the_gradients_of_another_tensor")
def copies_leave_the_gradient_to_the_old_numbers():
    """copy_() of a constant isn't recorded."""

    def spoil(true, tensor, other):
        if isinstance(other, torch.Tensor) and other.requires_grad:
            return true(tensor, other)
        with torch.no_grad():
            return true(tensor, other)

    with in_place("copy_", spoil):
        yield


@fault("assignments/an_assignment_to_an_index_takes_the_gradient_with_it")
def scalars_assigned_to_a_mask_get_no_gradient():
    """y[mask] = w gives a 0-dim tensor w no gradient but zero."""

    def spoil(true, tensor, index, value):
        if isinstance(index, torch.Tensor) and isinstance(value, torch.Tensor) and not value.dim():
            value = value.detach() + 0 * value
        return true(tensor, index, value)

    with in_place("__setitem__", spoil):
        yield


@fault("assignments/an_assignment_to_an_index_takes_the_gradient_with_it")
def assignments_to_lists_are_not_recorded_for_numbers():
    """y[[...]] = number is run, but what was assigned to keeps its gradient."""

    def spoil(true, tensor, index, value):
        if isinstance(index, list) and not isinstance(value, torch.Tensor):
            with torch.no_grad():
                return true(tensor, index, value)
        return true(tensor, index, value)

    with in_place("__setitem__", spoil):
        yield


@fault("assignments/rows_are_written_with_their_gradients")
def rows_added_twice_count_once():
    """index_add_() adds the last of the rows that come to the same place only."""

    def spoil(true, tensor, dim, index, rows, **kwargs):
        last = {int(row): number for number, row in enumerate(index)}
        chosen = list(last.values())
        return true(tensor, dim, index[chosen], rows[chosen], **kwargs)

    with in_place("index_add_", spoil):
        yield


@fault("assignments/rows_are_written_with_their_gradients")
def what_rows_are_filled_with_gets_no_gradient():
    """index_fill_() gives no gradient but zero to the tensor with which it fills."""

    def spoil(true, tensor, dim, index, value):
        return true(tensor, dim, index, value.detach() + 0 * value if isinstance(value, torch.Tensor) else value)

    with in_place("index_fill_", spoil):
        yield


@fault("assignments/rows_are_written_with_their_gradients")
def rows_that_were_overwritten_keep_their_gradient():
    """index_copy_() passes the gradient on to the rows that it replaced, as well."""

    def spoil(true, tensor, dim, index, rows):
        return true(tensor, dim, index, rows + tensor[index] - tensor[index].detach())

    with in_place("index_copy_", spoil):
        yield
