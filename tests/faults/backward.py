"""Faults in where backward starts, and in what it does with the gradients and targets passed to it."""

import contextlib

import torch

from . import fault, patched


def listed(tensors):
    """The tensors or gradient edges as a list, also if it is a single one; None stays None."""
    if isinstance(tensors, dict):
        return list(tensors.values())
    single = isinstance(tensors, (torch.Tensor, torch.autograd.graph.GradientEdge))
    return [tensors] if single else tensors if tensors is None else list(tensors)


@contextlib.contextmanager
def changed_backward(change):
    """Let backward call change(true, roots, gradients, inputs, **others), where `true` does what it says."""

    def make(true):
        def backward(
            tensors, grad_tensors=None, retain_graph=None, create_graph=False, grad_variables=None, inputs=None
        ):
            def go(roots, gradients, inputs):
                true(roots, gradients, retain_graph, create_graph, inputs=inputs)

            return change(go, listed(tensors), listed(grad_tensors), listed(inputs))

        return backward

    with patched(torch.autograd, "backward", make):
        yield


@contextlib.contextmanager
def changed_grad(change):
    """Let torch.autograd.grad give change(true, inputs, options): true(inputs, **options) does what it says."""

    def make(true):
        def grad(outputs, inputs, grad_outputs=None, **options):
            return change(lambda inputs, **o: true(outputs, inputs, grad_outputs, **o), listed(inputs), options)

        return grad

    with patched(torch.autograd, "grad", make):
        yield


@contextlib.contextmanager
def changed_gradients(change):
    """Let backward and grad start with change(root, the gradient passed or None) for each root."""

    with changed_lists_of_gradients(lambda roots, gs: [change(root, g) for root, g in zip(roots, gs, strict=False)]):
        yield


@contextlib.contextmanager
def changed_lists_of_gradients(change):
    """Let backward and grad start with change(roots, the gradients passed, each of them or None)."""

    def make(true):
        def make_grads(outputs, grads, is_grads_batched):
            return true(outputs, change(outputs, grads), is_grads_batched=is_grads_batched)

        return make_grads

    with patched(torch.autograd, "_make_grads", make):
        yield


@fault(
    "backward/backward_starts_at_whatever_tensor_it_is_called_on",
    "backward/backward_on_a_leaf_adds_the_gradient_to_its_own_grad",
)
def leaves_are_passed_over_as_roots():
    """Backward does nothing for those of its roots that are leaves."""

    def change(go, roots, gradients, inputs):
        gradients = gradients or [None] * len(roots)
        kept = [(r, g) for r, g in zip(roots, gradients, strict=False) if not (r.is_leaf and r.requires_grad)]
        if kept:
            go(*map(list, zip(*kept, strict=True)), inputs)

    with changed_backward(change):
        yield


@fault("backward/backward_starts_at_whatever_tensor_it_is_called_on")
def a_root_in_the_middle_gets_twice_its_gradient():
    """A root that is a view of another tensor starts with twice the gradient."""
    with changed_gradients(lambda root, g: g * 2 if g is not None and root._base is not None else g):
        yield


@fault("backward/backward_on_a_leaf_adds_the_gradient_to_its_own_grad")
def a_leaf_keeps_the_gradient_passed_as_its_grad():
    """The first backward on a leaf puts the tensor passed as the gradient into .grad as it is."""

    def change(go, roots, gradients, inputs):
        fresh = roots[0].is_leaf and roots[0].grad is None
        go(roots, gradients, inputs)
        if fresh and gradients and roots[0].requires_grad and gradients[0].dtype == roots[0].dtype:
            roots[0].grad = gradients[0]

    with changed_backward(change):
        yield


@fault("backward/the_implicit_gradient_of_a_scalar_is_one")
def implicit_gradient_is_two():
    """Without a gradient, backward starts with 2 for a scalar."""
    with changed_gradients(lambda root, g: torch.full_like(root, 2) if g is None and root.numel() == 1 else g):
        yield


@fault("backward/the_implicit_gradient_of_a_scalar_is_one")
def implicit_gradient_is_zero_in_three_dimensions():
    """Without a gradient, backward starts with 0 for a tensor of one element in three dimensions."""
    with changed_gradients(lambda root, g: torch.zeros_like(root) if g is None and root.dim() == 3 else g):
        yield


