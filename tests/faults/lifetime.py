"""Faults in how long a graph lives and in what it keeps."""

import weakref

import torch

from . import after_backward, fault, leaves_below, patched


@fault("lifetime/graphs_stand_side_by_side")
def a_backward_spoils_the_graphs_that_stand():
    """A total that was recorded before some other backward reached its leaves gives no gradient."""

    def state(leaves):
        return [None if leaf.grad is None else leaf.grad._version for leaf in leaves]

    def make(true):
        def total(x, *dim, **options):
            y = true(x, *dim, **options)
            if y.requires_grad:
                leaves = leaves_below(y)
                recorded = state(leaves)
                y.register_hook(lambda g: g if state(leaves) == recorded else g * 0)
            return y

        return total

    with patched(torch.Tensor, "sum", make):
        yield


@fault("lifetime/a_second_backward_through_a_freed_graph_raises")
def graphs_are_always_retained():
    """Backward retains the graph whether it is told to or not."""

    def make(true):
        def differentiate(roots, others=None, *args, **options):
            return true(roots, others, *args, **{**options, "retain_graph": True})

        return differentiate

    def make_backward(true):
        def backward(tensors, grad_tensors=None, retain_graph=None, create_graph=False, **options):
            true(tensors, grad_tensors, True, create_graph, **options)

        return backward

    with patched(torch.autograd, "grad", make), patched(torch.autograd, "backward", make_backward):
        yield


@fault("lifetime/a_second_backward_through_a_freed_graph_raises", "lifetime/retain_graph_is_create_graph_unless_given")
def backward_into_inputs_retains_the_graph():
    """backward(inputs=...) retains the graph whether it is told to or not."""

    def make(true):
        def backward(tensors, grad_tensors=None, retain_graph=None, create_graph=False, inputs=None, **options):
            true(tensors, grad_tensors, True if inputs else retain_graph, create_graph, inputs=inputs, **options)

        return backward

    with patched(torch.autograd, "backward", make):
        yield


@fault("lifetime/a_second_backward_through_a_freed_graph_raises")
def a_failing_backward_doubles_grad():
    """A backward that raises an error has added something to the .grad of the leaves before."""

    def make(true):
        def backward(tensors, *args, **options):
            leaves = leaves_below(tensors)
            try:
                true(tensors, *args, **options)
            except RuntimeError:
                for leaf in leaves:
                    if leaf.grad is not None:
                        leaf.grad += 1
                raise

        return backward

    with patched(torch.autograd, "backward", make):
        yield


@fault("lifetime/a_second_backward_through_a_freed_graph_raises")
def the_error_about_freed_values_says_nothing():
    """The error of a second backward doesn't say what to do about it."""

    def make(true):
        def backward(*args, **options):
            try:
                true(*args, **options)
            except RuntimeError as error:
                raise RuntimeError("no") from error

        return backward

    with patched(torch.autograd, "backward", make):
        yield


@fault("lifetime/a_retained_graph_can_be_differentiated_again", "lifetime/graphs_stand_side_by_side")
def the_third_backward_counts_twice():
    """The third backward in a row adds its gradient twice."""

    def again(leaf, before):
        if before is not None and leaf.grad._version == 2:
            leaf.grad += leaf.grad - before

    with after_backward(again):
        yield


@fault("lifetime/a_retained_graph_can_be_differentiated_again")
def grad_of_a_differentiated_graph_is_zero():
    """torch.autograd.grad gives zeros for a leaf that has a .grad already."""

    def make(true):
        def grad(outputs, inputs, *args, **options):
            grads = true(outputs, inputs, *args, **options)
            return tuple(g if g is None or x.grad is None else g * 0 for g, x in zip(grads, inputs, strict=True))

        return grad

    with patched(torch.autograd, "grad", make):
        yield


@fault("lifetime/a_retained_graph_can_be_differentiated_again", "lifetime/retain_graph_is_create_graph_unless_given")
def grad_ignores_retain_graph():
    """torch.autograd.grad frees the graph although it is told to retain it."""

    def make(true):
        def grad(outputs, inputs, *args, retain_graph=None, **options):
            return true(outputs, inputs, *args, retain_graph=None, **options)

        return grad

    with patched(torch.autograd, "grad", make):
        yield


@fault("lifetime/retain_graph_is_create_graph_unless_given")
def create_graph_overrides_retain_graph():
    """backward(create_graph=True) retains the graph although retain_graph is False."""

    def make(true):
        def backward(tensors, grad_tensors=None, retain_graph=None, create_graph=False, **options):
            true(tensors, grad_tensors, retain_graph or create_graph, create_graph, **options)

        return backward

    with patched(torch.autograd, "backward", make):
        yield


