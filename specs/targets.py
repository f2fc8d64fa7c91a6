"""By what backward differentiates: its inputs, and gradient edges in the place of tensors."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import claim, graphs, raises, same, values
from .kit.tensors import WITHOUT_GRAD, added, full, prepared

STARTS = st.one_of(st.none(), st.integers(-3, 3))  # what .grad holds beforehand
PICKS = st.lists(st.integers(0, 20), min_size=1, max_size=4)  # positions in a list, modulo its length


@claim(
    cites=["torch_autograd/backward-writes-into-its-inputs-only", "article/propagates-to-leaves"],
    formerly=["backward/backward_with_inputs_writes_into_these_only"],
)
@given(graph=graphs(anywhere=3), picks=PICKS, start=STARTS)
def spec_backward_with_inputs_writes_into_these_only(world, graph, picks, start):
    """backward(inputs=...) adds the gradients to the .grad of these leaves or results, once if they stand there
    twice, and leaves every other .grad as it was; an input that the roots don't depend on keeps its own."""
    tensors = graph.build(world)
    for name in graph.leaves:
        prepared(tensors[name], start)
    predicted = graph.gradients(world)
    chosen = [list(predicted)[pick % len(predicted)] for pick in picks]

    torch.autograd.backward(
        [tensors[name] for name in graph.cotangents],
        [world.constant(v) for v in graph.cotangents.values()],
        inputs=[tensors[name] for name in chosen],
    )

    for name, gradient in predicted.items():
        before = start if name in graph.leaves else None
        expected = full(tensors[name], before)
        if name in chosen and gradient is not None:
            expected = added(before, gradient)
        same(tensors[name].grad, expected, why=f"the inputs are {chosen}")


EMPTY = {"[]": lambda: [], "()": lambda: (), "set()": lambda: set()}


@claim(cites=["torch_autograd/inputs-are-not-empty"])
@given(v=values(), empty=st.sampled_from(list(EMPTY)), start=STARTS, leaf=st.booleans())
def spec_backward_by_no_inputs_at_all_is_an_error(world, v, empty, start, leaf):
    """backward raises an error if its inputs are an empty collection, and leaves .grad and the graph as they
    were."""
    x = world.leaf(v)
    before = prepared(x, start)
    y = x if leaf else x * x

    with raises(RuntimeError, "cannot be empty", why="there is nothing to differentiate by"):
        y.backward(torch.ones_like(y), inputs=EMPTY[empty]())

    same(x.grad is before, True, why="the call failed")
    same(before, full(x, start), why="the call failed")
    y.backward(torch.ones_like(y))
    same(x.grad, added(start, torch.ones_like(x) if leaf else 2 * x.detach()), why="the graph is still whole")


# Collections of tensors, whether x is among them, and whether y is.
COLLECTIONS = {
    "[y, x]": (lambda x, y: [y, x], True, True),
    "(x, y)": (lambda x, y: (x, y), True, True),
    "{x, y}": (lambda x, y: {x, y}, True, True),
    "(z for z in (x, y))": (lambda x, y: (z for z in (x, y)), True, True),
    "{1: x, 2: y}.values()": (lambda x, y: {1: x, 2: y}.values(), True, True),
    "(y,)": (lambda x, y: (y,), False, True),
    "iter([x])": (lambda x, y: iter([x]), True, False),
    "y": (lambda x, y: y, False, True),
    "x": (lambda x, y: x, True, False),
}


# Before, whatever stood in the place of a list was asked for its length: for a tensor without dimensions and for a
# generator that was an error of another kind, and a tensor without elements counted as an empty list.
@claim(
    cites=["torch_autograd/backward-writes-into-its-inputs-only"],
    since="2.8",
    formerly=["backward/inputs_may_be_a_single_tensor"],
)
@given(v=values(), inputs=st.sampled_from(list(COLLECTIONS)))
def spec_inputs_may_be_a_single_tensor(world, v, inputs):
    """backward(inputs=...) takes a single tensor of any shape in the place of a list, and any collection of
    tensors, one that can be gone through once only as well."""
    x = world.leaf(v)
    y = x * 2
    z = (y * x).sum()

    collection, by_x, by_y = COLLECTIONS[inputs]
    z.backward(inputs=collection(x, y))

    same(x.grad, 4 * x.detach() if by_x else None, why=f"z is sum(2*x*x), and the inputs are {inputs}")
    same(y.grad, x.detach() if by_y else None, why=f"z is sum(y*x), and the inputs are {inputs}")


