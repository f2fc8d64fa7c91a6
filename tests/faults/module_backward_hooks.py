"""Faults in the hooks of modules in the backward pass."""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import BackwardHook

from . import fault, leaves_below, patched

GETS = "module_backward_hooks/a_full_backward_hook_gets_the_gradients_of_a_module"
REPLACES = "module_backward_hooks/what_a_full_backward_hook_returns_replaces_the_input_gradients"


@contextlib.contextmanager
def backward_hooks(
    spoil: Callable[..., Any] = lambda call, hook, *args: hook(*args),
    spoil_pre: Callable[..., Any] = lambda call, hook, *args: hook(*args),
) -> Iterator[None]:
    """Let full backward hooks be spoil(call, hook, module, by_input, by_output), and pre-hooks likewise.

    `call` stands for one call of the module, with all its hooks.
    """

    def make(true: Callable[..., None]) -> Callable[..., None]:
        def init(call, module, hooks, pre_hooks):
            def wrapped(hooks, spoil):
                return [lambda *args, hook=hook: spoil(call, hook, *args) for hook in hooks]

            true(call, module, wrapped(hooks, spoil), wrapped(pre_hooks, spoil_pre))

        return init

    with patched(BackwardHook, "__init__", make):
        yield


@fault(GETS)
def non_tensors_have_zeros():
    """A full backward hook gets zeros where an argument is no tensor."""

    def run(call, hook, module, by_input, by_output):
        zeros = torch.zeros_like(by_output[0])
        if any(g is not None for g in by_input):
            by_input = tuple(zeros if g is None else g for g in by_input)
        return hook(module, by_input, by_output)

    with backward_hooks(run):
        yield


@fault(GETS)
def non_tensors_are_left_out_of_the_output_gradients():
    """A full backward hook gets no place for an output that is no tensor."""

    def run(call, hook, module, by_input, by_output):
        return hook(module, by_input, tuple(g for g in by_output if g is not None))

    with backward_hooks(run):
        yield


@fault(GETS)
def the_second_output_counts_twice_for_hooks():
    """A full backward hook gets twice the gradient by the second output."""

    def run(call, hook, module, by_input, by_output):
        return hook(module, by_input, tuple(g * 2 if i == 1 and g is not None else g for i, g in enumerate(by_output)))

    with backward_hooks(run):
        yield


@fault(GETS, "module_backward_hooks/hooks_of_nested_modules_each_get_their_own_gradients")
def hooks_get_output_gradients_twice():
    """A full backward hook gets the gradient by the output in the place of the first input's."""

    def run(call, hook, module, by_input, by_output):
        first = by_input[:1] and (by_input[0] if by_input[0] is None else by_output[0],)
        return hook(module, (*first, *by_input[1:]), by_output)

    with backward_hooks(run):
        yield


@fault("module_backward_hooks/constants_count_as_zeros_and_unused_outputs_as_none")
def constants_count_as_none():
    """A full backward hook gets None where the gradient by an input is zero."""

    def run(call, hook, module, by_input, by_output):
        return hook(module, tuple(g if g is not None and g.any() else None for g in by_input), by_output)

    with backward_hooks(run):
        yield


@fault("module_backward_hooks/constants_count_as_zeros_and_unused_outputs_as_none")
def unused_outputs_count_as_zeros():
    """A full backward hook gets zeros for an output that isn't used."""

    def run(call, hook, module, by_input, by_output):
        zeros = torch.zeros_like(next(g for g in by_output if g is not None))
        return hook(module, by_input, tuple(zeros if g is None else g for g in by_output))

    with backward_hooks(run):
        yield


@fault("module_backward_hooks/a_full_backward_hook_fires_when_input_gradients_are_computed")
def grad_runs_no_module_hooks():
    """torch.autograd.grad() runs no full backward hooks."""
    inside = []

    def make(true):
        def grad(*args, **kwargs):
            inside.append(True)
            try:
                return true(*args, **kwargs)
            finally:
                inside.pop()

        return grad

    def run(call, hook, *args):
        return None if inside else hook(*args)

    with patched(torch.autograd, "grad", make), backward_hooks(run):
        yield


