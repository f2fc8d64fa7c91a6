"""Intermediate tensors: backward computes their gradients, and keeps those that it was told to."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import SMALL_DTYPES, claim, graphs, raises, same, silent, values, warns
from .kit.tensors import WITHOUT_GRAD

# Results of x that have its values.
RESULTS = {
    "x * 1": lambda x: x * 1,
    "x[...]": lambda x: x[...],
    "x.clone()": lambda x: x.clone(),
    "x.reshape(-1, 1)": lambda x: x.reshape(-1, 1),
    "torch.stack([x])": lambda x: torch.stack([x]),
    "x.to(torch.float32)": lambda x: x.to(torch.float32),
}
ANY_RESULT = st.sampled_from(list(RESULTS))

# One operation makes several tensors of x; x has at least two elements in its last dimension.
SPLITS = {
    "x.unbind(-1)": lambda x: x.unbind(-1),
    "x.split(1, -1)": lambda x: x.split(1, -1),
    "x.chunk(2, -1)": lambda x: x.chunk(2, -1),
    "x.tensor_split(3, -1)": lambda x: x.tensor_split(3, -1),
}

SUBSET = st.integers(0, 255)  # bit by bit, which tensors of a list


def chosen(names, subset):
    """Those of the names whose bit is set in the number."""
    return [name for bit, name in enumerate(names) if subset >> bit & 1]


@claim(
    cites=[
        "article/nonleaf-grads-print-none",
        "article/every-tensor-has-grad-attribute",
        "torch_tensor/requires-grad-does-not-mean-that-grad-is-filled",
        "leaf_tutorial/reading-grad-of-a-non-leaf-warns",
    ]
)
@given(graph=graphs())
def spec_reading_grad_of_an_intermediate_gives_none_and_warns(world, graph):
    """.grad of a tensor that is no leaf is None, before backward as well as behind it, and whoever reads it
    is warned that the tensor is not a leaf."""
    tensors = graph.build(world)

    for moment in ("before", "after"):
        for name in graph.results:
            with warns(UserWarning, "not a leaf", why=f"{name} isn't one, {moment} backward"):
                grad = tensors[name].grad
            same(grad, None, why=f"{name} was not told to keep it, {moment} backward")
        if moment == "before":
            tensors[graph.root].backward(world.constant(graph.cotangent))


@claim(cites=["article/every-tensor-has-grad-attribute", "torch_tensor/grad-is-none-at-first"])
@given(graph=graphs(), subset=SUBSET)
def spec_reading_grad_of_a_leaf_or_a_retained_tensor_is_silent(world, graph, subset):
    """Every tensor has the attribute .grad. Reading it gives no warning if the tensor is a leaf, whether it
    requires grad or not, or was told to retain its gradient."""
    tensors = graph.build(world)
    retained = chosen(graph.results, subset)
    for name in retained:
        tensors[name].retain_grad()

    for moment in ("before", "after"):
        for name, tensor in tensors.items():
            if name not in graph.results or name in retained:
                with silent(why=f"{name} is a leaf or retains its gradient, {moment} backward"):
                    grad = tensor.grad
                if moment == "before" or not tensor.requires_grad:
                    same(grad, None, why=f"{name} has no gradient {moment} backward")
        if moment == "before":
            tensors[graph.root].backward(world.constant(graph.cotangent))


@claim(
    cites=[
        "article/backward-fills-every-grad",
        "article/accumulates-into-dot-grad",
        "torch_tensor/only-leaves-get-grad",
        "torch_tensor/retain-grad-fills-grad",
        "autograd_mechanics/only-leaves-that-require-grad-accumulate",
        "leaf_tutorial/backward-fills-leaves-that-require-grad",
        "autogradqs/gradients-of-other-nodes-are-not-available",
    ]
)
@given(graph=graphs(), subset=SUBSET)
def spec_backward_fills_leaves_and_retained_tensors_only(world, graph, subset):
    """Backward fills the .grad of the leaves that require grad and of the tensors that were told to by
    retain_grad(), whichever and however many; all others stay None."""
    tensors = graph.build(world)
    retained = chosen(graph.results, subset)
    for name in retained:
        tensors[name].retain_grad()

    tensors[graph.root].backward(world.constant(graph.cotangent))

    predicted = graph.gradients(world)
    for name, tensor in tensors.items():
        kept = name in graph.leaves or name in retained
        same(tensor.grad, predicted[name] if kept else None, why=f"retain_grad() was called on {retained} of {graph}")
        if tensor.grad is not None:
            same(tensor.grad.requires_grad, False, why="no graph of the gradient was asked for")


@claim(
    cites=[
        "article/grad-of-y-is-ones",
        "article/dot-grad-holds-gradient-of-result-wrt-input",
        "torch_tensor/retain-grad-fills-grad",
    ]
)
@given(v=values(dtypes=SMALL_DTYPES), inner=st.integers(-3, 3), outer=st.integers(-3, 3))
def spec_the_grad_of_a_result_is_the_gradient_by_it_not_of_it(world, v, inner, outer):
    """.grad of a result y of x holds the gradient of the loss with respect to y, not that of y with respect
    to x. What x gets is the product of the two, and it is in x.grad."""
    x = world.leaf(v)
    y = x * inner + 1
    same(y.grad, None, why="nothing was differentiated yet")
    y.retain_grad()
    loss = (y * outer).sum()

    loss.backward()

    same(y.grad, torch.full_like(x, outer).detach(), why=f"the loss is sum({outer} * y)")
    same(x.grad, torch.full_like(x, inner * outer).detach(), why=f"y is {inner} * x + 1")


@claim(cites=["leaf_tutorial/the-label-requires-grad-after-backward", "torch_tensor/retains-grad-tells"])
@given(graph=graphs(), subset=SUBSET, passes=st.integers(1, 2))
def spec_neither_backward_nor_retain_grad_changes_requires_grad(world, graph, subset, passes):
    """retain_grad() and backward leave requires_grad, is_leaf and grad_fn of each tensor in the graph as they were:
    constants still don't require grad and have no .grad."""
    tensors = graph.build(world)
    before = {name: [t.requires_grad, t.is_leaf, t.grad_fn] for name, t in tensors.items()}
    for name in chosen(graph.results, subset):
        tensors[name].retain_grad()

    for _ in range(passes):
        tensors[graph.root].backward(world.constant(graph.cotangent), retain_graph=True)

    for name, tensor in tensors.items():
        same([tensor.requires_grad, tensor.is_leaf, tensor.grad_fn], before[name], why=f"{name} of {graph}")
    for name in graph.constants:
        same([tensors[name].grad, tensors[name].retains_grad], [None, False], why=f"{name} is a constant")