@claim(cites=["torch_autograd/inputs-may-be-a-dict"], since="2.13")
@given(graph=graphs(anywhere=2), picks=PICKS, start=STARTS)
def spec_inputs_of_backward_may_be_a_dict(world, graph, picks, start):
    """backward(inputs=...) takes a dict as well: its values are the inputs, whatever their keys."""
    tensors = graph.build(world)
    for name in graph.leaves:
        prepared(tensors[name], start)
    predicted = graph.gradients(world)
    chosen = [list(predicted)[pick % len(predicted)] for pick in picks]

    torch.autograd.backward(
        [tensors[name] for name in graph.cotangents],
        [world.constant(v) for v in graph.cotangents.values()],
        inputs={f"{name}, input {number}": tensors[name] for number, name in enumerate(chosen)},
    )

    for name, gradient in predicted.items():
        before = start if name in graph.leaves else None
        expected = full(tensors[name], before)
        if name in chosen and gradient is not None:
            expected = added(before, gradient)
        same(tensors[name].grad, expected, why=f"the inputs are {chosen}")


@claim(observed=True, formerly=["backward/a_target_that_does_not_require_grad_is_an_error"])
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


def edge(tensor):
    """Where the gradient by the tensor is computed."""
    return torch.autograd.graph.get_gradient_edge(tensor)


@claim(cites=["torch_autograd/edges-stand-for-tensors"], since="2.2")
@given(graph=graphs(anywhere=3), picks=PICKS, start=STARTS, forget=st.booleans())
def spec_grad_by_gradient_edges_is_that_by_their_tensors(world, graph, picks, start, forget):
    """torch.autograd.grad by the gradient edge of a leaf or a result gives the gradient by the tensor, also if the
    program has forgotten the tensor; edges and tensors may be mixed."""
    tensors = graph.build(world)
    for name in graph.leaves:
        prepared(tensors[name], start)
    predicted = graph.gradients(world)
    names = [name for name, gradient in predicted.items() if gradient is not None]
    names = [names[pick % len(names)] for pick in picks]
    inputs = [tensors[name] if pick % 3 == 0 else edge(tensors[name]) for name, pick in zip(names, picks)]
    roots = [tensors[name] for name in graph.cotangents]
    leaves = {name: tensors[name] for name in graph.leaves}
    if forget:
        del tensors

    got = torch.autograd.grad(roots, inputs, [world.constant(v) for v in graph.cotangents.values()])

    same(got, [predicted[name] for name in names], why=f"the inputs are edges of {names} in {graph}")
    for leaf in leaves.values():
        same(leaf.grad, full(leaf, start), why="grad() only returns the gradients")


@claim(cites=["torch_autograd/edges-stand-for-tensors"], since="2.2")
@given(graph=graphs(anywhere=2), picks=PICKS, start=STARTS)
def spec_backward_with_gradient_edges_writes_into_their_leaves_only(world, graph, picks, start):
    """backward(inputs=...) adds the gradient to the .grad of each leaf whose gradient edge is among the inputs. The
    edge of a result makes it write nowhere: unlike the result itself, it has no .grad."""
    tensors = graph.build(world)
    for name in graph.leaves:
        prepared(tensors[name], start)
    predicted = graph.gradients(world)
    chosen = [list(predicted)[pick % len(predicted)] for pick in picks]

    torch.autograd.backward(
        [tensors[name] for name in graph.cotangents],
        [world.constant(v) for v in graph.cotangents.values()],
        inputs=[edge(tensors[name]) for name in chosen],
    )

    for name, gradient in predicted.items():
        if name in graph.leaves:
            expected = full(tensors[name], start)
            if name in chosen and gradient is not None:
                expected = added(start, gradient)
            same(tensors[name].grad, expected, why=f"the inputs are edges of {chosen}")
        else:
            same(tensors[name].grad, None, why="an edge has no .grad")


@claim(cites=["torch_autograd/edges-stand-for-tensors", "torch_autograd/backward-sums-over-the-roots"], since="2.6")
@given(graph=graphs(anywhere=3), by_grad=st.booleans(), flip=st.booleans())
def spec_backward_from_gradient_edges_is_that_from_their_tensors(world, graph, by_grad, flip):
    """Gradient edges in the place of the roots give what their tensors give, by backward and by torch.autograd.grad,
    also if the program has forgotten the tensors."""
    tensors = graph.build(world)
    predicted = graph.gradients(world)
    roots = [edge(tensors[name]) for name in list(graph.cotangents)[:: -1 if flip else 1]]
    gradients = [world.constant(v) for v in list(graph.cotangents.values())[:: -1 if flip else 1]]
    leaves = {name: tensors[name] for name in graph.leaves}
    del tensors

    if by_grad:
        got = torch.autograd.grad(roots, list(leaves.values()), gradients, allow_unused=True)
    else:
        torch.autograd.backward(roots, gradients)
        got = [leaf.grad for leaf in leaves.values()]

    same(got, [predicted[name] for name in leaves], why=f"backward goes from edges of {list(graph.cotangents)}")


SEVERAL = {
    "x.unbind()": lambda x: x.unbind(),
    "x.split(1, -1)": lambda x: x.split(1, -1),
    "x.chunk(2)": lambda x: x.chunk(2),
    "x.max(0)[:1]": lambda x: x.max(0)[:1],
}


