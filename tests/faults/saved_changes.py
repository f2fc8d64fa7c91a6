"""Faults in how changes of saved tensors are noticed."""

import contextlib

import torch

from . import fault, leaves_below, patched
from .parameters import in_place


@contextlib.contextmanager
def summing(function):
    """Let sum() of a tensor that requires grad be `function`, unless it is over one dimension."""

    def make(true):
        def total(tensor, *args):
            return true(tensor, *args) if args or not tensor.requires_grad else function.apply(tensor)

        return total

    with patched(torch.Tensor, "sum", make):
        yield


@fault("saved_changes/a_change_of_a_saved_tensor_is_noticed")
def changes_under_no_grad_are_not_counted():
    """With grad mode off fill_() goes through .data, which counts no change."""

    def spoil(true, tensor, number):
        true(tensor if torch.is_grad_enabled() else tensor.data, number)
        return tensor

    with in_place("fill_", spoil):
        yield


@fault("saved_changes/a_change_of_a_saved_tensor_is_noticed")
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


@fault("saved_changes/a_change_of_a_tensor_that_is_not_saved_does_no_harm")
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


@fault("saved_changes/a_change_of_a_tensor_that_is_not_saved_does_no_harm")
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


@fault("saved_changes/a_change_of_a_saved_result_is_noticed")
def tanh_gives_a_copy_of_what_it_saved():
    """tanh() returns a copy of the result that it saved, which can be changed."""
    with patched(torch.Tensor, "tanh", lambda true: lambda tensor: true(tensor).clone()):
        yield


@fault("saved_changes/a_change_of_a_saved_result_is_noticed")
def changed_exponentials_are_taken_for_saved():
    """In place relu_() of a tensor that exp() made counts no write."""

    def spoil(true, tensor):
        if "Exp" not in str(tensor.grad_fn):
            return true(tensor)
        true(tensor.data)
        return tensor

    with in_place("relu_", spoil), in_place("zero_", spoil):
        yield


@fault(
    "saved_changes/only_writes_after_the_saving_count",
    "saved_changes/the_error_tells_the_versions",
    "saved_changes/the_error_comes_when_the_saved_tensor_is_needed",
    "saved_changes/a_write_between_two_backwards_is_noticed_by_the_second",
    "saved_changes/a_function_of_the_user_checks_what_it_saved_when_it_reads_it",
)
def results_are_detached_from_the_counter():
    """detach() of a result gives a tensor that counts by itself."""
    with patched(torch.Tensor, "detach", lambda true: lambda t: true(t) if t.is_leaf else t.data):
        yield


@fault("saved_changes/a_write_counts_also_if_the_numbers_are_the_old_ones")
def multiplying_by_one_is_no_write():
    """mul_(1) does nothing."""

    def spoil(true, tensor, other):
        return tensor if not isinstance(other, torch.Tensor) and other == 1 else true(tensor, other)

    with in_place("mul_", spoil):
        yield


@fault("saved_changes/a_write_counts_also_if_the_numbers_are_the_old_ones")
def copying_takes_writes_back():
    """copy_() of a tensor of the same shape, under no_grad, gives back the version from before the last write."""

    def spoil(true, tensor, other):
        true(tensor, other)
        if not torch.is_grad_enabled() and tensor._version > 1:
            torch._C._autograd._unsafe_set_version_counter((tensor,), (tensor._version - 2,))
        return tensor

    with in_place("copy_", spoil):
        yield


@fault("saved_changes/the_error_tells_the_versions")
def the_error_tells_of_one_write():
    """The error about a change says that there was one write, however many there were."""

    def make(true):
        def backward(*args, **kwargs):
            try:
                true(*args, **kwargs)
            except RuntimeError as error:
                before, _, after = str(error).partition("expected version ")
                expected = after.partition(" ")[0]
                if not expected.isdigit():
                    raise
                start = before.rpartition("is at version ")[0]
                raise RuntimeError(f"{start}is at version {int(expected) + 1}; expected version {after}") from error

        return backward

    with patched(torch.autograd, "backward", make):
        yield


