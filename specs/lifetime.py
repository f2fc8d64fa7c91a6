"""How long a graph lives, and what it keeps: nodes, leaves, and the values that were saved for backward."""

import weakref

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import claim, graphs, raises, same, values
from .kit.nodes import WAYS, nodes_below


@claim(cites=["article/new-graph-after-each-backward"], formerly=["graph/graphs_stand_side_by_side"])
@given(v=values(), events=st.lists(st.tuples(st.booleans(), st.integers(0, 3)), min_size=2, max_size=8))
def spec_graphs_stand_side_by_side(world, v, events):
    """Any number of graphs of the same leaf can stand side by side. Each is differentiated on its own, in
    whatever order forward passes and backwards come."""
    x = world.leaf(v)
    standing, total = [], 0

    for number, (forward, which) in enumerate(events, start=1):
        if forward or not standing:
            standing.append((number, (x * x * number).sum()))
        else:
            factor, loss = standing.pop(which % len(standing))
            loss.backward()
            total += factor
            same(x.grad, total * 2 * x.detach(), why=f"sum(x*x*{factor}) was differentiated now")
    for factor, loss in standing:
        loss.backward()
        total += factor
    same(x.grad, total * 2 * x.detach(), why="each graph was differentiated once")


class Cube(torch.autograd.Function):
    """An operation that the user defines, and that saves its input and its result."""

    @staticmethod
    def forward(ctx, x):  # noqa: D102
        y = x * x * x
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    def backward(ctx, cotangent):  # noqa: D102
        x, _ = ctx.saved_tensors
        return cotangent * 3 * x * x


SAVING = {  # operations that save values for backward
    "x * x": lambda x: x * x,
    "x * x.sum()": lambda x: x * x.sum(),
    "x.square()": lambda x: x.square(),
    "x.relu()": lambda x: x.relu(),
    "x.abs()": lambda x: x.abs(),
    "torch.where(x > 0, x, -x)": lambda x: torch.where(x > 0, x, -x),
    "x.exp()": lambda x: x.exp(),
    "x**3": lambda x: x**3,
    "x.prod()": lambda x: x.prod(),
    "x.softmax(-1)": lambda x: x.softmax(-1),
    "x.clone().mul_(x)": lambda x: x.clone().mul_(x),
    "x.masked_fill(x > 0, 2)": lambda x: x.masked_fill(x > 0, 2),
    "torch.outer(x, x)": lambda x: torch.outer(x.reshape(-1), x.reshape(-1)),
    "torch.nn.functional.gelu(x)": lambda x: torch.nn.functional.gelu(x),
    "x.reshape(-1).sort().values": lambda x: x.reshape(-1).sort().values,
    "x.max()": lambda x: x.max() if x.numel() else x * x,
    "Cube.apply(x)": lambda x: Cube.apply(x),
}


@claim(
    cites=["torch_autograd/graph-is-freed-unless-retained"],
    formerly=["graph/a_second_backward_through_a_freed_graph_raises"],
)
@given(
    v=values(),
    code=st.sampled_from(list(SAVING)),
    ways=st.lists(st.sampled_from(list(WAYS)), min_size=2, max_size=3),
    shared=st.booleans(),
)
def spec_a_second_backward_through_a_freed_graph_raises(world, v, code, ways, shared):
    """Backward frees the values that the graph saved, unless it is told to retain them. Another backward
    through the graph, or another one that shares a part of it, raises an error and leaves .grad alone."""
    x = world.leaf(v)
    y = SAVING[code](x)
    first = y.sum()
    second = (y * 2).sum() if shared else first

    WAYS[ways[0]](first, [x], None)
    grad = x.grad
    before = torch.zeros_like(x) if grad is None else grad.clone()

    for way in ways[1:]:
        with raises(RuntimeError, "retain_graph=True", why=f"what {code} saved is freed"):
            WAYS[way](second, [x], None)
        same(x.grad is grad, True, why="there was no gradient to add")
        same(grad, None if grad is None else before, why="there was no gradient to add")

    (x * 3).sum().backward()
    same(x.grad, before + 3, why="a new graph can be differentiated, as always")


