"""How operations are recorded: a graph of backward nodes, made by the forward pass."""

import itertools
import weakref

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import claim, graphs, raises, same, values, values_that_broadcast


def nodes_below(node):
    """Every node that can be reached from `node` along next_functions, itself the first; none from None."""
    found = [] if node is None else [node]
    for one in found:
        for below, _ in one.next_functions:
            if below is not None and below not in found:
                found.append(below)
    return found


class Twice(torch.autograd.Function):
    """An operation that the user defines."""

    @staticmethod
    def forward(ctx, x):  # noqa: D102
        return x * 2

    @staticmethod
    def backward(ctx, cotangent):  # noqa: D102
        return cotangent * 2


INPUTS = {
    "constant": lambda x: x,
    "leaf": lambda x: x.requires_grad_(),
    "result": lambda x: x.requires_grad_() * 1,
    "second result": lambda x: torch.stack([x, x]).requires_grad_().unbind()[1],
}
ONE_NODE = {  # operations on so many inputs, each recorded as one node
    "a + b": (2, lambda a, b: a + b),
    "a - b": (2, lambda a, b: a - b),
    "a * b": (2, lambda a, b: a * b),
    "torch.maximum(a, b)": (2, lambda a, b: torch.maximum(a, b)),
    "torch.where(a > b, a, b)": (2, lambda a, b: torch.where(a > b, a, b)),
    "torch.addcmul(a, b, c)": (3, lambda a, b, c: torch.addcmul(a, b, c)),
    "torch.stack([a, b, c])": (3, lambda a, b, c: torch.stack([a, b, c])),
    "-a": (1, lambda a: -a),
    "a.sum()": (1, lambda a: a.sum()),
    "Twice.apply(a)": (1, lambda a: Twice.apply(a)),
}
KINDS = list(itertools.product(("leaf", "result", "second result"), repeat=3))


@claim(cites=["article/dag-of-function-objects", "autograd_mechanics/tracked-if-an-input-requires-grad"])
@given(v=values(), code=st.sampled_from(list(ONE_NODE)), kinds=st.sampled_from(KINDS), enabled=st.booleans())
def spec_an_operation_is_recorded_if_an_input_requires_grad(world, v, code, kinds, enabled):
    """An operation is recorded exactly if grad mode is on and one of its inputs requires grad: its
    result then requires grad and has a grad_fn, and otherwise it has neither."""
    count, operation = ONE_NODE[code]
    for requiring in itertools.product([False, True], repeat=count):
        inputs = [
            INPUTS[kind if r else "constant"](world.constant(v)) for r, kind in zip(requiring, kinds, strict=False)
        ]

        with torch.set_grad_enabled(enabled):
            y = operation(*inputs)

        why = f"grad mode is {'on' if enabled else 'off'}; requires_grad of the inputs of {code} is {requiring}"
        same(y.requires_grad, enabled and any(requiring), why=why)
        same(y.grad_fn is not None, enabled and any(requiring), why=why)
        same([x.requires_grad for x in inputs], requiring, why="an operation leaves its inputs alone")


@claim(
    cites=[
        "article/forward-computes-result",
        "autograd_mechanics/forward-computes-and-builds-the-graph",
        "autograd_mechanics/no-grad-as-if-no-input-requires-grad",
    ],
    formerly=["grad_modes/no_grad_changes_no_values"],
)
@given(g=graphs())
def spec_recording_does_not_change_what_is_computed(world, g):
    """The forward pass computes the same values whether it records the operations or not."""
    recorded = g.build(world)
    with torch.no_grad():
        unrecorded = g.build(world)

    for name in unrecorded:
        same(recorded[name], unrecorded[name], why=f"{name} was computed by the same operations")


@claim(
    cites=[
        "article/dag-of-function-objects",
        "article/graph-contains-intermediates",
        "autograd_mechanics/graph-is-made-of-function-objects",
        "torch_autograd/grad-fn-is-a-node",
    ],
    since="2.0",
)
@given(g=graphs(), user_defined=st.booleans())
def spec_the_graph_consists_of_backward_nodes(world, g, user_defined):
    """All that the graph consists of are instances of torch.autograd.graph.Node: no tensors, and no
    instances of torch.autograd.Function, even if the user defined an operation as a subclass of it."""
    root = g.build(world)[g.root]
    if user_defined:
        root = Twice.apply(root)

    for node in nodes_below(root.grad_fn):
        same(isinstance(node, torch.autograd.graph.Node), True, why="it stands in the graph")
        same(isinstance(node, (torch.Tensor, torch.autograd.Function)), False, why="it stands in the graph")


