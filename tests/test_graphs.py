"""Random graphs reach what claims about graphs speak of."""

import torch

from specs.kit import graphs
from specs.kit.graphs import OPERATIONS
from specs.kit.world import World

from .test_values import examples

DRAWN = examples(graphs(), count=400)


def uses(graph):
    """How often each tensor is an operand."""
    operands = [name for statement in graph.statements for name in statement.operands]
    return {name: operands.count(name) for name in [*graph.leaves, *graph.constants, *graph.results]}


def test_every_operation_occurs():
    seen = {statement.operation.code for graph in DRAWN for statement in graph.statements}
    missing = {operation.code for operation in OPERATIONS} - seen
    assert len(missing) <= 4, missing


def test_leaves_are_used_several_times_once_and_not_at_all():
    counts = [uses(graph)[leaf] for graph in DRAWN for leaf in graph.leaves]
    assert all(sum(count == n for count in counts) >= 40 for n in (0, 1, 2))


def test_results_are_shared_and_branches_left_unused():
    assert sum(any(uses(graph)[name] > 1 for name in graph.results) for graph in DRAWN) >= 40
    assert sum(any(graph.predicted[name] is None for name in graph.results) for graph in DRAWN) >= 40


def test_graphs_grow_deep():
    assert sum(len(graph.statements) >= 5 for graph in DRAWN) >= 80


def test_constants_take_part():
    assert sum(any(uses(graph)[name] for name in graph.constants) for graph in DRAWN) >= 40


def test_some_tensors_are_empty_and_some_roots_are_not_scalar():
    assert sum(graph.cotangent.shape != () for graph in DRAWN) >= 80
    assert sum(any(0 in v.shape for v in graph.leaves.values()) for graph in DRAWN) >= 10


def test_scalar_graphs_end_in_a_scalar():
    assert {graph.cotangent.shape for graph in examples(graphs(scalar=True))} == {()}


def test_the_model_knows_which_results_require_grad():
    world = World(torch.device("cpu"))
    for graph in DRAWN[:100]:
        tensors = graph.build(world)
        for statement in graph.statements:
            assert tensors[statement.name].requires_grad is (statement.name in graph.results), graph


def test_the_model_and_pytorch_compute_the_same_shapes():
    world = World(torch.device("cpu"))
    for graph in DRAWN[:100]:
        tensors = graph.build(world)
        for name, v in graph.predicted.items():
            assert v is None or v.shape == tensors[name].shape, graph
