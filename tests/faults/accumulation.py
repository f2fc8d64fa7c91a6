"""Faults in what backward leaves in .grad."""

import torch

from . import after_backward, fault, leaves_below, patched, reading, wrong_kernel


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


@fault(
    "accumulation/with_create_graph_backward_leaves_the_old_grad_alone",
    "sparse_gradients/with_create_graph_a_sparse_gradient_must_not_come_first",
    "sparse_gradients/sparse_gradients_are_added_in_place_unless_grad_becomes_dense",
)
def create_graph_is_ignored():
    """backward(create_graph=True) does what it does without."""

    def make(true):
        def backward(tensors, grad_tensors=None, retain_graph=None, create_graph=False, **kwargs):
            true(tensors, grad_tensors, retain_graph, False, **kwargs)

        return backward

    with patched(torch.autograd, "backward", make):
        yield


def setting_grad(assign):
    """A fault that lets `assign(set, tensor, grad)` do what setting .grad does; `set` does it truly."""
    true = torch._C._TensorBase.grad
    put = property(true.__get__, lambda tensor, grad: assign(true.__set__, tensor, grad), true.__delete__)
    return patched(torch.Tensor, "grad", lambda _: put)


def fits(tensor, grad):
    """Whether the grad can be put into .grad of the tensor."""
    if grad is None:
        return True
    return isinstance(grad, torch.Tensor) and (grad.shape, grad.dtype) == (tensor.shape, tensor.dtype)


@fault("accumulation/grad_takes_no_tensor_of_another_shape_or_dtype")
def grad_takes_any_tensor():
    """Setting .grad ignores a tensor that doesn't fit, without an error."""
    with setting_grad(lambda put, tensor, grad: put(tensor, grad) if fits(tensor, grad) else None):
        yield


@fault("accumulation/grad_takes_no_tensor_of_another_shape_or_dtype")
def grad_is_squeezed_into_shape():
    """Setting .grad takes a tensor with dimensions of one too many."""

    def assign(put, tensor, grad):
        if isinstance(grad, torch.Tensor) and grad.numel() == tensor.numel() and grad.dtype is tensor.dtype:
            grad = grad.view(tensor.shape)
        put(tensor, grad)

    with setting_grad(assign):
        yield


@fault("accumulation/grad_takes_no_tensor_of_another_shape_or_dtype")
def false_clears_grad():
    """Setting .grad to False sets it to None."""
    with setting_grad(lambda put, tensor, grad: put(tensor, None if grad is False else grad)):
        yield


@fault("accumulation/grad_takes_no_tensor_of_another_shape_or_dtype")
def a_refused_grad_clears_the_old_one():
    """Setting .grad to a tensor of another dtype raises its error, but leaves None."""

    def assign(put, tensor, grad):
        if isinstance(grad, torch.Tensor) and grad.dtype is not tensor.dtype:
            put(tensor, None)
        put(tensor, grad)

    with setting_grad(assign):
        yield


@fault(
    "accumulation/a_grad_can_be_a_part_of_a_larger_tensor",
    "accumulation/leaves_that_were_given_one_grad_add_up_in_it",
)
def setting_grad_makes_a_copy():
    """Setting .grad puts a copy of the tensor there."""
    with setting_grad(lambda put, x, grad: put(x, grad.clone() if fits(x, grad) and grad is not None else grad)):
        yield


@fault("accumulation/a_grad_can_be_a_part_of_a_larger_tensor")
def a_grad_that_is_a_view_is_replaced():
    """Backward puts a new tensor in the place of a .grad that is a view."""

    def renew(leaf, before):
        if leaf.grad._base is not None:
            new, old = leaf.grad.clone(), leaf.grad
            leaf.grad = new
            old.copy_(before)

    with after_backward(renew):
        yield


@fault("accumulation/leaves_that_were_given_one_grad_add_up_in_it")
def a_grad_that_two_leaves_have_counts_the_last_only():
    """Where leaves have one .grad, backward leaves there what the first of them gets."""

    def make(true):
        def backward(tensors, *args, **kwargs):
            leaves = leaves_below(tensors)
            before = None if leaves[0].grad is None else leaves[0].grad.clone()
            true(tensors, *args, **kwargs)
            if before is not None and len({id(leaf.grad) for leaf in leaves}) < len(leaves):
                leaves[0].grad.copy_(before)

        return backward

    with patched(torch.autograd, "backward", make):
        yield


