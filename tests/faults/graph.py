"""Faults in how the graph is recorded, and in how backward walks it."""

import torch

from . import fault, leaves_below, patched, reading, wrong_kernel


class Spoiled:
    """A stand-in for a node: what it is called for, its edges and its identity can be spoiled."""

    def __init__(self, node, edges=None, call=None, key=None):
        self._node, self._how = node, (edges, call, key)

    @property
    def next_functions(self):
        edges = self._how[0]
        true = self._node.next_functions
        spoiled = edges(self._node, true) if edges else true
        return tuple((below and Spoiled(below, *self._how), number) for below, number in spoiled)

    def __call__(self, *cotangents):
        call = self._how[1]
        return call(self._node, *cotangents) if call else self._node(*cotangents)

    def __getattr__(self, name):
        return getattr(self._node, name)

    def _key(self):
        key = self._how[2]
        return key(self) if key else self._node

    def __eq__(self, other):
        return isinstance(other, Spoiled) and self._key() == other._key()

    def __hash__(self):
        return hash(self._key())


def spoiled_nodes(edges=None, call=None, key=None):
    """Let .grad_fn read as stand-ins: edges(node, true ones), call(node, cotangent), key(stand-in) for its identity."""
    return reading("grad_fn", lambda _, node: node and Spoiled(node, edges, call, key))


@fault(
    "graph/an_operation_is_recorded_if_an_input_requires_grad",
    "graph/the_edges_of_a_node_lead_to_where_the_inputs_came_from",
)
def only_the_first_summand_is_recorded():
    """A sum is recorded as if its second operand were a constant."""

    def make(true):
        return lambda a, b: true(a, b.detach() if isinstance(b, torch.Tensor) else b)

    with patched(torch.Tensor, "__add__", make):
        yield


@fault("graph/an_operation_is_recorded_if_an_input_requires_grad")
def the_third_operand_is_not_recorded():
    """addcmul and stack record no more than their first two operands."""
    with (
        patched(torch, "addcmul", lambda true: lambda a, b, c, **options: true(a, b, c.detach(), **options)),
        patched(torch, "stack", lambda true: lambda all: true([*all[:2], *(t.detach() for t in all[2:])])),
    ):
        yield


@fault("graph/an_operation_is_recorded_if_an_input_requires_grad")
def a_product_of_constants_requires_grad():
    """The product of two tensors requires grad in grad mode, also if both factors are constants."""

    def make(true):
        def product(a, b):
            y = true(a, b)
            return y.requires_grad_() if torch.is_grad_enabled() and isinstance(b, torch.Tensor) else y

        return product

    with patched(torch.Tensor, "__mul__", make):
        yield


@fault("graph/an_operation_is_recorded_if_an_input_requires_grad")
def maximum_is_recorded_without_grad_mode():
    """torch.maximum is recorded whatever the grad mode is."""

    def make(true):
        def maximum(a, b):
            with torch.enable_grad():
                return true(a, b)

        return maximum

    with patched(torch, "maximum", make):
        yield


@fault("graph/recording_does_not_change_what_is_computed")
def recording_adds_one_to_a_total():
    """sum() of all elements gives one more if it is recorded."""

    def make(true):
        def total(x, *dim, **options):
            y = true(x, *dim, **options)
            return y + 1 if y.requires_grad and not dim else y

        return total

    with patched(torch.Tensor, "sum", make):
        yield


@fault("graph/recording_does_not_change_what_is_computed")
def recorded_products_write_to_their_first_factor():
    """A product that is recorded also goes into its first factor, if that is a leaf."""

    def make(true):
        def product(a, b):
            y = true(a, b)
            if y.requires_grad and a.is_leaf and a.shape == y.shape and 0 not in a.stride():
                with torch.no_grad():
                    a.copy_(y)
            return y

        return product

    with patched(torch.Tensor, "__mul__", make):
        yield


@fault("graph/the_graph_consists_of_backward_nodes")
def grad_fn_is_a_stand_in():
    """grad_fn and what lies below it behave as nodes but are instances of some other class."""
    with spoiled_nodes():
        yield


