"""Faults in copies, files and print-outs of tensors."""

import copy
import pickle
from multiprocessing.reduction import ForkingPickler

import torch

from . import fault, patched


def loading(spoil):
    """Let torch.load pass each tensor that it loads through `spoil`."""

    def make(true):
        def load(*args, **options):
            thing = true(*args, **options)
            if isinstance(thing, list):
                return [spoil(t) for t in thing]
            return spoil(thing) if isinstance(thing, torch.Tensor) else thing  # or a storage, on behalf of pickle

        return load

    return patched(torch, "load", make)


@fault("copies/a_saved_leaf_comes_back_as_a_leaf", "copies/a_saved_result_comes_back_as_a_leaf")
def loaded_tensors_do_not_require_grad():
    """What torch.load gives doesn't require grad."""
    with loading(lambda t: t.detach()):
        yield


@fault("copies/a_saved_leaf_comes_back_as_a_leaf")
def loaded_parameters_are_tensors():
    """torch.load gives a tensor where a Parameter was saved."""
    with loading(lambda t: t.detach().requires_grad_(t.requires_grad) if isinstance(t, torch.nn.Parameter) else t):
        yield


@fault("copies/a_saved_leaf_comes_back_as_a_leaf")
def pickling_clears_grad():
    """To pickle a tensor clears its .grad."""

    def make(true):
        def dumps(thing, *args):
            if isinstance(thing, torch.Tensor):
                thing.grad = None
            return true(thing, *args)

        return dumps

    with patched(pickle, "dumps", make):
        yield


@fault("copies/a_saved_result_comes_back_as_a_leaf")
def saving_detaches():
    """To save a result takes it out of its graph."""

    def make(true):
        def save(thing, *args, **options):
            true(thing, *args, **options)
            if isinstance(thing, torch.Tensor) and thing.grad_fn and not thing._is_view():
                thing.detach_()

        return save

    with patched(torch, "save", make):
        yield


@fault("copies/saved_tensors_share_what_they_shared")
def loaded_tensors_have_memory_of_their_own():
    """What torch.load gives of a leaf that doesn't require grad has memory of its own."""
    with loading(lambda t: t if t.requires_grad else t.clone()):
        yield


@fault("copies/a_result_cannot_be_copied_deeply")
def views_are_copied_deeply():
    """copy.deepcopy of a view copies its values, without an error."""

    def make(true):
        return lambda x, memo: true(x.detach() if x._is_view() else x, memo)

    with patched(torch.Tensor, "__deepcopy__", make):
        yield


@fault("copies/a_result_cannot_be_copied_deeply")
def results_are_copied_deeply_without_grad_mode():
    """copy.deepcopy of a result copies its values in no-grad mode."""

    def make(true):
        return lambda x, memo: true(x if torch.is_grad_enabled() else x.detach(), memo)

    with patched(torch.Tensor, "__deepcopy__", make):
        yield


@fault("copies/a_deep_copy_keeps_what_is_shared")
def each_mention_is_copied():
    """copy.deepcopy copies a tensor that is there twice twice."""
    with patched(torch.Tensor, "__deepcopy__", lambda true: lambda x, memo: true(x, {})):
        yield


@fault("copies/a_deep_copy_keeps_what_is_shared")
def a_deep_copy_of_a_plain_tensor_is_a_clone():
    """copy.deepcopy of a tensor that doesn't require grad is a clone, which shares memory with nothing."""

    def make(true):
        return lambda x, memo: true(x, memo) if x.requires_grad else x.clone()

    with patched(torch.Tensor, "__deepcopy__", make):
        yield


@fault("copies/a_shallow_copy_is_a_leaf_over_the_same_memory")
def a_shallow_copy_is_detached():
    """copy.copy of a result doesn't require grad."""
    with patched(copy, "copy", lambda true: lambda x: x.detach() if x.grad_fn else true(x)):
        yield


@fault("copies/a_shallow_copy_is_a_leaf_over_the_same_memory")
def a_shallow_copy_of_a_parameter_is_a_deep_one():
    """copy.copy of a Parameter copies its values."""
    with patched(copy, "copy", lambda true: lambda x: copy.deepcopy(x) if "Parameter" in type(x).__name__ else true(x)):
        yield


@fault("copies/hooks_are_not_saved")
def results_are_saved_without_a_warning():
    """Saving a result that has a hook gives no warning."""

    def make(true):
        def save(thing, *args, **options):
            plain = thing.detach().requires_grad_() if getattr(thing, "grad_fn", None) else thing
            true(plain, *args, **options)

        return save

    with patched(torch, "save", make):
        yield


