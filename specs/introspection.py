"""What can be seen of the graph: nodes with names, metadata and numbers, and the edges between them."""

import weakref

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import WRITABLE, claim, graphs, raises, same, values
from .kit.choices import some_of
from .kit.nodes import Twice, nodes_below


class Pair(torch.autograd.Function):
    """An operation with two results that the user defines."""

    @staticmethod
    def forward(ctx, x):  # noqa: D102
        return x * 2, x * 3

    @staticmethod
    def backward(ctx, first, second):  # noqa: D102
        return first * 2 + second * 3


OPERATIONS = {  # each is recorded as one node
    "x + 1": lambda x: x + 1,
    "x * 2": lambda x: x * 2,
    "x * x": lambda x: x * x,
    "-x": lambda x: -x,
    "x.exp()": lambda x: x.exp(),
    "x.relu()": lambda x: x.relu(),
    "x.sum()": lambda x: x.sum(),
    "x.clone()": lambda x: x.clone(),
    "x.expand(2, *x.shape)": lambda x: x.expand(2, *x.shape),
    "torch.stack([x])": lambda x: torch.stack([x]),
    "Twice.apply(x)": lambda x: Twice.apply(x),
    "Pair.apply(x)[1]": lambda x: Pair.apply(x)[1],
}
ANY_OPERATION = st.sampled_from(list(OPERATIONS))


@claim(cites=["torch_autograd/node-is-abstract", "torch_autograd/grad-fn-is-a-node"], since="2.0")
@given(g=graphs(most=4), code=ANY_OPERATION)
def spec_each_node_has_what_the_class_node_declares(world, g, code):
    """Each node, be it of PyTorch's operations, of the user's or of a leaf, has all that the class
    torch.autograd.graph.Node declares. The class is abstract: no program can make an instance of it."""
    root = OPERATIONS[code](g.build(world)[g.root])
    declared = [name for name in vars(torch.autograd.graph.Node) if not name.startswith("_")]

    for node in nodes_below(root.grad_fn):
        same([hasattr(node, name) for name in declared], [True] * len(declared), why=f"it has {declared}")
        same([type(node.name()), type(node.metadata)], [str, dict], why="these are a method and an attribute")
        edges = node.next_functions
        same([type(edge) for edge in edges], [tuple] * len(edges), why="an edge is a pair")
        same([type(number) for _, number in edges], [int] * len(edges), why="of a node and a number")
        same(issubclass(type(node), torch.autograd.graph.Node), True, why="it is a node")
    with raises(TypeError, "abstract", why="nodes come from operations only"):
        torch.autograd.graph.Node()


@claim(cites=["torch_autograd/node-tells-its-name"])
@given(v=values(), w=values(), code=ANY_OPERATION, other=ANY_OPERATION)
def spec_a_node_tells_the_name_of_its_operation(world, v, w, code, other):
    """A node's name() is the name of its type. Nodes of the same operation have the same name whatever it is
    applied to, nodes of different operations have different names; that of an operation which the user
    defines is the name of its class and 'Backward'."""
    x, z = world.leaf(v), world.leaf(w) * 1
    y, again, third = OPERATIONS[code](x), OPERATIONS[code](z), OPERATIONS[other](x)
    name = y.grad_fn.name()

    same(name, type(y.grad_fn).__name__, why=f"it is of {code}")
    same(again.grad_fn.name(), name, why=f"both are of {code}")
    alike = code == other or {code, other} == {"x * 2", "x * x"}  # both are products
    same(third.grad_fn.name() == name, alike, why=f"one is of {code}, the other of {other}")
    if "apply" in code:
        same(name, code.partition(".")[0] + "Backward", why=f"{code} applies this class")


@claim(cites=["torch_autograd/grad-fn-is-a-node"])
@given(g=graphs(most=5), code=ANY_OPERATION, passes=st.integers(0, 2))
def spec_there_is_one_object_for_each_node(world, g, code, passes):
    """However a program comes to a node, by the grad_fn of a tensor or along edges, before or after backward,
    it gets the same object as long as it refers to it; other nodes are other objects."""
    tensors = g.build(world)
    last = OPERATIONS[code](tensors[g.root])
    tensors = {**tensors, "last": last}
    known = {name: tensors[name].grad_fn for name in [*g.results, "last"]}
    found = nodes_below(last.grad_fn)

    for _ in range(passes):
        last.backward(torch.ones_like(last), retain_graph=True)

    for name, node in known.items():
        same(tensors[name].grad_fn is node, True, why=f"it is the grad_fn of {name}, as before")
        same(sum(other is node for other in found), int(node in found), why="edges lead to the same object")
        same(sum(other is node for other in known.values()), 1, why="each result was made by an operation")
        same([node == other for other in found], [node is other for other in found], why="they compare by identity")


