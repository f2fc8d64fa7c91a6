"""Faults in the derivatives of single operations that show with some of their parameters only."""

import torch

from . import fault, wrong_kernel


@fault("local_derivatives/the_derivatives_of_polynomial_operations_are_their_slopes")
def a_permutation_is_undone_by_itself():
    """The gradient of a permuted tensor is permuted once more instead of back, if its shape allows it."""

    def gradient(cotangent, x, dims):
        again = cotangent.permute(dims)
        if again.shape == x.shape:
            return (again,)
        dims = [d % x.dim() for d in dims]
        return (cotangent.permute([dims.index(d) for d in range(x.dim())]),)

    with wrong_kernel("permute", gradient):
        yield


@fault("local_derivatives/the_derivatives_of_polynomial_operations_are_their_slopes")
def a_diagonal_passes_its_gradient_to_the_main_one():
    """The gradient of a diagonal beside the main one goes to the beginning of the main one."""

    def gradient(cotangent, x, offset=0, dim1=0, dim2=1):
        whole = torch.zeros_like(x)
        whole.diagonal(0, dim1, dim2)[..., : cotangent.shape[-1]] = cotangent
        return (whole,)

    with wrong_kernel("diagonal", gradient, forward=lambda true, x, *where, **named: true(x, *where, **named).clone()):
        yield


@fault("local_derivatives/the_derivatives_of_polynomial_operations_are_their_slopes")
def an_index_named_twice_gets_one_gradient():
    """The gradient of index_select goes once to each element, also if it was selected twice."""

    def gradient(cotangent, x, dim, index):
        return (torch.zeros_like(x).index_copy(dim, index, cotangent),)

    with wrong_kernel("index_select", gradient):
        yield


@fault("local_derivatives/the_gradient_of_a_masked_selection_goes_to_what_was_selected")
def a_masked_selection_passes_its_gradients_in_the_wrong_order():
    """The gradients of masked_select go to the selected elements from the last to the first."""

    def gradient(cotangent, x, mask):
        whole = torch.zeros_like(x, memory_format=torch.contiguous_format)
        whole[mask.expand(x.shape)] = cotangent.flip(0)
        return (whole,)

    with wrong_kernel("masked_select", gradient):
        yield


@fault(
    "local_derivatives/the_gradient_of_a_masked_selection_goes_to_what_was_selected",
    "local_derivatives/the_gradient_of_a_masked_selection_is_placed_in_the_order_of_memory",
)
def a_masked_selection_passes_nothing_to_the_last_element():
    """The last of the gradients of masked_select is lost."""

    def gradient(cotangent, x, mask):
        whole = torch.zeros_like(x, memory_format=torch.contiguous_format)
        cotangent = cotangent.clone()
        cotangent[-1:] = 0
        whole[mask.expand(x.shape)] = cotangent
        return (whole,)

    with wrong_kernel("masked_select", gradient):
        yield


@fault("local_derivatives/the_derivatives_of_operations_by_order_are_their_slopes")
def clamp_passes_gradients_below_its_minimum():
    """The gradient of a clamp goes on where the number is below the minimum."""

    def gradient(cotangent, x, low=None, high=None):
        return (cotangent * (x <= high) if high is not None else cotangent,)

    with wrong_kernel("clamp", gradient):
        yield


@fault("local_derivatives/the_derivatives_of_operations_by_order_are_their_slopes")
def the_largest_of_a_plane_passes_its_gradient_to_all():
    """The gradient of the largest elements goes to all elements if they were sought in two dimensions."""

    def gradient(cotangent, x, dims=(), keepdim=False):
        mask = x == x.amax(dims, keepdim=True)
        if len(dims) > 1:
            mask = torch.ones_like(mask)
        cotangent = cotangent if keepdim or not dims else cotangent.reshape(mask.amax(dims, keepdim=True).shape)
        return (cotangent * mask / mask.sum(dims, keepdim=True),)

    with wrong_kernel("amax", gradient):
        yield


@fault("local_derivatives/the_derivatives_of_products_are_their_slopes_also_at_zeros")
def a_product_with_a_zero_passes_nothing():
    """The gradient of a product along a dimension is zero where the factor itself is zero."""

    def gradient(cotangent, x, dim, keepdim=False, **dtype):
        cotangent = cotangent if keepdim else cotangent.unsqueeze(dim)
        safe = torch.where(x == 0, torch.ones_like(x), x)
        return (torch.where(x == 0, torch.zeros_like(x), cotangent * x.prod(dim, keepdim=True) / safe),)

    with wrong_kernel("prod.dim_int", gradient):
        yield


@fault("local_derivatives/the_derivatives_of_products_are_their_slopes_also_at_zeros")
def two_zeros_in_a_product_pass_as_much_as_one():
    """The gradient of a product of all elements leaves out all zeros among the other factors."""

    def gradient(cotangent, x, **dtype):
        others = torch.where(x == 0, torch.ones_like(x), x).prod()
        return (torch.where(x == 0, cotangent * others, cotangent * x.prod() / torch.where(x == 0, 1, x)),)

    with wrong_kernel("prod", gradient):
        yield


@fault("local_derivatives/the_derivatives_of_operations_by_order_have_derivatives")
def relu_passes_every_derivative_of_its_gradient():
    """The gradient of relu has the right value, but its derivative by the gradient passed is one everywhere."""

    def gradient(cotangent, x):
        constant = cotangent.detach()
        return (constant * (x > 0) + (cotangent - constant),)

    with wrong_kernel("relu", gradient):
        yield


@fault("local_derivatives/the_derivatives_of_polynomial_operations_have_derivatives")
def a_matrix_product_in_a_batch_has_a_constant_derivative():
    """The gradients of a product of batches of matrices don't depend on the matrices."""

    def gradient(cotangent, a, b):
        return cotangent @ b.detach().mT, a.detach().mT @ cotangent

    with wrong_kernel("bmm", gradient):
        yield
