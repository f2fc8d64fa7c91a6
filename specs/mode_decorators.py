"""Decorators: functions, generators and methods that run in a mode of their own."""

import inspect

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import claim, raises, same, values, warns
from .kit.modes import MODES

ANY_MODE = st.sampled_from(list(MODES))

RESUMES = {
    "next(g)": lambda g: next(g),
    "g.send(1)": lambda g: g.send(1),
    "g.throw(ArithmeticError())": lambda g: g.throw(ArithmeticError()),
}

# Decorators as they are written without parentheses: the grad mode and the inference mode inside.
BARE = {
    "@torch.no_grad": (lambda function: torch.no_grad(function), False, False),
    "@torch.enable_grad": (lambda function: torch.enable_grad(function), True, False),
    "@torch.inference_mode": (lambda function: torch.inference_mode(function), False, True),
}


@claim(
    cites=["torch_autograd/grad-modes-are-decorators"],
    formerly=["grad_modes/a_mode_decorates_functions"],
)
@given(
    v=values(),
    names=st.lists(ANY_MODE, min_size=1, max_size=3),
    outer=st.booleans(),
    again=st.integers(0, 2),
    fails=st.booleans(),
)
def spec_a_mode_decorates_functions(world, v, names, outer, again, fails):
    """A mode decorates functions: each call, also of a function that calls itself, runs in the mode, of
    several the innermost; when it returns or raises, the caller's mode is back."""
    x = world.leaf(v)
    seen = []

    def double(x, *, again):
        seen.append(torch.is_grad_enabled())
        y = decorated(x, again=again - 1) if again else x * 2
        seen.append(torch.is_grad_enabled())
        if fails and again == 0:
            raise ArithmeticError("on purpose")
        return y

    decorated = double
    for name in names:
        mode, _ = MODES[name]
        decorated = mode()(decorated)
    _, enabled = MODES[names[0]]

    with torch.set_grad_enabled(outer):
        if fails:
            with raises(ArithmeticError, "on purpose", why="the decorator holds no exception back"):
                decorated(x, again=again)
        else:
            y = decorated(x, again=again)
            same(y, 2 * x.detach(), why="the result of the function comes back")
            same(y.requires_grad, enabled, why=f"it was computed inside {names[0]}")
        same(torch.is_grad_enabled(), outer, why="the caller's mode is back")
        same((x * 2).requires_grad, outer, why="the caller's mode is back")

    same(set(seen), {enabled}, why=f"the function runs inside {names[0]}")


@claim(
    cites=["torch_autograd/grad-modes-are-decorators", "torch_autograd/inference-mode-takes-a-function"],
    since="2.1",
    formerly=["grad_modes/no_grad_decorates_without_parentheses"],
)
@given(v=values(), name=st.sampled_from(list(BARE)), outer=st.booleans(), generator=st.booleans())
def spec_no_grad_decorates_without_parentheses(world, v, name, outer, generator):
    """The decorators no_grad, enable_grad and inference_mode can be written without parentheses, before
    functions and before generator functions."""
    x = world.leaf(v)
    decorate, recording, inferring = BARE[name]

    def add(x, *, number):
        return x + number, torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    def count(x, *, number):
        yield add(x, number=number)

    with torch.set_grad_enabled(outer):
        if generator:
            y, enabled, inference = next(decorate(count)(x, number=2))
        else:
            y, enabled, inference = decorate(add)(x, number=2)
        same(torch.is_grad_enabled(), outer, why="the caller's mode is back")
        same(torch.is_inference_mode_enabled(), False, why="the caller's mode is back")

    same((enabled, inference), (recording, inferring), why=f"it runs inside {name}")
    same(y, x.detach() + 2, why="the result of the function comes back")
    same((y.requires_grad, y.is_inference()), (recording, inferring), why=f"it runs inside {name}")


