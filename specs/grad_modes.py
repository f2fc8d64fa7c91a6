"""Grad modes: where operations are recorded, and where they are not."""

import threading

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import SHAPES, claim, graphs, raises, same, values
from .kit.choices import some_of

# How to enter a mode, and whether grad mode is on inside it.
MODES = {
    "torch.no_grad()": (lambda: torch.no_grad(), False),
    "torch.enable_grad()": (lambda: torch.enable_grad(), True),
    "torch.set_grad_enabled(False)": (lambda: torch.set_grad_enabled(False), False),
    "torch.set_grad_enabled(True)": (lambda: torch.set_grad_enabled(True), True),
}
ANY_MODE = st.sampled_from(list(MODES))
OFF = st.sampled_from([mode for mode, (_, enabled) in MODES.items() if not enabled])

FACTORIES = {
    "torch.ones": lambda x, flag: torch.ones(x.shape, dtype=x.dtype, device=x.device, requires_grad=flag),
    "torch.zeros": lambda x, flag: torch.zeros(x.shape, dtype=x.dtype, device=x.device, requires_grad=flag),
    "torch.full": lambda x, flag: torch.full(x.shape, 3, dtype=x.dtype, device=x.device, requires_grad=flag),
    "torch.tensor": lambda x, flag: torch.tensor(x.tolist(), dtype=x.dtype, device=x.device, requires_grad=flag),
    "torch.arange": lambda x, flag: torch.arange(3, dtype=x.dtype, device=x.device, requires_grad=flag),
    "torch.eye": lambda x, flag: torch.eye(2, dtype=x.dtype, device=x.device, requires_grad=flag),
    "torch.ones_like": lambda x, flag: torch.ones_like(x, requires_grad=flag),
    "torch.zeros_like": lambda x, flag: torch.zeros_like(x, requires_grad=flag),
    "torch.full_like": lambda x, flag: torch.full_like(x, 3, requires_grad=flag),
    "x.new_ones": lambda x, flag: x.new_ones(x.shape, requires_grad=flag),
    "x.new_tensor": lambda x, flag: x.new_tensor([1, 2], requires_grad=flag),
    "torch.nn.Parameter": lambda x, flag: torch.nn.Parameter(x, requires_grad=flag),
    "requires_grad_": lambda x, flag: (x * 2).requires_grad_(flag),
}

VIEWS = {
    "x[...]": lambda x: x[...],
    "x[0]": lambda x: x[0],
    "x[..., ::2]": lambda x: x[..., ::2],
    "x.view(x.shape)": lambda x: x.view(x.shape),
    "x.unsqueeze(0)": lambda x: x.unsqueeze(0),
    "x.transpose(0, -1)": lambda x: x.transpose(0, -1),
    "x.expand(2, *x.shape)": lambda x: x.expand(2, *x.shape),
    "x.unbind(0)[0]": lambda x: x.unbind(0)[0],
}

OPERATIONS = {
    "x + 1": lambda x: x + 1,
    "1 - x": lambda x: 1 - x,
    "x * 2": lambda x: x * 2,
    "x * x": lambda x: x * x,
    "-x": lambda x: -x,
    "x.abs()": lambda x: x.abs(),
    "x.relu()": lambda x: x.relu(),
    "x.square()": lambda x: x.square(),
    "x.sum()": lambda x: x.sum(),
    "x.clone()": lambda x: x.clone(),
    "torch.stack([x, x])": lambda x: torch.stack([x, x]),
    "torch.where(x > 0, x, -x)": lambda x: torch.where(x > 0, x, -x),
}

RESUMES = {
    "next(g)": lambda g: next(g),
    "g.send(1)": lambda g: g.send(1),
    "g.throw(ArithmeticError())": lambda g: g.throw(ArithmeticError()),
}


@claim(
    cites=[
        "article/no-grad-disables-gradient-computation",
        "article/computed-are-non-leaves",
        "torch_autograd/no-grad-results-do-not-require-grad",
    ]
)
@given(graph=graphs(), off=OFF)
def spec_operations_under_no_grad_are_not_recorded(world, graph, off):
    """With grad mode off nothing is recorded: a result has no grad_fn and is a leaf, and if it is no
    view it doesn't require grad, even when the inputs do."""
    mode, _ = MODES[off]

    with mode():
        tensors = graph.build(world)

    for name in graph.results:
        same(tensors[name].grad_fn, None, why=f"{name} was computed with grad mode off")
        same(tensors[name].is_leaf, True, why=f"{name} was computed with grad mode off")
        if not tensors[name]._is_view():
            same(tensors[name].requires_grad, False, why=f"{name} was computed with grad mode off")


