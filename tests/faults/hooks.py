"""Faults in hooks of both kinds: when they run, what they see, what becomes of what they return, how they end."""

import contextlib

import torch
from torch.utils.hooks import RemovableHandle

from . import fault, leaves_below, patched


def registering(make):
    """A fault's register_hook, made of the true one."""
    return patched(torch.Tensor, "register_hook", make)


def spoiled(change):
    """A fault that registers `change(tensor, hook)` in the place of the hook."""
    return registering(lambda true: lambda x, hook: true(x, change(x, hook) if x.requires_grad else hook))


def put_first(hooks, handle):
    """Let the hook of the handle run before the others."""
    others = {key: hook for key, hook in hooks.items() if key != handle.id}
    first = hooks[handle.id]
    hooks.clear()
    hooks.update({handle.id: first, **others})


def silenced(hook):
    """The hook without what it returns."""

    def silent(grad):
        hook(grad)

    return silent


def removing(remove):
    """A fault's RemovableHandle.remove, made of the true one."""
    return patched(RemovableHandle, "remove", remove)


@contextlib.contextmanager
def running(make):
    """Replace what runs the engine, wherever it was imported."""
    with (
        patched(torch.autograd, "_engine_run_backward", make),
        patched(torch.autograd.graph, "_engine_run_backward", make),
    ):
        yield


def without_hooks(tensors, run):
    """`run()` while these tensors have no hooks."""
    saved = [(x._backward_hooks, dict(x._backward_hooks)) for x in tensors if x._backward_hooks]
    for hooks, _ in saved:
        hooks.clear()
    try:
        return run()
    finally:
        for hooks, were in saved:
            hooks.update(were)


CALLED = "hooks/a_hook_is_called_with_each_gradient_that_is_computed"
NONE = "hooks/a_hook_that_returns_none_changes_nothing"
USED = "hooks/what_a_hook_returns_is_used_as_the_gradient"
BELOW = "hooks/what_a_hook_returns_flows_to_everything_below"
ORDER = "hooks/several_hooks_run_in_the_order_of_registration"
REMOVED = "hooks/a_hook_that_was_removed_runs_no_more"
CONTEXT = "hooks/the_handle_of_a_hook_is_a_context_manager"
ONE = "hooks/a_hook_belongs_to_one_tensor"
REFUSED = "hooks/register_hook_raises_if_the_tensor_does_not_require_grad"
LEAF = "when_hooks_run/the_hooks_of_a_leaf_run_before_its_grad_is_updated"
WAYS = "when_hooks_run/hooks_run_whichever_way_gradients_are_computed"
OLD_GRAD = "when_hooks_run/grad_leaves_out_the_hooks_of_its_input"
UPPER = "when_hooks_run/grad_by_two_tensors_leaves_out_the_hooks_of_the_upper_one"
NEEDED = "when_hooks_run/a_hook_runs_only_if_its_gradient_is_needed"
MODE = "when_hooks_run/grad_mode_is_off_in_a_hook_unless_a_graph_is_created"
UNFIT = "hooks/backward_raises_if_a_hook_returns_anything_else"
WRITTEN = "hooks/a_view_whose_memory_was_written_takes_a_hook"
EXCEPTION = "hooks/an_exception_in_a_hook_reaches_the_caller"
IN_PLACE = "when_hooks_run/a_hook_sees_the_gradient_by_the_value_at_its_registration"
RETAINED = "when_hooks_run/a_retained_grad_is_what_the_hooks_leave"
OLD_RETAINED = "when_hooks_run/a_retained_grad_is_what_hooks_leave_if_one_was_there_before"
POST = "post_accumulate_hooks/a_hook_sees_the_updated_grad"
POST_STEP = "post_accumulate_hooks/a_hook_may_change_the_leaf_and_its_grad"
POST_ONLY = "post_accumulate_hooks/a_hook_runs_only_if_grad_is_updated"
POST_REFUSED = "post_accumulate_hooks/a_hook_is_refused_by_all_but_leaves"


