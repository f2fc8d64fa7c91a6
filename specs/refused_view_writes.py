"""Writes that are refused, or noticed later: to views that tell too little, and where elements share memory."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import claim, raises, same, values
from .kit.choices import some_of
from .views import PARTS, UNBOUND, weights

REFUSED = "is being modified inplace"
SEVERAL = {
    **{name: PARTS[name][0] for name in PARTS if ".split(" in name or ".chunk(" in name or "split_with" in name},
    **{name: UNBOUND[name][0] for name in UNBOUND},
    "x[...].unbind()": lambda x: x[...].unbind(),
    "[x.unbind()[0][...]]": lambda x: [x.unbind()[0][...]],
    "[x.unbind()[0].view(-1)[:1]]": lambda x: [x.unbind()[0].view(-1)[:1]],
    "x.t().split(1)": lambda x: x.t().split(1),
    "x.chunk(1)": lambda x: x.chunk(1),
}
WAYS_TO_WRITE = {
    "mul_": lambda view: view.mul_(2),
    "zero_": lambda view: view.zero_(),
    "copy_": lambda view: view.copy_(torch.ones_like(view)),
    "[...] =": lambda view: view.__setitem__(..., 5),
    "+=": lambda view: view.__iadd__(1),
    "[:0] =": lambda view: view[:0].fill_(1),
    "relu_": lambda view: view.relu_(),
    "a view": lambda view: view[None].add_(1),
}
SQUARES = ((2, 3), (3, 2), (2, 2), (1, 2))


@claim(
    observed=True,
    needs=["in-place", "views"],
)
@given(
    v=values(shapes=SQUARES, layouts=("contiguous",)),
    way=st.sampled_from(list(SEVERAL)),
    write=st.sampled_from(list(WAYS_TO_WRITE)),
    which=st.integers(0, 2),
    leaf=st.booleans(),
)
def spec_one_of_several_views_takes_no_write(world, v, way, write, which, leaf):
    """In grad mode a write to a view that unbind, split, chunk or iteration gave with others, or to a view of such a
    view, is an error, and nothing is changed by it. Under no_grad it is allowed."""
    x = world.leaf(v)
    y = x if leaf else x * 1
    parts = SEVERAL[way](y)
    view = parts[which % len(parts)]
    before, history = y.detach().clone(), y.grad_fn

    with raises(RuntimeError, REFUSED, why=f"{way} gives several views of which this is one"):
        WAYS_TO_WRITE[write](view)

    same([y, y._version, y.grad_fn is history], [before, 0, True], why="the write was refused")
    same([view.requires_grad, view.is_leaf], [True, False], why="the write was refused")
    (y * weights(y)).sum().backward(retain_graph=True)
    same(x.grad, weights(x), why="the graph is as it was")
    with torch.no_grad():
        view.fill_(7)
    same(view.detach(), torch.full_like(view, 7).detach(), why="here nothing is recorded")


# Views that nothing tells how to record a write, taken of y, which requires grad or will: with the error's words.
UNRECORDED = {
    "no_grad": (lambda y: torch.no_grad()(lambda: y[:1])(), "no_grad"),
    "no_grad, of several": (lambda y: torch.no_grad()(lambda: y.unbind()[0])(), "no_grad"),
    "no_grad, as a base": (lambda y: torch.no_grad()(lambda: y.view(-1))(), "no_grad"),
    "inference_mode": (lambda y: torch.inference_mode()(lambda: y[:1])(), "inference"),
    "inference_mode, expanded": (lambda y: torch.inference_mode()(lambda: y[None][0])(), "inference"),
}


@claim(
    observed=True,
    needs=["in-place", "views"],
)
@given(
    v=values(shapes=SQUARES, layouts=("contiguous",)),
    way=st.sampled_from(list(UNRECORDED)),
    write=st.sampled_from([name for name in WAYS_TO_WRITE if name not in ("[:0] =", "a view")]),
    kind=st.sampled_from(["result", "leaf", "constant"]),
)
def spec_a_view_that_was_not_recorded_takes_no_write_that_is(world, v, way, write, kind):
    """A view that was taken under no_grad or inference_mode of a tensor that requires grad can't be written in grad
    mode: the error tells of the mode, and nothing is changed. Under no_grad it can; of a constant it can anywhere,
    unless the source requires grad."""
    x = world.constant(v).clone() if kind == "constant" else world.leaf(v)
    y = x * 1 if kind == "result" else x
    take, telling = UNRECORDED[way]
    view = take(y)
    before, version = y.detach().clone(), y._version

    if kind == "constant":
        source = torch.full_like(view, 4).requires_grad_()
        with raises(RuntimeError, REFUSED, why="the source requires grad"):
            view.copy_(source)
        same([y.requires_grad, view.requires_grad, y, y._version], [False, False, before, version], why="it is refused")
        WAYS_TO_WRITE[write](view)
        same(y.requires_grad, False, why="nothing here requires grad")
    else:
        with raises(
            RuntimeError, telling if kind == "result" else REFUSED, "leaf Variable", why=f"it was taken in {way}"
        ):
            WAYS_TO_WRITE[write](view)
        same([y, y._version, y.is_leaf, y.requires_grad], [before, version, kind == "leaf", True], why="it is refused")
        (y * 2).sum().backward()
        same(x.grad, torch.full_like(x, 2).detach(), why="the graph is as it was")
    with torch.no_grad():
        view.fill_(7)
        same(view, torch.full_like(view, 7), why="here nothing is recorded")
    same(y.detach().view(-1)[0], torch.full_like(before.view(-1)[0], 7), why="the view shows y")


@claim(observed=True, since="2.0", needs=["in-place", "views"])
@given(
    v=values(shapes=SQUARES, layouts=("contiguous",)),
    way=st.sampled_from(list(UNRECORDED)),
    view_of_it=st.sampled_from(["[...]", "[None]", ".view(-1)", ".transpose(0, -1)"]),
    write=st.sampled_from([name for name in WAYS_TO_WRITE if name != "[:0] ="]),
)
def spec_a_recorded_view_of_a_view_that_was_not_recorded_takes_no_write(world, v, way, view_of_it, write):
    """Nor can a view be written that was taken in grad mode of a view from no_grad or inference_mode: the error tells
    of that mode, and nothing is changed."""
    x = world.leaf(v)
    y = x * 1
    take, telling = UNRECORDED[way]
    unrecorded = take(y)
    view = {
        "[...]": lambda: unrecorded[...],
        "[None]": lambda: unrecorded[None],
        ".view(-1)": lambda: unrecorded.view(-1),
        ".transpose(0, -1)": lambda: unrecorded.transpose(0, -1),
    }[view_of_it]()

    with raises(RuntimeError, telling, why=f"the view was taken of one from {way}"):
        WAYS_TO_WRITE[write](view)

    same([y, y._version, view.requires_grad], [x, 0, True], why="the write was refused")
    (y * 2).sum().backward()
    same(x.grad, torch.full_like(x, 2).detach(), why="the graph is as it was")


@claim(observed=True, needs=["in-place", "views"])
@given(
    v=values(shapes=SQUARES, layouts=("contiguous",)),
    way=st.sampled_from(["x.unbind()", "x.split(1)", "x.chunk(2)", "list(x)", "no_grad", "inference_mode"]),
    used=st.booleans(),
    written=st.sampled_from(["base", "a view"]),
)
def spec_after_a_write_a_view_without_a_record_can_not_be_used(world, v, way, used, written):
    """If a base is written, those of its views that came with others or from no_grad or inference_mode have no history
    any more: it is an error to ask for it or to compute with them. Their numbers can be read and detached, and what
    was computed before has its gradient."""
    x = world.leaf(v)
    y = x * 1
    view = UNRECORDED[way][0](y) if way in UNRECORDED else (PARTS.get(way) or UNBOUND[way])[0](y)[0]
    earlier = view * 2 if used else None

    (y if written == "base" else y[-1:]).mul_(3)

    for ask in (lambda: view.grad_fn, lambda: view.is_leaf, lambda: view * 2, lambda: view[...]):
        with raises(RuntimeError, "is a view and its base", "has been modified inplace", why=f"it was made by {way}"):
            ask()
    same([view.requires_grad, view.detach()], [True, view.data], why="these tell of no history")
    (y * weights(y)).sum().backward(retain_graph=True)
    tripled = weights(x).clone()
    tripled[0 if written == "base" else -1 :] *= 3
    same(x.grad, tripled, why="the base has its history")
    if used and way not in UNRECORDED:
        x.grad = None
        earlier.sum().backward()
        same(float(x.grad.sum()), 2.0 * view.numel(), why="it was computed before")


class AsItIs(torch.autograd.Function):
    """Gives what it gets."""

    @staticmethod
    def forward(ctx, x):
        """What the class says."""
        return x

    @staticmethod
    def backward(ctx, gradient):
        """Ten times the gradient, so that it can be told from the true one."""
        return 10 * gradient


class AsAView(torch.autograd.Function):
    """Gives a view of what it gets."""

    @staticmethod
    def forward(ctx, x):
        """What the class says."""
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        """Ten times the gradient, so that it can be told from the true one."""
        return 10 * gradient


class AsTwoViews(torch.autograd.Function):
    """Gives two views of what it gets."""

    @staticmethod
    def forward(ctx, x):
        """What the class says."""
        return x.view_as(x), x.view_as(x)

    @staticmethod
    def backward(ctx, gradient, other):
        """Ten times the gradient, so that it can be told from the true one."""
        return 10 * gradient + 10 * other


@claim(observed=True, needs=["in-place", "views"])
@given(
    v=values(shapes=SQUARES, layouts=("contiguous",)),
    function=st.sampled_from(["AsItIs", "AsAView", "AsTwoViews"]),
    write=st.sampled_from(list(WAYS_TO_WRITE)),
    leaf=st.booleans(),
)
def spec_a_view_from_a_custom_function_takes_no_write(world, v, function, write, leaf):
    """What a custom Function gives of its input, the input itself or a view of it, is a view that can't be written in
    grad mode: the function's own backward would be bypassed. Nothing is changed by the error."""
    x = world.leaf(v)
    y = x if leaf else x * 1
    given = {"AsItIs": AsItIs, "AsAView": AsAView, "AsTwoViews": AsTwoViews}[function].apply(y)
    view = given[1] if function == "AsTwoViews" else given
    before = y.detach().clone()
    same([view._is_view(), view._base is y], [True, True], why="it lies in the memory of the input")

    with raises(RuntimeError, REFUSED, why=f"{function} gave it"):
        WAYS_TO_WRITE[write](view)

    same([y, y._version, view.requires_grad, view.is_leaf], [before, 0, True, False], why="the write was refused")
    view.backward(weights(view))
    same(x.grad, 10 * weights(x), why="the function says so")


