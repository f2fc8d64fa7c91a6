"""The graph of a gradient: when it is recorded, what it holds, and what becomes of it."""

import contextlib
import weakref

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import claim, raises, same, silent, values, warns
from .kit.tensors import full, prepared

STARTS = st.one_of(st.none(), st.integers(-3, 3))  # what .grad holds beforehand


@claim(
    cites=[
        "torch_autograd/gradients-are-constants-without-create-graph",
        "torch_autograd/create-graph-allows-higher-orders",
    ]
)
@given(v=values(), create=st.sampled_from([None, False, True]), by_grad=st.booleans(), single=st.booleans())
def spec_a_gradient_has_a_graph_with_create_graph_only(world, v, create, by_grad, single):
    """Without create_graph a gradient is a constant: it doesn't require grad, has no history, and to differentiate
    it is an error. With create_graph=True it is a result that requires grad."""
    x = world.leaf(v)
    y = (x * x * x).sum() if single else x * x * x
    how = {} if create is None else {"create_graph": create}

    if by_grad:
        (gradient,) = torch.autograd.grad(y, x, torch.ones_like(y), **how)
    else:
        y.backward(torch.ones_like(y), **how)
        gradient, x.grad = x.grad, None

    same(gradient, 3 * x.detach() * x.detach(), why="the derivative of x*x*x")
    same(gradient.requires_grad, create is True, why=f"create_graph was {create}")
    same(gradient.is_leaf, create is not True, why=f"create_graph was {create}")
    if create:
        same(torch.autograd.grad(gradient.sum(), x), [6 * x.detach()], why="the derivative of 3*x*x")
    else:
        with raises(RuntimeError, "does not require grad", why="the gradient is a constant"):
            torch.autograd.grad(gradient.sum(), x)


# Functions of x whose derivative doesn't depend on x; the derivative of their sum by each element.
AFFINE = {
    "3 * x + 1": (lambda x: 3 * x + 1, 3),
    "x.clone()": (lambda x: x.clone(), 1),
    "-x": (lambda x: -x, -1),
    "x + x": (lambda x: x + x, 2),
    "x.reshape(-1)": (lambda x: x.reshape(-1), 1),
}


@claim(cites=["torch_autograd/create-graph-allows-higher-orders"], observed=True)
@given(v=values(), code=st.sampled_from(list(AFFINE)), weighted=st.booleans())
def spec_a_derivative_that_depends_on_nothing_has_no_history(world, v, code, weighted):
    """Also with create_graph=True a gradient has no history if it depends on nothing that requires grad: to
    differentiate it further is an error, like that for any constant. It depends on the gradient passed."""
    x = world.leaf(v)
    f, slope = AFFINE[code]
    y = f(x)
    w = torch.full_like(y, 2).detach().requires_grad_(weighted)

    (gradient,) = torch.autograd.grad(y, x, w, create_graph=True)

    same(gradient, torch.full_like(x, 2 * slope).detach(), why=f"y is {code}")
    same(gradient.requires_grad, weighted, why="the derivative doesn't depend on x")
    if weighted:
        same(torch.autograd.grad(gradient.sum(), w), [torch.full_like(w, slope).detach()], why=f"y is {code}")
    else:
        with raises(RuntimeError, "does not require grad", why="nothing that it depends on requires grad"):
            torch.autograd.grad(gradient.sum(), x)