@claim(cites=["torch_autograd/metadata-belongs-to-the-node"])
@given(g=graphs(), code=ANY_OPERATION, marked=st.integers(0, 511), with_backward=st.booleans())
def spec_metadata_lives_with_the_node(world, g, code, marked, with_backward):
    """A node's metadata is an empty dict at first, which the program can fill. It belongs to this node alone,
    and stays with it as long as the graph lives, also if the program forgets the node; backward doesn't
    touch it."""
    tensors = g.build(world)
    tensors = {**tensors, "last": OPERATIONS[code](tensors[g.root])}
    results = [*g.results, "last"]
    same([tensors[name].grad_fn.metadata for name in results], [{}] * len(results), why="they are new")

    for bit, name in enumerate(results):
        if marked >> bit & 1:
            tensors[name].grad_fn.metadata[name] = [name]
            tensors[name].grad_fn.metadata[0] = bit
    if with_backward:
        tensors["last"].backward(torch.ones_like(tensors["last"]))

    for bit, name in enumerate(results):
        expected = {name: [name], 0: bit} if marked >> bit & 1 else {}
        same(tensors[name].grad_fn.metadata, expected, why=f"metadata of {name}, found by its grad_fn")
        above = (tensors[name] * 1).grad_fn
        same(above.next_functions[0][0].metadata, expected, why=f"metadata of {name}, found by an edge")


READ_ONLY = {
    "y.grad_fn": lambda y, value: setattr(y, "grad_fn", value),
    "y.is_leaf": lambda y, value: setattr(y, "is_leaf", value),
    "y.output_nr": lambda y, value: setattr(y, "output_nr", value),
    "y.grad_fn.next_functions": lambda y, value: setattr(y.grad_fn, "next_functions", value),
    "y.grad_fn.metadata": lambda y, value: setattr(y.grad_fn, "metadata", value),
}


@claim(observed=True)
@given(v=values(), code=ANY_OPERATION, attributes=some_of(READ_ONLY), value=st.sampled_from([None, 0, True, (), "x"]))
def spec_the_graph_cannot_be_changed_by_assignment(world, v, code, attributes, value):
    """grad_fn, is_leaf and output_nr of a tensor, and next_functions and metadata of a node, can't be assigned
    to: that raises an error, and the graph stays as it was."""
    x = world.leaf(v)
    y = OPERATIONS[code](x)
    node, edges = y.grad_fn, y.grad_fn.next_functions
    metadata, number = node.metadata, y.output_nr

    for attribute in attributes:
        with raises(AttributeError, "not writable", "can't set", why=f"{attribute} tells what is"):
            READ_ONLY[attribute](y, value)

    same([y.grad_fn is node, y.is_leaf, y.output_nr], [True, False, number], why="nothing was assigned")
    same([node.next_functions == edges, node.metadata is metadata], [True, True], why="nothing was assigned")


PARTS = ((1,), (2,), (3,), (2, 3), (1, 3), (3, 2), (2, 1, 3), (24,))
SPLITS = {  # views of the parts of x
    "x.unbind(-1)": lambda x: x.unbind(-1),
    "x.unbind(0)": lambda x: x.unbind(0),
    "x.split(1, -1)": lambda x: x.split(1, -1),
    "x.split(2)": lambda x: x.split(2),
    "x.chunk(2, -1)": lambda x: x.chunk(2, -1),
    "x.split([1, len(x) - 1])": lambda x: x.split([1, len(x) - 1]),
}
SEVERAL = SPLITS | {  # one operation with several results
    "x.unsafe_split(1, -1)": lambda x: x.unsafe_split(1, -1),
    "x.unsafe_chunk(2)": lambda x: x.unsafe_chunk(2),
    "torch.var_mean(x)": lambda x: torch.var_mean(x),
    "torch.std_mean(x, -1)": lambda x: torch.std_mean(x, -1, unbiased=False),
    "Pair.apply(x)": lambda x: Pair.apply(x),
}


