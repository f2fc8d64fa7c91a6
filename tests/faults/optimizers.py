"""Faults in the steps of optimizers, and in how optimizers reset gradients."""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.optim import Optimizer

from . import fault, patched
from .freezing import zeroing

KINDS = [kind for kind in vars(torch.optim).values() if inspect.isclass(kind) and issubclass(kind, Optimizer)]


@contextlib.contextmanager
def stepping(spoil: Callable[..., Any]) -> Iterator[None]:
    """Let a step of any optimizer be spoil(optimizer, what it does truly, closure)."""

    def make(true: Callable[..., Any]) -> Callable[..., Any]:
        return lambda optimizer, closure=None: spoil(optimizer, lambda c: true(optimizer, c), closure)

    with contextlib.ExitStack() as stack:
        for kind in KINDS:
            stack.enter_context(patched(kind, "step", make))
        yield


@contextlib.contextmanager
def stepping_with(**options: Any) -> Iterator[None]:
    """Let a step of any optimizer go by these options, whatever its groups have."""

    def spoil(optimizer, true, closure):
        kept = [{name: group[name] for name in options if name in group} for group in optimizer.param_groups]
        for group, had in zip(optimizer.param_groups, kept, strict=True):
            group.update({name: options[name] for name in had})
        try:
            return true(closure)
        finally:
            for group, had in zip(optimizer.param_groups, kept, strict=True):
                group.update(had)

    with stepping(spoil):
        yield


def parameters_of(optimizer: Optimizer) -> list[torch.Tensor]:
    """All parameters, group after group."""
    return [p for group in optimizer.param_groups for p in group["params"]]


@contextlib.contextmanager
def stepping_without(chosen: Callable[[Optimizer], list[torch.Tensor]]) -> Iterator[None]:
    """Let a step of any optimizer leave out chosen(optimizer): their .grad is None while it runs."""

    def spoil(optimizer, true, closure):
        hidden = [(p, p.grad) for p in chosen(optimizer)]
        for p, _ in hidden:
            p.grad = None
        result = true(closure)
        for p, grad in hidden:
            p.grad = grad
        return result

    with stepping(spoil):
        yield


@contextlib.contextmanager
def after_steps(spoil: Callable[[torch.Tensor], None]) -> Iterator[None]:
    """After a step call spoil(parameter) for each parameter that has a gradient."""

    def then(optimizer, true, closure):
        result = true(closure)
        for p in parameters_of(optimizer):
            if p.grad is not None:
                spoil(p)
        return result

    with stepping(then):
        yield


@fault("optimizers/sgd_subtracts_multiples_of_the_gradients")
def maximizing_minimizes():
    """Steps ignore maximize."""
    with stepping_with(maximize=False):
        yield


@fault("optimizers/sgd_subtracts_multiples_of_the_gradients")
def nesterov_is_ignored():
    """Steps with momentum ignore nesterov."""
    with stepping_with(nesterov=False):
        yield


@fault("optimizers/sgd_subtracts_multiples_of_the_gradients")
def momentum_is_never_dampened():
    """Steps with momentum ignore dampening."""
    with stepping_with(dampening=0):
        yield


@fault(
    "optimizers/sgd_subtracts_multiples_of_the_gradients", "optimizers/a_step_moves_parameters_whose_gradient_is_zero"
)
def momentum_is_forgotten():
    """Each step begins with new momentum."""

    def forget(optimizer, true, closure):
        optimizer.state.clear()
        return true(closure)

    with stepping(forget):
        yield


@fault("optimizers/a_step_changes_leaves_in_place_and_records_nothing")
def steps_move_parameters_elsewhere():
    """After a step parameters lie in new memory."""

    def move(p):
        p.data = p.data.clone()

    with after_steps(move):
        yield


@fault(
    "optimizers/a_step_changes_leaves_in_place_and_records_nothing",
    "optimizers/a_step_between_forward_and_backward_is_noticed",
)
def steps_are_not_counted():
    """A step leaves the version of parameters as it was."""

    def hide(optimizer, true, closure):
        before = [(p, p._version) for p in parameters_of(optimizer)]
        result = true(closure)
        for p, version in before:
            torch._C._autograd._unsafe_set_version_counter((p,), (version,))
        return result

    with stepping(hide):
        yield


@fault("optimizers/a_step_changes_leaves_in_place_and_records_nothing")
def steps_consume_gradients():
    """A step makes the .grad of its parameters None."""

    def clear(p):
        p.grad = None

    with after_steps(clear):
        yield


@fault("optimizers/a_step_changes_leaves_in_place_and_records_nothing")
def maximizing_negates_gradients():
    """A step with maximize negates .grad in place."""

    def negate(optimizer, true, closure):
        result = true(closure)
        for group in optimizer.param_groups:
            for p in group["params"]:
                if group.get("maximize") and p.grad is not None:
                    p.grad.detach().neg_()
        return result

    with stepping(negate):
        yield


