"""Inference tensors: what can be done with them outside of inference mode, and what is refused."""

import copy
import pickle

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import SHAPES, SMALL_DTYPES, WRITABLE, claim, raises, same, values
from .kit.choices import some_of
from .kit.modes import made_inside

ANY_DTYPE = (*SMALL_DTYPES, "complex64")

OPERATIONS = {
    "t + 1": lambda t: t + 1,
    "t * t": lambda t: t * t,
    "-t": lambda t: -t,
    "t.abs()": lambda t: t.abs(),
    "t.relu()": lambda t: t.relu(),
    "t.sum()": lambda t: t.sum(),
    "t.clone()": lambda t: t.clone(),
    "torch.stack([t, t])": lambda t: torch.stack([t, t]),
    "torch.where(t > 0, t, -t)": lambda t: torch.where(t > 0, t, -t),
    "t > 0": lambda t: t > 0,
    "t[t > 0]": lambda t: t[t > 0],
    "t.unsqueeze(0) @ t.unsqueeze(-1)": lambda t: t.reshape(1, -1) @ t.reshape(-1, 1),
    "t.to(torch.complex64)": lambda t: t.to(torch.complex64),
    "t.sort()": lambda t: t.reshape(-1).sort()[0],
    "t + torch.ones_like(t)": lambda t: t + torch.ones_like(t.clone()),
}

# Ways to a tensor of its own with the values of t.
COPIES = {
    "t.clone()": lambda t: t.clone(),
    "t.detach().clone()": lambda t: t.detach().clone(),
    "t.unsqueeze(0).clone().squeeze(0)": lambda t: t.unsqueeze(0).clone().squeeze(0),
    "torch.empty_like(t).copy_(t)": lambda t: torch.empty_like(t, memory_format=torch.contiguous_format).copy_(t),
    "t + 0": lambda t: t + 0,
    "copy.deepcopy(t)": lambda t: copy.deepcopy(t),
    "pickle.loads(pickle.dumps(t))": lambda t: pickle.loads(pickle.dumps(t)),
    "torch.tensor(t.tolist())": lambda t: torch.tensor(t.tolist(), dtype=t.dtype, device=t.device).reshape(t.shape),
    "torch.no_grad()(t.clone)()": lambda t: torch.no_grad()(t.clone)(),
}

VIEWS = {
    "t": lambda t: t,
    "t[...]": lambda t: t[...],
    "t.unsqueeze(0)": lambda t: t.unsqueeze(0),
    "t.view_as(t)": lambda t: t.view_as(t),
    "t.unsqueeze(-1).squeeze(-1)": lambda t: t.unsqueeze(-1).squeeze(-1),
}

# Operations on x, which requires grad, that save t for backward: t's values are needed for the gradient.
SAVING = {
    "x * t": lambda x, t: x * t,
    "t * x": lambda x, t: t * x,
    "(x * 2) * t": lambda x, t: (x * 2) * t,
    "(t + x) * t": lambda x, t: (t + x) * t,
    "x / t": lambda x, t: x / t,
    "t / x": lambda x, t: t / x,
    "torch.maximum(x, t)": lambda x, t: torch.maximum(x, t),
    "torch.where(positive(t), x, -x)": lambda x, t: torch.where(positive(t), x, -x),
    "torch.addcmul(x, x, t)": lambda x, t: torch.addcmul(x, x, t),
    "torch.lerp(x, x, t)": lambda x, t: torch.lerp(x, x, t),
    "torch.nn.functional.mse_loss(x, t)": lambda x, t: torch.nn.functional.mse_loss(x, t),
    "x.reshape(-1).index_select(0, zeros(t))": lambda x, t: x.reshape(-1).index_select(0, zeros(t)),
    "x.reshape(-1)[zeros(t)]": lambda x, t: x.reshape(-1)[zeros(t)],
    "x.masked_fill(positive(t), 0)": lambda x, t: x.masked_fill(positive(t), 0),
    "x.masked_select(positive(t))": lambda x, t: x.masked_select(positive(t)),
    "(x * 1).mul_(t)": lambda x, t: (x * 1).mul_(t),
    "Times.apply(x, t)": lambda x, t: Times.apply(x, t),
}

