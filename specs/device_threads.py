"""The threads of devices: where backward runs what is on a device, and what reaches it there."""

import threading

import torch
from hypothesis import given
from hypothesis import strategies as st

from .devices import places
from .kit import claim, raises, same, values
from .kit.choices import some_of

CALLER = "the calling thread"


def thread(main):
    """The number of the current thread, or that it is `main`."""
    number = threading.get_ident()
    return CALLER if number == main else number


class Watched(torch.autograd.Function):
    """The identity, which tells a function of the thread that its backward runs in."""

    @staticmethod
    def forward(ctx, x, tell):
        """A copy of x."""
        ctx.tell = tell
        return x.clone()

    @staticmethod
    def backward(ctx, cotangent):
        """The cotangent, and nothing for the function."""
        ctx.tell()
        return cotangent, None


def unpacking(x, tell):
    """The value of x as the result of an operation that saves a tensor, of whose unpacking is told."""
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: tell() or t):
        return x * torch.ones_like(x)


def hooked(x, tell):
    """A copy of x with a hook."""
    y = x.clone()
    y.register_hook(lambda gradient: tell())
    return y


def hooked_before(x, tell):
    """A copy of x with a pre-hook on its node."""
    y = x.clone()
    y.grad_fn.register_prehook(lambda gradients: tell())
    return y


def hooked_behind(x, tell):
    """A copy of x with a hook on its node."""
    y = x.clone()
    y.grad_fn.register_hook(lambda gradients, cotangents: tell())
    return y


# Ways to have a function called when backward comes through a copy of x.
WATCHES = {
    "a tensor's hook": hooked,
    "a node's pre-hook": hooked_before,
    "a node's hook": hooked_behind,
    "a custom function": lambda x, tell: Watched.apply(x, tell),
    "an unpack hook": unpacking,
}
PATHS = st.lists(st.tuples(st.integers(0, 2), st.sampled_from(list(WATCHES))), min_size=1, max_size=6)


def watched(x, path, there, seen):
    """x, brought to the places of a path in turn; `seen` is told of the thread in which backward comes through each."""
    caller = threading.get_ident()
    y = x
    for number, (place, watch) in enumerate(path):
        y = WATCHES[watch](y.to(there[place]), lambda number=number: seen.__setitem__(number, thread(caller)))
    return y


@claim(cites=["torch_autograd/backward-on-devices-runs-in-their-threads"], needs=["device-threads"])
@given(v=values(), path=PATHS, passes=st.integers(1, 2))
def spec_what_is_on_a_device_runs_in_the_thread_of_the_device(world, v, path, passes):
    """Backward goes through what was done on a device in a thread of that device, always the same one, and through what
    was done on the CPU in the thread that calls it: hooks, custom functions and unpacking are called there."""
    there = places(world.device)
    x = world.leaf(v)
    threads = {}

    for _ in range(passes):
        seen = {}
        watched(x, path, there, seen).sum().backward()
        for number, (place, _) in enumerate(path):
            known = threads.setdefault(there[place], seen[number])
            same(seen[number], known, why=f"step {number} of {path} ran on {there[place]}")

    same(threads.pop(there[0], CALLER), CALLER, why="the CPU has no thread of its own")
    same(CALLER in threads.values(), False, why="devices have")
    same(len(set(threads.values())), len(threads), why="each device has one")


@claim(
    cites=[
        "torch_autograd/backward-on-devices-runs-in-their-threads",
        "torch_autograd/multithreading-is-set-for-a-thread",
    ],
    needs=["device-threads"],
)
@given(v=values(), path=PATHS, enabled=st.booleans(), as_function=st.booleans(), elsewhere=st.booleans())
def spec_without_multithreading_all_runs_in_the_calling_thread(world, v, path, enabled, as_function, elsewhere):
    """After set_multithreading_enabled(False), as a function or as a context manager, backward runs in the thread that
    calls it on all devices, with the same gradients; other threads go on as before."""
    there = places(world.device)
    x = world.leaf(v)

    def backward():
        seen = {}
        watched(x, path, there, seen).sum().backward()
        return [seen[number] == CALLER for number in range(len(path))]

    def in_another_thread():
        results.append(backward())

    on_the_cpu, results = [place == 0 for place, _ in path], []
    expected = on_the_cpu if enabled else [True] * len(path)
    if as_function:
        try:
            torch.autograd.set_multithreading_enabled(enabled)
            same(backward(), expected, why=f"it was set to {enabled}")
        finally:
            torch.autograd.set_multithreading_enabled(True)
    else:
        with torch.autograd.set_multithreading_enabled(enabled):
            same(backward(), expected, why=f"it was set to {enabled}")
            if elsewhere:
                other = threading.Thread(target=in_another_thread)
                other.start()
                other.join()
                same(results, [on_the_cpu], why="it was set in another thread")
    same(backward(), on_the_cpu, why="it is on again")

    same(x.grad, torch.full_like(x, 2 + len(results)).detach(), why="each backward added 1")


