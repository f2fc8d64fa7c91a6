"""Faults in inference mode."""

import contextlib
import threading

import torch
from torch.autograd import grad_mode

from . import fault, patched
from .grad_modes import leaving, set_mode


@fault("inference_mode/inference_mode_records_nothing")
def inference_mode_is_but_no_grad():
    """inference_mode does what no_grad does."""

    def enter(block):
        block.before = torch.is_grad_enabled()
        set_mode(False)

    with patched(torch.inference_mode, "__enter__", lambda _: enter):
        with leaving(torch.inference_mode, lambda block, *raised: set_mode(block.before)):
            yield


@fault("inference_mode/inference_mode_records_nothing")
def leaving_inference_mode_turns_grad_mode_on():
    """When inference_mode is left grad mode is on, whatever it was before."""

    def make(true):
        def leave(block, *raised):
            true(block, *raised)
            set_mode(True)

        return leave

    with patched(grad_mode.inference_mode, "__exit__", make):
        yield


@fault("inference_mode/inference_mode_nests_with_grad_modes")
def inference_mode_takes_no_flag():
    """inference_mode(False) does what inference_mode() does."""
    with patched(torch.inference_mode, "__init__", lambda true: lambda block, mode=True: true(block, True)):
        yield


@fault("inference_mode/inference_mode_nests_with_grad_modes")
def inference_mode_false_leaves_grad_mode_off():
    """inside inference_mode(False) grad mode is off if it was off outside."""

    def make(true):
        def enter(block):
            enabled = torch.is_grad_enabled()
            true(block)
            set_mode(enabled and not block.mode)

        return enter

    with patched(torch.inference_mode, "__enter__", make):
        yield


@contextlib.contextmanager
def inferring(on):
    """Inference mode is on, or off, in this block, whatever a fault did to inference_mode."""
    with torch._C._InferenceMode(on):
        yield


def when_inferring(owner, name, change):
    """Let the operation `name` in inference mode be `change(the true one, its arguments)`."""

    def make(true):
        def operation(*args, **kwargs):
            if torch.is_inference_mode_enabled():
                return change(true, *args, **kwargs)
            return true(*args, **kwargs)

        return operation

    return patched(owner, name, make)


def normally(true, *args, **kwargs):
    """Run an operation as if inference mode were off, on normal tensors."""
    with inferring(False):
        args = [a.clone() if isinstance(a, torch.Tensor) and a.is_inference() else a for a in args]
        return true(*args, **kwargs)


@fault("inference_mode/what_is_allocated_inside_is_an_inference_tensor")
def comparisons_make_normal_tensors():
    """Comparisons in inference mode make normal tensors."""
    with when_inferring(torch.Tensor, "__gt__", normally):
        yield


@fault("inference_mode/what_is_allocated_inside_is_an_inference_tensor")
def integers_are_no_inference_tensors():
    """is_inference() of a tensor of integers is false."""
    with patched(torch.Tensor, "is_inference", lambda true: lambda t: t.dtype != torch.int64 and true(t)):
        yield


@fault("inference_mode/inference_mode_changes_no_values")
def negatives_are_normal_in_inference_mode():
    """-x in inference mode is a normal tensor."""
    with when_inferring(torch.Tensor, "__neg__", normally):
        yield


@fault("inference_mode/inference_mode_changes_no_values")
def relu_is_skipped_in_inference_mode():
    """relu() in inference mode gives back the values that it got."""
    with when_inferring(torch.Tensor, "relu", lambda true, t: t.clone()):
        yield


@fault("inference_mode/inference_tensors_can_be_written_inside")
def neg_in_place_is_skipped_in_inference_mode():
    """neg_() in inference mode leaves inference tensors in no dimension as they are."""
    with when_inferring(torch.Tensor, "neg_", lambda true, t: t if t.is_inference() and not t.dim() else true(t)):
        yield


@fault("inference_mode/inference_tensors_can_be_written_inside")
def views_of_inference_tensors_are_copies():
    """unsqueeze() of an inference tensor copies it."""
    with when_inferring(torch.Tensor, "unsqueeze", lambda true, *args: true(*args).clone()):
        yield