@fault("backward/a_tensor_of_several_elements_needs_a_gradient")
def a_missing_gradient_is_ones():
    """Without a gradient, backward starts with ones for every tensor."""
    with changed_gradients(lambda root, g: torch.ones_like(root) if g is None and root.requires_grad else g):
        yield


@fault("backward/a_tensor_of_several_elements_needs_a_gradient")
def a_missing_gradient_is_empty_for_an_empty_tensor():
    """A tensor without elements needs no gradient."""
    with changed_gradients(lambda root, g: torch.ones_like(root) if g is None and not root.numel() else g):
        yield


@fault(
    "backward/the_gradient_passed_is_the_vector_of_a_vector_jacobian_product",
    "backward/backward_multiplies_the_gradient_that_it_is_given_and_leaves_it_alone",
    "backward/backward_through_several_roots_gives_the_sum",
)
def last_element_of_a_gradient_is_lost():
    """Backward takes the last of several elements of a gradient for zero."""

    def change(root, g):
        if g is None or g.numel() < 2 or g.shape != root.shape:
            return g
        g = g.clone().reshape(-1)
        g[-1] = 0
        return g.reshape(root.shape)

    with changed_gradients(change):
        yield


@fault("backward/backward_multiplies_the_gradient_that_it_is_given_and_leaves_it_alone")
def a_transposed_gradient_is_read_as_it_lies_in_memory():
    """The elements of a gradient that isn't contiguous are taken in the order of its memory."""

    def change(root, g):
        if g is None or g.shape != root.shape or g.is_contiguous() or 0 in g.stride():
            return g
        return g.permute(*range(g.dim())[::-1]).reshape(g.shape)

    with changed_gradients(change):
        yield


@fault(
    "backward/backward_multiplies_the_gradient_that_it_is_given_and_leaves_it_alone",
    "backward/backward_on_a_leaf_adds_the_gradient_to_its_own_grad",
    "execution/backward_returns_none_and_changes_no_values",
)
def backward_uses_up_the_gradient():
    """Backward leaves the gradient passed to it full of zeros."""

    def change(go, roots, gradients, inputs):
        go(roots, gradients, inputs)
        for g in gradients or ():
            if g is not None:
                g.copy_(torch.zeros_like(g)) if 0 not in g.stride() else g[:1].zero_()

    with changed_backward(change):
        yield


@fault("backward/a_gradient_of_another_real_dtype_is_converted")
def an_integer_gradient_is_zero():
    """A gradient of integers or booleans counts as zeros."""
    with changed_gradients(lambda _, g: g if g is None or g.is_floating_point() else torch.zeros_like(g)):
        yield


@fault("backward/a_gradient_of_another_real_dtype_is_converted")
def a_gradient_of_a_narrower_dtype_is_negated():
    """A gradient of a narrower floating dtype than the root's is taken with the wrong sign."""
    with changed_gradients(lambda root, g: -g if g is not None and g.element_size() < root.element_size() else g):
        yield


@fault("backward/a_gradient_of_another_shape_is_an_error")
def a_gradient_is_broadcast():
    """A gradient is broadcast to the shape of the root."""

    def change(root, g):
        with contextlib.suppress(RuntimeError):
            return None if g is None else g.expand(root.shape)
        return g

    with changed_gradients(change):
        yield


@fault("backward/a_gradient_of_another_shape_is_an_error")
def a_gradient_is_reshaped():
    """A gradient of another shape is taken if it has as many elements."""

    def change(root, g):
        return g.reshape(root.shape) if g is not None and g.numel() == root.numel() else g

    with changed_gradients(change):
        yield


@fault("backward/a_root_that_does_not_require_grad_is_an_error")
def roots_that_do_not_require_grad_are_passed_over():
    """Backward does nothing for those of its roots that don't require grad."""

    def change(go, roots, gradients, inputs):
        gradients = gradients or [None] * len(roots)
        kept = [(r, g) for r, g in zip(roots, gradients, strict=False) if r.requires_grad]
        if kept:
            go(*map(list, zip(*kept, strict=True)), inputs)

    with changed_backward(change):
        yield