class Trouble(Exception):
    """An error that is raised on purpose."""


@claim(cites=["torch_autograd/backward-on-devices-runs-in-their-threads"], observed=True, needs=["device-threads"])
@given(v=values(), path=PATHS, at=st.integers(0, 5), number=st.integers(-3, 3))
def spec_an_error_in_the_thread_of_a_device_is_raised_by_backward(world, v, path, at, number):
    """An error in the thread of a device ends the backward, which raises that very error in the thread that called it;
    what lies behind gets no gradient, and later backwards run as ever."""
    there = places(world.device)
    x = world.leaf(v)
    error = Trouble(number)

    def fail(gradient):
        raise error

    y = watched(x, path[: at % len(path)], there, {})
    y = y.to(there[1]) * 1
    handle = y.register_hook(fail)
    z = watched(y, path[at % len(path) :], there, {}).sum()
    with raises(Trouble, str(number), why="a hook raised it"):
        try:
            z.backward(retain_graph=True)
        except Trouble as caught:
            same(caught is error, True, why="it is the object that the hook raised")
            raise
    same(x.grad, None, why="backward didn't come to x")

    handle.remove()
    z.backward()
    same(x.grad, torch.ones_like(x).detach(), why="without the hook nothing fails")


@claim(cites=["torch_autograd/gradients-are-constants-without-create-graph"], needs=["device-threads"])
@given(v=values(), path=PATHS, modes=st.lists(st.booleans(), min_size=1, max_size=3), calling=st.booleans())
def spec_grad_mode_in_the_thread_of_a_device_is_that_of_the_backward(world, v, path, modes, calling):
    """In the thread of a device, too, grad mode is on if the graph of the gradient is created and off otherwise, in
    whichever mode backward is called; what a hook sets it to ends with that backward."""
    there = places(world.device)
    x = world.leaf(v)
    seen = []

    def turn(gradient):
        seen.append(torch.is_grad_enabled())
        torch.set_grad_enabled(not torch.is_grad_enabled())

    for create_graph in modes:
        y = watched(x, path, there, {}).to(there[1]) * 1
        y.register_hook(turn)
        with torch.set_grad_enabled(calling):
            torch.autograd.grad(
                y.sum() if calling else y, x, None if calling else torch.ones_like(y), create_graph=create_graph
            )
            same(torch.is_grad_enabled(), calling, why="the mode of the caller is its own")

    same(seen, modes, why="the graph of the gradient was created or not")


