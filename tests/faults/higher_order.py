"""Faults in derivatives of derivatives; the first derivatives are right."""

import torch

from . import fault, wrong_kernel
from .backward import changed_grad
from .execution import changed_run


@fault(
    "higher_order/derivatives_can_be_taken_again_and_again",
    "higher_order/the_nth_derivative_of_a_polynomial",
    "higher_order/hessian_vector_products_can_be_computed_in_every_way",
    "higher_order/a_penalty_on_a_gradient_reaches_the_parameters",
)
def the_derivatives_of_a_product_are_constants():
    """The gradients of both factors of a product depend on the gradient passed only."""

    def gradient(cotangent, a, b):
        other = b.detach() if isinstance(b, torch.Tensor) else b
        return cotangent * other, cotangent * a.detach()

    with wrong_kernel("mul.Tensor", gradient):
        yield


@fault(
    "higher_order/mixed_derivatives_commute",
    "higher_order/derivatives_can_be_taken_again_and_again",
)
def the_derivative_by_the_second_factor_is_a_constant():
    """The gradient of the second factor of a matrix product doesn't depend on the first one."""

    def gradient(cotangent, a, b):
        return cotangent @ b.t(), a.detach().t() @ cotangent

    with wrong_kernel("mm", gradient):
        yield


@fault("higher_order/mixed_derivatives_commute")
def the_derivative_by_the_second_of_two_factors_is_a_constant():
    """The gradient of the second factor of a product doesn't depend on the first one."""

    def gradient(cotangent, a, b):
        return cotangent * b, cotangent * a.detach()

    with wrong_kernel("mul.Tensor", gradient):
        yield


@fault(
    "higher_order/the_nth_derivative_of_a_polynomial",
    "higher_order/a_detached_gradient_is_a_constant_in_further_derivatives",
)
def the_derivative_of_a_power_is_a_constant():
    """The gradient of x ** n doesn't depend on x for n above 2."""

    def gradient(cotangent, x, power):
        return (cotangent * power * (x.detach() if power > 2 else x) ** (power - 1),)

    with wrong_kernel("pow.Tensor_Scalar", gradient):
        yield


@fault("higher_order/a_derivative_may_depend_on_some_leaves_only")
def an_unused_leaf_has_the_gradient_zero():
    """torch.autograd.grad returns zeros for unused leaves, allowed or not."""

    def change(true, inputs, options):
        got = true(inputs, **{**options, "allow_unused": True})
        return tuple(torch.zeros_like(x).detach() if g is None else g for g, x in zip(got, inputs, strict=True))

    with changed_grad(change):
        yield


@fault("higher_order/a_derivative_may_depend_on_some_leaves_only")
def a_last_input_that_is_unused_is_allowed():
    """torch.autograd.grad returns None for the last of several inputs if it is unused, allowed or not."""

    def change(true, inputs, options):
        if len(inputs) < 2:
            return true(inputs, **options)
        rest = true(inputs[:-1], **{**options, "retain_graph": True})
        return (*rest, *true(inputs[-1:], **{**options, "allow_unused": True}))

    with changed_grad(change):
        yield


@fault("higher_order/materialized_zeros_are_derivatives_of_any_order")
def materialized_zeros_are_none_if_the_first_derivative_is_a_constant():
    """torch.autograd.grad with materialize_grads=True returns None in the place of zeros."""

    def change(true, inputs, options):
        got = true(inputs, **options)
        if not options.get("materialize_grads"):
            return got
        return tuple(None if g.is_leaf and not g.any() else g for g in got)

    with changed_grad(change):
        yield


@fault("higher_order/gradients_can_be_differentiated_by_the_gradient_passed")
def the_gradient_passed_is_a_constant():
    """Backward and grad detach the gradients that are passed."""

    def change(true, roots, gradients, *args, **options):
        return true(roots, tuple(g.detach() for g in gradients), *args, **options)

    with changed_run(change):
        yield


@fault(
    "higher_order/two_backwards_make_a_forward_derivative",
    "higher_order/gradients_can_be_differentiated_by_the_gradient_passed",
)
def the_derivative_by_the_gradient_passed_counts_double_in_products():
    """What a product passes back has the right value, but twice its derivative by the gradient passed."""

    def gradient(cotangent, a, b):
        twice = 2 * cotangent - cotangent.detach()
        return twice * b, twice * a

    with wrong_kernel("mul.Tensor", gradient):
        yield


@fault("higher_order/two_backwards_make_a_forward_derivative")
def cumsum_loses_the_derivative_of_its_first_gradient():
    """What a running sum passes back has the right value, but doesn't depend on the first of the gradients."""

    def gradient(cotangent, x, dim, *dtype):
        if cotangent.dim():
            cotangent = torch.cat([cotangent.narrow(dim, 0, 1).detach(), cotangent.narrow(dim, 1, len(x) - 1)], dim)
            return (cotangent.flip(dim).cumsum(dim).flip(dim),)
        return (cotangent,)

    with wrong_kernel("cumsum", gradient):
        yield


@fault("higher_order/a_penalty_on_a_gradient_reaches_the_parameters")
def backward_starts_without_grad_mode():
    """A backward that is called with grad mode off starts with zeros."""

    def change(true, roots, gradients, *args, **options):
        gradients = gradients if torch.is_grad_enabled() else tuple(g * 0 for g in gradients)
        return true(roots, gradients, *args, **options)

    with changed_run(change):
        yield


@fault("higher_order/a_gradient_of_zeros_gives_zeros_at_every_order")
def gradients_of_zeros_are_none():
    """torch.autograd.grad returns None in the place of a gradient that is zeros."""

    def change(true, inputs, options):
        return tuple(None if g is not None and g.numel() and not g.any() else g for g in true(inputs, **options))

    with changed_grad(change):
        yield


@fault("higher_order/a_detached_gradient_is_a_constant_in_further_derivatives")
def detached_gradients_keep_their_history():
    """detach() of a result gives the result itself."""
    true = torch.Tensor.detach
    torch.Tensor.detach = lambda tensor: true(tensor) if tensor.is_leaf else tensor * 1
    try:
        yield
    finally:
        del torch.Tensor.detach