@fault("optimizers/a_step_changes_leaves_in_place_and_records_nothing")
def steps_detach_gradients():
    """A step cuts .grad off from its graph."""

    def detach(p):
        p.grad = p.grad.detach()

    with after_steps(detach):
        yield


@fault("optimizers/a_step_changes_leaves_in_place_and_records_nothing")
def steps_turn_grad_mode_on():
    """After a step grad mode is on."""

    def turn_on(optimizer, true, closure):
        result = true(closure)
        torch.set_grad_enabled(True)
        return result

    with stepping(turn_on):
        yield


@fault("optimizers/a_step_changes_leaves_in_place_and_records_nothing")
def steps_freeze_vectors():
    """A step leaves parameters of one dimension frozen."""

    def freeze(p):
        if p.dim() == 1:
            p.requires_grad_(False)

    with after_steps(freeze):
        yield


@fault("optimizers/weight_decay_is_not_written_into_grad", "optimizers/weight_decay_is_written_into_grad")
def weight_decay_doubles_grad():
    """A step with weight decay and foreach=True doubles .grad in place."""

    def double(optimizer, true, closure):
        result = true(closure)
        for group in optimizer.param_groups:
            for p in group["params"]:
                if group.get("weight_decay") and group.get("foreach") and p.grad is not None:
                    p.grad.detach().mul_(2).add_(1)
        return result

    with stepping(double):
        yield


@fault(
    "optimizers/a_step_skips_parameters_without_a_gradient", "optimizers/a_step_moves_parameters_whose_gradient_is_zero"
)
def none_is_stepped_like_zero():
    """A step takes None for zeros."""

    def fill(optimizer, true, closure):
        missing = [p for p in parameters_of(optimizer) if p.grad is None]
        for p in missing:
            p.grad = torch.zeros_like(p).detach()
        result = true(closure)
        for p in missing:
            p.grad = None
        return result

    with stepping(fill):
        yield


@fault("optimizers/a_step_skips_parameters_without_a_gradient")
def a_parameter_without_gradient_ends_the_step():
    """A step leaves out all parameters behind one whose .grad is None."""

    def end(optimizer):
        parameters = parameters_of(optimizer)
        first = next((i for i, p in enumerate(parameters) if p.grad is None), len(parameters))
        return parameters[first:]

    with stepping_without(end):
        yield


@fault("optimizers/a_step_moves_parameters_whose_gradient_is_zero")
def zeros_are_skipped_like_none():
    """A step takes a gradient of zeros for None."""

    with stepping_without(
        lambda optimizer: [p for p in parameters_of(optimizer) if p.grad is not None and not p.grad.any()]
    ):
        yield


@fault("optimizers/a_step_looks_at_grad_and_not_at_requires_grad")
def frozen_parameters_are_not_stepped():
    """A step leaves out parameters that don't require grad."""

    with stepping_without(lambda optimizer: [p for p in parameters_of(optimizer) if not p.requires_grad]):
        yield


@contextlib.contextmanager
def resetting(spoil: Callable[..., None]) -> Iterator[None]:
    """Let zero_grad() of an optimizer do spoil(optimizer, set_to_none, what it does truly)."""

    def make(true: Callable[..., None]) -> Callable[..., None]:
        return lambda optimizer, set_to_none=True: spoil(
            optimizer, set_to_none, lambda flag: true(optimizer, set_to_none=flag)
        )

    with patched(Optimizer, "zero_grad", make):
        yield


@fault("optimizers/zero_grad_resets_the_gradients_of_its_parameters")
def zero_grad_resets_the_first_group_only():
    """zero_grad() of an optimizer resets the gradients of its first group."""

    def reset(optimizer, set_to_none, true):
        rest = [(p, p.grad, None if p.grad is None else p.grad.detach().clone()) for p in parameters_of(optimizer)]
        rest = rest[len(optimizer.param_groups[0]["params"]) :]
        true(set_to_none)
        for p, grad, old in rest:
            p.grad = None if grad is None else grad.detach().copy_(old)

    with resetting(reset):
        yield


@fault("optimizers/zero_grad_resets_the_gradients_of_its_parameters")
def zeroed_gradients_keep_their_graph():
    """zero_grad(set_to_none=False) of an optimizer zeroes gradients, but doesn't detach them."""

    def reset(optimizer, set_to_none, true):
        for p in parameters_of(optimizer):
            if p.grad is not None:
                p.grad = None if set_to_none else p.grad.mul_(0)

    with resetting(reset):
        yield


@fault("optimizers/zero_grad_resets_the_gradients_of_its_parameters")
def resetting_to_none_zeroes_the_tensor_first():
    """zero_grad(set_to_none=True) of an optimizer zeroes gradients before it makes them None."""

    def reset(optimizer, set_to_none, true):
        for p in parameters_of(optimizer):
            if p.grad is not None:
                p.grad.detach().zero_()
        true(set_to_none)

    with resetting(reset):
        yield


