"""Faults in what becomes of gradients, derivatives and histories in inference mode."""

import torch
import torch.autograd.functional

from . import fault, patched
from .inference_mode import inferring, normally, when_inferring


def as_outside(true, *args, **kwargs):
    """Run an operation as if inference mode were off."""
    with inferring(False):
        return true(*args, **kwargs)


@fault("inference_backward/backward_inside_gives_inference_tensors")
def backward_inside_is_lost_for_several_leaves():
    """backward() in inference mode puts zeros into .grad."""

    def change(true, tensors, *args, **kwargs):
        true(tensors, *args, **kwargs)
        for root in [tensors] if isinstance(tensors, torch.Tensor) else tensors:
            if root.grad_fn is not None:
                for node, _ in root.grad_fn.next_functions:
                    if hasattr(node, "variable") and node.variable.grad is not None:
                        node.variable.grad = torch.zeros_like(node.variable.grad)

    with when_inferring(torch.autograd, "backward", change):
        yield


@fault(
    "inference_backward/backward_inside_gives_inference_tensors",
    "inference_backward/create_graph_records_nothing_inside",
    "inference_backward/a_grad_made_inside_takes_no_more_gradients_outside",
)
def backward_leaves_inference_mode():
    """backward() and grad() run as if inference mode were off."""
    with when_inferring(torch.autograd, "backward", as_outside), when_inferring(torch.autograd, "grad", as_outside):
        yield


@fault("inference_backward/functional_derivatives_inside_are_silently_zero")
def functional_derivatives_are_right_in_inference_mode():
    """The Jacobian is right in inference mode as well."""
    with when_inferring(torch.autograd.functional, "jacobian", normally):
        yield


@fault("inference_backward/functional_derivatives_inside_are_silently_zero")
def the_hessian_of_a_scalar_is_one_in_inference_mode():
    """The Hessian in inference mode is 1 where there is a single element."""

    def change(true, *args):
        found = true(*args)
        return found + 1 if found.numel() == 1 else found

    with when_inferring(torch.autograd.functional, "hessian", change):
        yield


@fault(
    "inference_backward/transforms_compute_derivatives_inside",
    "inference_backward/transforms_inside_are_silently_zero",
)
def gradients_by_transforms_are_not_zero_in_inference_mode():
    """torch.func.grad gives ones in inference mode."""
    with when_inferring(torch.func, "grad", lambda true, function: lambda x: torch.ones_like(x)):
        yield


@fault("inference_backward/transforms_compute_derivatives_inside")
def gradients_by_transforms_are_zero_in_inference_mode():
    """torch.func.vjp gives zeros in inference mode."""

    def change(true, function, x):
        value, pull = true(function, x)
        return value, lambda cotangent: tuple(torch.zeros_like(g) for g in pull(cotangent))

    with when_inferring(torch.func, "vjp", change):
        yield


@fault("inference_backward/optimizer_state_made_inside_is_of_no_use_outside")
def optimizers_step_outside_of_inference_mode():
    """SGD makes its state as if inference mode were off."""
    with when_inferring(torch.optim.SGD, "step", as_outside):
        yield


@fault("inference_backward/optimizer_state_made_inside_is_of_no_use_outside")
def steps_in_inference_mode_do_nothing():
    """Adam's step in inference mode changes no parameter."""

    def change(true, optimizer):
        old = [p.clone() for group in optimizer.param_groups for p in group["params"]]
        true(optimizer)
        for p, values in zip((p for group in optimizer.param_groups for p in group["params"]), old, strict=True):
            p.copy_(values)

    with when_inferring(torch.optim.Adam, "step", change):
        yield


@fault("inference_backward/views_of_real_parts_can_lose_their_history_inside")
def views_tell_in_inference_mode_that_they_are_leaves():
    """is_leaf is false wherever it can't be told."""

    def get(tensor):
        try:
            return torch._C._TensorBase.is_leaf.__get__(tensor)
        except RuntimeError:
            return False

    with patched(torch.Tensor, "is_leaf", lambda _: property(get)):
        yield


@fault("inference_backward/a_cotangent_can_be_an_inference_tensor")
def inference_tensors_are_no_cotangents():
    """Where an inference tensor is passed as a gradient it is taken for ones."""

    def make(true):
        def backward(tensors, grads=None, *args, **kwargs):
            grads = [torch.ones_like(g.clone()) if g.is_inference() else g for g in grads or []] or None
            true(tensors, grads, *args, **kwargs)

        return backward

    with patched(torch.autograd, "backward", make):
        yield


@fault("inference_backward/a_cotangent_can_be_an_inference_tensor")
def backward_writes_into_cotangents_that_are_inference_tensors():
    """grad() zeroes the last of the gradients passed if it is an inference tensor."""

    def make(true):
        def grad(outputs, inputs, cotangents, **kwargs):
            found = true(outputs, inputs, cotangents, **kwargs)
            if cotangents[-1].is_inference():
                cotangents[-1].data.zero_()
            return found

        return grad

    with patched(torch.autograd, "grad", make):
        yield


@fault(
    "inference_backward/hooks_for_saved_tensors_may_give_inference_tensors",
    "inference_backward/hooks_for_saved_tensors_may_not_give_inference_tensors",
)
def unpacked_inference_tensors_count_twice():
    """An inference tensor that a hook unpacks is doubled."""

    def make(true):
        def init(hooks, pack, unpack):
            def doubled(packed):
                unpacked = unpack(packed)
                return unpacked * 2 if unpacked.is_inference() else unpacked

            true(hooks, pack, doubled)

        return init

    with patched(torch.autograd.graph.saved_tensors_hooks, "__init__", make):
        yield
