"""Faults that show only where statements meet: views and writes, modes and hooks, backwards and updates."""

import contextlib

import torch

from . import after_backward, fault, patched, reading
from .hooks import spoiled
from .parameters import in_place

VALUES = "programs/every_tensor_has_the_numbers_of_its_definition"
SPREADS = "programs/requires_grad_spreads_from_operands_to_results"
HISTORY = "programs/what_was_recorded_has_a_grad_fn_and_is_no_leaf"
EXACT = "programs/backward_adds_the_exact_gradient_and_changes_nothing_else"
WRITES = "programs/a_write_never_makes_a_gradient_silently_wrong"
ERRORS = "programs/an_error_leaves_everything_as_it_was"
VERSIONS = "programs/each_write_counts_once_for_all_that_share_memory"
HOOKS = "programs/hooks_see_the_gradient_by_the_tensor_as_it_was_when_they_came"
RETAINED = "programs/a_retained_gradient_is_that_of_the_latest_value"
AGAIN = "programs/gradients_can_be_used_and_differentiated_again"
MODES = "programs/modes_nest_and_decide_what_is_recorded"
UPDATES = "programs/parameters_can_be_updated_between_backwards"
COMPLEX = "programs/complex_gradients_are_the_derivatives_by_both_parts"


@contextlib.contextmanager
def in_place_each(names, spoil):
    """Let each of the in-place methods be `spoil(the true method, the tensor, its arguments)`."""
    with contextlib.ExitStack() as stack:
        for name in names:
            stack.enter_context(in_place(name, spoil))
        yield


def passing(owner, name, change):
    """Let the node of a result of the function pass on change(what it would, what it got, the arguments)."""

    def make(true):
        def function(*args):
            result = true(*args)
            if isinstance(result, torch.Tensor) and result.grad_fn is not None and torch.is_grad_enabled():
                result.grad_fn.register_hook(lambda passed, got: change(passed, got, *args))
            return result

        return function

    return patched(owner, name, make)


def granting(spoil):
    """Let torch.autograd.grad give `spoil(its result, inputs)`."""

    def make(true):
        return lambda outputs, inputs, *args, **options: spoil(true(outputs, inputs, *args, **options), inputs)

    return patched(torch.autograd, "grad", make)


def is_quiet(tensor):
    """Whether a write to the tensor goes unrecorded, in a mode that sees to it."""
    return not torch.is_grad_enabled() and not torch.is_inference_mode_enabled() and not tensor.is_inference()


@fault(VALUES)
def quiet_writes_to_views_of_what_requires_grad_are_lost():
    """A write under no_grad to a view of a tensor that requires grad changes nothing but the counter."""

    def spoil(true, tensor, *args):
        if not (tensor._is_view() and tensor._base.requires_grad and is_quiet(tensor)):
            return true(tensor, *args)
        torch.autograd.graph.increment_version(tensor)
        return tensor

    with in_place_each(("add_", "sub_", "mul_", "copy_", "neg_", "zero_", "fill_", "__setitem__"), spoil):
        yield


@fault(VALUES)
def detach_of_a_view_copies():
    """detach() of a view gives memory of its own."""

    def make(true):
        return lambda tensor: true(tensor).clone() if tensor._is_view() else true(tensor)

    with patched(torch.Tensor, "detach", make):
        yield


@fault(SPREADS)
def a_view_that_was_written_twice_reads_as_requiring_no_grad():
    """requires_grad of a view reads as False once its memory was written twice."""
    with reading("requires_grad", lambda x, true: true and not (x._is_view() and x._version > 1)):
        yield


@fault(HISTORY)
def a_constant_that_was_written_reads_as_no_leaf():
    """is_leaf of a tensor that doesn't require grad reads as False once it was written."""
    with reading("is_leaf", lambda x, true: true and (x.is_inference() or x.requires_grad or x._version == 0)):
        yield


@fault(HISTORY)
def detach_in_place_is_lost_on_a_result_that_was_written():
    """detach_() does nothing to a result that was written in place."""

    def spoil(true, tensor):
        return true(tensor) if tensor._is_view() or tensor._version == 0 else tensor

    with in_place("detach_", spoil):
        yield


