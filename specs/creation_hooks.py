"""Node creation hooks: functions that are called with each node of the graph that is made in a block."""

import threading

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import claim, graphs, raises, same, values
from .kit.nodes import Twice, nodes_below

SINCE = "2.14"
OPERATIONS = {  # and how many nodes each makes
    "x * 2": (1, lambda x: x * 2),
    "x * x": (1, lambda x: x * x),
    "x.exp()": (1, lambda x: x.exp()),
    "x[...]": (1, lambda x: x[...]),
    "torch.stack([x, x]).unbind()[0]": (2, lambda x: torch.stack([x, x]).unbind()[0]),
    "x.clone().add_(1)": (2, lambda x: x.clone().add_(1)),
    "Twice.apply(x)": (1, lambda x: Twice.apply(x)),
    "x.detach() * 2": (0, lambda x: x.detach() * 2),
    "x > 0": (0, lambda x: x > 0),
    "torch.no_grad()(lambda: x * 2)()": (0, lambda x: torch.no_grad()(lambda: x * 2)()),
}
ANY_OPERATION = st.sampled_from(list(OPERATIONS))


@claim(cites=["torch_autograd/creation-hook-gets-each-node"], since=SINCE)
@given(g=graphs(), user_defined=st.booleans())
def spec_a_creation_hook_gets_each_node_of_the_graph(world, g, user_defined):
    """In a block with a node creation hook the hook is called once with each node of the graph that is made there,
    in the order of their making: those of operations, and those of leaves that weren't in a graph yet."""
    made = []

    with torch.autograd.graph.node_creation_hook(made.append):
        tensors = g.build(world)
        root = Twice.apply(tensors[g.root]) if user_defined else tensors[g.root]

    same(sum(made.count(node) != 1 for node in made), 0, why="it is called once for each")
    same(sum(node not in made for node in nodes_below(root.grad_fn)), 0, why="it is called for each")
    order = [made.index(tensors[name].grad_fn) for name in g.results]
    same(order, sorted(order), why="operations are recorded one after the other")
    leaves = [node.variable for node in made if hasattr(node, "variable")]
    same(len(leaves) <= len(g.leaves), True, why="a leaf's node is made once")


@claim(cites=["torch_autograd/creation-hook-gets-each-node"], since=SINCE)
@given(v=values(), codes=st.lists(st.tuples(ANY_OPERATION, st.booleans()), max_size=6), fails=st.booleans())
def spec_a_creation_hook_is_called_in_its_block_only(world, v, codes, fails):
    """A node creation hook is called for operations in its block only, and there only for those that are recorded;
    no more once the block is left, be it by an exception. What is computed is the same as without it."""
    x = world.leaf(v)
    y = x * 1  # x has its accumulate node already
    made, expected = [], 0

    for code, inside in codes:
        count, operation = OPERATIONS[code]
        if not inside:
            result = operation(y)
        else:
            expected += count
            try:
                with torch.autograd.graph.node_creation_hook(made.append):
                    result = operation(y)
                    if fails:
                        raise KeyError(code)
            except KeyError:
                pass
        same(len(made), expected, why=f"{code}, {'in' if inside else 'out of'} the block")
        same(result, operation(x.detach()), why="the hook doesn't compute")


@claim(cites=["torch_autograd/creation-hook-gets-complete-nodes"], since=SINCE)
@given(v=values(), code=ANY_OPERATION, leaf=st.booleans())
def spec_a_creation_hook_gets_nodes_that_are_complete(world, v, code, leaf):
    """A node that is passed to a creation hook is complete: its edges lead where they will lead, and the values that
    it saved are there. What the hook puts into its metadata, and the hooks that it registers, stay with it."""
    x = world.leaf(v) if leaf else world.leaf(v) * 1
    seen, ran = [], []

    def look(node):
        saved = [name for name in dir(node) if name.startswith("_saved")]
        seen.append((node, node.next_functions, saved, [getattr(node, name) is None for name in saved]))
        node.metadata["seen"] = len(seen)
        node.register_prehook(lambda cotangents: ran.append(node))

    with torch.autograd.graph.node_creation_hook(look):
        y = OPERATIONS[code][1](x)

    for number, (node, edges, saved, empty) in enumerate(seen, start=1):
        same(node.next_functions == edges, True, why="it had its edges already")
        same([getattr(node, name) is None for name in saved], empty, why="it had its values already")
        same(node.metadata, {"seen": number}, why="the hook put that there")
    if y.requires_grad:
        same(y.grad_fn is seen[-1][0], True, why="the node of the result was made last")
        y.sum().backward()
        same(sorted(map(id, ran)), sorted(id(node) for node, *_ in seen), why="backward ran the hooks of all")


