"""Where backward starts, and with what: roots, the gradients passed with them, and targets."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import SMALL_DTYPES, claim, graphs, raises, same, values
from .kit.tensors import WITHOUT_GRAD

STARTS = st.one_of(st.none(), st.integers(-3, 3))  # what .grad holds beforehand
PICKS = st.lists(st.integers(0, 20), min_size=1, max_size=4)  # positions in a list, modulo its length


def prepared(leaf, start):
    """A .grad for the leaf, full of `start` unless that is None."""
    leaf.grad = None if start is None else torch.full_like(leaf, start)
    return leaf.grad


def full(tensor, start):
    """What .grad of the tensor holds as long as nothing is added to it."""
    return None if start is None else torch.full_like(tensor, start, requires_grad=False)


def added(start, gradient):
    """What .grad holds after the gradient was added to `start`; None stands for no gradient."""
    if gradient is None or start is None:
        return gradient
    return gradient + start


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


@claim(cites=["torch_autograd/grad-returns-the-gradients", "torch_autograd/backward-sums-over-the-roots"])
@given(graph=graphs(anywhere=3), picks=PICKS, start=STARTS, single=st.booleans())
def spec_grad_returns_the_gradients_by_its_inputs_and_writes_none(world, graph, picks, start, single):
    """torch.autograd.grad returns a tuple of the gradients by its inputs, in their order; these may be leaves
    or results, and stand there twice. It writes into no .grad."""
    tensors = graph.build(world)
    for name in graph.leaves:
        prepared(tensors[name], start)
    predicted = graph.gradients(world)
    # Inputs that no root depends on are the subject of the claims below.
    names = [name for name, gradient in predicted.items() if gradient is not None]
    names = [names[pick % len(names)] for pick in picks]
    if single:
        names = names[:1]

    got = torch.autograd.grad(
        [tensors[name] for name in graph.cotangents],
        tensors[names[0]] if single else [tensors[name] for name in names],
        [world.constant(v) for v in graph.cotangents.values()],
    )

    same(isinstance(got, tuple), True, why="there is one gradient for each input")
    same(got, [predicted[name] for name in names], why=f"the inputs are {names}")
    for name in graph.leaves:
        same(tensors[name].grad, full(tensors[name], start), why="grad() only returns the gradients")


@claim(cites=["torch_autograd/unused-inputs-are-an-error-unless-allowed"])
@given(
    v=values(),
    w=values(),
    position=st.integers(0, 2),
    recorded=st.booleans(),
    allow=st.booleans(),
    start=STARTS,
)
def spec_grad_by_an_unused_input_is_an_error_unless_allowed(world, v, w, position, recorded, allow, start):
    """torch.autograd.grad raises an error for an input that its outputs don't depend on; with
    allow_unused=True it returns None for it and the gradients for the others."""
    x, other = world.leaf(v), world.leaf(w)
    prepared(x, start), prepared(other, start)
    y = x * x
    unused = other * 2 if recorded else other
    inputs = [x, y]
    inputs.insert(position, unused)
    expected = [2 * x.detach(), torch.ones_like(y)]
    expected.insert(position, None)

    if allow:
        same(torch.autograd.grad(y.sum(), inputs, allow_unused=True), expected, why=f"input {position} is unused")
    else:
        with raises(RuntimeError, "allow_unused=True", why=f"input {position} is unused"):
            torch.autograd.grad(y.sum(), inputs)
        with raises(RuntimeError, "allow_unused=True", why=f"input {position} is unused"):
            torch.autograd.grad((x * x).sum(), unused, allow_unused=False)

    for leaf in (x, other):
        same(leaf.grad, full(leaf, start), why="grad() writes into no .grad, with or without an error")


@claim(cites=["torch_autograd/materialized-gradients-are-zeros"], since="2.1")
@given(v=values(), w=values(dtypes=SMALL_DTYPES), position=st.integers(0, 2), recorded=st.booleans())
def spec_grad_materializes_zeros_for_unused_inputs(world, v, w, position, recorded):
    """With materialize_grads=True torch.autograd.grad returns zeros, of the input's shape and dtype, for an
    input that its outputs don't depend on; that together with allow_unused=False is an error."""
    x, other = world.leaf(v), world.leaf(w)
    y = x * x
    unused = other * 2 if recorded else other
    inputs = [x, y]
    inputs.insert(position, unused)
    expected = [2 * x.detach(), torch.ones_like(y)]
    expected.insert(position, torch.zeros_like(other))

    with raises(ValueError, "materialize_grads", why="the two contradict each other"):
        torch.autograd.grad(y.sum(), inputs, materialize_grads=True, allow_unused=False)

    same(torch.autograd.grad(y.sum(), inputs, materialize_grads=True), expected, why=f"input {position} is unused")


