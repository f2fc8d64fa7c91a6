"""Faults in what backward leaves in .grad."""

import torch

from . import after_backward, fault, patched, reading, wrong_kernel


@fault("accumulation/grad_is_none_before_the_first_backward")
def grad_of_a_new_leaf_is_zero():
    """The .grad of a leaf reads as zeros where it is None."""

    def zeros(tensor, grad):
        if grad is None and tensor.is_leaf and tensor.requires_grad:
            return torch.zeros_like(tensor).detach()
        return grad

    with reading("grad", zeros):
        yield


@fault("accumulation/the_first_backward_makes_a_grad_like_the_leaf")
def grad_loses_its_dtype():
    """Backward leaves a float32 leaf a .grad that reads as float64."""
    with reading("grad", lambda _, grad: grad.double() if grad is not None else None):
        yield


@fault("accumulation/the_first_backward_makes_a_grad_like_the_leaf")
def grad_requires_grad():
    """The .grad that backward makes requires grad."""

    def require(leaf, before):
        leaf.grad.requires_grad_()

    with after_backward(require):
        yield


@fault(
    "accumulation/backward_adds_to_the_grad_of_a_leaf",
    "accumulation/the_gradients_of_separate_losses_add_up",
    "accumulation/backward_adds_to_a_grad_that_the_user_set",
)
def backward_overwrites_grad():
    """Backward puts its gradient into .grad in place of what was there."""

    def forget(leaf, before):
        if before is not None:
            leaf.grad -= before

    with after_backward(forget):
        yield


@fault("accumulation/backward_adds_to_the_grad_of_a_leaf")
def third_backward_is_lost():
    """The third backward in a row leaves .grad as the second left it."""

    def forget(leaf, before):
        if leaf.grad._version == 3:
            leaf.grad.copy_(before)

    with after_backward(forget):
        yield


@fault("accumulation/every_use_of_a_leaf_counts")
def only_the_first_use_counts():
    """In a sum of two scalars that require grad the second one gets no gradient."""

    def gradient(cotangent, a, b, *alpha):
        both = a.dim() == 0 and all(isinstance(x, torch.Tensor) and x.requires_grad for x in (a, b))
        return cotangent, torch.zeros_like(cotangent) if both else cotangent

    with wrong_kernel("add.Tensor", gradient):
        yield


@fault("accumulation/clearing_or_zeroing_grad_starts_anew")
def zero_leaves_grad_as_it_is():
    """zero_() does nothing to a tensor that doesn't require grad."""
    with patched(torch.Tensor, "zero_", lambda _: lambda tensor: tensor):
        yield


@fault("accumulation/a_leaf_that_the_loss_does_not_depend_on_keeps_its_grad")
def grad_of_an_unused_leaf_is_zero():
    """The .grad of a leaf reads as zeros where backward left None."""

    def zeros(tensor, grad):
        return torch.zeros_like(tensor).detach() if grad is None else grad

    with reading("grad", zeros):
        yield


@fault("accumulation/later_backwards_write_into_the_same_grad")
def each_backward_makes_a_new_grad():
    """Backward adds up out of place: .grad is a new tensor each time."""

    def renew(leaf, before):
        leaf.grad = leaf.grad.clone()
        if before is not None:
            leaf.grad = before + (leaf.grad - before)

    with after_backward(renew):
        yield


@fault("accumulation/with_create_graph_backward_leaves_the_old_grad_alone")
def create_graph_is_ignored():
    """backward(create_graph=True) does what it does without."""

    def make(true):
        def backward(tensors, grad_tensors=None, retain_graph=None, create_graph=False, **kwargs):
            true(tensors, grad_tensors, retain_graph, False, **kwargs)

        return backward

    with patched(torch.autograd, "backward", make):
        yield


@fault("accumulation/grad_takes_no_tensor_of_another_shape_or_dtype")
def grad_takes_any_tensor():
    """Setting .grad ignores a tensor that doesn't fit, without an error."""
    true = torch._C._TensorBase.grad

    def assign(tensor, grad):
        if grad is None or (grad.shape, grad.dtype) == (tensor.shape, tensor.dtype):
            true.__set__(tensor, grad)

    with patched(torch.Tensor, "grad", lambda _: property(true.__get__, assign, true.__delete__)):
        yield


@fault("accumulation/grad_lies_in_memory_like_the_leaf")
def grad_is_always_contiguous():
    """Backward leaves a contiguous .grad, however the leaf lies in memory."""

    def lay_out(leaf, before):
        if before is None:
            leaf.grad = leaf.grad.contiguous()

    with after_backward(lay_out):
        yield


@fault("accumulation/grad_lies_in_memory_like_the_leaf")
def adding_to_grad_lays_it_out_like_the_leaf():
    """A backward that adds to a .grad with strides of its own gives it those of the leaf."""

    def lay_out(leaf, before):
        if before is not None:
            leaf.grad = torch.empty_like(leaf).copy_(leaf.grad)

    with after_backward(lay_out):
        yield