@claim(
    cites=[
        "article/forward-keeps-gradient-function",
        "article/graph-records-backward-path",
        "article/leaves-inputs-roots-outputs",
        "autograd_mechanics/grad-fn-is-the-way-into-the-graph",
    ]
)
@given(v=values(), code=st.sampled_from(list(ONE_NODE)), kinds=st.sampled_from(KINDS))
def spec_the_edges_of_a_node_lead_to_where_the_inputs_came_from(world, v, code, kinds):
    """As soon as an operation returns, its node has an edge for each input, in their order: to the
    grad_fn and the number of a result, to the accumulate node of a leaf, to nothing for a constant."""
    count, operation = ONE_NODE[code]
    for recorded in itertools.product([True, False], repeat=count):
        if any(recorded):
            came_from = [kind if r else "constant" for r, kind in zip(recorded, kinds, strict=False)]
            inputs = [INPUTS[kind](world.constant(v)) for kind in came_from]

            y = operation(*inputs)

            edges = y.grad_fn.next_functions if y.grad_fn else []
            same(len(edges), count, why=f"the inputs of {code} are {came_from}")
            for x, kind, (node, number) in zip(inputs, came_from, edges, strict=True):
                if kind == "constant":
                    same(node is None, True, why="a constant isn't in the graph: its edge is (None, 0)")
                elif kind == "leaf":
                    same(getattr(node, "variable", None) is x, True, why="the input is a leaf")
                else:
                    same(node == x.grad_fn, True, why="the input is the result of an operation")
                same(number, int(kind == "second result"), why=f"the input is a {kind}")


@claim(
    cites=["article/leaves-inputs-roots-outputs", "autograd_mechanics/graph-is-recorded-as-operations-execute"],
)
@given(g=graphs())
def spec_the_graph_ends_at_the_leaves_that_the_root_depends_on(world, g):
    """The graph below a root ends at one accumulate node for each leaf that requires grad and that the
    root depends on, and nowhere else; the node's variable is the leaf."""
    tensors = g.build(world)
    gradients = g.gradients(world)

    ends = [node for node in nodes_below(tensors[g.root].grad_fn) if not node.next_functions]

    variables = [getattr(node, "variable", None) for node in ends]
    for name in g.leaves:
        met = sum(variable is tensors[name] for variable in variables)
        same(met, int(gradients[name] is not None), why=f"{g.root} depends on {name}, or it doesn't")
    same(len(ends), sum(gradients[name] is not None for name in g.leaves), why="the graph has no other ends")


UPDATES = {  # all make y from itself
    "y = y + y": lambda y: y + y,
    "y = y * y": lambda y: y * y,
    "y.add_(y)": lambda y: y.add_(y),
    "y.mul_(y)": lambda y: y.mul_(y),
    "y.copy_(-y)": lambda y: y.copy_(-y),
    "y[...].add_(y)": lambda y: (y[...].add_(y), y)[1],
}


@claim(
    cites=["article/dag-of-function-objects", "autograd_mechanics/graph-is-recorded-as-operations-execute"],
    needs=["in-place", "views"],
)
@given(g=graphs(most=4), updates=st.lists(st.sampled_from(list(UPDATES)), max_size=4))
def spec_the_graph_has_no_cycle(world, g, updates):
    """The graph is acyclic: no way along its edges leads back to its beginning, also where a tensor got
    the name of one that it was made from, or was updated in place from itself."""
    y = g.build(world)[g.root] * 1
    for code in updates:
        y = UPDATES[code](y)

    left = nodes_below(y.grad_fn)
    for _ in left:  # in each round those go whose edges lead to none that is left
        left = [node for node in left if any(below in left for below, _ in node.next_functions)]
    same(len(left), 0, why="each node goes in its turn unless it lies on a cycle or above one")


# Operations on x and a constant, and for a cotangent v of the result the cotangent of each use of x.
GRADIENT_FUNCTIONS = {
    "x + 1": (lambda x, c: x + 1, lambda v, x, c: [v]),
    "x + c": (lambda x, c: x + c, lambda v, x, c: [v]),
    "x - c": (lambda x, c: x - c, lambda v, x, c: [v]),
    "c - x": (lambda x, c: c - x, lambda v, x, c: [-v]),
    "x * 3": (lambda x, c: x * 3, lambda v, x, c: [v * 3]),
    "x * c": (lambda x, c: x * c, lambda v, x, c: [v * c]),
    "x + x": (lambda x, c: x + x, lambda v, x, c: [v, v]),
    "x - x": (lambda x, c: x - x, lambda v, x, c: [v, -v]),
    "x * x": (lambda x, c: x * x, lambda v, x, c: [v * x, v * x]),
    "x.square()": (lambda x, c: x.square(), lambda v, x, c: [v * 2 * x]),
    "-x": (lambda x, c: -x, lambda v, x, c: [-v]),
    "x.clone()": (lambda x, c: x.clone(), lambda v, x, c: [v]),
    "x.sum()": (lambda x, c: x.sum(), lambda v, x, c: [v.expand(x.shape)]),
    "x.expand(2, *x.shape)": (lambda x, c: x.expand(2, *x.shape), lambda v, x, c: [v[0] + v[1]]),
    "x.unsqueeze(-1)": (lambda x, c: x.unsqueeze(-1), lambda v, x, c: [v.squeeze(-1)]),
    "torch.where(c > 0, x, c)": (lambda x, c: torch.where(c > 0, x, c), lambda v, x, c: [v * (c > 0)]),
}


