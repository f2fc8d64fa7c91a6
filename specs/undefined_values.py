"""The edge of a domain and beyond: infinite derivatives, NaN, divisions by zero, functions that draw at random."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import masked
from torch.nn import functional

from .kit import SHAPES, claim, raises, same, values
from .kit.tensors import counting

# At the edge of the domain: a function, the number there, and the limit of the derivative.
INFINITE_SLOPES = {
    "x.sqrt()": (lambda x: x.sqrt(), 0, math.inf),
    "x ** 0.5": (lambda x: x**0.5, 0, math.inf),
    "x.rsqrt()": (lambda x: x.rsqrt(), 0, -math.inf),
    "x.reciprocal()": (lambda x: x.reciprocal(), 0, -math.inf),
    "x ** -1": (lambda x: x**-1, 0, -math.inf),
    "x.log()": (lambda x: x.log(), 0, math.inf),
    "x.log2()": (lambda x: x.log2(), 0, math.inf),
    "x.log10()": (lambda x: x.log10(), 0, math.inf),
    "x.log1p()": (lambda x: x.log1p(), -1, math.inf),
    "x.logit()": (lambda x: x.logit(), 0, math.inf),
    "x.asin()": (lambda x: x.asin(), 1, math.inf),
    "x.acos()": (lambda x: x.acos(), -1, -math.inf),
    "x.acosh()": (lambda x: x.acosh(), 1, math.inf),
    "x.atanh()": (lambda x: x.atanh(), -1, math.inf),
    "x.erfinv()": (lambda x: x.erfinv(), 1, math.inf),
    "torch.special.entr(x)": (lambda x: torch.special.entr(x), 0, math.inf),
}

# Functions with a number outside of their domain, a number inside, and the derivative there.
OUTSIDE = {
    "x.sqrt()": (lambda x: x.sqrt(), -1, 4, 0.25),
    "x ** 1.5": (lambda x: x**1.5, -1, 4, 3),
    "x.rsqrt()": (lambda x: x.rsqrt(), -1, 1, -0.5),
    "x.log()": (lambda x: x.log(), -1, 4, 0.25),
    "x.log1p()": (lambda x: x.log1p(), -3, 3, 0.25),
    "x.asin()": (lambda x: x.asin(), 2, 0, 1),
    "x.acos()": (lambda x: x.acos(), -2, 0, -1),
    "x.atanh()": (lambda x: x.atanh(), 2, 0, 1),
    "x.acosh()": (lambda x: x.acosh(), 0, math.inf, 0),
    "x.relu()": (lambda x: x.relu(), math.nan, 2, 1),
    "x.abs()": (lambda x: x.abs(), math.nan, -2, -1),
    "x * x": (lambda x: x * x, math.nan, 2, 4),
    "x.maximum(0)": (lambda x: x.maximum(torch.zeros_like(x)), math.nan, 2, 1),
    "x.clamp(-9, 9)": (lambda x: x.clamp(-9, 9), math.nan, 2, 1),
}

# Functions that let only those elements through for which the condition holds.
GATES = {
    "x.relu()": (lambda x: x.relu(), lambda x: x > 0),
    "functional.hardtanh(x, -2, 2)": (lambda x: functional.hardtanh(x, -2, 2), lambda x: x.abs() < 2),
    "functional.relu6(x)": (lambda x: functional.relu6(x), lambda x: (x > 0) & (x < 6)),
    "functional.threshold(x, 1, 0)": (lambda x: functional.threshold(x, 1, 0), lambda x: x > 1),
    "functional.softshrink(x, 2)": (lambda x: functional.softshrink(x, 2), lambda x: x.abs() > 2),
    "functional.hardshrink(x, 2)": (lambda x: functional.hardshrink(x, 2), lambda x: x.abs() > 2),
    "x.clamp(-2.5, 2.5)": (lambda x: x.clamp(-2.5, 2.5), lambda x: x.abs() < 2.5),
    "torch.where(x > 0, x, zeros)": (lambda x: torch.where(x > 0, x, torch.zeros_like(x)), lambda x: x > 0),
    "torch.where(x > 0, zeros, x)": (lambda x: torch.where(x > 0, torch.zeros_like(x), x), lambda x: x <= 0),
    "x.masked_fill(x > 0, 0)": (lambda x: x.masked_fill(x > 0, 0), lambda x: x <= 0),
}

# Functions that draw random numbers, with x as what they draw from or where they put it.
RANDOM = {
    "torch.bernoulli(x)": lambda x: torch.bernoulli(x),
    "torch.poisson(x)": lambda x: torch.poisson(x),
    "torch.normal(x, 1.0)": lambda x: torch.normal(x, 1.0),
    "torch.normal(1.0, x)": lambda x: torch.normal(1.0, x),
    "torch.normal(x, x)": lambda x: torch.normal(x, x),
    "(x * 2).bernoulli_(0.5)": lambda x: (x * 2).bernoulli_(0.5),
    "(x * 2).uniform_()": lambda x: (x * 2).uniform_(),
    "(x * 2).normal_()": lambda x: (x * 2).normal_(),
    "(x * 2).exponential_()": lambda x: (x * 2).exponential_(),
    "(x * 2).geometric_(0.5)": lambda x: (x * 2).geometric_(0.5),
    "(x * 2).cauchy_()": lambda x: (x * 2).cauchy_(),
    "(x * 2).log_normal_()": lambda x: (x * 2).log_normal_(),
    "(x * 2).random_()": lambda x: (x * 2).random_(),
}

NOT_IMPLEMENTED = {
    "torch.binomial(ones, x)": lambda x: torch.binomial(torch.ones_like(x), x),
    "torch.heaviside(x, zeros)": lambda x: torch.heaviside(x, torch.zeros_like(x)),
    "x // 1": lambda x: x // 1,
}

# Ways to keep the elements of x / y where y is not 0, and to put 0 in the place of the others.
MASKED_AFTER = {
    "(x / y)[y != 0]": lambda x, y: (x / y)[y != 0],
    "torch.where(y != 0, x / y, 0)": lambda x, y: torch.where(y != 0, x / y, torch.zeros_like(x)),
    "(x / y).masked_fill(y == 0, 0)": lambda x, y: (x / y).masked_fill(y == 0, 0),
    "torch.where(y != 0, x * y.reciprocal(), 0)": lambda x, y: torch.where(
        y != 0, x * y.reciprocal(), torch.zeros_like(x)
    ),
}
MASKED_BEFORE = {
    "x[y != 0] / y[y != 0]": lambda x, y: x[y != 0] / y[y != 0],
    "x / torch.where(y != 0, y, 1) * (y != 0)": lambda x, y: x / torch.where(y != 0, y, torch.ones_like(y)) * (y != 0),
    "torch.zeros_like(x).index_put((y != 0,), ...)": lambda x, y: torch.zeros_like(x).index_put(
        (y != 0,), x[y != 0] / y[y != 0]
    ),
}

RULES = "autograd_mechanics/non-differentiable-"
ANY_SHAPE = st.sampled_from([shape for shape in SHAPES if 0 not in shape])


@claim(cites=[RULES + "rule-4-continuity"])
@given(
    shape=ANY_SHAPE,
    function=st.sampled_from(list(INFINITE_SLOPES)),
    cotangent=st.sampled_from([1, 2, -1, -3]),
)
def spec_at_the_edge_of_the_domain_the_derivative_is_the_limit(world, shape, function, cotangent):
    """At the edge of a function's domain the derivative is the limit of the derivatives inside, which may be
    infinite: that of sqrt and log at 0, say. It has the sign of the limit times that of the gradient passed."""
    f, edge, limit = INFINITE_SLOPES[function]
    x = torch.full(shape, float(edge), device=world.device, requires_grad=True)
    y = f(x)

    y.backward(torch.full_like(y, cotangent))

    same(x.grad, torch.full_like(x, cotangent * limit), why=f"the derivative of {function} goes to {limit} there")


@claim(cites=[RULES + "rule-5-undefined"])
@given(outside=st.lists(st.booleans(), min_size=1, max_size=4), function=st.sampled_from(list(OUTSIDE)))
def spec_outside_of_the_domain_backward_raises_nothing(world, outside, function):
    """Where a function is not defined, or its argument is NaN, backward raises no error and gives some number, which
    needn't be NaN. The other elements of the tensor get their gradients."""
    f, bad, good, slope = OUTSIDE[function]
    numbers = [float(bad if out else good) for out in outside]
    x = torch.tensor(numbers, device=world.device, requires_grad=True)
    y = f(x)

    y.backward(torch.full_like(y, 4))

    inside = [not out for out in outside]
    same(x.grad.shape, x.shape, why="there is a number for each element, whichever it is")
    same(x.grad[inside], torch.full_like(x, 4 * slope)[inside], why=f"{function} is differentiable at {good}")


