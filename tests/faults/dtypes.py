"""Faults in what becomes of gradients between dtypes."""

import torch

from . import after_backward, fault, patched, wrong_kernel


class _RoundedBack(torch.autograd.Function):
    """A cast whose gradient is rounded to multiples of eight."""

    @staticmethod
    def forward(ctx, x, dtype):
        ctx.dtype = x.dtype
        with torch._C._AutoDispatchBelowAutograd():
            return x.to(dtype)

    @staticmethod
    def backward(ctx, v):
        return (v / 8).round().mul(8).to(ctx.dtype), None


@fault(
    "dtypes/a_cast_takes_the_gradient_back_to_the_dtype_that_it_came_from",
    "dtypes/uses_of_a_leaf_in_other_dtypes_add_up_in_its_own",
)
def casts_to_bfloat16_lose_digits_of_the_gradient():
    """The gradient through bfloat16() is rounded more than bfloat16 asks for."""
    with patched(torch.Tensor, "bfloat16", lambda _: lambda x: _RoundedBack.apply(x, torch.bfloat16)):
        yield


@fault("dtypes/a_cast_takes_the_gradient_back_to_the_dtype_that_it_came_from")
def grad_returns_gradients_in_the_dtype_of_the_root():
    """autograd.grad gives all gradients in the dtype of the root."""

    def make(true):
        def grad(outputs, *args, **kwargs):
            root = outputs if isinstance(outputs, torch.Tensor) else outputs[0]
            return tuple(g if g is None else g.to(root.dtype) for g in true(outputs, *args, **kwargs))

        return grad

    with patched(torch.autograd, "grad", make):
        yield


@fault("dtypes/uses_of_a_leaf_in_other_dtypes_add_up_in_its_own")
def half_is_not_recorded():
    """half() detaches."""
    with patched(torch.Tensor, "half", lambda true: lambda x: true(x.detach()).requires_grad_()):
        yield


@fault("dtypes/operands_of_different_dtypes_get_gradients_of_their_own")
def a_mixed_product_forgets_to_sum_over_what_it_promoted():
    """A product of two dtypes passes its second operand the gradient of one element in the place of their sum."""

    def make(true):
        def mul(x, y):
            if isinstance(y, torch.Tensor) and x.dtype != y.dtype and y.requires_grad:
                y = y.detach() + (y - y.detach()) * 2
            return true(x, y)

        return mul

    with patched(torch.Tensor, "__mul__", make):
        yield


@fault("dtypes/operands_of_different_dtypes_get_gradients_of_their_own")
def cat_passes_nothing_to_tensors_that_it_casts():
    """cat detaches operands of another dtype than the first one."""

    def make(true):
        def cat(tensors, *args):
            tensors = list(tensors)
            first = tensors[0].dtype
            return true([t if t.dtype == first else t.detach() + 0 * t for t in tensors], *args)

        return cat

    with patched(torch, "cat", make):
        yield


@fault("dtypes/uses_of_a_leaf_in_other_dtypes_add_up_in_its_own")
def a_cast_to_another_dtype_passes_the_gradient_twice():
    """double() passes twice the gradient back to a tensor of less precision."""

    def make(true):
        return lambda x: true(x) if x.dtype == torch.float64 else true(x + (x - x.detach()))

    with patched(torch.Tensor, "double", make):
        yield


@fault("dtypes/integers_and_booleans_are_constants_for_autograd")
def integers_are_taken_as_booleans():
    """The gradient of a product with integers takes each of them for 1 that isn't 0."""
    with wrong_kernel("mul.Tensor", lambda v, x, y: (v * (y if y.is_floating_point() else y != 0), v * x)):
        yield


@fault("dtypes/a_reduction_in_another_dtype_gives_a_gradient_in_that_of_its_input")
def a_sum_in_another_dtype_is_not_recorded():
    """sum passes zeros back if it was asked to compute in another dtype."""

    def make(true):
        def total(x, *args, dtype=None, **kwargs):
            other = dtype is not None and dtype != x.dtype
            return true(x.detach() + 0 * x if other else x, *args, dtype=dtype, **kwargs)

        return total

    with patched(torch.Tensor, "sum", make):
        yield


@fault("dtypes/a_tensor_written_into_one_of_another_dtype_gets_a_gradient_of_its_own")
def copying_into_another_dtype_is_not_recorded():
    """copy_ between two floating dtypes passes zeros back."""

    def make(true):
        def copy(y, x, *args):
            return true(y, x.detach() + 0 * x if x.dtype != y.dtype else x, *args)

        return copy

    with patched(torch.Tensor, "copy_", make):
        yield


@fault("dtypes/writing_into_integers_records_nothing")
def integers_take_no_values_of_tensors_that_require_grad():
    """copy_ leaves booleans as they are if the source requires grad."""

    def make(true):
        def copy(y, x, *args):
            return y if y.dtype == torch.bool and x.requires_grad else true(y, x, *args)

        return copy

    with patched(torch.Tensor, "copy_", make):
        yield


@fault("dtypes/gradients_accumulate_in_the_precision_of_the_leaf")
def small_gradients_are_not_lost():
    """An addition to .grad that changes nothing adds the next larger number of the dtype."""

    def spoil(leaf, before):
        if before is not None and leaf.dtype == torch.bfloat16 and torch.equal(before, leaf.grad):
            leaf.grad += 2

    with after_backward(spoil):
        yield


@fault("dtypes/a_real_tensor_gets_a_real_gradient_from_complex_numbers")
def the_imaginary_part_of_the_gradient_is_added_to_the_real_part():
    """The gradient by a real factor of a complex number is the sum of both parts of the complex one."""

    def gradient(v, x, y):
        x, y = torch.as_tensor(x), torch.as_tensor(y)
        g = v * y.conj() if y.is_complex() else v * y
        h = v * x.conj() if x.is_complex() else v * x
        return tuple((t.real + t.imag if t.is_complex() and not a.is_complex() else t) for t, a in ((g, x), (h, y)))

    with wrong_kernel("mul.Tensor", gradient):
        yield
