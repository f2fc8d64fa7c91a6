"""Hooks on the nodes of the graph, which see the gradients that go into a node and those that come out of it."""

import contextlib

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import claim, raises, same, values
from .kit.tensors import counting

# Operations on two tensors of one shape that make one node, and the gradients by both of them for the cotangent v.
NODES = {
    "x + y": (lambda x, y: x + y, lambda v, x, y: (v, v)),
    "x - y": (lambda x, y: x - y, lambda v, x, y: (v, -v)),
    "x * y": (lambda x, y: x * y, lambda v, x, y: (v * y, v * x)),
    "torch.where(x > y, x, y)": (lambda x, y: torch.where(x > y, x, y), lambda v, x, y: (v * (x > y), v * (x <= y))),
    "torch.lerp(x, y, 2.0)": (lambda x, y: torch.lerp(x, y, 2.0), lambda v, x, y: (-v, v * 2)),
}
ANY_NODE = st.sampled_from(list(NODES))
LEARNED = st.sampled_from(["both", "x", "y"])

# What a hook may return for the gradients of a node: None, or a tuple of as many tensors or Nones.
REPLACEMENTS = {
    "None": lambda gradients: None,
    "the same tuple": lambda gradients: gradients,
    "all of them doubled": lambda gradients: tuple(g if g is None else g * 2 for g in gradients),
    "all of them negated": lambda gradients: tuple(g if g is None else -g for g in gradients),
    "the last one increased": lambda gradients: (
        *gradients[:-1],
        gradients[-1] if gradients[-1] is None else gradients[-1] + 1,
    ),
}
REPLACED = st.lists(st.sampled_from(list(REPLACEMENTS)), max_size=3)

# What a hook must not return: the error, how it says why, and what it makes of the gradients.
UNFIT = {
    "a tensor": (TypeError, "tuple", lambda gradients: gradients[0]),
    "a list": (TypeError, "tuple", lambda gradients: list(gradients)),
    "a number": (TypeError, "tuple", lambda gradients: 3),
    "a gradient too few": (RuntimeError, "incorrect number of values", lambda gradients: gradients[:-1]),
    "a gradient too many": (RuntimeError, "incorrect number of values", lambda gradients: (*gradients, None)),
    "another shape": (RuntimeError, "changed the size", lambda gradients: tuple(g.unsqueeze(0) for g in gradients)),
    "another dtype": (RuntimeError, "changed the type", lambda gradients: tuple(g.half() for g in gradients)),
}


def replaced(gradients, replacements):
    """What the hooks, one behind the other, make of the gradients."""
    for replacement in replacements:
        returned = REPLACEMENTS[replacement](gradients)
        gradients = gradients if returned is None else returned
    return gradients


@claim(cites=["torch_autograd/node-hook-sees-gradients-in-and-out"])
@given(v=values(), operation=ANY_NODE, learned=LEARNED, passes=st.integers(1, 2))
def spec_a_hook_on_a_node_sees_what_the_node_made_of_the_cotangent(world, v, operation, learned, passes):
    """A hook that Node.register_hook() put on the grad_fn of a result is called once for each backward that runs the
    node, with two tuples: the gradients by the operation's inputs, None for one that doesn't require grad, and the
    gradients by its results."""
    f, gradients = NODES[operation]
    x = world.constant(v).requires_grad_(learned != "y")
    y = (world.constant(v) * 2 - 1).requires_grad_(learned != "x")
    z = f(x, y)
    seen = []
    z.grad_fn.register_hook(lambda *arguments: seen.append(arguments))

    for _ in range(passes):
        z.backward(counting(z), retain_graph=True)

    by_x, by_y = gradients(counting(z), x.detach(), y.detach())
    inputs = (by_x if learned != "y" else None, by_y if learned != "x" else None)
    same(seen, [(inputs, (counting(z),))] * passes, why=f"these are the gradients of {operation}")


