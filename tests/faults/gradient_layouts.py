"""Faults in how a .grad lies in memory."""

import contextlib
import threading
import warnings

import torch

from . import after_backward, fault, leaves_below, patched

CONTRACT = "grad and param do not obey the gradient layout contract"


def columns(x):
    """A copy of x that lies in memory one column after the other."""
    reverse = tuple(reversed(range(x.dim())))
    return x.permute(reverse).contiguous().permute(reverse)


def is_full(x):
    """Whether the memory of x has neither gaps nor overlaps."""
    return x.numel() == 0 or torch.empty_like(x).stride() == x.stride()


def laid_out(lay_out):
    """A fault that lets `lay_out(leaf, its .grad, whether create_graph)` give what .grad is after backward."""

    def make(true):
        def backward(tensors, grad_tensors=None, retain_graph=None, create_graph=False, **kwargs):
            olds = [(leaf, leaf.grad) for leaf in leaves_below(tensors)]
            true(tensors, grad_tensors, retain_graph, create_graph, **kwargs)
            with torch.no_grad():
                for leaf, old in olds:
                    new = lay_out(leaf, old, create_graph)
                    if new is not None:
                        leaf.grad = new

        return backward

    return patched(torch.autograd, "backward", make)


def enforced():
    """Whether the layout policy is on in this thread."""
    return torch._C._is_grad_layout_enforcement_enabled()


@fault(
    "gradient_layouts/the_first_grad_lies_in_memory_like_the_leaf",
    "gradient_layouts/the_layout_of_the_first_grad_does_not_depend_on_the_operations",
    "gradient_layouts/the_layout_policy_tells_whether_a_gradient_becomes_grad_as_it_is",
)
def grad_is_always_contiguous():
    """Backward leaves a contiguous .grad, however the leaf lies in memory."""
    with laid_out(lambda leaf, old, create_graph: leaf.grad.contiguous() if old is None else None):
        yield


@fault("gradient_layouts/the_first_grad_lies_in_memory_like_the_leaf")
def grad_in_four_dimensions_is_contiguous():
    """Backward leaves a contiguous .grad of a leaf with four dimensions."""
    with laid_out(lambda leaf, old, _: leaf.grad.contiguous() if old is None and leaf.dim() == 4 else None):
        yield


@fault("gradient_layouts/the_first_grad_lies_in_memory_like_the_leaf")
def grad_of_a_leaf_with_gaps_or_overlaps_is_in_columns():
    """Backward leaves .grad in columns if the leaf has gaps or overlaps in memory."""
    with laid_out(lambda leaf, old, _: None if old is not None or is_full(leaf) else columns(leaf.grad)):
        yield


@fault("gradient_layouts/the_layout_of_the_first_grad_does_not_depend_on_the_operations")
def grad_of_a_sum_in_half_precision_is_contiguous():
    """Backward leaves a contiguous .grad of a leaf of bfloat16."""
    with laid_out(lambda leaf, old, _: leaf.grad.contiguous() if leaf.dtype is torch.bfloat16 else None):
        yield


@fault("gradient_layouts/autograd_grad_gives_gradients_in_the_layout_in_which_they_come")
def grad_gives_rows_where_there_are_gaps():
    """torch.autograd.grad gives gradients without gaps or overlaps in memory."""

    def make(true):
        def grad(*args, **kwargs):
            return tuple(g if is_full(g) else g.contiguous() for g in true(*args, **kwargs))

        return grad

    with patched(torch.autograd, "grad", make):
        yield


@fault("gradient_layouts/the_first_grad_lies_in_memory_like_the_leaf")
def channels_last_is_taken_for_rows():
    """Backward leaves a contiguous .grad of a leaf in channels_last format."""

    def lay_out(leaf, old, create_graph):
        last = leaf.dim() == 4 and leaf.is_contiguous(memory_format=torch.channels_last)
        return leaf.grad.contiguous() if last and old is None else None

    with laid_out(lay_out):
        yield