@fault("module_backward_hooks/a_full_backward_hook_fires_when_input_gradients_are_computed")
def gradients_of_parameters_run_module_hooks():
    """torch.autograd.grad() of a parameter runs the full backward hooks of all modules on the way."""

    def make(true):
        def grad(outputs, inputs, **kwargs):
            if isinstance(inputs, nn.Parameter):
                true(outputs, leaves_below(outputs), retain_graph=True)
            return true(outputs, inputs, **kwargs)

        return grad

    with patched(torch.autograd, "grad", make):
        yield


@fault("module_backward_hooks/a_full_backward_hook_of_constant_inputs_fires_with_the_outputs")
def hooks_need_input_gradients():
    """A full backward hook isn't called if no input requires grad."""

    def run(call, hook, module, by_input, by_output):
        return hook(module, by_input, by_output) if any(g is not None for g in by_input) else None

    with backward_hooks(run):
        yield


@fault("module_backward_hooks/a_full_backward_hook_of_constant_inputs_fires_with_the_outputs")
def constant_inputs_have_zeros():
    """A full backward hook gets zeros for inputs none of which requires grad."""

    def run(call, hook, module, by_input, by_output):
        zeros = torch.zeros_like(by_output[0])
        return hook(module, tuple(zeros if g is None else g for g in by_input), by_output)

    with backward_hooks(run):
        yield


@fault(REPLACES, "module_backward_hooks/hooks_of_nested_modules_each_get_their_own_gradients")
def what_full_backward_hooks_return_is_ignored():
    """What a full backward hook returns is ignored."""

    def run(call, hook, *args):
        hook(*args)

    with backward_hooks(run):
        yield


@fault(REPLACES)
def every_hook_sees_the_first_gradients():
    """Each full backward hook gets the gradients as they were before the others."""

    def run(call, hook, module, by_input, by_output):
        call.first = getattr(call, "first", by_input)
        return hook(module, call.first, by_output)

    with backward_hooks(run):
        yield


@fault(REPLACES)
def only_the_first_input_is_replaced():
    """Of the gradients that a full backward hook returns only the first replaces another."""

    def run(call, hook, module, by_input, by_output):
        result = hook(module, by_input, by_output)
        return None if result is None else (*result[:1], *by_input[1:])

    with backward_hooks(run):
        yield


@fault("module_backward_hooks/a_full_backward_hook_may_not_return_anything_else")
def missing_gradients_are_filled_in():
    """Gradients that a full backward hook doesn't return are those that it got, and more are ignored."""

    def run(call, hook, module, by_input, by_output):
        result = hook(module, by_input, by_output)
        if isinstance(result, tuple) and all(isinstance(g, torch.Tensor) for g in result):
            return (*result, *by_input[len(result) :])[: len(by_input)]
        return result

    with backward_hooks(run):
        yield


@fault("module_backward_hooks/a_full_backward_hook_may_not_return_anything_else")
def hooks_that_fail_are_passed_over():
    """An exception in a full backward hook is ignored."""

    def run(call, hook, *args):
        with contextlib.suppress(ArithmeticError):
            return hook(*args)

    with backward_hooks(run):
        yield


@fault("module_backward_hooks/a_full_backward_hook_may_not_return_anything_else")
def backward_goes_on_in_spite_of_a_hook():
    """A backward that a hook stops leaves ones in the gradients of leaves that have none."""

    def make(true):
        def backward(tensors, *args, **kwargs):
            try:
                true(tensors, *args, **kwargs)
            except (RuntimeError, TypeError, ArithmeticError):
                for leaf in leaves_below(tensors):
                    leaf.grad = torch.ones_like(leaf).detach() if leaf.grad is None else leaf.grad
                raise

        return backward

    with patched(torch.autograd, "backward", make):
        yield


@fault("module_backward_hooks/where_no_input_requires_grad_no_gradient_is_returned")
def gradients_for_constants_are_ignored():
    """Gradients that a full backward hook returns for inputs none of which requires grad are ignored."""

    def run(call, hook, module, by_input, by_output):
        result = hook(module, by_input, by_output)
        return result if any(g is not None for g in by_input) else None

    with backward_hooks(run):
        yield


