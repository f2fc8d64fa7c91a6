"""Faults in where hooks for saved tensors apply: contexts, threads, single tensors, save_on_cpu, disabling."""

import contextlib
import threading

import torch
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks

from . import fault, patched
from .saved_tensor_hooks import hooks_through
from .single_saved_tensors import registering

push = torch._C._autograd._push_saved_tensors_default_hooks
pop = torch._C._autograd._pop_saved_tensors_default_hooks


def in_force():
    """The pair of hooks that applies here, if there is one."""
    return torch._C._autograd._top_saved_tensors_default_hooks(True)


@contextlib.contextmanager
def none_left_behind():
    """Take all hooks away at the end that a fault has left."""
    try:
        yield
    finally:
        while in_force():
            pop()


@fault("saved_tensor_hooks_scope/only_the_inner_most_hooks_apply")
def the_outer_most_hooks_apply():
    """Of nested contexts, the hooks of the outer-most apply."""

    def make(true):
        def enter(self):
            push(*(in_force() or (self.pack_hook, self.unpack_hook)))

        return enter

    with patched(saved_tensors_hooks, "__enter__", make):
        yield


@fault("saved_tensor_hooks_scope/only_the_inner_most_hooks_apply")
def a_third_context_does_not_apply():
    """A context inside of two others has no effect."""

    def make(true):
        def enter(self):
            outer = []
            while in_force():
                outer.append(in_force())
                pop()
            for pair in reversed(outer):
                push(*pair)
            push(*(outer[0] if len(outer) == 2 else (self.pack_hook, self.unpack_hook)))

        return enter

    with patched(saved_tensors_hooks, "__enter__", make):
        yield


@fault("saved_tensor_hooks_scope/only_the_inner_most_hooks_apply")
def what_was_packed_is_unpacked_by_the_hooks_in_force():
    """A saved tensor is unpacked by the hooks that apply where it is used."""

    def make_unpack(unpack):
        def unpack_here(packed):
            with contextlib.ExitStack() as popped:
                here = in_force()
                if not here or here[1] is unpack_here:
                    return unpack(packed)
                pop()
                popped.callback(push, *here)
                return here[1](packed)

        return unpack_here

    with hooks_through(lambda pack: pack, make_unpack):
        yield


@fault("saved_tensor_hooks_scope/leaving_a_context_by_an_exception_takes_its_hooks_away")
def hooks_stay_after_an_exception():
    """A context that is left by an exception leaves its hooks in force."""
    with (
        none_left_behind(),
        patched(saved_tensors_hooks, "__exit__", lambda true: lambda self, *error: None if error[0] else true(self)),
    ):
        yield


@fault("saved_tensor_hooks_scope/leaving_a_context_by_an_exception_takes_its_hooks_away")
def an_exception_takes_all_hooks_away():
    """A context that is left by an exception takes the hooks of all contexts away."""

    def make(true):
        def leave(self, *error):
            if in_force():
                pop()
            while error[0] and in_force():
                pop()

        return leave

    with patched(saved_tensors_hooks, "__exit__", make):
        yield


@fault("saved_tensor_hooks_scope/hooks_hold_for_their_own_thread")
def hooks_apply_in_new_threads():
    """A thread begins with the hooks that apply where it is started."""

    def make(true):
        def start(thread):
            pair, target = in_force(), thread._target

            def run(*args, **options):
                if pair:
                    push(*pair)
                try:
                    target(*args, **options)
                finally:
                    if pair:
                        pop()

            thread._target = run
            true(thread)

        return start

    with patched(threading.Thread, "start", make):
        yield


@fault("saved_tensor_hooks_scope/hooks_hold_for_their_own_thread")
def contexts_of_other_threads_have_no_hooks():
    """A context that isn't entered in the main thread has no effect."""

    def nothing(pack):
        return lambda t: (None, t.detach()) if threading.current_thread().name.startswith("Thread") else (1, pack(t))

    with hooks_through(nothing, lambda unpack: lambda packed: unpack(packed[1]) if packed[0] else packed[1]):
        yield


@fault("saved_tensor_hooks_scope/what_a_custom_function_saves_goes_through_hooks")
def custom_functions_save_without_hooks():
    """What a custom function saves is stored as it is, in a context of hooks, too."""

    def make(true):
        @classmethod
        def apply(cls, *args):
            with saved_tensors_hooks(lambda t: t.detach(), lambda packed: packed):
                return true.__func__(cls, *args)

        return apply

    with patched(torch.autograd.Function, "apply", make):
        yield


