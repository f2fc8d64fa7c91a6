"""Kinks, ties and steps: points where a function has no derivative, and what backward uses there."""

import itertools
import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from .kit import SHAPES, claim, same, values
from .kit.tensors import counting

# Functions made of straight lines: where their kinks are, and the slopes before, between and behind them.
PIECEWISE_LINEAR = {
    "x.abs()": (lambda x: x.abs(), (0,), (-1, 1)),
    "-x.abs()": (lambda x: -x.abs(), (0,), (1, -1)),
    "x.relu()": (lambda x: x.relu(), (0,), (0, 1)),
    "-functional.relu(-x)": (lambda x: -functional.relu(-x), (0,), (1, 0)),
    "functional.threshold(x, 1, 1)": (lambda x: functional.threshold(x, 1, 1), (1,), (0, 1)),
    "functional.leaky_relu(x, 0.25)": (lambda x: functional.leaky_relu(x, 0.25), (0,), (0.25, 1)),
    "functional.prelu(x, weight)": (lambda x: functional.prelu(x, torch.full((1,), 0.25).to(x)), (0,), (0.25, 1)),
    "functional.relu6(x + 3)": (lambda x: functional.relu6(x + 3), (-3, 3), (0, 1, 0)),
    "functional.hardtanh(x, -2, 2)": (lambda x: functional.hardtanh(x, -2, 2), (-2, 2), (0, 1, 0)),
    "functional.softshrink(x, 2)": (lambda x: functional.softshrink(x, 2), (-2, 2), (1, 0, 1)),
    "functional.l1_loss(x, zeros, reduction='none')": (
        lambda x: functional.l1_loss(x, torch.zeros_like(x), reduction="none"),
        (0,),
        (-1, 1),
    ),
    "functional.l1_loss(x, zeros, reduction='sum')": (
        lambda x: functional.l1_loss(x, torch.zeros_like(x), reduction="sum"),
        (0,),
        (-1, 1),
    ),
    "torch.linalg.vector_norm(x, 1)": (lambda x: torch.linalg.vector_norm(x, 1), (0,), (-1, 1)),
    "torch.dist(x, zeros, 1)": (lambda x: torch.dist(x, torch.zeros_like(x), 1), (0,), (-1, 1)),
}

# Kinks at which the slope on one side is taken, though that on the other side has the smaller magnitude.
ONE_SIDED = {
    "functional.leaky_relu(x, 2.0)": (lambda x: functional.leaky_relu(x, 2.0), 2),
    "functional.leaky_relu(x, -1.0)": (lambda x: functional.leaky_relu(x, -1.0), -1),
    "functional.elu(x, 2.0)": (lambda x: functional.elu(x, 2.0), 2),
}

# Functions that cut x off at 1: below it, or above it.
CUTS = {
    "x.clamp(min=1)": (lambda x: x.clamp(min=1), "above"),
    "x.clamp_min(1)": (lambda x: x.clamp_min(1), "above"),
    "x.clamp(1, 9)": (lambda x: x.clamp(1, 9), "above"),
    "x.clip(1)": (lambda x: x.clip(1), "above"),
    "(x * 1).clamp_(min=1)": (lambda x: (x * 1).clamp_(min=1), "above"),
    "x.clamp(max=1)": (lambda x: x.clamp(max=1), "below"),
    "x.clamp_max(1)": (lambda x: x.clamp_max(1), "below"),
    "x.clamp(-9, 1)": (lambda x: x.clamp(-9, 1), "below"),
    "(x * 1).clamp_(max=1)": (lambda x: (x * 1).clamp_(max=1), "below"),
}

# Norms of a vector of zeros.
NORMS = {
    "x.norm()": lambda x: x.norm(),
    "x.norm(1)": lambda x: x.norm(1),
    "x.norm(3)": lambda x: x.norm(3),
    "x.norm(math.inf)": lambda x: x.norm(math.inf),
    "x.norm(dim=-1)": lambda x: x.norm(dim=-1),
    "torch.linalg.vector_norm(x)": lambda x: torch.linalg.vector_norm(x),
    "torch.linalg.vector_norm(x, 3)": lambda x: torch.linalg.vector_norm(x, 3),
    "torch.dist(x, zeros)": lambda x: torch.dist(x, torch.zeros_like(x)),
    "torch.cdist([x], [zeros])": lambda x: torch.cdist(x.reshape(1, -1), torch.zeros_like(x).reshape(1, -1)),
}

