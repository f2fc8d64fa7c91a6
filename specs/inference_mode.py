"""Inference mode: what is made inside it, and what is not recorded."""

import threading

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import forward_ad

from .kit import SHAPES, SMALL_DTYPES, WRITABLE, claim, graphs, raises, same, values
from .kit.choices import some_of
from .kit.modes import MODES

ANY_MODE = st.sampled_from(list(MODES))

# How a mode is entered, and the grad mode and the inference mode in it; None leaves the latter as it is.
SWITCHES = {
    "torch.no_grad()": (lambda: torch.no_grad(), False, None),
    "torch.enable_grad()": (lambda: torch.enable_grad(), True, None),
    "torch.set_grad_enabled(True)": (lambda: torch.set_grad_enabled(True), True, None),
    "torch.inference_mode()": (lambda: torch.inference_mode(), False, True),
    "torch.inference_mode(False)": (lambda: torch.inference_mode(False), True, False),
    "torch.inference_mode(mode=True)": (lambda: torch.inference_mode(mode=True), False, True),
}

# Ways to make a new tensor in the shape of x.
FACTORIES = {
    "torch.ones": lambda x: torch.ones(x.shape, dtype=x.dtype, device=x.device),
    "torch.empty": lambda x: torch.empty(x.shape, dtype=x.dtype, device=x.device),
    "torch.tensor": lambda x: torch.tensor(x.tolist(), dtype=x.dtype, device=x.device),
    "torch.zeros, integers": lambda x: torch.zeros(x.shape, dtype=torch.int64, device=x.device),
    "torch.full_like": lambda x: torch.full_like(x, 3),
    "torch.ones_like, requires_grad=True": lambda x: torch.ones_like(x, requires_grad=True),
    "torch.rand_like": lambda x: torch.rand_like(x),
    "torch.from_numpy": lambda x: torch.from_numpy(torch.zeros(x.shape).numpy()),
    "torch.nn.Parameter": lambda x: torch.nn.Parameter(torch.ones_like(x)),
    "torch.nn.Linear(1, 1).weight": lambda x: torch.nn.Linear(1, 1).weight,
    "x.new_zeros": lambda x: x.new_zeros(x.shape),
    "x.clone()": lambda x: x.clone(),
    "x.repeat": lambda x: x.unsqueeze(0).repeat(*[1] * (x.dim() + 1)),
    "x.to another dtype": lambda x: x.to(torch.complex64),
    "x > 0": lambda x: x > 0,
    "x.detach() + 1": lambda x: x.detach() + 1,
    "torch.stack([x, x])": lambda x: torch.stack([x, x]),
    "x[x > 0]": lambda x: x[x > 0],
    "torch.max": lambda x: torch.sort(x.reshape(-1))[0],
    "torch.argsort": lambda x: torch.sort(x.reshape(-1))[1],
}

VIEWS = {
    "t[...]": lambda t: t[...],
    "t.unsqueeze(0)": lambda t: t.unsqueeze(0),
    "t.view_as(t)": lambda t: t.view_as(t),
    "t.transpose(0, -1)": lambda t: t.unsqueeze(-1).transpose(0, -1),
    "t.detach()": lambda t: t.detach(),
    "t.data": lambda t: t.data,
}

# Writes into t, with the values that they leave where t was old.
WRITES = {
    "t.add_(1)": (lambda t: t.add_(1), lambda old: old + 1),
    "t.mul_(t)": (lambda t: t.mul_(t), lambda old: old * old),
    "t += t": (lambda t: t.__iadd__(t), lambda old: 2 * old),
    "t.neg_()": (lambda t: t.neg_(), lambda old: -old),
    "t.zero_()": (lambda t: t.zero_(), lambda old: 0 * old),
    "t.copy_(t * 3)": (lambda t: t.copy_(t * 3), lambda old: 3 * old),
    "t[...] = 7": (lambda t: t.__setitem__(..., 7), lambda old: 0 * old + 7),
    "t[...].mul_(2)": (lambda t: t[...].mul_(2), lambda old: 2 * old),
    "t.detach().mul_(2)": (lambda t: t.detach().mul_(2), lambda old: 2 * old),
    "t.masked_fill_(t > 0, 5)": (lambda t: t.masked_fill_(t > 0, 5), lambda old: old.masked_fill(old > 0, 5)),
    "torch.mul(t, 2, out=t)": (lambda t: torch.mul(t, 2, out=t), lambda old: 2 * old),
    "torch._foreach_add_([t], 1)": (lambda t: torch._foreach_add_([t], 1), lambda old: old + 1),
    "torch.nn.init.ones_(t)": (lambda t: torch.nn.init.ones_(t), lambda old: 0 * old + 1),
}


