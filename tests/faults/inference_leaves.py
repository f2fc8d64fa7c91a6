"""Faults in what becomes of leaves and modules that are made inside inference mode."""

import torch

from . import fault, patched, reading
from .inference_mode import inferring
from .inference_tensors import of_inference_tensors


@fault("inference_leaves/a_leaf_made_inside_is_recorded_outside_together_with_normal_tensors")
def differences_with_inference_leaves_are_not_recorded():
    """A number less a leaf that inference mode made is not recorded."""
    with of_inference_tensors(torch.Tensor, "__rsub__", lambda true, t, other: true(t.detach(), other)):
        yield


@fault("inference_leaves/a_leaf_made_inside_is_recorded_outside_together_with_normal_tensors")
def grads_of_inference_leaves_are_inference_tensors():
    """The .grad of an inference tensor is an inference tensor."""

    def spoil(tensor, grad):
        if grad is None or not tensor.is_inference():
            return grad
        with inferring(True):
            return grad.clone()

    with reading("grad", spoil):
        yield


@fault("inference_leaves/a_leaf_made_inside_is_not_recorded_outside_by_itself")
def sums_of_inference_leaves_are_recorded():
    """sum() of a leaf that inference mode made is recorded outside."""
    with of_inference_tensors(torch.Tensor, "sum", lambda true, t: true(t.clone())):
        yield


@fault("inference_leaves/a_leaf_made_inside_is_not_recorded_outside_by_itself")
def views_of_inference_leaves_require_grad():
    """unsqueeze() of a leaf that inference mode made requires grad."""
    with of_inference_tensors(torch.Tensor, "unsqueeze", lambda true, t, dim: true(t.clone(), dim)):
        yield


@fault("inference_leaves/a_module_made_inside_is_trained_by_way_of_a_copy")
def deep_copies_of_inference_parameters_are_inference_parameters():
    """copy.deepcopy of a parameter that inference mode made makes an inference tensor."""

    def change(true, parameter, memo):
        with inferring(True):
            return true(parameter, memo)

    with of_inference_tensors(torch.nn.Parameter, "__deepcopy__", change):
        yield


@fault("inference_leaves/a_module_made_inside_is_trained_by_way_of_a_copy")
def modules_made_inside_have_normal_parameters():
    """nn.Parameter makes normal tensors in inference mode."""

    def make(true):
        def new(cls, data=None, requires_grad=True):
            with inferring(False):
                return true(cls, data.clone(), requires_grad)

        return staticmethod(new)

    with patched(torch.nn.Parameter, "__new__", make):
        yield
