"""Faults in the streams of backward."""

import torch

from . import fault, patched
from .execution import changed_run


@fault("streams/backward_runs_on_the_streams_of_forward")
def backward_leaves_another_stream_current():
    """After a backward a new stream is the current one of the root's device."""

    def change(true, roots, *rest, **options):
        result = true(roots, *rest, **options)
        if roots[0].device.type != "cpu":
            torch.accelerator.set_stream(torch.Stream(device=roots[0].device))
        return result

    with changed_run(change):
        yield


@fault("streams/backward_runs_on_the_streams_of_forward")
def the_current_stream_is_told_wrongly_in_backward():
    """In a backward of a custom function the current stream is said to be a new one."""

    def make(true):
        def current_stream(device=None):
            inside = torch._C._current_graph_task_id() >= 0
            return torch.Stream(device=device) if inside else true(device)

        return current_stream

    with patched(torch.accelerator, "current_stream", make):
        yield


@fault("streams/gradients_can_be_used_on_the_stream_of_the_call")
def the_gradient_passed_is_read_too_early():
    """Backward reads the gradient passed as zeros, as if it weren't there yet."""

    def change(true, roots, gradients, *rest, **options):
        return true(roots, tuple(g if g is None else torch.zeros_like(g) for g in gradients), *rest, **options)

    with changed_run(change):
        yield
