"""The gradients by chosen tensors, returned: torch.autograd.grad."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import SMALL_DTYPES, claim, graphs, raises, same, values, warns
from .kit.tensors import full, prepared

STARTS = st.one_of(st.none(), st.integers(-3, 3))  # what .grad holds beforehand
EMPTY = {"[]": lambda: [], "()": lambda: (), "set()": lambda: set(), "{}.values()": lambda: {}.values()}
WITHOUT_INPUTS = {
    "torch.autograd.grad(y, inputs)": lambda y, inputs: torch.autograd.grad(y, inputs),
    "torch.autograd.grad([y], inputs, [None])": lambda y, inputs: torch.autograd.grad([y], inputs, [None]),
    "torch.autograd.grad(y, inputs, allow_unused=True)": lambda y, inputs: torch.autograd.grad(
        y, inputs, allow_unused=True
    ),
}
PICKS = st.lists(st.integers(0, 20), min_size=1, max_size=4)  # positions in a list, modulo its length


@claim(
    cites=["torch_autograd/grad-returns-the-gradients", "torch_autograd/backward-sums-over-the-roots"],
    formerly=["backward/grad_returns_the_gradients_by_its_inputs_and_writes_none"],
)
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


@claim(
    cites=["torch_autograd/unused-inputs-are-an-error-unless-allowed"],
    formerly=["backward/grad_by_an_unused_input_is_an_error_unless_allowed"],
)
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


@claim(
    cites=["torch_autograd/materialized-gradients-are-zeros"],
    since="2.1",
    formerly=["backward/grad_materializes_zeros_for_unused_inputs"],
)
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


@claim(
    cites=[
        "torch_autograd/materialized-gradients-are-zeros",
        "torch_autograd/gradients-are-constants-without-create-graph",
    ],
    since="2.11",
)
@given(v=values(dtypes=SMALL_DTYPES), w=values(), create=st.booleans(), position=st.integers(0, 1))
def spec_materialized_zeros_require_grad_with_create_graph_only(world, v, w, create, position):
    """The zeros that torch.autograd.grad returns for an unused input require grad exactly if create_graph is true,
    as other gradients do; they are leaves."""
    x, unused = world.leaf(w), world.leaf(v)
    inputs = [x]
    inputs.insert(position, unused)

    got = torch.autograd.grad((x * x).sum(), inputs, create_graph=create, materialize_grads=True)

    same(got[position], torch.zeros_like(unused).detach(), why=f"input {position} is unused")
    same([gradient.requires_grad for gradient in got], [create, create], why=f"create_graph was {create}")
    same(got[position].is_leaf, True, why="the zeros have no history")


@claim(cites=["torch_autograd/materialized-gradients-are-zeros"], observed=True, since="2.1", until="2.9")
@given(v=values(dtypes=SMALL_DTYPES), w=values(), create=st.booleans(), position=st.integers(0, 1))
def spec_materialized_zeros_require_grad(world, v, w, create, position):
    """The zeros that torch.autograd.grad returns for an unused input require grad, also without create_graph:
    each of them is a new leaf."""
    x, unused = world.leaf(w), world.leaf(v)
    inputs = [x]
    inputs.insert(position, unused)

    got = torch.autograd.grad((x * x).sum(), inputs, create_graph=create, materialize_grads=True)

    same(got[position], torch.zeros_like(unused).detach(), why=f"input {position} is unused")
    same(got[position].requires_grad, True, why="the zeros were made so")
    same(got[position].is_leaf, True, why="they have no history")
    same(got[1 - position].requires_grad, create, why="2x depends on x")


@claim(cites=["torch_autograd/inputs-are-not-empty"])
@given(v=values(), empty=st.sampled_from(list(EMPTY)), code=st.sampled_from(list(WITHOUT_INPUTS)), start=STARTS)
def spec_grad_by_no_inputs_at_all_is_an_error(world, v, empty, code, start):
    """torch.autograd.grad raises an error if its inputs are an empty collection, and leaves .grad and the graph as
    they were."""
    x = world.leaf(v)
    before = prepared(x, start)
    y = (x * x).sum()

    with raises(Exception, "non-empty inputs", "cannot be empty", why="there is nothing to differentiate by"):
        WITHOUT_INPUTS[code](y, EMPTY[empty]())

    same(x.grad is before, True, why="the call failed")
    same(before, full(x, start), why="the call failed")
    same(torch.autograd.grad(y, x), [2 * x.detach()], why="the graph is still whole")


@claim(cites=["torch_autograd/inputs-may-be-a-dict"], since="2.13")
@given(graph=graphs(anywhere=2), picks=PICKS, unused=st.booleans(), materialize=st.booleans(), start=STARTS)
def spec_grad_by_a_dict_of_inputs_returns_a_dict(world, graph, picks, unused, materialize, start):
    """torch.autograd.grad with a dict of inputs returns a dict of their gradients with the same keys in the same
    order; unused inputs are an error, None or zeros as in a list."""
    tensors = graph.build(world)
    for name in graph.leaves:
        prepared(tensors[name], start)
    predicted = graph.gradients(world)
    names = [name for name, gradient in predicted.items() if gradient is not None]
    inputs = {f"{names[pick % len(names)]}, input {pick}": tensors[names[pick % len(names)]] for pick in picks}
    expected = {key: predicted[key.partition(",")[0]] for key in inputs}
    roots = [tensors[name] for name in graph.cotangents]
    gradients = [world.constant(v) for v in graph.cotangents.values()]

    if unused:
        other = torch.ones_like(roots[0]).detach().requires_grad_()
        inputs = {"unused": other, **inputs}
        expected = {"unused": torch.zeros_like(other).detach() if materialize else None, **expected}
        with raises(RuntimeError, "allow_unused=True", why="one of them is unused"):
            torch.autograd.grad(roots, inputs, gradients, retain_graph=True)
    got = torch.autograd.grad(roots, inputs, gradients, allow_unused=True, materialize_grads=materialize)

    same(isinstance(got, dict), True, why="the inputs are a dict")
    same(list(got), list(inputs), why="the keys are those of the inputs")
    same(list(got.values()), list(expected.values()), why=f"the inputs are {list(inputs)}")
    for name in graph.leaves:
        same(tensors[name].grad, full(tensors[name], start), why="grad() only returns the gradients")


@claim(cites=["torch_autograd/only-inputs-is-ignored"])
@given(graph=graphs(anywhere=1), start=STARTS)
def spec_only_inputs_is_ignored_with_a_warning(world, graph, start):
    """torch.autograd.grad with only_inputs=False gives a warning that this is deprecated, and does what it does
    without: it writes into no .grad."""
    tensors = graph.build(world)
    for name in graph.leaves:
        prepared(tensors[name], start)
    predicted = graph.gradients(world)
    names = [name for name, gradient in predicted.items() if gradient is not None]

    with warns(Warning, "only_inputs argument is deprecated", why="it is told to accumulate, too"):
        got = torch.autograd.grad(
            tensors[graph.root], tensors[names[-1]], world.constant(graph.cotangent), only_inputs=False
        )

    same(got, [predicted[names[-1]]], why="only_inputs changes nothing")
    for name in graph.leaves:
        same(tensors[name].grad, full(tensors[name], start), why="grad() only returns the gradients")


WEIGHTS = st.lists(st.integers(-3, 3), min_size=1, max_size=3)


@claim(cites=["torch_autograd/batched-gradients-give-batched-products"])
@given(graph=graphs(anywhere=2, most=6), picks=PICKS, weights=WEIGHTS, start=STARTS)
def spec_batched_gradients_give_the_gradients_one_below_the_other(world, graph, picks, weights, start):
    """With is_grads_batched=True the first dimension of each gradient passed counts several of them: grad returns
    what each of them gives, one below the other, by every input; it writes into no .grad."""
    tensors = graph.build(world)
    for name in graph.leaves:
        prepared(tensors[name], start)
    predicted = graph.gradients(world)
    names = [name for name, gradient in predicted.items() if gradient is not None]
    names = [names[pick % len(names)] for pick in picks]
    gradients = [world.constant(v) for v in graph.cotangents.values()]

    got = torch.autograd.grad(
        [tensors[name] for name in graph.cotangents],
        [tensors[name] for name in names],
        [torch.stack([gradient * weight for weight in weights]) for gradient in gradients],
        is_grads_batched=True,
    )

    expected = [torch.stack([predicted[name] * weight for weight in weights]) for name in names]
    same(got, expected, why=f"the inputs are {names} in {graph}, and the gradients are weighed with {weights}")
    for name in graph.leaves:
        same(tensors[name].grad, full(tensors[name], start), why="grad() only returns the gradients")


# Functions of a tensor with their vector-Jacobian products, by hand.
PRODUCTS = {
    "x * x": (lambda x: x * x, lambda x, v: 2 * x * v),
    "x.sum(-1)": (lambda x: x.sum(-1), lambda x, v: v.unsqueeze(-1).expand(x.shape) if x.dim() else v),
    "x.flip(0)": (lambda x: x.flip(0) if x.dim() else x * 1, lambda x, v: v.flip(0) if x.dim() else v),
    "x.sum() * x": (lambda x: x.sum() * x, lambda x, v: (v * x).sum() + x.sum() * v),
    "torch.stack([x, x * x], -1)": (
        lambda x: torch.stack([x, x * x], -1),
        lambda x, v: v[..., 0] + 2 * x * v[..., 1],
    ),
    "x.relu().reshape(-1)": (lambda x: x.relu().reshape(-1), lambda x, v: v.reshape(x.shape) * (x > 0)),
    "x.unsqueeze(0)[[0, 0]]": (lambda x: x.unsqueeze(0)[[0, 0]], lambda x, v: v[0] + v[1]),
}


@claim(cites=["torch_autograd/batched-gradients-give-batched-products"], needs=["float64"])
@given(
    v=values(dtypes=("float64",)),
    code=st.sampled_from(list(PRODUCTS)),
    count=st.integers(1, 4),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.int64]),
    first=st.integers(-3, 3),
    create=st.booleans(),
)
def spec_each_gradient_of_a_batch_gives_its_own_product(world, v, code, count, dtype, first, create):
    """Each gradient of a batch gives its own vector-Jacobian product, of the dtype of the input, whatever the other
    gradients of the batch are."""
    x = world.leaf(v)
    f, product = PRODUCTS[code]
    y = f(x)
    batch = torch.arange(count * y.numel(), dtype=dtype, device=world.device).reshape(count, *y.shape) + first

    (got,) = torch.autograd.grad(y, x, batch, is_grads_batched=True, create_graph=create)

    expected = torch.stack([product(x.detach(), gradient.to(x.dtype)) for gradient in batch])
    same(got, expected, why=f"y is {code}, and there are {count} gradients")


# What isn't a batch of gradients for two roots of the shape of x, with the error and a part of its message.
NO_BATCHES = {
    "of a larger shape": (
        lambda x: [torch.ones_like(x)[None, ..., None], torch.ones_like(x)[None]],
        RuntimeError,
        "batch dimension",
    ),
    "two batches in one": (
        lambda x: [torch.ones_like(x)[None, None], torch.ones_like(x)[None]],
        RuntimeError,
        "batch dimension",
    ),
    "3 and 2 in number": (
        lambda x: [torch.stack([x, x, x]).detach(), torch.stack([x, x]).detach()],
        ValueError,
        "same size in the mapped dimension",
    ),
    "no batch": (lambda x: [torch.ones_like(x)[None], torch.ones_like(x)], Exception, ""),
    "None": (lambda x: [torch.ones_like(x)[None], None], Exception, ""),
    "left out": (lambda x: None, Exception, ""),
}


@claim(cites=["torch_autograd/batched-gradients-give-batched-products", "torch_autograd/none-for-scalars"])
@given(v=values(dtypes=("float64",)), wrong=st.sampled_from(list(NO_BATCHES)), start=STARTS)
def spec_gradients_that_are_no_batch_are_an_error(world, v, wrong, start):
    """With is_grads_batched=True it is an error if the shape of a gradient behind its first dimension isn't that of
    the root, if there are not as many of them for each root, or if they are left out, also for roots of one element;
    .grad and the graph stay as they were."""
    x = world.leaf(v)
    before = prepared(x, start)
    roots = [x * x, x * 3]
    make, error, telling = NO_BATCHES[wrong]

    with raises(error, telling, why=f"the gradients passed are {wrong}"):
        torch.autograd.grad(roots, x, make(x), is_grads_batched=True)

    same(x.grad is before, True, why="the call failed")
    same(before, full(x, start), why="the call failed")
    torch.autograd.backward(roots, [torch.ones_like(x), torch.ones_like(x)])
    same(x.grad, full(x, start or 0) + 2 * x.detach() + 3, why="the graph is still whole")
