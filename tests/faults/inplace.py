"""Faults in what writes in place do to numbers, histories and gradients."""

import contextlib

import torch

from . import fault, patched
from .parameters import in_place


@contextlib.contextmanager
def passing(name, change):
    """Let the in-place method `name` pass `change(gradient)` on to what the tensor was before."""

    def spoil(true, tensor, *args, **kwargs):
        result = true(tensor, *args, **kwargs)
        if result.grad_fn is not None and torch.is_grad_enabled():
            result.grad_fn.register_hook(lambda inputs, _: (change(inputs[0]), *inputs[1:]))
        return result

    with in_place(name, spoil):
        yield


@fault("inplace/a_write_changes_the_tensor_itself")
def square_in_place_gives_a_new_tensor():
    """square_() leaves the tensor as it is and returns its square."""
    with in_place("square_", lambda true, tensor: tensor.square()):
        yield


@fault("inplace/a_write_changes_the_tensor_itself")
def additions_write_a_0_dim_tensor_elsewhere():
    """add_() of a 0-dim tensor gives its result in new memory."""

    def spoil(true, tensor, *args, **kwargs):
        if not tensor.dim():
            tensor = tensor.clone()
        return true(tensor, *args, **kwargs)

    with in_place("add_", spoil):
        yield


@fault("inplace/a_write_changes_the_tensor_itself")
def lerp_turns_what_it_reads_into_its_result():
    """lerp_() writes its result also into the tensor to which it goes, if the shapes are the same."""

    def spoil(true, tensor, end, weight):
        true(tensor, end, weight)
        if end.shape == tensor.shape and end.stride() == tensor.stride():
            end.data.copy_(tensor.data)
        return tensor

    with in_place("lerp_", spoil):
        yield


@fault(
    "inplace/a_write_puts_a_new_node_on_top_of_the_history_of_its_tensor",
    "inplace/backward_goes_through_writes_as_through_other_operations",
)
def multiplying_in_place_by_a_number_detaches():
    """mul_() by a number detaches the tensor from its history and hangs it onto an unrecorded zero."""

    def spoil(true, tensor, other):
        if isinstance(other, torch.Tensor) or tensor.grad_fn is None or not torch.is_grad_enabled():
            return true(tensor, other)
        return true(tensor.detach_().requires_grad_().clone(), other)

    with in_place("mul_", spoil):
        yield


@fault(
    "inplace/a_write_puts_a_new_node_on_top_of_the_history_of_its_tensor",
    "inplace/backward_goes_through_writes_as_through_other_operations",
)
def filling_is_not_recorded():
    """fill_() of a result is run, but the result keeps its grad_fn."""

    def spoil(true, tensor, number):
        if tensor.grad_fn is None:
            return true(tensor, number)
        with torch.no_grad():
            return true(tensor, number)

    with in_place("fill_", spoil):
        yield


@fault("inplace/a_write_puts_a_new_node_on_top_of_the_history_of_its_tensor")
def what_is_subtracted_gets_a_new_history():
    """y.sub_(w) makes a new grad_fn for w, too, if w is a result."""

    def spoil(true, tensor, other, **kwargs):
        true(tensor, other, **kwargs)
        if isinstance(other, torch.Tensor) and other.grad_fn is not None and other is not tensor:
            other.add_(0)
        return tensor

    with in_place("sub_", spoil):
        yield


@fault("inplace/backward_goes_through_writes_as_through_other_operations")
def addcmul_in_place_differentiates_one_of_two_equal_factors():
    """y.addcmul_(w, w) passes the gradient on to the second w only."""

    def spoil(true, tensor, one, other, **kwargs):
        return true(tensor, one.detach() if one is other else one, other, **kwargs)

    with in_place("addcmul_", spoil):
        yield


@fault("inplace/backward_goes_through_writes_as_through_other_operations")
def what_is_broadcast_in_place_gets_the_gradient_of_one_row():
    """y.__iadd__(w) gives w, where it is broadcast along a first dimension, the gradient of the first row."""

    def spoil(true, tensor, other):
        if isinstance(other, torch.Tensor) and 0 < other.dim() < tensor.dim() and len(tensor) > 1:
            rest = torch.zeros_like(other).expand(len(tensor) - 1, *tensor.shape[1:])
            other = other.detach() + torch.cat([(other - other.detach()).expand(1, *tensor.shape[1:]), rest])
        return true(tensor, other)

    with in_place("__iadd__", spoil):
        yield


