"""Faults in the threads of devices, and in what reaches them."""

import threading

import torch

from . import fault, patched
from .execution import changed_run


@fault("device_threads/what_is_on_a_device_runs_in_the_thread_of_the_device")
def backward_runs_in_the_calling_thread():
    """Every backward runs in the thread that calls it."""

    def change(true, *args, **options):
        with torch.autograd.set_multithreading_enabled(False):
            return true(*args, **options)

    with changed_run(change):
        yield


@fault("device_threads/without_multithreading_all_runs_in_the_calling_thread")
def multithreading_cannot_be_set():
    """set_multithreading_enabled does nothing."""

    def make(true):
        def init(setting, mode):
            setting.prev = torch._C._is_multithreading_enabled()

        return init

    with patched(torch.autograd.grad_mode.set_multithreading_enabled, "__init__", make):
        yield


@fault("device_threads/an_error_in_the_thread_of_a_device_is_raised_by_backward")
def an_error_of_a_hook_is_told_of_in_another_one():
    """An error of a backward is raised as a RuntimeError with its text."""

    def change(true, *args, **options):
        try:
            return true(*args, **options)
        except Exception as error:
            raise RuntimeError(str(error)) from None

    with changed_run(change):
        yield


@fault("device_threads/grad_mode_in_the_thread_of_a_device_is_that_of_the_backward")
def backward_on_devices_always_creates_a_graph():
    """A backward from a root on a device creates the graph of the gradient."""

    def change(true, roots, gradients, retain, create, *rest, **options):
        return true(roots, gradients, retain, create or roots[0].device.type != "cpu", *rest, **options)

    with changed_run(change):
        yield


@fault("device_threads/hooks_for_saved_tensors_reach_the_threads_of_devices")
def hooks_for_saved_tensors_end_at_backward():
    """In a backward no hooks for saved tensors are in force but those that change nothing."""

    def change(true, *args, **options):
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
            return true(*args, **options)

    with changed_run(change):
        yield


@fault("device_threads/anomaly_detection_reaches_the_threads_of_devices")
def anomaly_detection_is_off_on_devices():
    """A backward from a root on a device detects no anomaly."""

    def change(true, roots, *args, **options):
        with torch.autograd.set_detect_anomaly(torch.is_anomaly_enabled() and roots[0].device.type == "cpu"):
            return true(roots, *args, **options)

    with changed_run(change):
        yield


@fault("device_threads/a_device_is_the_current_one_in_its_thread")
def hooks_run_while_another_device_is_the_current_one():
    """While a hook runs, the device that follows that of its gradient is the current one."""

    def make(true):
        def register_hook(tensor, hook):
            def elsewhere(gradient):
                kind = getattr(torch, gradient.device.type)
                with kind.device((gradient.device.index + 1) % kind.device_count()):
                    return hook(gradient)

            return true(tensor, hook if tensor.device.type == "cpu" else elsewhere)

        return register_hook

    with patched(torch.Tensor, "register_hook", make):
        yield


@fault(
    "device_threads/a_hook_in_the_thread_of_a_device_may_call_backward",
    "device_threads/backwards_of_several_threads_share_the_threads_of_devices",
)
def a_backward_in_another_thread_counts_twice():
    """A backward that isn't called in the main thread computes twice the gradients."""

    def change(true, roots, gradients, *rest, **options):
        if threading.current_thread() is not threading.main_thread():
            gradients = tuple(g if g is None else g * 2 for g in gradients)
        return true(roots, gradients, *rest, **options)

    with changed_run(change):
        yield