@claim(
    cites=["torch_autograd/pack-is-called-for-each-saved-tensor", "autograd_mechanics/default-hooks-apply-to-all"],
    needs=["device-threads"],
)
@given(v=values(), inside=st.booleans(), factor=st.integers(1, 3))
def spec_hooks_for_saved_tensors_reach_the_threads_of_devices(world, v, inside, factor):
    """Hooks for saved tensors that are in force where backward is called are in force in the thread of the device: what
    it saves with create_graph=True they pack."""
    x = world.leaf(v)
    y = x * x * factor
    packed, caller = [], threading.get_ident()

    hooks = torch.autograd.graph.saved_tensors_hooks(lambda t: packed.append(thread(caller)) or t.clone(), lambda t: t)
    if inside:
        with hooks:
            (g,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    else:
        (g,) = torch.autograd.grad(y.sum(), x, create_graph=True)

    same([len(packed) > 0, CALLER in packed], [inside, False], why=f"hooks were in force: {inside}")
    (second,) = torch.autograd.grad(g.sum(), x)
    same(second, torch.full_like(x, 2 * factor).detach(), why="the second derivative of factor * x * x")


# Operations whose gradient is NaN where x is 0, with the part of the node's name.
SPOILING = {
    "x / x": (lambda x: x / x, "Div"),
    "x.sqrt() * 0": (lambda x: x.sqrt() * 0, "Sqrt"),
    "x.pow(0.5) * 0": (lambda x: x.pow(0.5) * 0, "Pow"),
}


@claim(cites=["torch_autograd/anomaly-mode-raises-for-nan"], needs=["device-threads"])
@given(shape=st.sampled_from([(), (1,), (2, 3)]), codes=some_of(SPOILING, 3), inside=st.booleans(), path=PATHS)
def spec_anomaly_detection_reaches_the_threads_of_devices(world, shape, codes, inside, path):
    """Anomaly detection works in the thread of a device as it does in the calling one: a NaN in a gradient is an error
    that names the operation; without it the NaN is the gradient."""
    there = places(world.device)
    for code in codes:
        spoil, name = SPOILING[code]
        x = torch.zeros(shape, device=there[1]).requires_grad_()
        y = watched(spoil(x), path, there, {}).sum()
        if inside:
            with torch.autograd.set_detect_anomaly(True):
                with raises(RuntimeError, f"{name}Backward0' returned nan", why=f"the gradient of {code} is NaN"):
                    y.backward()
            same(x.grad, None, why="there was an error")
        else:
            y.backward()
            same(bool(x.grad.isnan().all()), True, why=f"the gradient of {code} is NaN")


@claim(
    cites=["cuda_semantics/results-are-where-their-tensors-are"],
    observed=True,
    needs=["device-threads", "second-device"],
)
@given(v=values(), path=PATHS, current=st.integers(1, 2))
def spec_a_device_is_the_current_one_in_its_thread(world, v, path, current):
    """In its own thread a device is the current one, whichever is that where backward is called: a tensor that a hook
    makes there without an index is on the device of the gradient."""
    there = places(world.device)
    kind = getattr(torch, world.device.type)
    x = world.leaf(v)
    made, y = [], x
    for place, _ in path:
        y = y.to(there[place]) * 1
        if place:
            y.register_hook(lambda g: made.append((torch.empty(0, device=world.device.type).device, g.device)))

    with kind.device(there[current]):
        y.sum().backward()
        same(kind.current_device(), there[current].index, why="it is the caller's own")

    same([new for new, _ in made], [of_the_gradient for _, of_the_gradient in made], why="hooks ran in these threads")
    same(len(made), sum(place > 0 for place, _ in path), why="each hook was called once")


@claim(cites=["torch_autograd/backward-on-devices-runs-in-their-threads"], observed=True, needs=["device-threads"])
@given(v=values(), outer=PATHS, inner=PATHS, depth=st.integers(1, 3), factor=st.integers(-3, 3))
def spec_a_hook_in_the_thread_of_a_device_may_call_backward(world, v, outer, inner, depth, factor):
    """A hook that runs in the thread of a device may call backward on another graph, on any devices, whose hooks may do
    so in turn: each backward is done when its call returns."""
    there = places(world.device)
    leaves = [world.leaf(v) for _ in range(depth + 1)]

    def root(level):
        with torch.enable_grad():  # which is off in hooks
            y = watched(leaves[level], inner if level else outer, there, {}).to(there[1]) * factor
            if level < depth:
                y.register_hook(lambda gradient: descend(level + 1))
            return y.sum()

    def descend(level):
        root(level).backward()
        same(leaves[level].grad, torch.full_like(leaves[level], factor).detach(), why="its backward has returned")

    root(0).backward()
    for x in leaves:
        same(x.grad, torch.full_like(x, factor).detach(), why=f"{depth} backwards inside one another")


@claim(cites=["torch_autograd/backward-on-devices-runs-in-their-threads"], observed=True, needs=["device-threads"])
@given(v=values(), paths=st.lists(PATHS, min_size=2, max_size=4), passes=st.integers(1, 3))
def spec_backwards_of_several_threads_share_the_threads_of_devices(world, v, paths, passes):
    """Backwards that are called from several threads at the same time, on graphs of their own, each give their leaves
    their gradients, although one thread of a device runs the parts of all."""
    there = places(world.device)
    leaves = [world.leaf(v) for _ in paths]
    ready = threading.Barrier(len(paths))

    def work(x, path):
        ready.wait()
        for _ in range(passes):
            watched(x, path, there, {}).sum().backward()

    threads = [threading.Thread(target=work, args=pair) for pair in zip(leaves, paths)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()

    for x, path in zip(leaves, paths):
        same(x.grad, torch.full_like(x, passes).detach(), why=f"{passes} backwards along {path}")
