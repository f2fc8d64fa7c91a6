"""Tensors written in place: their numbers, their history and their gradients."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import WRITABLE, claim, raises, same, values
from .kit.choices import some_of
from .kit.writes import ALIASES, FILLED, FOLLOWED, UNRECORDED, WRITES, error_of, facts, target_and_operand

ANY_WAY = st.sampled_from(list(UNRECORDED))
# Results that can be written, with the numbers of x and the derivative 1.
RESULTS = {
    "x * 1": lambda x: x * 1,
    "x.clone()": lambda x: x.clone(),
    "x + 0": lambda x: x + 0,
    "(-x).neg()": lambda x: (-x).neg(),
    "torch.stack([x]).sum(0)": lambda x: torch.stack([x]).sum(0),
}
ANY_RESULT = st.sampled_from(list(RESULTS))


@claim(cites=["torch_tensor/underscore-methods-write-and-return-the-tensor"])
@given(
    pair=target_and_operand(("float64", "float32", "bfloat16")),
    writes=some_of(WRITES),
    result=st.one_of(st.none(), ANY_RESULT),
)
def spec_a_write_changes_the_tensor_itself(world, pair, writes, result):
    """A write in place puts its numbers where the old ones were and returns the tensor on which it was called:
    its address, shape, strides and dtype stay the same, and so do the tensors that it only reads."""
    target, operand = pair
    for name in writes:
        y, w = world.constant(target), world.constant(operand)
        if result is not None:
            y = RESULTS[result](y.requires_grad_())
        old, address, strides = y.detach().clone(), y.data_ptr(), y.stride()

        returned = WRITES[name].run(y, w)

        same(y, WRITES[name].numbers(old, w), why=f"{name} was run")
        same(returned is None or returned is y, True, why=f"{name} returns y, unless it is an assignment")
        same((y.data_ptr(), y.stride()), (address, strides), why="y was written where it was")
        same(w, world.constant(operand), why="w was only read")


@claim(
    cites=[
        "autograd_mechanics/writes-change-the-creator-of-their-inputs",
        "autograd_mechanics/grad-fn-is-the-way-into-the-graph",
    ]
)
@given(pair=target_and_operand(), writes=some_of(WRITES), computed=st.booleans())
def spec_a_write_puts_a_new_node_on_top_of_the_history_of_its_tensor(world, pair, writes, computed):
    """A result that is written in place gets a new grad_fn, that of the write, whose first edge leads to the
    grad_fn that it had before. The other tensors that take part keep theirs; their nodes come behind."""
    target, operand = pair
    for name in writes:
        x, w = world.leaf(target), world.leaf(operand)
        y, w = x * 1, w * 1 if computed else w
        history, other = y.grad_fn, w.grad_fn

        WRITES[name].run(y, w)

        same(y.grad_fn is None, False, why=f"{name} was recorded")
        edges = [node for node, number in y.grad_fn.next_functions]
        same(edges[0] is history, True, why=f"{name} was recorded on top of what y was before")
        same(w.grad_fn is other, True, why="w was only read")
        same((y.is_leaf, y.requires_grad), (False, True), why="y is a result")


@claim(
    cites=["autograd_mechanics/no-error-means-right-gradients", "autograd_mechanics/chain-rule-from-roots-to-leaves"]
)
@given(pair=target_and_operand(), writes=some_of(WRITES), first=st.sampled_from(FOLLOWED), result=ANY_RESULT)
def spec_backward_goes_through_writes_as_through_other_operations(world, pair, writes, first, result):
    """A result can be written in place, several times as well, also with itself or with a tensor that is
    broadcast. Backward then gives the gradient of what was computed: by the tensor as it was before the
    writes, and by every tensor that took part in one."""
    target, operand = pair
    for second in writes:
        x, w = world.leaf(target), world.leaf(operand)
        y, numbers, other = RESULTS[result](x), x.detach(), w.detach()

        before = []
        for name in (first, second):
            WRITES[name].run(y, w)
            before.append((name, numbers))
            numbers = WRITES[name].numbers(numbers, other)
        same(y, numbers, why=f"{first} and {second} were run")
        weights = torch.arange(1, y.numel() + 1, dtype=y.dtype, device=y.device).reshape(y.shape)
        (y * weights).sum().backward()

        by_w, used = torch.zeros_like(weights), False
        for name, old in reversed(before):
            if WRITES[name].by_w:
                by_w, used = by_w + weights * WRITES[name].by_w(old, other), True
            weights = weights * WRITES[name].by_y(old, other)
        same(x.grad, weights, why=f"y was {result} before {first} and {second}")
        expected = by_w.sum_to_size(w.shape) if used else None
        same(w.grad, expected, why=f"w took part in {first} and {second} so much")


# What is computed from y without keeping the numbers of y, and its derivative by y.
EARLIER = {
    "y + 1": (lambda y: y + 1, 1),
    "y * 3": (lambda y: y * 3, 3),
    "-y": (lambda y: -y, -1),
    "y.sum()": (lambda y: y.sum(), 1),
    "torch.stack([y, y])": (lambda y: torch.stack([y, y]), 2),
    "y.clone()": (lambda y: y.clone(), 1),
}


@claim(cites=["autograd_mechanics/no-error-means-right-gradients"])
@given(pair=target_and_operand(), writes=some_of(WRITES), earlier=st.sampled_from(list(EARLIER)), first=st.booleans())
def spec_what_was_computed_before_a_write_keeps_its_gradient(world, pair, writes, earlier, first):
    """What was computed from a tensor before it was written keeps its numbers, and gradients flow from it to
    the tensor as it was then, past the write, whether what was written is differentiated before it, after it or
    not at all."""
    target, operand = pair
    for name in writes:
        x, w = world.leaf(target), world.constant(operand)
        y = x * 1
        function, factor = EARLIER[earlier]
        z = function(y)
        numbers = z.detach().clone()

        WRITES[name].run(y, w)

        same(z, numbers, why=f"{earlier} was computed before {name}")
        if first:
            y.sum().backward(retain_graph=True)
            same(
                x.grad,
                WRITES[name].by_y(x.detach(), w) + torch.zeros_like(w + x.detach()),
                why=f"y is written by {name}",
            )
            x.grad = None
        z.sum().backward()
        same(x.grad, torch.full_like(x, factor), why=f"{earlier} was computed before {name}")


@claim(cites=["autograd_mechanics/writes-change-the-creator-of-their-inputs"])
@given(
    pair=target_and_operand(),
    writes=some_of([name for name, write in WRITES.items() if write.by_w]),
    way=st.one_of(st.none(), ANY_WAY),
)
def spec_a_constant_that_is_written_with_a_result_becomes_one(world, pair, writes, way):
    """A tensor that doesn't require grad becomes a result when it is written with one that does, and gradients
    flow through it from then on, but none to its old numbers; a write under no_grad leaves it a constant."""
    target, operand = pair
    for name in writes:
        y, w = world.constant(target), world.leaf(operand)
        old, other = y.clone(), w.detach()

        if way is None:
            WRITES[name].run(y, w)
        else:
            UNRECORDED[way](lambda: WRITES[name].run(y, w))

        same(y, WRITES[name].numbers(old, other), why=f"{name} was run")
        recorded = way is None
        same(
            (y.requires_grad, y.is_leaf, y.grad_fn is None),
            (recorded, not recorded, not recorded),
            why=f"{name}: {way}",
        )
        if recorded:
            y.sum().backward()
            expected = (WRITES[name].by_w(old, other) + torch.zeros_like(old)).sum_to_size(w.shape)
            same(w.grad, expected, why=f"{name} made y depend on w")
        same(y.grad, None, why="y is a constant or a result")


# Without views that a write of their base spoils.
SHARING = [name for name in ALIASES if "unbind" not in name and "no_grad" not in name]


@claim(cites=["autograd_mechanics/writes-to-shared-storage-raise", "torch_tensor/detached-shares-storage"])
@given(
    pair=target_and_operand(shapes=FILLED),
    writes=some_of(WRITES),
    names=st.lists(st.sampled_from(SHARING), min_size=1, max_size=3),
)
def spec_memory_that_others_share_can_be_written(world, pair, writes, names):
    """A result can be written in place also while views of it, or tensors detached from it, share its memory. All
    show the new numbers; of the views the gradient is that of the written tensor, and the detached ones stay
    constants."""
    target, operand = pair
    for write in writes:
        x, w = world.leaf(target), world.constant(operand)
        y = x * 1
        family = [ALIASES[name](y) for name in names]

        refused = error_of(lambda: WRITES[write].run(y, w))

        same(refused, None, why=f"{names} share the memory of y, which {write} writes")
        numbers = WRITES[write].numbers(x.detach(), w)
        for name, alias in zip(names, family):
            same(alias, ALIASES[name](numbers), why=f"{name} lies in the memory that {write} wrote")
            same(alias.requires_grad, "detach" not in name, why=f"{name} was taken before {write}")
            if alias.requires_grad:
                (gradient,) = torch.autograd.grad(alias.sum(), x, retain_graph=True)
                expected = WRITES[write].by_y(x.detach(), w) + torch.zeros_like(numbers)
                same(gradient, expected, why=f"{name} shows what {write} made")


# Writes with the numbers that they are run on, and their derivative in terms of the numbers before and after.
NEEDY = {
    "y.exp_()": ((0, 1, -1, 2), lambda y: y.exp_(), lambda old, new: new),
    "y.expm1_()": ((0, 1, 2), lambda y: y.expm1_(), lambda old, new: new + 1),
    "y.sqrt_()": ((1, 4, 16, 0.25), lambda y: y.sqrt_(), lambda old, new: 0.5 / new),
    "y.reciprocal_()": ((1, 2, -4, 0.5), lambda y: y.reciprocal_(), lambda old, new: -new * new),
    "y.tanh_()": ((0, 1000, -1000), lambda y: y.tanh_(), lambda old, new: 1 - new * new),
    "y.sigmoid_()": ((0, 1000, -1000), lambda y: y.sigmoid_(), lambda old, new: new * (1 - new)),
    "torch.nn.functional.elu(y, inplace=True)": (
        (1, 2, -1000),
        lambda y: torch.nn.functional.elu(y, inplace=True),
        lambda old, new: torch.where(old > 0, torch.ones_like(old), new + 1),
    ),
    "y.log_()": ((1, 2, 4), lambda y: y.log_(), lambda old, new: 1 / old),
    "y.log1p_()": ((0, 1, 3), lambda y: y.log1p_(), lambda old, new: 1 / (1 + old)),
    "y.atan_()": ((0, 1, -1), lambda y: y.atan_(), lambda old, new: 1 / (1 + old * old)),
    "y.sin_()": ((0,), lambda y: y.sin_(), lambda old, new: torch.ones_like(old)),
    "y.cos_()": ((0,), lambda y: y.cos_(), lambda old, new: 0 * old),
    "y.pow_(-1)": ((1, 2, -4, 0.5), lambda y: y.pow_(-1), lambda old, new: -1 / (old * old)),
}


@claim(cites=["autograd_mechanics/writes-can-overwrite-what-gradients-need"])
@given(v=values(layouts=WRITABLE), writes=some_of(NEEDY), later=st.booleans())
def spec_a_write_that_overwrites_what_its_gradient_needs_keeps_it(world, v, writes, later):
    """An operation in place whose derivative is a function of the numbers that it overwrites, or of those that
    it writes, gives the right gradient all the same."""
    for name in writes:
        nice, run, derivative = NEEDY[name]
        x = world.leaf(v)
        numbers = torch.tensor(nice, dtype=x.dtype, device=x.device)
        old = numbers[torch.arange(x.numel(), device=x.device) % len(nice)].reshape(x.shape)
        y = x + (old - x.detach())  # these numbers, with the derivative 1

        run(y)
        (y + 1 if later else y).sum().backward()

        same(x.grad, derivative(old, y.detach()), why=f"{name} was run on numbers of {nice}")


# Writes with the tensor itself as a second operand, whose old numbers the derivative needs.
WITH_ITSELF = {
    "y.mul_(y)": (lambda y, w: y.mul_(y), lambda y, w: y * y),
    "y *= y": (lambda y, w: y.__imul__(y), lambda y, w: y * y),
    "y.mul_(y[...])": (lambda y, w: y.mul_(y[...]), lambda y, w: y * y),
    "y.mul_(y.detach())": (lambda y, w: y.mul_(y.detach()), lambda y, w: y * y),
    "y.addcmul_(y, y)": (lambda y, w: y.addcmul_(y, y), lambda y, w: y + y * y),
    "y.addcmul_(w, y)": (lambda y, w: y.addcmul_(w, y), lambda y, w: y + w * y),
}


@claim(
    cites=[
        "autograd_mechanics/writes-can-overwrite-what-gradients-need",
        "autograd_mechanics/changed-saved-tensor-raises",
    ]
)
@given(pair=target_and_operand(), writes=some_of(WITH_ITSELF, 3), by_grad=st.booleans())
def spec_a_write_with_itself_cannot_be_differentiated_where_that_needs_the_old_numbers(world, pair, writes, by_grad):
    """y.mul_(y), and every other write whose derivative needs the old numbers of an operand that is the written
    tensor itself, a view of it or what was detached from it, is computed rightly; a backward through it raises
    an error. What else was computed from the old numbers can be differentiated."""
    target, operand = pair
    for name in writes:
        run, numbers = WITH_ITSELF[name]
        x, w = world.leaf(target), world.leaf(operand)
        y = x * 1
        before = (y * 3).sum()

        run(y, w)

        same(y, numbers(x.detach(), w.detach()), why=f"{name} was run")
        with raises(RuntimeError, "modified by an inplace operation", why=f"{name} overwrote what it saved"):
            if by_grad:
                torch.autograd.grad(y.sum(), [x, w], allow_unused=True)
            else:
                y.sum().backward()
        same((x.grad, w.grad), (None, None), why="their gradients can't be computed")
        before.backward()
        same(x.grad, torch.full_like(x, 3), why="the factor is 3, whatever y holds")


@claim(cites=["autograd_mechanics/no-error-means-right-gradients"], needs=["float64"])
@given(v=values(layouts=WRITABLE, dtypes=("float64",)), result=ANY_RESULT, power=st.booleans())
def spec_writes_can_be_differentiated_twice(world, v, result, power):
    """The gradient of what was written in place can be differentiated again, like any other."""
    x = world.leaf(v)
    y = RESULTS[result](x)
    if power:
        y.pow_(3)
    else:
        y.mul_(x).mul_(x)

    (first,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)

    same(first, 3 * x.detach().square(), why="y is x to the power of 3")
    same(second, 6 * x.detach(), why="y is x to the power of 3")


@claim(observed=True, formerly=["parameters/a_result_changed_under_no_grad_keeps_its_history"])
@given(pair=target_and_operand(), writes=some_of(WRITES), way=ANY_WAY)
def spec_a_result_written_under_no_grad_keeps_its_history(world, pair, writes, way):
    """A result that is written in place under no_grad keeps its grad_fn: it has the new numbers, and the
    gradient that flows through it is that of the operation that made it."""
    target, operand = pair
    for name in writes:
        x, w = world.leaf(target), world.leaf(operand)
        y = x * 2
        node, old = y.grad_fn, y.detach().clone()

        UNRECORDED[way](lambda: WRITES[name].run(y, w))

        same(y, WRITES[name].numbers(old, w.detach()), why=f"{name} was run")
        same(y.grad_fn is node, True, why="the write wasn't recorded")
        same((y.is_leaf, y.requires_grad), (False, True), why="the write wasn't recorded")
        (y * 3).sum().backward()
        same(x.grad, torch.full_like(x, 6), why="y was made by x * 2")
        same(w.grad, None, why="the write wasn't recorded")


# Writes that have no derivative.
LOGICAL = {
    "y.logical_not_()": (lambda y: y.logical_not_(), lambda old: old == 0),
    "y.logical_and_(y)": (lambda y: y.logical_and_(y), lambda old: old != 0),
    "y.logical_or_(y)": (lambda y: y.logical_or_(y), lambda old: old != 0),
    "y.logical_xor_(y)": (lambda y: y.logical_xor_(y), lambda old: old != old),
    "y.logical_and_(y > 0)": (lambda y: y.logical_and_(y > 0), lambda old: old > 0),
}


@claim(cites=["autograd_mechanics/no-error-means-right-gradients"])
@given(v=values(layouts=WRITABLE), write=st.sampled_from(list(LOGICAL)))
def spec_logical_writes_are_never_recorded(world, v, write):
    """logical_not_(), logical_and_(), logical_or_() and logical_xor_() are run in grad mode without a record: a
    leaf that requires grad is written, and a result goes on passing gradients to what it was made from,
    although it doesn't depend on that any more."""
    x = world.leaf(v)
    y = x * 3
    history, old = y.grad_fn, x.detach().clone()
    run, numbers = LOGICAL[write]

    run(y)
    run(x)

    same(y, numbers(3 * old).to(y.dtype), why=f"{write} was run on a result")
    same(y.grad_fn is history, True, why=f"{write} wasn't recorded")
    same(x, numbers(old).to(x.dtype), why=f"{write} was run on a leaf")
    same((x.is_leaf, x.requires_grad, x._version, y._version), (True, True, 1, 1), why="they count as writes")
    y.sum().backward()
    same(x.grad, torch.full_like(x, 3), why="the gradient is that of the operation that made y")