# Tensors in which several elements lie in one place, made of y; and how many places they have in all.
SHARED = {
    "y.expand(2, *y.shape)": lambda y: y.expand(2, *y.shape),
    "y[..., :1].expand(*y.shape[:-1], 3)": lambda y: y[..., :1].expand(*y.shape[:-1], 3),
    "y.unsqueeze(-1).expand(*y.shape, 2)": lambda y: y.unsqueeze(-1).expand(*y.shape, 2),
    "y.broadcast_to((3, 1, *y.shape))": lambda y: y.broadcast_to((3, 1, *y.shape)),
    "torch.broadcast_tensors(y, y[None, None].expand(2, 1, *y.shape))[0]": lambda y: torch.broadcast_tensors(
        y, y[None, None].expand(2, 1, *y.shape)
    )[0],
    "y.expand(2, *y.shape).transpose(0, -1)": lambda y: y.expand(2, *y.shape).transpose(0, -1),
}
# Writes that are refused there.
WRITES_OF_MANY = {
    "mul_": lambda view: view.mul_(2),
    "add_": lambda view: view.add_(torch.ones_like(view)),
    "sub_": lambda view: view.sub_(1),
    "copy_": lambda view: view.copy_(torch.ones_like(view)),
    "copy_ of one": lambda view: view.copy_(torch.ones((), dtype=view.dtype, device=view.device)),
    "relu_": lambda view: view.relu_(),
    "neg_": lambda view: view.neg_(),
    "clamp_": lambda view: view.clamp_(0, 1),
    "pow_": lambda view: view.pow_(2),
    "cumsum_": lambda view: view.cumsum_(0),
    "index_add_": lambda view: view.index_add_(0, torch.tensor([0], device=view.device), torch.ones_like(view[:1])),
    "normal_": lambda view: view.normal_(),
    "addcmul_": lambda view: view.addcmul_(torch.ones_like(view), torch.ones_like(view)),
}
# Writes that are carried out, and what they write.
WRITES_OF_ONE = {
    "fill_": lambda view: view.fill_(5),
    "zero_": lambda view: view.zero_(),
    "masked_fill_": lambda view: view.masked_fill_(torch.ones_like(view, dtype=torch.bool), 5),
}


