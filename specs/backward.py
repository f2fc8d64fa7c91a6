"""Where backward starts, and with what: roots, the gradients passed with them, and targets."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import SMALL_DTYPES, claim, graphs, raises, same, values, warns
from .kit.tensors import WITHOUT_GRAD, added, full, prepared

STARTS = st.one_of(st.none(), st.integers(-3, 3))  # what .grad holds beforehand
PICKS = st.lists(st.integers(0, 20), min_size=1, max_size=4)  # positions in a list, modulo its length


@claim(
    cites=[
        "article/backward-starts-at-root",
        "article/computes-tensor-gradients",
        "article/gradient-function-yields-result-gradient",
        "torch_tensor/backward-differentiates-by-the-leaves",
    ]
)
@given(graph=graphs(anywhere=1), start=STARTS)
def spec_backward_starts_at_whatever_tensor_it_is_called_on(world, graph, start):
    """Backward differentiates the tensor that it is called on, be it a root of the graph, in its middle or
    a leaf; what was computed from that tensor counts for nothing."""
    tensors = graph.build(world)
    for name in graph.leaves:
        prepared(tensors[name], start)

    tensors[graph.root].backward(world.constant(graph.cotangent))

    for name, gradient in graph.gradients(world).items():
        if name in graph.leaves:
            expected = full(tensors[name], start) if gradient is None else added(start, gradient)
            same(tensors[name].grad, expected, why=f"backward was called on {graph.root}, which gives {name} this")


@claim(cites=["article/backward-starts-at-root", "torch_tensor/grad-accumulates"])
@given(v=values(dtypes=SMALL_DTYPES), calls=st.integers(1, 3), used=st.booleans())
def spec_backward_on_a_leaf_adds_the_gradient_to_its_own_grad(world, v, calls, used):
    """Called on a leaf, backward adds the gradient that it is given to the leaf's own .grad."""
    gradient = world.constant(v)
    x = torch.ones_like(gradient).requires_grad_()
    other = x * x if used else None

    for _ in range(calls):
        x.backward(gradient)

    same(x.grad, gradient * calls, why="the derivative of x by itself is 1")
    same(gradient, world.constant(v), why="the leaf has a .grad of its own")
    same(x, torch.ones_like(gradient), why="backward changes no tensor's values")
    if used:
        other.sum().backward()
        same(x.grad, gradient * calls + 2, why="the graph of x*x is as it was")


WITHOUT_GRADIENT = {
    "y.backward()": lambda y, x: y.backward(),
    "y.backward(None)": lambda y, x: y.backward(None),
    "y.backward(inputs=[x])": lambda y, x: y.backward(inputs=[x]),
    "torch.autograd.backward(y)": lambda y, x: torch.autograd.backward(y),
    "torch.autograd.backward([y])": lambda y, x: torch.autograd.backward([y]),
    "torch.autograd.backward((y,), (None,))": lambda y, x: torch.autograd.backward((y,), (None,)),
    "torch.autograd.grad": lambda y, x: torch.autograd.backward(x, torch.autograd.grad(y, x)),
    "torch.autograd.grad, None": lambda y, x: torch.autograd.backward(x, torch.autograd.grad([y], [x], [None])),
}
WITH_GRADIENT = {
    "y.backward(v)": lambda y, x, v: y.backward(v),
    "y.backward(gradient=v)": lambda y, x, v: y.backward(gradient=v),
    "torch.autograd.backward(y, v)": lambda y, x, v: torch.autograd.backward(y, v),
    "torch.autograd.backward([y], grad_tensors=[v])": lambda y, x, v: torch.autograd.backward([y], grad_tensors=[v]),
    "torch.autograd.grad": lambda y, x, v: torch.autograd.backward(x, torch.autograd.grad(y, x, v)),
    "torch.autograd.grad, tuples": lambda y, x, v: torch.autograd.backward(x, torch.autograd.grad((y,), (x,), (v,))),
}