# Operations on x that don't save t, and the gradient of the sum of the result by x.
SPARING = {
    "x + t": (lambda x, t: x + t, 1),
    "t + x": (lambda x, t: t + x, 1),
    "t - x": (lambda x, t: t - x, -1),
    "x * 3 - t": (lambda x, t: x * 3 - t, 3),
    "torch.stack([t, x, t])": (lambda x, t: torch.stack([t, x, t]), 1),
    "torch.cat([x, t])": (lambda x, t: torch.cat([x.reshape(-1), t.reshape(-1)]), 1),
    "torch.where(x > 9, t, x)": (lambda x, t: torch.where(x > 9, t, x), 1),
    "(x * 2).add_(t)": (lambda x, t: (x * 2).add_(t), 2),
    "(x * 2).copy_(t)": (lambda x, t: (x * 2).copy_(t), 0),
    "torch.lerp(x, t, 3)": (lambda x, t: torch.lerp(x, t, 3), -2),
    "x.expand_as(t)": (lambda x, t: x.expand_as(t), 1),
    "x.type_as(t)": (lambda x, t: x.type_as(t), 1),
    "Times.apply(x, t + 0)": (lambda x, t: Times.apply(x, t + 0), 2),  # the sum is a normal tensor
}

# Writes into t, and the values that they leave where t was old; k has its shape.
WRITES = {
    "t.add_(1)": (lambda t, k: t.add_(1), lambda old, k: old + 1),
    "t.mul_(k)": (lambda t, k: t.mul_(k), lambda old, k: old * k),
    "t += k": (lambda t, k: t.__iadd__(k), lambda old, k: old + k),
    "t.neg_()": (lambda t, k: t.neg_(), lambda old, k: -old),
    "t.zero_()": (lambda t, k: t.zero_(), lambda old, k: 0 * old),
    "t.copy_(k)": (lambda t, k: t.copy_(k), lambda old, k: k),
    "t[...] = 7": (lambda t, k: t.__setitem__(..., 7), lambda old, k: 0 * old + 7),
    "t[...] = k": (lambda t, k: t.__setitem__(..., k), lambda old, k: k),
    "t[t > 0] = 5": (lambda t, k: t.__setitem__(t > 0, 5), lambda old, k: old.masked_fill(old > 0, 5)),
    "t.unsqueeze(0).mul_(2)": (lambda t, k: t.unsqueeze(0).mul_(2), lambda old, k: 2 * old),
    "t.clamp_(-1, 1)": (lambda t, k: t.clamp_(-1, 1), lambda old, k: old.clamp(-1, 1)),
    "torch.mul(t, 2, out=t)": (lambda t, k: torch.mul(t, 2, out=t), lambda old, k: 2 * old),
    "torch.relu_(t)": (lambda t, k: torch.relu_(t), lambda old, k: old.relu()),
    "torch._foreach_add_([t], 1)": (lambda t, k: torch._foreach_add_([t], 1), lambda old, k: old + 1),
    "torch.nn.init.ones_(t)": (lambda t, k: torch.nn.init.ones_(t), lambda old, k: 0 * old + 1),
}

# Ways to make t require grad.
REQUIRING = {
    "t.requires_grad_()": lambda t: t.requires_grad_(),
    "t.requires_grad_(True)": lambda t: t.requires_grad_(True),
    "t.requires_grad = True": lambda t: setattr(t, "requires_grad", True),
    "torch.nn.Parameter(t)": lambda t: torch.nn.Parameter(t),
    "t.detach().requires_grad_()": lambda t: t.detach().requires_grad_(),
    "t[...].requires_grad_()": lambda t: t[...].requires_grad_(),
}


class Times(torch.autograd.Function):
    """The product of x and k, which is saved."""

    @staticmethod
    def forward(ctx, x, k):  # noqa: D102
        ctx.save_for_backward(k)
        return x * k

    @staticmethod
    def backward(ctx, cotangent):  # noqa: D102
        (k,) = ctx.saved_tensors
        return cotangent * k, None


@torch.inference_mode()
def positive(t):
    """Whether elements are positive, as an inference tensor."""
    return t > 0


@torch.inference_mode()
def zeros(t):
    """An index of two zeros, as an inference tensor."""
    return torch.zeros(2, dtype=torch.int64, device=t.device)


@claim(
    cites=[
        "torch/inference-tensors-are-those-allocated-inside",
        "autograd_mechanics/inference-tensors-usable-if-not-recorded",
    ],
    needs=["complex64"],
)
@given(v=values(), operations=some_of(OPERATIONS, 5), enabled=st.booleans())
def spec_operations_on_inference_tensors_make_normal_ones_outside(world, v, operations, enabled):
    """Outside of inference mode inference tensors can be read and computed with: where nothing requires grad,
    operations that make no views give normal tensors of the right values."""
    x = world.constant(v)
    t = made_inside(x)

    for operation in operations:
        with torch.set_grad_enabled(enabled):
            y = OPERATIONS[operation](t)
        same(y, OPERATIONS[operation](x), why=f"{operation} of the same values")
        same((y.is_inference(), y.requires_grad, y.grad_fn), (False, False, None), why="it was made outside")
        same(y._version >= 0, True, why="a normal tensor has a version")
    same(t, x, why="it was only read")
    same([t.tolist(), t.numel(), len(t.shape)], [x.tolist(), x.numel(), len(x.shape)], why="it was only read")


