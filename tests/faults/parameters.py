"""Faults in how parameters are written in place, and in how such changes are noticed."""

import contextlib

import torch

from . import fault, leaves_below, patched, reading


@contextlib.contextmanager
def in_place(name, spoil):
    """Let the in-place method `name` be `spoil(the true method, the tensor, its arguments)`."""

    def make(true):
        return lambda tensor, *args, **kwargs: spoil(true, tensor, *args, **kwargs)

    with patched(torch.Tensor, name, make):
        yield


@fault(
    "parameters/a_leaf_can_be_filled_in_place_under_no_grad",
    "parameters/all_parameters_of_a_module_can_be_filled",
    "parameters/a_part_of_a_leaf_can_be_filled_under_no_grad",
)
def fill_forgets_that_a_leaf_requires_grad():
    """After fill_() under no_grad a leaf doesn't require grad any more."""

    def spoil(true, tensor, *args):
        true(tensor, *args)
        base = tensor if tensor._base is None else tensor._base
        return base.requires_grad_(False) if base.is_leaf and not torch.is_grad_enabled() else tensor

    with in_place("fill_", spoil):
        yield


@fault("parameters/a_leaf_can_be_filled_in_place_under_no_grad")
def zero_clears_the_gradient_too():
    """zero_() also zeroes the .grad of the tensor."""

    def spoil(true, tensor):
        if tensor.is_leaf and tensor.grad is not None:
            true(tensor.grad)
        return true(tensor)

    with in_place("zero_", spoil):
        yield


@fault("parameters/a_leaf_can_be_filled_in_place_under_no_grad")
def filling_drops_the_gradient():
    """copy_() under no_grad sets the .grad of a leaf to None."""

    def spoil(true, tensor, other):
        true(tensor, other)
        if tensor.is_leaf and tensor.grad is not None:
            tensor.grad = None
        return tensor

    with in_place("copy_", spoil):
        yield


@fault(
    "parameters/a_leaf_can_be_filled_in_place_under_no_grad",
    "parameters/a_leaf_that_does_not_require_grad_can_be_filled_in_every_mode",
)
def adding_in_place_moves_the_tensor():
    """add_() puts its result into new memory and leaves the version as it was."""

    def spoil(true, tensor, other, *, alpha=1):
        if torch.is_grad_enabled() and tensor.requires_grad:
            return true(tensor, other, alpha=alpha)
        tensor.data = torch.add(tensor.data, other, alpha=alpha).detach()
        return tensor

    with in_place("add_", spoil):
        yield


@fault("parameters/a_leaf_can_be_filled_in_place_under_no_grad", "saved_changes/a_change_of_a_saved_tensor_is_noticed")
def changes_of_vectors_are_not_counted():
    """mul_() of a tensor of less than two dimensions goes through .data, which counts no change."""

    def spoil(true, tensor, other):
        if tensor.dim() > 1 or torch.is_grad_enabled():
            return true(tensor, other)
        true(tensor.data, other)
        return tensor

    with in_place("mul_", spoil):
        yield


@fault("parameters/a_part_of_a_leaf_can_be_filled_under_no_grad")
def a_write_through_a_view_is_lost():
    """fill_() of a view that isn't contiguous writes a copy."""

    def spoil(true, tensor, number):
        return true(tensor if tensor.is_contiguous() else tensor.clone(), number)

    with in_place("fill_", spoil):
        yield


@fault("parameters/all_parameters_of_a_module_can_be_filled")
def parameters_leaves_out_the_last_one():
    """M.parameters() doesn't reach the last of several parameters."""

    def make(true):
        def parameters(module, recurse=True):
            found = list(true(module, recurse))
            return iter(found[: max(1, len(found) - 1)])

        return parameters

    with patched(torch.nn.Module, "parameters", make):
        yield


@fault("parameters/all_parameters_of_a_module_can_be_filled")
def parameters_of_modules_two_levels_down_are_copies():
    """M.parameters() gives copies of the parameters that lie two levels below the module."""

    def make(true):
        def parameters(module, recurse=True):
            for name, parameter in module.named_parameters(recurse=recurse):
                yield torch.nn.Parameter(parameter.detach().clone()) if name.count(".") > 1 else parameter

        return parameters

    with patched(torch.nn.Module, "parameters", make):
        yield