# Functions that write several tensors at once, and what becomes of a number and of its gradient.
AT_ONCE = {
    "torch._foreach_add_(ys, 1)": (lambda ys: torch._foreach_add_(ys, 1), lambda old: old + 1, 1),
    "torch._foreach_mul_(ys, 2)": (lambda ys: torch._foreach_mul_(ys, 2), lambda old: 2 * old, 2),
    "torch._foreach_neg_(ys)": (lambda ys: torch._foreach_neg_(ys), lambda old: -old, -1),
    "torch._foreach_zero_(ys)": (lambda ys: torch._foreach_zero_(ys), lambda old: 0 * old, 0),
    "torch._foreach_add_(ys, [y.detach() for y in ys])": (
        lambda ys: torch._foreach_add_(ys, [y.detach().clone() for y in ys]),
        lambda old: 2 * old,
        1,
    ),
}


@claim(observed=True, since="2.1")
@given(v=values(layouts=WRITABLE), w=values(layouts=WRITABLE), name=st.sampled_from(list(AT_ONCE)), leaf=st.booleans())
def spec_writes_of_several_tensors_at_once_are_recorded(world, v, w, name, leaf):
    """The torch._foreach_ functions that write in place are recorded for each tensor of the list, and are refused,
    without a change of any, if one of them is a leaf that requires grad."""
    write, numbers, factor = AT_ONCE[name]
    x, z = world.leaf(v), world.leaf(w)
    ys = [x * 1, z if leaf else z * 1]

    if leaf:
        before = [facts(y) for y in ys]
        with raises(RuntimeError, "a leaf Variable that requires grad", why="the second one is a leaf"):
            write(ys)
        same((ys, [facts(y) for y in ys]), ([x.detach(), z.detach()], before), why="it was refused")
    else:
        write(ys)
        same(ys, [numbers(x.detach()), numbers(z.detach())], why=f"{name} was run")
        (ys[0].sum() + 3 * ys[1].sum()).backward()
        same(x.grad, torch.full_like(x, factor, requires_grad=False), why=f"{name} was recorded for the first")
        same(z.grad, torch.full_like(z, 3 * factor, requires_grad=False), why=f"{name} was recorded for the second")