@claim(cites=["torch_autograd/create-graph-allows-higher-orders", "torch_autograd/graph-is-freed-unless-retained"])
@given(v=values(), by_grad=st.booleans(), retain=st.booleans(), power=st.integers(3, 5), stepwise=st.booleans())
def spec_a_backward_through_gradients_frees_what_it_goes_through(world, v, by_grad, retain, power, stepwise):
    """A backward through gradients that have a graph frees this graph, unless it retains it, and with it the part of
    the first function's graph that leads to intermediate results which the gradients were computed from."""
    x = world.leaf(v)
    y = x
    for _ in range(power - 1):
        y = y * x  # the product's gradient is computed from the factors
    if not stepwise:
        y = x**power  # and the power's from x alone
    (g,) = torch.autograd.grad(y, x, torch.ones_like(y), create_graph=True)
    number = (g * g).sum()

    if by_grad:
        (got,) = torch.autograd.grad(number, x, retain_graph=retain)
    else:
        number.backward(retain_graph=retain)
        got = x.grad

    expected = 2 * power * power * (power - 1) * x.detach() ** (2 * power - 3)
    same(got, expected, why=f"the derivative of the square of {power} * x ** {power - 1}")
    if retain:
        same(torch.autograd.grad(number, x, retain_graph=True), [expected], why="the graph was retained")
    else:
        with raises(RuntimeError, "retain_graph=True", why="the graph of the gradient was freed"):
            torch.autograd.grad(number, x)
    if stepwise and not retain:
        with raises(RuntimeError, "retain_graph=True", why="the inner products' graph was freed with it"):
            torch.autograd.grad(y, x, torch.ones_like(y))
    else:
        first = power * x.detach() ** (power - 1)
        same(torch.autograd.grad(y, x, torch.ones_like(y)), [first], why="this graph is whole")


@claim(
    cites=["torch_tensor/hook-is-called-with-each-gradient", "torch_autograd/create-graph-allows-higher-orders"],
    since="2.0",  # before, torch.autograd.grad left out the hooks of its inputs
)
@given(v=values(dtypes=("float64",)), power=st.integers(2, 4), result=st.booleans())
def spec_hooks_are_called_at_every_order(world, v, power, result):
    """A tensor's hooks are called with its gradient in the first backward, and in each one through gradients that
    goes through the tensor again with the gradient of that."""
    x = world.leaf(v)
    z = x * 1 if result else x
    seen = []
    z.register_hook(lambda gradient: seen.append(gradient.detach().clone()))

    y, factor, expected = (z**power).sum(), 1, []
    for order in range(power):
        (g,) = torch.autograd.grad(y, x, create_graph=True)
        factor *= power - order
        expected.append(factor * x.detach() ** (power - order - 1))
        same(seen, expected, why=f"derivatives of x ** {power}")
        if not g.requires_grad:
            break
        y = g.sum()


@claim(cites=["torch_tensor/hook-may-return-a-new-gradient", "torch_autograd/create-graph-allows-higher-orders"])
@given(v=values(dtypes=("float64",)), detached=st.booleans())
def spec_what_a_hook_computes_is_differentiated_as_well(world, v, detached):
    """With create_graph=True what a hook makes of a gradient is a part of the gradient's graph: a second backward
    goes through the hook's operations."""
    x = world.leaf(v)
    y = x * 1
    y.register_hook(lambda gradient: gradient * (x.detach() if detached else x))

    (g,) = torch.autograd.grad((y * y).sum(), x, create_graph=True)
    point = x.detach()
    same(g, 2 * point * point, why="the hook multiplies 2y with x")
    same(g.requires_grad, True, why="it depends on y at the least")

    (second,) = torch.autograd.grad(g.sum(), x)
    # The derivative of 2y * x by y goes through the hook again, that by x doesn't.
    same(second, 2 * point * point + (0 if detached else 2 * point), why="g is 2y * x")


class Once(torch.autograd.Function):
    """The square, whose backward isn't to be differentiated."""

    @staticmethod
    def forward(ctx, x):
        """The square."""
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        """Its gradient, computed without a graph."""
        (x,) = ctx.saved_tensors
        return 2 * x * gradient


