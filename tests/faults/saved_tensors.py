"""Faults in what the graph saves for backward, and in how long it keeps it."""

import contextlib

import torch

from . import fault, leaves_below, patched, reading


class Spoiled:
    """A node of the graph whose _saved_ attributes read as spoil(tensor, name, how to read the true value)."""

    def __init__(self, tensor, node, spoil):
        self.__dict__.update(tensor=tensor, node=node, spoil=spoil)

    def __getattr__(self, name):
        if name.startswith("_saved_"):
            return self.spoil(self.tensor, name, lambda: getattr(self.node, name))
        return getattr(self.node, name)

    def __dir__(self):
        return dir(self.node)


def reading_saved(spoil):
    """Let reading what a node saved give spoil(the result of the node, the attribute, how to read the true value)."""
    return reading("grad_fn", lambda tensor, node: node and Spoiled(tensor, node, spoil))


@fault("saved_tensors/what_an_operation_saved_can_be_read_from_its_node")
def saved_tensors_are_read_as_copies():
    """What was saved is read as a copy of it."""
    with reading_saved(lambda tensor, name, read: read().clone()):
        yield


@fault("saved_tensors/what_an_operation_saved_can_be_read_from_its_node")
def saved_results_without_dimensions_are_read_as_zero():
    """A saved result without dimensions is read as zero."""

    def spoil(tensor, name, read):
        return read() * 0 if name == "_saved_result" and not tensor.shape else read()

    with reading_saved(spoil):
        yield


@fault("saved_tensors/what_an_operation_saved_can_be_read_from_its_node")
def a_product_saves_a_contiguous_copy_of_its_first_factor():
    """x * w saves x anew, row by row, if it isn't contiguous."""
    with patched(torch.Tensor, "__mul__", lambda true: lambda x, w: true(x.contiguous(), w)):
        yield


@fault(
    "saved_tensors/what_is_read_has_the_history_of_what_was_saved",
    "saved_tensor_hooks/what_was_unpacked_has_the_history_of_what_was_saved",
)
def saved_tensors_are_read_without_history():
    """What was saved is read as a constant."""
    with reading_saved(lambda tensor, name, read: read().detach()):
        yield


@fault("saved_tensors/what_is_read_has_the_history_of_what_was_saved")
def saved_outputs_but_the_first_are_read_without_history():
    """What was saved and is not the first output of its operation is read as a leaf."""

    def spoil(tensor, name, read):
        saved = read()
        return saved.detach().requires_grad_() if saved.output_nr else saved

    with reading_saved(spoil):
        yield


@fault("saved_tensors/a_saved_input_is_read_as_the_very_tensor")
def saved_inputs_are_read_as_views():
    """What was saved is read as a view of it."""
    with reading_saved(lambda tensor, name, read: read()[...]):
        yield


@fault(
    "saved_tensors/a_saved_input_is_read_as_the_very_tensor",
    "saved_tensor_hooks/what_was_unpacked_has_the_history_of_what_was_saved",
)
def saved_results_are_read_as_the_result_itself():
    """A saved result is read as the very tensor that the operation returned."""
    with reading_saved(lambda tensor, name, read: tensor if name == "_saved_result" else read()):
        yield


@fault("saved_tensors/saved_tensors_live_until_the_graph_is_freed")
def abs_saves_a_copy():
    """abs() saves a copy of its input, not the input."""
    with patched(torch.Tensor, "abs", lambda true: lambda x: true(x * 1)):
        yield


@fault("saved_tensors/saved_tensors_live_until_the_graph_is_freed")
def clamp_keeps_its_input_after_backward():
    """The node of clamp() keeps the input until the node is gone itself."""

    def make(true):
        def clamp(x, *limits):
            y = true(x, *limits)
            if y.grad_fn:
                y.grad_fn.metadata["input"] = x
            return y

        return clamp

    with patched(torch.Tensor, "clamp", make):
        yield


@fault("saved_tensors/what_is_not_recorded_saves_nothing")
def abs_keeps_its_input_under_no_grad():
    """Under no_grad, the result of abs() refers to the input."""

    def make(true):
        def abs(x):
            y = true(x)
            if x.requires_grad or torch.is_inference_mode_enabled() or torch.is_grad_enabled():
                return y
            y.input = x
            return y

        return abs

    with patched(torch.Tensor, "abs", make):
        yield


@fault("saved_tensors/what_is_not_recorded_saves_nothing")
def a_power_of_a_constant_keeps_it():
    """pow() keeps its input if that doesn't require grad."""

    def make(true):
        def pow(x, exponent):
            y = true(x, exponent)
            if not y.requires_grad:
                y.input = x
            return y

        return pow

    with patched(torch.Tensor, "pow", make):
        yield


def keeping_operands(owner, name, keep):
    """Let the operation's node keep those of its operands that keep(x, w) gives."""

    def make(true):
        def operation(*operands):
            y = true(*operands)
            if y.grad_fn:
                y.grad_fn.metadata["operands"] = keep(*operands)
            return y

        return operation

    return patched(owner, name, make)


@fault("saved_tensors/only_what_a_gradient_needs_is_saved")
def a_product_saves_both_factors():
    """x * w saves both factors, if the one's gradient isn't asked for, too."""
    with keeping_operands(torch.Tensor, "__mul__", lambda x, w: (x, w)):
        yield


@fault("saved_tensors/only_what_a_gradient_needs_is_saved")
def a_stack_saves_its_second_tensor():
    """torch.stack() saves the second of its tensors."""
    with keeping_operands(torch, "stack", lambda tensors: tensors[1]):
        yield