@claim(cites=["torch_tensor/backward-on-a-scalar-needs-no-gradient", "torch_autograd/none-for-scalars"])
@given(
    v=values(dtypes=SMALL_DTYPES),
    shape=st.sampled_from([(), (1,), (1, 1), (1, 1, 1)]),
    way=st.sampled_from([*WITHOUT_GRADIENT, *WITH_GRADIENT]),
)
def spec_the_implicit_gradient_of_a_scalar_is_one(world, v, shape, way):
    """A tensor of one element, in however many dimensions, needs no gradient for backward: without one it
    is the same as with ones."""
    x = world.leaf(v)
    y = (x * 3).sum().reshape(shape)

    if way in WITHOUT_GRADIENT:
        WITHOUT_GRADIENT[way](y, x)
    else:
        WITH_GRADIENT[way](y, x, torch.ones_like(y))

    same(x.grad, torch.full_like(x, 3), why=f"the derivative of y is 3, and {way} multiplies it by 1")


@claim(cites=["torch_tensor/backward-on-other-tensors-needs-a-gradient", "torch_autograd/none-for-scalars"])
@given(
    v=values(shapes=((2,), (3,), (1, 3), (2, 1), (2, 2), (0,), (2, 0), (2, 1, 3))),
    way=st.sampled_from(list(WITHOUT_GRADIENT)),
    start=STARTS,
    leaf=st.booleans(),
)
def spec_a_tensor_of_several_elements_needs_a_gradient(world, v, way, start, leaf):
    """Without a gradient, backward raises an error on a tensor of more than one element, or of none, and
    leaves .grad and the graph as they were."""
    x = world.leaf(v)
    before = prepared(x, start)
    y = x if leaf else x * x

    with raises(RuntimeError, "can be implicitly created only for scalar", why=f"y has {y.numel()} elements"):
        WITHOUT_GRADIENT[way](y, x)

    same(x.grad is before, True, why="the call failed")
    same(before, full(x, start), why="the call failed")
    y.backward(torch.ones_like(y))
    same(x.grad, added(start, torch.ones_like(x) if leaf else 2 * x.detach()), why="the graph is still whole")


@claim(
    cites=[
        "torch_autograd/none-for-scalars",
        "torch_autograd/backward-sums-over-the-roots",
        "torch_tensor/backward-on-other-tensors-needs-a-gradient",
    ]
)
@given(
    v=values(dtypes=SMALL_DTYPES),
    passed=st.lists(st.sampled_from([None, 2, 0, -3]), min_size=1, max_size=4),
    whole=st.integers(0, 7),  # the number of a root that isn't summed up, if there are so many
    way=st.sampled_from(["backward", "grad"]),
    start=STARTS,
)
def spec_none_among_gradients_stands_for_one_at_a_root_of_one_element(world, v, passed, whole, way, start):
    """In a list of gradients None stands for one at each root of one element. At any other root it is an error,
    wherever it stands, and .grad and the graph stay as they were."""
    x = world.leaf(v)
    before = prepared(x, start)
    roots = [x * (n + 1) if n == whole else (x * (n + 1)).sum() for n in range(len(passed))]
    gradients = [None if p is None else torch.full_like(root, p) for root, p in zip(roots, passed)]
    expected = sum((n + 1) * (1 if p is None else p) for n, p in enumerate(passed))

    if whole < len(passed) and passed[whole] is None and x.numel() != 1:
        with raises(RuntimeError, "can be implicitly created only for scalar", why=f"root {whole} is no scalar"):
            torch.autograd.backward(roots, gradients)
        with raises(RuntimeError, "can be implicitly created only for scalar", why=f"root {whole} is no scalar"):
            torch.autograd.grad(roots, x, gradients)
        same(x.grad is before, True, why="the calls failed")
        same(before, full(x, start), why="the calls failed")
        gradients[whole] = torch.ones_like(roots[whole])

    if way == "backward":
        torch.autograd.backward(roots, gradients)
        same(x.grad, added(start, torch.full_like(x, expected).detach()), why=f"{passed} were passed")
    else:
        same(torch.autograd.grad(roots, x, gradients)[0], torch.full_like(x, expected), why=f"{passed} were passed")


