"""What can't be written in place, and what is left as it was by the attempt."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import SHAPES, WRITABLE, claim, raises, same, values
from .kit.choices import some_of
from .kit.writes import FURTHER_WRITES, UNRECORDED, WRITES, error_of, facts, target_and_operand

ANY_WAY = st.sampled_from(list(UNRECORDED))


# What the errors say: about a leaf or a view of it, and about a view that is one of several.
REFUSED = ("a leaf Variable that requires grad is being used in an in-place operation", "modified inplace")


@claim(
    cites=[
        "article/no-grad-disables-gradient-computation",
        "autograd_mechanics/grad-mode-is-the-default",
        "introyt/writing-a-leaf-that-requires-grad-is-stopped",
    ],
    formerly=["parameters/a_leaf_that_requires_grad_takes_no_change_in_grad_mode"],
)
@given(
    pair=target_and_operand(("float64", "float32", "bfloat16")),
    writes=some_of([*WRITES, *FURTHER_WRITES]),
    parameter=st.booleans(),
    used=st.booleans(),
    earlier=st.one_of(st.none(), ANY_WAY),
    nested=st.booleans(),
)
def spec_a_leaf_that_requires_grad_takes_no_write_in_grad_mode(world, pair, writes, parameter, used, earlier, nested):
    """In grad mode, also where no_grad was left, to write a leaf that requires grad in place is an error; it
    changes nothing, and what was computed from the leaf before can still be differentiated."""
    target, operand = pair
    w = world.constant(operand)
    p = torch.nn.Parameter(world.constant(target)) if parameter else world.leaf(target)
    if used:
        (p * 2).sum().backward()
    if earlier:
        UNRECORDED[earlier](lambda: p.add_(1))
    old, gradient, version, strides = p.detach().clone(), p.grad, p._version, p.stride()
    y = (p * p).sum()

    for name in writes:
        write = WRITES[name].run if name in WRITES else lambda y, w: FURTHER_WRITES[name](y)
        with torch.set_grad_enabled(not nested), torch.enable_grad():
            with raises(RuntimeError, *REFUSED, why=f"grad mode is on where {name} is run on a leaf"):
                write(p, w)
        same((p, p.stride()), (old, strides), why=f"{name} was refused")

    same((p.is_leaf, p.requires_grad, p.grad_fn), (True, True, None), why="the change was refused")
    same(p._version, version, why="the change was refused")
    same(p.grad is gradient, True, why="the change was refused")
    y.backward()
    same(p.grad, 2 * old + (2 if used else 0), why="y was computed before")


VIEWS = {
    "p[...]": lambda p: p[...],
    "p[0]": lambda p: p[0],
    "p[-1:]": lambda p: p[-1:],
    "p[..., ::2]": lambda p: p[..., ::2],
    "p.unsqueeze(0)": lambda p: p.unsqueeze(0),
    "p.transpose(0, -1)": lambda p: p.transpose(0, -1),
    "p.narrow(0, 0, 1)": lambda p: p.narrow(0, 0, 1),
    "p.unbind(0)[-1]": lambda p: p.unbind(0)[-1],
    "p.split(1)[0]": lambda p: p.split(1)[0],
    "p.diagonal(0, 0, -1)": lambda p: p.diagonal(0, 0, -1) if p.dim() > 1 else p[:1],
    "p[0].unsqueeze(0)": lambda p: p[0].unsqueeze(0),
    "p.transpose(0, -1)[-1:]": lambda p: p.transpose(0, -1)[-1:],
}


@claim(
    cites=["article/no-grad-disables-gradient-computation", "autograd_mechanics/grad-mode-is-the-default"],
    formerly=["parameters/a_view_of_such_a_leaf_takes_no_change_in_grad_mode"],
)
@given(
    v=values(shapes=SHAPES[1:9], layouts=WRITABLE),
    views=some_of(VIEWS),
    writes=some_of([*WRITES, *FURTHER_WRITES], 8),
    earlier=st.booleans(),
)
def spec_a_view_of_such_a_leaf_takes_no_write_in_grad_mode(world, v, views, writes, earlier):
    """In grad mode, to write a leaf that requires grad through one of its views is the same error, and
    changes nothing either."""
    p = world.leaf(v)
    if earlier:
        torch.no_grad()(lambda: p[-1:].add_(1))()
    old, version, w = p.detach().clone(), p._version, torch.ones((), dtype=p.dtype, device=p.device)

    for number, name in enumerate(writes):
        view = views[number % len(views)]
        write = WRITES[name].run if name in WRITES else lambda y, w: FURTHER_WRITES[name](y)
        part = VIEWS[view](p)
        with raises(RuntimeError, *REFUSED, why=f"{view} shows a leaf that requires grad, and {name} is run on it"):
            write(part, w)
        same(part, VIEWS[view](old), why="the change was refused")

    same(p, old, why="the change was refused")
    same((p.is_leaf, p.requires_grad, p.grad_fn), (True, True, None), why="the change was refused")
    same(p._version, version, why="the change was refused")
    (p * p).sum().backward()
    same(p.grad, 2 * old, why="p is as it was")


# Random numbers that are no longer random: the range, or the deviation, is zero.
RANDOM_FILLERS = {
    "p.normal_(2, 0)": lambda p: p.normal_(2, 0),
    "p.uniform_(2, 2)": lambda p: p.uniform_(2, 2),
    "p.random_(2, 3)": lambda p: p.random_(2, 3),
    "p.bernoulli_(1.0).add_(1)": lambda p: p.bernoulli_(1.0).add_(1),
}


@claim(
    cites=["article/no-grad-disables-gradient-computation", "autograd_mechanics/no-grad-for-in-place-updates"],
    needs=["random"],
    formerly=["parameters/random_numbers_are_no_exception"],
)
@given(v=values(layouts=WRITABLE), filler=st.sampled_from(list(RANDOM_FILLERS)), way=ANY_WAY, parameter=st.booleans())
def spec_random_numbers_are_no_exception(world, v, filler, way, parameter):
    """To fill a leaf that requires grad with random numbers is the same error in grad mode; under no_grad
    it is allowed, and the leaf is still a leaf that requires grad. A result can be filled: no gradient flows to
    what it was before."""
    p = torch.nn.Parameter(world.constant(v)) if parameter else world.leaf(v)
    old, write = p.detach().clone(), RANDOM_FILLERS[filler]
    y = p * 3

    with raises(RuntimeError, *REFUSED, why=f"grad mode is on where {filler} is run on a leaf"):
        write(p)
    same(p, old, why="the change was refused")
    refused = error_of(lambda: UNRECORDED[way](lambda: write(p)))
    same(refused, None, why=f"under no_grad {filler} is allowed")
    write(y)

    same(p, torch.full_like(old, 2), why=f"{filler} was run")
    same((p.is_leaf, p.requires_grad, p.grad_fn), (True, True, None), why=f"{filler} wasn't recorded")
    same(y, torch.full_like(old, 2), why=f"{filler} was run on y, too")
    y.sum().backward()
    same(p.grad, torch.zeros_like(old), why="y was filled and depends on p no more")


def made(world, v, kind):
    """A tensor of these numbers that can be written, and the leaf that it was made from."""
    x = world.leaf(v)
    return (x * 1 if kind == "result" else world.constant(v)), x


# Writes of y with w, for any shapes.
BINARY = {
    "y.add_(w)": lambda y, w: y.add_(w),
    "y.sub_(w, alpha=2)": lambda y, w: y.sub_(w, alpha=2),
    "y.mul_(w)": lambda y, w: y.mul_(w),
    "y.div_(w)": lambda y, w: y.div_(w),
    "y.pow_(w)": lambda y, w: y.pow_(w),
    "y.copy_(w)": lambda y, w: y.copy_(w),
    "y.lerp_(w, 0.5)": lambda y, w: y.lerp_(w, 0.5),
    "y.addcmul_(w, w)": lambda y, w: y.addcmul_(w, w),
    "y.addcdiv_(w, w)": lambda y, w: y.addcdiv_(w, w),
    "y.hypot_(w)": lambda y, w: y.hypot_(w),
    "y.atan2_(w)": lambda y, w: y.atan2_(w),
    "y.clamp_(w)": lambda y, w: y.clamp_(w),
    "y.eq_(w)": lambda y, w: y.eq_(w),
    "y.masked_fill_(w > 0, 1)": lambda y, w: y.masked_fill_(w > 0, 1),
    "y[...] = w": lambda y, w: y.__setitem__(..., w),
    "y += w": lambda y, w: y.__iadd__(w),
    "y *= w": lambda y, w: y.__imul__(w),
}
# In y[...] = w the shape of w is expanded to that of y, which gives other messages.
OTHER_SHAPE = ("doesn't match the broadcast shape", "must match the existing size", "number of sizes provided")


def grown(shape, inside):
    """A shape that broadcasts together with `shape` to a larger one: longer, or with 3 in the place of a 1."""
    if not inside or 1 not in shape:
        return (2, *shape)
    place = shape.index(1)
    return (*shape[:place], 3, *shape[place + 1 :])


@claim(cites=["broadcasting/writes-do-not-change-the-shape"])
@given(
    v=values(layouts=WRITABLE),
    writes=some_of(BINARY, 4),
    kind=st.sampled_from(["constant", "result"]),
    inside=st.booleans(),
    tracked=st.booleans(),
)
def spec_a_write_does_not_take_a_larger_shape(world, v, writes, kind, inside, tracked):
    """A write in place with a tensor that broadcasts together with the written one to another shape is an error.
    It leaves everything as it was, and what was to be written can be used and differentiated."""
    y, x = made(world, v, kind)
    w = torch.ones(grown(y.shape, inside), dtype=y.dtype, device=y.device, requires_grad=tracked)
    old, before = y.detach().clone(), facts(y)

    for name in writes:
        with raises(RuntimeError, *OTHER_SHAPE, why=f"{name} would need the shape {tuple(w.shape)}"):
            BINARY[name](y, w)
        same((y, facts(y)), (old, before), why=f"{name} failed")

    if kind == "result":
        (y * 2).sum().backward()
        same(x.grad, torch.full_like(old, 2), why="nothing happened to y")
        same(w.grad, None, why="nothing was made of w")


# Arithmetic in place, and some that makes floats of other numbers.
ARITHMETIC = {
    "y.add_(w)": lambda y, w: y.add_(w),
    "y.mul_(w)": lambda y, w: y.mul_(w),
    "y.addcmul_(w, w)": lambda y, w: y.addcmul_(w, w),
    "y.div_(w)": lambda y, w: y.div_(w),
    "y += w": lambda y, w: y.__iadd__(w),
    "y *= w": lambda y, w: y.__imul__(w),
    "y /= w": lambda y, w: y.__itruediv__(w),
}
MAKING_FLOATS = {
    "y.add_(0.5)": lambda y: y.add_(0.5),
    "y *= 0.5": lambda y: y.__imul__(0.5),
    "y.div_(2)": lambda y: y.div_(2),
    "y /= 2": lambda y: y.__itruediv__(2),
    "y.exp_()": lambda y: y.exp_(),
    "y.sqrt_()": lambda y: y.sqrt_(),
    "y.sigmoid_()": lambda y: y.sigmoid_(),
}
HIGHER = (  # a dtype, and one of a higher kind
    (torch.int64, torch.float32),
    (torch.int64, torch.float64),
    (torch.int32, torch.bfloat16),
    (torch.uint8, torch.complex64),
    (torch.bool, torch.int64),
    (torch.bool, torch.float32),
    (torch.float32, torch.complex64),
    (torch.float64, torch.complex128),
)


@claim(
    cites=["tensor_attributes/results-fit-the-dtype-that-is-written"],
    needs=["float64", "bfloat16", "complex64", "complex128"],
)
@given(
    v=values(layouts=WRITABLE),
    writes=some_of(ARITHMETIC, 4),
    number=st.sampled_from(list(MAKING_FLOATS)),
    dtypes=st.sampled_from(HIGHER),
    tracked=st.booleans(),
)
def spec_arithmetic_in_place_does_not_change_the_dtype(world, v, writes, number, dtypes, tracked):
    """Arithmetic in place that would make numbers of a higher kind than those of the written tensor (complex
    numbers of floats, floats of integers, integers of booleans) is an error that changes nothing."""
    kept, higher = dtypes
    y = world.constant(v).to(kept)
    w = world.constant(v).to(higher)
    if tracked and higher != torch.int64:
        w.requires_grad_()
    old, before = y.clone(), facts(y)

    for name in writes:
        with raises(RuntimeError, "can't be cast to the desired output type", why=f"{name} makes {higher} of {kept}"):
            ARITHMETIC[name](y, w)
        same((y, facts(y)), (old, before), why=f"{name} failed")
    if not kept.is_floating_point:
        with raises(RuntimeError, "can't be cast to the desired output type", why=f"{number} makes floats of {kept}"):
            MAKING_FLOATS[number](y)
        same((y, facts(y)), (old, before), why=f"{number} failed")


# Writes to a tensor of which several elements lie in one place.
TO_EXPANDED = {
    "y.add_(1)": lambda y: y.add_(1),
    "y.mul_(2)": lambda y: y.mul_(2),
    "y.neg_()": lambda y: y.neg_(),
    "y.relu_()": lambda y: y.relu_(),
    "y.exp_()": lambda y: y.exp_(),
    "y.pow_(2)": lambda y: y.pow_(2),
    "y.clamp_(0, 1)": lambda y: y.clamp_(0, 1),
    "y.copy_(torch.ones_like(y))": lambda y: y.copy_(torch.ones_like(y)),
    "y.addcmul_(ones(y), ones(y))": lambda y: y.addcmul_(ones(y), ones(y)),
    "y.lerp_(ones(y), 0.5)": lambda y: y.lerp_(ones(y), 0.5),
    "y.normal_()": lambda y: y.normal_(),
    "y.cumsum_(0)": lambda y: y.cumsum_(0),
    "y.masked_scatter_(y > 0, ones(y))": lambda y: y.masked_scatter_(y > 0, ones(y)),
    "y.scatter_(0, ones(y).long() * 0, 1.0)": lambda y: y.scatter_(0, ones(y).long() * 0, 1.0),
    "y += 1": lambda y: y.__iadd__(1),
    "torch.neg(ones(y), out=y)": lambda y: torch.neg(ones(y), out=y),
}


def ones(y):
    """Ones in the shape of y, each in its own place."""
    return torch.ones(y.shape, dtype=y.dtype, device=y.device)


@claim(cites=["torch_tensor/expanded-tensors-are-not-for-writes"], needs=["random"])
@given(
    v=values(shapes=((1,), (1, 3), (2, 1), (1, 1)), layouts=("contiguous",)),
    writes=some_of(TO_EXPANDED, 4),
    size=st.integers(2, 3),
    result=st.booleans(),
    quiet=st.booleans(),
)
def spec_elements_that_share_a_place_are_not_written(world, v, writes, size, result, quiet):
    """Arithmetic in place on an expanded tensor, whose elements share places in memory, is an error that changes
    nothing, and so are copy_() and random numbers."""
    x = world.leaf(v)
    base = x * 1 if result else world.constant(v)
    y = base.expand(*(size if n == 1 else n for n in base.shape))
    old, before = base.detach().clone(), facts(base)

    for name in writes:
        with torch.set_grad_enabled(not quiet):
            with raises(RuntimeError, "more than one element", "out=", why=f"{name} would write elements twice"):
                TO_EXPANDED[name](y)
        same((base, facts(base)), (old, before), why=f"{name} failed")

    if result:
        y.sum().backward()
        same(x.grad, torch.full_like(old, y.numel() // x.numel()), why="y is as it was")


OVERLAPPING = {
    "y[1:].add_(y[:-1])": lambda y: y[1:].add_(y[:-1]),
    "y[1:].copy_(y[:-1])": lambda y: y[1:].copy_(y[:-1]),
    "y[:-1].mul_(y[1:])": lambda y: y[:-1].mul_(y[1:]),
    "y[1:] = y[:-1]": lambda y: y.__setitem__(slice(1, None), y[:-1]),
    "y[1:] += y[:-1]": lambda y: y[1:].__iadd__(y[:-1]),
    "y[1:].lerp_(y[:-1], 0.5)": lambda y: y[1:].lerp_(y[:-1], 0.5),
}


@claim(observed=True)
@given(
    v=values(shapes=((3,), (24,), (3, 2), (3, 2, 2)), layouts=("contiguous", "offset")),
    name=st.sampled_from(list(OVERLAPPING)),
    result=st.booleans(),
)
def spec_what_is_read_and_written_at_once_does_not_overlap(world, v, name, result):
    """A write that would read, shifted, from the very memory that it writes is an error that changes nothing, if the
    tensor is contiguous; reading from a clone is allowed."""
    x = world.leaf(v)
    y = x * 1 if result else x.detach().clone()
    old, before = y.detach().clone(), facts(y)

    with raises(RuntimeError, "refer to a single memory location", why="one part is written and read at once"):
        OVERLAPPING[name](y)

    same((y, facts(y)), (old, before), why=f"{name} failed")
    y[1:] = y[:-1].clone()
    same(y, torch.cat([old[:1], old[:-1]]), why="what was read is a copy")


# Functions that write their result into y, the shape of which is that of x.
OUT = {
    "torch.neg(x, out=y)": lambda x, y: torch.neg(x, out=y),
    "torch.add(x, 1, out=y)": lambda x, y: torch.add(x, 1, out=y),
    "torch.mul(x, x, out=y)": lambda x, y: torch.mul(x, x, out=y),
    "torch.sub(x, x, out=y)": lambda x, y: torch.sub(x, x, out=y),
    "torch.clamp(x, 0, 1, out=y)": lambda x, y: torch.clamp(x, 0, 1, out=y),
    "torch.exp(x, out=y)": lambda x, y: torch.exp(x, out=y),
    "torch.sum(x[None], 0, out=y)": lambda x, y: torch.sum(x[None], 0, out=y),
    "torch.cumsum(x, -1, out=y)": lambda x, y: torch.cumsum(x, -1, out=y),
    "torch.mean(x[None], 0, out=y)": lambda x, y: torch.mean(x[None], 0, out=y),
    "torch.maximum(x, x, out=y)": lambda x, y: torch.maximum(x, x, out=y),
    "torch.pow(x, 2, out=y)": lambda x, y: torch.pow(x, 2, out=y),
    "torch.addcmul(x, x, x, out=y)": lambda x, y: torch.addcmul(x, x, x, out=y),
    "torch.max(x[None], 0, out=(y, torch.zeros_like(y).long()))": lambda x, y: torch.max(
        x[None], 0, out=(y, torch.zeros(y.shape, dtype=torch.int64, device=y.device))
    ),
}


@claim(observed=True)
@given(
    v=values(layouts=WRITABLE),
    functions=some_of(OUT, 4),
    kind=st.sampled_from(["constant", "leaf", "result"]),
    source=st.booleans(),
    quiet=st.booleans(),
)
def spec_out_arguments_are_refused_where_an_argument_requires_grad(world, v, functions, kind, source, quiet):
    """A function with an out= argument can't be recorded: in grad mode it is an error that writes nothing if an
    input or the output requires grad. Under no_grad, or if neither does, it writes its output in place."""
    for name in functions:
        x = world.leaf(v) if source else world.constant(v)
        y = world.constant(v)
        if kind != "constant":
            y.requires_grad_()
        if kind == "result":
            y = y * 1
        old, before = y.detach().clone(), facts(y)

        if not quiet and (source or kind != "constant"):
            with raises(RuntimeError, "don't support automatic differentiation", why=f"{name} can't be recorded"):
                OUT[name](x, y)
            same((y, facts(y)), (old, before), why=f"{name} was refused")
        with torch.no_grad():
            expected = OUT[name](x.detach(), torch.empty_like(old))
            OUT[name](x, y)
        same(y, expected if isinstance(expected, torch.Tensor) else expected[0], why=f"{name} was run under no_grad")
        same(facts(y)[1:], before[1:], why="nothing was recorded")
        same(y._version > before[0], True, why=f"{name} counts as a write")


RESIZES = {
    "y.resize_(7)": lambda y: y.resize_(7),
    "y.resize_(y.shape)": lambda y: y.resize_(y.shape),
    "y.resize_as_(torch.ones(2, 2))": lambda y: y.resize_as_(torch.ones(2, 2, device=y.device)),
    "y.resize_(0)": lambda y: y.resize_(0),
}


@claim(observed=True)
@given(v=values(layouts=WRITABLE), resizes=some_of(RESIZES), result=st.booleans(), quiet=st.booleans())
def spec_what_requires_grad_is_not_resized(world, v, resizes, result, quiet):
    """A tensor that requires grad can't be given another size by resize_(), in no mode, and it stays as it is.
    What was detached from it can, without an effect on its shape."""
    x = world.leaf(v)
    y = x * 1 if result else x
    old, before = y.detach().clone(), facts(y)

    for name in resizes:
        with torch.set_grad_enabled(not quiet):
            with raises(RuntimeError, "cannot resize variables that require grad", why=f"y requires grad: {name}"):
                RESIZES[name](y)
        same((y, facts(y)), (old, before), why=f"{name} was refused")
    y.detach().resize_(0)

    same((y, facts(y)[1:]), (old, before[1:]), why="only what was detached has another size")
    (y * 2).sum().backward()
    same(x.grad, torch.full_like(old, 2), why="y is as it was")
