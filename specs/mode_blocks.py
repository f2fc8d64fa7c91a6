"""Blocks and threads: how a mode is entered, and how it is left."""

import contextlib
import threading

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import claim, raises, same, values
from .kit.choices import some_of
from .kit.modes import MODES

ANY_MODE = st.sampled_from(list(MODES))

NO_BOOLS = {
    "1": lambda: 1,
    "0": lambda: 0,
    "None": lambda: None,
    "'off'": lambda: "off",
    "0.0": lambda: 0.0,
    "[]": lambda: [],
    "torch.tensor(True)": lambda: torch.tensor(True),
    "torch.is_grad_enabled": lambda: torch.is_grad_enabled,
}


@claim(
    cites=[
        "torch_autograd/enable-grad-inside-no-grad",
        "torch_autograd/set-grad-enabled-by-its-argument",
        "autograd_mechanics/no-grad-for-a-block-of-code",
        "autograd_mechanics/grad-mode-is-the-default",
    ],
    formerly=["grad_modes/the_innermost_mode_decides"],
)
@given(v=values(), names=st.lists(ANY_MODE, min_size=1, max_size=6))
def spec_the_innermost_mode_decides(world, v, names):
    """Modes nest in any order: the innermost one decides whether operations are recorded, which is
    what torch.is_grad_enabled() says, and leaving a block brings back the mode from before it."""
    x = world.leaf(v)

    def look(enabled, where):
        y = x * 2
        same(torch.is_grad_enabled(), enabled, why=where)
        same(y.requires_grad, enabled, why=where)
        same(y.grad_fn is None, not enabled, why=where)

    def enter(depth, before):
        mode, enabled = MODES[names[depth]]
        with mode():
            look(enabled, f"inside {', '.join(names[: depth + 1])}")
            if depth + 1 < len(names):
                enter(depth + 1, enabled)
        look(before, f"{names[depth]} was left")

    look(True, "grad mode is on by default")
    enter(0, True)


@claim(
    cites=["autograd_mechanics/no-grad-for-a-block-of-code"],
    formerly=["grad_modes/an_exception_passes_and_the_mode_is_restored"],
)
@given(names=st.lists(ANY_MODE, min_size=1, max_size=5), caught=st.integers(0, 4))
def spec_an_exception_passes_and_the_mode_is_restored(world, names, caught):
    """An exception passes out of the blocks of any modes, and each block that it leaves brings back
    the mode from before it."""
    x = torch.ones(2, device=world.device, requires_grad=True)
    caught = min(caught, len(names) - 1)

    def enter(depth, before):
        mode, enabled = MODES[names[depth]]
        if depth == caught:
            with raises(ArithmeticError, "on purpose", why="a mode holds no exception back"):
                with mode():
                    fail(depth, enabled)
        else:
            with mode():
                fail(depth, enabled)
        same(torch.is_grad_enabled(), before, why=f"{names[depth]} was left")
        same((x * 2).requires_grad, before, why=f"{names[depth]} was left")

    def fail(depth, enabled):
        if depth + 1 < len(names):
            enter(depth + 1, enabled)
        if depth + 1 == len(names) or depth == caught:
            raise ArithmeticError("on purpose")

    enter(0, True)


@claim(
    cites=["torch_autograd/set-grad-enabled-as-a-function"],
    formerly=["grad_modes/set_grad_enabled_is_a_function_too"],
)
@given(v=values(), flags=st.lists(st.booleans(), min_size=1, max_size=4), outer=ANY_MODE, before=st.booleans())
def spec_set_grad_enabled_is_a_function_too(world, v, flags, outer, before):
    """Called as a function set_grad_enabled switches grad mode until it is switched again, or until
    the block is left in which it was called."""
    x = world.leaf(v)
    mode, _ = MODES[outer]

    torch.set_grad_enabled(before)
    with mode():
        for flag in flags:
            torch.set_grad_enabled(flag)
            same(torch.is_grad_enabled(), flag, why=f"it was set to {flag}")
            same((x * 2).requires_grad, flag, why=f"it was set to {flag}")

    same(torch.is_grad_enabled(), before, why="leaving the block brings back the mode from before it")
    same((x * 2).requires_grad, before, why="leaving the block brings back the mode from before it")


