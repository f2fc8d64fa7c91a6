"""Faults in the gradients of intermediate tensors: which of them are kept, and what hooks see."""

import warnings
import weakref

import torch

from . import fault, patched, reading


def retained_by(keep):
    """A fault's retain_grad that lets `keep(tensor, gradient)` put the gradient into .grad."""

    def make(true):
        def retain_grad(tensor):
            if tensor.is_leaf or tensor.retains_grad:
                return true(tensor)
            known = weakref.ref(tensor)

            def hook(gradient):
                if (found := known()) is not None:
                    with torch.no_grad():
                        keep(found, gradient)

            tensor.register_hook(hook)

        return retain_grad

    return patched(torch.Tensor, "retain_grad", make)


def kept(tensor):
    """The .grad of a tensor, read without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tensor.grad


@fault(
    "intermediates/reading_grad_of_an_intermediate_gives_none_and_warns",
    "intermediates/backward_fills_leaves_and_retained_tensors_only",
)
def grad_of_an_intermediate_reads_as_zeros():
    """The .grad of a tensor that is no leaf reads as zeros where it is None."""

    def spoil(tensor, grad):
        return torch.zeros_like(tensor).detach() if grad is None and not tensor.is_leaf else grad

    with reading("grad", spoil):
        yield


@fault("intermediates/reading_grad_of_an_intermediate_gives_none_and_warns")
def reading_grad_of_a_view_does_not_warn():
    """Reading .grad of a view that is no leaf gives no warning."""
    true = torch._C._TensorBase.grad

    def get(tensor):
        if not tensor._is_view():
            return true.__get__(tensor)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return true.__get__(tensor)

    with patched(torch.Tensor, "grad", lambda _: property(get, true.__set__, true.__delete__)):
        yield


@fault("intermediates/reading_grad_of_a_leaf_or_a_retained_tensor_is_silent")
def reading_grad_of_a_constant_warns():
    """Reading .grad of a tensor that doesn't require grad warns."""

    def spoil(tensor, grad):
        if not tensor.requires_grad:
            warnings.warn("the tensor is not a leaf", UserWarning, stacklevel=2)
        return grad

    with reading("grad", spoil):
        yield


@fault("intermediates/reading_grad_of_a_leaf_or_a_retained_tensor_is_silent")
def reading_a_retained_grad_warns_as_long_as_it_is_none():
    """Reading .grad of a tensor that retains its gradient warns before backward."""

    def spoil(tensor, grad):
        if tensor.retains_grad and grad is None:
            warnings.warn("the tensor is not a leaf", UserWarning, stacklevel=2)
        return grad

    with reading("grad", spoil):
        yield


@fault(
    "intermediates/backward_fills_leaves_and_retained_tensors_only",
    "intermediates/retains_grad_tells_which_tensors_keep_their_gradient",
    "intermediates/reading_grad_of_an_intermediate_gives_none_and_warns",
)
def products_retain_their_gradient():
    """A product retains its gradient without having been told to."""

    def make(true):
        def mul(a, b):
            result = true(a, b)
            if not result.is_leaf:
                result.retain_grad()
            return result

        return mul

    with patched(torch.Tensor, "__mul__", make):
        yield


@fault(
    "intermediates/backward_fills_leaves_and_retained_tensors_only",
    "intermediates/each_result_of_one_operation_keeps_its_own_gradient",
    "intermediates/retains_grad_tells_which_tensors_keep_their_gradient",
)
def views_do_not_retain_their_gradient():
    """retain_grad() does nothing to a view."""
    with patched(torch.Tensor, "retain_grad", lambda true: lambda x: None if x._is_view() else true(x)):
        yield


@fault(
    "intermediates/the_grad_of_a_result_is_the_gradient_by_it_not_of_it",
    "intermediates/backward_fills_leaves_and_retained_tensors_only",
    "intermediates/the_grad_of_the_root_is_the_cotangent",
    "intermediates/a_retained_grad_is_a_tensor_of_its_own",
)
def a_retained_grad_reads_as_ones():
    """The retained .grad of a tensor reads as ones."""

    def spoil(tensor, grad):
        return torch.ones_like(grad) if grad is not None and not tensor.is_leaf else grad

    with reading("grad", spoil):
        yield


@fault("intermediates/the_grad_of_a_result_is_the_gradient_by_it_not_of_it")
def half_precision_results_do_not_retain_their_gradient():
    """retain_grad() does nothing to a tensor of float16."""
    with patched(torch.Tensor, "retain_grad", lambda true: lambda x: x.dtype is torch.half or true(x)):
        yield


@fault("intermediates/the_grad_of_the_root_is_the_cotangent")
def the_root_keeps_the_cotangent_itself():
    """The retained .grad of the root is the very tensor that backward was called with."""

    def make(true):
        def backward(tensors, grad_tensors=None, *args, **kwargs):
            true(tensors, grad_tensors, *args, **kwargs)
            root = tensors if isinstance(tensors, torch.Tensor) else tensors[0]
            if root.retains_grad and grad_tensors is not None:
                root.grad = grad_tensors

        return backward

    with patched(torch.autograd, "backward", make):
        yield


