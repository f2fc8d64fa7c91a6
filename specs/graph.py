"""How operations are recorded: a graph of backward nodes, made by the forward pass."""

import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import SHAPES, WRITABLE, claim, graphs, raises, same, values, values_that_broadcast
from .kit.choices import some_of
from .kit.nodes import WAYS, Twice, nodes_below
from .kit.operations import ONE_NODE, RECORDED

INPUTS = {
    "constant": lambda x: x,
    "leaf": lambda x: x.requires_grad_(),
    "result": lambda x: x.requires_grad_() * 1,
    "second result": lambda x: torch.stack([x, x]).requires_grad_().unbind()[1],
}
KINDS = list(itertools.product(("leaf", "result", "second result"), repeat=3))


@claim(cites=["article/dag-of-function-objects", "autograd_mechanics/tracked-if-an-input-requires-grad"])
@given(v=values(shapes=((), (), *SHAPES)), codes=some_of(RECORDED, 12), kinds=st.sampled_from(KINDS))
def spec_an_operation_is_recorded_if_an_input_requires_grad(world, v, codes, kinds):
    """An operation is recorded exactly if grad mode is on and one of its inputs requires grad: its
    result then requires grad and has a grad_fn, and otherwise it has neither."""
    for code in codes:
        count, operation = RECORDED[code]
        for requiring in itertools.product([False, True], repeat=count):
            came_from = [kind if r else "constant" for r, kind in zip(requiring, kinds, strict=False)]
            inputs = [INPUTS[kind](world.constant(v)) for kind in came_from]

            y = operation(*inputs)

            why = f"the inputs of {code} are {came_from}"
            same([y.requires_grad, y.grad_fn is not None], [any(requiring)] * 2, why=why)
            same([x.requires_grad for x in inputs], requiring, why="an operation leaves its inputs alone")
        with torch.no_grad():
            y = operation(*inputs)
        same([y.requires_grad, y.grad_fn], [False, None], why=f"{code} ran in no-grad mode")


class Failing(torch.autograd.Function):
    """An operation that the user defines, and that fails."""

    @staticmethod
    def forward(ctx, x):  # noqa: D102
        raise KeyError("forward")

    @staticmethod
    def backward(ctx, cotangent):  # noqa: D102
        return cotangent


FAILURES = {  # of operations on the leaf x or the result y
    "x.reshape(x.numel() + 1)": (RuntimeError, lambda x, y: x.reshape(x.numel() + 1)),
    "torch.stack([y, y[None]])": (RuntimeError, lambda x, y: torch.stack([y, y[None]])),
    "y.sum(y.dim() + 1)": (IndexError, lambda x, y: y.sum(y.dim() + 1)),
    "y[(0,) * (y.dim() + 1)]": (IndexError, lambda x, y: y[(0,) * (y.dim() + 1)]),
    "y.to('nowhere')": (RuntimeError, lambda x, y: y.to("nowhere")),
    "x.add_(1)": (RuntimeError, lambda x, y: x.add_(1)),
    "y.mul_(torch.stack([x, x, x]))": (RuntimeError, lambda x, y: y.mul_(torch.stack([x, x, x]))),
    "y.copy_(torch.stack([x, x, x]))": (RuntimeError, lambda x, y: y.copy_(torch.stack([x, x, x]))),
    "torch.mul(x, x, out=y)": (RuntimeError, lambda x, y: torch.mul(x, x, out=y)),
    "y[...].detach_()": (RuntimeError, lambda x, y: y[...].detach_()),
    "Failing.apply(y)": (KeyError, lambda x, y: Failing.apply(y)),
}


@claim(observed=True)
@given(v=values(layouts=WRITABLE), codes=st.lists(st.sampled_from(list(FAILURES)), min_size=1, max_size=3))
def spec_an_operation_that_fails_leaves_no_trace(world, v, codes):
    """An operation that raises an error leaves its operands with the values, the history and the version that they
    had; they can be used, and differentiated, as if it had never been."""
    x = world.leaf(v)
    y = x * 1
    node = y.grad_fn

    for code in codes:
        error, operation = FAILURES[code]
        with raises(error, why=f"{code} is impossible"):
            operation(x, y)
        same([x, y, x._version, y._version], [x.detach(), world.constant(v), 0, 0], why=f"{code} failed")
        same([x.is_leaf, x.requires_grad, y.grad_fn is node], [True] * 3, why=f"{code} failed")

    (y * x).sum().backward()
    same(x.grad, 2 * world.constant(v), why="the graph is whole")


NOT_DIFFERENTIABLE = {  # of floating dtype, and made of values of x
    "x.histc(3)": lambda x: x.to(torch.float32).cpu().histc(3),
    "torch.tensor(x.tolist())": lambda x: torch.tensor(x.tolist(), dtype=x.dtype),
    "x.new_full((2,), x.sum().item())": lambda x: x.new_full((2,), x.sum().item()),
    "torch.zeros_like(x)": lambda x: torch.zeros_like(x),
    "torch.randn_like(x)": lambda x: torch.randn_like(x),
    "torch.full_like(x, 2)": lambda x: torch.full_like(x, 2),
    "x.new_tensor(x.tolist())": lambda x: x.new_tensor(x.tolist()),
    "x.new_zeros(2)": lambda x: x.new_zeros(2),
    "torch.empty_like(x)": lambda x: torch.empty_like(x),
}