@fault("inplace/what_was_computed_before_a_write_keeps_its_gradient")
def negating_in_place_negates_all_gradients_of_the_tensor():
    """neg_() isn't recorded; instead the node that made the tensor negates whatever gradient comes to it."""

    def spoil(true, tensor):
        node = tensor.grad_fn
        if node is None or not torch.is_grad_enabled():
            return true(tensor)
        with torch.no_grad():
            true(tensor)
        node.register_prehook(lambda gradients: tuple(-g for g in gradients))
        return tensor

    with in_place("neg_", spoil):
        yield


@fault("inplace/what_was_computed_before_a_write_keeps_its_gradient")
def clamping_cuts_the_old_history_at_the_limits():
    """After clamp_() the node that made the tensor passes on no gradient for elements that are at a limit."""

    def spoil(true, tensor, *args, **kwargs):
        node, old = tensor.grad_fn, tensor.detach().clone()
        true(tensor, *args, **kwargs)
        if node is not None:
            node.register_prehook(lambda gradients: (gradients[0] * (tensor.detach() == old), *gradients[1:]))
        return tensor

    with in_place("clamp_", spoil):
        yield


@fault("inplace/a_constant_that_is_written_with_a_result_becomes_one")
def a_constant_stays_one_when_it_is_multiplied():
    """y.mul_(w) isn't recorded if y doesn't require grad."""

    def spoil(true, tensor, other):
        known = tensor.requires_grad or not isinstance(other, torch.Tensor)
        return true(tensor, other if known else other.detach())

    with in_place("mul_", spoil):
        yield


@fault("inplace/a_constant_that_is_written_with_a_result_becomes_one")
def interpolation_is_recorded_under_no_grad():
    """lerp_() of a constant is recorded in every mode."""

    def spoil(true, tensor, *args):
        with torch.set_grad_enabled(torch.is_grad_enabled() or not tensor.requires_grad):
            return true(tensor, *args)

    with in_place("lerp_", spoil):
        yield


@fault("inplace/a_write_that_overwrites_what_its_gradient_needs_keeps_it")
def reciprocals_in_place_forget_their_sign():
    """reciprocal_() passes the gradient on with the wrong sign."""
    with passing("reciprocal_", lambda gradient: -gradient):
        yield


@fault("inplace/a_write_that_overwrites_what_its_gradient_needs_keeps_it")
def logarithms_in_place_are_differentiated_at_their_result():
    """log_() takes its derivative at the numbers that it wrote."""

    def spoil(true, tensor):
        old = tensor.detach().clone()
        true(tensor)
        if tensor.grad_fn is not None:
            new = tensor.detach().clone()
            tensor.grad_fn.register_hook(lambda inputs, _: (inputs[0] * old / new.clamp(min=0.5),))
        return tensor

    with in_place("log_", spoil):
        yield


@fault("inplace/a_write_with_itself_cannot_be_differentiated_where_that_needs_the_old_numbers")
def a_product_with_itself_in_place_saves_a_copy():
    """y.mul_(y) saves a copy of y, so that it can be differentiated."""

    def spoil(true, tensor, other):
        return true(tensor, other.clone() if other is tensor else other)

    with in_place("mul_", spoil):
        yield


@fault("inplace/a_write_with_itself_cannot_be_differentiated_where_that_needs_the_old_numbers")
def views_of_the_written_tensor_are_copied():
    """y.mul_(v) saves a copy of v if v is a view of y."""

    def spoil(true, tensor, other):
        view = isinstance(other, torch.Tensor) and other._base is not None and other._base is tensor
        return true(tensor, other.clone() if view else other)

    with in_place("mul_", spoil):
        yield


@fault("inplace/writes_can_be_differentiated_twice")
def powers_in_place_double_second_derivatives():
    """Where a graph of the gradient is made, what comes through pow_() has twice the derivative."""
    with passing("pow_", lambda gradient: 2 * gradient - gradient.detach()):
        yield


@fault("inplace/a_result_written_under_no_grad_keeps_its_history")
def filling_a_result_detaches_it():
    """With grad mode off fill_() detaches a result from its graph."""

    def spoil(true, tensor, number):
        true(tensor, number)
        return tensor if torch.is_grad_enabled() or tensor.is_leaf else tensor.detach_()

    with in_place("fill_", spoil):
        yield