@fault("optimizers/zero_grad_sets_grad_to_none")
def optimizers_zero_by_default():
    """zero_grad() of an optimizer fills gradients with zeros, whatever it is told."""
    with resetting(lambda optimizer, set_to_none, true: true(False)):
        yield


@fault("optimizers/zero_grad_sets_grad_to_none", "optimizers/zero_grad_fills_grad_with_zeros")
def optimizers_leave_gradients():
    """zero_grad() of an optimizer does nothing."""
    with resetting(lambda optimizer, set_to_none, true: None):
        yield


@fault("optimizers/only_zeroing_in_place_keeps_the_layout_of_grad")
def zeroing_lays_grad_out_anew():
    """zero_grad(set_to_none=False) of a module makes new zeros, laid out like the parameter."""

    def renew(module, set_to_none, true):
        true(module, set_to_none)
        for p in module.parameters():
            p.grad = None if p.grad is None else torch.zeros_like(p).detach()

    with zeroing(renew):
        yield


@fault("optimizers/a_closure_is_evaluated_in_grad_mode")
def closures_run_in_the_mode_of_the_caller():
    """step(closure) calls the closure in the grad mode in which step was called."""

    def call(optimizer, true, closure):
        mode = torch.is_grad_enabled()

        def evaluate():
            with torch.set_grad_enabled(mode):
                loss = (parameters_of(optimizer)[0] ** 2).sum()
                if not mode:  # backward would be stopped by its own error
                    return loss
                return closure()

        return true(closure and evaluate)

    with stepping(call):
        yield


@fault("optimizers/a_closure_is_evaluated_in_grad_mode")
def steps_return_nothing():
    """step(closure) returns a loss of zero."""

    def call(optimizer, true, closure):
        true(closure)
        return closure and torch.zeros(())

    with stepping(call):
        yield


@fault("optimizers/a_closure_that_fails_leaves_everything_as_it_was")
def a_closure_that_fails_leaves_grad_mode_on():
    """A step whose closure fails leaves grad mode on."""

    def call(optimizer, true, closure):
        try:
            return true(closure)
        except ArithmeticError:
            torch.set_grad_enabled(True)
            raise

    with stepping(call):
        yield


@fault("optimizers/a_closure_that_fails_leaves_everything_as_it_was")
def a_closure_that_fails_does_not_stop_the_step():
    """A step whose closure fails takes the gradients that there are, and then raises."""

    def call(optimizer, true, closure):
        try:
            return true(closure)
        except ArithmeticError:
            if not isinstance(optimizer, torch.optim.LBFGS):
                true(None)
            raise

    with stepping(call):
        yield


@fault("optimizers/a_differentiable_step_is_recorded")
def differentiable_is_ignored():
    """A step with differentiable=True isn't recorded."""

    def step(optimizer, true, closure):
        kept = optimizer.defaults.get("differentiable")
        optimizer.defaults["differentiable"] = False
        try:
            return true(closure)
        finally:
            optimizer.defaults["differentiable"] = kept

    with stepping(step):
        yield


@fault("optimizers/a_differentiable_step_is_recorded")
def differentiable_steps_detach_the_gradient():
    """A step with differentiable=True takes .grad for a constant."""

    def step(optimizer, true, closure):
        parameters = parameters_of(optimizer)
        if not optimizer.defaults.get("differentiable"):
            return true(closure)
        kept = [p.grad for p in parameters]
        for p in parameters:
            p.grad = None if p.grad is None else p.grad.detach()
        result = true(closure)
        for p, grad in zip(parameters, kept, strict=True):
            p.grad = grad
        return result

    with stepping(step):
        yield


@fault("optimizers/nesterov_momentum_is_written_into_grad_by_foreach")
def a_step_of_sgd_puts_gradients_back():
    """After a step of SGD each .grad has the numbers that it had before."""

    def spoil(optimizer, true, closure):
        kept = [(p, p.grad.clone()) for p in parameters_of(optimizer) if p.grad is not None]
        result = true(closure)
        for p, grad in kept:
            p.grad.copy_(grad)
        return result

    with stepping(spoil):
        yield


@fault("optimizers/a_differentiable_step_with_weight_decay_and_foreach_is_not_differentiated")
def a_differentiable_step_goes_one_by_one():
    """A differentiable step of SGD takes one parameter after the other, whatever foreach says."""

    def make(true):
        def init(optimizer, *args, foreach=None, differentiable=False, **options):
            true(optimizer, *args, foreach=foreach and not differentiable, differentiable=differentiable, **options)

        return init

    with patched(torch.optim.SGD, "__init__", make):
        yield