@claim(
    cites=[
        "torch_tensor/retain-grad-fills-grad",
        "article/grad-of-y-is-ones",
        "leaf_tutorial/grad-of-a-scalar-root-is-one",
    ]
)
@given(graph=graphs(), scalar=graphs(scalar=True, most=3))
def spec_the_grad_of_the_root_is_the_cotangent(world, graph, scalar):
    """A root that retains its gradient gets the cotangent that backward was called with, as a tensor of its
    own; without one, a scalar root gets 1."""
    root = graph.build(world)[graph.root]
    root.retain_grad()
    cotangent = world.constant(graph.cotangent)
    root.backward(cotangent)
    same(root.grad, cotangent, why="the gradient of the root by itself is the cotangent")
    cotangent.fill_(7)
    same(root.grad, world.constant(graph.cotangent), why="what becomes of the cotangent later doesn't matter")

    root = scalar.build(world)[scalar.root]
    root.retain_grad()
    root.backward()
    same(root.grad, torch.ones_like(root).detach(), why="the cotangent of a scalar is 1")


@claim(cites=["torch_tensor/retains-grad-tells"])
@given(graph=graphs(), subset=SUBSET)
def spec_retains_grad_tells_which_tensors_keep_their_gradient(world, graph, subset):
    """retains_grad is True for the tensors that are no leaves and on which retain_grad() was called, before
    and after backward; it is False for all others, those made from such a tensor included."""
    tensors = graph.build(world)
    same([t.retains_grad for t in tensors.values()], [False] * len(tensors), why="retain_grad() was not called")
    retained = chosen(graph.results, subset)

    for name in retained:
        tensors[name].retain_grad()
        offspring = [tensors[name] * 2, tensors[name][...], tensors[name].detach()]
        same([t.retains_grad for t in offspring], [False] * 3, why=f"only {name} was told to")

    for _ in range(2):
        for name, tensor in tensors.items():
            same(tensor.retains_grad, name in retained, why=f"retain_grad() was called on {retained}")
        tensors[graph.root].backward(world.constant(graph.cotangent), retain_graph=True)


