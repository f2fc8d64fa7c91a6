"""Faults in freezing modules, and in resetting their gradients."""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import nn

from . import fault, leaves_below, patched, reading
from .modules import calling

FREEZING = (
    "freezing/requires_grad_freezes_a_whole_module",
    "freezing/freezing_a_part_leaves_the_other_gradients_exact",
)
ZEROING = (
    "freezing/zero_grad_resets_the_gradients_of_all_parameters",
    "freezing/zero_grad_sets_grad_to_none",
)


@fault(*FREEZING)
def freezing_leaves_children_out():
    """requires_grad_() of a module sets the flags of its own parameters only."""

    def requires_grad(module, flag=True):
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(flag)
        return module

    with patched(nn.Module, "requires_grad_", lambda _: requires_grad):
        yield


@fault("freezing/requires_grad_freezes_a_whole_module")
def freezing_forgets_the_last_parameter():
    """requires_grad_() of a module leaves out the last of several parameters."""

    def requires_grad(module, flag=True):
        parameters = list(module.parameters())
        for parameter in parameters[:-1] if len(parameters) > 1 else parameters:
            parameter.requires_grad_(flag)
        return module

    with patched(nn.Module, "requires_grad_", lambda _: requires_grad):
        yield


@fault("freezing/requires_grad_freezes_a_whole_module")
def freezing_clears_gradients():
    """requires_grad_() of a module makes its gradients None."""

    def make(true):
        def requires_grad(module, flag=True):
            for parameter in module.parameters():
                parameter.grad = None
            return true(module, flag)

        return requires_grad

    with patched(nn.Module, "requires_grad_", make):
        yield


@fault("freezing/requires_grad_freezes_a_whole_module")
def thawing_clears_gradients():
    """requires_grad_(True) of a module makes the gradients of parameters that were frozen None."""

    def make(true):
        def requires_grad(module, flag=True):
            for parameter in module.parameters():
                if flag and not parameter.requires_grad:
                    parameter.grad = None
            return true(module, flag)

        return requires_grad

    with patched(nn.Module, "requires_grad_", make):
        yield


@fault("freezing/requires_grad_freezes_a_whole_module")
def freezing_cannot_be_undone():
    """requires_grad_() of a module freezes it whatever flag it is given."""
    with patched(nn.Module, "requires_grad_", lambda true: lambda module, flag=True: true(module, False)):
        yield


@fault("freezing/a_frozen_module_records_only_what_its_input_asks_for")
def a_frozen_module_cuts_off_its_input():
    """A module all of whose parameters are frozen detaches what it is given."""

    def cut(module, x, true):
        parameters = list(module.parameters())
        return true(x.detach()) if parameters and not any(p.requires_grad for p in parameters) else true(x)

    with calling(cut):
        yield


@fault(*FREEZING)
def a_frozen_weight_stops_the_gradient_of_the_input():
    """A Linear layer whose weight is frozen passes zeros back to its input."""

    def make(true):
        def linear(x, weight, bias=None):
            return true(x, weight, bias) if weight.requires_grad else true(x.detach(), weight, bias) + 0 * x.sum()

        return linear

    with patched(nn.functional, "linear", make):
        yield


@fault("freezing/freezing_a_part_leaves_the_other_gradients_exact")
def freezing_the_weight_freezes_the_bias():
    """A Linear layer whose weight is frozen gives its bias no gradient."""

    def make(true):
        def linear(x, weight, bias=None):
            return true(x, weight, bias if bias is None or weight.requires_grad else bias.detach())

        return linear

    with patched(nn.functional, "linear", make):
        yield


@fault("freezing/freezing_a_part_leaves_the_other_gradients_exact")
def freezing_one_parameter_freezes_its_module():
    """A module one of whose own parameters is frozen records nothing for the others."""

    def make(true):
        def linear(x, weight, bias=None):
            if bias is not None and not bias.requires_grad:
                weight = weight.detach()
            return true(x, weight, bias)

        return linear

    with patched(nn.functional, "linear", make):
        yield


@fault("freezing/a_parameter_is_learned_if_it_requires_grad_in_both_passes")
def freezing_after_the_forward_comes_too_late():
    """Backward fills the .grad of every leaf in the graph, whether it still requires grad or not."""

    def make(true):
        def backward(tensors, *args, **kwargs):
            frozen = [leaf for leaf in leaves_below(tensors) if not leaf.requires_grad]
            for leaf in frozen:
                leaf.requires_grad_(True)
            true(tensors, *args, **kwargs)
            for leaf in frozen:
                leaf.requires_grad_(False)

        return backward

    with patched(torch.autograd, "backward", make):
        yield