@fault(CALLED, BELOW, ORDER, ONE)
def a_hook_is_called_twice_in_each_backward():
    """A hook is called a second time with what it returned."""

    def change(x, hook):
        def twice(grad):
            first = hook(grad)
            second = hook(grad if first is None else first)
            return first if second is None else second

        return twice

    with spoiled(change):
        yield


@fault(CALLED)
def a_hook_is_lost_if_the_leaf_has_a_grad():
    """To register a hook on a leaf that has a .grad does nothing."""
    with spoiled(lambda x, hook: (lambda grad: None) if x.is_leaf and x.grad is not None else hook):
        yield


@fault(CALLED)
def a_hook_gets_a_gradient_in_one_dimension():
    """A hook on a tensor without dimensions is called with a gradient of shape (1,)."""
    with spoiled(lambda x, hook: (lambda grad: silenced(hook)(grad.reshape(1))) if x.dim() == 0 else hook):
        yield


@fault(CALLED)
def a_hook_on_a_view_is_not_called():
    """A hook on a view isn't called."""
    with spoiled(lambda x, hook: (lambda grad: None) if x._is_view() else hook):
        yield


@fault(WRITTEN)
def a_hook_on_a_view_is_lost_if_its_memory_was_written():
    """To register a hook on a view whose memory was written does nothing."""
    # Reading grad_fn spares the fault the crash that registering is on some releases.
    with spoiled(lambda x, hook: (lambda grad: None) if x._is_view() and x._version and x.grad_fn else hook):
        yield


@fault(CALLED)
def a_hook_on_a_leaf_is_called_before_the_second_backward_only():
    """A hook on a leaf isn't called any more once the leaf has a .grad."""
    with spoiled(lambda x, hook: lambda grad: None if x.is_leaf and x.grad is not None else hook(grad)):
        yield


@fault(NONE)
def none_of_a_hook_stands_for_zeros():
    """A hook on a tensor without dimensions that returns None makes its gradient zero."""

    def change(x, hook):
        def zero(grad):
            returned = hook(grad)
            return torch.zeros_like(grad) if returned is None and x.dim() == 0 else returned

        return zero

    with spoiled(change):
        yield


@fault(NONE)
def a_second_hook_counts_the_gradient_twice():
    """A hook behind another one that returns None leaves twice the gradient."""

    def change(x, hook):
        return (lambda grad: 2 * grad if hook(grad) is None else None) if x._backward_hooks else hook

    with spoiled(change):
        yield


@fault(USED, BELOW, ORDER, REMOVED, LEAF, WAYS, ONE, MODE)
def what_a_hook_on_a_leaf_returns_is_ignored():
    """What a hook on a leaf returns is ignored."""
    with spoiled(lambda x, hook: silenced(hook) if x.is_leaf else hook):
        yield


@fault(USED, BELOW, ORDER, REMOVED, WAYS, CONTEXT)
def what_a_hook_on_a_scalar_returns_is_ignored():
    """What a hook on a tensor without dimensions returns is ignored."""
    with spoiled(lambda x, hook: silenced(hook) if x.dim() == 0 else hook):
        yield


@fault(USED, BELOW)
def what_a_hook_on_a_result_returns_is_ignored():
    """What a hook on a tensor that is no leaf returns is ignored."""
    with spoiled(lambda x, hook: hook if x.is_leaf else silenced(hook)):
        yield


@fault(USED)
def what_a_hook_returns_is_changed_by_backward():
    """Backward writes the gradient into what a hook returned if that has no dimensions."""

    def change(x, hook):
        def written(grad):
            returned = hook(grad)
            return returned.mul_(2) if returned is not None and returned.dim() == 0 else returned

        return written

    with spoiled(change):
        yield


@fault(USED, LEAF, REMOVED)
def a_parameter_ignores_what_its_hooks_return():
    """What a hook on a Parameter returns is ignored."""
    with spoiled(lambda x, hook: silenced(hook) if isinstance(x, torch.nn.Parameter) else hook):
        yield