@claim(
    cites=["torch_autograd/backward-gives-vector-jacobian-products", "article/gradient-function-yields-result-gradient"]
)
@given(graph=graphs(anywhere=1, most=5))
def spec_the_gradient_passed_is_the_vector_of_a_vector_jacobian_product(world, graph):
    """The gradients are linear in the gradient that backward is given: each of its elements weighs one row
    of the Jacobian, which is what a unit vector gives."""
    tensors = graph.build(world)
    root, names = tensors[graph.root], list(graph.leaves)
    cotangent = world.constant(graph.cotangent).reshape(-1)

    sums = {name: torch.zeros_like(tensors[name]) for name in names}
    for number, weight in enumerate(cotangent):
        unit = torch.zeros_like(cotangent)
        unit[number] = 1
        rows = torch.autograd.grad(
            root, [tensors[name] for name in names], unit.reshape(root.shape), retain_graph=True, allow_unused=True
        )
        for name, row in zip(names, rows):
            if row is not None:
                sums[name] += weight * row

    for name, gradient in graph.gradients(world).items():
        if name in names and gradient is not None:
            same(sums[name], gradient, why=f"the rows for {name} are weighed with {cotangent.tolist()}")


@claim(
    cites=[
        "torch_autograd/backward-gives-vector-jacobian-products",
        "torch_tensor/backward-gradient-has-the-type-and-shape",
    ]
)
@given(v=values(dtypes=SMALL_DTYPES), way=st.sampled_from(list(WITH_GRADIENT)))
def spec_backward_multiplies_the_gradient_that_it_is_given_and_leaves_it_alone(world, v, way):
    """The gradient passed, in whatever memory layout, is multiplied with the derivative, element by element
    for an elementwise operation; a backward doesn't change it."""
    gradient = world.constant(v)
    x = torch.full(gradient.shape, 2, dtype=gradient.dtype, device=gradient.device).requires_grad_()

    WITH_GRADIENT[way](x * x, x, gradient)

    same(x.grad, 4 * gradient, why="the derivative of x*x at 2 is 4")
    same(gradient, world.constant(v), why="it belongs to the caller")
    same(gradient.requires_grad, False, why="it belongs to the caller")


@claim(observed=True, cites=["torch_tensor/backward-gradient-has-the-type-and-shape"], needs=["float64", "float16"])
@given(
    v=values(dtypes=SMALL_DTYPES),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.float16, torch.int64, torch.int32, torch.bool]),
    way=st.sampled_from(list(WITH_GRADIENT)),
    leaf=st.booleans(),
)
def spec_a_gradient_of_another_real_dtype_is_converted(world, v, dtype, way, leaf):
    """A gradient of another real dtype, one of integers or booleans as well, is converted to that of the
    tensor."""
    x = world.leaf(v)
    gradient = torch.ones(x.shape, dtype=dtype, device=x.device)

    if leaf:
        x.backward(gradient)
    else:
        WITH_GRADIENT[way](x * 3, x, gradient)

    same(x.grad, torch.full_like(x, 1 if leaf else 3), why=f"a gradient of {dtype} was given")
    same(gradient.dtype, dtype, why="it belongs to the caller")


TWO_SHAPES = st.tuples(values(), values()).filter(lambda pair: pair[0].shape != pair[1].shape)


@claim(cites=["torch_tensor/backward-gradient-has-the-type-and-shape"])
@given(pair=TWO_SHAPES, way=st.sampled_from(list(WITH_GRADIENT)), start=STARTS, leaf=st.booleans())
def spec_a_gradient_of_another_shape_is_an_error(world, pair, way, start, leaf):
    """A gradient of another shape raises an error, also if it could be broadcast or reshaped, and leaves
    .grad and the graph as they were."""
    x = world.leaf(pair[0])
    before = prepared(x, start)
    y = x if leaf else x * x

    with raises(RuntimeError, "Mismatch in shape", why=f"y has the shape {tuple(y.shape)}"):
        WITH_GRADIENT[way](y, x, world.constant(pair[1]))

    same(x.grad is before, True, why="the call failed")
    same(before, full(x, start), why="the call failed")
    y.backward(torch.ones_like(y))
    same(x.grad, added(start, torch.ones_like(x) if leaf else 2 * x.detach()), why="the graph is still whole")