@claim(cites=["inference_mode/a-clone-is-a-normal-tensor", "autograd_mechanics/changed-saved-tensor-raises"])
@given(v=values(layouts=WRITABLE), copies=some_of(COPIES, 3), view=st.sampled_from(list(VIEWS)))
def spec_a_copy_of_an_inference_tensor_is_a_normal_tensor(world, v, copies, view):
    """A clone or another copy that is made outside of an inference tensor or a view of one is a normal tensor
    with memory of its own: it can be written, saved for backward and made to require grad."""
    x = world.constant(v)
    t = made_inside(x)
    source = VIEWS[view](t)

    for name in copies:
        y = COPIES[name](source)
        same([y, y.is_inference(), y.requires_grad], [VIEWS[view](x), False, False], why=f"{name} of {view}")
        w = torch.full_like(y, 2).requires_grad_()
        product = (w * y).sum()
        version = y._version
        product.backward(retain_graph=True)
        same(w.grad, VIEWS[view](x), why="the copy was saved")
        y.mul_(3)
        same([y, y._version > version], [VIEWS[view](x) * 3, True], why="the copy can be written")
        with raises(RuntimeError, "modified by an inplace operation", why="the copy was saved"):
            product.backward()
        y.requires_grad_()
        (y * y).sum().backward()
        same(y.grad, VIEWS[view](x) * 6, why="the gradient of sum(y*y) at y = 3x")
        same((t, t.is_inference(), t.requires_grad), (x, True, False), why="the copy has memory of its own")


@claim(
    cites=["torch_autograd/inference-tensors-do-not-track-versions", "inference_mode/inference-tensors-have-no-version"]
)
@given(
    v=values(layouts=WRITABLE, dtypes=ANY_DTYPE),
    view=st.sampled_from(list(VIEWS)),
    taken=st.booleans(),
    read=st.booleans(),
    requires=st.booleans(),
)
def spec_an_inference_tensor_has_no_version(world, v, view, taken, read, requires):
    """To read the version of an inference tensor or of a view of one, inside or outside of inference mode, is
    an error that says that inference tensors have none."""
    with torch.inference_mode():
        t = world.constant(v).requires_grad_(requires)
    with torch.inference_mode(taken):
        seen = VIEWS[view](t)

    with torch.inference_mode(read):
        with raises(
            RuntimeError, "Inference tensors do not track version counter", why=f"{view} is an inference tensor"
        ):
            print(seen._version)
    same(seen, VIEWS[view](world.constant(v)), why="nothing else was asked")


@claim(
    cites=[
        "torch_autograd/inference-tensors-are-not-for-recorded-computations",
        "autograd_mechanics/inference-tensors-are-not-for-recorded-computations",
        "inference_mode/inference-tensors-have-no-version",
    ]
)
@given(
    v=values(shapes=SHAPES[:9], layouts=WRITABLE),
    operations=some_of(SAVING, 4),
    view=st.sampled_from(list(VIEWS)),
    computed=st.booleans(),
)
def spec_an_inference_tensor_is_not_saved_for_backward(world, v, operations, view, computed):
    """A recorded operation that has to save an inference tensor, or a view of one, for backward raises an
    error that says so. No tensor is changed, and the inputs can be used in other operations as before."""
    leaf = world.leaf(v)
    x = leaf * 1 if computed else leaf
    t = VIEWS[view](made_inside(torch.full_like(leaf, 2)))
    history, two = x.grad_fn, VIEWS[view](torch.full_like(leaf.detach(), 2))

    for operation in operations:
        with raises(RuntimeError, "Inference tensors cannot be saved for backward", why=f"{operation} saves t"):
            SAVING[operation](VIEWS[view](x), t)
        same([x, t], [world.constant(v), two], why="an error changes nothing")
        same((x._version, x.grad_fn is history, leaf.grad), (0, True, None), why="an error changes nothing")
        same((t.is_inference(), t.requires_grad), (True, False), why="an error changes nothing")

    (x * 3).sum().backward()
    same(leaf.grad, torch.full_like(leaf, 3), why="x is as good as before")