@fault("gradient_layouts/later_backwards_keep_the_strides_of_grad")
def adding_to_grad_lays_it_out_like_the_leaf():
    """A backward that adds to a .grad with strides of its own gives it those of the leaf."""
    with laid_out(lambda leaf, old, _: None if old is None else torch.empty_like(leaf).copy_(leaf.grad)):
        yield


@fault("gradient_layouts/later_backwards_keep_the_strides_of_grad")
def adding_to_grad_closes_its_gaps():
    """A backward that adds to a .grad with gaps leaves it without."""
    with laid_out(lambda leaf, old, _: leaf.grad.contiguous() if old is not None and not is_full(old) else None):
        yield


@fault("gradient_layouts/with_create_graph_too_grad_keeps_strides_without_gaps")
def create_graph_makes_grad_contiguous():
    """With create_graph=True backward leaves a contiguous .grad, whatever was there."""
    with laid_out(lambda leaf, old, create_graph: leaf.grad.contiguous() if create_graph else None):
        yield


@fault("gradient_layouts/with_create_graph_the_gaps_of_a_grad_are_closed")
def create_graph_keeps_gaps():
    """With create_graph=True the new .grad has the strides of the old one, gaps and all."""

    def lay_out(leaf, old, create_graph):
        if not create_graph or old is None or is_full(old):
            return None
        return torch.empty_strided(old.shape, old.stride(), dtype=old.dtype, device=old.device).copy_(leaf.grad)

    with laid_out(lay_out):
        yield


@fault("gradient_layouts/a_grad_that_is_zeroed_keeps_its_layout_and_one_set_to_none_does_not")
def zero_grad_of_a_module_makes_new_zeros():
    """zero_grad(set_to_none=False) of a module puts new zeros into .grad."""

    def make(true):
        def zero_grad(module, set_to_none=True):
            true(module, set_to_none)
            for p in module.parameters():
                p.grad = None if set_to_none else torch.zeros(p.shape, dtype=p.dtype, device=p.device)

        return zero_grad

    with patched(torch.nn.Module, "zero_grad", make):
        yield


@fault("gradient_layouts/a_grad_that_is_zeroed_keeps_its_layout_and_one_set_to_none_does_not")
def a_module_never_sets_grad_to_none():
    """zero_grad(set_to_none=True) of a module zeroes .grad in place."""
    with patched(torch.nn.Module, "zero_grad", lambda true: lambda module, set_to_none: true(module, False)):
        yield


@fault(
    "gradient_layouts/zero_grad_loses_a_layout_that_the_user_chose",
    "gradient_layouts/zero_grad_keeps_a_layout_that_the_user_chose",
)
def zero_grad_of_a_module_zeroes_unless_told_otherwise():
    """zero_grad() of a module zeroes .grad in place, unless it is given set_to_none."""

    def make(true):
        return lambda module, set_to_none=False: true(module, set_to_none)

    with patched(torch.nn.Module, "zero_grad", make):
        yield


@fault("gradient_layouts/a_grad_that_does_not_lie_like_its_leaf_gives_a_warning")
def layouts_are_not_warned_of():
    """Backward gives no warning."""

    def make(true):
        def backward(*args, **kwargs):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                true(*args, **kwargs)

        return backward

    with patched(torch.autograd, "backward", make):
        yield


@fault(
    "gradient_layouts/a_grad_that_does_not_lie_like_its_leaf_gives_a_warning",
    "gradient_layouts/without_the_layout_policy_no_layout_gives_a_warning",
)
def every_second_backward_warns_of_the_layout():
    """Backward warns of the layout whenever there was a .grad before, whatever the strides and the policy."""

    def warn(leaf, before):
        if before is not None:
            warnings.warn(CONTRACT, UserWarning, stacklevel=2)

    with after_backward(warn):
        yield