@claim(cites=[RULES + "rule-5-undefined"], observed=True)
@given(number=st.sampled_from([-1, -2, -4, -0.5]), shape=ANY_SHAPE)
def spec_log_has_the_derivative_one_by_x_also_of_negative_numbers(world, number, shape):
    """The derivative that backward uses for log of a negative number is 1 / x, though the logarithm is NaN."""
    x = torch.full(shape, float(number), device=world.device, requires_grad=True)
    y = x.log()

    y.sum().backward()

    same(y.isnan(), torch.ones_like(y, dtype=torch.bool), why="negative numbers have no logarithm")
    same(x.grad, torch.full_like(x, 1 / number), why=f"1 / x is {1 / number}")


@claim(cites=[RULES + "rule-2-convex"], observed=True)
@given(shape=ANY_SHAPE)
def spec_hypot_has_no_gradient_at_the_origin(world, shape):
    """hypot, though it is the norm of two numbers, has the gradient NaN by both of them where both are 0."""
    x, y = torch.zeros((2, *shape), device=world.device).unbind()
    x.requires_grad_(), y.requires_grad_()

    torch.hypot(x, y).sum().backward()

    same(x.grad.isnan(), torch.ones_like(x, dtype=torch.bool), why="0 is divided by 0")
    same(y.grad.isnan(), torch.ones_like(y, dtype=torch.bool), why="0 is divided by 0")