@claim(
    cites=[
        "article/no-grad-disables-gradient-computation",
        "autograd_mechanics/no-grad-as-if-no-input-requires-grad",
    ]
)
@given(graph=graphs(most=4), operations=some_of(OPERATIONS, 4), off=OFF)
def spec_a_graph_does_not_grow_under_no_grad(world, graph, operations, off):
    """With grad mode off, what is computed from tensors made before, be they leaves or results, isn't
    recorded either. Their own graph is whole: backward goes through it as ever."""
    tensors = graph.build(world)
    mode, _ = MODES[off]

    for operation in operations:
        for name, x in tensors.items():
            history = x.grad_fn
            with mode():
                y = OPERATIONS[operation](x)
            same((y.requires_grad, y.is_leaf, y.grad_fn), (False, True, None), why=f"{operation}, and x is {name}")
            same(x.grad_fn is history, True, why=f"{name} was made before")

    tensors[graph.root].backward(world.constant(graph.cotangent))
    expected = graph.gradients(world)
    for name in graph.leaves:
        same(tensors[name].grad, expected[name], why=f"the graph from {graph.root} to {name} was recorded before")


@claim(
    cites=[
        "autograd_mechanics/no-grad-results-usable-later",
        "autograd_mechanics/no-grad-as-if-no-input-requires-grad",
    ]
)
@given(graph=graphs(), off=OFF)
def spec_results_of_no_grad_are_constants_later(world, graph, off):
    """What was computed with grad mode off can be used in recorded operations later, where it is a
    constant: no gradient flows through it to what it was computed from."""
    mode, _ = MODES[off]
    with mode():
        tensors = graph.build(world)
        factors = {name: tensors[name].sum() for name in graph.leaves}

    loss = sum(tensors[name].sum() * factors[name] for name in graph.leaves) + tensors[graph.root].sum()
    loss.backward()

    for name in graph.leaves:
        expected = torch.full_like(tensors[name], factors[name].item())
        same(
            tensors[name].grad,
            expected,
            why=f"only the sum of {name} is recorded; its factor and the rest are constant",
        )


@claim(cites=["autograd_mechanics/requires-grad-overridden-in-other-modes"])
@given(graph=graphs(), modes=st.lists(ANY_MODE, min_size=1, max_size=3))
def spec_tensors_made_before_keep_their_flags_in_every_mode(world, graph, modes):
    """Entering and leaving a mode changes no tensor: its requires_grad, is_leaf and grad_fn stay."""
    tensors = graph.build(world)
    before = {name: (t.requires_grad, t.is_leaf, t.grad_fn) for name, t in tensors.items()}

    for name in graph.leaves:
        same(before[name], (True, True, None), why=f"{name} is a leaf that requires grad")
    for name in modes:
        mode, _ = MODES[name]
        with mode():
            inside = {name: (t.requires_grad, t.is_leaf, t.grad_fn) for name, t in tensors.items()}
        after = {name: (t.requires_grad, t.is_leaf, t.grad_fn) for name, t in tensors.items()}
        same(inside, before, why="the tensors were made before")
        same(after, before, why="the tensors were made before")


@claim(cites=["torch_autograd/no-grad-spares-factories"])
@given(
    v=values(),
    factories=some_of(FACTORIES),
    flag=st.booleans(),
    name=ANY_MODE,
)
def spec_leaves_can_be_made_in_every_mode(world, v, factories, flag, name):
    """A factory function called with requires_grad, nn.Parameter and requires_grad_() do in every mode
    what they are told: with True they make a leaf that backward gives a .grad."""
    x = world.constant(v)
    mode, _ = MODES[name]

    for factory in factories:
        with mode():
            made = FACTORIES[factory](x, flag)
            same(made.requires_grad, flag, why=f"{factory} was told {flag}")

        same(made.requires_grad, flag, why=f"{factory} was told {flag}")
        same((made.is_leaf, made.grad_fn), (True, None), why="no operation was recorded")
        if flag:
            (made * made).sum().backward()
            same(made.grad, 2 * made.detach(), why="it is a leaf like any other")