@claim(
    cites=["torch_autograd/inference-mode-records-nothing"],
    formerly=["grad_modes/inference_mode_records_nothing"],
)
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
        "inference_mode/modes-nest",
    ],
    formerly=["grad_modes/inference_mode_false_records"],
)
@given(
    v=values(),
    names=st.lists(st.sampled_from(list(SWITCHES)), min_size=1, max_size=5),
    decorated=st.booleans(),
    fails=st.booleans(),
)
def spec_inference_mode_nests_with_grad_modes(world, v, names, decorated, fails):
    """As blocks or decorators, inference_mode and the grad modes nest in any order. inference_mode(False) turns
    inference mode off and grad mode on, inference_mode(True) does the opposite, a grad mode leaves inference
    mode alone; and leaving, also by an exception, brings both back."""
    x = world.leaf(v)

    def look(recording, inferring, where):
        y = x * 2
        same((torch.is_grad_enabled(), torch.is_inference_mode_enabled()), (recording, inferring), why=where)
        same((y.requires_grad, y.is_inference()), (recording and not inferring, inferring), why=where)

    def enter(depth, recording, inferring):
        mode, grad, inference = SWITCHES[names[depth]]
        now = inferring if inference is None else inference

        def inside():
            look(grad, now, f"inside {names[: depth + 1]}")
            if depth + 1 < len(names):
                enter(depth + 1, grad, now)
            if fails:
                raise ArithmeticError("on purpose")

        try:
            if decorated:
                decorate = mode()
                torch.set_grad_enabled(recording)  # set_grad_enabled as a decorator switched it up to torch 2.1
                decorate(inside)()
            else:
                with mode():
                    inside()
        except ArithmeticError:
            pass
        look(recording, inferring, f"{names[depth]} was left")

    enter(0, True, False)


@claim(
    cites=[
        "torch/inference-tensors-are-those-allocated-inside",
        "inference_mode/new-tensors-are-inference-tensors",
        "torch/inference-mode-enabled-tells",
    ],
    needs=["complex64", "random"],
)
@given(
    v=values(dtypes=SMALL_DTYPES),
    factories=some_of(FACTORIES),
    flags=st.lists(st.booleans(), min_size=1, max_size=3),
    off=st.booleans(),
)
def spec_what_is_allocated_inside_is_an_inference_tensor(world, v, factories, flags, off):
    """A tensor that is no view is an inference tensor if and only if it was made, by whatever function,
    while inference mode was on; of nested blocks the innermost counts. It stays what it is."""
    x = world.constant(v)

    def make(depth, inferring):
        same(torch.is_inference_mode_enabled(), inferring, why="of nested blocks the innermost counts")
        made = {factory: (FACTORIES[factory](x), inferring) for factory in factories}
        if depth < len(flags):
            with torch.inference_mode(flags[depth]):
                inside = make(depth + 1, flags[depth])
            made = {**made, **{f"{factory}, {depth}": result for factory, result in inside.items()}}
        return made

    with torch.set_grad_enabled(not off):
        made = make(0, False)

    for factory, (t, inferring) in made.items():
        same((t.is_inference(), torch.is_inference(t)), (inferring, inferring), why=factory)
        same((t.is_leaf, t.grad_fn), (True, None), why="nothing here requires grad")


@claim(cites=["autograd_mechanics/inference-mode-is-not-tracked", "inference_mode/views-are-not-tracked"])
@given(graph=graphs(), inner=ANY_MODE)
def spec_inference_mode_changes_no_values(world, graph, inner):
    """Operations compute in inference mode what they compute outside. Of inference tensors all results are
    inference tensors, views not to be told from others; of these together with normal tensors, too."""
    outside = graph.build(world)
    mode, _ = MODES[inner]

    with torch.inference_mode(), mode():
        inside = graph.build(world)
        mixed = {name: inside[name] - outside[name] * 3 for name in graph.results}

    for name in graph.results:
        same(inside[name], outside[name].detach(), why=f"{name} is the same sum or product")
        same(mixed[name], -2 * outside[name].detach(), why=f"{name} less three times its equal")
        for t in (inside[name], mixed[name]):
            same((t.grad_fn, t.requires_grad, t.is_inference()), (None, False, True), why="nothing is recorded")
            same((t._is_view(), t._base), (False, None), why="views aren't tracked")