@claim(cites=["torch_autograd/edges-stand-for-tensors"], since="2.6")
@given(
    v=values(shapes=((2,), (3,), (2, 3), (1, 3), (3, 2), (2, 1, 3), (24,))),
    code=st.sampled_from(list(SEVERAL)),
    pick=st.integers(0, 20),
    as_root=st.booleans(),
)
def spec_each_result_of_an_operation_has_an_edge_of_its_own(world, v, code, pick, as_root):
    """The gradient edges of several results of one operation tell them apart, as roots and as inputs."""
    x = world.leaf(v)
    y = x * 1
    parts = SEVERAL[code](y)
    number = pick % len(parts)

    if as_root:
        torch.autograd.backward([edge(parts[number])], [torch.full_like(parts[number], 2)])
        by_part = torch.zeros_like(x).detach()
        if code == "x.max(0)[:1]":
            by_part.scatter_(0, x.detach().max(0, keepdim=True).indices, 2)
        else:
            SEVERAL[code](by_part)[number].fill_(2)
        same(x.grad, by_part, why=f"backward went from result {number} of {len(parts)} of {code}")
    else:
        loss = sum((part * factor).sum() for factor, part in enumerate(parts, start=1))
        got = torch.autograd.grad(loss, [edge(part) for part in parts])
        expected = [torch.full_like(part, factor).detach() for factor, part in enumerate(parts, start=1)]
        same(got, expected, why=f"each of the {len(parts)} results of {code} has a factor of its own")


FROM_EDGES = {
    "torch.autograd.backward(e)": lambda e, x, gradients: torch.autograd.backward(e, *gradients),
    "torch.autograd.backward([e])": lambda e, x, gradients: torch.autograd.backward([e], *gradients),
    "torch.autograd.backward(e, inputs=x)": lambda e, x, gradients: torch.autograd.backward(e, *gradients, inputs=[x]),
    "torch.autograd.grad(e, x)": lambda e, x, gradients: x.backward(torch.autograd.grad(e, x, *gradients)[0]),
    "torch.autograd.grad([e], x)": lambda e, x, gradients: x.backward(torch.autograd.grad([e], x, *gradients)[0]),
}


@claim(cites=["torch_autograd/edges-stand-for-tensors", "torch_autograd/none-for-scalars"], since="2.7")
@given(
    v=values(dtypes=("float64", "float32", "bfloat16")),
    whole=st.booleans(),
    way=st.sampled_from(list(FROM_EDGES)),
    passed=st.sampled_from(["nothing", "None", "a gradient", "another shape"]),
    start=STARTS,
)
def spec_a_gradient_edge_needs_a_gradient_as_its_tensor_does(world, v, whole, way, passed, start):
    """A gradient edge as the root of a backward needs a gradient if its tensor has more than one element, or none,
    and takes none of another shape: both are errors that leave .grad and the graph as they were."""
    x = world.leaf(v)
    before = prepared(x, start)
    y = x * x if whole else (x * x).sum()
    root = edge(y)
    shape = (*y.shape, 2) if passed == "another shape" else y.shape
    ones = torch.ones(shape, dtype=y.dtype, device=y.device)
    gradients = {"nothing": [], "None": [None]}.get(passed, [ones])

    if passed == "another shape" or (passed in ("nothing", "None") and y.numel() != 1):
        telling = "Mismatch in shape" if passed == "another shape" else "can be implicitly created only for scalar"
        with raises(RuntimeError, telling, why=f"y has the shape {tuple(y.shape)}"):
            FROM_EDGES[way](root, x, gradients)
        same(x.grad is before, True, why="the call failed")
        same(before, full(x, start), why="the call failed")
        gradients = [torch.ones_like(y)]
    FROM_EDGES[way](root, x, gradients)

    same(x.grad, added(start, 2 * x.detach()), why=f"y is the {'square' if whole else 'sum of squares'} of x")


@claim(cites=["torch_autograd/edges-stand-for-tensors"], since="2.2")
@given(v=values(), w=values(), made=st.sampled_from(list(WITHOUT_GRAD)), allow=st.booleans())
def spec_a_gradient_edge_is_where_a_gradient_is_computed(world, v, w, made, allow):
    """A tensor that doesn't require grad has no gradient edge: asking for it is an error. An unused edge is an error
    or None as an unused tensor is, and zeros can't be made for it."""
    x, other = world.leaf(v), world.leaf(w)
    y = (x * x).sum()

    with raises(RuntimeError, "do not require grad", "does not require grad", why=f"{made} doesn't require grad"):
        edge(WITHOUT_GRAD[made](x))
    with raises(RuntimeError, "materialize_grads", why="an edge doesn't tell the shape of the tensor"):
        torch.autograd.grad(y, [x, edge(other)], materialize_grads=True)

    y = (x * x).sum()
    if allow:
        got = torch.autograd.grad(y, [x, edge(other)], allow_unused=True)
        same(got, [2 * x.detach(), None], why="y doesn't depend on the other one")
    else:
        with raises(RuntimeError, "allow_unused=True", why="y doesn't depend on the other one"):
            torch.autograd.grad(y, [x, edge(other)])
    same([x.grad, other.grad], [None, None], why="grad() writes into no .grad")