# What is made of the square s of x, with its derivative by x.
OF_ONCE = {
    "s * s": (lambda s, x: s * s, lambda x: 4 * x**3),
    "s * x": (lambda s, x: s * x, lambda x: 3 * x * x),
    "s ** 2 + x": (lambda s, x: s**2 + x, lambda x: 4 * x**3 + 1),
    "x * x * s": (lambda s, x: x * x * s, lambda x: 4 * x**3),
}


@claim(cites=["torch_autograd/once-differentiable-refuses-a-second-time"])
@given(v=values(), code=st.sampled_from(list(OF_ONCE)), start=STARTS)
def spec_an_operation_that_is_differentiable_once_refuses_a_second_time(world, v, code, start):
    """Where the gradient that comes to an operation marked as differentiable once has a graph, so has what comes out
    of it, but a backward through that to all leaves raises an error that names the mark."""
    x = world.leaf(v)
    before = prepared(x, start)
    f, derivative = OF_ONCE[code]
    y = f(Once.apply(x), x)

    (g,) = torch.autograd.grad(y, x, torch.ones_like(y), create_graph=True)
    same(g, derivative(x.detach()), why="the first derivative is right")
    same(g.requires_grad, True, why="to differentiate it is an error that can be told")
    with raises(RuntimeError, "once_differentiable", why="the backward of Once records nothing"):
        g.sum().backward()

    same(x.grad is before, True, why="the call failed")
    same(before, full(x, start), why="the call failed")


# What is made of the square s of x, with its derivative, and the derivative of this as it comes out: the gradient
# that went through the square counts as a constant.
BESIDE_ONCE = {
    "3 * s + x ** 3": (lambda s, x: 3 * s + x**3, lambda x: 6 * x + 3 * x * x, lambda x: 6 * x),
    "s.clone() - x * x": (lambda s, x: s.clone() - x * x, lambda x: 0 * x, lambda x: 0 * x - 2),
    "s * x": (lambda s, x: s * x, lambda x: 3 * x * x, lambda x: 2 * x),
    "x * x * s": (lambda s, x: x * x * s, lambda x: 4 * x**3, lambda x: 6 * x * x),
}


@claim(observed=True, cites=["torch_autograd/once-differentiable-refuses-a-second-time"])
@given(v=values(), code=st.sampled_from(list(BESIDE_ONCE)), by_grad=st.booleans())
def spec_an_operation_that_is_differentiable_once_can_be_a_constant_later(world, v, code, by_grad):
    """If the derivatives by chosen tensors are asked for, or no graph comes to an operation marked as differentiable
    once, what comes out of it counts as a constant: its part of a second derivative is missing without a word."""
    x = world.leaf(v)
    f, derivative, second = BESIDE_ONCE[code]
    y = f(Once.apply(x), x)

    (g,) = torch.autograd.grad(y, x, torch.ones_like(y), create_graph=True)
    same(g, derivative(x.detach()), why="the first derivative is right")

    if by_grad:
        (got,) = torch.autograd.grad(g.sum(), x)
    else:
        g.sum().backward(inputs=[x])
        got = x.grad
    same(got, second(x.detach()), why=f"a part of the second derivative of {code} is missing")


# Operations whose backward has no derivative on any release.
ONCE_ONLY = {
    "embedding_bag(index, x, offsets, mode='sum')": lambda x: torch.nn.functional.embedding_bag(
        torch.tensor([1, 0, 1], device=x.device), x, torch.tensor([0, 1], device=x.device), mode="sum"
    ),
    "embedding_bag(index, x, offsets, mode='max')": lambda x: torch.nn.functional.embedding_bag(
        torch.tensor([1, 0, 1], device=x.device), x, torch.tensor([0, 2], device=x.device), mode="max"
    ),
    "multilabel_margin_loss(x, zeros)": lambda x: torch.nn.functional.multilabel_margin_loss(
        x, torch.zeros(x.shape, dtype=torch.int64, device=x.device)
    ),
}


