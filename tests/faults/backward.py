"""Faults in where backward starts, and in what it does with the gradients and targets passed to it."""

import contextlib

import torch

from . import after_backward, fault, patched


def listed(tensors):
    """The tensors as a list, also if it is a single one; None stays None."""
    return [tensors] if isinstance(tensors, torch.Tensor) else tensors if tensors is None else list(tensors)


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

    def make(true):
        def make_grads(outputs, grads, is_grads_batched):
            changed = [change(root, g) for root, g in zip(outputs, grads, strict=False)]
            return true(outputs, changed, is_grads_batched=is_grads_batched)

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
    "backward/backward_returns_none_and_changes_no_values",
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


@fault("backward/backward_returns_none_and_changes_no_values")
def backward_changes_the_gradient_of_the_second_root():
    """Backward adds 1 to the gradient of each root but the first."""

    def change(go, roots, gradients, inputs):
        go(roots, gradients, inputs)
        for g in (gradients or ())[1:]:
            g.add_(1)

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


@fault("backward/grad_returns_the_gradients_by_its_inputs_and_writes_none")
def grad_returns_the_gradients_in_the_wrong_order():
    """torch.autograd.grad returns the gradients from the last input to the first."""
    with changed_grad(lambda true, inputs, options: true(inputs, **options)[::-1]):
        yield


@fault("backward/grad_returns_the_gradients_by_its_inputs_and_writes_none")
def grad_gives_an_input_named_twice_its_gradient_once():
    """torch.autograd.grad returns zeros for an input that is the same tensor as an earlier one."""

    def change(true, inputs, options):
        got = true(inputs, **options)
        first = [[x is y for y in inputs].index(True) for x in inputs]
        return tuple(g if n == first[n] or g is None else torch.zeros_like(g) for n, g in enumerate(got))

    with changed_grad(change):
        yield


@fault(
    "backward/grad_returns_the_gradients_by_its_inputs_and_writes_none",
    "backward/grad_by_an_unused_input_is_an_error_unless_allowed",
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


@fault("backward/grad_by_an_unused_input_is_an_error_unless_allowed")
def unused_inputs_are_always_allowed():
    """torch.autograd.grad returns None for unused inputs, allowed or not."""
    with changed_grad(lambda true, inputs, options: true(inputs, **{**options, "allow_unused": True})):
        yield


@fault("backward/grad_by_an_unused_input_is_an_error_unless_allowed")
def allowed_unused_results_have_the_gradient_zero():
    """torch.autograd.grad with allow_unused=True returns zeros for an unused input that is no leaf."""

    def change(true, inputs, options):
        got = true(inputs, **options)
        return tuple(
            torch.zeros_like(x) if g is None and not x.is_leaf else g for x, g in zip(inputs, got, strict=True)
        )

    with changed_grad(change):
        yield


@fault("backward/grad_materializes_zeros_for_unused_inputs")
def materialized_gradients_are_none():
    """torch.autograd.grad with materialize_grads=True returns None for unused inputs."""

    def change(true, inputs, options):
        if options.pop("materialize_grads", False) and options.setdefault("allow_unused", True) is False:
            raise ValueError("materialize_grads contradicts allow_unused=False")
        return true(inputs, **options)

    with changed_grad(change):
        yield


@fault("backward/grad_materializes_zeros_for_unused_inputs")
def materialized_gradients_have_the_default_dtype():
    """torch.autograd.grad with materialize_grads=True returns zeros in float32 for inputs of half precision."""

    def change(true, inputs, options):
        got = true(inputs, **options)
        if not options.get("materialize_grads"):
            return got
        return tuple(g.float() if g.element_size() == 2 and not g.any() else g for g in got)

    with changed_grad(change):
        yield


@fault("backward/a_target_that_does_not_require_grad_is_an_error")
def targets_that_do_not_require_grad_are_passed_over():
    """backward(inputs=...) passes over tensors that don't require grad."""

    def change(go, roots, gradients, inputs):
        go(roots, gradients, inputs and [x for x in inputs if x.requires_grad])

    with changed_backward(change):
        yield


@fault("backward/a_target_that_does_not_require_grad_is_an_error")
def allowing_unused_inputs_allows_constants():
    """torch.autograd.grad with allow_unused=True returns None for inputs that don't require grad."""

    def change(true, inputs, options):
        if not options.get("allow_unused"):
            return true(inputs, **options)
        got = iter(true([x for x in inputs if x.requires_grad], **options))
        return tuple(next(got) if x.requires_grad else None for x in inputs)

    with changed_grad(change):
        yield


@fault(
    "backward/backward_with_inputs_writes_into_these_only",
    "backward/inputs_may_be_a_single_tensor",
    "chain_rule/propagation_ends_at_the_targets",
)
def inputs_are_ignored():
    """backward(inputs=...) writes into the leaves, as without inputs."""
    with changed_backward(lambda go, roots, gradients, inputs: go(roots, gradients, None if inputs else inputs)):
        yield


@fault("backward/backward_with_inputs_writes_into_these_only", "chain_rule/propagation_ends_at_the_targets")
def results_among_the_inputs_get_no_grad():
    """backward(inputs=...) leaves the .grad of inputs that are no leaves None."""

    def change(go, roots, gradients, inputs):
        go(roots, gradients, inputs)
        for x in inputs or ():
            if not x.is_leaf:
                x.grad = None

    with changed_backward(change):
        yield


@fault("backward/inputs_may_be_a_single_tensor")
def an_empty_list_of_inputs_means_all():
    """backward(inputs=[]) writes into all leaves."""
    with changed_backward(lambda go, roots, gradients, inputs: go(roots, gradients, inputs or None)):
        yield


@fault("backward/backward_returns_none_and_changes_no_values")
def backward_returns_its_roots():
    """Backward returns the list of its roots."""

    def change(go, roots, gradients, inputs):
        go(roots, gradients, inputs)
        return roots

    with changed_backward(change):
        yield


@fault(
    "backward/backward_returns_none_and_changes_no_values",
    "backward/backward_on_a_leaf_adds_the_gradient_to_its_own_grad",
)
def backward_takes_a_step():
    """Backward subtracts the gradient from the values of each leaf that it reaches."""

    def descend(leaf, before):
        if leaf.grad is not None and 0 not in leaf.stride():
            leaf.sub_(leaf.grad)

    with after_backward(descend):
        yield


@fault("backward/grad_shares_memory_with_the_gradient_passed_if_only_views_lie_between")
def grad_is_always_a_copy():
    """The first backward gives each leaf a .grad with a memory of its own."""

    def copy(leaf, before):
        if before is None and leaf.grad is not None:
            leaf.grad = leaf.grad.clone()

    with after_backward(copy):
        yield


@fault("backward/grad_shares_memory_with_the_gradient_passed_if_only_views_lie_between")
def a_leaf_shares_its_grad_with_the_caller():
    """A leaf that is a root itself gets the memory of the gradient passed as its .grad."""

    def change(go, roots, gradients, inputs):
        fresh = roots[0].is_leaf and roots[0].grad is None
        go(roots, gradients, inputs)
        if fresh and gradients and roots[0].grad is not None:
            roots[0].grad = gradients[0].detach()

    with changed_backward(change):
        yield