@claim(observed=True)
@given(v=values(shapes=PARTS), code=st.sampled_from(list(SEVERAL)), recorded=st.booleans(), enabled=st.booleans())
def spec_the_results_of_one_operation_share_its_node(world, v, code, recorded, enabled):
    """All results of one operation have the same grad_fn, and their output_nr counts them from 0. That of a leaf,
    of a constant and of the only result of an operation is 0."""
    x = world.leaf(v)
    x = x * 1 if recorded else x

    results = SEVERAL[code](x)

    same([y.output_nr for y in results], list(range(len(results))), why=f"they are the results of {code}")
    same(all(y.grad_fn is results[0].grad_fn for y in results), True, why=f"{code} was recorded once")
    for number, y in enumerate(results):
        edges = (y * 1).grad_fn.next_functions
        same(edges[0] == (results[0].grad_fn, number), True, why="that is what an edge to it says")
    same([t.output_nr for t in (x, x.detach(), results[-1] * 1, results[-1].detach())], [0] * 4, why="it stands alone")
    with torch.set_grad_enabled(enabled):
        same([y.output_nr for y in SEVERAL[code](x.detach())], [0] * len(results), why="there is no node")


@claim(cites=["autograd_mechanics/chain-rule-from-roots-to-leaves", "article/chain-rule-root-to-leaf"])
@given(
    v=values(shapes=PARTS),
    code=st.sampled_from(list(SPLITS)),
    factors=st.lists(st.sampled_from([None, 1, 2, -3]), min_size=2, max_size=4),
    kept=st.booleans(),
)
def spec_results_that_are_not_used_contribute_zeros(world, v, code, factors, kept):
    """Of the results of one operation those on which the loss doesn't depend count for zeros in the gradient of its
    input, whether the program keeps them or forgets them."""
    x = world.leaf(v)
    parts = SPLITS[code](x)
    factors = [factors[i % len(factors)] for i in range(len(parts))]
    factors[-1] = factors[-1] or 4  # at least one is used

    loss = sum((part * factor).sum() for part, factor in zip(parts, factors, strict=True) if factor)
    parts = parts if kept else None
    loss.backward()

    expected = torch.zeros_like(x, memory_format=torch.contiguous_format).detach()
    for part, factor in zip(SPLITS[code](expected), factors, strict=True):
        part.fill_(factor or 0)
    same(x.grad, expected, why=f"the parts of {code} were used with the factors {factors}")


@claim(cites=["torch_autograd/accumulate-node-is-not-kept-by-its-leaf"])
@given(v=values(), codes=st.lists(ANY_OPERATION, min_size=1, max_size=3), oldest_first=st.booleans())
def spec_a_leaf_does_not_keep_its_accumulate_node(world, v, codes, oldest_first):
    """The accumulate node of a leaf is one and the same for all graphs that the leaf is in, with its metadata, as
    long as one of them lives. With the last one it is gone, and the next graph gets a new one."""
    x = world.leaf(v)
    standing = [OPERATIONS[code](x) for code in codes]
    standing[0].grad_fn.next_functions[0][0].metadata["mark"] = 1

    while standing:
        node = (x * 5).grad_fn.next_functions[0][0]
        same([node.variable is x, node.metadata], [True, {"mark": 1}], why=f"{len(standing)} graphs of x live")
        del node
        standing.pop(0 if oldest_first else -1)

    metadata = (x * 2).grad_fn.next_functions[0][0].metadata
    same(metadata, {}, why="there was no graph of x any more")


@claim(observed=True, needs=["float16"])
@given(
    v=values(layouts=WRITABLE),
    steps=st.lists(st.sampled_from(["in place", "shape", "values", "dtype"]), min_size=1, max_size=4),
)
def spec_data_of_another_dtype_give_a_leaf_a_new_accumulate_node(world, v, steps):
    """If .data of a leaf is replaced by a tensor of another dtype, the leaf gets another accumulate node, though
    graphs with the old one live. A change in place, or .data of the same dtype, leaves it the one that it has."""
    x = world.leaf(v)
    graphs_of_x = [x * 2]

    for step in steps:
        old = graphs_of_x[-1].grad_fn.next_functions[0][0]
        if step == "in place":
            x.data.copy_(x.data * 2)
        else:
            dtype = torch.float16 if x.dtype != torch.float16 else torch.float32
            shape = (*x.shape, 2) if step == "shape" else x.shape
            x.data = torch.ones(shape, dtype=dtype if step == "dtype" else x.dtype, device=x.device)
        graphs_of_x.append(x * 2)
        new = graphs_of_x[-1].grad_fn.next_functions[0][0]
        same([new is old, old.variable is x, new.variable is x], [step != "dtype", True, True], why=f"change: {step}")