@claim(cites=["torch_tensor/backward-gradient-has-the-type-and-shape"], needs=["float64", "complex64", "complex128"])
@given(
    v=values(),
    root=st.sampled_from([torch.float64, torch.float32, torch.complex64, torch.complex128]),
    passed=st.sampled_from([torch.float64, torch.complex64, torch.complex128, torch.int64]),
    way=st.sampled_from(list(WITH_GRADIENT)),
    start=STARTS,
    leaf=st.booleans(),
)
def spec_a_complex_gradient_is_for_a_complex_tensor(world, v, root, passed, way, start, leaf):
    """A complex gradient for a real tensor, or a real one for a complex tensor, raises an error and leaves .grad
    and the graph as they were; between the complex dtypes a gradient is converted."""
    x = world.constant(v).to(root).requires_grad_()
    before = prepared(x, start)
    y = x if leaf else x * 3
    gradient = torch.ones(x.shape, dtype=passed, device=x.device)

    if root.is_complex != passed.is_complex:
        with raises(RuntimeError, "complex", why=f"{passed} is passed for {root}"):
            WITH_GRADIENT[way](y, x, gradient)
        same(x.grad is before, True, why="the call failed")
        same(before, full(x, start), why="the call failed")
        gradient = torch.ones_like(y)
    y.backward(gradient)

    same(x.grad, added(start, torch.full_like(x, 1 if leaf else 3).detach()), why=f"y is of {root}")


COMPLEX_SHAPES = st.sampled_from([(), (1,), (1, 1)])


@claim(
    cites=["torch_autograd/none-for-scalars", "torch_tensor/backward-on-a-scalar-needs-no-gradient"],
    since="2.1",
    needs=["complex64", "complex128"],
)
@given(
    v=values(),
    dtype=st.sampled_from([torch.complex128, torch.complex64]),
    shape=COMPLEX_SHAPES,
    way=st.sampled_from(list(WITHOUT_GRADIENT)),
    start=STARTS,
)
def spec_a_complex_scalar_needs_a_gradient(world, v, dtype, shape, way, start):
    """Without a gradient, backward raises an error on a complex tensor, also on one of a single element, and
    leaves .grad and the graph as they were."""
    x = world.constant(v).to(dtype).requires_grad_()
    before = prepared(x, start)
    y = (x * 3).sum().reshape(shape)

    with raises(RuntimeError, "only for real scalar", why=f"y is of {dtype}"):
        WITHOUT_GRADIENT[way](y, x)

    same(x.grad is before, True, why="the call failed")
    same(before, full(x, start), why="the call failed")
    y.backward(torch.ones_like(y))
    same(x.grad, added(start, torch.full_like(x, 3).detach()), why="the graph is still whole")


@claim(
    cites=["torch_autograd/none-for-scalars", "torch_tensor/backward-on-a-scalar-needs-no-gradient"],
    until="2.1",
    needs=["complex64", "complex128"],
)
@given(
    v=values(),
    dtype=st.sampled_from([torch.complex128, torch.complex64]),
    shape=COMPLEX_SHAPES,
    way=st.sampled_from(list(WITHOUT_GRADIENT)),
)
def spec_the_implicit_gradient_of_a_complex_scalar_is_one(world, v, dtype, shape, way):
    """A complex tensor of one element needs no gradient for backward: without one it starts with 1."""
    x = world.constant(v).to(dtype).requires_grad_()

    WITHOUT_GRADIENT[way]((x * 3).sum().reshape(shape), x)

    same(x.grad, torch.full_like(x, 3).detach(), why="the derivative is 3")


@claim(cites=["torch_autograd/gradients-are-constants-without-create-graph"])
@given(v=values(dtypes=SMALL_DTYPES), way=st.sampled_from(list(WITH_GRADIENT)), derived=st.booleans())
def spec_the_history_of_the_gradient_passed_is_left_alone(world, v, way, derived):
    """A gradient that requires grad itself counts as a constant: without create_graph what backward makes of it
    doesn't require grad, and nothing comes to where the gradient came from."""
    w = world.leaf(v)
    gradient = w * w if derived else w
    x = torch.full_like(w, 2).requires_grad_()
    z = torch.full_like(w, 2).requires_grad_()

    WITH_GRADIENT[way](x * x, x, gradient)
    z.backward(gradient)

    same([x.grad.requires_grad, z.grad.requires_grad], [False, False], why="no graph of the gradient was asked for")
    same(x.grad, 4 * gradient.detach(), why="the derivative of x*x at 2 is 4")
    same(z.grad, gradient.detach(), why="the derivative of z by itself is 1")
    same(w.grad, None, why="the gradient passed was only read")
    if derived:
        gradient.sum().backward()
        same(w.grad, 2 * w.detach(), why="its own graph is as it was")