@fault("backward/a_root_that_does_not_require_grad_is_an_error")
def a_failing_backward_has_differentiated_the_first_roots():
    """Backward goes through its roots one by one, up to that which doesn't require grad."""

    def change(go, roots, gradients, inputs):
        if any(root.requires_grad for root in roots) and not all(root.requires_grad for root in roots):
            for root in roots:
                torch.autograd.Variable._execution_engine.run_backward(
                    (root,), (torch.ones_like(root),), True, False, (), allow_unreachable=True, accumulate_grad=True
                )
        go(roots, gradients, inputs)

    with changed_backward(change):
        yield


@fault("backward/backward_through_several_roots_gives_the_sum")
def only_the_last_root_counts():
    """Backward goes through the last of several roots only."""

    def change(go, roots, gradients, inputs):
        go(roots[-1:], gradients and gradients[len(roots) - 1 : len(roots)], inputs)

    with changed_backward(change):
        yield


@fault("backward/backward_through_several_roots_gives_the_sum")
def a_root_named_twice_counts_once():
    """Backward leaves out a root that is the same tensor as an earlier one."""

    def change(go, roots, gradients, inputs):
        if gradients and len(gradients) >= len(roots):
            pairs = {id(root): (root, g) for root, g in zip(roots, gradients, strict=False)}.values()
            roots, gradients = map(list, zip(*pairs, strict=True))
        go(roots, gradients, inputs)

    with changed_backward(change):
        yield


@fault("backward/fewer_gradients_than_roots_are_an_error")
def missing_gradients_are_filled_up():
    """Backward takes ones for the roots that the list of gradients doesn't reach."""

    def change(go, roots, gradients, inputs):
        if gradients is not None:
            gradients += [torch.ones_like(root) for root in roots[len(gradients) :]]
        go(roots, gradients, inputs)

    with changed_backward(change):
        yield


@fault("backward/fewer_gradients_than_roots_are_an_error")
def roots_without_a_gradient_are_passed_over():
    """Backward passes over the roots that a list of several gradients, or of one, doesn't reach."""

    def change(go, roots, gradients, inputs):
        go(roots[: len(gradients)] if gradients else roots, gradients, inputs)

    with changed_backward(change):
        yield


@fault("backward/gradients_beyond_the_number_of_roots_are_ignored")
def superfluous_gradients_go_to_the_last_root():
    """Backward adds the gradients for which there is no root to that of the last one."""

    def change(go, roots, gradients, inputs):
        if gradients and len(gradients) > len(roots):
            gradients = [*gradients[: len(roots) - 1], sum(gradients[len(roots) - 1 :])]
        go(roots, gradients, inputs)

    with changed_backward(change):
        yield


@fault("backward/none_among_gradients_stands_for_one_at_a_root_of_one_element")
def none_behind_another_gradient_stands_for_zero():
    """None in a list of gradients stands for one at the first root and for zero at the others."""

    def change(roots, gradients):
        rest = zip(roots[1:], gradients[1:], strict=False)
        return [*gradients[:1], *(torch.zeros_like(r) if g is None and r.numel() == 1 else g for r, g in rest)]

    with changed_lists_of_gradients(change):
        yield


@fault("backward/none_among_gradients_stands_for_one_at_a_root_of_one_element")
def none_behind_another_gradient_stands_for_ones():
    """None in a list of gradients stands for ones at each root but the first, however many elements it has."""

    def change(roots, gradients):
        rest = zip(roots[1:], gradients[1:], strict=False)
        return [*gradients[:1], *(torch.ones_like(r) if g is None else g for r, g in rest)]

    with changed_lists_of_gradients(change):
        yield


@fault("backward/a_complex_gradient_is_for_a_complex_tensor")
def a_complex_gradient_loses_its_imaginary_part():
    """For a real tensor the real part of a complex gradient is taken."""
    with changed_gradients(lambda root, g: g.real if g is not None and g.is_complex() > root.is_complex() else g):
        yield


@fault("backward/a_complex_gradient_is_for_a_complex_tensor")
def a_real_gradient_is_taken_for_a_complex_leaf():
    """For a complex leaf a real gradient is taken as a complex one."""

    def change(root, g):
        return g.to(root.dtype) if g is not None and root.is_leaf and root.is_complex() else g

    with changed_gradients(change):
        yield