@claim(cites=["torch_autograd/grad-modes-are-decorators"])
@given(name=st.sampled_from([*MODES, "torch.inference_mode()"]), v=values())
def spec_a_decorated_function_is_known_by_its_own_name(world, name, v):
    """A function that a mode decorates keeps its name, docstring and signature, and takes arguments of every
    kind, also as a method, static method, class method or property."""
    x = world.leaf(v)
    mode = torch.inference_mode if name not in MODES else MODES[name][0]
    recorded = name in MODES and MODES[name][1]

    def times(x, /, factor=2, *, more=0):
        """Multiply x."""
        return x * (factor + more)

    decorated = mode()(times)
    torch.set_grad_enabled(True)  # a decorator switched the mode up to torch 2.1

    class Holder:
        method = decorated
        static = staticmethod(decorated)
        of_class = classmethod(mode()(lambda cls, x: x * 3))
        attribute = property(mode()(lambda self: x * 4))

    torch.set_grad_enabled(True)
    same((decorated.__name__, decorated.__doc__), ("times", "Multiply x."), why="they are those of the function")
    same(inspect.signature(decorated), inspect.signature(times), why="the arguments are those of the function")
    calls = {
        "times(x)": (decorated(x), 2),
        "times(x, 5)": (decorated(x, 5), 5),
        "times(x, more=1)": (decorated(x, more=1), 3),
        "holder.static(x, factor=7, more=1)": (Holder().static(x, factor=7, more=1), 8),
        "Holder.of_class(x)": (Holder.of_class(x), 3),
        "holder.attribute": (Holder().attribute, 4),
    }
    for call, (y, factor) in calls.items():
        same(y, factor * x.detach(), why=call)
        same(y.requires_grad, recorded, why=f"{call} runs inside {name}")
    with raises(TypeError, "unexpected keyword", why="the function has no such argument"):
        decorated(x, other=1)
    same(torch.is_grad_enabled(), True, why="the caller's mode is back")


@claim(
    observed=True,
    since="2.2",
    formerly=["grad_modes/decorating_a_function_leaves_the_mode_alone"],
)
@given(name=ANY_MODE, before=st.booleans())
def spec_decorating_a_function_leaves_the_mode_alone(world, name, before):
    """To decorate a function with a mode doesn't switch the mode of those who don't call it."""
    x = torch.ones(2, device=world.device, requires_grad=True)
    mode, _ = MODES[name]
    torch.set_grad_enabled(before)

    @mode()
    def double(x):
        return x * 2

    same(torch.is_grad_enabled(), before, why="the function wasn't called")
    same((x * 2).requires_grad, before, why="the function wasn't called")


@claim(cites=["torch_autograd/set-grad-enabled-as-a-function"], until="2.2")
@given(flag=st.booleans(), before=st.booleans())
def spec_decorating_with_set_grad_enabled_switches_the_mode(world, flag, before):
    """To decorate a function with set_grad_enabled(flag) switches the mode for good, before the function is
    ever called; a call runs in the mode of the flag and brings that of its caller back."""
    x = torch.ones(2, device=world.device, requires_grad=True)
    torch.set_grad_enabled(before)

    @torch.set_grad_enabled(flag)
    def double(x):
        return x * 2

    same((torch.is_grad_enabled(), (x * 2).requires_grad), (flag, flag), why="the decorator switched the mode")
    torch.set_grad_enabled(before)
    same(double(x).requires_grad, flag, why="the function runs in the decorator's mode")
    same(torch.is_grad_enabled(), before, why="the caller's mode is back")


@claim(observed=True, since="2.0")
@given(name=st.sampled_from([name for name in MODES if "set_grad" not in name]), before=st.booleans())
def spec_decorating_a_class_warns_and_reaches_its_constructor_only(world, name, before):
    """To decorate a class with a mode gives a warning that this is deprecated. What comes is a function that
    makes an object inside the mode; the object's methods run in their caller's."""
    mode, enabled = MODES[name]
    torch.set_grad_enabled(before)

    class Model:
        def __init__(self):
            self.made = torch.is_grad_enabled()

        def call(self):
            return torch.is_grad_enabled()

    with warns(Warning, "Decorating classes is deprecated", why="it was never meant"):
        make = mode()(Model)

    model = make()
    same(inspect.isclass(make), False, why="the class was replaced by a function")
    same((model.made, model.call()), (enabled, before), why="only the constructor was decorated")