@fault("freezing/a_parameter_is_learned_if_it_requires_grad_in_both_passes")
def unfreezing_after_the_forward_gives_zeros():
    """A two-dimensional parameter that requires grad and isn't in the graph has zeros for a gradient."""

    def zeros(tensor, grad):
        if grad is None and isinstance(tensor, nn.Parameter) and tensor.requires_grad and tensor.dim() == 2:
            return torch.zeros_like(tensor).detach()
        return grad

    with reading("grad", zeros):
        yield


@fault("freezing/a_frozen_module_records_only_what_its_input_asks_for")
def outputs_of_modules_require_grad():
    """What a module gives in grad mode requires grad, whether anything below it does or not."""

    def require(module, x, true):
        y = true(x)
        return y.detach().requires_grad_() if torch.is_grad_enabled() and not y.requires_grad else y

    with calling(require):
        yield


@fault("freezing/a_frozen_module_records_only_what_its_input_asks_for")
def frozen_modules_free_themselves_in_training():
    """A module in training mode that is called on a constant makes its parameters require grad."""

    def free(module, x, true):
        if module.training and not x.requires_grad:
            for parameter in module.parameters():
                parameter.requires_grad_(True)
        return true(x)

    with calling(free):
        yield


@contextlib.contextmanager
def zeroing(spoil: Callable[..., None]) -> Iterator[None]:
    """Let zero_grad() do spoil(module, set_to_none, what it does truly)."""

    def make(true: Callable[..., None]) -> Callable[..., None]:
        return lambda module, set_to_none=True: spoil(
            module, set_to_none, lambda part, flag: true(part, set_to_none=flag)
        )

    with patched(nn.Module, "zero_grad", make):
        yield


@fault("freezing/zero_grad_resets_the_gradients_of_all_parameters")
def zero_grad_leaves_frozen_parameters_alone():
    """zero_grad() resets the gradients of those parameters only that require grad."""

    def spoil(module, set_to_none, true):
        kept = [(p, p.grad.clone(), p.grad) for p in module.parameters() if not p.requires_grad and p.grad is not None]
        true(module, set_to_none)
        for parameter, values, grad in kept:
            parameter.grad = grad.copy_(values)

    with zeroing(spoil):
        yield


@fault("freezing/zero_grad_resets_the_gradients_of_all_parameters")
def zero_grad_thaws_parameters():
    """zero_grad() lets every parameter require grad again."""

    def spoil(module, set_to_none, true):
        true(module, set_to_none)
        for parameter in module.parameters():
            parameter.requires_grad_()

    with zeroing(spoil):
        yield


@fault("freezing/zero_grad_resets_the_gradients_of_all_parameters")
def zero_grad_does_not_zero_in_place():
    """zero_grad(set_to_none=False) puts new tensors into .grad."""

    def spoil(module, set_to_none, true):
        true(module, set_to_none)
        for parameter in module.parameters():
            parameter.grad = None if parameter.grad is None else parameter.grad.clone()

    with zeroing(spoil):
        yield


@fault("freezing/zero_grad_resets_the_gradients_of_all_parameters")
def zero_grad_fills_in_missing_gradients():
    """zero_grad(set_to_none=False) makes zeros where .grad is None."""

    def spoil(module, set_to_none, true):
        true(module, set_to_none)
        for parameter in () if set_to_none else module.parameters():
            if parameter.grad is None and parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter).detach()

    with zeroing(spoil):
        yield


@fault("freezing/zero_grad_resets_the_gradients_of_all_parameters", "freezing/zero_grad_sets_grad_to_none")
def zero_grad_always_zeroes():
    """zero_grad() fills gradients with zeros whatever set_to_none says."""
    with zeroing(lambda module, set_to_none, true: true(module, False)):
        yield


@fault(*ZEROING, "freezing/zero_grad_fills_grad_with_zeros")
def zero_grad_resets_the_first_parameter_only():
    """zero_grad() resets the gradient of the first parameter only."""

    def spoil(module, set_to_none, true):
        rest = [(p, p.grad, None if p.grad is None else p.grad.clone()) for p in list(module.parameters())[1:]]
        true(module, set_to_none)
        for parameter, grad, values in rest:
            parameter.grad = None if grad is None else grad.copy_(values)

    with zeroing(spoil):
        yield


@fault("freezing/zero_grad_sets_grad_to_none", "freezing/zero_grad_fills_grad_with_zeros")
def zero_grad_does_nothing():
    """zero_grad() leaves gradients as they are."""
    with zeroing(lambda module, set_to_none, true: None):
        yield


@fault("freezing/zeroed_gradients_have_no_history")
def zero_grad_keeps_the_history():
    """zero_grad(set_to_none=False) zeroes gradients without detaching them."""

    def spoil(module, set_to_none, true):
        for parameter in module.parameters():
            if parameter.grad is not None and not set_to_none:
                parameter.grad.mul_(0)
            elif set_to_none:
                parameter.grad = None

    with zeroing(spoil):
        yield
