"""Faults in what may not be written in place."""

import torch

from . import fault, patched
from .parameters import in_place


def unguarded(true, tensor, *args, **kwargs):
    """Run the in-place method where nothing refuses it, and give back the tensor."""
    with torch.no_grad():
        true(tensor, *args, **kwargs)
    return tensor


@fault(
    "refused_writes/a_leaf_that_requires_grad_takes_no_write_in_grad_mode",
    "refused_writes/a_view_of_such_a_leaf_takes_no_write_in_grad_mode",
)
def zero_is_never_refused():
    """zero_() writes a leaf that requires grad in every mode."""
    with in_place("zero_", unguarded):
        yield


@fault("refused_writes/a_leaf_that_requires_grad_takes_no_write_in_grad_mode")
def changed_leaves_are_free_to_change():
    """In grad mode relu_() is refused for a leaf that no one has changed yet, and for no other."""

    def spoil(true, tensor):
        return unguarded(true, tensor) if tensor._version else true(tensor)

    with in_place("relu_", spoil):
        yield


@fault("refused_writes/a_leaf_that_requires_grad_takes_no_write_in_grad_mode")
def a_refused_change_is_made_all_the_same():
    """neg_() raises its error after it wrote the leaf."""

    def spoil(true, tensor):
        try:
            return true(tensor)
        except RuntimeError:
            true(tensor.data)
            raise

    with in_place("neg_", spoil):
        yield


@fault("refused_writes/a_leaf_that_requires_grad_takes_no_write_in_grad_mode")
def dividing_by_an_operator_is_never_refused():
    """In grad mode p /= 2 is run on a leaf that requires grad, too."""
    with in_place("__itruediv__", unguarded):
        yield


@fault("refused_writes/a_view_of_such_a_leaf_takes_no_write_in_grad_mode")
def views_are_free_to_change():
    """In grad mode a view of a leaf that requires grad can be written by an index."""

    def spoil(true, tensor, index, value):
        return unguarded(true, tensor, index, value) if tensor._is_view() else true(tensor, index, value)

    with in_place("__setitem__", spoil):
        yield


@fault("refused_writes/a_view_of_such_a_leaf_takes_no_write_in_grad_mode")
def views_can_be_multiplied():
    """In grad mode mul_() of a view of a leaf that requires grad is run without a record."""

    def spoil(true, tensor, other):
        base = tensor._base
        if base is not None and base.is_leaf and base.requires_grad and torch.is_grad_enabled():
            return unguarded(true, tensor, other)
        return true(tensor, other)

    with in_place("mul_", spoil):
        yield


@fault("refused_writes/random_numbers_are_no_exception")
def random_numbers_are_never_refused():
    """In grad mode normal_() is run on a leaf that requires grad, too."""
    with in_place("normal_", unguarded):
        yield


@fault("refused_writes/random_numbers_are_no_exception")
def uniform_numbers_are_refused_in_parameters():
    """uniform_() is refused on a Parameter even under no_grad."""

    def spoil(true, tensor, *args):
        if isinstance(tensor, torch.nn.Parameter):
            raise RuntimeError("a leaf Variable that requires grad is being used in an in-place operation.")
        return true(tensor, *args)

    with in_place("uniform_", spoil):
        yield


@fault("refused_writes/a_write_does_not_take_a_larger_shape")
def of_too_many_factors_the_first_is_taken():
    """mul_() by a tensor of more dimensions takes the first part of it."""

    def spoil(true, tensor, other):
        while isinstance(other, torch.Tensor) and other.dim() > tensor.dim():
            other = other[0]
        return true(tensor, other)

    with in_place("mul_", spoil):
        yield


@fault("refused_writes/a_write_does_not_take_a_larger_shape")
def failed_copies_count_as_writes():
    """copy_() raises the version of a tensor also when it fails."""

    def spoil(true, tensor, other):
        try:
            return true(tensor, other)
        except RuntimeError:
            torch.autograd.graph.increment_version(tensor)
            raise

    with in_place("copy_", spoil):
        yield


@fault("refused_writes/arithmetic_in_place_does_not_change_the_dtype")
def floats_are_cut_to_fit_integers():
    """add_() of floats to integers cuts them."""

    def spoil(true, tensor, other, **kwargs):
        fits = tensor.is_floating_point() or tensor.dtype is torch.bool or not isinstance(other, torch.Tensor)
        return true(tensor, other if fits or other.is_complex() else other.detach().to(tensor.dtype), **kwargs)

    with in_place("add_", spoil):
        yield


@fault("refused_writes/arithmetic_in_place_does_not_change_the_dtype")
def refused_quotients_are_zeros():
    """y /= w of integers leaves zeros behind its error."""

    def spoil(true, tensor, other):
        try:
            return true(tensor, other)
        except RuntimeError:
            tensor.zero_()
            raise

    with in_place("__itruediv__", spoil):
        yield


@fault("refused_writes/elements_that_share_a_place_are_not_written")
def relu_leaves_expanded_tensors_alone():
    """relu_() of an expanded tensor does nothing and raises no error."""

    def spoil(true, tensor):
        return tensor if 0 in tensor.stride() else true(tensor)

    with in_place("relu_", spoil):
        yield


@fault("refused_writes/elements_that_share_a_place_are_not_written")
def expanded_tensors_are_negated_before_the_error():
    """neg_() of an expanded tensor negates each place in memory, and then raises its error."""

    def spoil(true, tensor):
        try:
            return true(tensor)
        except RuntimeError:
            if tensor._base is not None:
                true(tensor._base.data)
            raise

    with in_place("neg_", spoil):
        yield


@fault("refused_writes/what_is_read_and_written_at_once_does_not_overlap")
def additions_in_place_read_a_copy():
    """y.add_(w) reads w from a copy if it shares the memory of y."""

    def spoil(true, tensor, other, **kwargs):
        shared = isinstance(other, torch.Tensor) and other._base is not None and other._base is tensor._base
        return true(tensor, other.clone() if shared else other, **kwargs)

    with in_place("add_", spoil):
        yield


@fault("refused_writes/out_arguments_are_refused_where_an_argument_requires_grad")
def exponentials_are_never_refused():
    """torch.exp(x, out=y) is run without a record in grad mode."""

    def make(true):
        def exp(x, out=None):
            return true(x) if out is None else torch.no_grad()(true)(x, out=out)

        return exp

    with patched(torch, "exp", make):
        yield


@fault("refused_writes/out_arguments_are_refused_where_an_argument_requires_grad")
def sums_into_a_tensor_that_requires_grad_forget_it():
    """torch.add(x, number, out=y) makes y a tensor that doesn't require grad, if it is a leaf."""

    def make(true):
        def add(x, other, out=None, **kwargs):
            if out is None:
                return true(x, other, **kwargs)
            result = true(x, other, out=out, **kwargs)
            return result.requires_grad_(False) if result.is_leaf else result

        return add

    with patched(torch, "add", make):
        yield


@fault("refused_writes/what_requires_grad_is_not_resized")
def resizing_to_another_tensor_is_ignored():
    """resize_as_() of a tensor that requires grad does nothing."""
    with in_place("resize_as_", lambda true, tensor, other: tensor if tensor.requires_grad else true(tensor, other)):
        yield


@fault("refused_writes/what_requires_grad_is_not_resized")
def detached_tensors_are_resized_with_their_origin():
    """resize_(0) of what was detached zeroes its memory."""

    def spoil(true, tensor, *sizes):
        if not tensor.requires_grad and sizes == (0,):
            tensor.zero_()
        return true(tensor, *sizes)

    with in_place("resize_", spoil):
        yield
