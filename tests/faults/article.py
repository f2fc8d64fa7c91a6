"""Faults that show in the article's listing."""

import torch
from torch import nn

from . import fault, patched, reading, wrong_kernel
from .modules import calling, wrong_linear

LISTING = (
    "article/the_listing_gives_a_its_gradient_and_nothing_else",
    "article/the_listing_runs_once_its_lines_are_restored",
)


@fault(*LISTING, "article/the_listing_for_any_numbers", "article/a_grad_foretells_how_the_loss_changes")
def frozen_linear_layers_pass_no_gradient():
    """A Linear layer with frozen parameters passes zeros back to its input."""

    def gradient(cotangent, x, weight, bias, by_x, by_weight, by_bias):
        return by_x if weight.requires_grad else torch.zeros_like(by_x), by_weight, by_bias

    with wrong_linear(gradient):
        yield


@fault(*LISTING, "article/the_listing_for_any_numbers")
def frozen_linear_layers_fill_the_grad_of_their_weight():
    """The .grad of a frozen weight reads as zeros where it is None."""

    def zeros(tensor, grad):
        if grad is None and isinstance(tensor, nn.Parameter) and not tensor.requires_grad and tensor.dim() == 2:
            return torch.zeros_like(tensor).detach()
        return grad

    with reading("grad", zeros):
        yield


@fault(*LISTING)
def unused_inputs_get_zeros():
    """The .grad of a one-dimensional leaf that isn't a parameter reads as zeros where it is None."""

    def zeros(tensor, grad):
        leaf = tensor.is_leaf and tensor.requires_grad and not isinstance(tensor, nn.Parameter)
        return torch.zeros_like(tensor).detach() if grad is None and leaf and tensor.dim() == 1 else grad

    with reading("grad", zeros):
        yield


@fault(*LISTING)
def reading_the_grad_of_a_result_is_silent():
    """Reading the .grad of a tensor that isn't a leaf gives None without a warning."""
    true = torch._C._TensorBase.grad

    def get(tensor):
        return true.__get__(tensor) if tensor.is_leaf or tensor.retains_grad else None

    with patched(torch.Tensor, "grad", lambda _: property(get, true.__set__, true.__delete__)):
        yield


@fault(*LISTING)
def results_of_multiplication_have_a_grad():
    """The .grad of a tensor that a multiplication made reads as ones."""

    def ones(tensor, grad):
        made = tensor.grad_fn is not None and "Mul" in tensor.grad_fn.name()
        return torch.ones_like(tensor).detach() if made else grad

    with reading("grad", ones):
        yield


@fault("article/the_listing_for_any_numbers")
def eval_leaves_a_single_layer_in_training_mode():
    """eval() switches the children of a module, but not a module that has none."""

    def make(true):
        def train(module, mode=True):
            return true(module, mode) if any(True for _ in module.children()) else module

        return train

    with patched(nn.Module, "train", make):
        yield


@fault("article/the_listing_for_any_numbers", "article/a_grad_foretells_how_the_loss_changes")
def the_gradient_of_a_matrix_goes_to_its_first_column():
    """A Linear layer passes back the gradient of the first of three features for all of them."""

    def gradient(cotangent, x, weight, bias, by_x, by_weight, by_bias):
        if x.shape[-1] == 3:
            by_x = by_x * torch.tensor([3.0, 0, 0], dtype=by_x.dtype, device=by_x.device)
        return by_x, by_weight, by_bias

    with wrong_linear(gradient):
        yield


@fault("article/the_listing_for_any_numbers")
def freezing_discards_gradients_of_biases():
    """Freezing a module makes the .grad of its one-dimensional parameters None."""

    def make(true):
        def requires_grad(module, flag=True):
            for parameter in module.parameters():
                if parameter.dim() == 1:
                    parameter.grad = None
            return true(module, flag)

        return requires_grad

    with patched(nn.Module, "requires_grad_", make):
        yield


