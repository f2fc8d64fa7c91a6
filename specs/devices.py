"""Where tensors and gradients are: copies between devices, and what devices do together."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import WRITABLE, claim, raises, same, values
from .kit.choices import some_of


def places(device):
    """The CPU, the device, and the next one of its kind (the same again if there is no other)."""
    kind = getattr(torch, device.type)
    index = kind.current_device() if device.index is None else device.index
    following = (index + 1) % kind.device_count()
    return [torch.device("cpu"), torch.device(device.type, index), torch.device(device.type, following)]


PLACE = st.integers(0, 2)  # which of the places
APART = st.sampled_from([(0, 1), (1, 0), (0, 2), (2, 0)])  # two of them that are certainly not the same


def assigned(x, place):
    """A tensor at the place into which x was written."""
    y = torch.empty(x.shape, dtype=x.dtype, device=place)
    y[...] = x
    return y


# Ways to bring the numbers of x to a place.
MOVES = {
    "x.to(place)": lambda x, place: x.to(place),
    "x.to(place, copy=True)": lambda x, place: x.to(place, copy=True),
    "x.to(a tensor there)": lambda x, place: x.to(torch.empty(0, dtype=x.dtype, device=place)),
    "torch.empty(x.shape, device=place).copy_(x)": lambda x, place: torch.empty(
        x.shape, dtype=x.dtype, device=place
    ).copy_(x),
    "y[...] = x": assigned,
}
JOURNEYS = st.lists(st.tuples(PLACE, st.sampled_from(list(MOVES)), st.integers(-3, 3)), min_size=1, max_size=5)


@claim(cites=["torch_tensor/results-that-require-grad-are-not-leaves"], needs=["accelerator"])
@given(v=values(), start=PLACE, journey=JOURNEYS)
def spec_a_copy_to_another_device_passes_the_gradient_back(world, v, start, journey):
    """A copy of a tensor on another device is an operation like others: the gradient is copied back, also over several
    devices, and the gradients of all copies add up on the device of the leaf."""
    there = places(world.device)
    x = world.constant(v).to(there[start]).requires_grad_()

    y, loss = x, torch.zeros((), dtype=x.dtype)
    for place, move, factor in journey:
        y = MOVES[move](y, there[place])
        loss = loss + (y * factor).sum().cpu()
    loss.backward()

    expected = torch.full_like(x, sum(factor for _, _, factor in journey)).detach()
    same(x.grad, expected, why=f"the copies were multiplied by {[factor for _, _, factor in journey]}")


@claim(
    cites=[
        "torch_tensor/results-that-require-grad-are-not-leaves",
        "torch_tensor/requiring-grad-after-a-copy-makes-a-leaf",
    ],
    needs=["accelerator"],
)
@given(v=values(), way=APART, move=st.sampled_from(list(MOVES)), required=st.booleans())
def spec_a_copy_of_a_leaf_is_a_result_on_its_own_device(world, v, way, move, required):
    """A copy on another device of a leaf that requires grad is no leaf; a .grad that it retains is on its own device.
    A copy of a tensor that doesn't require grad is a leaf, and can be made to."""
    here, there = (places(world.device)[place] for place in way)
    x = world.constant(v).to(here).requires_grad_(required)

    y = MOVES[move](x, there)
    same([y.requires_grad, y.is_leaf], [required, not required], why=f"x.requires_grad is {required}")
    if required:
        y.retain_grad()
    else:
        y.requires_grad_()
    (y * 3).sum().backward()

    same(y.grad, torch.full(x.shape, 3, dtype=x.dtype, device=there), why="the gradient of 3y, where y is")
    gradient = torch.full(x.shape, 3, dtype=x.dtype, device=here)
    same(x.grad, gradient if required else None, why="the gradient of 3x, where x is, if x requires grad")


@claim(cites=["torch_tensor/grad-accumulates"], needs=["accelerator", "float64"])
@given(
    drawn=st.lists(st.tuples(values(), PLACE, st.integers(-3, 3)), min_size=1, max_size=4),
    at=PLACE,
    passes=st.integers(1, 3),
)
def spec_each_leaf_gets_its_gradient_on_its_own_device(world, drawn, at, passes):
    """Leaves of one loss may be on several devices: each gets its .grad on its own, where later backwards add to it."""
    there = places(world.device)
    leaves = [world.constant(v).to(there[place]).requires_grad_() for v, place, _ in drawn]

    for _ in range(passes):
        losses = [(x.to(there[at]) * factor).sum() for x, (_, _, factor) in zip(leaves, drawn)]
        sum(loss.double() for loss in losses).backward()

    for x, (_, _, factor) in zip(leaves, drawn):
        same(x.grad, torch.full_like(x, passes * factor).detach(), why=f"{passes} backwards of {factor} * x")