@fault(USED)
def a_hook_counts_in_the_first_backward_only():
    """What a hook on a leaf returns is ignored once the leaf has a .grad."""

    def change(x, hook):
        return lambda grad: silenced(hook)(grad) if x.is_leaf and x.grad is not None else hook(grad)

    with spoiled(change):
        yield


@fault(BELOW)
def a_hook_on_a_sum_counts_for_nothing_below():
    """What a hook on the result of sum() returns is ignored."""
    with spoiled(lambda x, hook: silenced(hook) if "Sum" in str(x.grad_fn) else hook):
        yield


@fault(BELOW, WAYS, USED)
def what_a_hook_returns_is_added_to_the_gradient():
    """What a hook returns is added to the gradient instead of taking its place."""

    def change(x, hook):
        def added(grad):
            returned = hook(grad)
            return None if returned is None else grad + returned

        return added

    with spoiled(change):
        yield


@fault(ORDER)
def the_newest_hook_runs_first():
    """The hooks of a tensor run from the one that was registered last to the first."""

    def make(true):
        def register_hook(x, hook):
            handle = true(x, hook)
            put_first(x._backward_hooks, handle)
            return handle

        return register_hook

    with registering(make):
        yield


@fault(ORDER, REMOVED)
def the_third_hook_runs_first():
    """The third hook of a tensor and later ones are put in front of the others, and ignored."""

    def make(true):
        def register_hook(x, hook):
            third = x.requires_grad and len(x._backward_hooks or ()) >= 2
            handle = true(x, silenced(hook) if third else hook)
            if third:
                put_first(x._backward_hooks, handle)
            return handle

        return register_hook

    with registering(make):
        yield


@fault(ORDER)
def only_the_last_hook_counts_and_each_sees_zeros_behind_another():
    """A hook behind another one is called with zeros."""
    with spoiled(lambda x, hook: (lambda grad: hook(torch.zeros_like(grad))) if x._backward_hooks else hook):
        yield


@fault(ORDER, REMOVED, EXCEPTION)
def a_new_hook_replaces_the_old_one():
    """register_hook() on a tensor that has a hook removes that one."""

    def make(true):
        def register_hook(x, hook):
            if x._backward_hooks:
                x._backward_hooks.clear()
            return true(x, hook)

        return register_hook

    with registering(make):
        yield


@fault(REMOVED, CONTEXT, POST_ONLY)
def removing_a_hook_does_nothing():
    """remove() of a handle does nothing."""
    with removing(lambda true: lambda handle: None):
        yield


@fault(REMOVED, CONTEXT, EXCEPTION, POST_ONLY)
def removing_a_hook_removes_all():
    """remove() of a handle takes all hooks of the tensor away."""

    def make(true):
        def remove(handle):
            true(handle)
            hooks = handle.hooks_dict_ref()
            if hooks is not None:
                hooks.clear()

        return remove

    with removing(make):
        yield


@fault(REMOVED)
def removing_again_removes_another_hook():
    """remove() of a handle whose hook is gone takes another hook away."""

    def make(true):
        def remove(handle):
            hooks = handle.hooks_dict_ref()
            if hooks and handle.id not in hooks:
                hooks.popitem()
            true(handle)

        return remove

    with removing(make):
        yield


@fault(REMOVED, CONTEXT)
def only_the_last_hook_can_be_removed():
    """remove() of a handle takes the hook away that was registered last."""

    def make(true):
        def remove(handle):
            hooks = handle.hooks_dict_ref()
            if hooks and handle.id in hooks:
                hooks.popitem(last=len(hooks) < 2)

        return remove

    with removing(make):
        yield


@fault(CONTEXT)
def leaving_the_block_keeps_the_hook():
    """The hook of a handle that is used as a context manager stays."""
    with patched(RemovableHandle, "__exit__", lambda true: lambda handle, *args: None):
        yield


@fault(CONTEXT)
def leaving_the_block_by_an_exception_keeps_the_hook():
    """The hook stays if the block of its handle is left by an exception."""

    def make(true):
        return lambda handle, kind, *rest: true(handle, kind, *rest) if kind is None else None

    with patched(RemovableHandle, "__exit__", make):
        yield


