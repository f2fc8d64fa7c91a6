"""Gradient edges: places in the graph where a gradient is computed, held without a tensor."""

import weakref

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import claim, graphs, raises, same, values
from .kit.nodes import Twice
from .kit.tensors import WITHOUT_GRAD

RESULTS = {
    "x": lambda x: x,
    "x * 2": lambda x: x * 2,
    "x[...]": lambda x: x[...],
    "x.clone().add_(1)": lambda x: x.clone().add_(1),
    "torch.stack([x, x]).unbind()[1]": lambda x: torch.stack([x, x]).unbind()[1],
    "torch.nn.Parameter(x)": lambda x: torch.nn.Parameter(x),
}


@claim(cites=["torch_autograd/gradient-edge-of-a-tensor"], since="2.2")
@given(g=graphs(most=5), v=values(), codes=st.lists(st.sampled_from(list(RESULTS)), min_size=1, max_size=3))
def spec_the_gradient_edge_of_a_tensor_is_what_leads_to_it(world, g, v, codes):
    """The gradient edge of a tensor that requires grad is a tuple of a node and a number: the edge that an operation on
    the tensor gets. Of a result these are its grad_fn and output_nr, of a leaf its accumulate node and 0."""
    tensors = g.build(world)
    x = world.leaf(v)

    for t in [tensors[name] for name in [*g.leaves, *g.results]] + [RESULTS[code](x) for code in codes]:
        edge = torch.autograd.graph.get_gradient_edge(t)
        same([edge.node is t.grad_fn, t.is_leaf], [not t.is_leaf, edge.node is not t.grad_fn], why="a result has one")
        if t.is_leaf:
            same(getattr(edge.node, "variable", None) is t, True, why="the node is the leaf's own")
        same([edge.output_nr, edge[1], edge[0] is edge.node], [t.output_nr, t.output_nr, True], why="it is a tuple")
        same((t * 1).grad_fn.next_functions[0] == tuple(edge[:2]), True, why="this edge leads to the same place")
        same(isinstance(edge, torch.autograd.graph.GradientEdge), True, why="that is what it is called")


@claim(cites=["torch_autograd/gradient-edge-of-a-tensor"], since="2.4")
@given(v=values(), code=st.sampled_from(list(RESULTS)))
def spec_a_gradient_edge_can_be_had_in_no_grad_mode(world, v, code):
    """The gradient edge of a leaf or a result can be had in no-grad mode as well."""
    t = RESULTS[code](world.leaf(v))
    expected = torch.autograd.graph.get_gradient_edge(t)

    with torch.no_grad():
        edge = torch.autograd.graph.get_gradient_edge(t)
        enabled = torch.is_grad_enabled()

    same([edge[0] is expected[0], edge[1] == expected[1]], [True, True], why=f"it is that of {code}")
    same([enabled, torch.is_grad_enabled()], [False, True], why="the mode is as it was")


@claim(cites=["torch_autograd/gradient-edge-of-a-tensor"], since="2.2", until="2.4")
@given(v=values(), parameter=st.booleans())
def spec_the_gradient_edge_of_a_leaf_cannot_be_had_in_no_grad_mode(world, v, parameter):
    """In no-grad mode the gradient edge of a leaf can't be had, that of a result can."""
    x = torch.nn.Parameter(world.constant(v)) if parameter else world.leaf(v)
    y = x * 2

    with torch.no_grad():
        with raises(AttributeError, why="x has no grad_fn, and its view has none in no-grad mode"):
            torch.autograd.graph.get_gradient_edge(x)
        edge = torch.autograd.graph.get_gradient_edge(y)

    same(edge.node is y.grad_fn, True, why="y has a grad_fn")


@claim(cites=["torch_autograd/gradient-edge-of-a-tensor"], since="2.2")
@given(v=values(), code=st.sampled_from(list(WITHOUT_GRAD)))
def spec_a_tensor_that_does_not_require_grad_has_no_gradient_edge(world, v, code):
    """To ask for the gradient edge of a tensor that doesn't require grad raises an error and changes nothing."""
    x = world.leaf(v)
    y = WITHOUT_GRAD[code](x)

    with raises(RuntimeError, "does not require grad", why=f"{code} doesn't"):
        torch.autograd.graph.get_gradient_edge(y)

    same([y.requires_grad, y.is_leaf, y.grad_fn], [False, True, None], why="it was only asked")


