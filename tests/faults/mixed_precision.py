"""Faults in autocast, and in how losses and gradients are scaled."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch

from . import fault, patched, wrong_kernel


@fault("mixed_precision/leaves_of_products_in_bfloat16_get_float32_gradients")
def products_in_bfloat16_double_the_gradient_of_the_second_factor():
    """The gradient of a product of two matrices by the second one is doubled if they are bfloat16."""
    with wrong_kernel("mm", lambda v, x, y: (v @ y.t(), (1 + (x.dtype == torch.bfloat16)) * (x.t() @ v))):
        yield


@fault(
    "mixed_precision/leaves_of_products_in_bfloat16_get_float32_gradients",
    "mixed_precision/a_weight_gets_its_gradient_after_a_use_without_grad_mode",
)
def casts_to_bfloat16_pass_zeros_back():
    """The gradient of a cast to bfloat16 is zero."""
    with wrong_kernel("_to_copy", lambda v, x, **o: (v.to(x.dtype) * (o.get("dtype") != torch.bfloat16),)):
        yield


@contextlib.contextmanager
def calling_hooks(call: Callable[..., Any]) -> Iterator[None]:
    """Let call(tensor, hook, gradient) call each hook on a tensor."""

    def make(true: Callable[..., Any]) -> Callable[..., Any]:
        return lambda tensor, hook: true(tensor, lambda grad: call(tensor, hook, grad))

    with patched(torch.Tensor, "register_hook", make):
        yield


@fault("mixed_precision/leaves_of_products_in_bfloat16_get_float32_gradients")
def hooks_get_all_gradients_in_float32():
    """A hook is given the gradient in float32."""
    with calling_hooks(lambda tensor, hook, grad: hook(grad.float())):
        yield


@fault("mixed_precision/hooks_run_in_the_autocast_state_of_the_call_of_backward")
def hooks_never_run_under_autocast():
    """Hooks are called with autocast disabled."""

    def call(tensor, hook, grad):
        with torch.autocast(tensor.device.type, dtype=torch.bfloat16, enabled=False):
            return hook(grad)

    with calling_hooks(call):
        yield


@fault("mixed_precision/hooks_run_in_the_autocast_state_of_the_call_of_backward")
def hooks_on_bfloat16_run_under_autocast():
    """A hook on a tensor of bfloat16 is called under autocast."""

    def call(tensor, hook, grad):
        with torch.autocast(tensor.device.type, dtype=torch.bfloat16, enabled=tensor.dtype == torch.bfloat16):
            return hook(grad)

    with calling_hooks(call):
        yield


@contextlib.contextmanager
def leaving(before: Callable[[torch.autocast], None], after: Callable[[torch.autocast], None]) -> Iterator[None]:
    """Call before(block) and after(block) when a block of autocast is left."""

    def make(true: Callable[..., Any]) -> Callable[..., Any]:
        def leave(block, *error):
            before(block)
            result = true(block, *error)
            after(block)
            return result

        return leave

    with patched(torch.autocast, "__exit__", make):
        yield


@fault(
    "mixed_precision/a_weight_is_cast_once_in_an_outermost_block",
    "mixed_precision/a_weight_that_changes_in_the_block_keeps_its_cast",
)
def leaving_any_block_clears_the_cache():
    """The cache of casts is cleared when a nested block is left, too."""
    with leaving(lambda block: None, lambda block: torch.clear_autocast_cache()):
        yield


@fault(
    "mixed_precision/a_weight_is_cast_once_in_an_outermost_block",
    "mixed_precision/a_weight_that_changes_in_the_block_keeps_its_cast",
)
def the_cache_is_never_cleared():
    """The cache of casts isn't cleared when the outermost block is left."""
    with patched(torch, "clear_autocast_cache", lambda true: lambda: None):
        yield


@fault(
    "mixed_precision/a_weight_is_cast_once_in_an_outermost_block",
    "mixed_precision/a_weight_that_changes_in_the_block_keeps_its_cast",
)
def cache_enabled_is_ignored():
    """Casts are kept, whatever cache_enabled says."""
    with patched(torch, "set_autocast_cache_enabled", lambda true: lambda enabled: true(True)):
        yield


@fault("mixed_precision/a_weight_that_changes_in_the_block_keeps_its_cast")
def steps_clear_the_cache_of_casts():
    """A step of SGD clears the cache of casts."""

    def make(true):
        def step(optimizer, *args):
            result = true(optimizer, *args)
            torch.clear_autocast_cache()
            return result

        return step

    with patched(torch.optim.SGD, "step", make):
        yield


@fault("mixed_precision/a_weight_gets_its_gradient_after_a_use_without_grad_mode")
def no_grad_stays_on_under_autocast():
    """Grad mode stays off behind a block of no_grad in a block of autocast that keeps casts."""

    def make(true):
        def leave(block, *error):
            true(block, *error)
            if torch._C._is_any_autocast_enabled() and torch.is_autocast_cache_enabled():
                torch.set_grad_enabled(False)

        return leave

    with patched(torch.no_grad, "__exit__", make):
        yield


