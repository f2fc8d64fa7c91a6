"""Grad modes: where operations are recorded, and where they are not."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import forward_ad

from .kit import WRITABLE, claim, graphs, raises, same, values
from .kit.choices import some_of
from .kit.modes import MODES, QUIET

ANY_MODE = st.sampled_from(list(MODES))
ANY_QUIET_MODE = st.sampled_from(list(QUIET))
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
    "x.reshape(-1).sort()[0]": lambda x: x.reshape(-1).sort()[0],
    "torch.zeros_like(x).add_(x)": lambda x: torch.zeros_like(x).add_(x),
    "Double.apply(x)": lambda x: Double.apply(x),
}

THE_TENSOR_ITSELF = {
    "x.to(x.dtype)": lambda x: x.to(x.dtype),
    "x.to(x)": lambda x: x.to(x),
    "x.type(x.dtype)": lambda x: x.type(x.dtype),
    "x.clone().contiguous()": lambda x: x.contiguous(),
    "x.real": lambda x: x.real,
    "torch.as_tensor(x)": lambda x: torch.as_tensor(x),
    "x.requires_grad_()": lambda x: x.requires_grad_(),
}

# Writes of x, which requires grad, into k, and the values that they leave where k was zero.
CONSUMES = {
    "k.add_(x)": (lambda k, x: k.add_(x), lambda x: x),
    "k += x": (lambda k, x: k.__iadd__(x), lambda x: x),
    "k.copy_(x)": (lambda k, x: k.copy_(x), lambda x: x),
    "k[...] = x": (lambda k, x: k.__setitem__(..., x), lambda x: x),
    "k.unsqueeze(0).sub_(x)": (lambda k, x: k.unsqueeze(0).sub_(x), lambda x: -x),
    "k.addcmul_(x, x)": (lambda k, x: k.addcmul_(x, x), lambda x: x * x),
    "torch.mul(x, 3, out=k)": (lambda k, x: torch.mul(x, 3, out=k), lambda x: 3 * x),
    "k.masked_fill_(x > 0, x.sum())": (
        lambda k, x: k.masked_fill_(x > 0, x.sum()),
        lambda x: (x > 0).to(x.dtype) * x.sum(),
    ),
}

# Calls that write 2x into out.
WITH_OUT = {
    "torch.mul(x, 2, out=out)": lambda x, out: torch.mul(x, 2, out=out),
    "torch.add(x, x, out=out)": lambda x, out: torch.add(x, x, out=out),
    "torch.sub(x, x, alpha=-1, out=out)": lambda x, out: torch.sub(x, x, alpha=-1, out=out),
    "torch.neg(x * -2, out=out)": lambda x, out: torch.neg(x * -2, out=out),
    "torch.clamp(x * 2, -99, 99, out=out)": lambda x, out: torch.clamp(x * 2, -99, 99, out=out),
    "torch.where(x > 0, x + x, x * 2, out=out)": lambda x, out: torch.where(x > 0, x + x, x * 2, out=out),
}

# Functions of x and their derivatives.
TANGENTS = {
    "x * 2": (lambda x: x * 2, lambda x: torch.full_like(x, 2)),
    "x * x": (lambda x: x * x, lambda x: 2 * x),
    "1 - x": (lambda x: 1 - x, lambda x: torch.full_like(x, -1)),
    "x[...] + x.clone()": (lambda x: x[...] + x.clone(), lambda x: torch.full_like(x, 2)),
    "x.unsqueeze(0)": (lambda x: x.unsqueeze(0), lambda x: torch.ones_like(x).unsqueeze(0)),
    "x.sum()": (lambda x: x.sum(), lambda x: torch.ones_like(x).sum()),
}


class Double(torch.autograd.Function):
    """Twice the input, which is saved."""

    @staticmethod
    def forward(ctx, x):  # noqa: D102
        ctx.save_for_backward(x)
        return x * 2

    @staticmethod
    def backward(ctx, cotangent):  # noqa: D102
        return cotangent * 2


@claim(
    cites=[
        "article/no-grad-disables-gradient-computation",
        "article/computed-are-non-leaves",
        "torch_autograd/no-grad-results-do-not-require-grad",
        "autograd_mechanics/inference-mode-is-not-tracked",
    ]
)
@given(graph=graphs(), quiet=ANY_QUIET_MODE)
def spec_operations_under_no_grad_are_not_recorded(world, graph, quiet):
    """With grad mode off, and in inference mode, nothing is recorded: a result has no grad_fn and is a
    leaf, and if it is no view it doesn't require grad, even when the inputs do."""
    with QUIET[quiet]():
        tensors = graph.build(world)

    for name in graph.results:
        same(tensors[name].grad_fn, None, why=f"{name} was computed inside {quiet}")
        same(tensors[name].is_leaf, True, why=f"{name} was computed inside {quiet}")
        if not tensors[name]._is_view():
            same(tensors[name].requires_grad, False, why=f"{name} was computed inside {quiet}")


@claim(
    cites=[
        "article/no-grad-disables-gradient-computation",
        "autograd_mechanics/no-grad-as-if-no-input-requires-grad",
        "autograd_mechanics/inference-mode-is-not-tracked",
        "inference_mode/nothing-is-recorded",
    ]
)
@given(graph=graphs(most=4), operations=some_of(OPERATIONS, 4), quiet=ANY_QUIET_MODE)
def spec_a_graph_does_not_grow_under_no_grad(world, graph, operations, quiet):
    """With grad mode off, and in inference mode, what is computed from tensors made before, be they leaves
    or results, isn't recorded either. Their own graph is whole: backward goes through it as ever."""
    tensors = graph.build(world)

    for operation in operations:
        for name, x in tensors.items():
            history = x.grad_fn
            with QUIET[quiet]():
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
@given(graph=graphs(), modes=st.lists(st.sampled_from([*MODES, *QUIET]), min_size=1, max_size=3))
def spec_tensors_made_before_keep_their_flags_in_every_mode(world, graph, modes):
    """Entering and leaving a mode changes no tensor: its requires_grad, is_leaf and grad_fn stay."""
    tensors = graph.build(world)
    before = {name: (t.requires_grad, t.is_leaf, t.grad_fn) for name, t in tensors.items()}

    for name in graph.leaves:
        same(before[name], (True, True, None), why=f"{name} is a leaf that requires grad")
    for name in modes:
        with QUIET[name]() if name in QUIET else MODES[name][0]():
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