@fault("gradient_layouts/without_the_layout_policy_no_layout_gives_a_warning")
def gaps_are_warned_of_without_the_policy():
    """Backward warns of a .grad with gaps, also if the layout policy is off."""

    def make(true):
        def backward(tensors, *args, **kwargs):
            true(tensors, *args, **kwargs)
            if not all(is_full(leaf.grad) for leaf in leaves_below(tensors)):
                warnings.warn(CONTRACT, UserWarning, stacklevel=2)

        return backward

    with patched(torch.autograd, "backward", make):
        yield


@contextlib.contextmanager
def another_policy(**methods):
    """Let enforce_grad_layout_policy be a class with these methods in place of its own."""
    own = torch.autograd.enforce_grad_layout_policy
    with patched(torch.autograd, "enforce_grad_layout_policy", lambda _: type(own.__name__, (own,), methods)):
        yield


@fault(
    "gradient_layouts/the_layout_policy_tells_whether_a_gradient_becomes_grad_as_it_is",
    "gradient_layouts/without_the_layout_policy_a_second_backward_of_a_sum_fails",
    "gradient_layouts/the_layout_policy_lasts_for_a_block_a_function_or_from_a_call_on",
)
def the_layout_policy_is_always_on():
    """enforce_grad_layout_policy does nothing."""
    own = torch.autograd.enforce_grad_layout_policy
    with another_policy(__init__=lambda policy, enable=True: own.__init__(policy, True)):
        yield


@fault("gradient_layouts/the_layout_policy_tells_whether_a_gradient_becomes_grad_as_it_is")
def held_gradients_are_taken_without_the_policy():
    """With the layout policy off a .grad that is made anew is laid out in columns where the leaf isn't."""
    with laid_out(lambda leaf, old, _: columns(leaf.grad) if old is None and not enforced() else None):
        yield


@fault("gradient_layouts/the_layout_policy_lasts_for_a_block_a_function_or_from_a_call_on")
def a_failing_block_leaves_the_layout_policy_off():
    """The layout policy stays what it was in a block that failed."""
    own = torch.autograd.enforce_grad_layout_policy

    def leave(policy, kind, *rest):
        if kind is None:
            own.__exit__(policy, kind, *rest)

    before = enforced()
    try:
        with another_policy(__exit__=leave):
            yield
    finally:
        torch._C._set_grad_layout_enforcement_enabled(before)


@fault("gradient_layouts/the_layout_policy_lasts_for_a_block_a_function_or_from_a_call_on")
def an_inner_block_turns_the_layout_policy_on():
    """Behind a block the layout policy is on, whatever it was before."""
    with another_policy(__exit__=lambda policy, *error: torch._C._set_grad_layout_enforcement_enabled(True)):
        yield


@fault("gradient_layouts/the_layout_policy_lasts_for_a_block_a_function_or_from_a_call_on")
def the_layout_policy_decorates_nothing():
    """A function that enforce_grad_layout_policy decorates runs under the policy of its caller."""

    def call(policy, function):
        policy.__exit__(None, None, None)
        return function

    with another_policy(__call__=call):
        yield


@fault("gradient_layouts/the_layout_policy_lasts_for_a_block_a_function_or_from_a_call_on")
def threads_take_over_the_layout_policy():
    """A thread begins with the layout policy of the thread that started it."""

    def make(true):
        def start(thread):
            policy, run = enforced(), thread.run

            def run_with_policy():
                torch._C._set_grad_layout_enforcement_enabled(policy)
                run()

            thread.run = run_with_policy
            true(thread)

        return start

    with patched(threading.Thread, "start", make):
        yield


@fault("gradient_layouts/without_the_layout_policy_a_second_backward_of_a_sum_fails")
def an_expanded_gradient_is_copied_without_the_policy():
    """Backward leaves a .grad whose elements have memory of their own, also if the layout policy is off."""
    with laid_out(lambda leaf, old, _: leaf.grad.contiguous() if 0 in leaf.grad.stride() else None):
        yield