@claim(cites=["autograd_mechanics/tracked-if-an-input-requires-grad"], needs=["random"])
@given(v=values(), code=st.sampled_from(list(NOT_DIFFERENTIABLE)), recorded=st.booleans())
def spec_what_is_made_without_a_derivative_has_no_history(world, v, code, recorded):
    """Some functions are never recorded although their argument requires grad and their result is of a
    floating dtype: those that take only the form of a tensor, or Python numbers, or that count."""
    x = world.leaf(v)
    argument = x * 1 if recorded else x

    y = NOT_DIFFERENTIABLE[code](argument)

    same([y.requires_grad, y.is_leaf, y.grad_fn], [False, True, None], why=f"it is {code}")
    (argument * 2 + y.sum()).sum().backward()  # as a constant
    same(torch.equal(x.grad, torch.full_like(x, 2)), True, why=f"of {code} no gradient flows back")


# Operations with several results, of which those of floating dtype are recorded.
MIXED = {
    "x.sort()": lambda x: x.sort(),
    "x.max(-1)": lambda x: x.max(-1),
    "x.min(-1, keepdim=True)": lambda x: x.min(-1, keepdim=True),
    "x.topk(1)": lambda x: x.topk(1),
    "x.kthvalue(1)": lambda x: x.kthvalue(1),
    "x.median(-1)": lambda x: x.median(-1),
    "x.mode()": lambda x: x.mode(),
    "x.cummax(-1)": lambda x: x.cummax(-1),
    "x.cummin(-1)": lambda x: x.cummin(-1),
    "x.unique(return_inverse=True)": lambda x: x.unique(return_inverse=True)[1:],
    "torch.nn.functional.max_pool1d": lambda x: torch.nn.functional.max_pool1d(
        x.reshape(1, 1, -1), 1, return_indices=True
    ),
    "x[None].unbind()": lambda x: x[None].unbind(),
    "(x > 0, x * 2, x.argmax(), x.long())": lambda x: (x > 0, x * 2, x.argmax(), x.long()),
    "(x.isnan(), x.sign(), x.int(), x.bool(), x.nonzero())": lambda x: (
        x.isnan(),
        x.sign(),
        x.int(),
        x.bool(),
        x.nonzero(),
    ),
}
PARTS = ((), (1,), (2,), (3,), (2, 3), (1, 3), (3, 2), (2, 1, 3))


@claim(cites=["torch_autograd/only-floating-point-and-complex", "torch_tensor/no-requires-grad-is-leaf"])
@given(v=values(shapes=PARTS), code=st.sampled_from(list(MIXED)), recorded=st.booleans())
def spec_integers_and_booleans_are_not_recorded(world, v, code, recorded):
    """Of the results that are computed from a tensor that requires grad those of floating dtype have a
    history and those of integers or booleans have none, also if one operation makes both."""
    x = world.leaf(v) * 1 if recorded else world.leaf(v)

    for y in MIXED[code](x):
        real = y.is_floating_point()
        same([y.requires_grad, y.is_leaf, y.grad_fn is None], [real, not real, not real], why=f"{code}: {y.dtype}")


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


# Operations on a tensor, Python numbers and other arguments that are no tensors, and how often they use the tensor.
WITH_NUMBERS = {
    "2 + x": (1, lambda x: 2 + x),
    "x - 1.5": (1, lambda x: x - 1.5),
    "x * True": (1, lambda x: x * True),
    "x * 3": (1, lambda x: x * 3),
    "x ** 2": (1, lambda x: x**2),
    "2 ** x": (1, lambda x: 2**x),
    "x.clamp(-1, None)": (1, lambda x: x.clamp(-1, None)),
    "torch.add(x, x, alpha=2)": (2, lambda x: torch.add(x, x, alpha=2)),
    "torch.addcmul(x, x, x, value=3)": (3, lambda x: torch.addcmul(x, x, x, value=3)),
    "torch.lerp(x, x, 0.5)": (2, lambda x: torch.lerp(x, x, 0.5)),
    "torch.where(x > 0, x, 0.)": (1, lambda x: torch.where(x > 0, x, 0.0)),
    "x.masked_fill(x > 0, 1)": (1, lambda x: x.masked_fill(x > 0, 1)),
    "x.sum(dim=-1, keepdim=True)": (1, lambda x: x.sum(dim=-1, keepdim=True)),
    "x[..., None]": (1, lambda x: x[..., None]),
    "torch.stack([x, x, x], dim=-1)": (3, lambda x: torch.stack([x, x, x], dim=-1)),
    "x.clone(memory_format=torch.contiguous_format)": (1, lambda x: x.clone(memory_format=torch.contiguous_format)),
}


@claim(cites=["autograd_mechanics/graph-is-recorded-as-operations-execute"])
@given(v=values(), code=st.sampled_from(list(WITH_NUMBERS)), kind=st.sampled_from(["leaf", "result", "second result"]))
def spec_arguments_that_are_no_tensors_are_not_in_the_graph(world, v, code, kind):
    """Python numbers and other arguments that are no tensors are not in the graph: from the nodes of an
    operation an edge leads out to its input once for each use of it, and no other edge leads out."""
    x = INPUTS[kind](world.constant(v))
    uses, operation = WITH_NUMBERS[code]

    y = operation(x)

    came_from = nodes_below(x.grad_fn)
    made = [n for n in nodes_below(y.grad_fn) if n not in came_from and not hasattr(n, "variable")]
    edges = [(node, number) for n in made for node, number in n.next_functions if node and node not in made]
    same([number for _, number in edges], [x.output_nr] * uses, why=f"{code} uses the {kind} {uses} times")
    for node, _ in edges:
        same(node == x.grad_fn or node.variable is x, True, why=f"x is the only tensor that {code} uses")


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