def inherited(name):
    """A fault whose operation of the tensor gives its result the hooks that the tensor has."""

    def make(true):
        def operation(x, *args):
            result = true(x, *args)
            for hook in (x._backward_hooks or {}).values():
                result.register_hook(hook)
            return result

        return operation

    return patched(torch.Tensor, name, make)


@fault(ONE)
def a_clone_has_the_hooks_of_its_origin():
    """clone() gives the copy the hooks of its origin."""
    with inherited("clone"):
        yield


@fault(ONE)
def a_view_has_the_hooks_of_its_base():
    """view_as() gives the view the hooks of its base."""
    with inherited("view_as"):
        yield


@fault(ONE)
def a_view_that_is_made_a_leaf_gets_a_hook():
    """requires_grad_() gives a view a hook that doubles its gradient."""

    def make(true):
        def requires_grad_(x, *args):
            if x._is_view():
                true(x).register_hook(lambda grad: 2 * grad)
            return true(x, *args)

        return requires_grad_

    with patched(torch.Tensor, "requires_grad_", make):
        yield


@fault(REFUSED)
def a_hook_of_a_constant_is_silently_dropped():
    """register_hook() on a tensor that doesn't require grad does nothing."""
    with registering(lambda true: lambda x, hook: true(x, hook) if x.requires_grad else None):
        yield


@fault(REFUSED)
def a_hook_makes_its_tensor_require_grad():
    """register_hook() on a tensor that doesn't require grad raises its error, but makes it require grad."""

    def make(true):
        def register_hook(x, hook):
            try:
                return true(x, hook)
            except RuntimeError:
                if x.is_floating_point():
                    x.requires_grad_()
                raise

        return register_hook

    with registering(make):
        yield


@fault(REFUSED)
def a_refused_hook_is_registered_all_the_same():
    """register_hook() on a tensor that doesn't require grad raises its error, but keeps the hook for later."""

    def make(true):
        def register_hook(x, hook):
            if not x.requires_grad and x.is_floating_point():
                x.requires_grad_()
                true(x, hook)
                x.requires_grad_(False)
            return true(x, hook)

        return register_hook

    with registering(make):
        yield


@fault(REFUSED)
def a_constant_without_dimensions_takes_hooks():
    """register_hook() on a tensor without dimensions that doesn't require grad does nothing."""

    def make(true):
        return lambda x, hook: None if x.dim() == 0 and not x.requires_grad else true(x, hook)

    with registering(make):
        yield


@fault(LEAF)
def what_a_hook_returns_replaces_grad():
    """The .grad that a leaf has is lost when one of its hooks returns a tensor."""

    def change(x, hook):
        def lose(grad):
            returned = hook(grad)
            if x.is_leaf and returned is not None:
                x.grad = None
            return returned

        return lose

    with spoiled(change):
        yield


@fault(LEAF)
def the_hooks_of_a_leaf_run_behind_its_update():
    """The gradient is in the .grad of a leaf already when its hooks run."""

    def change(x, hook):
        def late(grad):
            if not x.is_leaf:
                return hook(grad)
            before = x.grad
            x.grad = grad.clone() if before is None else before + grad
            returned = hook(grad)
            x.grad = before
            return returned

        return late

    with spoiled(change):
        yield


@fault(LEAF)
def a_change_of_the_leaf_ends_its_hooks():
    """The hooks of a leaf don't run any more when the leaf was changed in place."""
    with spoiled(lambda x, hook: lambda grad: None if x.is_leaf and x._version else hook(grad)):
        yield


@fault(WAYS)
def the_hooks_of_leaves_do_not_run_in_autograd_grad():
    """The hooks of leaves don't run in torch.autograd.grad."""

    def make(true):
        def run(roots, *args, **kwargs):
            if kwargs.get("accumulate_grad"):
                return true(roots, *args, **kwargs)
            return without_hooks(leaves_below(roots), lambda: true(roots, *args, **kwargs))

        return run

    with running(make):
        yield


