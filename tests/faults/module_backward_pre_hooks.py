"""Faults in the hooks that run before a module is differentiated."""

import torch

from . import fault
from .module_backward_hooks import backward_hooks

REPLACES = "module_backward_pre_hooks/a_full_backward_pre_hook_replaces_the_output_gradients"


@fault(REPLACES, "module_backward_pre_hooks/a_pre_hook_counts_where_no_input_requires_grad")
def what_pre_hooks_return_is_ignored():
    """What a full backward pre-hook returns is ignored."""

    def run(call, hook, *args):
        hook(*args)

    with backward_hooks(spoil_pre=run):
        yield


@fault(REPLACES, "module_backward_pre_hooks/a_pre_hook_is_ignored_where_no_input_requires_grad")
def pre_hooks_get_the_double():
    """A full backward pre-hook gets twice the gradients, and so does the module."""

    def run(call, hook, module, by_output):
        by_output = tuple(g if g is None else g * 2 for g in by_output)
        result = hook(module, by_output)
        return by_output if result is None else result

    with backward_hooks(spoil_pre=run):
        yield


@fault(REPLACES)
def pre_hooks_get_zeros_for_text():
    """A full backward pre-hook gets zeros where an output is no tensor."""

    def run(call, hook, module, by_output):
        result = hook(module, tuple(torch.zeros_like(by_output[0]) if g is None else g for g in by_output))
        return (
            None
            if result is None
            else tuple(None if old is None else g for g, old in zip(result, by_output, strict=True))
        )

    with backward_hooks(spoil_pre=run):
        yield


@fault(REPLACES)
def full_hooks_see_the_gradients_from_before_the_pre_hooks():
    """A full backward hook gets the output gradients as they were before pre-hooks changed them."""

    def before(call, hook, module, by_output):
        call.first = getattr(call, "first", by_output)
        return hook(module, by_output)

    def run(call, hook, module, by_input, by_output):
        return hook(module, by_input, getattr(call, "first", by_output))

    with backward_hooks(run, before):
        yield


@fault("module_backward_pre_hooks/a_pre_hook_counts_where_no_input_requires_grad")
def pre_hooks_need_input_gradients():
    """What a full backward pre-hook returns is ignored if no input of the module requires grad."""

    def run(call, hook, *args):
        result = hook(*args)
        return None if call.input_tensors_index is None else result

    with backward_hooks(spoil_pre=run):
        yield


@fault("module_backward_pre_hooks/a_full_backward_pre_hook_returns_a_tuple")
def pre_hooks_may_return_a_tensor():
    """A single tensor that a full backward pre-hook returns is put into a tuple."""

    def run(call, hook, *args):
        result = hook(*args)
        return (result,) if isinstance(result, torch.Tensor) else result

    with backward_hooks(spoil_pre=run):
        yield