@claim(observed=True)
@given(v=values(), made=st.sampled_from(list(WITHOUT_GRAD)), position=st.integers(0, 1), start=STARTS)
def spec_a_target_that_does_not_require_grad_is_an_error(world, v, made, position, start):
    """Differentiating by a tensor that doesn't require grad raises an error, by torch.autograd.grad even with
    allow_unused=True; .grad stays as it was."""
    x = world.leaf(v)
    before = prepared(x, start)
    inputs = [x]
    inputs.insert(position, WITHOUT_GRAD[made](x))

    for allow in (False, True):
        with raises(RuntimeError, "require grad", why=f"{made} doesn't require grad"):
            torch.autograd.grad((x * x).sum(), inputs, allow_unused=allow)
    with raises(RuntimeError, "requires_grad=False", why=f"{made} doesn't require grad"):
        (x * x).sum().backward(inputs=inputs)

    same(x.grad is before, True, why="the calls failed")
    same(before, full(x, start), why="the calls failed")


@claim(cites=["torch_autograd/backward-writes-into-its-inputs-only", "article/propagates-to-leaves"])
@given(graph=graphs(anywhere=3), picks=PICKS, start=STARTS)
def spec_backward_with_inputs_writes_into_these_only(world, graph, picks, start):
    """backward(inputs=...) adds the gradients to the .grad of these leaves or results and leaves every other
    .grad as it was; an input that the roots don't depend on is no error and keeps its own."""
    tensors = graph.build(world)
    for name in graph.leaves:
        prepared(tensors[name], start)
    predicted = graph.gradients(world)
    chosen = {list(predicted)[pick % len(predicted)] for pick in picks}

    torch.autograd.backward(
        [tensors[name] for name in graph.cotangents],
        [world.constant(v) for v in graph.cotangents.values()],
        inputs=[tensors[name] for name in predicted if name in chosen],
    )

    for name, gradient in predicted.items():
        before = start if name in graph.leaves else None
        expected = full(tensors[name], before)
        if name in chosen and gradient is not None:
            expected = added(before, gradient)
        same(tensors[name].grad, expected, why=f"the inputs are {sorted(chosen)}")


# Before, a tensor in the place of a list was asked for its length: without dimensions that was an error of
# another kind, and without elements it counted as an empty list.
@claim(cites=["torch_autograd/backward-writes-into-its-inputs-only"], since="2.8")
@given(v=values(), result=st.booleans())
def spec_inputs_may_be_a_single_tensor(world, v, result):
    """backward(inputs=...) takes a single tensor of any shape in the place of a list, but no empty list."""
    x = world.leaf(v)
    y = x * 2
    z = (y * x).sum()

    with raises(RuntimeError, "cannot be empty", why="there is nothing to differentiate by"):
        z.backward(inputs=[])
    z.backward(inputs=y if result else x)

    same(x.grad, None if result else 4 * x.detach(), why="z is sum(2*x*x)")
    same(y.grad, x.detach() if result else None, why="z is sum(y*x)")


@claim(observed=True)
@given(graph=graphs(anywhere=3))
def spec_backward_returns_none_and_changes_no_values(world, graph):
    """Backward returns None; the values of the tensors of the graph and the gradients passed are as they
    were, and none of the latter is the .grad of a leaf."""
    tensors, untouched = graph.build(world), graph.build(world)
    cotangents = {name: world.constant(v) for name, v in graph.cotangents.items()}

    got = torch.autograd.backward([tensors[name] for name in cotangents], list(cotangents.values()))

    same(got, None, why="what backward computes is in .grad")
    for name, tensor in tensors.items():
        same(tensor, untouched[name], why=f"backward reads {name} at the most")
    for name, v in graph.cotangents.items():
        same(cotangents[name], world.constant(v), why="backward reads it only")
        for leaf in graph.leaves:
            same(tensors[leaf].grad is cotangents[name], False, why=f"{leaf} has a .grad of its own")


VIEWS = {
    "x.reshape(-1)": lambda x: x.reshape(-1),
    "x.view_as(x)": lambda x: x.view_as(x),
    "x.unsqueeze(0)": lambda x: x.unsqueeze(0),
    "x[None].reshape(-1)": lambda x: x[None].reshape(-1),
}
COPIES = {
    "x.clone()": lambda x: x.clone(),
    "x.reshape(-1) * 1": lambda x: x.reshape(-1) * 1,
    "x + 0": lambda x: x + 0,
    "x": lambda x: x,
}


@claim(observed=True)
@given(v=values(layouts=("contiguous", "offset")), way=st.sampled_from([*VIEWS, *COPIES]))
def spec_grad_shares_memory_with_the_gradient_passed_if_only_views_lie_between(world, v, way):
    """If nothing but views lies between the root and a leaf, the leaf's .grad can be the very memory of the
    gradient that was passed: the next backward adds to the caller's tensor, too. Else it is never changed."""
    x = torch.zeros_like(world.constant(v)).requires_grad_()
    y = VIEWS[way](x) if way in VIEWS else COPIES[way](x)
    gradient = torch.ones_like(y)

    y.backward(gradient)
    same(x.grad, torch.ones_like(x), why="the derivative is 1")
    same(gradient, torch.ones_like(y), why="one backward only reads it")

    (x * 2).sum().backward()
    same(x.grad, torch.full_like(x, 3), why="the second backward adds 2")
    same(gradient, torch.full_like(y, 3 if way in VIEWS else 1), why=f"y is {way}")