@fault(WAYS)
def the_hooks_of_roots_do_not_run_in_autograd_grad():
    """The hooks of the tensors that torch.autograd.grad differentiates don't run."""

    def make(true):
        def run(roots, *args, **kwargs):
            if kwargs.get("accumulate_grad"):
                return true(roots, *args, **kwargs)
            return without_hooks(roots, lambda: true(roots, *args, **kwargs))

        return run

    with running(make):
        yield


@fault(WAYS)
def the_hooks_of_inputs_do_not_run_in_backward():
    """The hooks of the tensors that are passed to backward as inputs= don't run."""

    def make(true):
        def run(roots, cotangents, keep, create, inputs, *args, **kwargs):
            hidden = inputs if kwargs.get("accumulate_grad") else ()
            return without_hooks(hidden, lambda: true(roots, cotangents, keep, create, inputs, *args, **kwargs))

        return run

    with running(make):
        yield


@fault(BELOW, USED, UPPER, OLD_GRAD)
def what_hooks_return_is_ignored():
    """What hooks return is ignored."""
    with spoiled(lambda x, hook: silenced(hook)):
        yield


@fault(UPPER)
def the_hooks_of_an_upper_input_count_in_grad():
    """torch.autograd.grad by several tensors is the same as by each of them in turn."""

    def make(true):
        def grad(outputs, inputs, *args, **kwargs):
            if isinstance(inputs, torch.Tensor):
                return true(outputs, inputs, *args, **kwargs)
            kwargs = {**kwargs, "retain_graph": True}
            return tuple(true(outputs, one, *args, **kwargs)[0] for one in inputs)

        return grad

    with patched(torch.autograd, "grad", make):
        yield


def among_all(accumulating):
    """A fault's run of the engine that computes the gradients of all leaves beside those asked for."""

    def make(true):
        def run(roots, cotangents, keep, create, inputs, *args, **kwargs):
            if inputs and bool(kwargs.get("accumulate_grad")) is accumulating:
                others = [x for x in leaves_below(roots) if not any(x is asked for asked in inputs)]
                if others:
                    true(roots, cotangents, True, create, tuple(others), True, accumulate_grad=False)
            return true(roots, cotangents, keep, create, inputs, *args, **kwargs)

        return run

    return running(make)


@fault(NEEDED)
def hooks_run_for_gradients_that_grad_does_not_need():
    """torch.autograd.grad computes the gradients of all leaves."""
    with among_all(False):
        yield


@fault(NEEDED, POST_ONLY)
def hooks_run_for_gradients_that_inputs_does_not_need():
    """backward with inputs= computes the gradients of all other leaves, too."""
    with among_all(True):
        yield


@fault(MODE)
def grad_mode_is_on_in_hooks():
    """Grad mode is on in hooks."""
    with spoiled(lambda x, hook: lambda grad: torch.enable_grad()(hook)(grad)):
        yield


@fault(MODE)
def grad_mode_is_off_in_hooks():
    """Grad mode is off in hooks, also if the backward creates a graph."""
    with spoiled(lambda x, hook: lambda grad: torch.no_grad()(hook)(grad)):
        yield


@fault(MODE)
def what_a_hook_returns_is_detached():
    """What a hook returns is detached from the graph that backward creates."""

    def change(x, hook):
        def detached(grad):
            returned = hook(grad)
            return None if returned is None else returned.detach()

        return detached

    with spoiled(change):
        yield


def fitted(fit):
    """A fault that fits what a hook returns to the gradient: `fit(returned, gradient)`."""

    def change(x, hook):
        def fits(grad):
            returned = hook(grad)
            return returned if returned is None else fit(returned, grad)

        return fits

    return spoiled(change)


@fault(UNFIT)
def what_a_hook_returns_is_converted():
    """A tensor of another dtype that a hook returns is converted."""

    def fit(returned, grad):
        return returned.to(grad.dtype) if isinstance(returned, torch.Tensor) else returned

    with fitted(fit):
        yield


@fault(UNFIT)
def what_a_hook_returns_is_summed_to_size():
    """A larger tensor that a hook returns is summed to the size of the gradient."""

    def fit(returned, grad):
        return returned.sum_to_size(grad.shape) if isinstance(returned, torch.Tensor) else returned

    with fitted(fit):
        yield