@claim(
    cites=["autograd_mechanics/all-is-allowed-inside", "inference_mode/inference-tensors-have-no-version"],
)
@given(
    v=values(layouts=WRITABLE, dtypes=SMALL_DTYPES),
    writes=some_of(WRITES, 5),
    view=st.sampled_from([None, *VIEWS]),
    again=st.booleans(),
    requires=st.booleans(),
)
def spec_inference_tensors_can_be_written_inside(world, v, writes, view, again, requires):
    """Inside inference mode, also when it is entered again, an inference tensor can be written in place,
    directly or through a view, and even if it requires grad; base and view show the new values."""
    for write in writes:
        with torch.inference_mode():
            t = world.constant(v).requires_grad_(requires)
            seen = t if view is None else VIEWS[view](t)
        with torch.inference_mode() if again else torch.no_grad(), torch.inference_mode():
            put, written = WRITES[write]
            put(seen)

        expected = written(world.constant(v))
        same(t, expected, why=f"{write} was run on {view or 'it'}")
        same(seen, expected if view is None else VIEWS[view](expected), why="base and view share memory")
        same((t.is_inference(), t.requires_grad, t.grad_fn), (True, requires, None), why="it is what it was")


@claim(
    cites=[
        "autograd_mechanics/all-is-allowed-inside",
        "autograd_mechanics/changed-saved-tensor-raises",
        "inference_mode/inference-tensors-are-written-without-a-version",
    ]
)
@given(
    v=values(shapes=SHAPES[1:9], layouts=WRITABLE),
    kind=st.sampled_from(["constant", "leaf", "result"]),
    writes=st.lists(st.sampled_from(list(WRITES)), min_size=1, max_size=2),
    part=st.booleans(),
)
def spec_normal_tensors_can_be_written_inside(world, v, kind, writes, part):
    """Inside inference mode a normal tensor can be written in place, also a leaf or a result. Its version is
    counted up, and it stays a normal tensor with its history; a backward that needs what was overwritten
    is refused later, and other backwards are right."""
    x = world.leaf(v)
    t = {"constant": world.constant(v), "leaf": x, "result": x * 1}[kind]
    history, version, old = t.grad_fn, t._version, t.detach().clone()
    needing, other = (x * t).sum(), (t * 3).sum()

    with torch.inference_mode():
        for write in writes:
            WRITES[write][0](t[:1] if part else t)
        counted = t._version

    expected = old.clone()
    for write in writes:
        expected = torch.cat([WRITES[write][1](expected[:1]), expected[1:]]) if part else WRITES[write][1](expected)
    same(t, expected, why=f"{writes} were run")
    same((t._version > version, t._version), (True, counted), why="changes in place are counted")
    same((t.is_inference(), t.grad_fn is history, t.is_leaf), (False, True, kind != "result"), why="it is what it was")
    same(t.requires_grad, kind != "constant", why="it is what it was")
    with raises(RuntimeError, "modified by an inplace operation", why="x * t needs t as it was"):
        needing.backward()
    if kind != "constant":
        other.backward()
        same(x.grad, torch.full_like(x, 3), why="t * 3 doesn't need the values of t")


@claim(cites=["autograd_mechanics/all-is-allowed-inside"])
@given(v=values(), told=st.sampled_from([True, False]), first=st.booleans())
def spec_normal_tensors_can_be_given_flags_and_hooks_inside(world, v, told, first):
    """Inside inference mode normal tensors can be told to require grad or not, and to retain their gradient,
    and be given hooks or another .grad; outside this is as if it had been done there."""
    x, leaf = world.constant(v).requires_grad_(not told), world.leaf(v)
    y = leaf * 2
    if first:
        (leaf * 5).sum().backward()
    seen = []

    with torch.inference_mode():
        same(x.requires_grad_(told) is x, True, why="it works in place")
        y.retain_grad()
        handle = leaf.register_hook(lambda gradient: seen.append(gradient) or gradient * 10)
        leaf.grad = None
    same((x.requires_grad, x.is_leaf, (x * 2).requires_grad), (told, True, told), why=f"x was told {told}")
    (y * 3).sum().backward()
    with torch.inference_mode():
        handle.remove()
    (leaf * 1).sum().backward()

    same(y.grad, torch.full_like(y, 3), why="y retains its gradient")
    same(seen, [torch.full_like(leaf, 6)], why="the hook was called before it was removed")
    same(leaf.grad, torch.full_like(leaf, 61), why="ten times 6, and 1")
    if told:
        (x * x).sum().backward()
        same(x.grad, 2 * x.detach(), why="x is a leaf like any other")