@claim(cites=["torch_autograd/set-grad-enabled-by-its-argument"])
@given(wrong=some_of(NO_BOOLS), before=st.booleans())
def spec_set_grad_enabled_takes_nothing_but_a_bool(world, wrong, before):
    """set_grad_enabled of anything but a bool is a TypeError that leaves the mode as it is."""
    x = torch.ones(2, device=world.device, requires_grad=True)
    torch.set_grad_enabled(before)

    for argument in wrong:
        with raises(TypeError, "bool", why=f"{argument} is no bool"):
            torch.set_grad_enabled(NO_BOOLS[argument]())
        same((torch.is_grad_enabled(), (x * 2).requires_grad), (before, before), why="nothing was switched")


@claim(observed=True)
@given(flag=st.booleans(), before=st.booleans(), between=st.booleans())
def spec_set_grad_enabled_brings_back_the_mode_in_which_it_was_made(world, flag, before, between):
    """set_grad_enabled switches the mode when it is made, before it is entered, and leaving its block
    brings back the mode in which it was made."""
    x = torch.ones(2, device=world.device, requires_grad=True)
    torch.set_grad_enabled(before)

    block = torch.set_grad_enabled(flag)
    same((torch.is_grad_enabled(), (x * 2).requires_grad), (flag, flag), why="it was made")
    torch.set_grad_enabled(between)
    with block:
        pass

    same((torch.is_grad_enabled(), (x * 2).requires_grad), (before, before), why="its block was left")


@claim(cites=["torch_autograd/set-grad-enabled-by-its-argument"], since="2.2")
@given(flag=st.booleans(), between=st.booleans(), times=st.integers(1, 3))
def spec_entering_set_grad_enabled_switches_the_mode_again(world, flag, between, times):
    """An object of set_grad_enabled that is entered switches the mode, even if it was switched otherwise
    since the object was made or left."""
    x = torch.ones(2, device=world.device, requires_grad=True)
    block = torch.set_grad_enabled(flag)

    for _ in range(times):
        torch.set_grad_enabled(between)
        with block:
            same((torch.is_grad_enabled(), (x * 2).requires_grad), (flag, flag), why=f"inside a block of {flag}")


@claim(cites=["torch_autograd/set-grad-enabled-by-its-argument"], until="2.2")
@given(flag=st.booleans(), between=st.booleans())
def spec_entering_set_grad_enabled_does_nothing(world, flag, between):
    """An object of set_grad_enabled that is entered leaves the mode as it is: it was switched when the
    object was made, and stays what it was made since."""
    x = torch.ones(2, device=world.device, requires_grad=True)
    block = torch.set_grad_enabled(flag)

    torch.set_grad_enabled(between)
    with block:
        same((torch.is_grad_enabled(), (x * 2).requires_grad), (between, between), why="entering does nothing")


@claim(observed=True, formerly=["grad_modes/a_mode_can_be_entered_again"])
@given(off=st.booleans(), outers=st.lists(st.booleans(), min_size=1, max_size=4))
def spec_a_mode_can_be_entered_again(world, off, outers):
    """An object of no_grad or enable_grad can be entered again after it was left; each time it brings
    back the mode from before."""
    x = torch.ones(2, device=world.device, requires_grad=True)
    block = torch.no_grad() if off else torch.enable_grad()

    for outer in outers:
        torch.set_grad_enabled(outer)
        with block:
            same((torch.is_grad_enabled(), (x * 2).requires_grad), (not off, not off), why="inside the block")
        same((torch.is_grad_enabled(), (x * 2).requires_grad), (outer, outer), why="the block was left")


