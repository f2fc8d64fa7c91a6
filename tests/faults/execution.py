"""Faults in how a backward runs, in what it changes, and in what an error leaves behind."""

import contextlib

import torch

from . import after_backward, fault, leaves_below, patched, wrong_kernel
from .backward import changed_backward, changed_grad


@fault("execution/backward_returns_none_and_changes_no_values")
def backward_changes_the_gradient_of_the_second_root():
    """Backward adds 1 to the gradient of each root but the first."""

    def change(go, roots, gradients, inputs):
        go(roots, gradients, inputs)
        for g in (gradients or ())[1:]:
            g.add_(1)

    with changed_backward(change):
        yield


@fault("execution/backward_returns_none_and_changes_no_values")
def backward_returns_its_roots():
    """Backward returns the list of its roots."""

    def change(go, roots, gradients, inputs):
        go(roots, gradients, inputs)
        return roots

    with changed_backward(change):
        yield


@fault(
    "execution/backward_returns_none_and_changes_no_values",
    "backward/backward_on_a_leaf_adds_the_gradient_to_its_own_grad",
)
def backward_takes_a_step():
    """Backward subtracts the gradient from the values of each leaf that it reaches."""

    def descend(leaf, before):
        if leaf.grad is not None and 0 not in leaf.stride():
            leaf.sub_(leaf.grad)

    with after_backward(descend):
        yield


@fault("execution/grad_shares_memory_with_the_gradient_passed_if_only_views_lie_between")
def grad_is_always_a_copy():
    """The first backward gives each leaf a .grad with a memory of its own."""

    def copy(leaf, before):
        if before is None and leaf.grad is not None:
            leaf.grad = leaf.grad.clone()

    with after_backward(copy):
        yield


@fault("execution/grad_shares_memory_with_the_gradient_passed_if_only_views_lie_between")
def a_leaf_shares_its_grad_with_the_caller():
    """A leaf that is a root itself gets the memory of the gradient passed as its .grad."""

    def change(go, roots, gradients, inputs):
        fresh = roots[0].is_leaf and roots[0].grad is None
        go(roots, gradients, inputs)
        if fresh and gradients and roots[0].grad is not None:
            roots[0].grad = gradients[0].detach()

    with changed_backward(change):
        yield


@contextlib.contextmanager
def changed_run(change):
    """Let backward and grad call change(true, roots, gradients, retain, create, inputs, *others, **options)."""

    def make(true):
        def run(*args, **options):
            return change(true, *args, **options)

        return run

    with patched(torch.autograd, "_engine_run_backward", make):
        yield


@fault("execution/results_are_gone_through_from_the_latest_to_the_earliest")
def several_roots_are_differentiated_one_by_one():
    """Backward goes through the graph of the first root, then through that of the next one."""

    def change(true, roots, gradients, retain, create, inputs, *others, **options):
        for root, g in list(zip(roots, gradients, strict=True))[:-1]:
            true((root,), (g,), True, create, inputs, *others, **options)
        return true(roots[-1:], gradients[-1:], retain, create, inputs, *others, **options)

    with changed_run(change):
        yield


@fault("execution/results_are_gone_through_from_the_latest_to_the_earliest")
def earlier_results_of_a_branch_come_first():
    """The hook of a sum is called when its operands are done, and not before."""

    def make(true):
        def register_hook(tensor, hook):
            nodes = [node for node, _ in tensor.grad_fn.next_functions if node] if tensor.grad_fn else []
            if type(tensor.grad_fn).__name__ != "SumBackward0" or not nodes:
                return true(tensor, hook)
            return nodes[0].register_hook(lambda inputs, outputs: hook(outputs[0]))

        return register_hook

    with patched(torch.Tensor, "register_hook", make):
        yield


@fault("execution/a_backward_frees_only_what_it_goes_through")
def a_backward_to_chosen_targets_frees_all_that_is_below():
    """torch.autograd.grad goes through the whole graph, whatever its inputs are."""

    def change(true, roots, gradients, retain, create, inputs, *others, **options):
        if inputs and not options.get("accumulate_grad"):
            leaves = tuple(leaf for leaf in leaves_below(roots) if all(leaf is not x for x in inputs))
            return true(roots, gradients, retain, create, (*inputs, *leaves), *others, **options)[: len(inputs)]
        return true(roots, gradients, retain, create, inputs, *others, **options)

    with changed_run(change):
        yield


@fault("execution/a_backward_frees_only_what_it_goes_through")
def a_backward_with_inputs_frees_nothing():
    """backward(inputs=...) retains the graph."""

    def change(true, roots, gradients, retain, create, inputs, *others, **options):
        retain = retain or (bool(inputs) and bool(options.get("accumulate_grad")))
        return true(roots, gradients, retain, create, inputs, *others, **options)

    with changed_run(change):
        yield