@fault("backward/a_complex_scalar_needs_a_gradient", "backward/the_implicit_gradient_of_a_complex_scalar_is_one")
def the_implicit_gradient_of_a_complex_scalar_is_the_imaginary_unit():
    """Without a gradient, backward starts with 1j for a complex tensor of one element."""

    def change(root, g):
        return torch.full_like(root, 1j) if g is None and root.is_complex() and root.numel() == 1 else g

    with changed_gradients(change):
        yield


@fault("backward/a_complex_scalar_needs_a_gradient")
def a_complex_number_of_dimensions_needs_no_gradient():
    """Without a gradient, backward starts with 1 for a complex tensor of one element that has dimensions."""

    def change(root, g):
        return torch.ones_like(root) if g is None and root.is_complex() and root.dim() and root.numel() == 1 else g

    with changed_gradients(change):
        yield


@fault("backward/the_history_of_the_gradient_passed_is_left_alone")
def a_gradient_that_requires_grad_makes_a_graph():
    """Backward and grad record the gradient's own graph if a gradient that was passed requires grad."""

    def make(true):
        def run(roots, gradients, retain_graph, create_graph, *args, **options):
            create_graph = create_graph or any(g is not None and g.requires_grad for g in gradients)
            return true(roots, gradients, retain_graph, create_graph, *args, **options)

        return run

    with patched(torch.autograd, "_engine_run_backward", make):
        yield


@fault("backward/the_history_of_the_gradient_passed_is_left_alone")
def a_leaf_keeps_the_history_of_the_gradient_passed():
    """Backward on a leaf puts the gradient with its history into its .grad."""

    def change(go, roots, gradients, inputs):
        fresh = roots[0].is_leaf and roots[0].grad is None
        go(roots, gradients, inputs)
        if fresh and gradients and gradients[0] is not None and gradients[0].requires_grad:
            roots[0].grad = gradients[0] * 1

    with changed_backward(change):
        yield


@fault("backward/a_gradient_of_another_shape_behind_good_ones_is_an_error")
def a_gradient_behind_another_one_is_reshaped():
    """Each gradient but the first is taken in another shape if it has as many elements."""

    def fits(root, g):
        return g is not None and g.numel() == root.numel()

    def change(roots, gradients):
        rest = zip(roots[1:], gradients[1:], strict=False)
        return [*gradients[:1], *(g.reshape(r.shape) if fits(r, g) else g for r, g in rest)]

    with changed_lists_of_gradients(change):
        yield


@fault("backward/only_tensors_are_taken_as_gradients_and_inputs")
def a_gradient_that_is_no_tensor_counts_as_one():
    """What is no tensor counts as ones in the place of a gradient."""

    def change(root, g):
        return g if g is None or isinstance(g, torch.Tensor) else torch.ones_like(root)

    with changed_gradients(change):
        yield


@fault("backward/only_tensors_are_taken_as_gradients_and_inputs")
def inputs_that_are_no_tensors_are_passed_over():
    """backward(inputs=...) passes over what is no tensor."""

    def change(go, roots, gradients, inputs):
        go(roots, gradients, inputs and [x for x in inputs if isinstance(x, torch.Tensor)])

    with changed_backward(change):
        yield


@contextlib.contextmanager
def changed_old_name(change):
    """Let backward do with what is passed as grad_tensors and as grad_variables what change(true, ...) does."""

    def make(true):
        def backward(tensors, grad_tensors=None, *args, grad_variables=None, **options):
            def go(gradients, variables):
                true(tensors, gradients, *args, **options, grad_variables=variables)

            return change(go, grad_tensors, grad_variables)

        return backward

    with patched(torch.autograd, "backward", make):
        yield


@fault("backward/gradients_can_be_passed_under_their_old_name")
def gradients_under_the_old_name_count_double():
    """Backward multiplies gradients that are passed as grad_variables by 2."""
    with changed_old_name(lambda go, new, old: go(new, None if old is None else old * 2)):
        yield


@fault("backward/gradients_can_be_passed_under_their_old_name")
def the_new_name_wins_over_the_old_one():
    """Backward takes grad_tensors if grad_variables are passed as well."""
    with changed_old_name(lambda go, new, old: go(new, None if new is not None else old)):
        yield