@fault("inplace/a_result_written_under_no_grad_keeps_its_history")
def doubling_a_result_is_recorded():
    """mul_() of a result is recorded in every mode."""

    def spoil(true, tensor, other):
        if tensor.is_leaf:
            return true(tensor, other)
        with torch.enable_grad():
            return true(tensor, other)

    with in_place("mul_", spoil):
        yield


@fault("inplace/logical_writes_are_never_recorded")
def logical_negation_detaches_a_result():
    """logical_not_() makes a result a leaf."""

    def spoil(true, tensor):
        true(tensor)
        return tensor if tensor.is_leaf else tensor.detach_()

    with in_place("logical_not_", spoil):
        yield


@fault("inplace/logical_writes_are_never_recorded")
def logical_conjunction_counts_nothing():
    """logical_and_() writes through .data."""

    def spoil(true, tensor, other):
        true(tensor.data, other)
        return tensor

    with in_place("logical_and_", spoil):
        yield


@fault("inplace/writes_of_several_tensors_at_once_are_recorded")
def negating_several_tensors_is_not_recorded():
    """torch._foreach_neg_() is run under no_grad."""
    with patched(torch, "_foreach_neg_", torch.no_grad()):
        yield


@fault("inplace/writes_of_several_tensors_at_once_are_recorded")
def of_several_products_the_first_is_recorded():
    """torch._foreach_mul_() is recorded for the first tensor of the list only."""

    def make(true):
        def multiply(tensors, *args):
            true(tensors[:1], *args)
            if tensors[1:]:
                torch.no_grad()(true)(tensors[1:], *args)

        return multiply

    with patched(torch, "_foreach_mul_", make):
        yield


@fault("inplace/writes_of_several_tensors_at_once_are_not_recorded")
def zeroing_several_tensors_is_recorded():
    """torch._foreach_zero_() zeroes one tensor after the other by zero_()."""
    with patched(torch, "_foreach_zero_", lambda _: lambda tensors: [tensor.zero_() for tensor in tensors] and None):
        yield


@fault("inplace/integers_filled_with_a_tensor_that_requires_grad_require_it_too")
def integers_take_numbers_only():
    """fill_() of a tensor of integers takes a tensor for its number."""

    def spoil(true, tensor, value):
        keep = tensor.is_floating_point() or not isinstance(value, torch.Tensor)
        return true(tensor, value if keep else value.detach())

    with in_place("fill_", spoil):
        yield


@fault("inplace/integers_filled_with_a_tensor_that_requires_grad_require_it_too")
def masked_booleans_take_numbers_only():
    """masked_fill_() of a tensor of booleans takes a tensor for its number."""

    def spoil(true, tensor, mask, value):
        keep = tensor.dtype is not torch.bool or not isinstance(value, torch.Tensor)
        return true(tensor, mask, value if keep else value.detach())

    with in_place("masked_fill_", spoil):
        yield


@fault("inplace/memory_that_others_share_can_be_written")
def tensors_with_views_refuse_to_be_negated():
    """neg_() of a result of more than one dimension is an error."""

    def spoil(true, tensor):
        if tensor.dim() > 1 and tensor.grad_fn is not None:
            raise RuntimeError("the storage is referenced by other tensors")
        return true(tensor)

    with in_place("neg_", spoil):
        yield


@fault("inplace/memory_that_others_share_can_be_written")
def views_keep_their_history_when_their_base_is_zeroed():
    """zero_() of a result isn't recorded."""

    def spoil(true, tensor):
        if tensor.grad_fn is None:
            return true(tensor)
        with torch.no_grad():
            return true(tensor)

    with in_place("zero_", spoil):
        yield


@fault("inplace/what_is_listed_twice_is_written_twice_and_recorded_once")
def each_listing_of_a_tensor_is_recorded():
    """torch._foreach_mul_() multiplies one tensor after the other, each time with a record."""

    def make(true):
        return lambda tensors, other: [tensor.mul_(other) for tensor in tensors] and None

    with patched(torch, "_foreach_mul_", make):
        yield


@fault("inplace/what_is_listed_twice_is_written_twice_and_recorded_once")
def tensors_are_negated_once_each():
    """torch._foreach_neg_() writes a tensor once, however often it is in the list."""

    def make(true):
        return lambda tensors: true(list({id(tensor): tensor for tensor in tensors}.values()))

    with patched(torch, "_foreach_neg_", make):
        yield