@claim(
    cites=["article/computes-tensor-gradients", "torch_autograd/graph-is-freed-unless-retained"],
    formerly=["graph/a_retained_graph_can_be_differentiated_again"],
)
@given(g=graphs(), ways=st.lists(st.sampled_from(list(WAYS)), min_size=2, max_size=5))
def spec_a_retained_graph_can_be_differentiated_again(world, g, ways):
    """With retain_graph=True the same graph can be differentiated any number of times, gives the same
    gradients each time, and may be differentiated once more without."""
    tensors = g.build(world)
    leaves = [tensors[name] for name in g.leaves]
    gradients = [g.gradients(world)[name] for name in g.leaves]

    backwards = 0
    for number, way in enumerate(ways, start=1):
        cotangent = world.constant(g.cotangent)  # anew, as .grad may share its memory and change it
        try:
            got, freed = WAYS[way](tensors[g.root], leaves, cotangent, retain_graph=number < len(ways)), None
        except RuntimeError as error:
            freed = str(error)
        same(freed, None, why="all of them but the last retain the graph")
        if way == "grad":
            same(got, gradients, why="the graph is the same as before")
        else:
            backwards += 1
        for leaf, gradient in zip(leaves, gradients, strict=True):
            expected = backwards * gradient if backwards and gradient is not None else None
            same(leaf.grad, expected, why=f"{backwards} backwards added the same gradient")


@claim(
    cites=[
        "torch_autograd/graph-is-freed-unless-retained",
        "torch_autograd/retain-graph-is-create-graph-by-default",
    ],
    formerly=["graph/retain_graph_is_create_graph_unless_given"],
)
@given(
    v=values(),
    code=st.sampled_from(list(SAVING)),
    ways=st.tuples(st.sampled_from(list(WAYS)), st.sampled_from(list(WAYS))),
    retain=st.sampled_from([None, False, True]),
    create=st.booleans(),
)
def spec_retain_graph_is_create_graph_unless_given(world, v, code, ways, retain, create):
    """If retain_graph isn't given, or is None, the graph is retained exactly if create_graph is true. Given,
    retain_graph decides alone: with False the graph is freed although create_graph is true."""
    for how in [{"retain_graph": retain}] if retain is not None else [{}, {"retain_graph": None}]:
        x = world.leaf(v)
        y = SAVING[code](x).sum()

        WAYS[ways[0]](y, [x], None, create_graph=create, **how)
        x.grad = None  # with create_graph it refers to the graph, and that to x
        try:
            WAYS[ways[1]](y, [x], None)
            retained = True
        except RuntimeError:
            retained = False

        why = f"create_graph was {create}, and retain_graph was {how.get('retain_graph', 'not given')}"
        same(retained, create if retain is None else retain, why=why)


@claim(
    cites=["article/computes-tensor-gradients", "article/graph-contains-intermediates"],
    formerly=["graph/forgetting_tensors_leaves_the_graph_whole"],
)
@given(g=graphs())
def spec_forgetting_tensors_leaves_the_graph_whole(world, g):
    """The graph holds all that backward needs: the program may forget the constants and the
    intermediate tensors, and the gradients are right nevertheless."""
    tensors = g.build(world)
    leaves = {name: tensors[name] for name in g.leaves}
    root = tensors[g.root]
    del tensors

    root.backward(world.constant(g.cotangent))

    gradients = g.gradients(world)
    for name, leaf in leaves.items():
        same(leaf.grad, gradients[name], why=f"the graph still leads from {g.root} to {name}, if it ever did")


NEEDLESS = {  # operations whose derivative, the number, takes no value of y
    "y + 1": (lambda y: y + 1, 1),
    "y * 2": (lambda y: y * 2, 2),
    "-y": (lambda y: -y, -1),
    "y.clone()": (lambda y: y.clone(), 1),
    "y.sum()": (lambda y: y.sum(), 1),
}