@claim(cites=["torch_autograd/node-hook-may-replace-the-gradients-by-the-inputs"])
@given(v=values(), operation=ANY_NODE, replacements=REPLACED)
def spec_what_a_hook_on_a_node_returns_goes_on_to_its_inputs(world, v, operation, replacements):
    """What a hook on a node returns, unless it is None, takes the place of the gradients by the node's inputs.
    Several hooks run in the order of registration, each with what the one before left."""
    f, gradients = NODES[operation]
    x = world.leaf(v)
    y = (world.constant(v) * 2 - 1).requires_grad_()
    z = f(x, y)
    seen = []
    for replacement in replacements:

        def hook(inputs, _, replacement=replacement):
            seen.append(inputs)
            return REPLACEMENTS[replacement](inputs)

        z.grad_fn.register_hook(hook)

    z.backward(counting(z))

    made = gradients(counting(z), x.detach(), y.detach())
    expected = [replaced(made, replacements[:number]) for number in range(len(replacements))]
    same(seen, expected, why=f"the hooks return {replacements}")
    same((x.grad, y.grad), replaced(made, replacements), why=f"the hooks return {replacements}")


@claim(cites=["torch_autograd/node-prehook-may-replace-the-gradients-by-the-results"])
@given(v=values(), operation=ANY_NODE, replacements=REPLACED, behind=st.sampled_from(list(REPLACEMENTS)))
def spec_a_prehook_on_a_node_sees_and_replaces_the_cotangent(world, v, operation, replacements, behind):
    """A hook that Node.register_prehook() put on a node is called before the node runs, with the tuple of the
    gradients by its results; what it returns, unless it is None, is what the node gets to work with."""
    f, gradients = NODES[operation]
    x = world.leaf(v)
    y = (world.constant(v) * 2 - 1).requires_grad_()
    z = f(x, y)
    seen = []
    z.grad_fn.register_hook(lambda inputs, _: REPLACEMENTS[behind](inputs))
    for replacement in replacements:

        def hook(cotangents, replacement=replacement):
            seen.append(cotangents)
            return REPLACEMENTS[replacement](cotangents)

        z.grad_fn.register_prehook(hook)

    z.backward(counting(z))

    passed = (counting(z),)
    expected = [replaced(passed, replacements[:number]) for number in range(len(replacements))]
    same(seen, expected, why=f"the hooks before the node return {replacements}")
    made = gradients(*replaced(passed, replacements), x.detach(), y.detach())
    same((x.grad, y.grad), replaced(made, [behind]), why=f"before the node {replacements}, behind it {behind}")


@claim(cites=["torch_autograd/node-hook-may-replace-the-gradients-by-the-inputs"], needs=["float16"])
@given(v=values(), operation=ANY_NODE, unfit=st.sampled_from(list(UNFIT)), before=st.booleans())
def spec_backward_raises_if_a_hook_on_a_node_returns_anything_else(world, v, operation, unfit, before):
    """If a hook on a node returns anything but None or a tuple of as many gradients, of their shapes and dtypes, as it
    was called with, backward raises an error, and nothing below gets a gradient."""
    error, telling, make = UNFIT[unfit]
    x, y = world.leaf(v), world.leaf(v)
    z = NODES[operation][0](x, y)
    if before:
        handle = z.grad_fn.register_prehook(lambda cotangents: make(cotangents))
    else:
        handle = z.grad_fn.register_hook(lambda inputs, _: make(inputs))

    with raises(error, telling, why=f"the hook returned {unfit}"):
        z.backward(counting(z), retain_graph=True)

    same((x.grad, y.grad), (None, None), why="nothing came through the node")
    handle.remove()
    z.backward(counting(z))
    expected = NODES[operation][1](counting(z), x.detach(), y.detach())
    same((x.grad, y.grad), expected, why="the hook is gone, and the graph is whole")


@claim(cites=["torch_autograd/node-hook-handle-removes-it"])
@given(
    v=values(),
    kinds=st.lists(st.booleans(), min_size=1, max_size=3),
    removed=st.integers(0, 7),
    by_block=st.booleans(),
)
def spec_a_hook_on_a_node_that_was_removed_runs_no_more(world, v, kinds, removed, by_block):
    """remove() of the handle that register_hook() or register_prehook() of a node returned takes that hook away, as
    leaving a block of the handle does, and no other hook of the node."""
    x = world.leaf(v)
    y = x * 1
    calls = []
    for number, before in enumerate(kinds):
        register = y.grad_fn.register_prehook if before else y.grad_fn.register_hook
        handle = register(lambda *_, number=number: calls.append(number))
        if removed >> number & 1 and by_block:
            with handle:
                pass
        elif removed >> number & 1:
            handle.remove()
            handle.remove()

    y.backward(counting(y))

    left = [number for number in range(len(kinds)) if not removed >> number & 1]
    same(
        calls,
        sorted(left, key=lambda number: not kinds[number]),
        why="the others stay; those before the node run first",
    )
    same(x.grad, counting(y), why="they change nothing")