@claim(
    cites=[
        "article/grad-fn-is-dydx-one",
        "article/gradient-function-yields-result-gradient",
        "article/y-is-x-plus-one-derivative-one",
        "autograd_mechanics/graph-is-made-of-function-objects",
    ]
)
@given(
    v=values(),
    code=st.sampled_from(list(GRADIENT_FUNCTIONS)),
    cotangents=st.lists(st.tuples(st.integers(-3, 3), st.integers(-2, 2)), min_size=1, max_size=3),
)
def spec_a_grad_fn_takes_cotangents_to_cotangents(world, v, code, cotangents):
    """A grad_fn is a linear function that takes a cotangent of the result to those of the inputs. It is
    no stored derivative: that of x + 1 gives back whatever cotangent it gets."""
    x = world.leaf(v)
    c = 2 - world.constant(v)
    forward, backward = GRADIENT_FUNCTIONS[code]

    y = forward(x, c)

    for start, step in cotangents:
        cotangent = (start + step * torch.arange(y.numel(), device=world.device)).reshape(y.shape).to(y.dtype)
        expected = backward(cotangent, x.detach(), c)
        grads = torch.autograd.grad(y, [x], cotangent, retain_graph=True)
        same(grads, [sum(expected)], why=f"the gradient function of {code} was given this cotangent")
        if callable(y.grad_fn):  # as all nodes of PyTorch's own operations are
            given_back = y.grad_fn(cotangent)
            given_back = given_back if isinstance(given_back, tuple) else (given_back,)
            given_back = [one for one in given_back if one is not None]  # a constant gets none
            same(given_back, expected, why=f"the gradient function of {code} was called with this cotangent")
    same(x.grad, None, why="what a grad_fn returns isn't accumulated")
    y.backward(cotangent)
    same(x.grad, sum(expected), why=f"backward went through {code} with the last cotangent")


WAYS = {
    "backward": lambda root, leaves, v, **how: root.backward(v, **how),
    "backward with inputs": lambda root, leaves, v, **how: root.backward(v, inputs=leaves, **how),
    "grad": lambda root, leaves, v, **how: torch.autograd.grad(root, leaves, v, allow_unused=True, **how),
}


@claim(
    cites=[
        "article/forward-keeps-gradient-function",
        "article/backward-builds-the-graph",
        "autograd_mechanics/graph-is-recorded-as-operations-execute",
        "autograd_mechanics/backward-evaluates-the-graph",
        "torch_autograd/graph-is-freed-unless-retained",
    ]
)
@given(
    g=graphs(),
    way=st.sampled_from(list(WAYS)),
    how=st.sampled_from([{}, {"retain_graph": True}, {"create_graph": True}]),
)
def spec_the_graph_is_complete_before_backward(world, g, way, how):
    """When the forward pass returns, its graph is complete: the results that depend on a leaf have their
    grad_fn. Backward adds no node and no edge to it, and takes none away."""
    tensors = g.build(world)
    leaves = [tensors[name] for name in g.leaves]
    root = tensors[g.root]
    same([n for n, t in tensors.items() if t.grad_fn], g.results, why="these depend on a leaf")
    nodes = nodes_below(root.grad_fn)
    edges = [node.next_functions for node in nodes]

    WAYS[way](root, leaves, world.constant(g.cotangent), **how)

    same([n for n, t in tensors.items() if t.grad_fn], g.results, why="backward came after all operations")
    same(nodes_below(root.grad_fn) == nodes, True, why="backward walks the graph as it is")
    same([node.next_functions for node in nodes] == edges, True, why="backward walks the graph as it is")
    for leaf in leaves:
        leaf.grad = None  # with create_graph it refers to the graph, and that to the leaf