@claim(observed=True)
@given(off=st.booleans(), before=st.booleans(), depth=st.integers(1, 3))
def spec_a_block_entered_inside_itself_forgets_the_mode_before_it(world, off, before, depth):
    """An object of no_grad or enable_grad that is entered again before it is left remembers the latest mode
    only: when all its blocks are left, its own mode stays."""
    x = torch.ones(2, device=world.device, requires_grad=True)
    torch.set_grad_enabled(before)
    block = torch.no_grad() if off else torch.enable_grad()

    def enter(left):
        with block:
            same(torch.is_grad_enabled(), not off, why="inside the block")
            if left:
                enter(left - 1)

    enter(depth)
    same((torch.is_grad_enabled(), (x * 2).requires_grad), (not off, not off), why=f"entered {depth + 1} times")


@claim(observed=True)
@given(names=st.lists(ANY_MODE, min_size=2, max_size=4), order=st.permutations(range(4)), before=st.booleans())
def spec_blocks_may_be_left_in_any_order(world, names, order, before):
    """Each block brings back the mode in which it was entered, also when blocks that were entered after it
    are not left yet."""
    x = torch.ones(2, device=world.device, requires_grad=True)
    torch.set_grad_enabled(before)
    stacks, modes = [], []
    for name in names:
        mode, enabled = MODES[name]
        modes.append(torch.is_grad_enabled())
        stacks.append(contextlib.ExitStack())
        stacks[-1].enter_context(mode())
        same(torch.is_grad_enabled(), enabled, why=f"{name} was entered")

    for number in order:
        if number < len(names):
            stacks[number].close()
            found = (torch.is_grad_enabled(), (x * 2).requires_grad)
            same(found, (modes[number], modes[number]), why=f"block {number} was entered in this mode")


@claim(observed=True)
@given(name=ANY_MODE, before=st.booleans(), closed=st.booleans())
def spec_a_block_inside_a_generator_holds_for_its_consumer(world, name, before, closed):
    """A mode that is entered in the body of a generator, by a block, holds for the consumer as well while the
    generator waits at a yield, until its block is left."""
    x = torch.ones(2, device=world.device, requires_grad=True)
    mode, enabled = MODES[name]
    torch.set_grad_enabled(before)

    def numbers():
        with mode():
            yield 1
        yield 2

    generator = numbers()
    same(torch.is_grad_enabled(), before, why="the generator hasn't begun")
    next(generator)
    same((torch.is_grad_enabled(), (x * 2).requires_grad), (enabled, enabled), why=f"it waits inside {name}")
    if closed:
        generator.close()
    else:
        next(generator)
    same((torch.is_grad_enabled(), (x * 2).requires_grad), (before, before), why="its block was left")


@claim(
    cites=["torch_autograd/grad-modes-are-thread-local", "autograd_mechanics/grad-mode-is-the-default"],
    formerly=["grad_modes/modes_are_local_to_a_thread"],
)
@given(here=ANY_MODE, there=ANY_MODE, v=values())
def spec_modes_are_local_to_a_thread(world, here, there, v):
    """A new thread starts with grad mode on, whatever mode it was started in, and a mode entered in one
    thread holds in no other."""
    x = world.leaf(v)
    entered, looked = threading.Event(), threading.Event()
    seen_here, seen_there = [], []

    def look(seen):
        seen.append((torch.is_grad_enabled(), (x * 2).requires_grad))

    def work():
        mode, _ = MODES[there]
        look(seen_there)
        with mode():
            entered.set()
            looked.wait(10)
            look(seen_there)
            torch.set_grad_enabled(False)
        look(seen_there)

    thread = threading.Thread(target=work)
    (mode, enabled), (_, enabled_there) = MODES[here], MODES[there]
    with mode():
        look(seen_here)
        thread.start()
        entered.wait(10)
        look(seen_here)
        torch.set_grad_enabled(enabled)
        looked.set()
        thread.join()
        look(seen_here)
    look(seen_here)

    same(seen_here, [(enabled, enabled)] * 3 + [(True, True)], why=f"this thread is inside {here}")
    same(seen_there[:1], [(True, True)], why="a thread starts with grad mode on")
    same(seen_there[1:], [(enabled_there, enabled_there), (True, True)], why=f"the thread is inside {there}")