@claim(cites=[RULES + "nan-cotangents"])
@given(
    v=values(),
    first=st.integers(0, 2),
    function=st.sampled_from(list(GATES)),
    spoilt=st.sampled_from(["nan", "inf"]),
)
def spec_a_gradient_that_is_nan_passes_only_where_the_function_lets_it_through(world, v, first, function, spoilt):
    """A NaN, or an infinity, in the gradient that is passed goes on to elements that a function like relu, clamp or
    where lets through. Those that it cuts off get 0 all the same."""
    f, lets_through = GATES[function]
    x = world.leaf(v)
    y = f(x)
    gradient = counting(y)
    gradient.view(-1)[first::3] = float(spoilt)
    through = lets_through(x.detach())

    y.backward(gradient)

    same(x.grad.isnan(), through & gradient.isnan(), why=f"{function} lets these elements through and no others")
    expected = torch.where(through, gradient, torch.zeros_like(gradient)).nan_to_num(-9, 99)
    same(x.grad.nan_to_num(-9, 99), expected, why=f"{function} lets these elements through and no others")


@claim(cites=[RULES + "division-by-zero"])
@given(
    pairs=st.lists(st.tuples(st.sampled_from([1, -2, 3, 0]), st.sampled_from([0, 1, 2, -4])), min_size=1, max_size=4),
    function=st.sampled_from(list(MASKED_AFTER)),
)
def spec_masking_the_result_of_a_division_by_zero_leaves_nan_in_the_gradient(world, pairs, function):
    """If elements that were divided by 0 are masked out afterwards, the gradient by them is NaN: the 0 that masking
    passes back is multiplied with an infinite derivative. The other elements get their gradients."""
    x = torch.tensor([float(a) for a, _ in pairs], device=world.device, requires_grad=True)
    y = torch.tensor([float(b) for _, b in pairs], device=world.device)

    MASKED_AFTER[function](x, y).sum().backward()

    zero = y == 0
    same(x.grad.isnan(), zero, why="these elements were divided by 0")
    same(x.grad[~zero], (1 / y)[~zero], why="the others were divided by these numbers")


@claim(cites=[RULES + "division-by-zero"])
@given(
    pairs=st.lists(st.tuples(st.sampled_from([1, -2, 3, 0]), st.sampled_from([0, 1, 2, -4])), min_size=1, max_size=4),
    function=st.sampled_from(list(MASKED_BEFORE)),
)
def spec_masking_before_a_division_by_zero_leaves_zeros_in_the_gradient(world, pairs, function):
    """If elements are masked out before they would be divided by 0, the gradient by them is 0."""
    x = torch.tensor([float(a) for a, _ in pairs], device=world.device, requires_grad=True)
    y = torch.tensor([float(b) for _, b in pairs], device=world.device)

    MASKED_BEFORE[function](x, y).sum().backward()

    expected = torch.where(y == 0, torch.zeros_like(y), 1 / y)
    same(x.grad, expected, why="nothing was divided by 0")


@claim(cites=[RULES + "division-by-zero"])
@given(
    pairs=st.lists(st.tuples(st.sampled_from([1, -2, 3]), st.sampled_from([0, 1, 2, -4])), min_size=1, max_size=4),
)
def spec_a_division_by_zero_has_an_infinite_gradient(world, pairs):
    """The derivative of x / y by x is 1 / y, which is infinite where y is 0, and the other elements don't see it."""
    x = torch.tensor([float(a) for a, _ in pairs], device=world.device, requires_grad=True)
    y = torch.tensor([float(b) for _, b in pairs], device=world.device)

    (x / y).sum().backward()

    same(x.grad, 1 / y, why="that is the derivative of x / y by x")