@fault("saved_tensor_hooks_scope/what_a_custom_function_saves_goes_through_hooks")
def hooks_on_one_tensor_of_a_custom_function_are_forgotten():
    """register_hooks on what a custom function saved calls pack, but unpack isn't called."""

    def make(true):
        def register(saved, pack, unpack):
            true(saved, lambda t: (pack(t), t.detach()), lambda packed: packed[1])

        return register

    with patched(torch._C._autograd.SavedTensor, "register_hooks", make):
        yield


@contextlib.contextmanager
def saving_on_cpu(pack, unpack=lambda packed: packed[1].to(packed[0])):
    """Let save_on_cpu(pin_memory) use the hooks pack(tensor, pin_memory), unpack."""

    def make(true):
        def init(self, pin_memory=False, device_type="cuda"):
            saved_tensors_hooks.__init__(self, lambda t: (t.device, pack(t.detach(), pin_memory)), unpack)

        return init

    with patched(save_on_cpu, "__init__", make):
        yield


@fault("saved_tensor_hooks_scope/save_on_cpu_changes_no_gradient")
def pinned_memory_is_not_written():
    """What is saved to pinned memory comes back as zeros if it is a single number."""
    with saving_on_cpu(lambda t, pinned: torch.zeros_like(t) if pinned and t.numel() == 1 else t):
        yield


@fault("saved_tensor_hooks_scope/save_on_cpu_changes_no_gradient")
def save_on_cpu_loses_strides():
    """What is saved on the CPU is written in the order of memory and read row by row."""

    def pack(t, pinned):
        if t.is_contiguous() or not t.numel() or 0 in t.stride():
            return t
        return t.as_strided(t.shape, torch.empty(t.shape).stride())

    with saving_on_cpu(pack):
        yield


@fault("saved_tensor_hooks_scope/save_on_cpu_changes_no_gradient")
def save_on_cpu_keeps_single_precision():
    """What is saved on the CPU comes back with single precision."""
    with saving_on_cpu(lambda t, pinned: t.float() if t.dtype == torch.float64 else t):
        yield


@fault("saved_tensor_hooks_scope/save_on_cpu_copies_nothing_that_is_there")
def save_on_cpu_copies_always():
    """save_on_cpu copies tensors that are on the CPU, too."""
    with saving_on_cpu(lambda t, pinned: t.clone()):
        yield


@fault("saved_tensor_hooks_scope/save_on_cpu_copies_nothing_that_is_there")
def save_on_cpu_copies_what_is_not_contiguous():
    """save_on_cpu copies a tensor that doesn't lie in memory row by row."""
    with saving_on_cpu(lambda t, pinned: t.clone() if pinned else t.contiguous()):
        yield


@contextlib.contextmanager
def disabling(replacement):
    """Put a context manager made of replacement(the true one, message) in the place of the one that disables."""

    def make(true):
        return contextlib.contextmanager(lambda message: replacement(true, message))

    with patched(torch.autograd.graph, "disable_saved_tensors_hooks", make):
        yield


@fault("saved_tensor_hooks_scope/disabled_hooks_raise_the_message")
def the_message_of_disabling_is_cut():
    """The error of disabled hooks tells the first word of the message."""

    def replacement(true, message):
        with true(message.partition(" ")[0]):
            yield

    with disabling(replacement):
        yield


@fault("saved_tensor_hooks_scope/disabled_hooks_raise_the_message")
def an_inner_block_enables_hooks_again():
    """Leaving a block that disables hooks enables them, inside of another such block, too."""

    def replacement(true, message):
        with true(message):
            yield
        torch._C._autograd._saved_tensors_hooks_enable()

    with disabling(replacement):
        yield


@fault("saved_tensor_hooks_scope/disabled_hooks_raise_the_message")
def an_exception_leaves_the_inner_message():
    """A block that is left by an exception leaves its message in force."""

    def replacement(true, message):
        before = torch._C._autograd._saved_tensors_hooks_get_disabled_error_message()
        torch._C._autograd._saved_tensors_hooks_disable(message)
        try:
            yield
        except KeyError:
            raise
        except BaseException:
            torch._C._autograd._saved_tensors_hooks_enable()
            raise
        if before is None:
            torch._C._autograd._saved_tensors_hooks_enable()
        else:
            torch._C._autograd._saved_tensors_hooks_disable(before)

    try:
        with disabling(replacement):
            yield
    finally:
        torch._C._autograd._saved_tensors_hooks_enable()