# Functions of all elements of a vector whose value several of them may have, and which value that is.
EXTREMES = {
    "x.max()": (lambda x: x.max(), max),
    "x.min()": (lambda x: x.min(), min),
    "x.amax()": (lambda x: x.amax(), max),
    "x.amin(0)": (lambda x: x.amin(0), min),
    "x.amax((0,), keepdim=True)": (lambda x: x.amax((0,), keepdim=True), max),
    "x.norm(math.inf)": (lambda x: x.norm(math.inf), max),
    "x.median()": (lambda x: x.median(), lambda numbers: sorted(numbers)[(len(numbers) - 1) // 2]),
    "zeros.scatter_reduce(0, index, x, 'amax')": (
        lambda x: x.new_zeros(1).scatter_reduce(0, torch.zeros_like(x, dtype=torch.long), x, "amax"),
        max,
    ),
}

# Functions of two tensors, element by element, that take the one or the other.
LARGER_OR_SMALLER = {
    "torch.maximum(x, y)": (lambda x, y: torch.maximum(x, y), max),
    "torch.minimum(x, y)": (lambda x, y: torch.minimum(x, y), min),
    "torch.max(x, y)": (lambda x, y: torch.max(x, y), max),
    "torch.min(x, y)": (lambda x, y: torch.min(x, y), min),
}
LARGER_OR_SMALLER_THAT_PREFERRED_THE_FIRST = {
    "torch.fmax(x, y)": (lambda x, y: torch.fmax(x, y), max),
    "torch.fmin(x, y)": (lambda x, y: torch.fmin(x, y), min),
    "x.clamp(min=y)": (lambda x, y: x.clamp(min=y), max),
    "x.clamp(max=y)": (lambda x, y: x.clamp(max=y), min),
}

# Functions along the first dimension that tell which elements they took.
WITH_INDICES = {
    "x.max(0, True)": lambda x: x.max(0, True),
    "x.min(0, True)": lambda x: x.min(0, True),
    "x.median(0, True)": lambda x: x.median(0, True),
    "x.nanmedian(0, True)": lambda x: x.nanmedian(0, True),
    "x.mode(0, True)": lambda x: x.mode(0, True),
    "x.kthvalue(1, 0, True)": lambda x: x.kthvalue(1, 0, True),
    "x.topk(1, 0)": lambda x: x.topk(1, 0),
    "x.sort(0)": lambda x: x.sort(0),
    "x.sort(dim=0, descending=True)": lambda x: x.sort(dim=0, descending=True),
    "x.cummax(0)": lambda x: x.cummax(0),
    "x.cummin(0)": lambda x: x.cummin(0),
}

PIECEWISE_CONSTANT = {
    "x.sign()": lambda x: x.sign(),
    "x.round()": lambda x: x.round(),
    "x.floor()": lambda x: x.floor(),
    "x.ceil()": lambda x: x.ceil(),
    "x.trunc()": lambda x: x.trunc(),
    "torch.div(x, 2, rounding_mode='floor')": lambda x: torch.div(x, 2, rounding_mode="floor"),
    "torch.div(x, 2, rounding_mode='trunc')": lambda x: torch.div(x, 2, rounding_mode="trunc"),
}

# What is left of x after a division by y, and the quotient that is taken off.
REMAINDERS = {
    "x.fmod(y)": (lambda x, y: x.fmod(y), torch.trunc),
    "x.remainder(y)": (lambda x, y: x.remainder(y), torch.floor),
    "x % y": (lambda x, y: x % y, torch.floor),
}

RULES = "autograd_mechanics/non-differentiable-"
ANY_SHAPE = st.sampled_from([shape for shape in SHAPES if 0 not in shape])
NUMBERS = st.sampled_from([n for size in range(1, 5) for n in itertools.product((1, 2), repeat=size)])  # many ties
COTANGENT = st.sampled_from([12, -12, 24])  # a number that 1, 2, 3 and 4 divide


def smallest_between(before, behind):
    """The number of the smallest magnitude between two numbers."""
    return 0 if before * behind <= 0 else min(before, behind, key=abs)


@claim(cites=[RULES + "rule-1-derivative"])
@given(v=values(), function=st.sampled_from(list(PIECEWISE_LINEAR)))
def spec_between_its_kinks_a_function_of_straight_lines_has_the_slope_of_the_line(world, v, function):
    """Where a function is differentiable its derivative is what backward uses, as close to a kink as it may be."""
    f, kinks, slopes = PIECEWISE_LINEAR[function]
    x = world.leaf(v)
    y = f(x)
    slope = torch.zeros_like(x)
    for number, line in enumerate(slopes):
        slope[(x > (-math.inf, *kinks)[number]) & (x < (*kinks, math.inf)[number])] = line
    kink = sum(x == k for k in kinks) > 0

    y.backward(counting(y))

    expected = (counting(y) * slope).masked_fill(kink, 0)
    same(x.grad.masked_fill(kink, 0), expected, why=f"each line of {function} has its slope")


@claim(cites=[RULES + "rule-2-convex", RULES + "rule-3-concave"])
@given(shape=ANY_SHAPE, function=st.sampled_from(list(PIECEWISE_LINEAR)), kink=st.integers(0, 1))
def spec_at_a_kink_the_slope_of_the_smallest_magnitude_is_taken(world, shape, function, kink):
    """At a kink, where two lines of different slopes meet, backward uses the number of the smallest magnitude
    between the two slopes: 0 at the kinks of relu, abs, hardtanh or softshrink, and 1/4 at that of leaky_relu
    with this slope."""
    f, kinks, slopes = PIECEWISE_LINEAR[function]
    number = kink % len(kinks)
    x = torch.full(shape, float(kinks[number]), device=world.device, requires_grad=True)
    y = f(x)

    y.backward(counting(y))

    slope = smallest_between(slopes[number], slopes[number + 1])
    expected = (counting(y) * slope).expand(shape)
    same(x.grad, expected, why=f"slopes {slopes[number]} and {slopes[number + 1]} meet at {kinks[number]}")


@claim(observed=True, cites=[RULES + "rule-2-convex", RULES + "rule-3-concave"])
@given(shape=ANY_SHAPE, function=st.sampled_from(list(ONE_SIDED)))
def spec_leaky_relu_and_elu_have_the_slope_of_the_negative_side_at_zero(world, shape, function):
    """The derivative of leaky_relu and elu at 0 is that of their negative side, also where the other slope, 1 or
    a number between them, is of a smaller magnitude."""
    f, slope = ONE_SIDED[function]
    x = torch.zeros(shape, device=world.device, requires_grad=True)
    y = f(x)

    y.backward(counting(y))

    same(x.grad, counting(y) * slope, why=f"{slope} is the slope of {function} on the left of 0")


@claim(cites=[RULES + "rule-2-convex", RULES + "rule-3-concave"], until="2.14")
@given(v=values(), function=st.sampled_from(list(CUTS)))
def spec_clamp_passes_the_whole_gradient_at_its_bound(world, v, function):
    """At its bound clamp passes the gradient on as if the number were not cut off."""
    f, side = CUTS[function]
    x = world.leaf(v)
    y = f(x)

    y.backward(counting(y))

    passed = x >= 1 if side == "above" else x <= 1
    same(x.grad, counting(y) * passed, why=f"{function} is x itself {side} 1 and at 1")


@claim(cites=[RULES + "rule-2-convex", RULES + "rule-3-concave"], since="2.14")
@given(v=values(), function=st.sampled_from(list(CUTS)))
def spec_clamp_passes_no_gradient_at_its_bound(world, v, function):
    """At its bound, where the slopes 0 and 1 meet, clamp passes no gradient on."""
    f, side = CUTS[function]
    x = world.leaf(v)
    y = f(x)

    y.backward(counting(y))

    passed = x > 1 if side == "above" else x < 1
    same(x.grad, counting(y) * passed, why=f"{function} is x itself {side} 1, and has a kink at 1")


@claim(cites=[RULES + "rule-3-concave"], since="2.8")
@given(shape=ANY_SHAPE, number=st.sampled_from([-3, 3]))
def spec_hardswish_has_the_slope_of_the_smallest_magnitude_at_its_kinks(world, shape, number):
    """The slopes of hardswish change from 0 to -1/2 at -3, and from 3/2 to 1 at 3: backward uses 0 and 1."""
    x = torch.full(shape, float(number), device=world.device, requires_grad=True)
    y = functional.hardswish(x)

    y.backward(counting(y))

    same(x.grad, counting(y) * {-3: 0, 3: 1}[number], why=f"this is the slope outside of the kink at {number}")


@claim(cites=[RULES + "rule-2-convex"])
@given(size=st.integers(1, 4), function=st.sampled_from(list(NORMS)), cotangent=COTANGENT)
def spec_the_derivative_of_a_norm_at_zero_is_zero(world, size, function, cotangent):
    """The gradient of a norm, or a distance, is 0 at the vector of zeros, where the norm has its minimum."""
    x = torch.zeros(size, device=world.device, requires_grad=True)
    y = NORMS[function](x)

    y.backward(torch.full_like(y, cotangent))

    same(x.grad, torch.zeros_like(x), why=f"{function} has its minimum at 0")


@claim(cites=[RULES + "rule-2-convex"])
@given(rows=st.lists(st.booleans(), min_size=1, max_size=4), p=st.sampled_from([2, 2.0, None]))
def spec_a_vector_of_zeros_does_not_disturb_the_norms_beside_it(world, rows, p):
    """If norms of several vectors are taken at once, those of zeros have the gradient 0, and the others theirs."""
    x = torch.tensor([[3.0, -4.0] if row else [0.0, 0.0] for row in rows], device=world.device, requires_grad=True)
    y = x.norm(p, dim=1) if p else torch.linalg.vector_norm(x, dim=1)

    y.backward(torch.full_like(y, 5))

    same(x.grad, x.detach(), why="the gradient of the norm of (3, -4) is (3/5, -4/5), and 5 was passed")


@claim(cites=[RULES + "ties"])
@given(numbers=NUMBERS, function=st.sampled_from(list(EXTREMES)), cotangent=COTANGENT)
def spec_the_extreme_elements_of_a_tensor_share_the_gradient(world, numbers, function, cotangent):
    """Where several elements are the maximum, minimum or median of a tensor, they get equal parts of its gradient,
    and the others get 0."""
    f, pick = EXTREMES[function]
    x = torch.tensor(numbers, dtype=torch.float32, device=world.device, requires_grad=True)
    y = f(x)

    y.backward(torch.full_like(y, cotangent))

    taken = [number == pick(numbers) for number in numbers]
    expected = torch.tensor([cotangent / sum(taken) * t for t in taken], device=world.device)
    same(x.grad, expected, why=f"{sum(taken)} of the elements are {function}")


@claim(cites=[RULES + "ties"])
@given(
    numbers=NUMBERS,
    others=NUMBERS,
    function=st.sampled_from(list(LARGER_OR_SMALLER)),
    learned=st.sampled_from(["x", "y", "both"]),
    cotangent=COTANGENT,
)
def spec_two_equal_elements_share_the_gradient_of_their_maximum(world, numbers, others, function, learned, cotangent):
    """maximum and minimum of two tensors give each of two equal elements one half of the gradient, and all of it to
    the element that was taken of two different ones. It doesn't matter which of the tensors requires grad."""
    f, pick = LARGER_OR_SMALLER[function]
    pairs = list(zip(numbers, others, strict=False))
    x, y = torch.tensor(pairs, dtype=torch.float32, device=world.device).t()
    x.requires_grad_(learned != "y"), y.requires_grad_(learned != "x")
    z = f(x, y)

    z.backward(torch.full_like(z, cotangent))

    for which, tensor in enumerate([x, y]):
        share = [0.5 if a == b else (a, b)[which] == pick(a, b) for a, b in pairs]
        expected = torch.tensor([cotangent * s for s in share], dtype=torch.float32, device=world.device)
        if tensor.requires_grad:
            same(tensor.grad, expected, why=f"{function} of {pairs}, one half each where they are equal")
        else:
            same(tensor.grad, None, why="it doesn't require grad")


@claim(cites=[RULES + "ties"], until="2.14")
@given(
    numbers=NUMBERS,
    others=NUMBERS,
    function=st.sampled_from(list(LARGER_OR_SMALLER_THAT_PREFERRED_THE_FIRST)),
    cotangent=COTANGENT,
)
def spec_fmax_and_clamp_give_the_gradient_of_equal_elements_to_the_first(world, numbers, others, function, cotangent):
    """fmax, fmin and clamp with a tensor as its bound give the whole gradient to the first of two equal elements."""
    f, pick = LARGER_OR_SMALLER_THAT_PREFERRED_THE_FIRST[function]
    pairs = list(zip(numbers, others, strict=False))
    x, y = (t.requires_grad_() for t in torch.tensor(pairs, dtype=torch.float32, device=world.device).t())
    z = f(x, y)

    z.backward(torch.full_like(z, cotangent))

    first = torch.tensor([a == pick(a, b) for a, b in pairs], device=world.device)
    same(x.grad, cotangent * first.float(), why=f"{function} of {pairs}: the first where they are equal")
    same(y.grad, cotangent * (~first).float(), why=f"{function} of {pairs}: the first where they are equal")


@claim(cites=[RULES + "ties"], since="2.14")
@given(
    numbers=NUMBERS,
    others=NUMBERS,
    function=st.sampled_from(list(LARGER_OR_SMALLER_THAT_PREFERRED_THE_FIRST)),
    cotangent=COTANGENT,
)
def spec_equal_elements_share_the_gradient_of_fmax_and_clamp(world, numbers, others, function, cotangent):
    """fmax, fmin and clamp with a tensor as its bound give each of two equal elements one half of the gradient."""
    f, pick = LARGER_OR_SMALLER_THAT_PREFERRED_THE_FIRST[function]
    pairs = list(zip(numbers, others, strict=False))
    x, y = (t.requires_grad_() for t in torch.tensor(pairs, dtype=torch.float32, device=world.device).t())
    z = f(x, y)

    z.backward(torch.full_like(z, cotangent))

    share = torch.tensor([0.5 if a == b else float(a == pick(a, b)) for a, b in pairs], device=world.device)
    same(x.grad, cotangent * share, why=f"{function} of {pairs}, one half each where they are equal")
    same(y.grad, cotangent * (1 - share), why=f"{function} of {pairs}, one half each where they are equal")


@claim(cites=[RULES + "ties"])
@given(
    rows=st.lists(st.tuples(st.integers(1, 2), st.integers(1, 2)), min_size=1, max_size=4),
    function=st.sampled_from(list(WITH_INDICES)),
)
def spec_the_gradient_goes_to_the_elements_that_the_indices_name(world, rows, function):
    """Functions that return indices beside the values (max, median, topk, sort, cummax along a dimension) give all of
    the gradient to the elements that the indices name, and nothing to others that are equal to them."""
    x = torch.tensor(rows, dtype=torch.float32, device=world.device, requires_grad=True)
    y, indices = WITH_INDICES[function](x)

    y.backward(counting(y))

    expected = torch.zeros_like(x).scatter_add_(0, indices, counting(y))
    same(x.grad, expected, why=f"{function} took the elements at {indices.tolist()}")


@claim(cites=[RULES + "rule-1-derivative", RULES + "rule-4-continuity"])
@given(v=values(), halves=st.booleans(), function=st.sampled_from(list(PIECEWISE_CONSTANT)))
def spec_a_step_function_passes_zeros_back_also_at_its_steps(world, v, halves, function):
    """sign, round, floor, ceil, trunc and divisions rounded down or to zero are recorded like any operation; the
    gradient that they pass back is 0 everywhere, also where they jump."""
    x = world.leaf(v)
    y = PIECEWISE_CONSTANT[function](x / 2 if halves else x)
    same((y.requires_grad, y.is_leaf), (True, False), why=f"{function} is an operation on a tensor that requires grad")

    y.backward(counting(y))

    same(x.grad, torch.zeros_like(x), why=f"{function} is constant beside its jumps")


@claim(cites=[RULES + "rule-4-continuity"])
@given(v=values(), divisor=st.sampled_from([1, 2, -2, 4]), function=st.sampled_from(list(REMAINDERS)))
def spec_a_remainder_has_slope_one_also_where_it_jumps(world, v, divisor, function):
    """The derivative of a remainder by the dividend is 1, also where the remainder jumps, and by the divisor it is
    the quotient that was taken off, negated."""
    f, rounded = REMAINDERS[function]
    x = world.leaf(v)
    y = torch.full_like(x, divisor, requires_grad=True)
    z = f(x, y)

    z.backward(counting(z))

    same(x.grad, counting(z), why=f"{function} is x less a constant, beside its jumps")
    same(y.grad, -counting(z) * rounded(x.detach() / divisor), why=f"{function} is x - y * the rounded quotient")