STEPS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.sampled_from("+-*"), PLACE), min_size=1, max_size=6)


@claim(cites=["autograd_mechanics/chain-rule-from-roots-to-leaves"], needs=["accelerator", "float64"])
@given(
    drawn=st.lists(st.tuples(st.integers(-1, 1), PLACE), min_size=1, max_size=3),
    shape=st.sampled_from([(), (2,), (1, 3), (0,)]),
    steps=STEPS,
)
def spec_a_graph_may_span_devices(world, drawn, shape, steps):
    """The operations of a graph may be done on any devices in turn: each leaf gets the gradient by the chain rule, and
    a leaf that the loss doesn't depend on gets none."""
    there = places(world.device)
    leaves = [
        torch.full(shape, number, dtype=torch.float64, device=there[place]).requires_grad_() for number, place in drawn
    ]

    tensors = list(leaves)
    for first, second, sign, place in steps:
        a, b = (tensors[n % len(tensors)].to(there[place]) for n in (first, second))
        tensors.append(a + b if sign == "+" else a - b if sign == "-" else a * b)
    tensors[-1].sum().backward()

    for position, x in enumerate(leaves):
        expected = slope(drawn, steps, position)
        grad = None if expected is None else torch.full(shape, expected, dtype=torch.float64, device=x.device)
        same(x.grad, grad, why=f"leaf {position} of {drawn}, {steps}")


def slope(drawn, steps, position):
    """The derivative of the last result by a leaf, from the first step to the last; None if it doesn't depend on it."""
    numbers = [number for number, _ in drawn]
    slopes = [1 if n == position else None for n in range(len(drawn))]
    for first, second, sign, _ in steps:
        (a, da), (b, db) = ((numbers[n % len(numbers)], slopes[n % len(numbers)]) for n in (first, second))
        numbers.append(a + b if sign == "+" else a - b if sign == "-" else a * b)
        if da is None and db is None:
            slopes.append(None)
        else:
            da, db = da or 0, db or 0
            slopes.append(da + db if sign == "+" else da - db if sign == "-" else da * b + a * db)
    return slopes[-1]


@claim(cites=["torch_tensor/grad-can-be-set"], needs=["accelerator"])
@given(v=values(), start=st.integers(-3, 3), turned=st.booleans())
def spec_grad_takes_no_tensor_of_another_kind_of_device(world, v, start, turned):
    """Setting .grad to a tensor on another kind of device raises an error that says so, and leaves .grad as it is."""
    here, there = places(world.device)[:2][:: -1 if turned else 1]
    x = world.constant(v).to(here).requires_grad_()
    x.grad = old = torch.full_like(x, start).detach()

    with raises(RuntimeError, "device", "type", why=f"x is on {here}, the other tensor on {there}"):
        x.grad = torch.zeros(x.shape, dtype=x.dtype, device=there)

    same([x.grad is old, x.grad], [True, torch.full_like(x, start).detach()], why="the assignment failed")


@claim(cites=["torch_tensor/grad-can-be-set"], since="2.6", needs=["second-device"])
@given(v=values(), start=st.integers(-3, 3))
def spec_grad_takes_no_tensor_of_another_device_of_the_same_kind(world, v, start):
    """Setting .grad to a tensor on another device of the same kind raises an error and leaves .grad as it is."""
    _, here, there = places(world.device)
    x = world.constant(v).to(here).requires_grad_()
    x.grad = old = torch.full_like(x, start).detach()

    with raises(RuntimeError, "device", why=f"x is on {here}, the other tensor on {there}"):
        x.grad = torch.zeros(x.shape, dtype=x.dtype, device=there)

    same([x.grad is old, x.grad], [True, torch.full_like(x, start).detach()], why="the assignment failed")


WITH_DIMENSIONS = ((1,), (3,), (2, 2), (1, 3))
CALLS = {
    "y.backward(g)": lambda y, x, g: y.backward(g, inputs=[x]),
    "torch.autograd.backward(y, g)": lambda y, x, g: torch.autograd.backward(y, g),
    "torch.autograd.grad(y, x, g)": lambda y, x, g: torch.autograd.grad(y, x, g),
}