@fault("saved_tensor_hooks_scope/disabled_hooks_raise_the_message")
def save_on_cpu_is_not_disabled():
    """Where hooks are disabled, save_on_cpu has no effect but raises no error either."""

    def make(true):
        def enter(self):
            message = torch._C._autograd._saved_tensors_hooks_get_disabled_error_message()
            if isinstance(self, save_on_cpu) and message is not None:
                torch._C._autograd._saved_tensors_hooks_enable()
                true(self)
                pop()
                torch._C._autograd._saved_tensors_hooks_disable(message)
            else:
                true(self)

        return enter

    with patched(saved_tensors_hooks, "__enter__", make):
        yield


@fault("saved_tensor_hooks_scope/hooks_that_are_in_force_cannot_be_disabled")
def hooks_in_force_are_disabled_silently():
    """Inside a context of hooks, a block that disables hooks is entered without an error."""

    def replacement(true, message):
        if in_force():
            yield
        else:
            with true(message):
                yield

    with disabling(replacement):
        yield


@fault("saved_tensor_hooks_scope/hooks_that_are_in_force_cannot_be_disabled")
def refusing_to_disable_takes_the_hooks_away():
    """Inside a context of hooks, a block that disables hooks raises its error, and the hooks don't apply any more."""

    def replacement(true, message):
        if in_force():
            pop()
            push(lambda t: t.detach(), lambda packed: packed)
        with true(message):
            yield

    with disabling(replacement):
        yield


@fault("saved_tensor_hooks_scope/disabling_leaves_single_tensors_and_other_threads_alone")
def disabled_hooks_are_not_registered():
    """Where hooks are disabled, register_hooks does nothing."""

    def register(true, saved, pack, unpack):
        if torch._C._autograd._saved_tensors_hooks_is_enabled():
            true(saved, pack, unpack)

    with registering(register):
        yield


@fault("saved_tensor_hooks_scope/a_memory_budget_needs_a_compiled_region")
def a_memory_budget_can_be_set_everywhere():
    """region_activation_memory_budget does nothing in code that isn't compiled."""
    with patched(
        torch.autograd.graph, "region_activation_memory_budget", lambda _: lambda budget: contextlib.nullcontext()
    ):
        yield


@fault(
    "saved_tensor_hooks_scope/a_saved_leaf_that_is_no_input_goes_through_hooks",
    "saved_tensor_hooks_scope/a_saved_leaf_that_is_no_input_breaks_under_hooks",
)
def leaves_are_unpacked_without_their_sign():
    """What comes out of hooks for a saved leaf has lost its sign."""
    with hooks_through(
        lambda pack: lambda t: (pack(t.detach()), t.is_leaf and t.requires_grad),
        lambda unpack: lambda packed: unpack(packed[0]).abs() if packed[1] else unpack(packed[0]),
    ):
        yield


@fault("saved_tensor_hooks_scope/pack_is_not_called_for_what_is_not_recorded")
def abs_is_recorded_under_no_grad():
    """abs() of a tensor that requires grad saves it under no_grad, too."""

    def make(true):
        def abs(x):
            if torch.is_inference_mode_enabled():
                return true(x)
            with torch.enable_grad():
                return true(x)

        return abs

    with patched(torch.Tensor, "abs", make):
        yield


@fault("saved_tensor_hooks_scope/pack_is_not_called_for_what_is_not_recorded")
def every_backward_makes_a_graph():
    """backward() makes a graph of the gradients whether it is asked to or not."""

    def make(true):
        def backward(tensors, grad_tensors=None, retain_graph=None, create_graph=False, **options):
            true(tensors, grad_tensors, retain_graph, True, **options)

        return backward

    with patched(torch.autograd, "backward", make):
        yield


@fault("saved_tensor_hooks_scope/numbers_are_not_packed", "saved_tensor_hooks_scope/numbers_are_packed")
def numbers_are_made_tensors_first():
    """A number by which a tensor is multiplied is a tensor like any other, and is packed."""

    def make(true):
        return lambda x, other: true(x, torch.tensor(other) if isinstance(other, (int, float)) else other)

    with patched(torch.Tensor, "__mul__", make), patched(torch.Tensor, "__rmul__", make):
        yield


@fault("saved_tensor_hooks_scope/numbers_are_not_packed")
def divisors_are_packed():
    """A number by which a tensor is divided is packed."""
    with patched(torch.Tensor, "__truediv__", lambda true: lambda x, other: true(x, torch.tensor(other))):
        yield