# Which part of the message tells it is open: on all releases PyTorch fails in composing it, when it compares the
# gradient with those before it by `==`.
@claim(cites=["torch_tensor/backward-gradient-has-the-type-and-shape", "torch_autograd/backward-sums-over-the-roots"])
@given(pair=TWO_SHAPES, before=st.integers(1, 2), by_grad=st.booleans(), start=STARTS)
def spec_a_gradient_of_another_shape_behind_good_ones_is_an_error(world, pair, before, by_grad, start):
    """A gradient of another shape raises an error as well if those of the roots before it are as they are to be;
    .grad and the graph stay as they were."""
    x = world.leaf(pair[0])
    grad = prepared(x, start)
    roots = [x * number for number in range(1, before + 2)]
    good = [torch.ones_like(x) for _ in roots]

    with raises(RuntimeError, why=f"x has the shape {tuple(x.shape)}"):
        if by_grad:
            torch.autograd.grad(roots, x, [*good[:before], world.constant(pair[1])])
        else:
            torch.autograd.backward(roots, [*good[:before], world.constant(pair[1])])

    same(x.grad is grad, True, why="the call failed")
    same(grad, full(x, start), why="the call failed")
    torch.autograd.backward(roots, good)
    same(x.grad, added(start, torch.full_like(x, sum(range(1, before + 2))).detach()), why="the graph is still whole")


@claim(cites=["torch_autograd/none-for-tensors-without-grad"])
@given(
    v=values(),
    made=st.sampled_from(list(WITHOUT_GRAD)),
    among=st.sampled_from(["alone", "first", "last"]),
    given_none=st.booleans(),
    start=STARTS,
)
def spec_a_root_that_does_not_require_grad_is_an_error(world, v, made, among, given_none, start):
    """Backward raises an error if one of its roots doesn't require grad, whether or not a gradient is passed
    for it, and then leaves the .grad that the other roots would have changed as it was."""
    x = world.leaf(v)
    before = prepared(x, start)
    constant, good = WITHOUT_GRAD[made](x).sum(), (x * x).sum()
    roots = {"alone": [constant], "first": [constant, good], "last": [good, constant]}[among]
    gradients = [None if given_none else torch.ones_like(root) for root in roots]

    with raises(RuntimeError, "does not require grad", why=f"the sum of {made} doesn't"):
        torch.autograd.backward(roots, gradients)
    with raises(RuntimeError, "does not require grad", why=f"the sum of {made} doesn't"):
        torch.autograd.grad(roots, x, gradients)

    same(x.grad is before, True, why="the calls failed")
    same(before, full(x, start), why="the calls failed")
    good.backward()
    same(x.grad, added(start, 2 * x.detach()), why="the graph is still whole")


@claim(cites=["torch_autograd/backward-sums-over-the-roots"])
@given(graph=graphs(anywhere=3), flip=st.booleans(), twice=st.booleans())
def spec_backward_through_several_roots_gives_the_sum(world, graph, flip, twice):
    """torch.autograd.backward with several roots and their gradients gives the sum of what each of them
    would give, in whatever order; a root may depend on another one, and stand there twice."""
    tensors = graph.build(world)
    names = list(graph.cotangents)[:: -1 if flip else 1] * (2 if twice else 1)

    torch.autograd.backward(
        [tensors[name] for name in names], [world.constant(graph.cotangents[name]) for name in names]
    )

    for name, gradient in graph.gradients(world).items():
        if name in graph.leaves:
            expected = gradient if gradient is None else gradient * (2 if twice else 1)
            same(tensors[name].grad, expected, why=f"{name} gets the sum over the roots {names}")


