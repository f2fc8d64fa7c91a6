"""Faults in what can be seen of the graph."""

import torch

from . import fault, patched, reading
from .graph import Spoiled, spoiled_nodes


def stand_ins(of=lambda node: True, **attributes):
    """Let .grad_fn, and the nodes below, read as stand-ins with these attributes where `of(node)` is true."""

    class Changed(Spoiled):
        @property
        def next_functions(self):
            return tuple((below and stand_in(below), number) for below, number in self._node.next_functions)

    for name, get in attributes.items():
        setattr(Changed, name, property(lambda self, get=get: get(self._node)))

    def stand_in(node):
        return Changed(node) if of(node) else node

    return reading("grad_fn", lambda _, node: node and stand_in(node))


def user_defined(node):
    """Whether the node is one of an operation that the user defines."""
    return hasattr(node, "saved_tensors")


@fault("introspection/each_node_has_what_the_class_node_declares")
def nodes_can_be_made():
    """torch.autograd.graph.Node has no abstract methods."""
    with patched(torch.autograd.graph.Node, "__abstractmethods__", lambda true: frozenset()):
        yield


@fault("introspection/each_node_has_what_the_class_node_declares")
def metadata_is_a_method():
    """metadata of a node has to be called, as its declaration says."""
    with stand_ins(metadata=lambda node: lambda: node.metadata):
        yield


@fault("introspection/a_node_tells_the_name_of_its_operation")
def names_tell_the_number_of_inputs():
    """The name of a node ends with the number of its edges."""
    with stand_ins(name=lambda node: lambda: node.name() + str(len(node.next_functions))):
        yield


@fault("introspection/a_node_tells_the_name_of_its_operation")
def user_defined_nodes_have_a_common_name():
    """All operations that the user defines have nodes of one name."""

    def name(node):
        return lambda: "TwiceBackward" if user_defined(node) else node.name()

    class PairBackward(Spoiled):
        name = property(lambda self: name(self._node))

    with reading("grad_fn", lambda _, node: PairBackward(node) if node and user_defined(node) else node):
        yield


@fault("introspection/there_is_one_object_for_each_node", "introspection/the_graph_cannot_be_changed_by_assignment")
def user_defined_nodes_are_read_anew():
    """Reading the node of an operation that the user defines gives another object each time."""
    with stand_ins(of=user_defined):
        yield


@fault("introspection/there_is_one_object_for_each_node")
def edges_lead_to_copies():
    """The nodes that edges lead to are equal to those that grad_fn gives, but other objects."""
    true = torch._C._TensorBase.grad_fn

    class Above(Spoiled):
        @property
        def next_functions(self):
            return tuple((below and Spoiled(below), number) for below, number in self._node.next_functions)

    def get(tensor):
        node = true.__get__(tensor)
        return Above(node) if node and "Exp" in node.name() else node

    with patched(torch.Tensor, "grad_fn", lambda _: property(get)):
        yield


@fault("introspection/metadata_lives_with_the_node", "introspection/a_leaf_does_not_keep_its_accumulate_node")
def metadata_is_always_empty():
    """The metadata of a node reads as an empty dict, whatever was put there."""
    with stand_ins(metadata=lambda node: {}):
        yield


@fault("introspection/metadata_lives_with_the_node")
def backward_clears_metadata():
    """Backward clears the metadata of the node that it starts from."""

    def make(true):
        def backward(tensors, *args, **options):
            true(tensors, *args, **options)
            if isinstance(tensors, torch.Tensor) and tensors.grad_fn:
                tensors.grad_fn.metadata.clear()

        return backward

    with patched(torch.autograd, "backward", make):
        yield


@fault("introspection/metadata_lives_with_the_node")
def the_metadata_of_an_edge_are_those_of_the_node_above():
    """What edges lead to has the metadata of the node that they come from."""

    class Below(Spoiled):
        metadata = property(lambda self: self._how[0].metadata)

    class Above(Spoiled):
        @property
        def next_functions(self):
            edges = self._node.next_functions
            return tuple((below and Below(below, self._node), number) for below, number in edges)

    with reading("grad_fn", lambda _, node: node and Above(node)):
        yield


@fault("introspection/the_graph_cannot_be_changed_by_assignment")
def output_nr_takes_any_value():
    """Setting output_nr does nothing, without an error."""
    true = torch._C._TensorBase.output_nr
    with patched(torch.Tensor, "output_nr", lambda _: property(true.__get__, lambda tensor, value: None)):
        yield


@fault("introspection/the_results_of_one_operation_share_its_node")
def all_results_are_the_first():
    """output_nr is 0 for all results of an operation."""
    with reading("output_nr", lambda tensor, number: 0):
        yield


@fault("introspection/the_results_of_one_operation_share_its_node")
def unbind_takes_one_after_the_other():
    """unbind() is recorded as an operation for each part."""

    def make(true):
        return lambda x, dim=0: tuple(x.select(dim, i) for i in range(x.shape[dim]))

    with patched(torch.Tensor, "unbind", make):
        yield


@fault("introspection/results_that_are_not_used_contribute_zeros")
def parts_drag_each_other_along():
    """A gradient for one part of unbind() or chunk() goes to the last part, too."""

    def make(true):
        def parts(x, *args, **options):
            all = true(x, *args, **options)
            if not x.requires_grad:
                return all
            last = all[-1].sum()
            return (*(part + (last - last.detach()) for part in all[:-1]), all[-1])

        return parts

    with patched(torch.Tensor, "unbind", make), patched(torch.Tensor, "chunk", make):
        yield


