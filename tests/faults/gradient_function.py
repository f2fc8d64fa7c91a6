"""Faults in what torch.autograd.grad returns, and in what it refuses."""

import torch

from . import fault, patched
from .backward import changed_grad


@fault("gradient_function/grad_returns_the_gradients_by_its_inputs_and_writes_none")
def grad_returns_the_gradients_in_the_wrong_order():
    """torch.autograd.grad returns the gradients from the last input to the first."""
    with changed_grad(lambda true, inputs, options: true(inputs, **options)[::-1]):
        yield


@fault("gradient_function/grad_returns_the_gradients_by_its_inputs_and_writes_none")
def grad_gives_an_input_named_twice_its_gradient_once():
    """torch.autograd.grad returns zeros for an input that is the same tensor as an earlier one."""

    def change(true, inputs, options):
        got = true(inputs, **options)
        first = [[x is y for y in inputs].index(True) for x in inputs]
        return tuple(g if n == first[n] or g is None else torch.zeros_like(g) for n, g in enumerate(got))

    with changed_grad(change):
        yield


@fault(
    "gradient_function/grad_returns_the_gradients_by_its_inputs_and_writes_none",
    "gradient_function/grad_by_an_unused_input_is_an_error_unless_allowed",
)
def grad_accumulates_in_the_leaves():
    """torch.autograd.grad adds the gradients that it returns to the .grad of leaves."""

    def change(true, inputs, options):
        got = true(inputs, **options)
        for x, g in zip(inputs, got, strict=True):
            if x.is_leaf and g is not None:
                x.grad = g if x.grad is None else x.grad + g
        return got

    with changed_grad(change):
        yield


@fault("gradient_function/grad_by_an_unused_input_is_an_error_unless_allowed")
def unused_inputs_are_always_allowed():
    """torch.autograd.grad returns None for unused inputs, allowed or not."""
    with changed_grad(lambda true, inputs, options: true(inputs, **{**options, "allow_unused": True})):
        yield


@fault("gradient_function/grad_by_an_unused_input_is_an_error_unless_allowed")
def allowed_unused_results_have_the_gradient_zero():
    """torch.autograd.grad with allow_unused=True returns zeros for an unused input that is no leaf."""

    def change(true, inputs, options):
        got = true(inputs, **options)
        return tuple(
            torch.zeros_like(x) if g is None and not x.is_leaf else g for x, g in zip(inputs, got, strict=True)
        )

    with changed_grad(change):
        yield


@fault("gradient_function/grad_materializes_zeros_for_unused_inputs")
def materialized_gradients_are_none():
    """torch.autograd.grad with materialize_grads=True returns None for unused inputs."""

    def change(true, inputs, options):
        if options.pop("materialize_grads", False) and options.setdefault("allow_unused", True) is False:
            raise ValueError("materialize_grads contradicts allow_unused=False")
        return true(inputs, **options)

    with changed_grad(change):
        yield


@fault("gradient_function/grad_materializes_zeros_for_unused_inputs")
def materialized_gradients_have_the_default_dtype():
    """torch.autograd.grad with materialize_grads=True returns zeros in float32 for inputs of half precision."""

    def change(true, inputs, options):
        got = true(inputs, **options)
        if not options.get("materialize_grads"):
            return got
        return tuple(g.float() if g.element_size() == 2 and not g.any() else g for g in got)

    with changed_grad(change):
        yield


@fault("gradient_function/materialized_zeros_require_grad_with_create_graph_only")
def materialized_zeros_always_require_grad():
    """The zeros that torch.autograd.grad makes for an unused input require grad."""

    def change(true, inputs, options):
        got = true(inputs, **options)
        return tuple(g.requires_grad_() if g is not None and g.is_leaf and not g.any() else g for g in got)

    with changed_grad(change):
        yield


@fault(
    "gradient_function/materialized_zeros_require_grad_with_create_graph_only",
    "gradient_function/materialized_zeros_require_grad",
)
def materialized_zeros_never_require_grad():
    """The zeros that torch.autograd.grad makes for an unused input don't require grad."""

    def change(true, inputs, options):
        got = true(inputs, **options)
        return tuple(g.detach() if g is not None and g.is_leaf and not g.any() else g for g in got)

    with changed_grad(change):
        yield


@fault("gradient_function/grad_by_no_inputs_at_all_is_an_error")
def no_inputs_have_no_gradients():
    """torch.autograd.grad returns an empty tuple if it is given no inputs."""
    with changed_grad(lambda true, inputs, options: true(inputs, **options) if inputs else ()):
        yield


@fault("gradient_function/grad_by_no_inputs_at_all_is_an_error")
def no_inputs_are_allowed_where_unused_ones_are():
    """torch.autograd.grad with allow_unused=True returns an empty tuple if it is given no inputs."""

    def change(true, inputs, options):
        return true(inputs, **options) if inputs or not options.get("allow_unused") else ()

    with changed_grad(change):
        yield