@fault(EXACT)
def running_totals_pass_gradients_on_from_the_front():
    """The gradient of cumsum() is summed from the front in place of from behind."""

    def change(passed, got, tensor, dim):
        return None if passed[0] is None else (torch.cumsum(got[0], dim),)

    with passing(torch.Tensor, "cumsum", change):
        yield


@fault(EXACT)
def joined_tensors_swap_their_gradients():
    """The gradients of two tensors that cat() or stack() joins change places if they fit."""

    def change(passed, got, *args):
        fit = len(passed) == 2 and None not in passed and len({(g.shape, g.dtype) for g in passed}) == 1
        return passed[::-1] if fit else None

    with passing(torch, "cat", change), passing(torch, "stack", change):
        yield


@fault(WRITES, VERSIONS)
def quiet_writes_through_views_are_not_counted():
    """What is written under no_grad through a view isn't counted, and spoils what was saved unnoticed."""

    def spoil(true, tensor, *args):
        if not (tensor._is_view() and is_quiet(tensor)):
            return true(tensor, *args)
        true(tensor.data, *args)
        return tensor

    names = ("add_", "sub_", "mul_", "copy_", "neg_", "square_", "relu_", "abs_", "zero_", "fill_", "__setitem__")
    with in_place_each(names, spoil):
        yield


@fault(ERRORS)
def a_view_that_cannot_be_detached_is_zeroed():
    """detach_() of a view is an error, but writes zeros first."""

    def spoil(true, tensor):
        if tensor._is_view():
            tensor.data.zero_()
        return true(tensor)

    with in_place("detach_", spoil):
        yield


@fault(ERRORS)
def a_leaf_that_refuses_a_write_is_frozen():
    """A write that a leaf refuses makes it require no grad."""

    def spoil(true, tensor, *args):
        try:
            return true(tensor, *args)
        except RuntimeError:
            if tensor.is_leaf and not tensor._is_view() and not tensor.is_inference():
                tensor.requires_grad_(False)
            raise

    with in_place_each(("add_", "sub_", "mul_", "copy_", "neg_", "relu_", "zero_", "fill_"), spoil):
        yield


@fault(VERSIONS)
def detach_starts_a_counter_of_its_own():
    """What detach() gives doesn't share the version counter."""

    def make(true):
        return lambda tensor: true(tensor) if tensor.is_inference() else tensor.data

    with patched(torch.Tensor, "detach", make):
        yield


@fault(VERSIONS)
def writes_to_views_count_twice():
    """zero_(), neg_() and add_() of a view raise the version counter by two."""

    def spoil(true, tensor, *args):
        result = true(tensor, *args)
        if tensor._is_view() and not tensor.is_inference():
            torch.autograd.graph.increment_version(tensor)
        return result

    with in_place_each(("zero_", "neg_", "add_"), spoil):
        yield


@fault(VERSIONS)
def rows_of_constants_are_set_uncounted():
    """Setting rows of a tensor that doesn't require grad to a number isn't counted."""

    def spoil(true, tensor, index, value):
        constant = not tensor.requires_grad and not isinstance(value, torch.Tensor) and not tensor.is_inference()
        true(tensor.data if constant else tensor, index, value)

    with in_place("__setitem__", spoil):
        yield


@fault(HOOKS)
def hooks_behind_a_write_are_dropped():
    """A hook that comes to a result after it was written is never called."""
    with spoiled(lambda x, hook: hook if x.is_leaf or x._version == 0 else (lambda gradient: None)):
        yield


@fault(HOOKS)
def hooks_on_views_are_called_twice():
    """A hook on a view is called a second time with the same gradient, if it is no leaf."""

    def change(x, hook):
        def twice(gradient):
            hook(gradient)
            return hook(gradient)

        return twice if x._is_view() and not x.is_leaf else hook

    with spoiled(change):
        yield


@fault(RETAINED)
def the_retained_gradient_of_a_written_result_reads_doubled():
    """The .grad of a result that was written reads as twice what it retains."""

    def double(x, grad):
        return grad * 2 if grad is not None and x.retains_grad and x._version > 0 else grad

    with reading("grad", double):
        yield


@fault(RETAINED)
def the_retained_gradient_of_a_view_is_lost():
    """The .grad of a view that retains its gradient reads as None."""
    with reading("grad", lambda x, grad: None if x._is_view() and x.retains_grad else grad):
        yield


