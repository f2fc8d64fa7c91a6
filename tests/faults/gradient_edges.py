"""Faults in gradient edges."""

import torch

from . import fault, patched

GRAPH = torch.autograd.graph


def wrong_edges(spoil):
    """Let get_gradient_edge(tensor) give spoil(the true one, tensor)."""

    def make(true):
        return lambda tensor: spoil(true, tensor)

    return patched(GRAPH, "get_gradient_edge", make)


def wrong_gradients(spoil):
    """Let torch.autograd.grad pass what it gives for inputs that are gradient edges through `spoil`."""

    def make(true):
        def grad(outputs, inputs, *args, **options):
            inputs = [inputs] if isinstance(inputs, (torch.Tensor, GRAPH.GradientEdge)) else list(inputs)
            given = true(outputs, inputs, *args, **options)
            return tuple(
                spoil(x, g) if isinstance(x, GRAPH.GradientEdge) and g is not None else g
                for x, g in zip(inputs, given, strict=True)
            )

        return grad

    return patched(torch.autograd, "grad", make)


@fault("gradient_edges/the_gradient_edge_of_a_tensor_is_what_leads_to_it")
def edges_are_of_the_first_result():
    """The number of a gradient edge is always 0."""
    with wrong_edges(lambda true, tensor: true(tensor)._replace(output_nr=0)):
        yield


@fault("gradient_edges/the_gradient_edge_of_a_tensor_is_what_leads_to_it")
def edges_of_leaves_lead_to_a_view():
    """The gradient edge of a leaf is that of a view of it."""
    with wrong_edges(lambda true, tensor: true(tensor.view_as(tensor) if tensor.is_leaf else tensor)):
        yield


@fault("gradient_edges/the_gradient_edge_of_a_leaf_cannot_be_had_in_no_grad_mode")
def edges_are_looked_for_in_grad_mode():
    """get_gradient_edge works in grad mode, whatever the mode is."""
    with wrong_edges(lambda true, tensor: torch.enable_grad()(true)(tensor)):
        yield


@fault("gradient_edges/a_gradient_edge_can_be_had_in_no_grad_mode")
def edges_are_of_copies_in_no_grad_mode():
    """In no-grad mode the gradient edge of a leaf is that of another leaf."""

    def spoil(true, tensor):
        alone = tensor.is_leaf and not torch.is_grad_enabled()
        return true(tensor.detach().requires_grad_() if alone else tensor)

    with wrong_edges(spoil):
        yield


@fault("gradient_edges/a_gradient_edge_can_be_had_in_no_grad_mode")
def asking_for_an_edge_turns_grad_mode_on():
    """After the gradient edge of a tensor was asked for, grad mode is on."""

    def spoil(true, tensor):
        torch.set_grad_enabled(True)
        return true(tensor)

    with wrong_edges(spoil):
        yield


@fault("gradient_edges/a_tensor_that_does_not_require_grad_has_no_gradient_edge")
def asking_for_an_edge_turns_requires_grad_on():
    """A tensor of floating dtype that doesn't require grad is made to, to have a gradient edge."""

    def spoil(true, tensor):
        return true(tensor.requires_grad_() if tensor.is_floating_point() else tensor)

    with wrong_edges(spoil):
        yield


@fault("gradient_edges/the_gradient_by_an_edge_is_that_by_its_tensor")
def gradients_by_edges_are_negated():
    """The gradient by a gradient edge has the wrong sign."""
    with wrong_gradients(lambda edge, g: -g):
        yield


@fault("gradient_edges/the_gradient_by_an_edge_is_that_by_its_tensor")
def gradients_by_edges_of_leaves_are_accumulated():
    """The gradient by the edge of a leaf is accumulated in the leaf as well."""

    def spoil(edge, g):
        if hasattr(edge.node, "variable"):
            edge.node.variable.grad = g.clone()
        return g

    with wrong_gradients(spoil):
        yield


@fault("gradient_edges/a_gradient_edge_stays_with_the_value_that_the_tensor_had")
def edges_follow_the_tensor():
    """Where a tensor is among the inputs, gradient edges stand for the last of the inputs."""

    def make(true):
        def grad(outputs, inputs, *args, **options):
            edges = any(isinstance(x, GRAPH.GradientEdge) for x in inputs)
            changed = [inputs[-1] if isinstance(x, GRAPH.GradientEdge) else x for x in inputs]
            return true(outputs, changed if edges else inputs, *args, **options)

        return grad

    with patched(torch.autograd, "grad", make):
        yield


@fault("gradient_edges/a_gradient_edge_keeps_the_graph_below_it")
def edges_keep_their_tensor():
    """A gradient edge keeps the tensor that it is of."""

    def spoil(true, tensor):
        edge = true(tensor)
        edge.node.metadata["tensor"] = tensor
        return edge

    with wrong_edges(spoil):
        yield


@fault(
    "gradient_edges/a_gradient_edge_keeps_the_graph_below_it",
    "gradient_edges/the_gradient_edge_of_a_user_defined_result_keeps_its_graph",
)
def gradients_from_edges_are_zero():
    """torch.autograd.grad of a gradient edge gives zeros."""

    def make(true):
        def grad(outputs, *args, **options):
            given = true(outputs, *args, **options)
            if isinstance(outputs, GRAPH.GradientEdge):
                return tuple(None if g is None else g * 0 for g in given)
            return given

        return grad

    with patched(torch.autograd, "grad", make):
        yield