@fault("intermediates/the_grad_of_the_root_is_the_cotangent")
def a_scalar_root_retains_nothing():
    """retain_grad() does nothing to a tensor of no dimension."""
    with patched(torch.Tensor, "retain_grad", lambda true: lambda x: true(x) if x.dim() else None):
        yield


@fault("intermediates/retains_grad_tells_which_tensors_keep_their_gradient")
def every_intermediate_says_that_it_retains():
    """retains_grad is True for every tensor that is no leaf."""
    with reading("retains_grad", lambda tensor, retains: not tensor.is_leaf):
        yield


@fault("intermediates/retains_grad_tells_which_tensors_keep_their_gradient")
def retains_grad_is_over_after_backward():
    """retains_grad is False once the gradient is there."""
    with reading("retains_grad", lambda tensor, retains: retains and kept(tensor) is None):
        yield


@fault("intermediates/retains_grad_tells_which_tensors_keep_their_gradient")
def a_view_of_a_retaining_tensor_says_so_too():
    """retains_grad is True for a view of a tensor that retains its gradient."""

    def spoil(tensor, retains):
        return retains or (tensor._is_view() and tensor.requires_grad and tensor._base.retains_grad)

    with reading("retains_grad", spoil):
        yield


@fault("intermediates/calling_retain_grad_again_changes_nothing")
def a_second_retain_grad_counts_twice():
    """retain_grad() on a tensor that retains its gradient already doubles it."""

    def make(true):
        def retain_grad(tensor):
            if tensor.retains_grad:
                tensor.register_hook(lambda gradient: 2 * gradient)
            true(tensor)

        return retain_grad

    with patched(torch.Tensor, "retain_grad", make):
        yield


@fault("intermediates/calling_retain_grad_again_changes_nothing")
def retain_grad_between_backwards_clears_grad():
    """retain_grad() on a tensor that has a .grad already clears it."""

    def make(true):
        def retain_grad(tensor):
            true(tensor)
            if tensor.retains_grad:
                tensor.grad = None

        return retain_grad

    with patched(torch.Tensor, "retain_grad", make):
        yield


@fault(
    "intermediates/a_retained_grad_accumulates_like_that_of_a_leaf",
    "intermediates/calling_retain_grad_again_changes_nothing",
    "intermediates/the_gradient_of_a_tensor_is_complete_when_it_is_seen",
)
def a_retained_grad_is_overwritten():
    """Each backward puts its gradient into the .grad of a retained tensor in place of what was there."""
    with retained_by(lambda tensor, gradient: setattr(tensor, "grad", gradient.clone())):
        yield


@fault("intermediates/a_retained_grad_accumulates_like_that_of_a_leaf")
def the_third_gradient_is_not_retained():
    """The third backward in a row leaves the .grad of a retained tensor as the second left it."""

    def keep(tensor, gradient):
        grad = kept(tensor)
        if grad is None:
            tensor.grad = gradient.clone()
        elif grad._version < 1:
            grad += gradient

    with retained_by(keep):
        yield


@fault("intermediates/a_retained_grad_accumulates_like_that_of_a_leaf")
def a_retained_grad_cannot_be_cleared():
    """To set the .grad of a retained tensor to None does nothing."""
    true = torch._C._TensorBase.grad

    def assign(tensor, grad):
        if grad is not None or not tensor.retains_grad:
            true.__set__(tensor, grad)

    with patched(torch.Tensor, "grad", lambda _: property(true.__get__, assign, true.__delete__)):
        yield


@fault(
    "intermediates/retain_grad_does_nothing_to_a_leaf_that_requires_grad",
    "intermediates/the_gradient_of_a_tensor_is_complete_when_it_is_seen",
)
def retain_grad_doubles_the_gradient_of_a_leaf():
    """retain_grad() on a leaf makes its gradient arrive twice."""

    def make(true):
        return lambda x: x.register_hook(lambda grad: 2 * grad) and None if x.is_leaf else true(x)

    with patched(torch.Tensor, "retain_grad", make):
        yield


@fault("intermediates/retain_grad_does_nothing_to_a_leaf_that_requires_grad")
def a_parameter_says_that_it_retains():
    """retains_grad is True for a Parameter that has a .grad."""

    def spoil(tensor, retains):
        return retains or (isinstance(tensor, torch.nn.Parameter) and tensor.grad is not None)

    with reading("retains_grad", spoil):
        yield


@fault("intermediates/retain_grad_raises_if_the_tensor_does_not_require_grad")
def retain_grad_does_nothing_to_any_leaf():
    """retain_grad() on a leaf that doesn't require grad is no error."""
    with patched(torch.Tensor, "retain_grad", lambda true: lambda x: None if x.is_leaf else true(x)):
        yield


@fault("intermediates/retain_grad_raises_if_the_tensor_does_not_require_grad")
def retain_grad_does_nothing_to_integers():
    """retain_grad() on a tensor of integers is no error."""
    with patched(torch.Tensor, "retain_grad", lambda true: lambda x: x.dtype is torch.int64 or true(x)):
        yield


