"""Faults in the dtypes of gradients, and in grad_dtype."""

import torch

from . import after_backward, fault, patched, reading
from .accumulation import setting_grad


def setting_grad_dtype(assign):
    """A fault that lets `assign(set, tensor, dtype)` do what setting grad_dtype does; `set` does it truly."""
    true = torch._C._TensorBase.grad_dtype
    put = property(true.__get__, lambda tensor, dtype: assign(true.__set__, tensor, dtype))
    return patched(torch.Tensor, "grad_dtype", lambda _: put)


def is_real(dtype):
    """Whether it is a dtype of floating point numbers."""
    return isinstance(dtype, torch.dtype) and dtype.is_floating_point


@fault("grad_dtypes/grad_has_the_dtype_of_its_leaf_whatever_the_graph_has")
def grad_of_a_bfloat16_leaf_is_single():
    """The .grad of a bfloat16 leaf reads as float32."""
    with reading("grad", lambda x, grad: grad if grad is None or x.dtype is not torch.bfloat16 else grad.float()):
        yield


@fault(
    "grad_dtypes/grad_has_the_dtype_of_its_leaf_whatever_the_graph_has",
    "grad_dtypes/a_gradient_of_another_dtype_is_cast_to_that_of_its_leaf",
)
def a_second_gradient_makes_grad_double():
    """The .grad to which a second gradient was added reads as float64."""
    with reading("grad", lambda x, grad: grad.double() if grad is not None and grad._version else grad):
        yield


@fault("grad_dtypes/a_gradient_of_another_dtype_is_cast_to_that_of_its_leaf")
def hooks_get_no_half_precision():
    """A hook gets a gradient of float16 as float32."""

    def make(true):
        return lambda x, hook: true(x, lambda g: hook(g.float() if g.dtype is torch.float16 else g))

    with patched(torch.Tensor, "register_hook", make):
        yield


@fault("grad_dtypes/grad_dtype_is_the_dtype_unless_set")
def grad_dtype_of_booleans_is_single():
    """grad_dtype of booleans reads as float32."""
    with reading("grad_dtype", lambda x, dtype: torch.float32 if x.dtype is torch.bool else dtype):
        yield


@fault("grad_dtypes/grad_dtype_is_the_dtype_unless_set")
def grad_dtype_of_a_half_precision_parameter_is_single():
    """grad_dtype of a Parameter of bfloat16 reads as float32."""

    def spoil(x, dtype):
        return torch.float32 if isinstance(x, torch.nn.Parameter) and x.dtype is torch.bfloat16 else dtype

    with reading("grad_dtype", spoil):
        yield


@fault(
    "grad_dtypes/gradients_are_cast_to_grad_dtype",
    "grad_dtypes/hooks_and_grad_give_gradients_in_grad_dtype",
    "grad_dtypes/a_wider_grad_dtype_keeps_what_the_leaf_cannot_hold",
    "grad_dtypes/grad_takes_tensors_of_grad_dtype_only",
    "grad_dtypes/without_a_grad_dtype_gradients_keep_their_own",
    "grad_dtypes/grad_dtype_of_a_result_cannot_be_set",
)
def setting_grad_dtype_does_nothing():
    """grad_dtype can be set to any dtype or None, without an effect."""

    def ignore(put, tensor, dtype):
        if dtype is not None and not isinstance(dtype, torch.dtype):
            put(tensor, dtype)  # raises the error

    with setting_grad_dtype(ignore):
        yield


@fault("grad_dtypes/gradients_are_cast_to_grad_dtype")
def grad_dtype_of_a_constant_is_ignored():
    """Setting grad_dtype of a tensor that doesn't require grad does nothing."""
    with setting_grad_dtype(lambda put, x, dtype: put(x, dtype) if x.requires_grad else None):
        yield


@fault("grad_dtypes/gradients_are_cast_to_grad_dtype")
def the_third_gradient_is_not_cast():
    """A .grad to which three gradients went reads in the dtype of its leaf."""

    def spoil(x, grad):
        return grad.to(x.dtype) if grad is not None and grad._version >= 2 else grad

    with reading("grad", spoil):
        yield


@fault("grad_dtypes/hooks_and_grad_give_gradients_in_grad_dtype")
def hooks_get_gradients_in_the_dtype_of_the_leaf():
    """A hook on a leaf gets the gradient before it is cast to grad_dtype."""
    with patched(torch.Tensor, "register_hook", lambda true: lambda x, hook: true(x, lambda g: hook(g.to(x.dtype)))):
        yield


@fault("grad_dtypes/hooks_and_grad_give_gradients_in_grad_dtype")
def grad_gives_the_dtype_of_the_input():
    """torch.autograd.grad gives gradients in the dtypes of the inputs."""

    def make(true):
        def grad(outputs, inputs, *args, **kwargs):
            return tuple(g.to(x.dtype) for g, x in zip(true(outputs, inputs, *args, **kwargs), inputs, strict=True))

        return grad

    with patched(torch.autograd, "grad", make):
        yield


@fault("grad_dtypes/a_wider_grad_dtype_keeps_what_the_leaf_cannot_hold")
def gradients_add_up_in_the_dtype_of_the_leaf():
    """The numbers in .grad are rounded to what the leaf can hold."""
    with after_backward(lambda leaf, before: leaf.grad.copy_(leaf.grad.to(leaf.dtype))):
        yield