@fault("inference_mode/normal_tensors_can_be_written_inside")
def changes_in_inference_mode_are_not_counted():
    """neg_() in inference mode doesn't count up the version."""

    def uncounted(true, t):
        if t.is_inference():
            return true(t)
        true(t.data)
        return t

    with when_inferring(torch.Tensor, "neg_", uncounted):
        yield


@fault("inference_mode/normal_tensors_can_be_written_inside")
def results_written_in_inference_mode_lose_their_history():
    """zero_() in inference mode detaches a result."""

    def detached(true, t):
        with inferring(False):
            if t.grad_fn is not None and not t._is_view():
                t.detach_()
        return true(t)

    with when_inferring(torch.Tensor, "zero_", detached):
        yield


@fault("inference_mode/inference_mode_is_local_to_a_thread")
def threads_inherit_inference_mode():
    """A new thread starts in inference mode if the one that starts it is in it."""

    def make(true):
        def start(thread):
            on, run = torch.is_inference_mode_enabled(), thread.run

            def inherit():
                with inferring(on):
                    run()

            thread.run = inherit
            true(thread)

        return start

    with patched(threading.Thread, "start", make):
        yield


@fault("inference_mode/inference_mode_turns_forward_mode_off")
def inference_mode_leaves_tangents_readable():
    """Inside inference_mode the tangents of tensors from before can be read."""

    def make(true):
        def enter(block):
            true(block)
            torch._C._set_fwd_grad_enabled(True)

        return enter

    with patched(torch.inference_mode, "__enter__", make):
        yield


@fault("inference_mode/inference_mode_turns_forward_mode_off")
def forward_mode_stays_off_behind_inference_mode():
    """When inference_mode is left forward mode AD stays off."""

    def make(true):
        def leave(block, *raised):
            true(block, *raised)
            torch._C._set_fwd_grad_enabled(False)

        return leave

    with patched(torch.inference_mode, "__exit__", make):
        try:
            yield
        finally:
            torch._C._set_fwd_grad_enabled(True)


@fault("inference_mode/an_inference_block_entered_inside_itself_never_ends")
def inference_blocks_remember_all_modes():
    """A block of inference_mode remembers each mode that it was entered in."""

    def enter(block):
        context = torch._C._InferenceMode(block.mode)
        block.contexts = [*vars(block).get("contexts", []), context]
        context.__enter__()

    def leave(block, *raised):
        block.contexts.pop().__exit__(*raised)

    with patched(torch.inference_mode, "__enter__", lambda _: enter), leaving(torch.inference_mode, leave):
        yield


@fault("inference_mode/inference_mode_nests_with_grad_modes")
def no_grad_ends_inference_mode():
    """When no_grad is left inside inference_mode grad mode is on."""

    def make(true):
        def leave(block, *raised):
            true(block, *raised)
            if torch.is_inference_mode_enabled():
                set_mode(True)

        return leave

    with patched(torch.no_grad, "__exit__", make):
        yield


@fault("inference_mode/normal_tensors_can_be_given_flags_and_hooks_inside")
def requires_grad_in_place_is_ignored_in_inference_mode():
    """requires_grad_() in inference mode does nothing."""
    with when_inferring(torch.Tensor, "requires_grad_", lambda true, t, *flag: t):
        yield


@fault("inference_mode/normal_tensors_can_be_given_flags_and_hooks_inside")
def hooks_are_forgotten_in_inference_mode():
    """A hook that is registered in inference mode is called, but what it returns is ignored."""

    def ignoring(true, tensor, hook):
        def call(gradient):
            hook(gradient)

        return true(tensor, call)

    with when_inferring(torch.Tensor, "register_hook", ignoring):
        yield


@fault("inference_mode/detach_in_place_does_nothing_inside")
def detach_in_place_works_in_inference_mode():
    """detach_() in inference mode does what it does elsewhere."""

    def change(true, tensor):
        with inferring(False):
            return true(tensor)

    with when_inferring(torch.Tensor, "detach_", change):
        yield