@claim(
    cites=[
        "torch_autograd/inference-tensors-are-not-for-recorded-computations",
        "autograd_mechanics/inference-tensors-are-not-for-recorded-computations",
    ]
)
@given(v=values(shapes=SHAPES[:9]), operations=some_of(SPARING, 4), computed=st.booleans(), passes=st.integers(1, 2))
def spec_an_inference_tensor_that_is_not_saved_is_a_constant(world, v, operations, computed, passes):
    """An inference tensor can be an operand of recorded operations that don't save it: it is a constant
    there, the result is a normal tensor, and the gradients are right."""
    for operation in operations:
        leaf = world.leaf(v)
        x = leaf * 1 if computed else leaf
        t = made_inside(torch.full_like(leaf, 2))
        function, factor = SPARING[operation]

        y = function(x, t)

        same(y, function(x.detach(), torch.full_like(leaf, 2)).detach(), why=f"{operation} of the same values")
        same((y.is_inference(), y.requires_grad), (False, True), why=f"{operation} is recorded")
        for _ in range(passes):
            y.sum().backward(retain_graph=True)
        same(leaf.grad, torch.full_like(leaf, passes * factor), why=f"{passes} backwards of the sum of {operation}")
        same(t.is_inference(), True, why="it is what it was")


@claim(cites=["autograd_mechanics/inference-tensors-usable-if-not-recorded"])
@given(v=values(shapes=SHAPES[:9]), operations=some_of({**SAVING, **SPARING}, 5), requires=st.booleans())
def spec_where_nothing_is_recorded_inference_tensors_are_saved_nowhere(world, v, operations, requires):
    """With grad mode off, and where no operand requires grad, any operation takes inference tensors together
    with normal ones."""
    x = world.constant(v).requires_grad_(requires)
    two = torch.full_like(x, 2)
    t = made_inside(two)

    for operation in operations:
        function = SAVING[operation] if operation in SAVING else SPARING[operation][0]
        with torch.set_grad_enabled(not requires):
            y = function(x, t)
        same(y.is_inference(), False, why="it was made outside")
        expected = torch.nan_to_num(function(x.detach(), two))  # some divide by zero
        same(torch.nan_to_num(y), expected, why=f"{operation} of the same values")


@claim(cites=["inference_mode/inference-tensors-are-immutable-outside"])
@given(
    v=values(layouts=WRITABLE, dtypes=("float64", "float32", "bfloat16")),
    writes=some_of(WRITES, 5),
    view=st.sampled_from(list(VIEWS)),
    enabled=st.booleans(),
    operand=st.sampled_from(["normal", "requires grad", "inference"]),
)
def spec_to_write_an_inference_tensor_outside_is_an_error(world, v, writes, view, enabled, operand):
    """To write an inference tensor, or a view of one, in place outside of inference mode is an error that
    tells to make a clone, in every grad mode. The tensor stays an inference tensor without a history."""
    t = made_inside(world.constant(v))
    k = torch.full_like(t, 2) if operand != "inference" else made_inside(torch.full_like(t, 2))
    k = VIEWS[view](k.requires_grad_(operand == "requires grad"))
    seen = VIEWS[view](t)

    for write in writes:
        with torch.set_grad_enabled(enabled):
            with raises(
                RuntimeError, "Inplace update to inference tensor outside InferenceMode", why=f"{write}, {view}"
            ):
                WRITES[write][0](seen, k)
        for tensor in (t, seen):
            flags = (tensor.is_inference(), tensor.requires_grad, tensor.is_leaf, tensor.grad_fn)
            same(flags, (True, False, True, None), why="it is what it was")


@claim(observed=True, cites=["inference_mode/inference-tensors-are-immutable-outside"])
@given(
    v=values(layouts=WRITABLE),
    write=st.sampled_from(list(WRITES)),
    view=st.sampled_from(list(VIEWS)),
    enabled=st.booleans(),
)
def spec_a_refused_write_to_an_inference_tensor_is_done_all_the_same(world, v, write, view, enabled):
    """The error with which a write to an inference tensor is refused outside of inference mode comes too late:
    the tensor has the new values."""
    t = made_inside(world.constant(v))
    put, written = WRITES[write]
    seen, k = VIEWS[view](t), torch.full_like(t, 2)

    with torch.set_grad_enabled(enabled):
        with raises(RuntimeError, "Inplace update to inference tensor outside InferenceMode", why=f"{write}, {view}"):
            put(seen, VIEWS[view](k))

    same(t, written(world.constant(v), k), why=f"{write} was run in spite of the error")