@fault("gradient_function/grad_by_a_dict_of_inputs_returns_a_dict")
def the_gradients_by_a_dict_are_a_tuple():
    """torch.autograd.grad with a dict of inputs returns a tuple."""
    with changed_grad(lambda true, inputs, options: true(inputs, **options)):
        yield


@fault("gradient_function/grad_by_a_dict_of_inputs_returns_a_dict")
def the_gradients_by_a_dict_are_in_the_order_of_its_keys():
    """torch.autograd.grad with a dict of inputs returns one whose keys are sorted."""

    def make(true):
        def grad(outputs, inputs, *args, **options):
            got = true(outputs, inputs, *args, **options)
            return dict(sorted(got.items())) if isinstance(got, dict) else got

        return grad

    with patched(torch.autograd, "grad", make):
        yield


@fault("gradient_function/only_inputs_is_ignored_with_a_warning")
def only_inputs_is_heeded():
    """torch.autograd.grad with only_inputs=False adds the gradients to the .grad of all leaves as well."""

    def make(true):
        def grad(outputs, inputs, grad_outputs=None, only_inputs=True, **options):
            if not only_inputs:
                torch.autograd.backward(outputs, grad_outputs, retain_graph=True)
            return true(outputs, inputs, grad_outputs, only_inputs=only_inputs, **options)

        return grad

    with patched(torch.autograd, "grad", make):
        yield


@fault("gradient_function/only_inputs_is_ignored_with_a_warning")
def only_inputs_is_ignored_without_a_word():
    """torch.autograd.grad with only_inputs=False gives no warning."""

    def change(true, inputs, options):
        return true(inputs, **{**options, "only_inputs": True})

    with changed_grad(change):
        yield


@fault(
    "gradient_function/batched_gradients_give_the_gradients_one_below_the_other",
    "gradient_function/each_gradient_of_a_batch_gives_its_own_product",
)
def the_last_gradient_of_a_batch_counts_for_all():
    """Each gradient of a batch gives what the last one gives."""

    def change(true, inputs, options):
        got = true(inputs, **options)
        return tuple(g[-1:].expand(g.shape) for g in got) if options.get("is_grads_batched") else got

    with changed_grad(change):
        yield


@fault("gradient_function/batched_gradients_give_the_gradients_one_below_the_other")
def batched_gradients_accumulate_in_the_leaves():
    """torch.autograd.grad with a batch adds the sum of its gradients to the .grad of the leaves among its inputs."""

    def change(true, inputs, options):
        got = true(inputs, **options)
        if options.get("is_grads_batched"):
            for leaf, g in zip(inputs, got, strict=True):
                if leaf.is_leaf:
                    leaf.grad = g.sum(0)
        return got

    with changed_grad(change):
        yield


@fault("gradient_function/each_gradient_of_a_batch_gives_its_own_product")
def a_batch_of_integers_is_negated():
    """A batch of gradients in another dtype gives the gradients with the wrong sign."""

    def make(true):
        def grad(outputs, inputs, grad_outputs=None, **options):
            got = true(outputs, inputs, grad_outputs, **options)
            other = isinstance(grad_outputs, torch.Tensor) and grad_outputs.dtype == torch.int64
            return tuple(-g for g in got) if options.get("is_grads_batched") and other else got

        return grad

    with patched(torch.autograd, "grad", make):
        yield


@fault("gradient_function/gradients_that_are_no_batch_are_an_error")
def without_gradients_a_batch_is_one_of_ones():
    """With is_grads_batched=True gradients that are left out are a batch of one, full of ones."""

    def make(true):
        def grad(outputs, inputs, grad_outputs=None, **options):
            if options.get("is_grads_batched") and grad_outputs is None:
                grad_outputs = [torch.ones_like(y)[None] for y in outputs]
            return true(outputs, inputs, grad_outputs, **options)

        return grad

    with patched(torch.autograd, "grad", make):
        yield


@fault("gradient_function/gradients_that_are_no_batch_are_an_error")
def a_longer_batch_is_cut_off():
    """With is_grads_batched=True the gradients for which another root has none are left out."""

    def make(true):
        def grad(outputs, inputs, grad_outputs=None, **options):
            if options.get("is_grads_batched") and isinstance(grad_outputs, list):
                fit = [
                    g for g, y in zip(grad_outputs, outputs, strict=True) if g is not None and g.shape[1:] == y.shape
                ]
                if len(fit) == len(outputs):
                    grad_outputs = [g[: min(map(len, fit))] for g in fit]
            return true(outputs, inputs, grad_outputs, **options)

        return grad

    with patched(torch.autograd, "grad", make):
        yield