@claim(cites=["autograd_mechanics/no-error-means-right-gradients"], since="2.1", needs=["lists-in-turn"])
@given(
    v=values(layouts=WRITABLE), name=st.sampled_from(list(AT_ONCE)[:3]), times=st.integers(1, 3), first=st.booleans()
)
def spec_what_is_listed_twice_is_written_twice_and_recorded_once(world, v, name, times, first):
    """A tensor that stands several times in the list for one of the torch._foreach_ functions is written as often,
    but its gradient is that of a single write."""
    write, numbers, factor = AT_ONCE[name]
    x, z = world.leaf(v), world.leaf(v)
    y, other = x * 1, z * 1

    write([y] * times + [other] if first else [other] + [y] * times)

    expected = x.detach()
    for _ in range(times):
        expected = numbers(expected)
    same([y, other], [expected, numbers(z.detach())], why=f"y stood in the list {times} times")
    (y + other).sum().backward()
    same(x.grad, torch.full_like(expected, factor), why=f"one of {times} writes was recorded")
    same(z.grad, torch.full_like(expected, factor), why="the other one stood there once")


@claim(observed=True, until="2.1")
@given(v=values(layouts=WRITABLE), name=st.sampled_from(list(AT_ONCE)))
def spec_writes_of_several_tensors_at_once_are_not_recorded(world, v, name):
    """The torch._foreach_ functions that write in place are run in grad mode without a record, also on leaves
    that require grad."""
    write, numbers, _ = AT_ONCE[name]
    x, y = world.leaf(v), world.leaf(v) * 1
    old, history = x.detach().clone(), y.grad_fn

    write([x, y])

    same([x, y], [numbers(old), numbers(old)], why=f"{name} was run")
    same((x.is_leaf, y.grad_fn is history), (True, True), why=f"{name} wasn't recorded")


