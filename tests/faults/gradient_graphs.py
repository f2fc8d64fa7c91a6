"""Faults in the graph of a gradient: when it is recorded, what it holds, and what becomes of it."""

import contextlib

import torch

from . import after_backward, fault, patched
from .backward import changed_backward, changed_grad
from .execution import changed_run


@fault("gradient_graphs/a_gradient_has_a_graph_with_create_graph_only")
def every_gradient_has_a_graph():
    """Backward and grad record the gradient's own graph whether it is asked for or not."""

    def change(true, roots, gradients, retain, create, inputs, *others, **options):
        return true(roots, gradients, retain, True, inputs, *others, **options)

    with changed_run(change):
        yield


@fault(
    "gradient_graphs/a_gradient_has_a_graph_with_create_graph_only",
    "gradient_graphs/backward_with_create_graph_warns_of_a_cycle",
    "gradient_graphs/an_accumulated_grad_can_be_differentiated",
)
def backward_makes_no_graph():
    """backward(create_graph=True) retains the graph but makes none of the gradient."""

    def change(true, roots, gradients, retain, create, inputs, *others, **options):
        create = create and not options.get("accumulate_grad")
        return true(roots, gradients, retain, create, inputs, *others, **options)

    with changed_run(change):
        yield


@fault("gradient_graphs/a_derivative_that_depends_on_nothing_has_no_history")
def a_constant_gradient_requires_grad():
    """With create_graph=True each gradient that torch.autograd.grad returns requires grad."""

    def change(true, inputs, options):
        got = true(inputs, **options)
        return tuple(g.requires_grad_() if g is not None else g for g in got) if options.get("create_graph") else got

    with changed_grad(change):
        yield


@fault("gradient_graphs/a_derivative_that_depends_on_nothing_has_no_history")
def gradients_forget_the_gradient_passed():
    """Backward and grad detach the gradients that are passed."""

    def change(true, roots, gradients, *args, **options):
        return true(roots, tuple(g.detach() for g in gradients), *args, **options)

    with changed_run(change):
        yield


@fault("gradient_graphs/a_backward_through_gradients_frees_what_it_goes_through")
def a_power_is_never_freed():
    """A backward from a sum retains the graph."""

    def change(true, roots, gradients, retain, create, inputs, *others, **options):
        retain = retain or any(type(root.grad_fn).__name__ == "SumBackward0" for root in roots)
        return true(roots, gradients, retain, create, inputs, *others, **options)

    with changed_run(change):
        yield


@contextlib.contextmanager
def changed_hooks(change):
    """Let each hook of a tensor be change(hook)."""

    def make(true):
        return lambda tensor, hook: true(tensor, change(hook))

    with patched(torch.Tensor, "register_hook", make):
        yield


@fault("gradient_graphs/hooks_are_called_at_every_order")
def hooks_are_not_called_if_a_graph_is_created():
    """A tensor's hooks are passed over in a backward that records the gradient's own graph."""
    with changed_hooks(lambda hook: lambda g: None if torch.is_grad_enabled() else hook(g)):
        yield


@fault("gradient_graphs/what_a_hook_computes_is_differentiated_as_well")
def what_hooks_compute_is_a_constant():
    """What a hook returns is detached."""

    def change(hook):
        def call(g):
            got = hook(g)
            return got if got is None else got.detach()

        return call

    with changed_hooks(change):
        yield


@fault("gradient_graphs/what_a_hook_computes_is_differentiated_as_well")
def hooks_get_a_constant():
    """A hook gets the gradient without its history."""
    with changed_hooks(lambda hook: lambda g: hook(g.detach())):
        yield


@fault("gradient_graphs/an_operation_that_is_differentiable_once_refuses_a_second_time")
def a_second_time_is_ignored():
    """Backward ends without a word where an operation is differentiable once only."""

    def change(true, *args, **options):
        try:
            return true(*args, **options)
        except RuntimeError as error:
            if "once_differentiable" not in str(error):
                raise

    with changed_run(change):
        yield


@fault("gradient_graphs/an_operation_that_is_differentiable_once_can_be_a_constant_later")
def a_backward_that_is_differentiable_once_records_all_the_same():
    """no_grad turns nothing off, also in a backward that is marked as differentiable once."""
    with patched(torch, "no_grad", lambda _: contextlib.nullcontext):
        yield


@fault("gradient_graphs/an_operation_without_a_second_derivative_says_so")
def a_missing_derivative_is_zero():
    """Backward and grad end without a word where a derivative is missing, as if it were zero."""

    def change(true, roots, gradients, retain, create, inputs, *others, **options):
        try:
            return true(roots, gradients, retain, create, inputs, *others, **options)
        except RuntimeError as error:
            if "not implemented" not in str(error):
                raise
            return tuple(torch.zeros_like(x) for x in inputs)

    with changed_run(change):
        yield


@fault("gradient_graphs/backward_with_create_graph_warns_of_a_cycle")
def backward_to_chosen_targets_gives_no_warning():
    """backward(inputs=..., create_graph=True) makes its cycle without a warning."""

    def change(true, roots, gradients, retain, create, inputs, *others, **options):
        torch.set_warn_always(not inputs and torch.is_warn_always_enabled())
        return true(roots, gradients, retain, create, inputs, *others, **options)

    with changed_run(change):
        yield


@fault("gradient_graphs/an_accumulated_grad_can_be_differentiated")
def only_the_first_grad_keeps_its_history():
    """A backward that adds to a .grad leaves the sum without a history."""

    def detach(leaf, before):
        if before is not None and leaf.grad is not None:
            leaf.grad = leaf.grad.detach()

    with after_backward(detach):
        yield


@fault("gradient_graphs/an_accumulated_grad_can_be_differentiated")
def a_later_grad_hides_the_history_of_earlier_ones():
    """A backward with create_graph=True detaches what .grad holds before it adds to it."""

    def change(go, roots, gradients, inputs):
        for root in roots:
            node = root.grad_fn
            while node is not None and not hasattr(node, "variable"):
                node = next((below for below, _ in node.next_functions if below), None)
            if node is not None and node.variable.grad is not None:
                node.variable.grad = node.variable.grad.detach()
        go(roots, gradients, inputs)

    with changed_backward(change):
        yield