@claim(
    cites=[
        "autograd_mechanics/no-grad-as-if-no-input-requires-grad",
        "autograd_mechanics/inference-mode-is-not-tracked",
    ]
)
@given(
    v=values(layouts=("contiguous", "transposed")),
    writes=some_of(CONSUMES, 4),
    computed=st.booleans(),
    quiet=ANY_QUIET_MODE,
    part=st.booleans(),
)
def spec_a_constant_written_under_no_grad_stays_a_constant(world, v, writes, computed, quiet, part):
    """With grad mode off and in inference mode a tensor that doesn't require grad can be written from tensors
    that do: it has the new values, and is a constant as before, also in recorded operations later."""
    for write in writes:
        leaf = world.leaf(v)
        x = leaf * 1 if computed else leaf
        whole = torch.zeros((2, *leaf.shape), dtype=leaf.dtype, device=leaf.device)
        k = whole[1] if part else whole[1].clone()
        put, written = CONSUMES[write]

        with QUIET[quiet]():
            put(k, x)

        same(k, written(world.constant(v)), why=f"{write} was run")
        flags = (k.requires_grad, k.is_leaf, k.grad_fn, k.is_inference(), whole.requires_grad)
        same(flags, (False, True, None, False, False), why=f"{write} wasn't recorded")
        same(k._version > 0, True, why="a change in place is counted")
        (leaf * k + x).sum().backward()
        same(leaf.grad, k + 1, why="k is a constant")


@claim(cites=["torch_tensor/conversion-without-change-returns-the-tensor"])
@given(
    v=values(layouts=("contiguous",)),
    operations=some_of(THE_TENSOR_ITSELF, 3),
    computed=st.booleans(),
    quiet=ANY_QUIET_MODE,
)
def spec_a_tensor_that_is_given_back_keeps_its_history_in_every_mode(world, v, operations, computed, quiet):
    """Operations that have nothing to do, such as contiguous() of a contiguous tensor, give back the tensor
    itself, with its history, also with grad mode off and in inference mode."""
    x = world.leaf(v)
    y = x * 2 if computed else x
    history = y.grad_fn

    for operation in operations:
        with QUIET[quiet]():
            z = THE_TENSOR_ITSELF[operation](y)
        same(z is y, True, why=f"there is nothing to do for {operation}")
        same((z.requires_grad, z.is_leaf, z.grad_fn is history), (True, not computed, True), why="it is the tensor")

    (z * 3).sum().backward()
    same(x.grad, torch.full_like(x, 6 if computed else 3), why="it is connected to x")


@claim(cites=["torch/out-is-not-differentiable"])
@given(
    v=values(layouts=WRITABLE),
    operations=some_of(WITH_OUT, 3),
    flags=st.sampled_from([(True, False), (False, True), (True, True), (False, False)]),
    enabled=st.booleans(),
)
def spec_out_is_refused_where_it_would_have_to_be_recorded(world, v, operations, flags, enabled):
    """With grad mode on, a call with out= raises an error if an input or the tensor to be written requires
    grad, and writes nothing. With grad mode off, or if neither requires grad, the tensor is written."""
    for operation in operations:
        x = world.constant(v).requires_grad_(flags[0])
        out = torch.full_like(x, 9).requires_grad_(flags[1])
        old, call = out.detach().clone(), WITH_OUT[operation]
        version = out._version

        with torch.set_grad_enabled(enabled):
            if enabled and any(flags):
                with raises(RuntimeError, "out=... arguments don't support automatic differ", why=f"{operation} of x"):
                    call(x, out)
            else:
                call(x, out)

        refused = enabled and any(flags)
        same(out, old if refused else 2 * x.detach(), why="an error writes nothing")
        same(out._version > version, not refused, why="an error writes nothing")
        same((out.requires_grad, out.is_leaf, out.grad_fn), (flags[1], True, None), why="nothing is recorded")


@claim(cites=["torch_autograd/grad-modes-leave-forward-mode-alone"])
@given(
    v=values(layouts=WRITABLE),
    names=st.lists(ANY_MODE, min_size=1, max_size=3),
    operation=st.sampled_from(list(TANGENTS)),
    requires=st.booleans(),
)
def spec_forward_mode_works_in_every_grad_mode(world, v, names, operation, requires):
    """Grad modes don't touch forward mode AD: in each of them tangents are made, kept and computed."""
    x = world.constant(v).requires_grad_(requires)
    function, derivative = TANGENTS[operation]

    with forward_ad.dual_level():
        outside = forward_ad.make_dual(x, torch.full_like(x, 3))
        for name in names:
            mode, enabled = MODES[name]
            with mode():
                inside = forward_ad.make_dual(x, torch.full_like(x, 3))
                for dual in (outside, inside):
                    value, tangent = forward_ad.unpack_dual(function(dual))
                    same(value, function(x.detach()), why=f"the value of {operation}")
                    same(tangent, 3 * derivative(x.detach()), why=f"three times the derivative of {operation}")
                    same(value.grad_fn is not None, enabled and requires, why="the grad mode decides what is recorded")