@fault("lifetime/forgetting_tensors_leaves_the_graph_whole")
def a_forgotten_product_passes_nothing_on():
    """A product that no name refers to any more gives no gradient to its factors."""

    def make(true):
        def product(a, b):
            y = true(a, b)
            if y.requires_grad:
                alive = weakref.ref(y)
                y.register_hook(lambda g: g * 0 if alive() is None else g)
            return y

        return product

    with patched(torch.Tensor, "__mul__", make):
        yield


@fault("lifetime/forgetting_tensors_leaves_the_graph_whole")
def a_forgotten_total_passes_nothing_on():
    """A sum() that no name refers to any more gives no gradient to what it was made of."""

    def make(true):
        def total(x, *dim, **options):
            y = true(x, *dim, **options)
            if y.requires_grad:
                alive = weakref.ref(y)
                y.register_hook(lambda g: g * 0 if alive() is None else g)
            return y

        return total

    with patched(torch.Tensor, "sum", make):
        yield


@fault("lifetime/the_graph_does_not_keep_tensors_that_it_did_not_save")
def negations_keep_their_operand():
    """The graph keeps the operand of a negation alive."""

    def make(true):
        def negation(x):
            y = true(x)
            if y.requires_grad:
                y.register_hook(lambda g, kept=x: None)
            return y

        return negation

    with patched(torch.Tensor, "__neg__", make):
        yield


@fault("lifetime/the_graph_does_not_keep_tensors_that_it_did_not_save")
def clones_of_0_dim_tensors_keep_the_original():
    """The graph keeps a tensor of no dimension alive of which it recorded a clone."""

    def make(true):
        def clone(x, **options):
            y = true(x, **options)
            if y.requires_grad and x.dim() == 0:
                y.register_hook(lambda g, kept=x: None)
            return y

        return clone

    with patched(torch.Tensor, "clone", make):
        yield


def kept_by_itself(x):
    """The tensor, which refers to itself, so that only the garbage collector frees it."""
    if isinstance(x, torch.Tensor) and x.requires_grad:
        x.itself = x
    return x


@fault("lifetime/a_node_lives_as_long_as_a_tensor_or_node_above_it")
def products_wait_for_the_garbage_collector():
    """A product refers to itself."""
    with patched(torch.Tensor, "__mul__", lambda true: lambda a, b: kept_by_itself(true(a, b))):
        yield


@fault("lifetime/a_node_lives_as_long_as_a_tensor_or_node_above_it")
def totals_of_nothing_wait_for_the_garbage_collector():
    """sum() of a tensor without elements refers to itself."""

    def make(true):
        def total(x, *dim, **options):
            y = true(x, *dim, **options)
            return y if x.numel() else kept_by_itself(y)

        return total

    with patched(torch.Tensor, "sum", make):
        yield


@fault("lifetime/the_graph_keeps_its_leaves")
def leaves_wait_for_the_garbage_collector():
    """A tensor that is told to require grad refers to itself."""
    with patched(torch.Tensor, "requires_grad_", lambda true: lambda x, *flag: kept_by_itself(true(x, *flag))):
        yield


@fault("lifetime/the_graph_keeps_its_leaves")
def a_square_is_of_a_copy_of_the_leaf():
    """square() of a leaf is recorded for another leaf over the same memory."""

    def make(true):
        return lambda x: true(x.detach().requires_grad_() if x.is_leaf and x.requires_grad else x)

    with patched(torch.Tensor, "square", make):
        yield


@fault("lifetime/the_depth_of_a_graph_is_not_limited_by_the_stack")
def deep_graphs_lose_their_gradient():
    """Backward through more than ten thousand nodes, one below the other, gives zeros."""

    def make(true):
        def backward(tensors, *args, **options):
            depth, node = 0, tensors.grad_fn
            while node:
                depth, node = depth + 1, node.next_functions[0][0] if node.next_functions else None
            leaves = leaves_below(tensors)
            true(tensors, *args, **options)
            for leaf in leaves if depth > 10_000 else []:
                leaf.grad.zero_()

        return backward

    with patched(torch.autograd, "backward", make):
        yield


@fault("lifetime/the_depth_of_a_graph_is_not_limited_by_the_stack")
def negations_of_scalars_wait_for_the_garbage_collector():
    """The negation of a negation refers to itself if it has no dimension."""

    def make(true):
        return lambda x: true(x) if x.dim() or x.is_leaf else kept_by_itself(true(x))

    with patched(torch.Tensor, "__neg__", make):
        yield
