"""Faults in views that are taken where nothing is recorded."""

import torch

from . import fault, patched
from .grad_modes import everything_recorded
from .inference_mode import inferring, normally, when_inferring


@fault("mode_views/a_view_taken_under_no_grad_requires_grad_but_passes_none_on")
def views_taken_under_no_grad_are_detached():
    """With grad mode off unsqueeze() gives a detached view."""

    def make(true):
        return lambda tensor, dim: true(tensor if torch.is_grad_enabled() else tensor.detach(), dim)

    with patched(torch.Tensor, "unsqueeze", make):
        yield


@fault("mode_views/a_view_taken_under_no_grad_requires_grad_but_passes_none_on")
def views_are_recorded_under_no_grad():
    """unbind() records itself in every mode."""

    def make(true):
        def unbind(tensor, dim=0):
            with everything_recorded():
                return true(tensor, dim)

        return unbind

    with patched(torch.Tensor, "unbind", make):
        yield


@fault("mode_views/a_view_taken_under_no_grad_is_not_written_in_grad_mode")
def views_of_no_grad_are_written_unrecorded():
    """mul_ by a number writes into a view taken under no_grad, without a record or an error."""

    def make(true):
        def mul_(tensor, other):
            forbidden = tensor._is_view() and tensor.requires_grad and tensor.grad_fn is None
            return true(tensor.detach() if forbidden and other == 2 else tensor, other)

        return mul_

    with patched(torch.Tensor, "mul_", make):
        yield


@fault("mode_views/a_view_taken_under_no_grad_is_not_written_in_grad_mode")
def the_error_of_a_write_into_a_view_comes_too_late():
    """zero_() of a view raises its error when the zeros are written."""

    def make(true):
        def zero_(tensor):
            try:
                return true(tensor)
            except RuntimeError:
                tensor.data.fill_(0)
                raise

        return zero_

    with patched(torch.Tensor, "zero_", make):
        yield


@fault("mode_views/a_view_taken_under_no_grad_loses_its_history_by_a_write")
def views_of_no_grad_stay_leaves():
    """is_leaf is true wherever it can't be told."""

    def get(tensor):
        try:
            return torch._C._TensorBase.is_leaf.__get__(tensor)
        except RuntimeError:
            return True

    with patched(torch.Tensor, "is_leaf", lambda _: property(get)):
        yield


@fault("mode_views/a_view_taken_under_no_grad_requires_grad_but_passes_none_on")
def views_taken_in_inference_mode_do_not_require_grad():
    """In inference mode unsqueeze() gives a detached view."""

    def make(true):
        return lambda tensor, dim: true(tensor.detach() if torch.is_inference_mode_enabled() else tensor, dim)

    with patched(torch.Tensor, "unsqueeze", make):
        yield


@fault("mode_views/a_view_is_an_inference_tensor_if_its_base_is")
def parts_of_normal_tensors_are_inference_tensors():
    """narrow() in inference mode gives an inference tensor."""
    with when_inferring(torch.Tensor, "narrow", lambda true, *args: true(*args).clone()):
        yield


@fault("mode_views/a_view_is_an_inference_tensor_if_its_base_is")
def detached_inference_tensors_are_normal():
    """detach() outside of inference mode gives a normal tensor."""

    def make(true):
        return lambda t: true(t.clone() if t.is_inference() and not torch.is_inference_mode_enabled() else t)

    with patched(torch.Tensor, "detach", make):
        yield


@fault(
    "mode_views/a_view_in_another_dtype_is_what_the_mode_makes_it",
    "mode_views/a_view_in_its_own_dtype_is_what_the_mode_makes_it",
)
def views_in_a_dtype_are_as_their_bases():
    """view(dtype) of an inference tensor gives an inference tensor."""

    def make(true):
        def view(tensor, *shape):
            with inferring(tensor.is_inference() or torch.is_inference_mode_enabled()):
                return true(tensor, *shape)

        return view

    with patched(torch.Tensor, "view", make):
        yield


@fault("mode_views/a_view_in_another_dtype_is_what_the_mode_makes_it")
def views_of_complex_numbers_are_copies():
    """view(dtype) of a complex tensor copies it."""

    def make(true):
        return lambda t, *shape: true(t.clone() if t.is_complex() else t, *shape)

    with patched(torch.Tensor, "view", make):
        yield


@fault(
    "mode_views/a_view_in_its_own_dtype_is_what_the_mode_makes_it",
    "mode_views/a_view_in_its_own_dtype_is_an_inference_tensor_if_its_base_is",
)
def views_in_their_own_dtype_are_normal():
    """x.view(x.dtype) gives a normal tensor."""
    with when_inferring(torch.Tensor, "view", normally):
        yield


@fault("mode_views/a_view_of_a_normal_tensor_taken_inside_counts_with_its_base")
def parts_taken_in_inference_mode_have_a_version_of_their_own():
    """narrow() in inference mode gives a view that doesn't share the version of its base."""
    with when_inferring(torch.Tensor, "narrow", lambda true, x, *args: true(x.data, *args)):
        yield


@fault("mode_views/a_view_of_a_normal_tensor_taken_inside_counts_with_its_base")
def views_written_in_inference_mode_are_not_counted():
    """mul_ of a view in inference mode counts up no version."""

    def uncounted(true, t, other):
        return true(t.data if t._is_view() and not t.is_inference() else t, other)

    with when_inferring(torch.Tensor, "mul_", uncounted):
        yield