@claim(cites=["torch_tensor/a-gradient-is-where-its-tensor-is"], needs=["accelerator"])
@given(v=values(shapes=WITH_DIMENSIONS), here=PLACE, there=PLACE, call=st.sampled_from(list(CALLS)))
def spec_a_gradient_from_another_device_is_refused(world, v, here, there, call):
    """A gradient passed to backward or torch.autograd.grad has to be on the device of the tensor: one from another
    device is an error that changes nothing and frees nothing."""
    here, there = places(world.device)[here], places(world.device)[there]
    x = world.constant(v).to(here).requires_grad_()
    y = x * x

    if here != there:
        with raises(RuntimeError, "device", why=f"y is on {here}, the gradient on {there}"):
            CALLS[call](y, x, torch.ones(x.shape, dtype=x.dtype, device=there))
        same(x.grad, None, why="there was an error")

    y.backward(torch.ones(x.shape, dtype=x.dtype, device=here))
    same(x.grad, 2 * x.detach(), why="the graph is as it was")


@claim(cites=["torch_tensor/a-gradient-is-where-its-tensor-is"], observed=True, needs=["accelerator"])
@given(v=values(), here=PLACE, there=PLACE, number=st.integers(-3, 3))
def spec_a_gradient_of_no_dimensions_may_come_from_another_device(world, v, here, there, number):
    """For a root of no dimensions the gradient may be on another device, from which it is copied."""
    here, there = places(world.device)[here], places(world.device)[there]
    x = world.constant(v).to(here).requires_grad_()

    (x * 2).sum().backward(torch.tensor(number, dtype=x.dtype, device=there))

    same(x.grad, torch.full_like(x, 2 * number).detach(), why=f"the gradient was {number}, on {there}")


# Operations of two square matrices, and such as write into the first one.
TOGETHER = {
    "a + b": lambda a, b: a + b,
    "a * b": lambda a, b: a * b,
    "a @ b": lambda a, b: a @ b,
    "torch.maximum(a, b)": lambda a, b: torch.maximum(a, b),
    "torch.where(a > 0, a, b)": lambda a, b: torch.where(a > 0, a, b),
    "torch.cat([a, b])": lambda a, b: torch.cat([a, b]),
    "torch.stack([a, b])": lambda a, b: torch.stack([a, b]),
    "torch.dot(a[0], b[0])": lambda a, b: torch.dot(a[0], b[0]),
    "torch.addmm(a, a, b)": lambda a, b: torch.addmm(a, a, b),
    "a.masked_fill(b > 0, 1)": lambda a, b: a.masked_fill(b > 0, 1),
    "a.gather(0, b.long())": lambda a, b: a.gather(0, (b * 0).long()),
    "torch.nn.functional.linear(a, b)": lambda a, b: torch.nn.functional.linear(a, b),
    "a.add_(b)": lambda a, b: a.add_(b),
    "a.mul_(b)": lambda a, b: a.mul_(b),
    "a.addmm_(a, b)": lambda a, b: a.addmm_(a, b),
    "a[0].sub_(b[0])": lambda a, b: a[0].sub_(b[0]),
}


@claim(cites=["cuda_semantics/operations-between-devices-are-refused"], needs=["accelerator"])
@given(
    v=values(shapes=((1, 1), (2, 2), (3, 3)), layouts=WRITABLE),
    here=PLACE,
    there=PLACE,
    codes=some_of(TOGETHER),
    first=st.booleans(),
    second=st.booleans(),
)
def spec_an_operation_between_devices_is_an_error_that_changes_nothing(world, v, here, there, codes, first, second):
    """An operation on tensors of several devices is an error: no tensor is changed, nothing is recorded, no write is
    counted, and a graph that they belong to can be used."""
    here, there = places(world.device)[here], places(world.device)[there]
    x = world.constant(v).to(here).requires_grad_(first)
    w = world.constant(v).to(there).requires_grad_(second)
    a, b = x * 1, w * 1
    before = [(t.detach().clone(), t._version, t.grad_fn) for t in (a, b)]

    for code in codes if here != there else ():
        with raises(RuntimeError, "device", why=f"{code}, a on {here} and b on {there}"):
            TOGETHER[code](a, b)
        for t, (old, version, grad_fn) in zip((a, b), before):
            same([t, t._version, t.grad_fn is grad_fn], [old, version, True], why=f"{code} failed")
    for t, leaf, required in ((a, x, first), (b, w, second)):
        if required:
            (t * t).sum().backward()
            same(leaf.grad, 2 * leaf.detach(), why="the graph is as it was")