@fault("intermediates/retain_grad_raises_if_the_tensor_does_not_require_grad")
def a_refused_retain_grad_makes_a_leaf_require_grad():
    """retain_grad() on a tensor that doesn't require grad raises its error, but makes it require grad."""

    def make(true):
        def retain_grad(tensor):
            try:
                true(tensor)
            except RuntimeError:
                if tensor.is_floating_point():
                    tensor.requires_grad_()
                raise

        return retain_grad

    with patched(torch.Tensor, "retain_grad", make):
        yield


@fault("intermediates/the_gradient_of_an_intermediate_is_computed_all_the_same")
def a_hook_is_called_only_if_the_gradient_is_kept():
    """A hook on a tensor that is no leaf is called only if the tensor retains its gradient."""

    def make(true):
        def register_hook(tensor, hook):
            return true(tensor, hook if tensor.is_leaf or tensor.retains_grad else lambda grad: None)

        return register_hook

    with patched(torch.Tensor, "register_hook", make):
        yield


@fault("intermediates/the_gradient_of_an_intermediate_is_computed_all_the_same")
def a_gradient_of_zeros_is_not_shown():
    """A hook isn't called if the gradient is zero."""

    def make(true):
        return lambda x, hook: true(x, lambda grad: hook(grad) if grad.any() else None)

    with patched(torch.Tensor, "register_hook", make):
        yield


@fault(
    "intermediates/the_gradient_of_a_tensor_is_complete_when_it_is_seen",
    "intermediates/the_gradient_of_an_intermediate_is_computed_all_the_same",
)
def a_hook_is_called_for_each_part_of_the_gradient():
    """A hook is called twice, with two summands of the gradient."""

    def make(true):
        def register_hook(tensor, hook):
            def twice(grad):
                hook(grad - 1)
                hook(torch.ones_like(grad))

            return true(tensor, twice)

        return register_hook

    with patched(torch.Tensor, "register_hook", make):
        yield


@fault("intermediates/each_result_of_one_operation_keeps_its_own_gradient")
def only_the_first_two_results_retain():
    """retain_grad() does nothing to the third result of an operation and those behind it."""
    with patched(torch.Tensor, "retain_grad", lambda true: lambda x: true(x) if x.output_nr < 2 else None):
        yield


@fault("intermediates/a_result_beside_the_one_that_is_used_keeps_no_gradient")
def an_unused_result_keeps_zeros():
    """The .grad of a retained tensor that backward didn't reach reads as zeros."""

    def spoil(tensor, grad):
        return torch.zeros_like(tensor).detach() if grad is None and tensor.retains_grad else grad

    with reading("grad", spoil):
        yield


@fault("intermediates/a_tensor_that_was_changed_in_place_keeps_the_gradient_by_its_new_value")
def a_change_in_place_ends_retaining():
    """retains_grad is False for a tensor that was changed in place."""
    with reading("retains_grad", lambda tensor, retains: retains and not tensor._version):
        yield


@fault("intermediates/a_tensor_that_was_changed_in_place_keeps_the_gradient_by_its_new_value")
def a_tensor_retains_the_gradient_by_its_first_value():
    """A tensor that retains its gradient keeps that with respect to what it was when it was told to."""

    def keep(tensor, gradient):
        tensor.grad = gradient.clone()

    with retained_by(keep), reading("retains_grad", lambda x, retains: retains or x._version > 0):
        yield


@fault("intermediates/a_retained_grad_is_a_tensor_of_its_own")
def a_retained_grad_shares_memory():
    """A retained .grad is the tensor that is passed on to the tensors below."""
    with retained_by(lambda tensor, gradient: setattr(tensor, "grad", gradient)):
        yield


@fault("intermediates/other_ways_to_differentiate_fill_retained_grads_too")
def backward_fills_more_than_its_inputs():
    """backward() ignores inputs=."""

    def make(true):
        return lambda tensors, *args, inputs=None, **kwargs: true(tensors, *args, **kwargs)

    with patched(torch.autograd, "backward", make):
        yield


@fault("intermediates/other_ways_to_differentiate_fill_retained_grads_too")
def grad_fills_the_leaves_as_well():
    """torch.autograd.grad leaves the gradients in the .grad of the leaves, too."""

    def make(true):
        def grad(outputs, inputs, *args, **kwargs):
            gradients = true(outputs, inputs, *args, **{**kwargs, "retain_graph": True})
            torch.autograd.backward(outputs)
            return gradients

        return grad

    with patched(torch.autograd, "grad", make):
        yield


@fault("intermediates/neither_backward_nor_retain_grad_changes_requires_grad")
def a_tensor_that_retains_its_gradient_reads_as_a_leaf():
    """is_leaf is True for a tensor that retains its gradient."""
    with reading("is_leaf", lambda tensor, leaf: leaf or tensor.retains_grad):
        yield


@fault("intermediates/neither_backward_nor_retain_grad_changes_requires_grad")
def a_leaf_reads_as_frozen_once_it_has_a_grad():
    """requires_grad is False for a leaf that has a .grad."""
    with reading("requires_grad", lambda x, flag: flag and not (x.is_leaf and x.grad is not None)):
        yield
