"""Faults in what goes from device to device: pinned memory, saved tensors, modules and optimizers."""

import torch

from . import fault, patched
from .optimizers import stepping


@fault("transfers/the_gradient_of_a_pinned_copy_goes_to_what_was_pinned")
def a_pinned_copy_is_a_leaf():
    """pin_memory() gives a copy without a history that requires grad if the tensor does."""

    def make(true):
        return lambda tensor, *args: true(tensor.detach(), *args).requires_grad_(tensor.requires_grad)

    with patched(torch.Tensor, "pin_memory", make):
        yield


@fault("transfers/the_gradient_of_a_pinned_copy_goes_to_what_was_pinned")
def a_pinned_copy_doubles_the_gradient():
    """The gradient of a pinned copy is passed on twice."""

    def make(true):
        def pin_memory(tensor, *args):
            copy = true(tensor, *args)
            if copy.requires_grad and copy is not tensor:
                copy.register_hook(lambda gradient: gradient * 2)
            return copy

        return pin_memory

    with patched(torch.Tensor, "pin_memory", make):
        yield


@fault("transfers/a_tensor_that_is_pinned_is_not_pinned_again")
def pinned_tensors_are_pinned_again():
    """pin_memory() copies a tensor that is in pinned memory already."""

    def make(true):
        return lambda tensor, *args: tensor.clone() if tensor.is_pinned() else true(tensor, *args)

    with patched(torch.Tensor, "pin_memory", make):
        yield


@fault("transfers/save_on_cpu_brings_what_was_saved_back_to_its_device")
def save_on_cpu_leaves_tensors_where_they_are():
    """save_on_cpu packs each saved tensor as it is."""

    def make(true):
        return lambda hooks, *args, **options: torch.autograd.graph.saved_tensors_hooks.__init__(
            hooks, lambda t: t, lambda t: t
        )

    with patched(torch.autograd.graph.save_on_cpu, "__init__", make):
        yield


@fault("transfers/save_on_cpu_brings_what_was_saved_back_to_its_device")
def save_on_cpu_leaves_tensors_on_the_cpu():
    """save_on_cpu unpacks a copy that stays on the CPU."""

    def make(true):
        return lambda hooks, *args, **options: torch.autograd.graph.saved_tensors_hooks.__init__(
            hooks, lambda t: t.cpu(), lambda t: t
        )

    with patched(torch.autograd.graph.save_on_cpu, "__init__", make):
        yield


@fault("transfers/a_module_that_moves_has_leaves_on_its_new_device")
def a_module_that_moves_forgets_gradients():
    """Module.to() of a device sets the .grad of all parameters that it moves to None."""

    def make(true):
        def to(module, device):
            old = next(iter(module.parameters())).device
            true(module, device)
            if old != torch.device(device):
                module.zero_grad(set_to_none=True)
            return module

        return to

    with patched(torch.nn.Module, "to", make):
        yield


@fault("transfers/layers_on_several_devices_learn_together")
def optimizers_leave_parameters_on_devices_out():
    """A step changes parameters on the CPU only."""

    def spoil(optimizer, true, closure):
        hidden = [p for group in optimizer.param_groups for p in group["params"] if p.device.type != "cpu"]
        kept = [p.grad for p in hidden]
        for p in hidden:
            p.grad = None
        true(closure)
        for p, grad in zip(hidden, kept, strict=True):
            p.grad = grad

    with stepping(spoil):
        yield