@claim(cites=["torch_autograd/gradients-match-the-roots-in-number"])
@given(v=values(), counts=st.sampled_from([(1, 0), (2, 1), (2, 0), (3, 2), (3, 1)]), start=STARTS)
def spec_fewer_gradients_than_roots_are_an_error(world, v, counts, start):
    """Backward raises an error if there are fewer gradients than roots, and leaves .grad as it was."""
    x = world.leaf(v)
    before = prepared(x, start)
    roots, gradients = counts
    losses = [(x * number).sum() for number in range(1, roots + 1)]
    ones = [torch.ones_like(loss) for loss in losses[:gradients]]

    with raises(RuntimeError, why=f"there are {roots} roots and {gradients} gradients"):
        torch.autograd.backward(losses, ones)
    with raises(RuntimeError, why=f"there are {roots} roots and {gradients} gradients"):
        torch.autograd.grad(losses, x, ones)

    same(x.grad is before, True, why="the calls failed")
    same(before, full(x, start), why="the calls failed")


@claim(cites=["torch_autograd/gradients-match-the-roots-in-number"], observed=True)
@given(v=values(), roots=st.integers(1, 3), more=st.integers(1, 2), way=st.sampled_from(["backward", "grad"]))
def spec_gradients_beyond_the_number_of_roots_are_ignored(world, v, roots, more, way):
    """Gradients for which there is no root are ignored without a word."""
    x = world.leaf(v)
    losses = [(x * number).sum() for number in range(1, roots + 1)]
    gradients = [torch.full_like(losses[0], number) for number in range(1, roots + more + 1)]

    if way == "backward":
        torch.autograd.backward(losses, gradients)
    else:
        (x.grad,) = torch.autograd.grad(losses, x, gradients)

    expected = sum(number * number for number in range(1, roots + 1))
    same(x.grad, torch.full_like(x, expected), why=f"{more} of the gradients have no root")


NO_TENSORS = {"1": 1, "'x'": "x", "[]": [], "1.5": 1.5, "object()": object()}


@claim(cites=["torch_autograd/gradients-and-inputs-are-tensors"])
@given(v=values(), thing=st.sampled_from(list(NO_TENSORS)), position=st.integers(0, 1), start=STARTS)
def spec_only_tensors_are_taken_as_gradients_and_inputs(world, v, thing, position, start):
    """Backward raises an error if something that is no tensor stands among its gradients or inputs, and leaves
    .grad and the graph as they were."""
    x = world.leaf(v)
    before = prepared(x, start)
    roots = [(x * x).sum(), (x * 3).sum()]
    gradients, inputs = [torch.ones_like(root) for root in roots], [x]
    gradients[position] = NO_TENSORS[thing]
    inputs.insert(position, NO_TENSORS[thing])
    for differentiate in (torch.autograd.backward, lambda roots, ones: torch.autograd.grad(roots, x, ones)):
        with raises(TypeError, "Tensor", why=f"{thing} is no tensor"):
            differentiate(roots, gradients)
    with raises(RuntimeError, "have to be Tensors", why=f"{thing} is no tensor"):
        torch.autograd.backward(roots, inputs=inputs)
    with raises(RuntimeError, "have to be Tensors", why=f"{thing} is no tensor"):
        torch.autograd.grad(roots, inputs)

    same(x.grad is before, True, why="the calls failed")
    same(before, full(x, start), why="the calls failed")
    torch.autograd.backward(roots)
    same(x.grad, added(start, 2 * x.detach() + 3), why="the graph is still whole")


@claim(observed=True)
@given(v=values(dtypes=SMALL_DTYPES), factor=st.integers(-3, 3), both=st.booleans(), start=STARTS)
def spec_gradients_can_be_passed_under_their_old_name(world, v, factor, both, start):
    """torch.autograd.backward takes its gradients under the old name grad_variables as well, with a warning that
    it is deprecated; under both names at once they are an error, and .grad stays as it was."""
    x = world.leaf(v)
    before = prepared(x, start)
    y = (x * 2).sum()
    gradient = torch.full_like(y, factor)
    if both:
        with raises(RuntimeError, "both passed", why="one name is enough"):
            torch.autograd.backward(y, gradient, grad_variables=gradient)
        same(x.grad is before, True, why="the call failed")
    with warns(Warning, "deprecated", why="its name is grad_tensors now"):
        torch.autograd.backward(y, grad_variables=gradient)

    same(x.grad, added(start, torch.full_like(x, 2 * factor).detach()), why=f"the gradient is {factor}")