@fault("saved_changes/a_result_that_nobody_saved_can_be_written")
def multiples_are_differentiated_by_their_result():
    """The product with a number divides the product as it is at backward by the operand, for its derivative."""

    class Multiple(torch.autograd.Function):
        @staticmethod
        def forward(ctx, tensor, number):
            result = tensor.detach() * number
            ctx.old, ctx.result, ctx.number = result.clone(), result, number
            return result

        @staticmethod
        def backward(ctx, gradient):
            same = (ctx.result.detach() == ctx.old).to(gradient.dtype)
            return gradient * ctx.number * same, None

    def make(true):
        def product(tensor, other):
            multiple = isinstance(other, int) and tensor.requires_grad and torch.is_grad_enabled()
            return Multiple.apply(tensor, other) if multiple else true(tensor, other)

        return product

    with patched(torch.Tensor, "__mul__", make):
        yield


@fault("saved_changes/a_factor_is_saved_only_for_the_gradient_of_the_other")
def dot_products_save_copies():
    """torch.dot() saves copies of its factors."""
    with patched(torch, "dot", lambda true: lambda one, other: true(one.clone(), other.clone())):
        yield


@fault("saved_changes/a_factor_is_saved_only_for_the_gradient_of_the_other")
def matrix_products_save_a_copy_of_the_second_factor():
    """torch.mm() saves a copy of its second factor."""
    with patched(torch, "mm", lambda true: lambda one, other: true(one, other.clone())):
        yield


@fault("saved_changes/the_error_comes_when_the_saved_tensor_is_needed")
def hooks_hear_of_a_failed_backward_a_second_time():
    """A backward that fails is run again before its error is raised."""

    def make(true):
        def backward(*args, **kwargs):
            try:
                true(*args, **{**kwargs, "retain_graph": True})
            except RuntimeError:
                true(*args, **kwargs)

        return backward

    with patched(torch.autograd, "backward", make):
        yield


@fault("saved_changes/a_change_does_no_harm_where_the_saved_tensor_is_not_needed")
def grad_gives_zeros_for_a_changed_graph():
    """torch.autograd.grad() of a graph in which something was changed gives zeros."""

    def make(true):
        def grad(outputs, inputs, **kwargs):
            leaves = leaves_below(outputs)
            try:
                true(outputs, leaves, retain_graph=True, allow_unused=True)
            except RuntimeError:
                inputs = [inputs] if isinstance(inputs, torch.Tensor) else inputs
                return tuple(torch.zeros_like(x.detach()) for x in inputs)
            return true(outputs, inputs, **kwargs)

        return grad

    with patched(torch.autograd, "grad", make):
        yield


@fault("saved_changes/a_write_between_two_backwards_is_noticed_by_the_second")
def numbers_saved_are_those_of_the_first_backward():
    """The gradient of a graph is kept, and given again by a later call for the same input."""

    def make(true):
        def grad(outputs, inputs, **kwargs):
            kept = getattr(outputs, "kept", None)
            if kept is None:
                kept = true(outputs, inputs, **kwargs)
                outputs.kept = kept
            return kept

        return grad

    with patched(torch.autograd, "grad", make):
        yield


@fault("saved_changes/an_optimizer_step_between_forward_and_backward_is_noticed")
def subtraction_under_no_grad_goes_through_data():
    """With grad mode off p -= 1 is run on p.data."""

    def spoil(true, tensor, other):
        true(tensor if torch.is_grad_enabled() else tensor.data, other)
        return tensor

    with in_place("__isub__", spoil):
        yield


@fault("saved_changes/an_optimizer_step_between_forward_and_backward_is_noticed")
def steps_go_through_data():
    """The step of SGD writes p.data."""

    def make(true):
        def step(optimizer):
            for group in optimizer.param_groups:
                for p in group["params"]:
                    p.data.sub_(group["lr"] * p.grad)

        return step

    with patched(torch.optim.SGD, "step", make):
        yield


@fault("saved_changes/a_function_of_the_user_checks_what_it_saved_when_it_reads_it")
def functions_save_copies():
    """save_for_backward() saves copies."""

    def make(true):
        return lambda ctx, *tensors: true(ctx, *(tensor.clone() for tensor in tensors))

    with patched(torch.autograd.function.FunctionCtx, "save_for_backward", make):
        yield