@claim(observed=True, formerly=["grad_modes/a_mode_decorates_generator_functions"])
@given(
    v=values(),
    name=st.sampled_from([*MODES, "torch.inference_mode()"]),
    steps=st.lists(st.tuples(st.sampled_from(list(RESUMES)), st.booleans()), max_size=4),
)
def spec_a_mode_decorates_generator_functions(world, v, name, steps):
    """A decorated generator runs in the mode whenever it is resumed, be it by next, send, throw or
    close, and between the yields its consumer has its own mode."""
    x = world.leaf(v)
    mode, enabled = MODES.get(name, (torch.inference_mode, False))
    now = (enabled, name not in MODES)
    seen, received = [], []

    def look():
        seen.append((torch.is_grad_enabled(), torch.is_inference_mode_enabled()))

    def doubles():
        try:
            while True:
                look()
                try:
                    received.append((yield x * 2))
                except ArithmeticError:
                    look()
        finally:
            look()

    generator = mode()(doubles)()
    for step, outer in [("next(g)", True), *steps]:
        with torch.set_grad_enabled(outer):
            y = RESUMES[step](generator)
            same(torch.is_grad_enabled(), outer, why="the consumer has its own mode")
            same(torch.is_inference_mode_enabled(), False, why="the consumer has its own mode")
        same(y, 2 * x.detach(), why="what the generator yields comes through")
        same(y.requires_grad, enabled, why=f"it was computed inside {name}")
    with torch.set_grad_enabled(not enabled):
        generator.close()
        same(torch.is_grad_enabled(), not enabled, why="the consumer has its own mode")

    same(set(seen), {now}, why=f"the generator runs inside {name}")
    sent = [1 if step == "g.send(1)" else None for step, _ in steps if "throw" not in step]
    same(received, sent, why="what the consumer sends comes through")


@claim(observed=True)
@given(name=ANY_MODE, v=values(), fails=st.booleans(), count=st.integers(0, 3))
def spec_what_a_decorated_generator_returns_comes_through(world, name, v, fails, count):
    """What a decorated generator returns or raises comes through to its consumer, whose mode is back."""
    x = world.leaf(v)
    mode, enabled = MODES[name]

    def count_up():
        yield from range(count)
        if fails:
            raise ArithmeticError("on purpose")
        return x * 2

    torch.set_grad_enabled(True)
    decorated = mode()(count_up)
    torch.set_grad_enabled(not enabled)

    def consume(seen):
        seen.append((yield from decorated()))

    seen, numbers = [], []
    if fails:
        with raises(ArithmeticError, "on purpose", why="the decorator holds no exception back"):
            numbers.extend(consume(seen))
    else:
        numbers.extend(consume(seen))
        same(seen, [x.detach() * 2], why="it was returned")
        same(seen[0].requires_grad, enabled, why=f"it was computed inside {name}")
    same(len(seen), 0 if fails else 1, why="it returned or raised")
    same(torch.is_grad_enabled(), not enabled, why="the consumer has its own mode")


@claim(observed=True)
@given(name=st.sampled_from([*MODES, "torch.inference_mode()"]), before=st.booleans())
def spec_a_decorated_coroutine_runs_in_the_mode_of_its_caller(world, name, before):
    """A mode that decorates an async function holds while the coroutine is made, but not while it runs."""
    x = torch.ones(2, device=world.device, requires_grad=True)
    mode = torch.inference_mode if name not in MODES else MODES[name][0]

    async def double():
        return x * 2, torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    decorated = mode()(double)
    torch.set_grad_enabled(before)
    coroutine = decorated()
    try:
        coroutine.send(None)
    except StopIteration as finished:
        y, enabled, inferring = finished.value

    same((enabled, inferring), (before, False), why=f"{name} was over when the coroutine began")
    same((y.requires_grad, y.is_inference()), (before, False), why=f"{name} was over when the coroutine began")