@fault(UNFIT)
def false_of_a_hook_stands_for_none():
    """A hook may return False in place of None."""
    with fitted(lambda returned, grad: None if returned is False else returned):
        yield


@fault(EXCEPTION)
def an_exception_in_a_hook_is_lost():
    """A hook that raises an error counts as one that returns None."""

    def change(x, hook):
        def lost(grad):
            with contextlib.suppress(Exception):
                return hook(grad)

        return lost

    with spoiled(change):
        yield


@fault(EXCEPTION)
def an_exception_in_a_hook_becomes_a_runtime_error():
    """An exception in a hook becomes a RuntimeError."""

    def change(x, hook):
        def wrapped(grad):
            try:
                return hook(grad)
            except Exception as error:
                raise RuntimeError(str(error)) from error

        return wrapped

    with spoiled(change):
        yield


@fault(EXCEPTION)
def a_hook_that_raised_is_removed():
    """A hook that raises an error isn't called any more."""

    def change(x, hook):
        hooks = x._backward_hooks

        def once(grad):
            try:
                return hook(grad)
            except Exception:
                (x._backward_hooks if hooks is None else hooks).clear()
                raise

        return once

    with spoiled(change):
        yield


@fault(EXCEPTION)
def an_exception_in_a_hook_leaves_zeros():
    """A leaf gets zeros if one of its hooks raises an error."""

    def change(x, hook):
        def zeros(grad):
            try:
                return hook(grad)
            except Exception:
                if x.is_leaf:
                    x.grad = torch.zeros_like(grad)
                raise

        return zeros

    with spoiled(change):
        yield


@fault(IN_PLACE)
def a_change_in_place_ends_hooks():
    """Hooks that were registered before a change in place don't run."""

    def change(x, hook):
        version = x._version
        return lambda grad: hook(grad) if x.is_leaf or x._version == version else None

    with spoiled(change):
        yield


@fault(IN_PLACE)
def mul_in_place_moves_the_hooks_to_the_new_value():
    """Hooks that were registered before mul_() run with the gradient by the new value."""

    def make(true):
        def mul_(x, other):
            hooks = dict(x._backward_hooks or {})
            if x._backward_hooks:
                x._backward_hooks.clear()
            true(x, other)
            for hook in hooks.values():
                x.register_hook(hook)
            return x

        return mul_

    with patched(torch.Tensor, "mul_", make):
        yield


@fault(RETAINED, OLD_RETAINED)
def a_retained_grad_is_that_from_before_later_hooks():
    """A retained .grad is the gradient as the hooks leave it that were registered before retain_grad()."""

    def make(true):
        def retain_grad(x):
            if x.is_leaf:
                return true(x)

            def put(grad):
                x.grad = grad.clone() if x.grad is None else x.grad + grad

            x.register_hook(put)

        return retain_grad

    with patched(torch.Tensor, "retain_grad", make):
        yield


@fault(RETAINED, OLD_RETAINED)
def a_second_retaining_hook_is_lost():
    """On a tensor that retains its gradient a hook is registered, but what it returns is ignored."""
    with spoiled(lambda x, hook: silenced(hook) if x.retains_grad else hook):
        yield


def post(change):
    """A fault that registers `change(leaf, hook)` in the place of a post-accumulate hook."""

    def make(true):
        return lambda x, hook: true(x, change(x, hook))

    return patched(torch.Tensor, "register_post_accumulate_grad_hook", make)


@fault(POST, POST_STEP, POST_ONLY)
def post_accumulate_hooks_are_ignored():
    """A post-accumulate hook isn't called."""
    with post(lambda x, hook: lambda leaf: None):
        yield


@fault(POST)
def only_one_post_accumulate_hook_runs():
    """A second post-accumulate hook of a leaf isn't called."""
    with post(lambda x, hook: (lambda leaf: None) if x._post_accumulate_grad_hooks else hook):
        yield