@claim(cites=["torch_tensor/retain-grad-fills-grad", "torch_tensor/grad-accumulates"])
@given(graph=graphs(), calls=st.integers(1, 3), later=st.integers(0, 2), passes=st.integers(1, 3))
def spec_calling_retain_grad_again_changes_nothing(world, graph, calls, later, passes):
    """retain_grad() may be called any number of times, also between two backwards: the gradient is added
    to .grad once for each backward."""
    tensors = graph.build(world)
    predicted = graph.gradients(world)

    for number in range(1, passes + 1):
        for name in graph.results:
            for _ in range(calls if number == 1 else later):
                tensors[name].retain_grad()
        tensors[graph.root].backward(world.constant(graph.cotangent), retain_graph=True)

        for name in graph.results:
            expected = None if predicted[name] is None else number * predicted[name]
            same(tensors[name].grad, expected, why=f"{name} in backward {number} of {graph}")


@claim(cites=["torch_tensor/retain-grad-fills-grad", "torch_tensor/grad-accumulates", "torch_tensor/grad-can-be-set"])
@given(v=values(), retained=st.lists(st.booleans(), min_size=1, max_size=4), start=st.one_of(st.none(), st.just(3)))
def spec_a_retained_grad_accumulates_like_that_of_a_leaf(world, v, retained, start):
    """Later backwards, through the same graph or another one, add to the .grad of a retained tensor, also
    if the user set it. After it was set to None the next backward leaves its own gradient only."""
    x = world.leaf(v)
    y = x * 2
    y.retain_grad()
    y.grad = None if start is None else torch.full_like(y, start).detach()

    seen = start or 0
    for factor, clear in enumerate(retained, start=1):
        (y * factor).sum().backward(retain_graph=True)  # y's own part of the graph is used again
        seen += factor
        same(y.grad, torch.full_like(y, seen).detach(), why=f"{factor} was added")
        if clear:
            y.grad = None
            seen = 0
    same(x.grad, torch.full_like(x, sum(range(1, len(retained) + 1)) * 2).detach(), why="y is 2x")


@claim(
    cites=[
        "torch_tensor/retain-grad-does-nothing-to-leaves",
        "torch_tensor/retains-grad-tells",
        "leaf_tutorial/retains-grad-is-false-for-leaves",
    ]
)
@given(v=values(), calls=st.integers(1, 3), passes=st.integers(1, 3), parameter=st.booleans())
def spec_retain_grad_does_nothing_to_a_leaf_that_requires_grad(world, v, calls, passes, parameter):
    """On a leaf that requires grad retain_grad() does nothing: its .grad is filled as ever, once for each
    backward, and retains_grad stays False."""
    x = torch.nn.Parameter(world.constant(v)) if parameter else world.leaf(v)

    for number in range(1, passes + 1):
        for _ in range(calls):
            same(x.retain_grad(), None, why="it returns nothing")
        same([x.retains_grad, x.is_leaf, x.requires_grad], [False, True, True], why="x is a leaf as before")
        (x * 2).sum().backward()
        same(x.grad, torch.full_like(x, 2 * number).detach(), why=f"this is backward {number} of sum(2x)")