@claim(cites=["torch_tensor/writing-expanded-tensors-may-go-wrong"], needs=["random", "in-place", "views"])
@given(
    v=values(shapes=((2,), (2, 3), (3, 2), (1, 2)), layouts=("contiguous", "offset")),
    way=st.sampled_from(list(SHARED)),
    writes=some_of(WRITES_OF_MANY, 3),
    kind=st.sampled_from(["constant", "result", "detached"]),
)
def spec_elements_in_one_place_take_no_numbers_of_their_own(world, v, way, writes, kind):
    """To write numbers computed for each element to an expanded tensor is an error that says to clone() it first;
    nothing is changed by it. A clone can be written."""
    x = world.constant(v) if kind == "constant" else world.leaf(v)
    y = {"constant": x.clone, "result": lambda: x * 1, "detached": lambda: (x * 1).detach()}[kind]()
    before = y.detach().clone()

    for write in writes:
        with raises(RuntimeError, "Please clone() the tensor", why=f"several elements of {way} lie in one place"):
            WRITES_OF_MANY[write](SHARED[way](y))
        same([y, y._version, y.requires_grad], [before, 0, kind == "result"], why="nothing was written")
        view = SHARED[way](y).clone()
        WRITES_OF_MANY[write](view)
        same([y, y._version], [before, 0], why="its clone was written")
    if kind == "result":
        y.backward(weights(y))
        same(x.grad, weights(x), why="the graph is as it was")