@claim(observed=True, formerly=["graph/the_graph_does_not_keep_tensors_that_it_did_not_save"])
@given(v=values(), codes=st.lists(st.sampled_from(list(NEEDLESS)), min_size=1, max_size=4))
def spec_the_graph_does_not_keep_tensors_that_it_did_not_save(world, v, codes):
    """The graph keeps no intermediate tensor whose value backward can do without: it is gone as soon as
    the program forgets it, though the node of its operation stays."""
    x = world.leaf(v)
    y, slope, intermediates = x * x, 1, []
    for code in codes:
        operation, derivative = NEEDLESS[code]
        intermediates.append(weakref.ref(y))
        y, slope = operation(y), slope * derivative

    gone = [reference() is None for reference in intermediates]
    same(gone, [True] * len(codes), why="only the last y has a name")
    y.sum().backward()
    same(x.grad, slope * 2 * x.detach(), why=f"backward went from {slope} times sum(x*x) to x")


class Token:
    """Something to keep in a node's metadata, so that it is gone when the node is."""


@claim(cites=["autograd_mechanics/grad-fn-is-the-way-into-the-graph", "torch_autograd/metadata-belongs-to-the-node"])
@given(g=graphs(most=6), kept=st.integers(0, 127), as_nodes=st.booleans())
def spec_a_node_lives_as_long_as_a_tensor_or_node_above_it(world, g, kept, as_nodes):
    """A node lives as long as the program refers to a result, or to a node, from which it can be reached. As
    soon as there is none any more it is gone, without the garbage collector."""
    tensors = g.build(world)
    leaves = [tensors[name] for name in g.leaves]
    names = {name: tensors[name].grad_fn for name in g.results}
    below = {name: [n for n in g.results if names[n] in nodes_below(names[name])] for name in g.results}
    alive = {}
    for name, node in names.items():
        token = Token()
        node.metadata["token"], alive[name] = token, weakref.ref(token)
    roots = [name for bit, name in enumerate(g.results) if kept >> bit & 1]
    held = [names[name] if as_nodes else tensors[name] for name in roots]
    del tensors, names, node, token

    expected = {name for root in roots for name in below[root]}
    got = {name for name in g.results if alive[name]() is not None}
    same(got, expected, why=f"the program keeps {roots}, and the leaves, {len(leaves)} of them")
    del held
    got = {name for name in g.results if alive[name]() is not None}
    same(got, set(), why="the program keeps only the leaves now")


@claim(cites=["autograd_mechanics/graph-is-recorded-as-operations-execute"])
@given(vs=st.lists(values(), min_size=1, max_size=3), used=st.integers(0, 3), code=st.sampled_from(list(SAVING)))
def spec_the_graph_keeps_its_leaves(world, vs, used, code):
    """The graph keeps the leaves in it, with what is in their .grad, though the program forgets them; with the
    graph they go, without the garbage collector."""
    leaves = [world.leaf(v) for v in vs]
    in_graph = [True, used & 1 > 0, used & 2 > 0][: len(vs)]
    loss = sum(SAVING[code](x).sum() for x, is_in in zip(leaves, in_graph, strict=True) if is_in)
    references = [weakref.ref(x) for x in leaves]
    for x in leaves:
        x.grad = torch.full_like(x, 5)
    del x, leaves

    same([reference() is not None for reference in references], in_graph, why="the loss depends on these leaves")
    (loss * 0).backward()
    for reference, is_in in zip(references, in_graph, strict=True):
        if is_in:
            same(reference().grad, torch.full_like(reference(), 5), why="backward added zeros")
    del loss
    same([reference() for reference in references], [None] * len(vs), why="nothing refers to them any more")


@claim(observed=True)
def spec_the_depth_of_a_graph_is_not_limited_by_the_stack(world):
    """A graph may be a chain of tens of thousands of nodes: it is differentiated, and freed, as any other."""
    x = torch.ones((), device=world.device, requires_grad=True)
    y = x
    for _ in range(40_000):
        y = -y
    token = Token()
    y.grad_fn.metadata["token"], alive = token, weakref.ref(token)
    del token

    y.backward()
    same(x.grad, torch.ones_like(x).detach(), why="the number of negations is even")
    del y
    same(alive(), None, why="nothing refers to the chain")