@claim(cites=["torch_autograd/gradient-edges-stand-for-their-tensors"], since="2.2")
@given(g=graphs(), as_edges=st.integers(0, 255), forgotten=st.booleans(), retain=st.booleans())
def spec_the_gradient_by_an_edge_is_that_by_its_tensor(world, g, as_edges, forgotten, retain):
    """torch.autograd.grad takes gradient edges among its inputs, and gives for each of them what it gives for the
    tensor that the edge was of, also if the program forgot that tensor."""
    tensors, gradients = g.build(world), g.gradients(world)
    names = [*g.leaves, *g.results]
    inputs = [
        torch.autograd.graph.get_gradient_edge(tensors[name]) if as_edges >> i & 1 else tensors[name]
        for i, name in enumerate(names)
    ]
    leaves, root = [tensors[name] for name in g.leaves], tensors[g.root]
    if forgotten:
        tensors = None

    got = torch.autograd.grad(root, inputs, world.constant(g.cotangent), allow_unused=True, retain_graph=retain)

    for name, gradient in zip(names, got, strict=True):
        same(gradient, gradients[name], why=f"this is the gradient by {name}")
    same([leaf.grad for leaf in leaves], [None] * len(leaves), why="nothing is accumulated")


CHANGES = {
    "y.mul_(3)": (lambda y: y.mul_(3), 3),
    "y.neg_()": (lambda y: y.neg_(), -1),
    "y.add_(2)": (lambda y: y.add_(2), 1),
    "y.zero_()": (lambda y: y.zero_(), 0),
    "y[...].mul_(2)": (lambda y: y[...].mul_(2), 2),
}


@claim(cites=["torch_autograd/gradient-edges-stand-for-their-tensors"], since="2.2", needs=["in-place", "views"])
@given(v=values(), codes=st.lists(st.sampled_from(list(CHANGES)), min_size=1, max_size=3))
def spec_a_gradient_edge_stays_with_the_value_that_the_tensor_had(world, v, codes):
    """A gradient edge stays where it was if the tensor is changed in place: the gradient by the edge is that by the
    value before the change, the gradient by the tensor that by the value after it."""
    x = world.leaf(v)
    y = x * 1
    edges, slopes = [], [1]

    for code in codes:
        change, slope = CHANGES[code]
        edges.append(torch.autograd.graph.get_gradient_edge(y))
        slopes = [one * slope for one in slopes] + [1]
        change(y)
    got = torch.autograd.grad((y * 2).sum(), [x, *edges, y])

    expected = [torch.full_like(y, 2 * slope).detach() for slope in [slopes[0], *slopes]]
    same(got, expected, why=f"y is x * 1 at first; the changes were {codes}")


@claim(cites=["torch_autograd/gradient-edges-stand-for-their-tensors"], since="2.6")
@given(g=graphs(), held=st.integers(0, 255))
def spec_a_gradient_edge_keeps_the_graph_below_it(world, g, held):
    """A gradient edge keeps the graph below it but not the tensor that it is of. torch.autograd.grad takes it in the
    place of that tensor as an output, also when the tensor is gone."""
    tensors = g.build(world)
    leaves = [tensors[name] for name in g.leaves]
    edge = torch.autograd.graph.get_gradient_edge(tensors[g.root])
    reference = weakref.ref(tensors[g.root])
    del tensors

    same(reference(), None, why="the program forgot it")
    got = torch.autograd.grad(edge, leaves, world.constant(g.cotangent), allow_unused=True)

    gradients = g.gradients(world)
    same(got, [gradients[name] for name in g.leaves], why=f"the edge was that of {g.root}")


@claim(cites=["torch_autograd/gradient-edges-stand-for-their-tensors"], since="2.9")
@given(v=values(), by_backward=st.booleans(), times=st.integers(1, 3))
def spec_the_gradient_edge_of_a_user_defined_result_keeps_its_graph(world, v, by_backward, times):
    """The gradient edge of the result of an operation that the user defines keeps the graph below it, too."""
    x = world.leaf(v)
    y = x
    for _ in range(times):
        y = Twice.apply(y)
    edge = torch.autograd.graph.get_gradient_edge(y)
    expected = torch.full_like(x, 2**times).detach()
    cotangent = torch.ones_like(y)
    del y

    if by_backward:
        torch.autograd.backward(edge, cotangent)
        same(x.grad, expected, why=f"{times} times twice")
    else:
        same(torch.autograd.grad(edge, [x], cotangent), [expected], why=f"{times} times twice")