SAVING = {  # operations on x that save values, and what they make of a cotangent v
    "x * x": (lambda x: x * x, lambda v, x: [v * x, v * x]),
    "x.square()": (lambda x: x.square(), lambda v, x: [v * 2 * x]),
    "x * x.detach()": (lambda x: x * x.detach(), lambda v, x: [v * x]),
    "x.relu()": (lambda x: x.relu(), lambda v, x: [v * (x > 0)]),
    "x.abs()": (lambda x: x.abs(), lambda v, x: [v * x.sign()]),
}


@claim(observed=True)
@given(v=values(), code=st.sampled_from(list(SAVING)), enabled=st.booleans(), freed=st.booleans())
def spec_a_call_of_a_node_is_an_operation(world, v, code, enabled, freed):
    """A node that is called computes with tensors as any operation does: what it gives requires grad if grad mode
    is on and a value that it uses requires grad. After backward freed its values the call raises an error."""
    x = world.leaf(v)
    forward, backward = SAVING[code]
    y = forward(x)
    cotangent = torch.full_like(x, 3)

    if freed:
        y.sum().backward()
        with raises(RuntimeError, "retain_graph=True", why="backward freed what it needs"):
            y.grad_fn(cotangent)
        same(x.grad, sum(backward(torch.ones_like(x), x.detach())), why="backward had run before")
    else:
        with torch.set_grad_enabled(enabled):
            given_back = y.grad_fn(cotangent)
        given_back = given_back if isinstance(given_back, tuple) else (given_back,)
        given_back = [one for one in given_back if one is not None]
        same(given_back, backward(cotangent, x.detach()), why=f"{code} was called with 3")
        depends = code != "x * x.detach()"  # this one saved the constant only
        same([one.requires_grad for one in given_back], [enabled and depends] * len(given_back), why=f"{code}")
        same(x.grad, None, why="it isn't accumulated")


@claim(observed=True)
@given(v=values(), passed=st.lists(st.integers(-3, 3), min_size=1, max_size=3))
def spec_a_call_of_an_accumulate_node_accumulates(world, v, passed):
    """The accumulate node of a leaf that is called with a gradient adds it to the leaf's .grad, as backward does."""
    x = world.leaf(v)
    node = (x * 2).grad_fn.next_functions[0][0]

    for number, factor in enumerate(passed, start=1):
        with torch.no_grad():
            node(torch.full_like(x, factor))
        same(x.grad, torch.full_like(x, sum(passed[:number])).detach(), why=f"{passed[:number]} were passed")


@claim(observed=True)
@given(g=graphs())
def spec_backward_runs_the_nodes_in_the_opposite_order_of_their_making(world, g):
    """Of several nodes that could run, backward runs the one that was made last: on one device, so, all results
    on which the root depends get their gradients in the opposite order of the operations."""
    tensors = g.build(world)
    gradients = g.gradients(world)
    ran = []
    for name in g.results:
        tensors[name].register_hook(lambda _, name=name: ran.append(name))

    tensors[g.root].backward(world.constant(g.cotangent))

    expected = [name for name in reversed(g.results) if gradients[name] is not None]
    same(ran, expected, why="that is the opposite order of the statements")


@claim(observed=True, since="2.2")
@given(g=graphs(), code=ANY_OPERATION)
def spec_nodes_are_numbered_in_the_order_of_their_making(world, g, code):
    """The number that a node's _sequence_nr() gives is greater than that of all nodes that were made before it in
    the same thread; the accumulate nodes of leaves have the greatest number of all."""
    tensors = g.build(world)
    last = OPERATIONS[code](tensors[g.root])

    numbers = [tensors[name].grad_fn._sequence_nr() for name in g.results] + [last.grad_fn._sequence_nr()]

    same(numbers, sorted(set(numbers)), why="that is the order in which they were made")
    ends = [node._sequence_nr() for node in nodes_below(last.grad_fn) if hasattr(node, "variable")]
    same(ends, [2**64 - 1] * len(ends), why="these are accumulate nodes")