def keeping_its_result(name, where=lambda y: True):
    """Let the node of a method of tensors hold the result of its own operation."""

    def make(true):
        def method(x, *arguments):
            y = true(x, *arguments)
            if y.grad_fn and where(y):
                y.grad_fn.metadata["result"] = y
            return y

        return method

    return patched(torch.Tensor, name, make)


@fault("saved_tensors/a_saved_result_makes_no_reference_cycle")
def exp_keeps_itself_alive():
    """The node of exp() holds the result."""
    with keeping_its_result("exp"):
        yield


@fault("saved_tensors/a_saved_result_makes_no_reference_cycle")
def relu_into_a_view_keeps_itself_alive():
    """The node of relu_() on a view holds the view."""
    with keeping_its_result("relu_", lambda y: y._is_view()):
        yield


@fault("saved_tensors/reading_a_freed_saved_tensor_raises")
def freed_tensors_are_read_as_zeros():
    """What was freed is read as zeros."""

    def spoil(tensor, name, read):
        try:
            return read()
        except RuntimeError:
            return torch.zeros_like(tensor)

    with reading_saved(spoil):
        yield


@fault("saved_tensors/reading_a_freed_saved_tensor_raises")
def freed_results_are_read_from_the_result():
    """A saved result that was freed can be read still, for the result is there."""

    def spoil(tensor, name, read):
        return tensor.detach() if name == "_saved_result" else read()

    with reading_saved(spoil):
        yield


@fault("saved_tensors/reading_a_freed_saved_tensor_raises", "saved_tensors/saved_tensors_live_until_the_graph_is_freed")
def grad_retains_the_graph():
    """torch.autograd.grad() retains the graph whether it is told to or not."""

    def make(true):
        def grad(*args, **options):
            return true(*args, **{**options, "retain_graph": True})

        return grad

    with patched(torch.autograd, "grad", make):
        yield


@fault("saved_tensors/backward_frees_the_part_of_the_graph_that_it_passed")
def grad_frees_what_lies_below_its_inputs():
    """torch.autograd.grad() by a result frees the graph below that result, too."""

    def make(true):
        def grad(outputs, inputs, *args, **options):
            gradients = true(outputs, inputs, *args, **options)
            if isinstance(inputs, torch.Tensor) and inputs.grad_fn:
                true(inputs.sum(), leaves_below(inputs), allow_unused=True)
            return gradients

        return grad

    with patched(torch.autograd, "grad", make):
        yield


@fault("saved_tensors/backward_frees_the_part_of_the_graph_that_it_passed")
def a_backward_that_fails_frees_nothing():
    """A backward that a hook stops by an error leaves the whole graph as it was."""

    def make(true):
        def backward(tensors, grad_tensors=None, retain_graph=None, create_graph=False, **options):
            true(tensors, grad_tensors, True, create_graph, **options)
            if not retain_graph:
                torch.autograd.grad(tensors, leaves_below(tensors), grad_tensors, allow_unused=True)

        return backward

    with patched(torch.autograd, "backward", make):
        yield


@fault("saved_tensors/reading_a_changed_saved_tensor_raises")
def changed_results_are_read_all_the_same():
    """A saved result that was changed in place since is read without an error."""

    def spoil(tensor, name, read):
        return tensor.detach() if name == "_saved_result" else read()

    with reading_saved(spoil):
        yield


def uncounted(owner, name):
    """Let an in-place operation leave the versions of tensors alone."""

    def make(true):
        def operation(first, *arguments, **options):
            tensors = first if isinstance(first, list) else [first]
            with contextlib.ExitStack() as kept:
                for tensor in tensors:
                    kept.enter_context(torch.autograd._unsafe_preserve_version_counter(tensor))
                return true(first, *arguments, **options)

        return operation

    return patched(owner, name, make)


@fault("saved_tensors/reading_a_changed_saved_tensor_raises")
def zero_is_no_change():
    """zero_() doesn't count as a change."""
    with uncounted(torch.Tensor, "zero_"):
        yield


@fault("saved_tensors/reading_a_changed_saved_tensor_raises")
def changes_of_several_tensors_at_once_are_not_counted():
    """torch._foreach_add_ doesn't count up versions."""
    with uncounted(torch, "_foreach_add_"):
        yield


@fault("saved_tensors/a_result_detached_in_place_is_no_saved_tensor_any_more")
def detaching_in_place_does_nothing():
    """detach_() leaves the tensor as it is."""
    with patched(torch.Tensor, "detach_", lambda true: lambda tensor: tensor):
        yield


@fault("saved_tensors/a_result_detached_in_place_is_no_saved_tensor_any_more")
def abs_saves_what_was_not_detached():
    """abs() saves its input as another tensor, which a later detach_() doesn't change."""
    with patched(torch.Tensor, "abs", lambda true: lambda x: true(x.view_as(x))):
        yield


@fault("saved_tensors/a_list_of_tensors_is_saved_as_a_tuple")
def saved_lists_leave_none_out():
    """What was saved of a list is read without the places where the list has no tensor."""

    def spoil(tensor, name, read):
        saved = read()
        return tuple(s for s in saved if s is not None) if isinstance(saved, tuple) else saved

    with reading_saved(spoil):
        yield


@fault("saved_tensors/a_list_of_tensors_is_saved_as_a_tuple")
def freed_lists_are_read_as_empty():
    """What was saved of a list is read as an empty tuple once it is freed."""

    def spoil(tensor, name, read):
        try:
            return read()
        except RuntimeError:
            return ()

    with reading_saved(spoil):
        yield