@claim(cites=[RULES + "masked-tensors"], since="2.0")
@given(
    pairs=st.lists(st.tuples(st.sampled_from([1, -2, 3, 0]), st.sampled_from([0, 1, 2, -4])), min_size=1, max_size=4)
)
def spec_a_masked_tensor_leaves_the_gradient_of_masked_elements_out(world, pairs):
    """If x / y is made a MaskedTensor that masks the divisions by 0 out, the gradient by x is a MaskedTensor with the
    same mask: it has the gradients of the other elements and none for those."""
    x = torch.tensor([float(a) for a, _ in pairs], device=world.device, requires_grad=True)
    y = torch.tensor([float(b) for _, b in pairs], device=world.device)

    masked.as_masked_tensor(x / y, y != 0).sum().backward()

    same(x.grad.get_mask(), y != 0, why="these elements took part")
    same(x.grad.to_tensor(0), torch.where(y == 0, torch.zeros_like(y), 1 / y), why="they were divided by these numbers")


@claim(cites=[RULES + "rule-4-continuity"])
@given(v=values(), as_tensor=st.booleans())
def spec_the_power_zero_has_the_derivative_zero_everywhere(world, v, as_tensor):
    """The derivative of x ** 0 by x is 0, also at 0, where a formula with 1 / x would give NaN."""
    x = world.leaf(v)
    y = x ** (torch.zeros_like(x) if as_tensor else 0)

    y.backward(counting(y))

    same(x.grad, torch.zeros_like(x), why="x ** 0 is 1 for each x")


@claim(cites=[RULES + "rule-4-continuity"])
@given(exponents=st.lists(st.integers(0, 3), min_size=1, max_size=4), as_number=st.booleans())
def spec_powers_of_zero_have_the_derivative_zero_by_the_exponent(world, exponents, as_number):
    """The derivative of 0 ** y by y is 0 for every y that isn't negative, also at 0 ** 0."""
    y = torch.tensor(exponents, dtype=torch.float32, device=world.device, requires_grad=True)
    z = (0.0 if as_number else torch.zeros_like(y)) ** y

    z.backward(counting(z))

    same(y.grad, torch.zeros_like(y), why="0 ** y doesn't change with y")


@claim(cites=[RULES + "rule-1-derivative"])
@given(
    columns=st.lists(st.tuples(*[st.sampled_from([0, 2, -1, 0, 3])] * 3), min_size=1, max_size=2),
    size=st.integers(1, 3),
    along=st.sampled_from(["prod()", "prod(0)", "cumprod(0)"]),
)
def spec_products_with_zeros_have_the_product_of_the_other_factors_as_derivative(world, columns, size, along):
    """The derivative of a product by one of its factors is the product of the others, however many of them are 0."""
    columns = [column[:size] for column in columns[: 1 if along == "prod()" else 2]]
    x = torch.tensor(columns, dtype=torch.float32, device=world.device).t().requires_grad_()
    y = {"prod()": lambda: x.prod(), "prod(0)": lambda: x.prod(0), "cumprod(0)": lambda: x.cumprod(0)}[along]()

    y.sum().backward()

    for number, column in enumerate(columns):
        for i in range(size):
            ends = range(i + 1, size + 1) if along == "cumprod(0)" else [size]
            expected = sum(math.prod(column[:i] + column[i + 1 : end]) for end in ends)
            same(x.grad[i, number].item(), float(expected), why=f"factor {i} of {column}, by {along}")


@claim(cites=[RULES + "rule-4-continuity"])
@given(number=st.integers(-3, 3), size=st.integers(2, 4), function=st.sampled_from(["std", "var"]))
def spec_the_spread_of_equal_numbers_has_the_derivative_zero(world, number, size, function):
    """The gradient of the standard deviation, and of the variance, is 0 where all numbers are equal."""
    x = torch.full((size,), float(number), device=world.device, requires_grad=True)

    getattr(x, function)(0).backward()

    same(x.grad, torch.zeros_like(x), why=f"{function} has its minimum where all numbers are equal")


@claim(cites=[RULES + "rule-4-continuity"], since="2.10", observed=True)
@given(shape=ANY_SHAPE)
def spec_atan2_has_the_gradient_zero_at_the_origin(world, shape):
    """The gradient of atan2 by both of its arguments is 0 where both are 0."""
    y, x = torch.zeros((2, *shape), device=world.device).unbind()
    x.requires_grad_(), y.requires_grad_()

    torch.atan2(y, x).sum().backward()

    same(y.grad, torch.zeros_like(y), why="no limit exists there, and 0 was chosen")
    same(x.grad, torch.zeros_like(x), why="no limit exists there, and 0 was chosen")