@claim(cites=["torch_tensor/writing-expanded-tensors-may-go-wrong"], observed=True, needs=["in-place", "views"])
@given(
    v=values(shapes=((2,), (2, 3), (3, 2), (1, 2)), layouts=("contiguous", "offset")),
    way=st.sampled_from(list(SHARED)),
    write=st.sampled_from(list(WRITES_OF_ONE)),
    result=st.booleans(),
)
def spec_elements_in_one_place_can_be_set_to_one_number(world, v, way, write, result):
    """To set all elements of an expanded tensor to one number is allowed: the places that it shows hold it then. But if
    the write was recorded, the error comes with backward."""
    x = world.leaf(v)
    y = x * 1 if result else x.detach().clone()
    view = SHARED[way](y)
    shown = torch.zeros_like(x).detach()
    SHARED[way](shown).fill_(1)  # this is the number 1 at the places that are shown

    WRITES_OF_ONE[write](view)

    number = 0 if write == "zero_" else 5
    same(y.detach(), torch.where(shown > 0, torch.full_like(shown, number), x.detach()), why=f"{way} was filled")
    same(view.detach(), torch.full_like(view, number).detach(), why="this was written")
    same(y._version, 1, why="it was one write")
    if result:
        with raises(RuntimeError, "Please clone() the tensor", why="backward sets gradients to zero in the same way"):
            y.backward(weights(y))
        same(x.grad, None, why="backward failed")