@claim(cites=["torch_autograd/creation-hooks-nest"], since=SINCE)
@given(v=values(), codes=st.lists(ANY_OPERATION, min_size=1, max_size=3), depth=st.integers(1, 4))
def spec_nested_creation_hooks_are_called_from_the_outermost(world, v, codes, depth):
    """Where blocks with node creation hooks are nested, each hook is called for each node, the outermost first; one
    whose block is left is called no more."""
    y = world.leaf(v) * 1
    called, expected = [], []

    def nest(level):
        if level < depth:
            with torch.autograd.graph.node_creation_hook(lambda node: called.append((level, node))):
                nest(level + 1)
                OPERATIONS[codes[level % len(codes)]][1](y)
            count = OPERATIONS[codes[level % len(codes)]][0]
            expected.extend(list(range(level + 1)) * count)

    nest(0)
    y * 2

    same([level for level, _ in called], expected, why="in each block an operation follows the inner block")
    for (level, node), (_, before) in zip(called[1:], called, strict=False):
        same(node is before, level > 0, why="they get the same nodes")


@claim(cites=["torch_autograd/creation-hook-hears-of-backward"], since=SINCE)
@given(v=values(), create=st.booleans())
def spec_a_creation_hook_gets_the_nodes_that_backward_makes(world, v, create):
    """A node creation hook is called for the nodes that backward makes, with create_graph=True, of the graph of the
    gradient; a backward without it makes none."""
    x = world.leaf(v)
    made = []
    y = (x * x * x).sum()

    with torch.autograd.graph.node_creation_hook(made.append):
        (gradient,) = torch.autograd.grad(y, [x], create_graph=create)

    same(len(made) > 0, create, why="a graph of the gradient was asked for, or it was not")
    above = [node for node in nodes_below(gradient.grad_fn) if node not in nodes_below(y.grad_fn)]
    same(sum(node not in made for node in above), 0, why="these are the nodes that backward made")


@claim(cites=["torch_autograd/creation-hook-only-observes"], since=SINCE)
@given(v=values(), code=ANY_OPERATION, harmless=st.booleans())
def spec_a_creation_hook_cannot_make_nodes(world, v, code, harmless):
    """A node creation hook that makes a node itself raises an error, which leaves the operation; what isn't recorded
    a hook may compute. Behind the block all is as it was."""
    x, other = world.leaf(v), world.leaf(v)
    y = x * 1
    count, operation = OPERATIONS[code]

    def hook(node):
        with torch.set_grad_enabled(not harmless):
            other * 2

    if harmless or not count:
        with torch.autograd.graph.node_creation_hook(hook):
            same(operation(y), operation(x.detach()), why="nothing is recorded in the hook")
    else:
        with raises(RuntimeError, "inside a node creation hook", why=f"{code} makes a node, and the hook another"):
            with torch.autograd.graph.node_creation_hook(hook):
                operation(y)
    (y * 3).sum().backward()
    same([x.grad, other.grad], [torch.full_like(x, 3).detach(), None], why="the graph of y is whole")


@claim(cites=["torch_autograd/creation-hook-gets-each-node"], since=SINCE)
@given(v=values(), code=ANY_OPERATION, elsewhere=st.booleans())
def spec_a_creation_hook_is_of_one_thread(world, v, code, elsewhere):
    """A node creation hook holds for its own thread: operations of other threads that the program starts it doesn't
    hear of."""
    y = world.leaf(v) * 1
    count, operation = OPERATIONS[code]
    made = []

    with torch.autograd.graph.node_creation_hook(made.append):
        if elsewhere:
            thread = threading.Thread(target=operation, args=(y,))
            thread.start()
            thread.join()
        else:
            operation(y)

    same(len(made), 0 if elsewhere else count, why=f"{code} ran in {'another' if elsewhere else 'the same'} thread")


@claim(cites=["torch_autograd/accumulate-node-is-not-kept-by-its-leaf"], since=SINCE)
@given(v=values(), kept=st.lists(st.booleans(), min_size=2, max_size=5))
def spec_a_creation_hook_hears_of_a_leaf_with_its_first_graph(world, v, kept):
    """The accumulate node of a leaf is made, and a creation hook called with it, when the leaf is used while no
    graph of it lives; a later graph that finds it alive uses it without a call."""
    x = world.leaf(v)
    living = []

    for keep in kept:
        made = []
        with torch.autograd.graph.node_creation_hook(made.append):
            y = x * 2
        expected = ([] if living else ["AccumulateGrad"]) + ["MulBackward0"]
        same([type(node).__name__ for node in made], expected, why=f"{len(living)} graphs of x were alive")
        if keep:
            living.append(y)
        else:
            living.clear()
        del y, made