@claim(observed=True, cites=[RULES + "rule-6-random"], needs=["random"])
@given(shape=ANY_SHAPE, function=st.sampled_from(list(RANDOM)))
def spec_drawing_random_numbers_passes_zeros_back(world, shape, function):
    """What a random function draws depends on the tensors that it was given, for autograd: the result requires grad,
    and backward passes 0 back without an error."""
    x = torch.full(shape, 0.5, device=world.device, requires_grad=True)
    y = RANDOM[function](x)
    same(y.requires_grad, True, why=f"{function} had a tensor that requires grad")

    y.sum().backward()

    same(x.grad, torch.zeros_like(x), why=f"{function} draws anew, whatever x was")


@claim(cites=[RULES + "rule-6-random"], needs=["random"])
@given(shape=ANY_SHAPE, used=st.booleans(), function=st.sampled_from(list(NOT_IMPLEMENTED)))
def spec_a_function_without_a_derivative_raises_in_backward(world, shape, used, function):
    """A function for which no derivative is implemented computes its result, which requires grad; backward through it
    raises an error that says so and gives no leaf a gradient. Where the gradient doesn't come by, nothing is raised."""
    x = torch.ones(shape, device=world.device, requires_grad=True)
    y = NOT_IMPLEMENTED[function](x)
    same(y.requires_grad, True, why=f"{function} had a tensor that requires grad")

    if used:
        with raises(RuntimeError, "is not implemented", why=f"{function} has no derivative"):
            (y + x).sum().backward()
        same(x.grad, None, why="the backward failed before it came to x")
    (x * 3 + y.detach()).sum().backward()

    same(x.grad, torch.full_like(x, 3), why="x * 3 has a derivative")


@claim(observed=True)
@given(shape=ANY_SHAPE)
def spec_the_gradient_of_sgn_cannot_be_added_to(world, shape):
    """sgn leaves a .grad of zeros without memory in the leaf: a second backward, which would add to it, raises."""
    x = torch.ones(shape, device=world.device, requires_grad=True)
    x.sgn().sum().backward()
    same(x.grad, torch.zeros_like(x), why="sgn is constant beside its jump")

    with raises(RuntimeError, "ZeroTensors are immutable", why="the first backward left a tensor without memory"):
        (x * 2).sum().backward()


@claim(observed=True, needs=["random"])
@given(shape=ANY_SHAPE, sampled=st.booleans())
def spec_rsample_passes_gradients_to_the_parameters_of_a_distribution(world, shape, sampled):
    """What rsample() of a normal distribution draws depends on mean and deviation by a shift and a factor, through
    which gradients go: 1 to the mean, and to the deviation the number that was drawn. sample() is a constant."""
    mean = torch.zeros(shape, device=world.device, requires_grad=True)
    deviation = torch.ones(shape, device=world.device, requires_grad=True)
    normal = torch.distributions.Normal(mean, deviation, validate_args=False)

    if sampled:
        y = normal.sample()
        same((y.requires_grad, y.grad_fn), (False, None), why="sample() draws without a history")
    else:
        y = normal.rsample()
        y.backward(counting(y))
        same(mean.grad, counting(y), why="y is the mean plus something")
        same(deviation.grad, counting(y) * y.detach(), why="the mean is 0 and the deviation 1, so y is what was drawn")


@claim(cites=[RULES + "rule-5-undefined"], observed=True)
@given(rows=st.lists(st.sampled_from([("0", "-inf"), ("-inf", "3"), ("-inf", "-inf")]), min_size=1, max_size=3))
def spec_a_logsumexp_of_nothing_but_minus_infinities_has_the_gradient_nan(world, rows):
    """logsumexp of numbers that are all minus infinity has the gradient NaN by each of them. Of other rows beside it an
    element that is minus infinity gets 0."""
    x = torch.tensor([[float(a), float(b)] for a, b in rows], device=world.device, requires_grad=True)

    x.logsumexp(1).backward(torch.full((len(rows),), 2.0, device=world.device))

    nothing = torch.isinf(x.detach()).all(1)
    same(x.grad.isnan(), nothing[:, None].expand(-1, 2), why="0 is divided by 0 in these rows")
    expected = 2.0 * torch.isfinite(x.detach())
    same(x.grad[~nothing], expected[~nothing], why="one element of the row is all of the sum")