@fault(POST)
def a_post_accumulate_hook_gets_a_copy():
    """A post-accumulate hook is called with another tensor of the same values."""

    def copied(hook):
        def call(leaf):
            copy = leaf.detach().requires_grad_()
            copy.grad = leaf.grad
            hook(copy)

        return call

    with post(lambda x, hook: copied(hook)):
        yield


@fault(POST, POST_STEP, POST_ONLY)
def a_post_accumulate_hook_runs_before_grad_is_updated():
    """A post-accumulate hook runs with the gradient alone in .grad, before the earlier one is added."""

    def make(true):
        def register(x, hook):
            def call(grad):
                before, x.grad = x.grad, grad.clone()
                hook(x)
                x.grad = before

            return x.register_hook(call)

        return register

    with patched(torch.Tensor, "register_post_accumulate_grad_hook", make):
        yield


@fault(POST)
def grad_mode_is_on_in_post_accumulate_hooks():
    """Grad mode is on in post-accumulate hooks."""
    with post(lambda x, hook: torch.enable_grad()(hook)):
        yield


@fault(POST_STEP)
def what_a_post_accumulate_hook_writes_is_lost():
    """After a post-accumulate hook the values of a Parameter are as they were before it."""

    def kept(hook):
        def call(leaf):
            values = leaf.detach().clone()
            hook(leaf)
            if isinstance(leaf, torch.nn.Parameter):
                leaf.detach().copy_(values)

        return call

    with post(lambda x, hook: kept(hook)):
        yield


@fault(POST_STEP)
def grad_cannot_be_cleared_in_a_post_accumulate_hook():
    """If a post-accumulate hook sets .grad to None it is back after backward."""

    def kept(hook):
        def call(leaf):
            grad = leaf.grad
            hook(leaf)
            if leaf.grad is None:
                leaf.grad = grad

        return call

    with post(lambda x, hook: kept(hook)):
        yield


@fault(POST_REFUSED)
def a_post_accumulate_hook_of_a_result_is_ignored():
    """register_post_accumulate_grad_hook() on a tensor that is no leaf does nothing."""

    def make(true):
        return lambda x, hook: true(x, hook) if x.is_leaf else None

    with patched(torch.Tensor, "register_post_accumulate_grad_hook", make):
        yield


@fault(POST_REFUSED)
def a_retaining_tensor_takes_post_accumulate_hooks():
    """register_post_accumulate_grad_hook() on a tensor that retains its gradient does nothing."""

    def make(true):
        return lambda x, hook: None if x.retains_grad else true(x, hook)

    with patched(torch.Tensor, "register_post_accumulate_grad_hook", make):
        yield


@fault(POST_REFUSED)
def a_constant_takes_post_accumulate_hooks():
    """register_post_accumulate_grad_hook() on a tensor that doesn't require grad does nothing."""

    def make(true):
        return lambda x, hook: true(x, hook) if x.requires_grad else None

    with patched(torch.Tensor, "register_post_accumulate_grad_hook", make):
        yield


@fault("views/a_hook_on_one_of_several_views_is_called_without_a_gradient")
def a_hook_is_not_called_with_none():
    """A hook isn't called where it would be called with None."""

    def make(true):
        return lambda tensor, hook: true(tensor, lambda grad: None if grad is None else hook(grad))

    with patched(torch.Tensor, "register_hook", make):
        yield


@fault("hooks/nothing_keeps_a_hook_from_changing_the_gradient_in_place")
def a_hook_gets_a_copy():
    """A hook is called with a copy of the gradient."""

    def make(true):
        return lambda tensor, hook: true(tensor, lambda grad: hook(None if grad is None else grad.clone()))

    with patched(torch.Tensor, "register_hook", make):
        yield


@fault("post_accumulate_hooks/backward_raises_if_a_hook_returns_anything")
def what_a_post_accumulate_hook_returns_is_ignored():
    """What a post-accumulate hook returns is ignored."""

    def make(true):
        return lambda leaf, hook: true(leaf, lambda tensor: (hook(tensor), None)[1])

    with patched(torch.Tensor, "register_post_accumulate_grad_hook", make):
        yield
