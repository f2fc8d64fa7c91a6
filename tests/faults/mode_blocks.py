"""Faults in how modes are entered and left."""

import inspect
import sys
import threading

import torch

from . import fault, patched
from .grad_modes import leaving, set_mode


@fault("mode_blocks/the_innermost_mode_decides", "grad_modes/a_graph_recorded_inside_no_grad_is_like_any_other")
def enable_grad_does_nothing():
    """enable_grad leaves grad mode off where it is off."""

    def enter(block):
        block.prev = torch.is_grad_enabled()

    with patched(torch.enable_grad, "__enter__", lambda _: enter):
        yield


@fault("mode_blocks/the_innermost_mode_decides", "mode_blocks/an_exception_passes_and_the_mode_is_restored")
def leaving_no_grad_turns_grad_mode_on():
    """When no_grad is left grad mode is on, whatever it was before."""
    with leaving(torch.no_grad, lambda block, *raised: set_mode(True)):
        yield


@fault("mode_blocks/the_innermost_mode_decides")
def leaving_enable_grad_turns_grad_mode_off():
    """When enable_grad is left grad mode is off, also where it was on before."""
    with leaving(torch.enable_grad, lambda block, *raised: set_mode(False)):
        yield


@fault("mode_blocks/the_innermost_mode_decides")
def leaving_set_grad_enabled_turns_its_mode_around():
    """When set_grad_enabled is left grad mode is the opposite of what it was inside."""
    with leaving(torch.set_grad_enabled, lambda block, *raised: set_mode(not block.mode)):
        yield


@fault("mode_blocks/an_exception_passes_and_the_mode_is_restored")
def an_exception_leaves_no_grad_on():
    """When an exception leaves no_grad, grad mode stays off."""

    def leave(block, kind, *raised):
        if kind is None:
            set_mode(block.prev)

    with leaving(torch.no_grad, leave):
        yield


@fault("mode_blocks/an_exception_passes_and_the_mode_is_restored")
def set_grad_enabled_swallows_exceptions():
    """An exception that leaves set_grad_enabled is lost."""

    def leave(block, *raised):
        set_mode(block.prev)
        return True

    with leaving(torch.set_grad_enabled, leave):
        yield


@fault("mode_blocks/set_grad_enabled_is_a_function_too")
def set_grad_enabled_needs_a_block():
    """set_grad_enabled does nothing until it is entered."""

    def init(block, mode):
        block.prev = torch.is_grad_enabled()
        block.mode = mode

    with patched(torch.set_grad_enabled, "__init__", lambda _: init):
        yield


@fault("mode_blocks/set_grad_enabled_is_a_function_too")
def no_grad_keeps_what_was_set_inside():
    """When no_grad is left, a mode that was switched on inside it stays."""
    with leaving(torch.no_grad, lambda block, *raised: set_mode(block.prev or torch.is_grad_enabled())):
        yield


@fault("mode_blocks/modes_are_local_to_a_thread")
def threads_inherit_the_mode():
    """A new thread starts in the mode of the thread that starts it."""

    def make(true):
        def start(thread):
            mode, run = torch.is_grad_enabled(), thread.run

            def inherit():
                set_mode(mode)
                run()

            thread.run = inherit
            true(thread)

        return start

    with patched(threading.Thread, "start", make):
        yield


@fault("mode_blocks/modes_are_local_to_a_thread")
def joining_a_thread_takes_over_its_mode():
    """Where a thread was joined grad mode is off."""

    def make(true):
        def join(thread, *args):
            true(thread, *args)
            set_mode(False)

        return join

    with patched(threading.Thread, "join", make):
        yield


@fault("mode_blocks/a_mode_can_be_entered_again")
def a_block_is_good_for_one_time():
    """Blocks of no_grad remember the first mode that they were entered in."""

    def enter(block):
        block.first = vars(block).get("first", torch.is_grad_enabled())
        set_mode(False)

    with patched(torch.no_grad, "__enter__", lambda _: enter):
        with leaving(torch.no_grad, lambda block, *raised: set_mode(block.first)):
            yield


@fault("mode_blocks/set_grad_enabled_takes_nothing_but_a_bool")
def set_grad_enabled_takes_numbers():
    """set_grad_enabled takes 0 and 1."""

    def make(true):
        return lambda block, mode: true(block, bool(mode) if isinstance(mode, int) else mode)

    with patched(torch.set_grad_enabled, "__init__", make):
        yield


@fault("mode_blocks/set_grad_enabled_takes_nothing_but_a_bool")
def set_grad_enabled_switches_before_it_refuses():
    """set_grad_enabled(None) turns grad mode off and raises its error then."""

    def make(true):
        def init(block, mode):
            if mode is None:
                set_mode(False)
            true(block, mode)

        return init

    with patched(torch.set_grad_enabled, "__init__", make):
        yield


@fault("mode_blocks/set_grad_enabled_brings_back_the_mode_in_which_it_was_made")
def set_grad_enabled_brings_back_the_mode_before_its_block():
    """set_grad_enabled remembers the mode in which it is entered."""

    def make(true):
        def enter(block):
            block.prev = torch.is_grad_enabled()
            true(block)

        return enter

    with patched(torch.set_grad_enabled, "__enter__", make):
        yield


@fault("mode_blocks/entering_set_grad_enabled_switches_the_mode_again")
def set_grad_enabled_is_entered_in_vain():
    """Entering set_grad_enabled does nothing."""
    with patched(torch.set_grad_enabled, "__enter__", lambda _: lambda block: None):
        yield


@fault(
    "mode_blocks/entering_set_grad_enabled_switches_the_mode_again",
    "mode_blocks/entering_set_grad_enabled_does_nothing",
)
def set_grad_enabled_switches_when_it_is_entered():
    """Entering set_grad_enabled turns grad mode off."""
    with patched(torch.set_grad_enabled, "__enter__", lambda _: lambda block: set_mode(False)):
        yield


@fault("mode_blocks/a_block_entered_inside_itself_forgets_the_mode_before_it")
def blocks_remember_all_modes():
    """A block of no_grad or enable_grad remembers each mode that it was entered in."""

    def enter(mode):
        def enter(block):
            block.modes = [*vars(block).get("modes", []), torch.is_grad_enabled()]
            set_mode(mode)

        return lambda _: enter

    def leave(block, *raised):
        set_mode(block.modes.pop())

    with patched(torch.no_grad, "__enter__", enter(False)), leaving(torch.no_grad, leave):
        with patched(torch.enable_grad, "__enter__", enter(True)), leaving(torch.enable_grad, leave):
            yield


@fault("mode_blocks/blocks_may_be_left_in_any_order")
def no_grad_is_left_only_where_it_is_innermost():
    """Leaving no_grad does nothing where grad mode was turned on since."""

    def leave(block, *raised):
        if not torch.is_grad_enabled():
            set_mode(block.prev)

    with leaving(torch.no_grad, leave):
        yield


@fault("mode_blocks/a_block_inside_a_generator_holds_for_its_consumer")
def no_grad_does_nothing_in_generators():
    """no_grad is entered in vain in the body of a generator."""

    def make(true):
        def enter(block):
            block.prev = torch.is_grad_enabled()
            if not sys._getframe(1).f_code.co_flags & inspect.CO_GENERATOR:
                true(block)

        return enter

    with patched(torch.no_grad, "__enter__", make):
        yield
