"""Faults in version counters."""

import contextlib
import copy

import torch

from . import after_backward, fault, patched, reading
from .parameters import assigning_data, in_place

count = torch.autograd.graph.increment_version


@fault("versions/a_new_tensor_was_never_written")
def clones_inherit_the_version():
    """clone() gives a tensor of the same version."""

    def make(true):
        def clone(tensor, **kwargs):
            made = true(tensor, **kwargs)
            for _ in range(tensor._version):
                count(made)
            return made

        return clone

    with patched(torch.Tensor, "clone", make):
        yield


@fault("versions/a_new_tensor_was_never_written")
def masked_results_were_written_once():
    """masked_fill() fills a copy in place, which counts."""

    def make(true):
        return lambda tensor, mask, value: tensor.clone().masked_fill_(mask, value)

    with patched(torch.Tensor, "masked_fill", make):
        yield


@fault("versions/each_write_counts_once")
def zeroing_nothing_counts_nothing():
    """zero_() of a tensor without elements isn't counted."""
    with in_place("zero_", lambda true, tensor: true(tensor) if tensor.numel() else tensor):
        yield


@fault("versions/each_write_counts_once")
def writes_in_inference_mode_are_not_counted():
    """In inference mode neg_() isn't counted."""

    def spoil(true, tensor):
        true(tensor.data if torch.is_inference_mode_enabled() else tensor)
        return tensor

    with in_place("neg_", spoil):
        yield


@fault("versions/each_write_counts_once")
def what_is_read_counts_too():
    """copy_() raises also the version of the tensor that it copies."""

    def spoil(true, tensor, other):
        if isinstance(other, torch.Tensor):
            count(other)
        return true(tensor, other)

    with in_place("copy_", spoil):
        yield


@fault("versions/each_write_counts_once")
def assignments_count_twice():
    """An assignment to an index counts twice for a tensor of several dimensions."""

    def spoil(true, tensor, index, value):
        true(tensor, index, value)
        if tensor.dim() > 1:
            count(tensor)

    with in_place("__setitem__", spoil):
        yield


@fault("versions/nothing_else_counts")
def freezing_counts():
    """requires_grad_(False) counts as a write."""

    def spoil(true, tensor, flag=True):
        if not flag:
            count(tensor)
        return true(tensor, flag)

    with in_place("requires_grad_", spoil):
        yield


@fault("versions/nothing_else_counts")
def backward_counts_for_leaves():
    """A backward raises the versions of the leaves that it reaches."""
    with after_backward(lambda leaf, _: count(leaf)):
        yield


@fault("versions/all_that_share_memory_count_together", "saved_changes/only_writes_after_the_saving_count")
def views_are_detached_from_the_counter():
    """detach() of a view gives a tensor that counts by itself."""
    with patched(torch.Tensor, "detach", lambda true: lambda t: t.data if t._is_view() else true(t)):
        yield


@fault("versions/all_that_share_memory_count_together")
def views_begin_to_count_when_they_are_taken():
    """A view made by unsqueeze() counts the writes since it was taken."""

    def make(true):
        return lambda tensor, dim: true(tensor.data, dim)

    with patched(torch.Tensor, "unsqueeze", make):
        yield


@fault("versions/a_copy_has_a_counter_of_its_own")
def deep_copies_inherit_the_version():
    """copy.deepcopy() gives a tensor that was written as often as the original."""

    def make(true):
        def deepcopy(x, *args):
            made = true(x, *args)
            for _ in range(x._version if isinstance(x, torch.Tensor) else 0):
                count(made)
            return made

        return deepcopy

    with patched(copy, "deepcopy", make):
        yield


@fault("versions/the_version_is_read_only")
def the_version_can_be_assigned():
    """An assignment to _version is accepted, without an effect."""
    true = torch._C._TensorBase._version
    with patched(torch.Tensor, "_version", lambda _: property(true.__get__, lambda tensor, number: None)):
        yield


@fault("versions/accumulation_counts_as_a_write_of_grad")
def accumulation_is_not_counted():
    """The version of a .grad reads as 0, whatever was added to it."""
    with reading("_version", lambda tensor, version: 0 if tensor.is_leaf and not tensor.requires_grad else version):
        yield


@fault("versions/accumulation_counts_as_a_write_of_grad")
def the_leaf_counts_for_its_grad():
    """A backward raises the version of a leaf that has a .grad already."""
    with after_backward(lambda leaf, before: None if before is None else count(leaf)):
        yield


@fault("versions/increment_version_counts_a_write_that_pytorch_does_not_know_of")
def increments_are_twofold():
    """increment_version() counts two writes."""

    def make(true):
        def increment(tensors):
            true(tensors)
            true(tensors)

        return increment

    with patched(torch.autograd.graph, "increment_version", make):
        yield


