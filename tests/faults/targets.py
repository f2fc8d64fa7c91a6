"""Faults in by what backward differentiates, and in what it leaves alone."""

import torch
from torch.autograd import graph

from . import fault, patched
from .backward import changed_backward, changed_grad, changed_gradients


@fault(
    "targets/backward_with_inputs_writes_into_these_only",
    "targets/inputs_may_be_a_single_tensor",
    "chain_rule/propagation_ends_at_the_targets",
)
def inputs_are_ignored():
    """backward(inputs=...) writes into the leaves, as without inputs."""
    with changed_backward(lambda go, roots, gradients, inputs: go(roots, gradients, None if inputs else inputs)):
        yield


@fault("targets/backward_with_inputs_writes_into_these_only", "chain_rule/propagation_ends_at_the_targets")
def results_among_the_inputs_get_no_grad():
    """backward(inputs=...) leaves the .grad of inputs that are no leaves None."""

    def change(go, roots, gradients, inputs):
        go(roots, gradients, inputs)
        for x in inputs or ():
            if not x.is_leaf:
                x.grad = None

    with changed_backward(change):
        yield


@fault("targets/backward_by_no_inputs_at_all_is_an_error")
def an_empty_list_of_inputs_means_all():
    """backward(inputs=[]) writes into all leaves."""
    with changed_backward(lambda go, roots, gradients, inputs: go(roots, gradients, inputs or None)):
        yield


@fault("targets/a_target_that_does_not_require_grad_is_an_error")
def targets_that_do_not_require_grad_are_passed_over():
    """backward(inputs=...) passes over tensors that don't require grad."""

    def change(go, roots, gradients, inputs):
        go(roots, gradients, inputs and [x for x in inputs if x.requires_grad])

    with changed_backward(change):
        yield


@fault("targets/a_target_that_does_not_require_grad_is_an_error")
def allowing_unused_inputs_allows_constants():
    """torch.autograd.grad with allow_unused=True returns None for inputs that don't require grad."""

    def change(true, inputs, options):
        if not options.get("allow_unused"):
            return true(inputs, **options)
        got = iter(true([x for x in inputs if x.requires_grad], **options))
        return tuple(next(got) if x.requires_grad else None for x in inputs)

    with changed_grad(change):
        yield


@fault("targets/inputs_may_be_a_single_tensor")
def a_collection_of_inputs_is_gone_through_up_to_its_second():
    """backward(inputs=...) takes the first of several tensors only if they aren't in a list."""

    def make(true):
        def backward(*args, inputs=None, **options):
            if not isinstance(inputs, (torch.Tensor, list)) and inputs is not None:
                inputs = list(inputs)[:1]
            return true(*args, inputs=inputs, **options)

        return backward

    with patched(torch.autograd, "backward", make):
        yield


@fault("targets/backward_by_no_inputs_at_all_is_an_error")
def an_empty_tuple_of_inputs_means_all():
    """backward(inputs=()) writes into all leaves."""

    def make(true):
        def backward(*args, inputs=None, **options):
            return true(*args, inputs=None if inputs == () else inputs, **options)

        return backward

    with patched(torch.autograd, "backward", make):
        yield


@fault("targets/inputs_of_backward_may_be_a_dict")
def a_dict_of_inputs_means_all():
    """backward(inputs=...) writes into all leaves if its inputs are a dict."""

    def make(true):
        def backward(*args, inputs=None, **options):
            return true(*args, inputs=None if isinstance(inputs, dict) else inputs, **options)

        return backward

    with patched(torch.autograd, "backward", make):
        yield


@fault("targets/inputs_of_backward_may_be_a_dict")
def the_last_input_of_a_dict_is_passed_over():
    """backward(inputs=...) passes over the last of several inputs in a dict."""

    def make(true):
        def backward(*args, inputs=None, **options):
            if isinstance(inputs, dict) and len(inputs) > 1:
                inputs = list(inputs.values())[:-1]
            return true(*args, inputs=inputs, **options)

        return backward

    with patched(torch.autograd, "backward", make):
        yield


@fault("targets/grad_by_gradient_edges_is_that_by_their_tensors")
def the_gradient_by_an_edge_is_negated():
    """torch.autograd.grad returns the gradients by gradient edges with the wrong sign."""

    def change(true, inputs, options):
        got = true(inputs, **options)
        return tuple(
            -g if isinstance(x, graph.GradientEdge) and g is not None else g for x, g in zip(inputs, got, strict=True)
        )

    with changed_grad(change):
        yield


@fault("targets/each_result_of_an_operation_has_an_edge_of_its_own")
def an_edge_leads_to_the_first_result_of_its_operation():
    """The gradient edge of a later result of an operation is that of the first one."""

    def make(true):
        return lambda tensor: true(tensor)._replace(output_nr=0)

    with patched(graph, "get_gradient_edge", make):
        yield


@fault("targets/backward_with_gradient_edges_writes_into_their_leaves_only")
def edges_among_the_inputs_are_passed_over():
    """backward(inputs=...) passes over gradient edges, and writes into all leaves if nothing else is left."""

    def change(go, roots, gradients, inputs):
        go(roots, gradients, [x for x in inputs or () if isinstance(x, torch.Tensor)] or None)

    with changed_backward(change):
        yield


@fault("targets/backward_from_gradient_edges_is_that_from_their_tensors")
def only_the_first_edge_is_a_root():
    """Backward passes over each gradient edge but the first among its roots."""

    def change(go, roots, gradients, inputs):
        edges = all(isinstance(root, graph.GradientEdge) for root in roots)
        go(roots[:1] if edges else roots, gradients[:1] if edges and gradients else gradients, inputs)

    with changed_backward(change):
        yield


@fault("targets/a_gradient_edge_needs_a_gradient_as_its_tensor_does")
def a_gradient_edge_starts_with_ones():
    """Without a gradient, backward starts with ones for a gradient edge."""

    def change(root, g):
        if g is not None or not isinstance(root, graph.GradientEdge):
            return g
        about = root.node._input_metadata[root.output_nr]
        return torch.ones(about.shape, dtype=about.dtype, device=about.device)

    with changed_gradients(change):
        yield


@fault("targets/a_gradient_edge_needs_a_gradient_as_its_tensor_does")
def a_gradient_for_an_edge_loses_its_last_dimension():
    """The gradient for a gradient edge is summed up along its last dimension if it has one too many."""

    def change(root, g):
        if g is None or not isinstance(root, graph.GradientEdge):
            return g
        shape = tuple(root.node._input_metadata[root.output_nr].shape)
        return g.sum(-1) if g.dim() and tuple(g.shape[:-1]) == shape else g

    with changed_gradients(change):
        yield


@fault("targets/a_gradient_edge_is_where_a_gradient_is_computed")
def a_constant_has_a_gradient_edge():
    """The gradient edge of a tensor that doesn't require grad is that of a new leaf."""

    def make(true):
        return lambda tensor: true(tensor if tensor.requires_grad else torch.ones(()).requires_grad_())

    with patched(graph, "get_gradient_edge", make):
        yield


@fault("targets/a_gradient_edge_is_where_a_gradient_is_computed")
def unused_edges_are_allowed():
    """torch.autograd.grad returns None for unused gradient edges, allowed or not."""

    def change(true, inputs, options):
        if any(isinstance(x, graph.GradientEdge) for x in inputs):
            options = {**options, "allow_unused": True}
        return true(inputs, **options)

    with changed_grad(change):
        yield