# Writes that convert what they take to the dtype of y, which is one of integers; w is a 0-dim tensor of floats.
CONVERTING = {
    "y.copy_(w)": (lambda y, w: y.copy_(w), False),
    "y.fill_(w)": (lambda y, w: y.fill_(w), True),
    "y.masked_fill_(y == y, w)": (lambda y, w: y.masked_fill_(y == y, w), True),
}


@claim(cites=["torch_autograd/only-floating-point-and-complex"])
@given(
    v=values(layouts=WRITABLE),
    name=st.sampled_from(list(CONVERTING)),
    dtype=st.sampled_from([torch.int64, torch.int32, torch.uint8, torch.bool]),
)
def spec_integers_filled_with_a_tensor_that_requires_grad_require_it_too(world, v, name, dtype):
    """A tensor of integers or booleans that is filled with a 0-dim tensor that requires grad, by fill_() or
    masked_fill_(), becomes a result that requires grad; by copy_() it doesn't. No backward goes through it."""
    y = world.constant(v).to(dtype)
    w = torch.full((), 3.0, device=world.device, requires_grad=True)
    write, recorded = CONVERTING[name]

    write(y, w)

    same(y, torch.full_like(y, 3, requires_grad=False), why=f"{name} was run")
    same((y.requires_grad, y.grad_fn is None), (recorded, not recorded), why=f"{name} was run on {dtype}")
    if recorded:
        with raises(RuntimeError, why=f"a gradient by {dtype} is none"):
            y.to(torch.float32).sum().backward()
    same(w.grad, None, why="no gradient comes to w")
