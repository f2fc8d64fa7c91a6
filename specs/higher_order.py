"""Derivatives of derivatives: numbers that come of differentiating gradients."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import claim, graphs, raises, same, values

STARTS = st.one_of(st.none(), st.integers(-3, 3))  # what .grad holds beforehand


def gradients_of(number, leaves):
    """The gradients of a number by the leaves, with their own graph; zeros where it depends on none."""
    if not number.requires_grad:
        return [torch.zeros_like(leaf).detach() for leaf in leaves]
    got = torch.autograd.grad(number, leaves, create_graph=True, allow_unused=True)
    return [torch.zeros_like(leaf).detach() if g is None else g for g, leaf in zip(got, leaves)]


@claim(cites=["torch_autograd/create-graph-allows-higher-orders"], needs=["float64"])
@given(graph=graphs(orders=3, most=4))
def spec_derivatives_can_be_taken_again_and_again(world, graph):
    """With create_graph=True the gradients can be differentiated themselves, any number of times: in whatever graph,
    derivatives of derivatives are exact."""
    tensors = graph.build(world)
    leaves = [tensors[name] for name in graph.leaves]
    direction = [world.constant(v) for v in graph.direction.values()]

    number = (tensors[graph.root].square() * world.constant(graph.cotangent)).sum()
    for order, predicted in enumerate(graph.repeated(world), start=1):
        gradients = gradients_of(number, leaves)
        same(gradients, list(predicted.values()), why=f"these are the derivatives of order {order} in {graph}")
        number = sum((gradient * along).sum() for gradient, along in zip(gradients, direction))


# Ways to evaluate the polynomial with these coefficients, the constant one first, at each element of x.
def by_horner(x, coefficients):
    """One factor after the other."""
    y = torch.zeros_like(x)
    for coefficient in reversed(coefficients):
        y = y * x + coefficient
    return y


def by_powers(x, coefficients):
    """A sum of powers."""
    return sum((coefficient * x**n for n, coefficient in enumerate(coefficients)), torch.zeros_like(x))


def in_place(x, coefficients):
    """The terms one after the other, written to one tensor."""
    y, power = torch.zeros_like(x), torch.ones_like(x)
    for coefficient in coefficients:
        y += power * coefficient
        power = power.clone().mul_(x)
    return y


def through_views(x, coefficients):
    """Row after row of a tensor that is filled in place."""
    powers = torch.ones(len(coefficients), *x.shape, dtype=x.dtype, device=x.device)
    for n in range(1, len(coefficients)):
        powers[n] = powers[n - 1].clone() * x
    weights = torch.tensor(coefficients, dtype=x.dtype, device=x.device)
    return (powers * weights.reshape(-1, *[1] * x.dim())).sum(0)


def by_fused_steps(x, coefficients):
    """A product and a sum at a time."""
    y = torch.zeros_like(x)
    for coefficient in reversed(coefficients):
        y = torch.addcmul(torch.full_like(x, coefficient), y, x)
    return y


POLYNOMIALS = {
    "by_horner": by_horner,
    "by_powers": by_powers,
    "in_place": in_place,
    "through_views": through_views,
    "by_fused_steps": by_fused_steps,
}


@claim(cites=["torch_autograd/create-graph-allows-higher-orders"], needs=["float64"])
@given(
    v=values(dtypes=("float64",)),
    coefficients=st.lists(st.integers(-3, 3), min_size=1, max_size=5),
    way=st.sampled_from(list(POLYNOMIALS)),
)
def spec_the_nth_derivative_of_a_polynomial(world, v, coefficients, way):
    """Differentiating a polynomial n times gives its n-th derivative, up to those that are zero, however it is
    computed: by products or powers, in place or through views."""
    x = world.leaf(v)
    y = POLYNOMIALS[way](x, coefficients)

    point = x.detach()
    for order in range(len(coefficients) + 1):
        expected = torch.zeros_like(point)
        for n, coefficient in enumerate(coefficients):
            expected = expected + coefficient * point**n
        same(y, expected, why=f"derivative {order} has the coefficients {coefficients}")
        (y,) = gradients_of(y.sum(), [x])
        coefficients = [n * coefficient for n, coefficient in enumerate(coefficients)][1:]


@claim(
    cites=[
        "torch_autograd/create-graph-allows-higher-orders",
        "torch_autograd/unused-inputs-are-an-error-unless-allowed",
    ]
)
@given(v=values(), first=st.booleans(), allow=st.booleans())
def spec_a_derivative_may_depend_on_some_leaves_only(world, v, first, allow):
    """If a gradient depends on other leaves but not on that by which it is to be differentiated, this leaf is an
    unused input: an error, or None with allow_unused=True."""
    a = world.leaf(v)
    b = torch.full_like(a, 3).requires_grad_()
    x, other = (a, b) if first else (b, a)
    (gradient,) = torch.autograd.grad((a * b).sum(), x, create_graph=True)
    same(gradient, other.detach(), why="the product is linear in each factor")

    if allow:
        got = torch.autograd.grad(gradient.sum(), [x, other], allow_unused=True)
        same(got, [None, torch.ones_like(other).detach()], why="the gradient is the other factor")
    else:
        with raises(RuntimeError, "allow_unused=True", why="the gradient is the other factor"):
            torch.autograd.grad(gradient.sum(), [other, x])


@claim(
    cites=["torch_autograd/materialized-gradients-are-zeros", "torch_autograd/create-graph-allows-higher-orders"],
    since="2.1",
)
@given(v=values(), w=values(dtypes=("float64",)), power=st.integers(1, 4))
def spec_materialized_zeros_are_derivatives_of_any_order(world, v, w, power):
    """With materialize_grads=True a derivative by a leaf that the gradient doesn't depend on is zeros, at any order,
    and the others are right."""
    x, other = world.leaf(v), world.leaf(w)
    y = (x**power * 1).sum() + (other * other).sum()

    factor = 1
    for order in range(power):
        got = torch.autograd.grad(y, [x, other], create_graph=True, materialize_grads=True)
        factor *= power - order
        expected = factor * x.detach() ** (power - order - 1)
        same(got[0], expected, why=f"derivative {order + 1} of x ** {power}")
        same(got[1], torch.zeros_like(other).detach() if order else 2 * other.detach(), why="x and the other are apart")
        if got[0].requires_grad:
            y = got[0].sum()


@claim(cites=["torch_autograd/create-graph-allows-higher-orders"], needs=["float64"])
@given(graph=graphs(orders=2, most=5), order=st.permutations(["g * u", "grad(g, u)", "backward"]))
def spec_hessian_vector_products_can_be_computed_in_every_way(world, graph, order):
    """The product of the Hessian with a vector is the gradient of the gradient's inner product with the vector, the
    vector-Jacobian product of the gradient, and what backward adds to .grad; with the graph retained each of them can
    be computed, in any order."""
    tensors = graph.build(world)
    leaves = [tensors[name] for name in graph.leaves]
    u = [world.constant(v) for v in graph.direction.values()]
    first, second = (list(by_leaf.values()) for by_leaf in graph.repeated(world))

    g = gradients_of((tensors[graph.root].square() * world.constant(graph.cotangent)).sum(), leaves)
    same(g, first, why=f"the gradients of the first order in {graph}")
    inner = sum((one * other).sum() for one, other in zip(g, u))
    pairs = [(one, other) for one, other in zip(g, u) if one.requires_grad]
    pairs = pairs or [(leaves[0] * 0, u[0])]  # none of the gradients depends on anything
    for way in order:
        if way == "g * u":
            got = gradients_of(inner, leaves)
        elif way == "grad(g, u)":
            got = torch.autograd.grad(
                [one for one, _ in pairs], leaves, [other for _, other in pairs], retain_graph=True, allow_unused=True
            )
        else:
            torch.autograd.backward([one for one, _ in pairs], [other for _, other in pairs], retain_graph=True)
            got = [leaf.grad for leaf in leaves]
        got = [torch.zeros_like(leaf).detach() if one is None else one for one, leaf in zip(got, leaves)]
        same(got, second, why=f"{way} gives the product of the Hessian with the vector in {graph}")


@claim(cites=["torch_autograd/create-graph-allows-higher-orders"], needs=["float64"])
@given(graph=graphs(orders=1, most=5))
def spec_mixed_derivatives_commute(world, graph):
    """The Hessian of a number, by all leaves together, is symmetric: it doesn't matter by which of two elements it is
    differentiated first."""
    tensors = graph.build(world)
    leaves = [tensors[name] for name in graph.leaves]

    gradients = gradients_of((tensors[graph.root].square() * world.constant(graph.cotangent)).sum(), leaves)
    rows = []
    for element in torch.cat([gradient.reshape(-1) for gradient in gradients]):
        rows.append(torch.cat([row.reshape(-1) for row in gradients_of(element, leaves)]))
    if rows:
        hessian = torch.stack(rows)
        same(hessian, hessian.t(), why=f"this is the Hessian by {list(graph.leaves)} in {graph}")


@claim(
    cites=[
        "torch_autograd/create-graph-allows-higher-orders",
        "torch_autograd/backward-gives-vector-jacobian-products",
    ],
    needs=["float64"],
)
@given(graph=graphs(orders=1, most=5))
def spec_gradients_can_be_differentiated_by_the_gradient_passed(world, graph):
    """With create_graph=True gradients are differentiable by the gradient that was passed as well. They are linear in
    it, and their derivative by it is the Jacobian: its product with a vector comes of a second backward."""
    tensors = graph.build(world)
    leaves = [tensors[name] for name in graph.leaves]
    u = [world.constant(v) for v in graph.direction.values()]
    y = tensors[graph.root].square()
    v = world.constant(graph.cotangent).requires_grad_()

    g = torch.autograd.grad(y, leaves, v, create_graph=True, allow_unused=True)
    predicted = list(graph.repeated(world)[0].values())
    g = [torch.zeros_like(leaf).detach() if one is None else one for one, leaf in zip(g, leaves)]
    same(g, predicted, why=f"the gradients in {graph}")

    inner = sum((one * along).sum() for one, along in zip(g, u))
    if inner.requires_grad:
        got = torch.autograd.grad(inner, v, allow_unused=True)[0]
        got = torch.zeros_like(v).detach() if got is None else got  # only on the way of zeros
        expected = sum((one * along).sum() for one, along in zip(predicted, u))
        same(
            (got * v.detach()).sum(),
            expected,
            why=f"the product with the vector is linear in the gradient passed, in {graph}",
        )


# Functions of x, quadratic at the most.
QUADRATIC = {
    "x * x": lambda x: x * x,
    "x.sum() * x": lambda x: x.sum() * x,
    "x.flip(0) * x": lambda x: x.flip(0) * x if x.dim() else x * 3,
    "x.reshape(-1).outer(x.reshape(-1))": lambda x: x.reshape(-1).outer(x.reshape(-1)),
    "x.cumsum(0).square()": lambda x: x.cumsum(0).square(),
    "torch.stack([x, x * x - x])": lambda x: torch.stack([x, x * x - x]),
}


@claim(cites=["torch_autograd/create-graph-allows-higher-orders"], needs=["float64"])
@given(
    v=values(dtypes=("float64",)),
    code=st.sampled_from(list(QUADRATIC)),
    weight=st.integers(-2, 2),
    step=st.integers(1, 3),
)
def spec_two_backwards_make_a_forward_derivative(world, v, code, weight, step):
    """The derivative of gradients by the gradient passed, whatever that is, gives the product of the Jacobian with
    a vector: how the function changes along the vector."""
    x, f = world.leaf(v), QUADRATIC[code]
    u = (torch.arange(x.numel(), dtype=x.dtype, device=x.device) - 1).reshape(x.shape) * step
    y = f(x)
    w = torch.full_like(y, weight).detach().requires_grad_()

    (g,) = torch.autograd.grad(y, x, w, create_graph=True)
    (product,) = torch.autograd.grad(g, w, u)

    point = x.detach()
    same(2 * product, f(point + u) - f(point - u), why=f"{code} is quadratic at the most")


# Models with a weight w and an input x: y, and by hand the penalty sum((dy/dx) ** 2) with its gradients by w and x.
PENALIZED = {
    "w * x": (lambda w, x: w * x, lambda w, x: (w * w, 2 * w, 0 * x)),
    "w * x * x": (
        lambda w, x: w * x * x,
        lambda w, x: (4 * w * w * x * x, 8 * w * x * x, 8 * w * w * x),
    ),
    "(w * x).square() + w": (
        lambda w, x: (w * x).square() + w,
        lambda w, x: (4 * w**4 * x * x, 16 * w**3 * x * x, 8 * w**4 * x),
    ),
    "w * x.relu() ** 2": (
        lambda w, x: w * x.relu() ** 2,
        lambda w, x: (4 * w * w * x * x * (x > 0), 8 * w * x * x * (x > 0), 8 * w * w * x * (x > 0)),
    ),
}


@claim(cites=["torch_autograd/create-graph-allows-higher-orders", "torch_autograd/backward-accumulates"])
@given(
    v=values(dtypes=("float64",)),
    weight=st.integers(-3, 3),
    model=st.sampled_from(list(PENALIZED)),
    start=st.sampled_from([None, 1]),
    outside=st.booleans(),
)
def spec_a_penalty_on_a_gradient_reaches_the_parameters(world, v, weight, model, start, outside):
    """A loss may contain gradients: backward of a penalty on them adds its gradients to the .grad of the parameters
    and of the input, also if it is called with grad mode off."""
    x = world.leaf(v)
    w = torch.full_like(x, weight).detach().requires_grad_()
    w.grad = None if start is None else torch.full_like(w, start).detach()
    f, by_hand = PENALIZED[model]

    (g,) = torch.autograd.grad(f(w, x).sum(), x, create_graph=True)
    penalty = (g * g).sum()
    same(penalty.requires_grad, True, why="every gradient depends on w")
    with torch.set_grad_enabled(not outside):
        penalty.backward()

    value, by_w, by_x = by_hand(w.detach(), x.detach())
    same(penalty, value.sum(), why=f"the model is {model}")
    same(w.grad, by_w + (start or 0), why=f"the model is {model}")
    same(torch.zeros_like(by_x) if x.grad is None else x.grad, by_x, why=f"the model is {model}")


@claim(cites=["torch_tensor/detach-leaves-the-graph", "torch_autograd/create-graph-allows-higher-orders"])
@given(v=values(dtypes=("float64",)), rate=st.integers(1, 3), detached=st.booleans())
def spec_a_detached_gradient_is_a_constant_in_further_derivatives(world, v, rate, detached):
    """In a step of descent that is differentiated itself, the gradient contributes its own derivative; detached it
    counts as a constant, and this contribution alone is lost."""
    x = world.leaf(v)
    (g,) = torch.autograd.grad((x**3).sum(), x, create_graph=True)
    stepped = x - rate * (g.detach() if detached else g)

    (got,) = torch.autograd.grad(stepped.square().sum(), x)

    point = x.detach()
    inner = 1 if detached else 1 - 6 * rate * point
    same(got, 2 * (point - 3 * rate * point * point) * inner, why="the step is x - rate * 3 * x * x")


@claim(cites=["torch_autograd/create-graph-allows-higher-orders"])
@given(v=values(dtypes=("float64",)), power=st.integers(2, 5), whole=st.booleans())
def spec_a_gradient_of_zeros_gives_zeros_at_every_order(world, v, power, whole):
    """A gradient of zeros makes all derivatives zeros, not None, as long as they depend on the leaf at all."""
    x = world.leaf(v)
    y = x**power if whole else (x**power).sum()
    zeros = torch.zeros_like(x)

    for _ in range(power - 1):
        (y,) = torch.autograd.grad(y, x, torch.zeros_like(y), create_graph=True)
        same(y, zeros.detach(), why="a gradient of zeros was passed")