@claim(
    observed=True,
    cites=[
        "inference_mode/inference-tensors-are-immutable-outside",
        "inference_mode/inference-tensors-have-no-version",
    ],
)
@given(
    v=values(layouts=WRITABLE),
    write=st.sampled_from([write for write in WRITES if "[" not in write and "unsqueeze" not in write]),
    data=st.booleans(),
    enabled=st.booleans(),
)
def spec_inference_tensors_can_be_written_through_detach_and_data(world, v, write, data, enabled):
    """What detach() and .data of an inference tensor give outside of inference mode is an inference tensor
    as well; but it has a version, and the memory of both can be written through it, without an error. A view
    of it is an inference tensor like others."""
    t = made_inside(world.constant(v))
    put, written = WRITES[write]
    way = t.data if data else t.detach()
    k = torch.full_like(t, 2)
    same((way.is_inference(), way._version), (True, 0), why="it has a version")

    with torch.set_grad_enabled(enabled):
        with raises(RuntimeError, "Inplace update to inference tensor outside", why="a view of it has no version"):
            way.unsqueeze(0).mul_(1)
        put(way, k)

    same(t, written(world.constant(v), k), why=f"{write} was run")
    same((t.is_inference(), t.requires_grad, t.grad_fn), (True, False, None), why="it is what it was")


@claim(observed=True)
@given(
    v=values(layouts=("contiguous", "transposed")), way=st.sampled_from(["copy.copy", "numpy"]), requires=st.booleans()
)
def spec_shallow_copies_of_an_inference_tensor_are_normal_tensors(world, v, way, requires):
    """copy.copy(t) of an inference tensor t, and what comes back from NumPy, are normal tensors in the memory
    of t: they can be written, which t shows, and saved for backward."""
    with torch.inference_mode():
        t = made_inside(world.constant(v)).cpu()
    shared = copy.copy(t) if way == "copy.copy" else torch.from_numpy(t.numpy())
    same([shared, shared.is_inference()], [t, False], why=f"{way} of an inference tensor")

    shared.mul_(2)
    w = torch.ones_like(shared).requires_grad_()
    (w * shared).sum().backward()

    same(t, (world.constant(v) * 2).cpu(), why="both have the same memory")
    same(w.grad, t.clone(), why="the normal one was saved")
    same((t.is_inference(), shared.is_inference()), (True, False), why="they are what they were")


@claim(cites=["inference_mode/inference-tensors-do-not-start-to-require-grad"])
@given(v=values(dtypes=ANY_DTYPE), ways=some_of(REQUIRING, 3), enabled=st.booleans())
def spec_an_inference_tensor_is_not_made_to_require_grad_outside(world, v, ways, enabled):
    """To make an inference tensor require grad outside of inference mode, also by wrapping it as a Parameter,
    is an error that changes nothing. Told not to, it stays as it is; and inside it can be made to."""
    t = made_inside(world.constant(v))

    for way in ways:
        with torch.set_grad_enabled(enabled):
            with raises(RuntimeError, "Setting requires_grad=True on inference tensor outside", why=way):
                REQUIRING[way](t)
        same((t.requires_grad, t.is_inference(), t.is_leaf), (False, True, True), why="an error changes nothing")

    same(t.requires_grad_(False) is t, True, why="there is nothing to do")
    same(torch.nn.Parameter(t, requires_grad=False).is_inference(), True, why="a frozen parameter can be made")
    with torch.inference_mode():
        t.requires_grad_()
    same((t.requires_grad, t.grad_fn, t), (True, None, world.constant(v)), why="inside it is allowed")
    t.requires_grad_(False)
    with raises(RuntimeError, "Setting requires_grad=True on inference tensor outside", why="it is one"):
        t.requires_grad_()


@claim(observed=True, cites=["autograd_mechanics/inference-tensors-are-not-for-recorded-computations"])
@given(v=values(shapes=SHAPES[:9], layouts=WRITABLE), operations=some_of(SAVING, 3), cpu=st.booleans())
def spec_hooks_for_saved_tensors_do_not_save_inference_tensors(world, v, operations, cpu):
    """Also where hooks for saved tensors would pack a clone, or save_on_cpu a copy, an operation that has to
    save an inference tensor raises an error."""
    x = world.leaf(v)
    t = made_inside(torch.full_like(x, 2))
    hooks = (
        torch.autograd.graph.save_on_cpu()
        if cpu
        else torch.autograd.graph.saved_tensors_hooks(torch.clone, torch.clone)
    )

    with hooks:
        for operation in operations:
            with raises(RuntimeError, "Inference tensors cannot be saved for backward", why=f"{operation} saves t"):
                SAVING[operation](x, t)
    same((x.grad, x._version, t.is_inference()), (None, 0, True), why="an error changes nothing")