@fault("introspection/results_that_are_not_used_contribute_zeros")
def a_part_of_uneven_size_is_lost():
    """The last part of split(2), if it is smaller than the others, gives no gradient."""

    def make(true):
        def split(x, sizes, dim=0):
            all = true(x, sizes, dim)
            return (*all[:-1], all[-1].detach()) if sizes == 2 and len(all) > 1 and x.shape[dim] % 2 else all

        return split

    with patched(torch.Tensor, "split", make):
        yield


@fault("introspection/a_leaf_does_not_keep_its_accumulate_node")
def a_product_binds_its_leaf_to_the_node():
    """A leaf that was multiplied keeps its accumulate node alive."""

    def make(true):
        def product(a, b):
            y = true(a, b)
            if a.is_leaf and a.requires_grad:
                a.node = y.grad_fn.next_functions[0][0]
            return y

        return product

    with patched(torch.Tensor, "__mul__", make):
        yield


@fault("introspection/data_of_another_dtype_give_a_leaf_a_new_accumulate_node")
def data_keep_the_dtype():
    """Setting .data converts to the dtype that the tensor has."""
    true = torch._C._TensorBase.data

    def assign(tensor, data):
        true.__set__(tensor, data.to(tensor.dtype))

    with patched(torch.Tensor, "data", lambda _: property(true.__get__, assign)):
        yield


@fault("introspection/data_of_another_dtype_give_a_leaf_a_new_accumulate_node")
def accumulate_nodes_depend_on_the_shape():
    """The accumulate node of a leaf of no dimension is another object each time."""
    with stand_ins(of=lambda node: not hasattr(node, "variable") or node.variable.dim() == 0):
        yield


@fault("introspection/a_call_of_a_node_is_an_operation")
def calls_of_nodes_are_not_recorded():
    """What a node gives when it is called doesn't require grad."""
    with spoiled_nodes(call=lambda node, v: torch.no_grad()(node)(v)):
        yield


@fault("introspection/a_call_of_a_node_is_an_operation")
def calls_of_freed_nodes_pass_on_the_cotangent():
    """A node whose values are freed gives the cotangent back, without an error."""

    def call(node, v):
        try:
            return node(v)
        except RuntimeError:
            return v

    with spoiled_nodes(call=call):
        yield


@fault("introspection/a_call_of_an_accumulate_node_accumulates")
def called_accumulate_nodes_overwrite():
    """An accumulate node that is called puts the gradient in the place of .grad."""

    def call(node, v):
        node.variable.grad = v.clone()

    with spoiled_nodes(call=call):
        yield


@fault(
    "introspection/backward_runs_the_nodes_in_the_opposite_order_of_their_making",
    "introspection/nodes_are_numbered_in_the_order_of_their_making",
)
def sums_are_numbered_zero():
    """The node of a sum has the number 0, so that backward runs it last."""

    def make(true):
        def add(a, b):
            y = true(a, b)
            if y.grad_fn:
                y.grad_fn._set_sequence_nr(0)
            return y

        return add

    with patched(torch.Tensor, "__add__", make):
        yield


@fault("introspection/nodes_are_numbered_in_the_order_of_their_making")
def accumulate_nodes_are_numbered_zero():
    """The accumulate node of a leaf has the number 0."""
    with stand_ins(_sequence_nr=lambda node: lambda: 0 if hasattr(node, "variable") else node._sequence_nr()):
        yield


@fault("introspection/a_node_knows_the_form_of_its_cotangents")
def nodes_know_their_first_result_only():
    """A node knows the form of one cotangent only."""
    with stand_ins(_input_metadata=lambda node: node._input_metadata[:1]):
        yield


@fault("introspection/a_node_that_the_user_defined_is_lost_with_its_results")
def user_defined_nodes_remember_their_edges():
    """The node of an operation that the user defines knows its edges after the results are gone."""

    class Remembering(Spoiled):
        def __init__(self, node):
            super().__init__(node)
            self._edges = node.next_functions

        next_functions = property(lambda self: self._edges)

    with reading("grad_fn", lambda _, node: Remembering(node) if node and user_defined(node) else node):
        yield


@fault("introspection/a_node_keeps_what_lies_below_it")
def nodes_lead_to_nameless_nodes():
    """What lies below the node of an operation that the user defines has lost its metadata."""

    class Bare(Spoiled):
        metadata = property(lambda self: {})

    class Above(Spoiled):
        @property
        def next_functions(self):
            return tuple((below and Bare(below), number) for below, number in self._node.next_functions)

    with reading("grad_fn", lambda _, node: Above(node) if node and user_defined(node) else node):
        yield


@fault("introspection/a_node_keeps_what_lies_below_it")
def stacks_are_kept_by_their_nodes():
    """The result of torch.stack lives as long as its node."""

    def make(true):
        def stack(tensors):
            y = true(tensors)
            if y.grad_fn:
                y.grad_fn.metadata["result"] = y
            return y

        return stack

    with patched(torch, "stack", make):
        yield


@fault("introspection/saved_values_are_attributes_of_the_node")
def saved_numbers_are_tensors():
    """The exponent that pow() saves, or the value of addcmul(), reads as a tensor."""

    class Changed(Spoiled):
        _saved_exponent = property(lambda self: torch.tensor(self._node._saved_exponent))
        _saved_value = property(lambda self: torch.tensor(self._node._saved_value))

        def __dir__(self):
            return dir(self._node)

    with reading("grad_fn", lambda _, node: node and Changed(node)):
        yield


@fault("introspection/saved_values_are_attributes_of_the_node")
def saved_results_are_never_freed():
    """A saved result can be read after it was freed."""

    def result(node):
        try:
            return node._saved_result
        except RuntimeError:
            return torch.zeros(())

    class Kept(Spoiled):
        _saved_result = property(lambda self: result(self._node))

        def __dir__(self):
            return dir(self._node)

    with reading("grad_fn", lambda _, node: node and Kept(node)):
        yield