@claim(observed=True, cites=["torch_autograd/no-grad-results-do-not-require-grad"])
@given(
    v=values(shapes=SHAPES[1:9], layouts=("contiguous",)),  # others are views themselves
    views=some_of(VIEWS, 4),
    computed=st.booleans(),
    off=OFF,
)
def spec_a_view_taken_under_no_grad_requires_grad_but_passes_none_on(world, v, views, computed, off):
    """A view of a tensor that requires grad, taken with grad mode off, says that it requires grad as
    well; but it has no grad_fn, and no gradient flows through it to its base."""
    x = world.leaf(v)
    base = x * 1 if computed else x
    mode, _ = MODES[off]

    for view in views:
        with mode():
            seen = VIEWS[view](base)

        same(seen, VIEWS[view](base.detach()), why="it is a view")
        same(seen.requires_grad, True, why="its base requires grad")
        same(seen.grad_fn, None, why="nothing is recorded with grad mode off")
        (seen * 2).sum().backward()
        same(x.grad, None, why="the view isn't connected to its base")


@claim(
    cites=[
        "torch_autograd/enable-grad-inside-no-grad",
        "torch_autograd/set-grad-enabled-by-its-argument",
        "autograd_mechanics/no-grad-for-a-block-of-code",
        "autograd_mechanics/grad-mode-is-the-default",
    ]
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


@claim(cites=["autograd_mechanics/no-grad-for-a-block-of-code"])
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


@claim(cites=["torch_autograd/set-grad-enabled-as-a-function"])
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


@claim(cites=["torch_autograd/enable-grad-inside-no-grad"])
@given(graph=graphs(), off=OFF, on=st.sampled_from(["torch.enable_grad()", "torch.set_grad_enabled(True)"]))
def spec_a_graph_recorded_inside_no_grad_is_like_any_other(world, graph, off, on):
    """What enable_grad records inside no_grad can be differentiated like anything else."""
    (outer, _), (inner, _) = MODES[off], MODES[on]

    with outer():
        with inner():
            tensors = graph.build(world)
    same(tensors[graph.root].requires_grad, True, why="the innermost mode records")
    tensors[graph.root].backward(world.constant(graph.cotangent))

    expected = graph.gradients(world)
    for name in graph.leaves:
        same(tensors[name].grad, expected[name], why=f"the chain rule gives the gradient by {name}")


@claim(cites=["autograd_mechanics/no-grad-for-a-block-of-code"])
@given(graph=graphs(), names=st.lists(ANY_MODE, min_size=1, max_size=2), by_grad=st.booleans())
def spec_backward_works_in_every_mode(world, graph, names, by_grad):
    """A graph that was recorded before can be differentiated in every mode, by backward and by
    torch.autograd.grad, with the same gradients."""
    tensors = graph.build(world)
    cotangent = world.constant(graph.cotangent)
    leaves = [tensors[name] for name in graph.leaves]
    expected = graph.gradients(world)
    (outer, _), (inner, _) = MODES[names[0]], MODES[names[-1]]

    with outer(), inner():
        if by_grad:
            found = torch.autograd.grad(tensors[graph.root], leaves, cotangent, allow_unused=True)
        else:
            tensors[graph.root].backward(cotangent)
            found = [leaf.grad for leaf in leaves]

    for name, gradient in zip(graph.leaves, found):
        same(gradient, expected[name], why=f"the chain rule gives the gradient by {name}")
        same(gradient is not None and gradient.requires_grad, False, why="no graph of it was asked for")


@claim(observed=True)
@given(v=values(), name=ANY_MODE, by_grad=st.booleans(), create=st.booleans())
def spec_create_graph_decides_alone_whether_a_gradient_is_recorded(world, v, name, by_grad, create):
    """A backward records the gradient's own graph if create_graph=True, whatever the mode."""
    x = world.leaf(v)
    y = (x * x * x).sum()
    mode, _ = MODES[name]

    with mode():
        if by_grad:
            (gradient,) = torch.autograd.grad(y, x, create_graph=create)
        else:
            y.backward(create_graph=create)
            gradient, x.grad = x.grad, None
        enabled = torch.is_grad_enabled()

    same(gradient, 3 * x.detach() * x.detach(), why="the gradient of sum(x*x*x)")
    same(gradient.requires_grad, create, why=f"create_graph was {create}")
    same(enabled, MODES[name][1], why="the backward leaves the mode as it is")
    if create:
        (second,) = torch.autograd.grad(gradient.sum(), x)
        same(second, 6 * x.detach(), why="the gradient's own gradient")


@claim(cites=["torch_autograd/grad-modes-are-decorators"])
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


@claim(cites=["torch_autograd/grad-modes-are-decorators"], since="2.1")
@given(v=values(), off=st.booleans(), outer=st.booleans())
def spec_no_grad_decorates_without_parentheses(world, v, off, outer):
    """The decorators no_grad and enable_grad can be written without parentheses."""
    x = world.leaf(v)

    @(torch.no_grad if off else torch.enable_grad)
    def add(x, *, number):
        return x + number, torch.is_grad_enabled()

    with torch.set_grad_enabled(outer):
        y, enabled = add(x, number=2)
        same(torch.is_grad_enabled(), outer, why="the caller's mode is back")

    same(enabled, not off, why="the function runs in the decorator's mode")
    same(y, x.detach() + 2, why="the result of the function comes back")
    same(y.requires_grad, not off, why="the function runs in the decorator's mode")


@claim(observed=True, since="2.2")
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


@claim(observed=True)
@given(
    v=values(),
    name=ANY_MODE,
    steps=st.lists(st.tuples(st.sampled_from(list(RESUMES)), st.booleans()), max_size=4),
)
def spec_a_mode_decorates_generator_functions(world, v, name, steps):
    """A decorated generator runs in the mode whenever it is resumed, be it by next, send, throw or
    close, and between the yields its consumer has its own mode."""
    x = world.leaf(v)
    mode, enabled = MODES[name]
    seen, received = [], []

    def doubles():
        try:
            while True:
                seen.append(torch.is_grad_enabled())
                try:
                    received.append((yield x * 2))
                except ArithmeticError:
                    seen.append(torch.is_grad_enabled())
        finally:
            seen.append(torch.is_grad_enabled())

    generator = mode()(doubles)()
    for step, outer in [("next(g)", True), *steps]:
        with torch.set_grad_enabled(outer):
            y = RESUMES[step](generator)
            same(torch.is_grad_enabled(), outer, why="the consumer has its own mode")
        same(y, 2 * x.detach(), why="what the generator yields comes through")
        same(y.requires_grad, enabled, why=f"it was computed inside {name}")
    with torch.set_grad_enabled(not enabled):
        generator.close()
        same(torch.is_grad_enabled(), not enabled, why="the consumer has its own mode")

    same(set(seen), {enabled}, why=f"the generator runs inside {name}")
    sent = [1 if step == "g.send(1)" else None for step, _ in steps if "throw" not in step]
    same(received, sent, why="what the consumer sends comes through")


@claim(cites=["torch_autograd/grad-modes-are-thread-local", "autograd_mechanics/grad-mode-is-the-default"])
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


@claim(observed=True)
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


@claim(cites=["torch_autograd/inference-mode-records-nothing"])
@given(v=values(), before=st.booleans(), inner=ANY_MODE, fails=st.booleans())
def spec_inference_mode_records_nothing(world, v, before, inner, fails):
    """In inference_mode grad mode is off, and nothing is recorded, not even inside enable_grad; when the
    block is left, also by an exception, the mode from before is back."""
    x = world.leaf(v)
    mode, _ = MODES[inner]
    torch.set_grad_enabled(before)

    try:
        with torch.inference_mode():
            enabled = torch.is_grad_enabled()
            with mode():
                y = x * 2
            if fails:
                raise ArithmeticError("on purpose")
    except ArithmeticError:
        pass

    same(enabled, False, why="inference mode is on")
    same(y, 2 * x.detach(), why="the mode changes no values")
    same((y.requires_grad, y.grad_fn, y.is_inference()), (False, None, True), why="it was made in inference mode")
    same((torch.is_grad_enabled(), (x * 2).requires_grad), (before, before), why="the block was left")
    same(torch.is_inference_mode_enabled(), False, why="the block was left")


@claim(
    cites=[
        "torch_autograd/inference-mode-takes-a-flag",
        "torch_autograd/inference-mode-records-nothing",
        "torch_autograd/grad-modes-are-decorators",
    ]
)
@given(v=values(), outer=ANY_MODE, flags=st.lists(st.booleans(), min_size=1, max_size=4), decorated=st.booleans())
def spec_inference_mode_false_records(world, v, outer, flags, decorated):
    """As a block or as a decorator, inference_mode(False) turns inference mode off and grad mode on, inside
    inference_mode and inside no_grad, too; inference_mode(True) does the opposite. The innermost decides."""
    x = world.leaf(v)
    mode, enabled = MODES[outer]

    def look(recording, inferring, where):
        y = x * 2
        same((torch.is_grad_enabled(), torch.is_inference_mode_enabled()), (recording, inferring), why=where)
        same((y.requires_grad, y.is_inference()), (recording, inferring), why=where)

    def enter(depth, recording, inferring):
        flag = flags[depth]

        def inside():
            look(not flag, flag, f"inside inference_mode({flag})")
            if depth + 1 < len(flags):
                enter(depth + 1, not flag, flag)

        if decorated:
            torch.inference_mode(flag)(inside)()
        else:
            with torch.inference_mode(flag):
                inside()
        look(recording, inferring, f"inference_mode({flag}) was left")

    with mode():
        enter(0, enabled, False)
