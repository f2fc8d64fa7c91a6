"""Faults in the local derivatives, in how they are combined, and in where propagation ends."""

import torch

from . import fault, patched, reading, wrong_kernel
from .backward import changed_backward, changed_grad


def product(cotangent, a, b):
    """The true gradients of a * b."""
    return cotangent * b, cotangent * a if isinstance(b, torch.Tensor) else None


@fault(
    "chain_rule/the_derivative_of_a_composition_is_the_product_of_the_derivatives",
    "chain_rule/the_vector_jacobian_product_of_a_composition_is_their_composition",
)
def a_square_counts_one_of_its_factors():
    """A tensor multiplied with itself gets the gradient of the first factor only."""

    def gradient(cotangent, a, b):
        first, second = product(cotangent, a, b)
        return first, torch.zeros_like(second) if a is b else second

    with wrong_kernel("mul.Tensor", gradient):
        yield


@fault("chain_rule/the_derivative_of_a_composition_is_the_product_of_the_derivatives")
def the_derivative_of_a_power_is_flat():
    """The derivative of x ** 3 is taken for 3 * x."""
    with wrong_kernel("pow.Tensor_Scalar", lambda cotangent, x, power: (cotangent * power * x,)):
        yield


@fault(
    "chain_rule/the_derivative_of_a_composition_is_the_product_of_the_derivatives",
    "chain_rule/the_vector_jacobian_product_of_a_composition_is_their_composition",
    "chain_rule/each_leaf_gets_its_gradient_by_the_chain_rule",
)
def relu_passes_every_gradient():
    """relu passes the gradient on where its input is negative, too."""
    with wrong_kernel("relu", lambda cotangent, x: (cotangent,)):
        yield


@fault(
    "chain_rule/the_derivative_of_a_composition_is_the_product_of_the_derivatives",
    "chain_rule/the_vector_jacobian_product_of_a_composition_is_their_composition",
)
def relu_passes_the_gradient_at_zero():
    """relu passes the gradient on where its input is zero."""
    with wrong_kernel("relu", lambda cotangent, x: (cotangent * (x >= 0),)):
        yield


@fault("chain_rule/the_vector_jacobian_product_of_a_composition_is_their_composition")
def flip_is_not_flipped_back():
    """The gradient passes flip as it comes."""
    with wrong_kernel("flip", lambda cotangent, x, dims: (cotangent,)):
        yield


@fault(
    "chain_rule/each_leaf_gets_its_gradient_by_the_chain_rule",
    "chain_rule/constants_get_no_gradient",
)
def subtraction_adds():
    """The second operand of a subtraction gets the gradient with the wrong sign."""
    with wrong_kernel("sub.Tensor", lambda cotangent, a, b, *alpha: (cotangent, cotangent)):
        yield


@fault("chain_rule/each_leaf_gets_its_gradient_by_the_chain_rule")
def a_row_loses_the_gradient_of_its_last_element():
    """The gradient of x[0] is lost for the last of its elements."""

    def gradient(cotangent, x, dim, index):
        whole = torch.zeros_like(x)
        whole.select(dim, index).copy_(cotangent)
        if x.numel() > 1:
            whole.reshape(-1)[-1] = 0
        return (whole,)

    with wrong_kernel("select.int", gradient):
        yield


@fault("chain_rule/the_contributions_of_all_paths_add_up", "chain_rule/a_shared_result_is_passed_on_once")
def a_sum_passes_on_to_its_first_operand():
    """The second of two operands of a sum gets no gradient if the first one gets it."""

    def gradient(cotangent, a, b, *alpha):
        both = all(isinstance(x, torch.Tensor) and x.requires_grad for x in (a, b))
        return cotangent, torch.zeros_like(cotangent) if both else cotangent

    with wrong_kernel("add.Tensor", gradient):
        yield


@fault("chain_rule/the_contributions_of_all_paths_add_up")
def the_third_path_is_forgotten():
    """The gradient of the third row of a sum over a stack is zero."""

    def gradient(cotangent, x, *dtype):
        whole = cotangent.expand(x.shape).clone()
        if x.dim() and x.shape[0] > 2:
            whole[2] = 0
        return (whole,)

    with wrong_kernel("sum", gradient):
        yield


@fault(
    "chain_rule/a_shared_result_is_passed_on_once",
    "chain_rule/backward_goes_through_what_the_root_depends_on_and_through_nothing_else",
)
def the_gradient_arrives_in_two_halves():
    """A hook is called twice, with half of the gradient each time."""

    def make(true):
        def register_hook(tensor, hook):
            def halves(gradient):
                hook(gradient / 2)
                hook(gradient / 2)

            return true(tensor, halves)

        return register_hook

    with patched(torch.Tensor, "register_hook", make):
        yield