@fault(RETAINED)
def a_tensor_with_hooks_retains_no_gradient():
    """The .grad of a result with hooks reads as None."""
    with reading("grad", lambda x, grad: None if x.retains_grad and x._backward_hooks else grad):
        yield


@fault(AGAIN)
def grad_gives_gradients_without_a_history():
    """torch.autograd.grad detaches its gradients, whether or not a graph is created."""

    def spoil(gradients, inputs):
        return tuple(g if g is None else g.detach() for g in gradients)

    with granting(spoil):
        yield


@fault(AGAIN)
def grad_by_two_inputs_swaps_them():
    """torch.autograd.grad by two tensors that look alike gives their gradients in the opposite order."""

    def spoil(gradients, inputs):
        alike = len(inputs) == 2 and None not in gradients and len({(x.shape, x.dtype) for x in inputs}) == 1
        return gradients[::-1] if alike else gradients

    with granting(spoil):
        yield


@fault(AGAIN)
def grad_clears_the_grad_of_its_inputs():
    """torch.autograd.grad sets the .grad of leaves that it is asked for to None."""

    def spoil(gradients, inputs):
        for x in inputs:
            if x.is_leaf:
                x.grad = None
        return gradients

    with granting(spoil):
        yield


@fault(MODES)
def leaving_enable_grad_leaves_grad_mode_on():
    """Grad mode is on behind a block of enable_grad(), whatever was around it."""
    with patched(torch.enable_grad, "__exit__", lambda _: lambda block, *error: None):
        yield


@fault(MODES)
def leaving_no_grad_turns_the_mode_around_it_over():
    """Behind a block of no_grad() grad mode is on if it was off in front of it, and off if it was on."""

    def make(true):
        def leave(block, *error):
            true(block, *error)
            torch._C._set_grad_enabled(not torch.is_grad_enabled())

        return leave

    with patched(torch.no_grad, "__exit__", make):
        yield


@fault(UPDATES)
def updating_a_leaf_clears_its_grad():
    """A write under no_grad to a leaf that has a .grad sets that to None."""

    def spoil(true, tensor, *args):
        result = true(tensor, *args)
        if is_quiet(tensor) and tensor.is_leaf and tensor.requires_grad:
            tensor.grad = None
        return result

    with in_place_each(("add_", "sub_", "mul_", "copy_", "neg_", "relu_", "zero_", "fill_", "__setitem__"), spoil):
        yield


@fault(UPDATES)
def a_grad_of_zeros_stays_zero():
    """Backward adds nothing to a .grad that was zeroed."""

    def forget(leaf, before):
        if before is not None and not before.any():
            leaf.grad.copy_(before)

    with after_backward(forget):
        yield


@fault(UPDATES)
def the_first_gradient_by_an_updated_leaf_is_doubled():
    """The first backward by a leaf that was written leaves twice the gradient."""

    def double(leaf, before):
        if before is None and leaf.grad is not None and leaf._version > 0:
            leaf.grad.mul_(2)

    with after_backward(double):
        yield


@fault(COMPLEX)
def conjugates_pass_the_gradient_on_as_it_is():
    """The gradient of conj_physical() isn't conjugated."""
    with passing(torch, "conj_physical", lambda passed, got, tensor: got):
        yield


@fault(COMPLEX)
def imaginary_parts_pass_the_gradient_on_negated():
    """The gradient by the imaginary part of a complex tensor has the wrong sign."""

    def negate(x, part):
        if torch.is_grad_enabled() and part.grad_fn is not None:
            part.grad_fn.register_hook(lambda passed, got: (-passed[0],))
        return part

    with reading("imag", negate):
        yield


@fault(COMPLEX)
def products_forget_to_conjugate():
    """The gradient by a factor of two complex tensors is multiplied by the other one as it is."""

    def make(true):
        def product(a, b):
            both = isinstance(b, torch.Tensor) and a.is_complex() and b.is_complex() and torch.is_grad_enabled()
            result = true(a, b)
            if both and result.grad_fn is not None:
                result.grad_fn.register_prehook(lambda got: tuple(g.conj().resolve_conj() for g in got))
                result.grad_fn.register_hook(
                    lambda passed, got: tuple(p if p is None else p.conj_physical() for p in passed)
                )
            return result

        return product

    with patched(torch.Tensor, "__mul__", make):
        yield