@claim(observed=True, since="2.6")
@given(v=values(shapes=PARTS), code=st.sampled_from(list(SEVERAL)), g=graphs(most=4))
def spec_a_node_knows_the_form_of_its_cotangents(world, v, code, g):
    """A node's _input_metadata tells of each result of its operation the shape, dtype and device, which are those of
    the cotangent that backward has to pass for it."""
    results = SEVERAL[code](world.leaf(v))
    tensors = g.build(world)

    for outputs in [results] + [[tensors[name]] for name in g.results if tensors[name].output_nr == 0]:
        known = outputs[0].grad_fn._input_metadata
        for y, form in zip(outputs, known, strict=False):
            same([tuple(form.shape), form.dtype, form.device], [tuple(y.shape), y.dtype, y.device], why="it is of y")
    same(len(results[0].grad_fn._input_metadata), len(results), why=f"so many results has {code}")


@claim(observed=True, until="2.12")
@given(v=values(), leaf=st.booleans(), code=st.sampled_from(["Twice.apply(x)", "Pair.apply(x)[1]"]))
def spec_a_node_that_the_user_defined_is_lost_with_its_results(world, v, leaf, code):
    """The node of an operation that the user defines doesn't keep the graph: once its results are gone, its edges are
    as well, though the program refers to the node."""
    x = world.leaf(v) if leaf else world.leaf(v) * 1
    y = OPERATIONS[code](x)
    node = y.grad_fn
    same(len(node.next_functions), 1, why="the result is still there")

    del y
    with raises(RuntimeError, "invalid", why="its result is gone"):
        _ = node.next_functions


@claim(observed=True, since="2.13")
@given(v=values(), code=ANY_OPERATION, marked=st.booleans())
def spec_a_node_keeps_what_lies_below_it(world, v, code, marked):
    """A node keeps the graph below it, also the node of an operation that the user defines: a program that refers to
    the node alone can follow its edges after the tensors are gone."""
    x = world.leaf(v)
    middle = x * 1
    middle.grad_fn.metadata["mark"] = marked
    y = OPERATIONS[code](middle)
    node = y.grad_fn

    reference = weakref.ref(y)
    del y, middle

    same(reference(), None, why="only its node is kept")
    below = node.next_functions[0][0]
    same([below.metadata, below.next_functions[0][0].variable is x], [{"mark": marked}, True], why="it leads to x")


KEEPING = {  # operations on x, and the names of the tensors and of the other values that their nodes save
    "x.exp()": (lambda x: x.exp(), ["result"], []),
    "x.pow(2)": (lambda x: x.pow(2), ["self"], ["exponent"]),
    "x * x": (lambda x: x * x, ["other", "self"], []),
    "x.relu()": (lambda x: x.relu(), ["result"], []),
    "x.sum(-1, keepdim=True)": (lambda x: x.sum(-1, keepdim=True), [], ["dim", "keepdim"]),
    "torch.addcmul(x, x, x, value=3)": (lambda x: torch.addcmul(x, x, x, value=3), ["tensor1", "tensor2"], ["value"]),
    "x.cumsum(-1)": (lambda x: x.cumsum(-1), [], ["dim"]),
    "x + 1": (lambda x: x + 1, [], []),
}


@claim(cites=["torch_autograd/saved-values-are-attributes-with-a-prefix"])
@given(v=values(), code=st.sampled_from(list(KEEPING)), freed=st.booleans())
def spec_saved_values_are_attributes_of_the_node(world, v, code, freed):
    """What a node saved are attributes of it whose names begin with _saved_. Those that are tensors are there once
    more with _raw_saved_, and can't be read any more after they were freed; the others stay."""
    operation, tensors, others = KEEPING[code]
    y = operation(world.leaf(v))
    node = y.grad_fn
    names = [name for name in dir(node) if "_saved_" in name]

    raw = [name for name in names if name.startswith("_raw_saved_")]
    same(raw, [f"_raw_saved_{name}" for name in tensors], why=f"{code} saves these tensors")
    missing = [name for name in tensors + others if f"_saved_{name}" not in names]
    same(missing, [], why=f"{code} saves these values")
    known = {name: getattr(node, f"_saved_{name}") for name in tensors + others}
    same([isinstance(known[name], torch.Tensor) for name in known], [name in tensors for name in known], why=code)
    same([type(known[name]) in (int, float, bool, tuple) for name in others], [True] * len(others), why=code)
    if freed:
        y.sum().backward()
        for name in tensors:
            with raises(RuntimeError, "retain_graph=True", why=f"{code} was differentiated"):
                getattr(node, f"_saved_{name}")
        same([getattr(node, f"_saved_{name}") for name in others], [known[name] for name in others], why="no tensor")