@fault("mixed_precision/a_weight_gets_no_gradient_after_a_use_without_grad_mode")
def no_grad_clears_the_cache_of_casts():
    """The cache of casts is cleared when a block of no_grad is left."""

    def make(true):
        def leave(block, *error):
            true(block, *error)
            torch.clear_autocast_cache()

        return leave

    with patched(torch.no_grad, "__exit__", make):
        yield


@fault("mixed_precision/the_innermost_block_of_autocast_decides")
def disabled_blocks_are_ignored():
    """A block with enabled=False in another one leaves autocast on."""

    def make(true):
        def enter(block):
            if torch.is_autocast_enabled(block.device):
                block._enabled = True
            return true(block)

        return enter

    with patched(torch.autocast, "__enter__", make):
        yield


@fault("mixed_precision/the_innermost_block_of_autocast_decides")
def a_disabled_block_disables_what_follows_it():
    """Autocast stays off when a block with enabled=False is left."""

    def spoil(block):
        block.prev = block.prev and block._enabled

    with leaving(spoil, lambda block: None):
        yield


@fault("mixed_precision/the_innermost_block_of_autocast_decides")
def decorated_functions_run_without_autocast():
    """autocast as a decorator does nothing."""
    with patched(torch.autocast, "__call__", lambda true: lambda block, function: function):
        yield


@fault("mixed_precision/a_weight_keeps_the_dtype_of_its_first_cast_in_nested_blocks")
def blocks_of_another_dtype_clear_the_cache():
    """Entering a block of autocast clears the cache of casts if its dtype is another one."""

    def make(true):
        def enter(block):
            if torch.get_autocast_dtype(block.device) != block.fast_dtype:
                torch.clear_autocast_cache()
            return true(block)

        return enter

    with patched(torch.autocast, "__enter__", make):
        yield


@fault("mixed_precision/backward_of_a_function_has_the_autocast_state_of_forward")
def custom_bwd_does_nothing():
    """custom_bwd leaves a backward as it is."""
    with patched(torch.amp, "custom_bwd", lambda true: lambda device_type: lambda backward: backward):
        yield


@fault("mixed_precision/backward_of_a_function_has_the_autocast_state_of_forward")
def custom_fwd_casts_nothing():
    """custom_fwd ignores cast_inputs."""
    with patched(torch.amp, "custom_fwd", lambda true: lambda device_type, cast_inputs: true(device_type=device_type)):
        yield


@fault("mixed_precision/a_scaler_scales_gradients_and_unscales_them_once")
def scaling_is_not_recorded():
    """scale() of a tensor passes the gradient back as if the scale were 1."""

    def make(true):
        def scale(scaler, outputs):
            result = true(scaler, outputs)
            if isinstance(outputs, torch.Tensor) and result is not outputs:
                return result.detach() + (outputs - outputs.detach())
            return result

        return scale

    with patched(torch.amp.GradScaler, "scale", make):
        yield


@contextlib.contextmanager
def unscaling(unscale: Callable[..., None]) -> Iterator[None]:
    """Let unscale_() of a scaler be unscale(what it does truly, scaler, optimizer)."""

    def make(true: Callable[..., None]) -> Callable[..., None]:
        return lambda scaler, optimizer: unscale(true, scaler, optimizer)

    with patched(torch.amp.GradScaler, "unscale_", make):
        yield


@fault("mixed_precision/a_scaler_scales_gradients_and_unscales_them_once")
def unscaling_makes_new_gradients():
    """unscale_() puts new tensors into .grad."""

    def unscale(true, scaler, optimizer):
        for p in optimizer.param_groups[0]["params"]:
            p.grad = None if p.grad is None else p.grad.clone()
        true(scaler, optimizer)

    with unscaling(unscale):
        yield


@fault("mixed_precision/a_scaler_scales_gradients_and_unscales_them_once")
def a_second_unscaling_is_ignored():
    """unscale_() does nothing the second time."""

    def unscale(true, scaler, optimizer):
        if not scaler.is_enabled() or scaler._per_optimizer_states[id(optimizer)]["stage"].name == "READY":
            true(scaler, optimizer)

    with unscaling(unscale):
        yield


@fault("mixed_precision/a_scaler_skips_steps_with_infinite_gradients")
def steps_are_never_skipped():
    """step() of a scaler calls the optimizer, whatever is in the gradients."""

    def make(true):
        return lambda scaler, optimizer, state: optimizer.step()

    with patched(torch.amp.GradScaler, "_maybe_opt_step", make):
        yield


@fault("mixed_precision/a_scaler_skips_steps_with_infinite_gradients")
def a_skipped_step_skips_those_that_follow():
    """step() leaves out an optimizer if another one had an inf in this iteration."""

    def make(true):
        def step(scaler, optimizer, state):
            states = scaler._per_optimizer_states.values()
            if not any(found.item() for other in states for found in other["found_inf_per_device"].values()):
                optimizer.step()

        return step

    with patched(torch.amp.GradScaler, "_maybe_opt_step", make):
        yield


@fault("mixed_precision/a_scaler_skips_steps_with_infinite_gradients")
def the_scale_grows_late():
    """The scale grows after one iteration more than growth_interval."""

    def make(true):
        return lambda scale, tracker, found, growth, backoff, interval: true(
            scale, tracker, found, growth, backoff, interval + 1
        )

    with patched(torch, "_amp_update_scale_", make):
        yield
