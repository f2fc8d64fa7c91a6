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


@contextlib.contextmanager
def summing(function):
    """Let sum() of a tensor that requires grad be `function`, unless it is over one dimension."""

    def make(true):
        def total(tensor, *args):
            return true(tensor, *args) if args or not tensor.requires_grad else function.apply(tensor)

        return total

    with patched(torch.Tensor, "sum", make):
        yield


def unguarded(true, tensor, *args, **kwargs):
    """Run the in-place method where nothing refuses it, and give back the tensor."""
    with torch.no_grad():
        true(tensor, *args, **kwargs)
    return tensor


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


@fault("parameters/a_leaf_can_be_filled_in_place_under_no_grad", "parameters/a_change_of_a_saved_tensor_is_noticed")
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


@fault("parameters/nn_init_fills_a_leaf_in_every_mode")
def init_needs_no_grad():
    """The functions of torch.nn.init fill a leaf in the mode of their caller by way of a new .data."""

    def make(true):
        def constant(tensor, number):
            tensor.data = torch.full_like(tensor.data, number)
            return tensor

        return constant

    with patched(torch.nn.init, "constant_", make):
        yield


@fault("parameters/nn_init_fills_a_leaf_in_every_mode")
def init_leaves_grad_mode_on():
    """After torch.nn.init.uniform_ grad mode is on."""

    def make(true):
        def uniform(*args):
            result = true(*args)
            torch.set_grad_enabled(True)
            return result

        return uniform

    with patched(torch.nn.init, "uniform_", make):
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


@fault(
    "parameters/a_leaf_that_requires_grad_takes_no_change_in_grad_mode",
    "parameters/a_view_of_such_a_leaf_takes_no_change_in_grad_mode",
)
def zero_is_never_refused():
    """zero_() writes a leaf that requires grad in every mode."""
    with in_place("zero_", unguarded):
        yield


@fault("parameters/a_leaf_that_requires_grad_takes_no_change_in_grad_mode")
def changed_leaves_are_free_to_change():
    """In grad mode relu_() is refused for a leaf that no one has changed yet, and for no other."""

    def spoil(true, tensor):
        return unguarded(true, tensor) if tensor._version else true(tensor)

    with in_place("relu_", spoil):
        yield


@fault("parameters/a_leaf_that_requires_grad_takes_no_change_in_grad_mode")
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


@fault("parameters/a_leaf_that_requires_grad_takes_no_change_in_grad_mode")
def dividing_by_an_operator_is_never_refused():
    """In grad mode p /= 2 is run on a leaf that requires grad, too."""
    with in_place("__itruediv__", unguarded):
        yield


@fault("parameters/a_view_of_such_a_leaf_takes_no_change_in_grad_mode")
def views_are_free_to_change():
    """In grad mode a view of a leaf that requires grad can be written by an index."""

    def spoil(true, tensor, index, value):
        return unguarded(true, tensor, index, value) if tensor._is_view() else true(tensor, index, value)

    with in_place("__setitem__", spoil):
        yield


@fault("parameters/a_view_of_such_a_leaf_takes_no_change_in_grad_mode")
def views_can_be_multiplied():
    """In grad mode mul_() of a view of a leaf that requires grad is run without a record."""

    def spoil(true, tensor, other):
        base = tensor._base
        if base is not None and base.is_leaf and base.requires_grad and torch.is_grad_enabled():
            return unguarded(true, tensor, other)
        return true(tensor, other)

    with in_place("mul_", spoil):
        yield


@fault("parameters/random_numbers_are_no_exception")
def random_numbers_are_never_refused():
    """In grad mode normal_() is run on a leaf that requires grad, too."""
    with in_place("normal_", unguarded):
        yield


@fault("parameters/random_numbers_are_no_exception")
def uniform_numbers_are_refused_in_parameters():
    """uniform_() is refused on a Parameter even under no_grad."""

    def spoil(true, tensor, *args):
        if isinstance(tensor, torch.nn.Parameter):
            raise RuntimeError("a leaf Variable that requires grad is being used in an in-place operation.")
        return true(tensor, *args)

    with in_place("uniform_", spoil):
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


@fault("parameters/a_change_of_a_saved_tensor_is_noticed")
def changes_under_no_grad_are_not_counted():
    """With grad mode off fill_() goes through .data, which counts no change."""

    def spoil(true, tensor, number):
        true(tensor if torch.is_grad_enabled() else tensor.data, number)
        return tensor

    with in_place("fill_", spoil):
        yield


@fault("parameters/a_change_of_a_saved_tensor_is_noticed")
def a_backward_that_fails_leaves_zeros():
    """When backward raises, the leaves below that have no .grad get one of zeros."""

    def make(true):
        def backward(tensors, *args, **kwargs):
            try:
                true(tensors, *args, **kwargs)
            except RuntimeError:
                for leaf in leaves_below(tensors):
                    leaf.grad = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
                raise

        return backward

    with patched(torch.autograd, "backward", make):
        yield


@fault("parameters/a_change_of_a_tensor_that_is_not_saved_does_no_harm")
def sums_save_what_they_add_up():
    """The sum over a whole tensor saves the tensor for backward."""

    class Sum(torch.autograd.Function):
        @staticmethod
        def forward(ctx, tensor):
            ctx.save_for_backward(tensor)
            return tensor.detach().sum()

        @staticmethod
        def backward(ctx, cotangent):
            (tensor,) = ctx.saved_tensors
            return cotangent.expand(tensor.shape)

    with summing(Sum):
        yield


@fault("parameters/a_change_of_a_tensor_that_is_not_saved_does_no_harm")
def sums_look_at_the_values_of_today():
    """The sum over a whole tensor gives no gradient to elements that were changed since."""

    class Sum(torch.autograd.Function):
        @staticmethod
        def forward(ctx, tensor):
            ctx.tensor, ctx.values = tensor, tensor.detach().clone()
            return tensor.detach().sum()

        @staticmethod
        def backward(ctx, cotangent):
            return cotangent * (ctx.tensor.detach() == ctx.values)

    with summing(Sum):
        yield


@fault("parameters/a_result_changed_under_no_grad_keeps_its_history")
def filling_a_result_detaches_it():
    """With grad mode off fill_() detaches a result from its graph."""

    def spoil(true, tensor, number):
        true(tensor, number)
        return tensor if torch.is_grad_enabled() or tensor.is_leaf else tensor.detach_()

    with in_place("fill_", spoil):
        yield


@fault("parameters/a_result_changed_under_no_grad_keeps_its_history")
def doubling_a_result_is_recorded():
    """mul_() of a result is recorded in every mode."""

    def spoil(true, tensor, other):
        if tensor.is_leaf:
            return true(tensor, other)
        with torch.enable_grad():
            return true(tensor, other)

    with in_place("mul_", spoil):
        yield
