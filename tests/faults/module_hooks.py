"""Faults in the hooks of modules in the forward pass, and in the order of hooks."""

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from . import fault, patched


@contextlib.contextmanager
def registering(name: str, spoil: Callable[..., Any]) -> Iterator[None]:
    """Let the method of modules that registers hooks do spoil(what it does truly, hook, its options)."""

    def make(true: Callable[..., Any]) -> Callable[..., Any]:
        return lambda module, hook, **options: spoil(lambda h, **o: true(module, h, **o), hook, **options)

    with patched(nn.Module, name, make):
        yield


@contextlib.contextmanager
def returning(name: str, spoil: Callable[[Any], Any]) -> Iterator[None]:
    """Let hooks that the method registers return spoil(what they return)."""
    with registering(name, lambda true, hook, **o: true(lambda *args: spoil(hook(*args)), **o)):
        yield


def detached(result: Any) -> Any:
    """The tensor, or all tensors in a tuple, without history."""
    if isinstance(result, tuple):
        return tuple(map(detached, result))
    return result.detach() if isinstance(result, torch.Tensor) else result


@fault("module_hooks/forward_pre_hooks_change_the_input")
def inputs_from_pre_hooks_are_detached():
    """What a forward pre-hook returns is detached."""
    with returning("register_forward_pre_hook", detached):
        yield


@fault("module_hooks/forward_pre_hooks_change_the_input")
def a_single_value_of_a_pre_hook_is_ignored():
    """What a forward pre-hook returns counts only if it is a tuple."""
    with returning("register_forward_pre_hook", lambda result: result if isinstance(result, tuple) else None):
        yield


@fault("module_hooks/forward_pre_hooks_change_the_input", "module_hooks/module_hooks_run_in_order_unless_prepended")
def forward_pre_hooks_run_last_first():
    """Each forward pre-hook is put before those that are there."""
    with registering("register_forward_pre_hook", lambda true, hook, **o: true(hook, **{**o, "prepend": True})):
        yield


@fault("module_hooks/forward_pre_hooks_change_the_input")
def pre_hooks_that_fail_are_passed_over():
    """An exception in a forward pre-hook is ignored."""

    def register(true, hook, **options):
        def run(*args):
            with contextlib.suppress(ArithmeticError):
                return hook(*args)

        return true(run, **options)

    with registering("register_forward_pre_hook", register):
        yield


@fault("module_hooks/forward_hooks_change_the_output")
def outputs_from_hooks_are_detached():
    """What a forward hook returns is detached."""
    with returning("register_forward_hook", detached):
        yield


@fault("module_hooks/forward_hooks_change_the_output")
def outputs_from_hooks_count_in_grad_mode_only():
    """What a forward hook returns where grad mode is off is ignored."""
    with returning("register_forward_hook", lambda result: result if torch.is_grad_enabled() else None):
        yield


class LastOnly(RemovableHandle):
    """A handle that removes its hook only if none was registered after it."""

    def remove(self):
        hooks = self.hooks_dict_ref()
        if hooks and next(reversed(hooks)) == self.id:
            super().remove()


@fault("module_hooks/forward_hooks_change_the_output")
def only_the_last_forward_hook_can_be_removed():
    """The handle of a forward hook removes it only as long as no other was registered after it."""

    def register(true, hook, **options):
        handle = true(hook, **options)
        handle.__class__ = LastOnly
        return handle

    with registering("register_forward_hook", register):
        yield


@fault("module_hooks/forward_hooks_change_the_output")
def forward_hooks_get_a_copy_of_the_arguments():
    """Forward hooks get copies of the tensors among the arguments."""

    def register(true, hook, **options):
        def run(module, args, *rest):
            return hook(module, tuple(a.clone() if isinstance(a, torch.Tensor) else a for a in args), *rest)

        return true(run, **options)

    with registering("register_forward_hook", register):
        yield


@fault("module_hooks/hooks_with_kwargs_get_and_change_the_keyword_arguments")
def keyword_arguments_from_hooks_are_ignored():
    """Of what a forward pre-hook returns with with_kwargs=True the keyword arguments are ignored."""

    def register(true, hook, **options):
        def run(module, args, kwargs):
            result = hook(module, args, kwargs)
            return None if result is None else (result[0], kwargs)

        return true(run if options.get("with_kwargs") else hook, **options)

    with registering("register_forward_pre_hook", register):
        yield


@fault("module_hooks/hooks_with_kwargs_get_and_change_the_keyword_arguments")
def forward_hooks_with_kwargs_cannot_change_the_output():
    """What a forward hook with with_kwargs=True returns is ignored."""

    def register(true, hook, **options):
        return true(lambda *args: None if hook(*args) is None or len(args) == 4 else hook(*args), **options)

    with registering("register_forward_hook", register):
        yield


@fault("module_hooks/always_called_forward_hooks_run_when_forward_fails")
def no_hook_is_always_called():
    """Forward hooks aren't called when forward fails."""
    with registering("register_forward_hook", lambda true, hook, **o: true(hook, **{**o, "always_call": False})):
        yield


@fault("module_hooks/always_called_forward_hooks_run_when_forward_fails")
def every_hook_is_always_called():
    """All forward hooks are called when forward fails."""
    with registering("register_forward_hook", lambda true, hook, **o: true(hook, **{**o, "always_call": True})):
        yield


@fault("module_hooks/module_hooks_run_in_order_unless_prepended")
def full_backward_hooks_are_never_prepended():
    """Full backward hooks run in the order of registration, whatever prepend says."""
    with registering("register_full_backward_hook", lambda true, hook, prepend=False: true(hook)):
        yield


@fault("module_hooks/module_hooks_run_in_order_unless_prepended")
def forward_hooks_for_all_modules_run_for_none():
    """Forward hooks registered for all modules don't run."""
    module = torch.nn.modules.module
    with patched(module, "register_module_forward_hook", lambda _: lambda hook: RemovableHandle(OrderedDict())):
        yield


@fault("module_hooks/forward_hooks_collect_the_gradients_of_outputs")
def hooks_on_results_get_half():
    """A tensor hook of a result gets half the gradient, and changes nothing."""

    def make(true):
        def register(tensor, hook):
            return true(tensor, hook if tensor.is_leaf else lambda g: hook(g / 2))

        return register

    with patched(torch.Tensor, "register_hook", make):
        yield


@fault("module_hooks/forward_hooks_collect_the_gradients_of_outputs")
def retaining_grad_does_nothing():
    """retain_grad() does nothing."""
    with patched(torch.Tensor, "retain_grad", lambda _: lambda tensor: None):
        yield


@fault("module_hooks/regular_and_full_backward_hooks_exclude_each_other")
def removed_hooks_make_room_for_others():
    """A module without a backward hook takes one of any kind."""

    def make(true):
        def register(module, hook):
            if not module._backward_hooks:
                module._is_full_backward_hook = None
            return true(module, hook)

        return register

    with patched(nn.Module, "register_backward_hook", make):
        yield


@fault("module_hooks/regular_and_full_backward_hooks_exclude_each_other")
def regular_hooks_become_full_ones():
    """A full backward hook may be added to a regular one, which it turns into a full one."""

    def make(true):
        def register(module, hook, **options):
            module._is_full_backward_hook = True
            return true(module, hook, **options)

        return register

    with patched(nn.Module, "register_full_backward_hook", make):
        yield