@claim(observed=True)
@given(v=values(), before=st.booleans(), start=st.sampled_from([None, 7]))
def spec_an_exception_in_a_hook_on_a_node_reaches_the_caller(world, v, before, start):
    """An exception in a hook on a node ends backward and reaches its caller. Nothing below gets a gradient, and the
    graph can be used again."""
    x = world.leaf(v)
    x.grad = None if start is None else torch.full_like(x, start)
    y = x * 3

    def fail(*_):
        raise ArithmeticError("the hook failed")

    handle = y.grad_fn.register_prehook(fail) if before else y.grad_fn.register_hook(fail)

    with raises(ArithmeticError, "the hook failed", why="the exception is the hook's own"):
        y.backward(counting(y), retain_graph=True)
    same(x.grad, None if start is None else torch.full_like(x, start), why="nothing came through the node")
    handle.remove()
    y.backward(counting(y))
    same(x.grad, counting(y) * 3 + (start or 0), why="only this backward came to its end")


@claim(
    cites=[
        "autograd_mechanics/order-of-hooks-on-a-leaf",
        "torch_tensor/post-accumulate-hook-runs-when-grad-is-complete",
    ],
    since="2.1",
)
@given(v=values(), order=st.permutations(["tensor", "prehook", "post-accumulate", "hook"]), passes=st.integers(1, 2))
def spec_the_kinds_of_hooks_on_a_leaf_run_in_a_fixed_order(world, v, order, passes):
    """In whichever order they were registered: on a leaf, first the hooks of the tensor run, then those before the node
    that accumulates, then .grad is updated, then the post-accumulate hooks run, then those behind the node."""
    x = world.leaf(v)
    y = x * 2
    node = y.grad_fn.next_functions[0][0]
    calls = []

    def note(kind):
        calls.append((kind, None if x.grad is None else x.grad.clone()))

    registered = {
        "tensor": lambda: x.register_hook(lambda _: note("tensor")),
        "prehook": lambda: node.register_prehook(lambda _: note("prehook")),
        "post-accumulate": lambda: x.register_post_accumulate_grad_hook(lambda _: note("post-accumulate")),
        "hook": lambda: node.register_hook(lambda *_: note("hook")),
    }
    for kind in order:
        registered[kind]()

    for _ in range(passes):
        y.backward(counting(y), retain_graph=True)

    expected, gradient = [], 2 * counting(y)
    for number in range(passes):
        before, after = number * gradient if number else None, (number + 1) * gradient
        expected += [("tensor", before), ("prehook", before), ("post-accumulate", after), ("hook", after)]
    same(calls, expected, why=f"they were registered in the order {order}")


@claim(
    cites=[
        "autograd_mechanics/order-of-hooks-on-a-result",
        "autograd_mechanics/tensor-hooks-run-before-grad-is-retained",
    ],
    since="2.0",
)
@given(v=values(), order=st.permutations(["tensor", "prehook", "retain_grad", "hook"]))
def spec_the_kinds_of_hooks_on_a_result_run_in_a_fixed_order(world, v, order):
    """In whichever order they were registered: on a result, first the hooks of the tensor run, then its retained .grad
    is set, then the hooks before the node run, then the node, then the hooks behind it. What hooks before the node
    return is not in the retained .grad."""
    x = world.leaf(v)
    y = x * 2
    calls = []

    def note(kind, gradient):
        calls.append((kind, gradient.clone(), None if y.grad is None else y.grad.clone()))

    def double(gradient):
        note("tensor", gradient)
        return gradient * 2

    def triple(cotangents):
        note("prehook", cotangents[0])
        return (cotangents[0] * 3,)

    registered = {
        "tensor": lambda: y.register_hook(double),
        "prehook": lambda: y.grad_fn.register_prehook(triple),
        "retain_grad": lambda: y.retain_grad(),
        "hook": lambda: y.grad_fn.register_hook(lambda inputs, _: note("hook", inputs[0])),
    }
    for kind in order:
        registered[kind]()

    y.backward(counting(y))

    v = counting(y)
    expected = [("tensor", v, None), ("prehook", 2 * v, 2 * v), ("hook", 12 * v, 2 * v)]
    same(calls, expected, why="the hook of the tensor doubles, the one before the node triples, the node doubles")
    same((y.grad, x.grad), (2 * v, 12 * v), why="the retained .grad has what the hook of the tensor left")