# Operations with a number n, and their derivatives by x and by n.
WITH_A_NUMBER = {
    "x * n": (lambda x, n: x * n, lambda x, n: (torch.ones_like(x) * n.item(), x)),
    "n * x": (lambda x, n: n * x, lambda x, n: (torch.ones_like(x) * n.item(), x)),
    "x + n": (lambda x, n: x + n, lambda x, n: (torch.ones_like(x), torch.ones_like(x))),
    "n - x": (lambda x, n: n - x, lambda x, n: (-torch.ones_like(x), torch.ones_like(x))),
    "torch.where(x == x, x, n)": (
        lambda x, n: torch.where(x == x, x, n.to(x.dtype)),
        lambda x, n: (torch.ones_like(x), torch.zeros_like(x)),
    ),
    "(x * 1).mul_(n)": (lambda x, n: (x * 1).mul_(n), lambda x, n: (torch.ones_like(x) * n.item(), x)),
    "(x * 1).sub_(n)": (lambda x, n: (x * 1).sub_(n), lambda x, n: (torch.ones_like(x), -torch.ones_like(x))),
}


@claim(cites=["cuda_semantics/operations-between-devices-are-refused"], needs=["accelerator"])
@given(v=values(), n=values(shapes=((),)), code=st.sampled_from(list(WITH_A_NUMBER)), uses=st.integers(1, 3))
def spec_a_number_on_the_cpu_is_used_with_tensors_of_a_device(world, v, n, code, uses):
    """A tensor of no dimensions on the CPU takes part in operations on tensors of a device. The result is there; the
    gradient of the number is on the CPU, the sum over all elements that it was used with."""
    x = world.leaf(v)
    number = world.constant(n).cpu().requires_grad_()
    operation, derivatives = WITH_A_NUMBER[code]

    for _ in range(uses):
        y = operation(x, number)
        same(y.device, x.device, why=f"{code}, with n on the CPU")
        y.sum().backward()

    by_x, by_n = derivatives(x.detach(), number.detach())
    same(x.grad, uses * by_x, why=f"the derivative of {code} by x")
    same(number.grad, uses * by_n.sum().to("cpu", number.dtype), why=f"the derivative of {code} by n")


@claim(cites=["cuda_semantics/operations-between-devices-are-refused"], needs=["accelerator"])
@given(
    v=values(shapes=((2,), (3,), (2, 2), (3, 1))),
    rows=st.lists(st.integers(0, 1), min_size=0, max_size=4),
    factor=st.integers(-3, 3),
    written=st.booleans(),
)
def spec_positions_on_the_cpu_index_a_tensor_of_a_device(world, v, rows, factor, written):
    """Positions on the CPU index a tensor of a device, for reading and for writing; each row's gradient is that of its
    uses. The other way round, positions of a device for a tensor on the CPU, is an error."""
    x = world.leaf(v)
    positions = torch.tensor(rows, dtype=torch.int64)

    if written:
        y = x * 2
        y[positions] = torch.zeros((), dtype=x.dtype, device=x.device)
        uses = torch.tensor([0 if n in rows else 2 for n in range(len(x))])
    else:
        y = x[positions]
        uses = torch.tensor([rows.count(n) for n in range(len(x))])
    (y * factor).sum().backward()

    expected = (uses * factor).to(x.device, x.dtype).reshape(-1, *[1] * (x.dim() - 1)).expand(x.shape)
    same(x.grad, expected, why=f"rows {rows} were {'overwritten' if written else 'read'}")
    with raises(RuntimeError, "device", "cpu", why="x is on the CPU, its positions aren't"):
        x.detach().cpu()[positions.to(x.device)]


@claim(cites=["cuda_semantics/results-are-where-their-tensors-are"], needs=["second-device"])
@given(
    v=values(),
    at=st.integers(1, 2),
    current=st.lists(st.integers(1, 2), min_size=2, max_size=2),
    factor=st.integers(-3, 3),
)
def spec_the_current_device_decides_for_new_tensors_only(world, v, at, current, factor):
    """Results and gradients are on the device of their tensors, whichever device is the current one in forward and in
    backward; backward leaves it the current one."""
    there = places(world.device)
    kind = getattr(torch, world.device.type)
    x = world.constant(v).to(there[at]).requires_grad_()

    with kind.device(there[current[0]]):
        same(torch.empty(0, device=world.device.type).device, there[current[0]], why="that is the current device")
        y = (x * factor).sum()
        same(y.device, there[at], why=f"x is on {there[at]}")
    with kind.device(there[current[1]]):
        y.backward()
        same(kind.current_device(), there[current[1]].index, why="backward leaves the current device alone")

    same(x.grad, torch.full_like(x, factor).detach(), why="the gradient is where x is")