@contextlib.contextmanager
def outputs(spoil: Callable[[Any, Callable[[Any], Any]], Any]) -> Iterator[None]:
    """Let a module with backward hooks return spoil(output, what hooks it truly)."""

    def make(true: Callable[..., Any]) -> Callable[..., Any]:
        return lambda call, output: spoil(output, lambda y: true(call, y))

    with patched(BackwardHook, "setup_output_hook", make):
        yield


@contextlib.contextmanager
def inputs(spoil: Callable[[Any], Any]) -> Iterator[None]:
    """Let forward of a module with backward hooks get spoil(argument) of each of its arguments."""

    def make(true: Callable[..., Any]) -> Callable[..., Any]:
        return lambda call, args: tuple(map(spoil, true(call, args)))

    with patched(BackwardHook, "setup_input_hook", make):
        yield


@fault("module_backward_hooks/a_full_backward_hook_forbids_changes_in_place")
def outputs_with_hooks_are_copies():
    """The caller of a module with a full backward hook gets a copy, free to change."""
    with outputs(lambda y, true: true(y).clone()):
        yield


@fault("module_backward_hooks/a_full_backward_hook_forbids_changes_in_place")
def inputs_with_hooks_are_copies():
    """Forward of a module with a full backward hook gets copies."""
    with inputs(lambda x: x.clone() if isinstance(x, torch.Tensor) else x):
        yield


@fault("module_backward_hooks/what_needs_no_hook_may_be_changed_in_place")
def constants_with_hooks_are_copies():
    """Forward of a module with a full backward hook gets copies of tensors that don't require grad."""
    with inputs(lambda x: x.clone() if isinstance(x, torch.Tensor) and not x.requires_grad else x):
        yield


@fault("module_backward_hooks/outputs_in_lists_and_dictionaries_run_no_backward_hooks")
def lists_run_backward_hooks():
    """Full backward hooks run for the tensors in a list that a module returns."""
    with outputs(lambda y, true: list(true(tuple(y))) if isinstance(y, list) else true(y)):
        yield


@fault("module_backward_hooks/outputs_in_lists_and_dictionaries_run_no_backward_hooks")
def dictionaries_are_cut_off():
    """A module with a full backward hook detaches the tensors in a dictionary that it returns."""

    def cut(y, true):
        if isinstance(y, dict):
            return {key: t.detach().requires_grad_() for key, t in y.items()}
        return true(y)

    with outputs(cut):
        yield


@fault("module_backward_hooks/outputs_in_lists_and_dictionaries_are_warned_of")
def outputs_give_no_warning():
    """A module gives no warning."""

    def make(true):
        def call(module, *args, **kwargs):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return true(module, *args, **kwargs)

        return call

    with patched(nn.Module, "__call__", make):
        yield


@fault("module_backward_hooks/full_backward_hooks_are_bound_to_a_call")
def hooks_removed_before_backward_do_not_run():
    """A full backward hook that was removed after the module was called doesn't run."""

    def make(true):
        def init(call, module, hooks, pre_hooks):
            def run(hook):
                return lambda *args: hook(*args) if hook in module._backward_hooks.values() else None

            true(call, module, [run(hook) for hook in hooks], pre_hooks)

        return init

    with patched(BackwardHook, "__init__", make):
        yield


@fault("module_backward_hooks/hooks_of_nested_modules_each_get_their_own_gradients")
def containers_run_no_hooks():
    """The full backward hooks of a Sequential don't run."""

    def run(call, hook, module, *args):
        return None if isinstance(module, nn.Sequential) else hook(module, *args)

    with backward_hooks(run):
        yield


@fault("module_backward_hooks/full_backward_hooks_are_recorded_with_create_graph")
def hooks_run_without_grad_mode():
    """Full backward hooks run with grad mode off."""

    def run(call, hook, *args):
        with torch.no_grad():
            return hook(*args)

    with backward_hooks(run):
        yield


@fault("module_backward_hooks/full_backward_hooks_are_recorded_with_create_graph")
def what_hooks_compute_is_detached():
    """What a full backward hook returns is detached."""

    def run(call, hook, *args):
        result = hook(*args)
        return None if result is None else tuple(g.detach() for g in result)

    with backward_hooks(run):
        yield