@fault("grad_dtypes/without_a_grad_dtype_gradients_keep_their_own")
def no_grad_dtype_is_that_of_the_leaf():
    """Where grad_dtype is None, .grad reads in the dtype of the leaf."""

    def spoil(x, grad):
        return grad if grad is None or not x.is_leaf or x.grad_dtype is not None else grad.to(x.dtype)

    with reading("grad", spoil):
        yield


@fault("grad_dtypes/without_a_grad_dtype_gradients_keep_their_own")
def a_second_gradient_settles_grad_dtype():
    """Once .grad was written, a grad_dtype that is None reads as the dtype of .grad."""

    def spoil(x, dtype):
        return x.grad.dtype if dtype is None and x.grad is not None and x.grad._version else dtype

    with reading("grad_dtype", spoil):
        yield


@fault("grad_dtypes/grad_takes_tensors_of_grad_dtype_only")
def setting_grad_casts_to_grad_dtype():
    """A tensor of another dtype that is put into .grad is cast to grad_dtype, without an error."""

    def assign(put, x, grad):
        put(x, grad if grad is None or x.grad_dtype is None else grad.to(x.grad_dtype))

    with setting_grad(assign):
        yield


@fault("grad_dtypes/grad_takes_tensors_of_grad_dtype_only")
def grad_takes_no_integers():
    """To put integers into .grad does nothing where grad_dtype is None."""

    def assign(put, x, grad):
        if grad is None or x.grad_dtype is not None or grad.is_floating_point():
            put(x, grad)

    with setting_grad(assign):
        yield


@fault("grad_dtypes/grad_dtype_cannot_be_set_against_a_grad_that_is_there")
def setting_grad_dtype_casts_grad():
    """Setting grad_dtype casts a .grad that is there."""

    def assign(put, x, dtype):
        grad, x.grad = x.grad, None
        put(x, dtype)
        x.grad = grad if grad is None or dtype is None else grad.to(dtype)

    with setting_grad_dtype(assign):
        yield


@fault("grad_dtypes/grad_dtype_cannot_be_set_against_a_grad_that_is_there")
def a_refused_grad_dtype_clears_grad():
    """Setting grad_dtype to another dtype than that of .grad raises its error, but clears .grad."""

    def assign(put, x, dtype):
        try:
            put(x, dtype)
        except RuntimeError:
            x.grad = None
            raise

    with setting_grad_dtype(assign):
        yield


@fault("grad_dtypes/grad_dtype_takes_dtypes_and_none_only")
def grad_dtype_true_is_ignored():
    """Setting grad_dtype to True does nothing."""
    with setting_grad_dtype(lambda put, x, dtype: None if dtype is True else put(x, dtype)):
        yield


@fault("grad_dtypes/grad_dtype_takes_dtypes_and_none_only")
def a_refused_grad_dtype_is_none():
    """Setting grad_dtype to what is no dtype raises its error, but sets it to None."""

    def assign(put, x, dtype):
        if not isinstance(dtype, torch.dtype):
            put(x, None)
        put(x, dtype)

    with setting_grad_dtype(assign):
        yield


@fault("grad_dtypes/grad_dtype_of_a_result_cannot_be_set")
def grad_dtype_of_a_view_is_ignored():
    """Setting grad_dtype of a view that is no leaf does nothing."""
    with setting_grad_dtype(lambda put, x, dtype: None if x._is_view() and not x.is_leaf else put(x, dtype)):
        yield


@fault("grad_dtypes/grad_dtype_of_a_result_cannot_be_read", "grad_dtypes/grad_dtype_of_a_result_is_its_dtype")
def grad_dtype_of_a_result_reads_as_none():
    """grad_dtype of a tensor that is no leaf reads as None."""
    true = torch._C._TensorBase.grad_dtype
    none = property(lambda x: true.__get__(x) if x.is_leaf else None, true.__set__)
    with patched(torch.Tensor, "grad_dtype", lambda _: none):
        yield


@fault("grad_dtypes/copies_do_not_take_over_grad_dtype")
def detach_takes_over_grad_dtype():
    """A tensor that was detached from a leaf has the grad_dtype of that."""

    def make(true):
        def detach(x):
            detached = true(x)
            if x.is_leaf and x.requires_grad:
                detached.grad_dtype = x.grad_dtype
            return detached

        return detach

    with patched(torch.Tensor, "detach", make):
        yield


@fault("grad_dtypes/copies_do_not_take_over_grad_dtype")
def freezing_a_leaf_resets_grad_dtype():
    """requires_grad_(False) sets grad_dtype to the dtype of the leaf."""

    def make(true):
        def requires_grad_(x, flag=True):
            if not flag:
                x.grad_dtype = x.dtype
            return true(x, flag)

        return requires_grad_

    with patched(torch.Tensor, "requires_grad_", make):
        yield


@fault("grad_dtypes/grad_dtype_takes_integers_but_backward_does_not")
def a_grad_dtype_of_integers_is_ignored():
    """Setting grad_dtype to integers or booleans does nothing."""
    with setting_grad_dtype(lambda put, x, dtype: put(x, dtype) if dtype is None or is_real(dtype) else None):
        yield