@fault("copies/hooks_are_not_saved")
def what_is_loaded_has_a_hook():
    """What torch.load gives has a hook that doubles gradients."""

    def hooked(t):
        t.register_hook(lambda gradient: gradient * 2)
        return t

    with loading(hooked):
        yield


@fault("copies/a_result_cannot_be_sent_to_another_process")
def lists_of_results_are_sent():
    """A result in a list can be sent to another process."""

    def make(true):
        return lambda self, thing: true(self, [t.detach() for t in thing] if isinstance(thing, list) else thing)

    with patched(ForkingPickler, "dump", make):
        yield


@fault("copies/print_tells_the_history")
def print_says_that_results_require_grad():
    """A result that is printed shows requires_grad=True in the place of its grad_fn."""

    def make(true):
        def text(x, **options):
            return true(x.detach().requires_grad_() if x.grad_fn else x, **options)

        return text

    with patched(torch.Tensor, "__repr__", make):
        yield


@fault("copies/print_tells_the_history")
def print_hides_the_history_without_grad_mode():
    """In no-grad mode print shows nothing of a leaf's requires_grad."""

    def make(true):
        def text(x, **options):
            return true(x if torch.is_grad_enabled() or not x.is_leaf else x.detach(), **options)

        return text

    with patched(torch.Tensor, "__repr__", make):
        yield


@fault("copies/print_tells_the_history")
def print_counts_as_a_change():
    """To print a 0-dim result counts up its version."""

    def make(true):
        def text(x, **options):
            if x.grad_fn and not x.dim():
                torch._C._autograd._unsafe_set_version_counter((x,), (x._version + 1,))
            return true(x, **options)

        return text

    with patched(torch.Tensor, "__repr__", make):
        yield


def wrong_variable(spoil):
    """Let Variable(t, requires_grad=...) be spoil(t, requires_grad) of tensors; instances are what they were."""
    true = torch.autograd.Variable

    class Checked(type):
        def __instancecheck__(cls, thing):
            return isinstance(thing, true)

    class Wrong(metaclass=Checked):
        def __new__(cls, t, requires_grad=False):
            return spoil(t, requires_grad)

    return patched(torch.autograd, "Variable", lambda _: Wrong)


@fault("copies/a_variable_is_a_tensor")
def a_variable_of_a_tensor_keeps_requires_grad():
    """Variable(t) requires grad if t does."""
    with wrong_variable(lambda t, flag: t.detach().requires_grad_(flag or t.requires_grad)):
        yield


@fault("copies/a_variable_is_a_tensor")
def a_variable_of_a_result_is_a_copy():
    """Variable(t) copies the values of a result."""
    with wrong_variable(lambda t, flag: (t.detach().clone() if t.grad_fn else t.detach()).requires_grad_(flag)):
        yield


@fault("copies/a_leaf_that_is_stored_conjugated_is_copied_with_its_values")
def deep_copies_are_as_stored():
    """copy.deepcopy of a tensor that is stored conjugated gives the values that are stored."""

    def make(true):
        return lambda x, memo: true(x.detach().conj() if x.is_conj() else x, memo).requires_grad_(x.requires_grad)

    with patched(torch.Tensor, "__deepcopy__", make):
        yield


@fault("copies/a_leaf_that_is_stored_conjugated_is_copied_with_its_values")
def files_are_as_stored():
    """A file holds the values that are stored of a tensor that is stored negated."""

    def make(true):
        def save(thing, *args, **options):
            negated = isinstance(thing, torch.Tensor) and thing.is_neg()
            true(thing.detach().neg().requires_grad_(thing.requires_grad) if negated else thing, *args, **options)

        return save

    with patched(torch, "save", make):
        yield


@fault("copies/a_leaf_that_is_stored_conjugated_is_saved_as_it_is_stored")
def what_is_loaded_is_conjugated():
    """What torch.load gives is conjugated if it is complex."""
    with loading(lambda t: t.detach().conj().requires_grad_(t.requires_grad) if t.is_complex() else t):
        yield


@fault(
    "copies/a_sparse_leaf_comes_back_without_requires_grad",
    "copies/a_leaf_of_compressed_sparse_layout_comes_back_as_a_result",
)
def loaded_sparse_tensors_are_leaves():
    """A sparse tensor comes out of a file as a leaf that requires grad."""

    def leaf(t):
        return t if t.layout == torch.strided else t.detach().requires_grad_()

    with loading(leaf):
        yield


@fault("copies/a_deep_copy_has_no_hooks")
def deep_copies_share_the_hooks():
    """copy.deepcopy of a leaf has the hooks of the leaf."""

    def make(true):
        def deep(x, memo):
            y = true(x, memo)
            for hook in list((x._backward_hooks or {}).values()):
                y.register_hook(hook)
            return y

        return deep

    with patched(torch.Tensor, "__deepcopy__", make):
        yield