@fault("chain_rule/backward_goes_through_what_the_root_depends_on_and_through_nothing_else")
def unused_slices_are_visited():
    """The hook of a slice is called with zeros, whether or not backward reaches the slice."""

    def make(true):
        def register_hook(tensor, hook):
            if tensor.grad_fn is not None and "Slice" in type(tensor.grad_fn).__name__:
                hook(torch.zeros_like(tensor).detach())
            return true(tensor, hook)

        return register_hook

    with patched(torch.Tensor, "register_hook", make):
        yield


@fault("chain_rule/the_gradient_of_a_broadcast_operand_is_summed_to_its_shape")
def only_the_first_copy_of_a_broadcast_operand_counts():
    """An operand of a product that was repeated along a new dimension gets the gradient of the first copy."""

    def gradient(cotangent, a, b):
        return tuple(
            g[:1] if isinstance(x, torch.Tensor) and x.dim() < cotangent.dim() and len(g) > 1 else g
            for x, g in zip((a, b), product(cotangent, a, b), strict=True)
        )

    with wrong_kernel("mul.Tensor", gradient):
        yield


@fault("chain_rule/the_gradient_of_a_broadcast_operand_is_summed_to_its_shape")
def addcmul_sums_the_last_dimension_once():
    """An operand of addcmul with a last dimension of size 1 gets the gradient of the first place along it."""

    def gradient(cotangent, c, a, b):
        places = (cotangent, cotangent * b, cotangent * a)
        return tuple(
            g[..., :1] if x.dim() and x.shape[-1] == 1 and g.shape[-1] > 1 else g
            for x, g in zip((c, a, b), places, strict=True)
        )

    with wrong_kernel("addcmul", gradient):
        yield


@fault("chain_rule/propagation_ends_where_the_graph_was_cut")
def detach_is_a_copy():
    """detach() gives a copy that stays in the graph."""
    with patched(torch.Tensor, "detach", lambda _: lambda tensor: tensor * 1):
        yield


@fault("chain_rule/propagation_ends_where_the_graph_was_cut")
def data_of_a_result_stays_in_the_graph():
    """Reading .data of a tensor that is no leaf gives the tensor itself."""
    with reading("data", lambda tensor, data: data if tensor.is_leaf else tensor):
        yield


@fault("chain_rule/constants_get_no_gradient")
def constants_get_zeros():
    """The .grad of a tensor that doesn't require grad reads as zeros."""

    def zeros(tensor, grad):
        return torch.zeros_like(tensor) if grad is None and not tensor.requires_grad else grad

    with reading("grad", zeros):
        yield


@fault("chain_rule/propagation_ends_at_the_targets")
def leaves_get_their_grad_besides_the_targets():
    """backward(inputs=...) with a result among the inputs writes into the leaves as well."""

    def change(go, roots, gradients, inputs):
        if inputs and any(not x.is_leaf for x in inputs):
            torch.autograd.Variable._execution_engine.run_backward(
                tuple(roots),
                tuple(torch.ones_like(root) for root in roots),
                True,
                False,
                (),
                allow_unreachable=True,
                accumulate_grad=True,
            )
        go(roots, gradients, inputs)

    with changed_backward(change):
        yield


@fault("chain_rule/grad_measures_the_influence_of_a_change")
def a_sum_passes_on_an_average():
    """The gradient of a sum is divided by the number of its elements."""
    with wrong_kernel("sum", lambda cotangent, x, *dtype: ((cotangent / max(x.numel(), 1)).expand(x.shape),)):
        yield


@fault("chain_rule/grad_measures_the_influence_of_a_change")
def cumsum_passes_each_gradient_to_its_own_element():
    """Each element of a running sum passes its gradient to the element at its own place only."""
    with wrong_kernel("cumsum", lambda cotangent, x, dim, *dtype: (cotangent,)):
        yield


@fault("chain_rule/gradients_flow_back_in_the_dtype_of_each_tensor")
def gradients_are_returned_in_the_dtype_of_the_root():
    """torch.autograd.grad returns all gradients in the dtype of the last input."""

    def change(true, inputs, options):
        return tuple(g if g is None else g.to(inputs[-1].dtype) for g in true(inputs, **options))

    with changed_grad(change):
        yield


@fault("chain_rule/gradients_flow_back_in_the_dtype_of_each_tensor")
def grad_of_a_half_precision_leaf_is_single():
    """The .grad of a leaf of half precision reads as float32."""
    with reading("grad", lambda _, grad: grad.float() if grad is not None and grad.element_size() == 2 else grad):
        yield