@fault("versions/increment_version_counts_a_write_that_pytorch_does_not_know_of")
def increments_of_views_are_lost():
    """increment_version() does nothing for a view."""

    def make(true):
        return lambda t: None if isinstance(t, torch.Tensor) and t._is_view() else true(t)

    with patched(torch.autograd.graph, "increment_version", make):
        yield


@fault("versions/increment_version_takes_several_tensors")
def equal_tensors_are_incremented_once():
    """increment_version() counts once for a tensor that is in the list twice."""

    def make(true):
        def increment(tensors):
            if isinstance(tensors, torch.Tensor) or not hasattr(tensors, "__iter__"):
                return true(tensors)
            return true(list({id(t): t for t in tensors}.values()))

        return increment

    with patched(torch.autograd.graph, "increment_version", make):
        yield


@fault("versions/increment_version_takes_a_single_tensor_only")
def a_list_of_tensors_is_incremented():
    """increment_version() takes a list."""

    def make(true):
        return lambda t: true(t) if isinstance(t, torch.Tensor) else [true(one) for one in t] and None

    with patched(torch.autograd.graph, "increment_version", make):
        yield


@fault("versions/increment_version_passes_over_inference_tensors")
def a_list_with_an_inference_tensor_is_passed_over():
    """increment_version() does nothing at all if one of the tensors is an inference tensor."""

    def make(true):
        def increment(tensors):
            several = [tensors] if isinstance(tensors, torch.Tensor) else list(tensors)
            return None if any(t.is_inference() for t in several) else true(several)

        return increment

    with patched(torch.autograd.graph, "increment_version", make):
        yield


@fault("versions/a_preserved_version_forgets_writes")
def no_version_is_preserved():
    """_unsafe_preserve_version_counter() does nothing."""
    with patched(torch.autograd, "_unsafe_preserve_version_counter", lambda _: contextlib.nullcontext):
        yield


@fault("versions/a_preserved_version_forgets_writes")
def an_exception_loses_the_preserved_version():
    """_unsafe_preserve_version_counter() gives the version back only if the block ends without an exception."""

    def make(true):
        @contextlib.contextmanager
        def preserve(tensors):
            block = true(tensors)
            block.__enter__()
            yield
            block.__exit__(None, None, None)

        return preserve

    with patched(torch.autograd, "_unsafe_preserve_version_counter", make):
        yield


@fault("versions/versions_of_several_tensors_are_preserved")
def the_first_version_is_preserved():
    """Of several tensors _unsafe_preserve_version_counter() preserves the version of the first."""

    def make(true):
        return lambda tensors: true(tensors if isinstance(tensors, torch.Tensor) else tensors[:1])

    with patched(torch.autograd, "_unsafe_preserve_version_counter", make):
        yield


@fault("versions/a_write_through_data_goes_unnoticed")
def the_data_of_results_is_detached():
    """The .data of a result has the counter of the result."""
    with reading("data", lambda tensor, data: data if tensor.is_leaf else tensor.detach()):
        yield


@fault("versions/a_write_through_data_goes_unnoticed")
def data_is_a_copy():
    """What .data gives lies in memory of its own."""
    with reading("data", lambda tensor, data: data.clone()):
        yield


@fault("versions/assigning_data_goes_unnoticed")
def assigning_data_counts():
    """An assignment to .data counts as a write."""

    def spoil(true, tensor, new):
        true(tensor, new)
        count(tensor)

    with assigning_data(spoil):
        yield


@fault("versions/writes_by_a_python_function_go_unnoticed")
def applying_a_function_counts():
    """apply_() counts as a write."""

    def spoil(true, tensor, function):
        true(tensor, function)
        count(tensor)
        return tensor

    with in_place("apply_", spoil):
        yield


@fault("versions/writes_by_a_python_function_go_unnoticed")
def mapping_leaves_of_several_dimensions_is_allowed():
    """map_() isn't refused for a leaf of more than one dimension."""

    def spoil(true, tensor, other, function):
        many = tensor.is_leaf and tensor.dim() > 1
        true(tensor.data if many else tensor, other.detach() if many else other, function)
        return tensor

    with in_place("map_", spoil):
        yield


@fault("versions/a_write_of_an_unsafe_part_goes_unnoticed")
def unsafe_parts_count_for_their_input():
    """unsafe_chunk() gives views that share the counter of the input."""

    def make(true):
        return lambda tensor, count: [part.detach() for part in tensor.chunk(count)]

    with patched(torch, "unsafe_chunk", make):
        yield


@fault("versions/a_write_of_an_unsafe_part_goes_unnoticed")
def unsafe_parts_of_leaves_are_copies():
    """unsafe_split() of a view of a leaf copies."""

    def make(true):
        def split(tensor, *args):
            leaf = tensor._base is not None and tensor._base.is_leaf
            return true(tensor.clone() if leaf else tensor, *args)

        return split

    with patched(torch, "unsafe_split", make):
        yield