@fault("graph/the_graph_consists_of_backward_nodes")
def leaves_are_nodes_themselves():
    """Where an accumulate node belongs there is the leaf itself."""

    class Leaf(torch.Tensor):
        next_functions = ()
        __eq__ = object.__eq__
        __hash__ = object.__hash__

    def edges(node, true):
        return [
            (below.variable.detach().as_subclass(Leaf) if hasattr(below, "variable") else below, number)
            for below, number in true
        ]

    class Naked(Spoiled):
        @property
        def next_functions(self):
            return tuple(edges(self._node, self._node.next_functions))

    with reading("grad_fn", lambda _, node: node and Naked(node)):
        yield


@fault("graph/the_edges_of_a_node_lead_to_where_the_inputs_came_from")
def constants_leave_no_edge():
    """The edges that lead nowhere are missing."""
    with spoiled_nodes(edges=lambda node, true: [edge for edge in true if edge[0]]):
        yield


@fault("graph/the_edges_of_a_node_lead_to_where_the_inputs_came_from")
def edges_are_in_the_opposite_order():
    """The edges of a node are those of its inputs from the last to the first."""
    with spoiled_nodes(edges=lambda node, true: true[::-1]):
        yield


@fault("graph/the_edges_of_a_node_lead_to_where_the_inputs_came_from")
def edges_forget_the_number_of_the_result():
    """An edge says of any result that it was the first of its operation."""
    with spoiled_nodes(edges=lambda node, true: [(below, 0) for below, _ in true]):
        yield


@fault("graph/the_edges_of_a_node_lead_to_where_the_inputs_came_from")
def user_defined_operations_have_no_edges():
    """The node of a user-defined operation leads nowhere."""

    def edges(node, true):
        return [(None, 0)] * len(true) if hasattr(node, "saved_tensors") else true

    with spoiled_nodes(edges=edges):
        yield


@fault("graph/the_graph_ends_at_the_leaves_that_the_root_depends_on")
def a_leaf_has_an_accumulate_node_for_each_use():
    """A leaf that is used twice stands in the graph twice."""
    with spoiled_nodes(key=lambda node: id(node) if hasattr(node, "variable") else node._node):
        yield


@fault("graph/the_graph_ends_at_the_leaves_that_the_root_depends_on")
def the_graph_ends_at_0_dim_leaves_only():
    """The accumulate nodes of leaves of more than one dimension are left out of the graph."""

    def edges(node, true):
        return [
            (None, 0) if hasattr(below, "variable") and below.variable.dim() > 1 else (below, n) for below, n in true
        ]

    with spoiled_nodes(edges=edges):
        yield


@fault("graph/the_graph_ends_at_the_leaves_that_the_root_depends_on")
def accumulate_nodes_belong_to_copies():
    """The variable of an accumulate node is a tensor like the leaf, not the leaf."""

    class Copied(Spoiled):
        @property
        def next_functions(self):
            return tuple((below and Copied(below), number) for below, number in self._node.next_functions)

        def __getattr__(self, name):
            value = getattr(self._node, name)
            return value.detach().clone() if name == "variable" else value

    with reading("grad_fn", lambda _, node: node and Copied(node)):
        yield


@fault("graph/the_graph_has_no_cycle")
def nodes_lead_back_to_themselves():
    """A node that has edges has one more, which leads to itself."""
    with spoiled_nodes(edges=lambda node, true: [*true, (node, 0)] if true else true):
        yield


@fault("graph/the_graph_has_no_cycle")
def a_square_is_its_own_input():
    """Both edges of a product of a result with itself lead to the product."""

    def edges(node, true):
        twice = node.name().startswith("Mul") and len(true) == 2 and true[0] == true[1]
        return [(node, 0)] * 2 if twice and not hasattr(true[0][0], "variable") else true

    with spoiled_nodes(edges=edges):
        yield


@fault("graph/a_grad_fn_takes_cotangents_to_cotangents")
def a_grad_fn_gives_the_derivative():
    """A grad_fn gives the derivative, whatever cotangent it is called with."""
    with spoiled_nodes(call=lambda node, cotangent: node(torch.ones_like(cotangent))):
        yield


@fault("graph/a_grad_fn_takes_cotangents_to_cotangents")
def a_grad_fn_takes_the_magnitude_of_the_cotangent():
    """Backward through a sum loses the sign of a negative cotangent, so that it isn't linear."""
    with wrong_kernel("add.Tensor", lambda cotangent, a, b, *alpha: (cotangent.abs(), cotangent.abs())):
        yield