@claim(cites=["autograd_mechanics/node-hooks-run-only-with-their-node"])
@given(v=values(), length=st.integers(2, 5), picked=st.integers(1, 30), passes=st.integers(1, 2))
def spec_hooks_on_nodes_run_only_if_the_node_runs(world, v, length, picked, passes):
    """torch.autograd.grad doesn't run the node of a tensor whose gradient was asked for, nor nodes below, unless that
    is needed for another one; hooks on nodes that don't run aren't called."""
    x = world.leaf(v)
    chain = [x]
    calls = []
    for number in range(1, length):
        chain.append(chain[-1] * 2)
        chain[-1].grad_fn.register_hook(lambda *_, number=number: calls.append(number))
    asked = [number for number in range(length) if picked >> number & 1] or [0]

    for _ in range(passes):
        calls.clear()
        torch.autograd.grad(chain[-1].sum(), [chain[number] for number in asked], retain_graph=True)

        above = list(range(length - 1, min(asked), -1))
        same(calls, above, why=f"of the chain of {length} tensors, 0 being the leaf, {asked} were asked for")


@claim(cites=["autograd_mechanics/backward-runs-the-nodes-of-its-inputs"], observed=True)
@given(v=values(), kept=st.booleans())
def spec_backward_runs_the_node_of_a_result_among_its_inputs(world, v, kept):
    """backward with inputs=[y] for a result y accumulates into y.grad and runs the node of y too, with its hooks;
    nothing below gets a gradient."""
    x = world.leaf(v)
    y = x * 2
    calls = []
    y.grad_fn.register_hook(lambda *_: calls.append("node"))
    y.register_hook(lambda _: calls.append("tensor"))
    if kept:
        y.retain_grad()

    (y * 3).sum().backward(inputs=[y])

    same(calls, ["tensor", "node"], why="both belong to y")
    same((y.grad, x.grad), (torch.full_like(y, 3), None), why="y is the only input")


@claim(cites=["torch_autograd/multi-grad-hook-all"], since="2.0")
@given(
    v=values(),
    used=st.lists(st.booleans(), min_size=2, max_size=4),
    results=st.integers(0, 15),
    passes=st.integers(1, 2),
    returned=st.sampled_from(["None", "zeros"]),
)
def spec_a_multi_grad_hook_is_called_once_with_all_gradients(world, v, used, results, passes, returned):
    """A hook that register_multi_grad_hook() put on several tensors is called once for each backward that computes the
    gradient of one of them, when the last of these is there: with all of them in order, None for tensors that the
    backward doesn't reach. What it returns is ignored."""
    leaves = [world.leaf(v) for _ in used]
    tensors = [leaf * 1 if results >> number & 1 else leaf for number, leaf in enumerate(leaves)]
    seen = []

    def hook(gradients):
        seen.append(list(gradients))
        return [torch.zeros_like(x) for x in leaves] if returned == "zeros" else None

    torch.autograd.graph.register_multi_grad_hook(tensors, hook)
    parts = [(tensor * (number + 1)).sum() for number, tensor in enumerate(tensors) if used[number]]

    for _ in range(passes if parts else 0):
        sum(parts).backward(retain_graph=True)

    expected = [torch.full_like(leaf, number + 1) if used[number] else None for number, leaf in enumerate(leaves)]
    same(seen, [expected] * (passes if parts else 0), why=f"of the tensors these were used: {used}")
    totals = [None if gradient is None else gradient * passes for gradient in expected]
    same([leaf.grad for leaf in leaves], totals, why="the hook changes no gradient")