@claim(cites=["torch_tensor/retain-grad-does-nothing-to-leaves", "leaf_tutorial/retain-grad-of-a-constant-is-an-error"])
@given(v=values(), constant=st.sampled_from(list(WITHOUT_GRAD)))
def spec_retain_grad_raises_if_the_tensor_does_not_require_grad(world, v, constant):
    """retain_grad() on a tensor that doesn't require grad raises an error and changes nothing; the tensor
    can still be made to require grad."""
    x = world.leaf(v)
    y = WITHOUT_GRAD[constant](x)

    with raises(RuntimeError, "can't retain_grad on Tensor that has requires_grad=False", why=f"y is {constant}"):
        y.retain_grad()

    same([y.retains_grad, y.requires_grad, y.is_leaf, y.grad], [False, False, True, None], why="nothing was changed")
    if y.is_floating_point():
        (y.requires_grad_() * 2).sum().backward()
        same(y.grad, torch.full_like(y, 2).detach(), why="now it is a leaf that requires grad")


@claim(cites=["article/only-interest-in-a", "torch_tensor/hook-is-called-with-each-gradient"])
@given(graph=graphs(), subset=SUBSET, passes=st.integers(1, 2))
def spec_the_gradient_of_an_intermediate_is_computed_all_the_same(world, graph, subset, passes):
    """The gradient of each tensor on which the root depends is computed, be it kept or not: a hook is
    called with it, once for each backward. A hook on any other tensor isn't called."""
    tensors = graph.build(world)
    for name in chosen(graph.results, subset):
        tensors[name].retain_grad()
    seen = {name: [] for name in [*graph.leaves, *graph.results]}
    for name, gradients in seen.items():
        tensors[name].register_hook(lambda grad, gradients=gradients: gradients.append(grad.clone()))

    for _ in range(passes):
        tensors[graph.root].backward(world.constant(graph.cotangent), retain_graph=True)

    for name, predicted in graph.gradients(world).items():
        expected = [] if predicted is None else [predicted] * passes
        same(seen[name], expected, why=f"{name} in {graph}")


@claim(cites=["article/chain-rule-root-to-leaf", "torch_tensor/hook-is-called-with-each-gradient"])
@given(
    v=values(),
    result=st.one_of(st.none(), ANY_RESULT),
    uses=st.lists(st.integers(-3, 3), min_size=1, max_size=5),
    passes=st.integers(1, 3),
)
def spec_the_gradient_of_a_tensor_is_complete_when_it_is_seen(world, v, result, uses, passes):
    """Of a tensor that is used several times, a hook sees the sum of the gradients of all uses, once for
    each backward, and so does a retained .grad."""
    x = world.leaf(v)
    y = x if result is None else RESULTS[result](x)
    y.retain_grad()
    seen = []
    y.register_hook(lambda grad: seen.append(grad.clone()))  # x.grad may come to share its memory

    for _ in range(passes):
        loss = sum((y * factor).sum() for factor in uses)
        loss.backward(retain_graph=True)

    total = torch.full_like(y, sum(uses)).detach()
    same(seen, [total] * passes, why=f"y was used with the factors {uses}")
    same(y.grad, passes * total, why=f"{passes} backwards add up")
    same(x.grad, torch.full_like(x, passes * sum(uses)).detach(), why="y has x's values")


@claim(cites=["torch_tensor/retain-grad-fills-grad"])
@given(
    v=values(shapes=((2,), (3,), (2, 3), (1, 2), (2, 1, 3), (24,))),
    split=st.sampled_from(list(SPLITS)),
    subset=SUBSET,
)
def spec_each_result_of_one_operation_keeps_its_own_gradient(world, v, split, subset):
    """Of several tensors that one operation made, each keeps its own gradient, whichever of them were told
    to; the others keep none."""
    x = world.leaf(v)
    parts = SPLITS[split](x)
    retained = chosen(range(len(parts)), subset)
    for number in retained:
        parts[number].retain_grad()

    sum((part * number).sum() for number, part in enumerate(parts)).backward()

    for number, part in enumerate(parts):
        kept = number in retained
        same(part.retains_grad, kept, why=f"retain_grad() was called on the parts {retained}")
        expected = torch.full_like(part, number).detach() if kept else None
        same(part.grad, expected, why=f"part {number} was multiplied by {number}; the parts {retained} retain")