@fault("graph/a_grad_fn_takes_cotangents_to_cotangents")
def subtrahends_get_the_cotangent_as_it_is():
    """Backward through a difference gives the subtrahend the cotangent with the wrong sign."""
    with wrong_kernel("sub.Tensor", lambda cotangent, a, b, *alpha: (cotangent, cotangent)):
        yield


@fault("graph/the_graph_is_complete_before_backward")
def the_graph_is_built_by_backward():
    """There is no grad_fn as long as no leaf below has a .grad."""

    def late(_, node):
        nodes = [node] if node else []
        for one in nodes:
            nodes.extend(below for below, _ in one.next_functions if below and below not in nodes)
        filled = any(one.variable.grad is not None for one in nodes if hasattr(one, "variable"))
        return node if filled else None

    with reading("grad_fn", late):
        yield


@fault("graph/the_graph_is_complete_before_backward")
def backward_takes_the_root_out_of_its_graph():
    """After backward, unless it retains the graph, the root has no grad_fn any more."""

    def make(true):
        def backward(tensors, grad_tensors=None, retain_graph=None, create_graph=False, **options):
            true(tensors, grad_tensors, retain_graph, create_graph, **options)
            if not (retain_graph or create_graph) and not tensors._is_view():
                tensors.detach_()

        return backward

    with patched(torch.autograd, "backward", make):
        yield


@fault("graph/the_graph_is_complete_before_backward")
def backward_adds_an_edge():
    """A node below which a leaf has its .grad has one more edge, to that leaf."""

    def edges(node, true):
        leaves = [below for below, _ in true if hasattr(below, "variable") and below.variable.grad is not None]
        return [*true, *((leaf, 0) for leaf in leaves)]

    with spoiled_nodes(edges=edges):
        yield


@fault("graph/what_ran_is_what_is_differentiated", "graph/a_grad_fn_takes_cotangents_to_cotangents")
def the_other_branch_is_differentiated():
    """The derivative of a negation is that of the other branch, which would have kept the sign."""
    with wrong_kernel("neg", lambda cotangent, x: (cotangent,)):
        yield


@fault("graph/what_ran_is_what_is_differentiated")
def loops_are_recorded_up_to_the_fourth_round():
    """A product isn't recorded if four operations or more were recorded before it, one on the other."""

    def make(true):
        def product(a, b):
            depth, node = 0, a.grad_fn
            while node and node.next_functions:
                depth, node = depth + 1, node.next_functions[0][0]
            return true(a.detach() if depth >= 4 else a, b)

        return product

    with patched(torch.Tensor, "__mul__", make):
        yield


@fault("graph/each_forward_pass_makes_new_nodes")
def the_same_operation_has_the_same_node():
    """Nodes of operations with the same name are one and the same, as if the graph were static."""
    with spoiled_nodes(key=lambda node: node._node if hasattr(node, "variable") else node.name()):
        yield


@fault("graph/each_forward_pass_makes_new_nodes")
def each_graph_has_its_own_accumulate_nodes():
    """No two graphs have an accumulate node in common."""
    with spoiled_nodes(key=id):
        yield


@fault("graph/each_forward_pass_makes_new_nodes", "graph/the_graph_ends_at_the_leaves_that_the_root_depends_on")
def the_second_factor_is_not_accumulated_by_its_own_node():
    """The second edge of a product leads past the leaf's accumulate node to a new one."""

    def make(true):
        def product(a, b):
            if isinstance(b, torch.Tensor) and b.is_leaf and b.requires_grad:
                b = b.detach().requires_grad_()
            return true(a, b)

        return product

    with patched(torch.Tensor, "__mul__", make):
        yield


@fault("graph/backward_runs_each_node_below_its_start_once")
def backward_runs_hooks_twice():
    """A hook is called twice for one gradient."""

    def make(true):
        return lambda x, hook: true(x, lambda g: (hook(g), hook(g))[0])

    with patched(torch.Tensor, "register_hook", make):
        yield


