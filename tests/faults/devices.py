"""Faults in where gradients are, in copies between devices and in what devices do together."""

import contextlib

import torch

from . import after_backward, fault, patched, reading
from .execution import changed_run


@contextlib.contextmanager
def changed_copies(change):
    """Let to() give change(copy, tensor) if it copies a tensor to another device."""

    def make(true):
        def to(tensor, *args, **options):
            copy = true(tensor, *args, **options)
            return change(copy, tensor) if copy.device != tensor.device else copy

        return to

    with patched(torch.Tensor, "to", make):
        yield


@fault(
    "devices/a_copy_to_another_device_passes_the_gradient_back",
    "devices/each_leaf_gets_its_gradient_on_its_own_device",
    "devices/a_graph_may_span_devices",
)
def a_copy_between_devices_doubles_the_gradient():
    """A copy to another device that to() makes passes twice its gradient back."""

    def doubled(copy, tensor):
        if copy.requires_grad:
            copy.register_hook(lambda gradient: gradient * 2)
        return copy

    with changed_copies(doubled):
        yield


@fault("devices/a_copy_to_another_device_passes_the_gradient_back")
def a_copy_back_to_the_cpu_loses_its_gradient():
    """What cpu() copies from a device passes nothing but zeros back."""

    def make(true):
        def cpu(tensor, *args, **options):
            copy = true(tensor, *args, **options)
            if copy.requires_grad and copy is not tensor:
                copy.register_hook(torch.zeros_like)
            return copy

        return cpu

    with patched(torch.Tensor, "cpu", make):
        yield


@fault("devices/a_copy_of_a_leaf_is_a_result_on_its_own_device")
def a_retained_grad_is_on_the_cpu():
    """The .grad that a result retains is read as a copy on the CPU."""

    def spoil(tensor, grad):
        return grad if grad is None or tensor.is_leaf else grad.cpu()

    with reading("grad", spoil):
        yield


@fault("devices/a_copy_of_a_leaf_is_a_result_on_its_own_device")
def a_copy_on_another_device_is_a_leaf():
    """A copy to another device is detached, and requires grad if the tensor does."""
    with changed_copies(lambda copy, tensor: copy.detach().requires_grad_(tensor.requires_grad)):
        yield


@fault("devices/each_leaf_gets_its_gradient_on_its_own_device")
def backward_overwrites_the_grad_of_leaves_on_devices():
    """The .grad of a leaf that isn't on the CPU is replaced by each backward."""

    def spoil(leaf, before):
        if leaf.device.type != "cpu" and before is not None:
            leaf.grad -= before

    with after_backward(spoil):
        yield


@fault("devices/a_graph_may_span_devices")
def leaves_on_the_cpu_get_no_zeros():
    """After a backward the .grad of a leaf on the CPU is None if it is zero."""

    def spoil(leaf, before):
        if leaf.device.type == "cpu" and leaf.grad is not None and not leaf.grad.any():
            leaf.grad = None

    with after_backward(spoil):
        yield


@fault(
    "devices/grad_takes_no_tensor_of_another_kind_of_device",
    "devices/grad_takes_no_tensor_of_another_device_of_the_same_kind",
)
def a_grad_that_is_set_is_moved():
    """A tensor on another device that .grad is set to is copied to the device of the leaf."""
    true = torch._C._TensorBase.grad

    def put(tensor, grad):
        moved = isinstance(grad, torch.Tensor) and grad.device != tensor.device
        true.__set__(tensor, grad.to(tensor.device) if moved else grad)

    with patched(torch.Tensor, "grad", lambda _: property(true.__get__, put, true.__delete__)):
        yield


@fault("devices/a_gradient_from_another_device_is_refused")
def gradients_from_other_devices_are_moved():
    """A gradient passed to backward or grad is copied to the device of its root."""

    def change(true, roots, gradients, *rest, **options):
        moved = [g if g is None else g.to(root.device) for root, g in zip(roots, gradients, strict=True)]
        return true(roots, tuple(moved), *rest, **options)

    with changed_run(change):
        yield


@fault("devices/a_gradient_of_no_dimensions_may_come_from_another_device")
def gradients_from_other_devices_count_as_one():
    """A gradient on another device than its root is taken for ones."""

    def change(true, roots, gradients, *rest, **options):
        gradients = [
            torch.ones_like(g) if g is not None and g.device != root.device else g
            for root, g in zip(roots, gradients, strict=True)
        ]
        return true(roots, tuple(gradients), *rest, **options)

    with changed_run(change):
        yield


@fault("devices/an_operation_between_devices_is_an_error_that_changes_nothing")
def operands_of_a_product_are_brought_together():
    """The second operand of a product is copied to the device of the first."""

    def make(true):
        def mul(a, b):
            return true(a, b.to(a.device) if isinstance(b, torch.Tensor) and b.dim() else b)

        return mul

    with patched(torch.Tensor, "__mul__", make):
        yield


@fault("devices/an_operation_between_devices_is_an_error_that_changes_nothing")
def a_write_from_another_device_is_counted_before_it_fails():
    """add_() counts the write before it finds that its argument is on another device."""

    def make(true):
        def add_(tensor, other, **options):
            if isinstance(other, torch.Tensor) and other.device != tensor.device:
                torch.autograd.graph.increment_version(tensor)
            return true(tensor, other, **options)

        return add_

    with patched(torch.Tensor, "add_", make):
        yield


@fault("devices/a_number_on_the_cpu_is_used_with_tensors_of_a_device")
def numbers_on_the_cpu_get_half_of_their_gradient():
    """After a backward the .grad of a leaf of no dimensions on the CPU is half of what it was."""

    def spoil(leaf, before):
        if leaf.device.type == "cpu" and leaf.dim() == 0 and leaf.grad is not None:
            leaf.grad /= 2

    with after_backward(spoil):
        yield


@fault("devices/positions_on_the_cpu_index_a_tensor_of_a_device")
def backward_loses_the_first_row_on_devices():
    """After a backward the first row of the .grad of a leaf on a device is zero."""

    def spoil(leaf, before):
        if leaf.device.type != "cpu" and leaf.dim() and leaf.grad is not None and len(leaf.grad):
            leaf.grad[0] = 0

    with after_backward(spoil):
        yield


@fault("devices/the_current_device_decides_for_new_tensors_only")
def backward_makes_another_device_the_current_one():
    """After a backward the device that follows that of the root is the current one."""

    def change(true, roots, *rest, **options):
        result = true(roots, *rest, **options)
        if roots[0].device.type != "cpu":
            kind = getattr(torch, roots[0].device.type)
            kind.set_device((kind.current_device() + 1) % kind.device_count())
        return result

    with changed_run(change):
        yield