@claim(observed=True, cites=["torch_autograd/create-graph-allows-higher-orders"])
@given(
    v=values(shapes=((2, 3), (3, 2), (2, 2))),
    code=st.sampled_from(list(ONCE_ONLY)),
    by_grad=st.booleans(),
    curved=st.booleans(),
    start=STARTS,
)
def spec_an_operation_without_a_second_derivative_says_so(world, v, code, by_grad, curved, start):
    """Not every operation has a second derivative. Through one that has none the first derivative has a graph with
    create_graph=True as always, and a backward through that raises an error which says that it is not implemented."""
    x = world.leaf(v)
    before = prepared(x, start)
    y = ONCE_ONLY[code](x)
    weight = torch.ones_like(y).requires_grad_()

    (g,) = torch.autograd.grad(y * y if curved else y, x, weight, create_graph=True)
    same(g.requires_grad, True, why="create_graph was true")
    with raises(RuntimeError, "not implemented", why=f"{code} can be differentiated once"):
        if by_grad:
            torch.autograd.grad(g.sum(), weight)
        else:
            g.sum().backward()

    same(x.grad is before, True, why="the call failed")
    same(before, full(x, start), why="the call failed")


@contextlib.contextmanager
def every_warning():
    """Let PyTorch give each warning every time, and not only once."""
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    try:
        yield
    finally:
        torch.set_warn_always(before)


@claim(cites=["torch_autograd/create-graph-makes-a-cycle"])
@given(v=values(), how=st.sampled_from(["x.grad = None", "left", "grad", "no graph"]), given_inputs=st.booleans())
def spec_backward_with_create_graph_warns_of_a_cycle(world, v, how, given_inputs):
    """backward with create_graph=True makes a graph that holds the leaf, in the leaf's own .grad: it warns of that,
    and the leaf outlives the program's last reference unless its .grad is set to None. torch.autograd.grad makes no
    such cycle and gives no warning."""
    x = world.leaf(v)
    y = (x * x).sum()
    lives = weakref.ref(x)
    inputs = [x] if given_inputs else None

    with every_warning():
        if how == "grad":
            with silent(why="the gradient is not in .grad"):
                torch.autograd.grad(y, x, create_graph=True)
        elif how == "no graph":
            with silent(why="the .grad is a constant"):
                y.backward(inputs=inputs)
        else:
            with warns(UserWarning, "reference cycle", why="the .grad refers to the leaf"):
                y.backward(create_graph=True, inputs=inputs)

    if how == "x.grad = None":
        x.grad = None
    del x, y, inputs
    # The thread of a device holds what its last call gave until the next one comes.
    torch.ones((), device=world.device, requires_grad=True).backward()
    same(lives() is not None, how == "left", why=f"nothing but .grad can refer to the leaf, which was {how}")
    if how == "left":
        lives().grad = None
        same(lives(), None, why="this was the last reference")


@claim(
    cites=[
        "torch_autograd/create-graph-allows-higher-orders",
        "torch_autograd/grad-accumulates-out-of-place-with-create-graph",
    ]
)
@given(v=values(dtypes=("float64",)), powers=st.lists(st.integers(2, 4), min_size=1, max_size=3), start=STARTS)
def spec_an_accumulated_grad_can_be_differentiated(world, v, powers, start):
    """After several backwards with create_graph=True the .grad is the sum of the gradients with the graphs of them
    all: differentiating it gives the sum of the second derivatives."""
    x = world.leaf(v)
    prepared(x, start)
    for power in powers:
        (x**power).sum().backward(create_graph=True)
    g, x.grad = x.grad, None

    point = x.detach()
    first = sum(power * point ** (power - 1) for power in powers)
    same(g, first + (start or 0), why=f"the powers were {powers}")
    same(g.requires_grad, True, why="no gradient of these powers is a constant")
    second = sum(power * (power - 1) * point ** (power - 2) for power in powers)
    same(torch.autograd.grad(g.sum(), x), [second], why=f"the powers were {powers}")