@claim(cites=["article/dag-is-dynamic", "autograd_mechanics/control-flow-can-change-the-graph"])
@given(
    vs=st.lists(values(), min_size=1, max_size=3),
    factors=st.lists(st.integers(-3, 3), max_size=5),
    enough=st.integers(-6, 6),
)
def spec_what_ran_is_what_is_differentiated(world, vs, factors, enough):
    """The graph is dynamic: whatever branches and loops the same code takes this time, the graph is of
    the operations that ran, and it is these that are differentiated."""
    for x in [world.leaf(v) for v in vs]:
        y, slope, ran = x, 1, 0
        for factor in factors:
            if y.sum() > enough:  # the data choose the branch
                y, slope = y * factor, slope * factor
            else:
                y, slope = -y, -slope
            ran += 1
        while y.sum() < 0 and ran < 8:  # and how often the loop runs
            y, ran = y + 1, ran + 1
        loss = y.sum()

        same(len(nodes_below(loss.grad_fn)), ran + 2, why=f"{ran} operations and sum() ran, on one leaf")
        loss.backward()
        same(x.grad, torch.full_like(x, slope), why=f"the factors of the branches taken make {slope}")


RUNS = {
    "x + w": lambda x, w: x + w,
    "x * w": lambda x, w: x * w,
    "w * 3 - x": lambda x, w: w * 3 - x,
    "(x - w) * (x + w)": lambda x, w: (x - w) * (x + w),
}


@claim(
    cites=[
        "article/graph-recreated-from-scratch",
        "article/new-graph-after-each-backward",
        "autograd_mechanics/graph-is-recreated-at-every-iteration",
    ]
)
@given(
    vs=values_that_broadcast(2),
    runs=st.lists(st.tuples(st.sampled_from(list(RUNS)), st.booleans()), min_size=2, max_size=4),
)
def spec_each_forward_pass_makes_new_nodes(world, vs, runs):
    """Each forward pass makes new nodes for its operations, whether there was a backward before it or
    not. With other graphs that are alive it shares the accumulate nodes of leaves, and nothing else."""
    x, w = [world.leaf(v) for v in vs]

    losses = []
    for code, differentiated in runs:
        losses.append(RUNS[code](x, w).sum())
        if differentiated:
            losses[-1].backward()

    for one, other in itertools.combinations(losses, 2):
        others = nodes_below(other.grad_fn)
        variables = [getattr(node, "variable", None) for node in nodes_below(one.grad_fn) if node in others]
        same(len(variables), 2, why="they have their two leaves in common, even if they ran the same code")
        for leaf in (x, w):
            same(sum(variable is leaf for variable in variables), 1, why="a leaf has one accumulate node")


@claim(cites=["article/new-graph-after-each-backward"])
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


SAVING = {  # operations that save values for backward
    "x * x": lambda x: x * x,
    "x * x.sum()": lambda x: x * x.sum(),
    "x.square()": lambda x: x.square(),
    "x.relu()": lambda x: x.relu(),
    "x.abs()": lambda x: x.abs(),
    "torch.where(x > 0, x, -x)": lambda x: torch.where(x > 0, x, -x),
}


@claim(cites=["torch_autograd/graph-is-freed-unless-retained"])
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


@claim(cites=["article/computes-tensor-gradients", "torch_autograd/graph-is-freed-unless-retained"])
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
    ]
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


@claim(cites=["article/computes-tensor-gradients", "article/graph-contains-intermediates"])
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


@claim(observed=True)
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


@claim(cites=["article/gradients-from-each-grad-fn", "article/graph-records-backward-path"])
@given(g=graphs(), steps_down=st.integers(0, 7))
def spec_backward_runs_each_node_below_its_start_once(world, g, steps_down):
    """Backward runs the nodes that can be reached from where it starts, each of them once, when all its
    gradients have come in. The others, above the start or in other branches, it leaves alone."""
    tensors = g.build(world)
    start = g.results[-1 - steps_down % len(g.results)]  # the root, or a tensor further down
    seen = {name: [] for name in [*g.leaves, *g.results]}
    for name in seen:
        tensors[name].register_hook(seen[name].append)

    nodes = nodes_below(tensors[start].grad_fn)
    cotangent = world.constant(g.cotangent) if start == g.root else torch.ones_like(tensors[start])
    tensors[start].backward(cotangent)

    variables = [getattr(node, "variable", None) for node in nodes]
    gradients = g.gradients(world)
    for name in seen:
        below = tensors[name].grad_fn in nodes or any(variable is tensors[name] for variable in variables)
        same(len(seen[name]), int(below), why=f"{name} is {'' if below else 'not '}below {start}")
        if start == g.root:
            same(seen[name], [gradients[name]] if below else [], why=f"it came along all paths to {name}")