# Writes from one part of y to another: the parts, and whether they lie apart or are the same.
FROM_ITSELF = {
    "y[1:].copy_(y[:-1])": (lambda y: y[1:].copy_(y[:-1]), False),
    "y[1:].add_(y[:-1])": (lambda y: y[1:].add_(y[:-1]), False),
    "y[:-1].mul_(y[1:])": (lambda y: y[:-1].mul_(y[1:]), False),
    "y[:3].sub_(y[1:])": (lambda y: y[:3].sub_(y[1:]), False),
    "y.view(2, 2).add_(y.view(2, 2).t())": (lambda y: y.view(2, 2).add_(y.view(2, 2).t()), False),
    "y[1:3].copy_(y[0:2])": (lambda y: y[1:3].copy_(y[0:2]), False),
    "y[2:].copy_(y[:2])": (lambda y: y[2:].copy_(y[:2]), [0, 1, 0, 1]),
    "y[:1].copy_(y[3:])": (lambda y: y[:1].copy_(y[3:]), [3, 1, 2, 3]),
    "y[::2].copy_(y[1::2].clone())": (lambda y: y[::2].copy_(y[1::2].clone()), [1, 1, 3, 3]),
    "y[1:].copy_(y[:-1].clone())": (lambda y: y[1:].copy_(y[:-1].clone()), [0, 0, 1, 2]),
    "y.copy_(y)": (lambda y: y.copy_(y), [0, 1, 2, 3]),
    "y[1:].copy_(y[1:])": (lambda y: y[1:].copy_(y[1:]), [0, 1, 2, 3]),
    "y.copy_(y.flip(0))": (lambda y: y.copy_(y.flip(0)), [3, 2, 1, 0]),
}


@claim(observed=True, needs=["in-place", "views"])
@given(
    v=values(shapes=((4,),), layouts=("contiguous", "offset", "strided")),
    way=st.sampled_from(list(FROM_ITSELF)),
    recorded=st.booleans(),
)
def spec_a_tensor_can_be_written_from_itself_unless_parts_overlap(world, v, way, recorded):
    """To write a part of a tensor with another part that lies partly in the same place is an error, and nothing is
    changed. From the very same elements, from a part that lies elsewhere, or from a clone it works, and gradients go
    to the elements that were read."""
    x = world.leaf(v)
    y = x * 1 if recorded else x.detach().clone()
    before = y.detach().clone()
    write, reads = FROM_ITSELF[way]

    if reads:
        write(y)
        same(y.detach(), before[reads], why=f"after {way}")
    else:
        with raises(RuntimeError, "Please clone() the tensor", why="parts that are read and written overlap"):
            write(y)
        same([y, y._version], [before, 0], why="the write was refused")
    if recorded:
        y.backward(weights(y))
        expected = torch.zeros_like(before)
        for at, read in enumerate(reads or [0, 1, 2, 3]):
            expected[read] += weights(y)[at]
        same(x.grad, expected, why=f"after {way}")


# Writes that the elements of y[:1] and all that lies in the memory of y notice; the last two nobody notices.
NOTICED = {
    "y.mul_(3)": lambda y: y.mul_(3),
    "y[:1].mul_(3)": lambda y: y[:1].mul_(3),
    "y[1:].mul_(3)": lambda y: y[1:].mul_(3),
    "y[:0].fill_(3)": lambda y: y[:0].fill_(3),
    "y.view(-1)[-1:].fill_(3)": lambda y: y.view(-1)[-1:].fill_(3),
    "y.detach()[1:].add_(1)": lambda y: y.detach()[1:].add_(1),
    "y[1:].detach().zero_()": lambda y: y[1:].detach().zero_(),
    "torch.no_grad()(y[1:].fill_)(1)": lambda y: torch.no_grad()(y[1:].fill_)(1),
    "y[-1] = 3": lambda y: y.__setitem__(-1, 3),
    "y.t_()": lambda y: y.t_(),
    "y.data[1:].fill_(3)": lambda y: y.data[1:].fill_(3),
    "y.clone().zero_()": lambda y: y.clone().zero_(),
}