@claim(cites=["torch_autograd/multi-grad-hook-any"], since="2.3")
@given(v=values(), used=st.lists(st.booleans(), min_size=2, max_size=4), passes=st.integers(1, 2))
def spec_a_multi_grad_hook_of_mode_any_is_called_once_with_the_first_gradient(world, v, used, passes):
    """With mode="any" the hook is called once for each backward that reaches one of the tensors, with the first
    gradient that is computed for any of them."""
    x = world.leaf(v)
    chain = [x]
    for _ in used[1:]:
        chain.append(chain[-1] * 2)
    seen = []
    hooked = [tensor for tensor, u in zip(chain, used, strict=True) if u] or [x]
    torch.autograd.graph.register_multi_grad_hook(hooked, lambda gradient: seen.append(gradient.clone()), mode="any")

    for _ in range(passes):
        seen.clear()
        chain[-1].sum().backward(retain_graph=True)
        above = max((number for number, u in enumerate(used) if u), default=0)
        first = torch.full_like(x, 2 ** (len(used) - 1 - above))
        same(seen, [first], why=f"backward comes to tensor {above} of the chain first")


@claim(cites=["torch_autograd/multi-grad-hook-modes"], since="2.3")
@given(v=values(), mode=st.sampled_from(["every", "ALL", "", "first"]))
def spec_a_multi_grad_hook_of_another_mode_is_refused(world, v, mode):
    """register_multi_grad_hook() raises an error for any mode but "all" and "any", and registers nothing."""
    x, calls = world.leaf(v), []

    with raises(ValueError, "Expects mode to be one of", why="there are two modes"):
        torch.autograd.graph.register_multi_grad_hook([x], calls.append, mode=mode)

    (x * 2).sum().backward()
    same(calls, [], why="the hook was refused")
    same(x.grad, torch.full_like(x, 2), why="nothing was changed")


@claim(cites=["torch_autograd/multi-grad-hook-handle"], since="2.0")
@given(v=values(), count=st.integers(1, 3), by_block=st.booleans())
def spec_the_handle_of_a_multi_grad_hook_removes_it_from_all_tensors(world, v, count, by_block):
    """remove() of the handle that register_multi_grad_hook() returns takes the hook away from all of the tensors, as
    leaving a block of the handle does; hooks of the tensors themselves stay."""
    tensors = [world.leaf(v) for _ in range(count)]
    calls = []
    for tensor in tensors:
        tensor.register_hook(lambda _: calls.append("own"))
    handle = torch.autograd.graph.register_multi_grad_hook(tensors, lambda _: calls.append("multi"))
    with handle if by_block else contextlib.nullcontext():
        sum(tensor.sum() for tensor in tensors).backward()
        same(sorted(calls), ["multi"] + ["own"] * count, why="all gradients were computed")
    calls.clear()
    handle.remove()

    sum(tensor.sum() for tensor in tensors).backward()

    same(calls, ["own"] * count, why="the hook on all of them was removed")


@claim(observed=True, since="2.0")
@given(v=values(), count=st.integers(1, 3))
def spec_a_multi_grad_hook_on_a_leaf_keeps_grad_from_asking_for_it(world, v, count):
    """While a multi-grad hook is on a leaf, torch.autograd.grad by this leaf raises an error, and backward works."""
    leaves = [world.leaf(v) for _ in range(count)]
    handle = torch.autograd.graph.register_multi_grad_hook(leaves, lambda gradients: None)
    loss = sum(leaf.sum() for leaf in leaves)

    with raises(RuntimeError, "currently not supported", why="the hook asks which leaves the engine will run"):
        torch.autograd.grad(loss, leaves, retain_graph=True)
    loss.backward(retain_graph=True)

    same([leaf.grad for leaf in leaves], [torch.ones_like(leaf) for leaf in leaves], why="backward works")
    handle.remove()
    same(
        torch.autograd.grad(loss, leaves),
        [torch.ones_like(leaf) for leaf in leaves],
        why="the hook is gone",
    )