@fault("execution/the_error_for_an_unused_input_comes_when_the_graph_is_used_up")
def unused_inputs_are_found_before_the_graph_is_used():
    """torch.autograd.grad raises the error for an unused input before it frees anything."""

    def change(true, inputs, options):
        if not options.get("allow_unused"):
            true(inputs, **{**options, "retain_graph": True})
        return true(inputs, **options)

    with changed_grad(change):
        yield


@fault("execution/a_graph_may_be_very_deep_or_very_wide")
def after_a_thousand_uses_no_more_are_counted():
    """The gradient of a sum over more than a thousand rows goes to the first thousand."""

    def gradient(cotangent, x, dims, *others):
        whole = cotangent.expand(x.shape).clone()
        if list(dims) == [0]:
            whole[1000:] = 0
        return (whole,)

    with wrong_kernel("sum.dim_IntList", gradient):
        yield


@contextlib.contextmanager
def changed_inner_backward(change):
    """Let a backward that is called in the middle of another one call change(true, ...)."""

    def outer(true, *args, **options):
        inside = torch._C._current_graph_task_id() != -1
        return change(true, *args, **options) if inside else true(*args, **options)

    with changed_run(outer):
        yield


@fault("execution/a_backward_may_be_called_in_the_middle_of_another_one")
def gradients_of_an_inner_backward_are_doubled():
    """A backward in the middle of another one starts with twice the gradients."""

    def change(true, roots, gradients, *args, **options):
        return true(roots, tuple(g * 2 for g in gradients), *args, **options)

    with changed_inner_backward(change):
        yield


@fault("execution/a_backward_may_be_called_in_the_middle_of_another_one")
def an_inner_backward_writes_into_no_leaf():
    """A backward in the middle of another one goes through its graph but writes into no .grad."""

    def change(true, roots, gradients, retain, create, inputs, *others, **options):
        if not options.get("accumulate_grad"):
            return true(roots, gradients, retain, create, inputs, *others, **options)
        leaves = tuple(leaves_below(roots))
        return true(roots, gradients, retain, create, leaves, allow_unreachable=True, accumulate_grad=False)

    with changed_inner_backward(change):
        yield


@fault("execution/an_error_of_a_backward_inside_another_one_reaches_the_caller")
def errors_of_an_inner_backward_are_swallowed():
    """A backward in the middle of another one ends without a word where it fails."""

    def change(true, *args, **options):
        with contextlib.suppress(RuntimeError):
            return true(*args, **options)

    with changed_inner_backward(change):
        yield


@fault(
    "execution/an_error_leaves_each_grad_either_complete_or_as_it_was",
    "execution/a_backward_that_meets_a_freed_part_leaves_each_grad_complete_or_as_it_was",
    "execution/an_error_of_a_backward_inside_another_one_reaches_the_caller",
)
def a_failing_backward_leaves_a_half():
    """A backward that fails adds a half to the .grad of each leaf that it could have reached."""

    def change(go, roots, gradients, inputs):
        try:
            go(roots, gradients, inputs)
        except (RuntimeError, ValueError):
            for leaf in leaves_below(roots):
                leaf.grad = (torch.zeros_like(leaf) if leaf.grad is None else leaf.grad).detach() + 0.5
            raise

    with changed_backward(change):
        yield


@fault("execution/an_error_leaves_each_grad_either_complete_or_as_it_was")
def a_failing_backward_clears_the_grad_of_the_last_leaf():
    """A backward that fails sets the .grad of the last leaf below its roots to zeros."""

    def change(go, roots, gradients, inputs):
        try:
            go(roots, gradients, inputs)
        except ValueError:
            leaf = leaves_below(roots)[-1]
            leaf.grad = torch.zeros_like(leaf).detach()
            raise

    with changed_backward(change):
        yield


@fault("execution/the_grad_of_the_leaf_itself_may_be_passed_as_the_gradient")
def grad_is_cleared_before_it_is_read():
    """If the gradient passed is the .grad of a leaf, backward begins with setting it to zeros."""

    def change(go, roots, gradients, inputs):
        for leaf in leaves_below(roots):
            if gradients and any(g is leaf.grad for g in gradients):
                leaf.grad.zero_()
        go(roots, gradients, inputs)

    with changed_backward(change):
        yield


@fault("execution/the_grad_of_the_leaf_itself_may_be_passed_as_the_gradient")
def a_leaf_as_root_keeps_the_grad_that_was_passed():
    """Backward on a leaf with its own .grad as the gradient changes nothing."""

    def change(go, roots, gradients, inputs):
        if not (roots[0].is_leaf and gradients and gradients[0] is roots[0].grad):
            go(roots, gradients, inputs)

    with changed_backward(change):
        yield