@claim(observed=True, since="2.0")
@given(
    v=values(shapes=((2,), (3,), (2, 3), (1, 2), (2, 1, 3))),
    split=st.sampled_from(list(SPLITS)),
    used=st.integers(0, 1),
    passes=st.integers(1, 2),
)
def spec_a_result_beside_the_one_that_is_used_keeps_no_gradient(world, v, split, used, passes):
    """If a loss depends on one of several tensors that an operation made, the others keep no gradient: their
    .grad stays None, also if they were told to retain it."""
    x = world.leaf(v)
    parts = SPLITS[split](x)
    for part in parts:
        part.retain_grad()

    for _ in range(passes):
        (parts[used] * 2).sum().backward(retain_graph=True)

    for number, part in enumerate(parts):
        expected = torch.full_like(part, 2 * passes).detach() if number == used else None
        same(part.grad, expected, why=f"only part {used} was used")


@claim(cites=["torch_tensor/retain-grad-fills-grad"], since="2.0")
@given(v=values(), result=st.sampled_from(["x * 1", "x.clone()"]), twice=st.booleans(), factor=st.integers(-2, 3))
def spec_a_tensor_that_was_changed_in_place_keeps_the_gradient_by_its_new_value(world, v, result, twice, factor):
    """If a tensor that retains its gradient is changed in place, its .grad is the gradient with respect to
    the value that it has then."""
    x = world.leaf(v)
    y = RESULTS[result](x)
    y.retain_grad()

    y.mul_(factor)
    if twice:
        y.add_(1)
    same(y.retains_grad, True, why="y is the same tensor")
    (y * 3).sum().backward()

    same(y.grad, torch.full_like(y, 3).detach(), why="the loss is sum(3y)")
    same(x.grad, torch.full_like(x, 3 * factor).detach(), why=f"y was multiplied by {factor} after it was made of x")


@claim(observed=True)
@given(graph=graphs(), subset=SUBSET)
def spec_a_retained_grad_is_a_tensor_of_its_own(world, graph, subset):
    """A retained gradient shares no memory with any other gradient: what is written into it doesn't show
    elsewhere."""
    tensors = graph.build(world)
    retained = chosen(graph.results, subset | 1)
    for name in retained:
        tensors[name].retain_grad()
    tensors[graph.root].backward(world.constant(graph.cotangent))

    predicted = graph.gradients(world)
    for name in retained:
        if tensors[name].grad is not None:
            same(tensors[name].grad, predicted[name], why="nothing was written into it")
            tensors[name].grad.fill_(2**30)
    for name in graph.leaves:
        same(tensors[name].grad, predicted[name], why=f"the gradients of {retained} were overwritten, not this one")


@claim(observed=True)
@given(v=values(), way=st.sampled_from(["grad", "inputs"]))
def spec_other_ways_to_differentiate_fill_retained_grads_too(world, v, way):
    """torch.autograd.grad, and backward with inputs=, fill the .grad of a retained tensor on the way to
    what they were asked for, although they leave the leaves' .grad alone."""
    x, other = world.leaf(v), world.leaf(v)
    y = x * other
    y.retain_grad()
    loss = (y * 3).sum()

    if way == "grad":
        same(torch.autograd.grad(loss, [x]), [3 * other.detach()], why="y is x * other")
    else:
        loss.backward(inputs=[x])
        same(x.grad, 3 * other.detach(), why="y is x * other")

    same(y.grad, torch.full_like(y, 3).detach(), why="y retains its gradient")
    same(other.grad, None, why="only the gradient by x was asked for")