@fault("parameters/a_forward_after_the_filling_uses_the_new_values")
def the_gradient_remembers_the_old_grad_only():
    """Backward gives a leaf whose values were changed the gradient that it has already."""

    def make(true):
        def backward(tensors, *args, **kwargs):
            before = [(leaf, leaf.grad) for leaf in leaves_below(tensors)]
            before = [(leaf, None if grad is None else grad.clone()) for leaf, grad in before]
            true(tensors, *args, **kwargs)
            with torch.no_grad():
                for leaf, grad in before:
                    if leaf._version and grad is not None:
                        leaf.grad.copy_(grad)

        return backward

    with patched(torch.autograd, "backward", make):
        yield


@fault("parameters/a_forward_after_the_filling_uses_the_new_values")
def products_of_changed_leaves_are_cut_off():
    """A product is detached from its right operand if that is a leaf that was changed twice."""

    def make(true):
        def mul(tensor, other):
            changed = isinstance(other, torch.Tensor) and other.is_leaf and other._version and tensor is not other
            return true(tensor, other * 0 + other.detach() if changed and other.requires_grad else other)

        return mul

    with patched(torch.Tensor, "__mul__", make):
        yield


@fault("parameters/gradient_descent_updates_leaves_in_place", "parameters/a_leaf_can_be_filled_in_place_under_no_grad")
def subtracting_in_place_is_lost_after_the_first_time():
    """sub_() does nothing to a leaf that was changed before."""

    def spoil(true, tensor, other, **kwargs):
        if tensor.is_leaf and tensor.requires_grad and tensor._version and not torch.is_grad_enabled():
            return tensor
        result = true(tensor, other, **kwargs)
        return result.requires_grad_(False) if not isinstance(other, torch.Tensor) and tensor.is_leaf else result

    with in_place("sub_", spoil):
        yield


@fault("parameters/gradient_descent_updates_leaves_in_place")
def updates_take_the_gradient_twice():
    """p -= p.grad subtracts twice."""

    def spoil(true, tensor, other):
        return true(true(tensor, other), other)

    with in_place("__isub__", spoil):
        yield


@fault("parameters/a_leaf_that_does_not_require_grad_can_be_filled_in_every_mode")
def frozen_parameters_are_read_only():
    """fill_() leaves a parameter that doesn't require grad as it is."""

    def spoil(true, tensor, number):
        frozen = isinstance(tensor, torch.nn.Parameter) and not tensor.requires_grad
        return tensor if frozen else true(tensor, number)

    with in_place("fill_", spoil):
        yield


@fault("parameters/a_leaf_can_be_written_through_detach_and_data_in_every_mode")
def detach_copies():
    """detach() gives a copy."""
    with patched(torch.Tensor, "detach", lambda true: lambda tensor: true(tensor).clone()):
        yield


@fault("parameters/a_leaf_can_be_written_through_detach_and_data_in_every_mode")
def data_counts_changes():
    """A change through .data counts up the version, like one through detach()."""
    with reading("data", lambda tensor, _: tensor.detach()):
        yield


@contextlib.contextmanager
def assigning_data(spoil):
    """Let an assignment to p.data be `spoil(what it truly does, p, the tensor assigned)`."""
    true = torch._C._TensorBase.data

    def assign(tensor, new):
        spoil(true.__set__, tensor, new)

    with patched(torch.Tensor, "data", lambda _: property(true.__get__, assign)):
        yield


@fault("parameters/assigning_to_data_swaps_the_memory_of_a_leaf")
def assigning_to_data_copies():
    """p.data = new copies the values of new."""
    with assigning_data(lambda true, tensor, new: true(tensor, new.clone())):
        yield


@fault("parameters/assigning_to_data_swaps_the_memory_of_a_leaf")
def assigning_to_data_clears_grad():
    """p.data = new makes the .grad of p None."""

    def spoil(true, tensor, new):
        true(tensor, new)
        tensor.grad = None

    with assigning_data(spoil):
        yield