@fault("graph/backward_runs_each_node_below_its_start_once")
def unused_branches_run_as_well():
    """Backward runs whatever was made from a leaf, used or not: a result's hook hears of its leaves' gradients."""

    def make(true):
        def register(x, hook):
            for leaf in leaves_below(x) if not x.is_leaf else []:
                heard = []
                true(leaf, lambda g, heard=heard: heard or hook(torch.zeros_like(g)))
            return true(x, hook)

        return register

    with patched(torch.Tensor, "register_hook", make):
        yield


@fault("graph/backward_runs_each_node_below_its_start_once")
def leaves_get_their_gradient_in_two_parts():
    """A leaf's hook hears of half of the gradient, and then of the other half."""

    def make(true):
        def register(x, hook):
            return true(x, lambda g: (hook(g / 2), hook(g / 2))[0] if x.is_leaf else hook(g))

        return register

    with patched(torch.Tensor, "register_hook", make):
        yield


@fault("graph/an_operation_is_recorded_if_an_input_requires_grad")
def the_second_matrix_of_addmm_is_a_constant():
    """addmm records its first two operands only."""
    with patched(torch, "addmm", lambda true: lambda a, b, c: true(a, b, c.detach())):
        yield


@fault("graph/an_operation_is_recorded_if_an_input_requires_grad")
def copying_makes_no_history_for_0_dim_tensors():
    """copy_() into a tensor of no dimension is not recorded."""
    with patched(torch.Tensor, "copy_", lambda true: lambda a, b: true(a, b if a.dim() else b.detach())):
        yield


@fault("graph/what_is_made_without_a_derivative_has_no_history")
def a_histogram_is_recorded():
    """histc() has a history, with a derivative of zero."""
    with patched(torch.Tensor, "histc", lambda true: lambda x, bins: true(x, bins) + 0 * x.sum()):
        yield


@fault("graph/what_is_made_without_a_derivative_has_no_history")
def full_like_takes_requires_grad_from_a_result():
    """torch.full_like of a result that requires grad requires grad."""

    def make(true):
        return lambda x, number, **options: true(x, number, **options).requires_grad_(not x.is_leaf)

    with patched(torch, "full_like", make):
        yield


@fault("graph/integers_and_booleans_are_not_recorded")
def indices_have_a_history():
    """Integers that were computed have a grad_fn."""
    with reading("grad_fn", lambda t, node: "a node" if t.dtype == torch.int64 and t.dim() else node):
        yield


@fault("graph/integers_and_booleans_are_not_recorded")
def values_beside_indices_are_not_recorded():
    """Of an operation that gives indices too, the values in more than one dimension are not recorded."""

    def make(true):
        def operation(x, *args, **options):
            values, indices = true(x, *args, **options)
            return (values.detach() if x.dim() > 1 else values), indices

        return operation

    with patched(torch.Tensor, "cummax", make), patched(torch.Tensor, "mode", make):
        yield


@fault("graph/arguments_that_are_no_tensors_are_not_in_the_graph")
def numbers_become_leaves():
    """The weight of lerp becomes a leaf that requires grad if it is a number."""

    def make(true):
        return lambda a, b, weight: true(a, b, torch.full_like(a, weight).detach().requires_grad_())

    with patched(torch, "lerp", make):
        yield


@fault("graph/arguments_that_are_no_tensors_are_not_in_the_graph")
def an_alpha_makes_one_edge_of_two():
    """add() with alpha is recorded as if its second operand were a constant."""
    with patched(torch, "add", lambda true: lambda a, b, alpha=1: true(a, b.detach(), alpha=alpha)):
        yield


@fault("graph/an_operation_that_fails_leaves_no_trace")
def a_failing_product_counts_as_a_change():
    """mul_() that raises an error counts up the version of the tensor."""

    def make(true):
        def multiply(a, b):
            try:
                return true(a, b)
            except RuntimeError:
                torch._C._autograd._unsafe_set_version_counter((a,), (a._version + 1,))
                raise

        return multiply

    with patched(torch.Tensor, "mul_", make):
        yield


@fault("graph/an_operation_that_fails_leaves_no_trace")
def adding_to_a_leaf_detaches_it_first():
    """add_() to a leaf raises its error, but the leaf doesn't require grad any more."""

    def make(true):
        def add(a, b):
            try:
                return true(a, b)
            except RuntimeError:
                a.requires_grad_(False)
                raise

        return add

    with patched(torch.Tensor, "add_", make):
        yield