@fault("accumulation/backward_cannot_add_to_a_grad_whose_elements_share_memory")
def an_expanded_grad_is_copied():
    """Setting .grad copies a tensor whose elements share memory."""
    with setting_grad(lambda put, x, grad: put(x, grad.contiguous() if fits(x, grad) and grad is not None else grad)):
        yield


@fault("accumulation/backward_cannot_add_to_a_grad_whose_elements_share_memory")
def a_failing_backward_clears_grad():
    """A backward that raises an error sets .grad of the leaves to None."""

    def make(true):
        def backward(tensors, *args, **kwargs):
            try:
                true(tensors, *args, **kwargs)
            except RuntimeError:
                for leaf in leaves_below(tensors):
                    leaf.grad = None
                raise

        return backward

    with patched(torch.autograd, "backward", make):
        yield


@fault("accumulation/clearing_or_zeroing_grad_starts_anew")
def deleting_grad_keeps_it():
    """`del x.grad` does nothing."""
    true = torch._C._TensorBase.grad
    kept = property(true.__get__, true.__set__, lambda tensor: None)
    with patched(torch.Tensor, "grad", lambda _: kept):
        yield


@fault("accumulation/what_is_written_into_grad_counts")
def negative_numbers_in_grad_are_forgotten():
    """Backward takes a negative number in .grad for zero."""

    def forget(leaf, before):
        if before is not None:
            leaf.grad -= before.clamp(max=0)

    with after_backward(forget):
        yield


@fault("accumulation/what_is_written_into_grad_counts")
def a_grad_that_was_written_often_is_overwritten():
    """Backward overwrites a .grad that was written six times or more."""

    def forget(leaf, before):
        if before is not None and leaf.grad._version >= 6:
            leaf.grad -= before

    with after_backward(forget):
        yield


@fault("accumulation/a_leaf_without_influence_gets_zeros")
def a_grad_of_zeros_becomes_none():
    """Backward leaves None where there was None and all derivatives are zero."""

    def forget(leaf, before):
        if before is None and not leaf.grad.any():
            leaf.grad = None

    with after_backward(forget):
        yield


@fault("accumulation/a_leaf_without_influence_gets_zeros")
def rounding_passes_the_gradient_on():
    """The derivative of round is 1."""
    with wrong_kernel("round", lambda cotangent, x: (cotangent,)):
        yield


@fault("accumulation/a_leaf_without_influence_gets_zeros")
def the_larger_of_two_is_always_the_first():
    """maximum passes all of its gradient on to its first operand."""
    with wrong_kernel("maximum", lambda cotangent, a, b: (cotangent, torch.zeros_like(cotangent))):
        yield


@fault("accumulation/leaves_that_get_the_same_gradient_get_one_each")
def equal_grads_are_one_tensor():
    """Backward leaves one tensor as the .grad of all leaves of one shape whose gradients are equal."""

    def make(true):
        def backward(tensors, *args, **kwargs):
            true(tensors, *args, **kwargs)
            first, *others = leaves_below(tensors)
            for leaf in others:
                if leaf.shape == first.shape and leaf.dtype is first.dtype and torch.equal(leaf.grad, first.grad):
                    leaf.grad = first.grad

        return backward

    with patched(torch.autograd, "backward", make):
        yield


@fault("accumulation/leaves_that_get_the_same_gradient_get_one_each")
def the_last_of_four_leaves_shares_its_grad():
    """If four leaves are reached, two of them share their .grad."""

    def make(true):
        def backward(tensors, *args, **kwargs):
            true(tensors, *args, **kwargs)
            leaves = leaves_below(tensors)
            if len(leaves) == 4 and leaves[0].shape == leaves[3].shape:
                leaves[3].grad = leaves[0].grad

        return backward

    with patched(torch.autograd, "backward", make):
        yield


@fault(
    "accumulation/leaves_that_are_added_through_views_share_their_grad",
    "accumulation/leaves_of_no_dimension_that_are_stacked_and_summed_share_their_grad",
)
def the_first_grad_has_memory_of_its_own():
    """The first backward leaves a .grad that shares memory with nothing else."""

    def renew(leaf, before):
        if before is None:
            leaf.grad = leaf.grad.clone()

    with after_backward(renew):
        yield