@claim(
    cites=[
        "autograd_mechanics/changed-saved-tensor-raises",
        "torch_tensor/writes-to-detached-tensors-may-trigger-errors",
        "torch_tensor/detached-shares-storage",
    ],
    needs=["in-place", "views"],
)
@given(
    v=values(shapes=((2, 3), (3, 2), (2, 2)), layouts=("contiguous", "offset")),
    write=st.sampled_from(list(NOTICED)),
    kept=st.sampled_from(["base", "view", "view of a view"]),
    late=st.booleans(),
)
def spec_a_write_anywhere_in_the_memory_of_a_saved_view_is_noticed(world, v, write, kept, late):
    """A tensor that is saved for backward counts as changed after a write in place to its base or to any view of it,
    even of other elements or of none, and to what was detached of it; backward is an error then. A write through .data,
    or to a copy, is not noticed."""
    x = world.leaf(v)
    y = x * 1
    saved = {"base": y, "view": y[:1], "view of a view": y[None][0, :1]}[kept]
    square, before = saved * saved, y.detach().clone()

    if late:
        torch.autograd.grad(square.sum(), x, retain_graph=True)  # nothing was written yet
    NOTICED[write](y)

    if write in ("y.data[1:].fill_(3)", "y.clone().zero_()"):
        square.sum().backward()
        expected = 2 * before
        if kept == "base" and "data" in write:
            expected[1:] = 6  # the gradient is that of the new elements, and so wrong
        elif kept != "base":
            expected[1:] = 0
        same(x.grad, expected, why="nobody noticed")
    else:
        with raises(RuntimeError, "modified by an inplace operation", why=f"{kept} lies in the memory of y"):
            square.sum().backward()
        same(x.grad, None, why="backward was refused")


# Cuts that autograd doesn't know as views.
UNSAFE = {
    "torch.unsafe_split(y, 1)": lambda y: torch.unsafe_split(y, 1),
    "y.unsafe_split(1)": lambda y: y.unsafe_split(1),
    "torch.unsafe_chunk(y, 2)": lambda y: torch.unsafe_chunk(y, 2),
    "y.unsafe_chunk(2, 1)": lambda y: y.unsafe_chunk(2, 1),
}


@claim(
    cites=["torch/unsafe-parts-can-be-written", "torch/unsafe-parts-and-input-must-not-both-be-written"],
    needs=["in-place", "views"],
)
@given(
    v=values(shapes=((2, 2),), layouts=("contiguous", "offset")),
    way=st.sampled_from(list(UNSAFE)),
    written=st.sampled_from(["parts", "input", "both"]),
    factors=st.permutations([2, 3]),
)
def spec_unsafe_parts_can_be_written_as_if_they_were_copies(world, v, way, written, factors):
    """What unsafe_split and unsafe_chunk give lies in the memory of the input, but is no view for autograd and can be
    written. If only parts are written the gradients by them are right, if only the input is written those by it; that
    the other one has changed, too, is in no gradient."""
    x = world.leaf(v)
    y = x * 1
    parts = UNSAFE[way](y)
    same([parts[0]._is_view(), parts[0].data_ptr()], [False, y.data_ptr()], why="autograd doesn't know it as a view")

    if written != "input":
        for part, factor in zip(parts, factors):
            part.mul_(factor)
    if written != "parts":
        y.mul_(5)
    scale = torch.tensor(factors, dtype=x.dtype, device=x.device)
    scale = scale if "2, 1" in way else scale[:, None]
    by_parts = torch.ones_like(x).detach() * (scale if written != "input" else 1)
    by_input = torch.full_like(x, 5 if written != "parts" else 1).detach()

    same(y.detach(), x.detach() * by_parts * by_input, why="parts and input share their memory")
    sum(part.sum() for part in parts).backward(retain_graph=True)
    same(x.grad, by_parts, why=f"{written} was written, and this is the gradient by the parts")
    x.grad = None
    y.sum().backward()
    same(x.grad, by_input, why=f"{written} was written, and this is the gradient by the input")