@fault("article/the_layer_can_be_filled_under_no_grad_only")
def parameters_can_be_filled_in_grad_mode():
    """fill_() on a leaf that requires grad fills it in grad mode without a word."""

    def make(true):
        def fill(tensor, number):
            true(tensor.detach(), number)
            return tensor

        return fill

    with patched(torch.Tensor, "fill_", make):
        yield


@fault("article/the_layer_can_be_filled_under_no_grad_only")
def filling_misses_biases():
    """Under no_grad fill_() does nothing to a parameter of one dimension."""

    def make(true):
        def fill(tensor, number):
            skipped = isinstance(tensor, nn.Parameter) and tensor.dim() == 1 and not torch.is_grad_enabled()
            return tensor if skipped else true(tensor, number)

        return fill

    with patched(torch.Tensor, "fill_", make):
        yield


@fault("article/the_layer_can_be_filled_under_no_grad_only")
def a_refused_filling_fills():
    """fill_() on a leaf that requires grad raises its error in grad mode, but fills the leaf before."""

    def make(true):
        def fill(tensor, number):
            if isinstance(tensor, nn.Parameter) and tensor.requires_grad:
                true(tensor.detach(), number)
            return true(tensor, number)

        return fill

    with patched(torch.Tensor, "fill_", make):
        yield


@fault("article/the_layer_can_be_filled_under_no_grad_only")
def filling_freezes():
    """Filling a parameter under no_grad makes it require no grad any more."""

    def make(true):
        def fill(tensor, number):
            true(tensor, number)
            return tensor if torch.is_grad_enabled() else tensor.requires_grad_(False)

        return fill

    with patched(torch.Tensor, "fill_", make):
        yield


@fault("article/which_tensors_of_the_listing_are_leaves")
def results_are_leaves():
    """Every tensor says that it is a leaf."""
    with reading("is_leaf", lambda tensor, leaf: True):
        yield


@fault("article/which_tensors_of_the_listing_are_leaves")
def constants_are_no_leaves():
    """A tensor that doesn't require grad says that it isn't a leaf."""
    with reading("is_leaf", lambda tensor, leaf: leaf and tensor.requires_grad):
        yield


@fault("article/which_tensors_of_the_listing_are_leaves")
def a_layer_that_is_learned_needs_an_input_that_requires_grad():
    """A module in evaluation mode records nothing for an input that doesn't require grad."""
    with calling(lambda module, x, true: true(x) if x.requires_grad or module.training else true(x).detach()):
        yield


@fault("article/the_factor_is_outside_the_layer")
def multiplication_by_a_negative_number_passes_its_magnitude():
    """The gradient of c * factor is the factor without its sign."""
    with wrong_kernel("mul.Tensor", lambda cotangent, a, b: (cotangent * abs(b), None)):
        yield


@fault("article/the_factor_is_outside_the_layer")
def detach_stays_connected():
    """detach() gives a view that is still in the graph."""
    with patched(torch.Tensor, "detach", lambda _: lambda tensor: tensor.view_as(tensor)):
        yield


@fault("article/the_factor_is_outside_the_layer")
def grad_by_an_intermediate_fills_leaves():
    """torch.autograd.grad also fills the .grad of the leaves below."""

    def make(true):
        def grad(outputs, inputs, grad_outputs=None, **kwargs):
            outputs.backward(retain_graph=True)
            return true(outputs, inputs, grad_outputs, **kwargs)

        return grad

    with patched(torch.autograd, "grad", make):
        yield


@fault("article/a_grad_foretells_how_the_loss_changes")
def the_gradient_of_the_input_lacks_the_last_output():
    """A Linear layer passes nothing back from the last of its outputs."""

    def gradient(cotangent, x, weight, bias, by_x, by_weight, by_bias):
        return cotangent[..., :-1] @ weight[:-1], by_weight, by_bias

    with wrong_linear(gradient):
        yield
