"""Faults in which writes are refused, or noticed."""

import torch

from . import fault, patched
from .views_in_place import unrecorded


@fault("refused_view_writes/one_of_several_views_takes_no_write")
def a_single_chunk_takes_a_write():
    """chunk() into one gives a view like any other."""
    with patched(torch.Tensor, "chunk", lambda true: lambda x, n, dim=0: (x[...],) if n == 1 else true(x, n, dim)):
        yield


@fault("refused_view_writes/one_of_several_views_takes_no_write")
def a_view_of_one_of_several_takes_a_write():
    """A write in place to what an index of ... shows goes by another view of the base."""

    def make(true):
        def getitem(x, index):
            base = x._base
            same_type = base is not None and base.dtype == x.dtype and not base.is_leaf
            if index is ... and same_type and torch.is_grad_enabled():
                return base.as_strided(x.shape, x.stride(), x.storage_offset())
            return true(x, index)

        return getitem

    with patched(torch.Tensor, "__getitem__", make):
        yield


@fault("refused_view_writes/a_view_that_was_not_recorded_takes_no_write_that_is")
def a_view_of_a_result_without_a_record_is_zeroed():
    """zero_() is not recorded for views that have no grad_fn, and so not refused."""

    def when(x):
        return x._is_view() and x._version == 0 and x.grad_fn is None

    with unrecorded("zero_", "relu_", when=when):
        yield


@fault("refused_view_writes/a_view_that_was_not_recorded_takes_no_write_that_is")
def a_refused_write_is_done():
    """copy_() writes the numbers before it raises an error."""

    def make(true):
        def copy_(x, source):
            try:
                return true(x, source)
            except RuntimeError:
                true(x.data, source.detach())
                raise

        return copy_

    with patched(torch.Tensor, "copy_", make):
        yield


@fault("refused_view_writes/a_recorded_view_of_a_view_that_was_not_recorded_takes_no_write")
def a_view_of_an_unrecorded_view_is_written():
    """relu_() of a view that has a grad_fn but passes nothing on to its base is not recorded, and so not refused."""

    def when(x):
        return x._is_view() and x.grad_fn is not None and x._base.grad_fn is not None

    with unrecorded("relu_", when=when):
        yield


@fault("refused_view_writes/after_a_write_a_view_without_a_record_can_not_be_used")
def a_view_without_a_history_has_none():
    """grad_fn is None for a view whose history is lost."""
    true = torch._C._TensorBase.grad_fn

    def get(x):
        try:
            return true.__get__(x)
        except RuntimeError:
            return None

    with patched(torch.Tensor, "grad_fn", lambda _: property(get)):
        yield


@fault("refused_view_writes/after_a_write_a_view_without_a_record_can_not_be_used")
def a_view_of_a_lost_view_can_be_taken():
    """An index of ... gives a detached tensor of a view whose history is lost."""

    def make(true):
        def getitem(x, index):
            try:
                return true(x, index)
            except RuntimeError:
                return x.detach()

        return getitem

    with patched(torch.Tensor, "__getitem__", make):
        yield


@fault("refused_view_writes/a_view_from_a_custom_function_takes_no_write")
def what_a_function_returns_is_written_without_a_record():
    """A write by relu_() that is refused is done without a record."""

    def make(true):
        def relu_(x):
            try:
                return true(x)
            except RuntimeError:
                return torch.no_grad()(true)(x)

        return relu_

    with patched(torch.Tensor, "relu_", make):
        yield


@fault("refused_view_writes/a_view_from_a_custom_function_takes_no_write")
def what_a_function_returns_as_it_is_is_no_view():
    """A Function that returns its input gives a copy."""

    with patched(torch.autograd.Function, "apply", lambda true: classmethod(lambda cls, *args: _copied(cls, args))):
        yield


def _copied(cls, args):
    given = super(torch.autograd.Function, cls).apply(*args)
    return given.clone() if isinstance(given, torch.Tensor) else tuple(part.clone() for part in given)


@fault("refused_view_writes/elements_in_one_place_take_no_numbers_of_their_own")
def an_expanded_tensor_is_written_once():
    """pow_() of an expanded tensor is done to each place once."""

    def make(true):
        def pow_(x, exponent):
            for dim, stride in enumerate(x.stride()):
                if stride == 0 and x.size(dim) > 1:
                    return x.narrow(dim, 0, 1).pow_(exponent)
            return true(x, exponent)

        return pow_

    with patched(torch.Tensor, "pow_", make):
        yield


@fault("refused_view_writes/elements_in_one_place_take_no_numbers_of_their_own")
def a_refused_sum_is_done():
    """cumsum_() changes an expanded tensor before it raises the error."""

    def make(true):
        def cumsum_(x, dim):
            if 0 in x.stride():
                x.data.fill_(1)
            return true(x, dim)

        return cumsum_

    with patched(torch.Tensor, "cumsum_", make):
        yield


@fault("refused_view_writes/elements_in_one_place_can_be_set_to_one_number")
def an_expanded_tensor_is_not_filled():
    """fill_() of a tensor whose last dimension is expanded does nothing."""
    with patched(
        torch.Tensor,
        "fill_",
        lambda true: lambda x, number: x if x.dim() and x.stride(-1) == 0 else true(x, number),
    ):
        yield


@fault("refused_view_writes/a_tensor_can_be_written_from_itself_unless_parts_overlap")
def a_copy_from_an_overlapping_part_is_made_of_a_clone():
    """copy_() reads all elements before it writes any."""
    with patched(torch.Tensor, "copy_", lambda true: lambda x, source: true(x, source.clone())):
        yield


@fault("refused_view_writes/a_tensor_can_be_written_from_itself_unless_parts_overlap")
def what_is_copied_from_the_same_tensor_gets_no_gradient():
    """copy_() from a part of the same tensor passes no gradient on."""

    def make(true):
        def copy_(x, source):
            return true(x, source.detach() if source._is_view() and source._base is x._base else source)

        return copy_

    with patched(torch.Tensor, "copy_", make):
        yield


@fault("refused_view_writes/a_write_anywhere_in_the_memory_of_a_saved_view_is_noticed")
def writes_to_detached_tensors_are_not_noticed():
    """detach() gives a tensor with a version of its own."""
    with patched(torch.Tensor, "detach", lambda true: lambda x: x.data):
        yield


@fault("refused_view_writes/a_write_anywhere_in_the_memory_of_a_saved_view_is_noticed")
def a_write_of_nothing_is_not_noticed():
    """fill_() of a tensor without elements does nothing."""
    with patched(torch.Tensor, "fill_", lambda true: lambda x, number: true(x, number) if x.numel() else x):
        yield


@fault("refused_view_writes/unsafe_parts_can_be_written_as_if_they_were_copies")
def unsafe_parts_are_views():
    """unsafe_split() and unsafe_chunk() of a tensor give what split() and chunk() give."""
    with (
        patched(torch.Tensor, "unsafe_split", lambda true: torch.Tensor.split),
        patched(torch.Tensor, "unsafe_chunk", lambda true: torch.Tensor.chunk),
    ):
        yield


@fault("refused_view_writes/unsafe_parts_can_be_written_as_if_they_were_copies")
def the_second_unsafe_part_passes_no_gradient_on():
    """Of what torch.unsafe_chunk() gives only the first part passes a gradient on."""

    def make(true):
        def unsafe_chunk(x, *args):
            first, *others = true(x, *args)
            for part in others:
                part.register_hook(lambda gradient: None if gradient is None else gradient * 0)
            return first, *others

        return unsafe_chunk

    with patched(torch, "unsafe_chunk", make):
        yield