@claim(observed=True, cites=["autograd_mechanics/all-is-allowed-inside", "torch_tensor/detach-in-place-makes-a-leaf"])
@given(v=values(), computed=st.booleans(), inner=ANY_MODE)
def spec_detach_in_place_does_nothing_inside(world, v, computed, inner):
    """Inside inference mode detach_() returns the tensor as it is, without an error: a result keeps its history,
    and a leaf still requires grad."""
    leaf = world.leaf(v)
    x = leaf * 2 if computed else leaf
    history = x.grad_fn
    mode, _ = MODES[inner]

    with torch.inference_mode(), mode():
        same(x.detach_() is x, True, why="it works in place")

    same((x.requires_grad, x.is_leaf, x.grad_fn is history), (True, not computed, True), why="nothing happened")
    (x * 3).sum().backward()
    same(leaf.grad, torch.full_like(leaf, 6 if computed else 3), why="x is still connected to the leaf")


@claim(cites=["torch_autograd/inference-mode-disables-forward-mode"])
@given(v=values(layouts=WRITABLE), inner=st.sampled_from([None, *MODES]), flag=st.booleans(), requires=st.booleans())
def spec_inference_mode_turns_forward_mode_off(world, v, inner, flag, requires):
    """Inside inference mode, whatever grad mode is entered in it, results have no tangent and none can be
    attached or read. Inside inference_mode(False) and behind the block forward mode AD works as ever."""
    x = world.constant(v).requires_grad_(requires)
    mode = torch.enable_grad if inner is None else MODES[inner][0]

    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.full_like(x, 3))
        with torch.inference_mode(), mode():
            inside = dual * 2
            tangents = [forward_ad.unpack_dual(t).tangent for t in (inside, dual, forward_ad.make_dual(x, x))]
            with torch.inference_mode(False):
                again = forward_ad.unpack_dual(dual * 2).tangent
        lost = forward_ad.unpack_dual(inside).tangent
        behind = forward_ad.unpack_dual(dual * 2).tangent

    same(inside, 2 * x.detach(), why="the values are computed")
    same([*tangents, lost], [None] * 4, why="inference mode was on")
    same([again, behind], [torch.full_like(x, 6)] * 2, why="inference mode was off")


@claim(cites=["torch_autograd/inference-mode-is-thread-local"])
@given(v=values(), here=st.booleans(), there=st.booleans())
def spec_inference_mode_is_local_to_a_thread(world, v, here, there):
    """A thread starts with inference mode off, wherever it was started, and inference mode that is entered in
    one thread holds in no other."""
    x = world.leaf(v)
    entered, looked = threading.Event(), threading.Event()
    seen_here, seen_there = [], []

    def look(seen):
        y = x * 2
        seen.append((torch.is_inference_mode_enabled(), y.is_inference(), y.requires_grad))

    def work():
        look(seen_there)
        with torch.inference_mode(there):
            entered.set()
            looked.wait(10)
            look(seen_there)
        look(seen_there)

    thread = threading.Thread(target=work)
    with torch.inference_mode(here):
        thread.start()
        entered.wait(10)
        look(seen_here)
        looked.set()
        thread.join()
        look(seen_here)
    look(seen_here)

    off, inside_here, inside_there = (False, False, True), (here, here, not here), (there, there, not there)
    same(seen_here, [inside_here, inside_here, off], why=f"this thread is inside inference_mode({here})")
    same(seen_there, [off, inside_there, off], why=f"that one is inside inference_mode({there})")


@claim(observed=True, since="2.1")
@given(v=values(), before=st.booleans())
def spec_an_inference_block_entered_inside_itself_never_ends(world, v, before):
    """When an object of inference_mode is entered again before it is left, inference mode is off in the inner
    block, and it stays on in its thread when both blocks are left."""
    x = world.leaf(v)
    seen = []

    def look():
        y = x * 2
        seen.append((torch.is_inference_mode_enabled(), torch.is_grad_enabled(), y.is_inference(), y.requires_grad))

    def work():
        torch.set_grad_enabled(before)
        block = torch.inference_mode()
        with block:
            look()
            with block:
                look()
            look()
        look()

    thread = threading.Thread(target=work)  # whose modes end with it
    thread.start()
    thread.join()

    on, off = (True, False, True, False), (False, before, False, before)
    same(seen, [on, off, on, on], why="the object remembers the latest block only")
    same(torch.is_inference_mode_enabled(), False, why="it was another thread")
