"""What backward computes: local derivatives, combined by the chain rule from the roots down to the leaves."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import SMALL_DTYPES, claim, graphs, same, values, values_that_broadcast

# Functions of a number with their derivatives, by hand.
SCALAR_FUNCTIONS = {
    "x + 1": (lambda x: x + 1, lambda x: 1),
    "x * 3": (lambda x: x * 3, lambda x: 3),
    "x * x": (lambda x: x * x, lambda x: 2 * x),
    "5 - x": (lambda x: 5 - x, lambda x: -1),
    "x.relu()": (lambda x: x.relu(), lambda x: 1 if x > 0 else 0),
    "x ** 3": (lambda x: x**3, lambda x: 3 * x * x),
    "x.clone()": (lambda x: x.clone(), lambda x: 1),
}


@claim(cites=["article/composite-derivative-is-product"])
@given(
    number=st.integers(-3, 3),
    shape=st.sampled_from([(), (1,), (1, 1)]),
    inner=st.sampled_from(list(SCALAR_FUNCTIONS)),
    outer=st.sampled_from(list(SCALAR_FUNCTIONS)),
)
def spec_the_derivative_of_a_composition_is_the_product_of_the_derivatives(world, number, shape, inner, outer):
    """For numbers x, and z = f(g(x)), the derivative of z by x is that of z by g(x) times that of g(x) by x."""
    x = torch.full(shape, number, dtype=torch.float32, device=world.device, requires_grad=True)
    (f, df), (g, dg) = SCALAR_FUNCTIONS[outer], SCALAR_FUNCTIONS[inner]
    y = g(x)
    z = f(y)

    (dz_dy,) = torch.autograd.grad(z, y, retain_graph=True)
    (dy_dx,) = torch.autograd.grad(y, x, retain_graph=True)
    z.backward()

    same(dz_dy, torch.full_like(x, df(y.item())), why=f"z is {outer} at {y.item()}")
    same(dy_dx, torch.full_like(x, dg(x.item())), why=f"y is {inner} at {number}")
    same(x.grad, dz_dy * dy_dx, why="the derivatives multiply")


# Functions of a tensor with their vector-Jacobian products, by hand.
FUNCTIONS = {
    "2 * x - 1": (lambda x: 2 * x - 1, lambda x, v: 2 * v),
    "x * x": (lambda x: x * x, lambda x, v: 2 * x * v),
    "x.relu()": (lambda x: x.relu(), lambda x, v: v * (x > 0)),
    "x.reshape(-1)": (lambda x: x.reshape(-1), lambda x, v: v.reshape(x.shape)),
    "x.unsqueeze(0)": (lambda x: x.unsqueeze(0), lambda x, v: v.squeeze(0)),
    "x.sum()": (lambda x: x.sum(), lambda x, v: v.expand(x.shape)),
    "x.sum(-1)": (lambda x: x.sum(-1), lambda x, v: v.unsqueeze(-1).expand(x.shape) if x.dim() else v),
    "torch.stack([x, x * x])": (lambda x: torch.stack([x, x * x]), lambda x, v: v[0] + 2 * x * v[1]),
    "x.flip(-1)": (lambda x: x.flip(-1) if x.dim() else x * 1, lambda x, v: v.flip(-1) if x.dim() else v),
    "x.expand(2, *x.shape)": (lambda x: x.expand(2, *x.shape), lambda x, v: v[0] + v[1]),
}


@claim(
    cites=["article/composite-derivative-is-product", "torch_autograd/backward-gives-vector-jacobian-products"],
    needs=["float64"],  # squares of squares are not exact in float32
)
@given(
    v=values(dtypes=("float64",)),
    path=st.lists(st.sampled_from(list(FUNCTIONS)), min_size=1, max_size=4),
    weights=st.integers(1, 3),
)
def spec_the_vector_jacobian_product_of_a_composition_is_their_composition(world, v, path, weights):
    """For tensors, the gradient by the input of a composition comes from the gradient passed by the functions'
    vector-Jacobian products, the last function's first; on the way lie the gradients by what is between."""
    steps = [world.leaf(v)]
    for name in path:
        steps.append(FUNCTIONS[name][0](steps[-1]))
    gradient = torch.arange(steps[-1].numel(), dtype=steps[0].dtype, device=world.device)
    gradient = gradient.reshape(steps[-1].shape) * weights - 1

    got = torch.autograd.grad(steps[-1], steps, gradient)

    same(got[-1], gradient, why="this one was passed")
    for number in reversed(range(len(path))):
        gradient = FUNCTIONS[path[number]][1](steps[number].detach(), gradient)
        same(got[number], gradient, why=f"{' then '.join(path[number:])} lies between")


@claim(
    cites=[
        "article/chain-rule-root-to-leaf",
        "article/computes-tensor-gradients",
        "article/a-grad-is-dloss-da",
        "article/propagates-to-leaves",
        "autograd_mechanics/chain-rule-from-roots-to-leaves",
    ]
)
@given(graph=graphs())
def spec_each_leaf_gets_its_gradient_by_the_chain_rule(world, graph):
    """Backward leaves in each leaf the gradient of the root by this leaf, as the chain rule gives it, however
    the graph branches and joins again."""
    tensors = graph.build(world)

    tensors[graph.root].backward(world.constant(graph.cotangent))

    for name, gradient in graph.gradients(world).items():
        if name in graph.leaves:
            same(tensors[name].grad, gradient, why=f"the chain rule gives {name} this in {graph}")


@claim(cites=["article/chain-rule-root-to-leaf", "article/accumulates-into-dot-grad"])
@given(
    v=values(),
    paths=st.lists(st.lists(st.sampled_from([1, 2, -1, 3, 0]), max_size=4), min_size=1, max_size=4),
    joined=st.sampled_from(["at the end", "one by one"]),
)
def spec_the_contributions_of_all_paths_add_up(world, v, paths, joined):
    """Along a path the local derivatives multiply; if several paths lead from the root to a leaf, their
    products add up."""
    x = world.leaf(v)
    ends = []
    for factors in paths:
        y = x
        for factor in factors:
            y = y * factor + 1
        ends.append(y)

    if joined == "at the end":
        torch.stack(ends).sum().backward()
    else:
        total = 0
        for y in ends:
            total = total + y
        total.sum().backward()

    expected = sum(torch.tensor([*factors, 1]).prod().item() for factors in paths)
    same(x.grad, torch.full_like(x, expected), why=f"the factors along the paths are {paths}")


@claim(cites=["article/gradients-from-each-grad-fn", "autograd_mechanics/chain-rule-from-roots-to-leaves"])
@given(v=values(), doublings=st.integers(1, 40), used=st.integers(1, 2))
def spec_a_shared_result_is_passed_on_once(world, v, doublings, used):
    """What several operations use collects the gradients of them all before they are passed on: a graph with
    2 to the power of n paths takes n steps."""
    x = world.leaf(v)
    y = x * 1
    seen = []
    y.register_hook(lambda gradient: seen.append(gradient.clone()))
    z = y
    for _ in range(doublings):
        z = z + z if used == 2 else z * 2

    z.sum().backward()

    same(x.grad, torch.full_like(x, 2**doublings), why=f"{doublings} doublings")
    same(seen, [torch.full_like(x, 2**doublings)], why="y passes the sum on, and once only")


@claim(cites=["article/gradients-from-each-grad-fn"])
@given(graph=graphs(anywhere=2))
def spec_backward_goes_through_what_the_root_depends_on_and_through_nothing_else(world, graph):
    """Backward goes once through each result that its roots depend on, with the whole gradient by it, and
    through no other one."""
    tensors = graph.build(world)
    seen = {name: [] for name in graph.results}
    for name in graph.results:
        tensors[name].register_hook(seen[name].append)

    torch.autograd.backward(
        [tensors[name] for name in graph.cotangents], [world.constant(v) for v in graph.cotangents.values()]
    )

    for name, gradient in graph.gradients(world).items():
        if name in graph.results:
            expected = [] if gradient is None else [gradient]
            same(seen[name], expected, why=f"backward goes from {list(graph.cotangents)} in {graph}")


# Functions of tensors that are broadcast, with the derivatives by each, by hand.
BROADCAST_FUNCTIONS = {
    "a + b - c": (lambda a, b, c: a + b - c, lambda a, b, c: (1, 1, -1)),
    "a * b * c": (lambda a, b, c: a * b * c, lambda a, b, c: (b * c, a * c, a * b)),
    "a * b + c": (lambda a, b, c: a * b + c, lambda a, b, c: (b, a, 1)),
    "torch.addcmul(c, a, b)": (lambda a, b, c: torch.addcmul(c, a, b), lambda a, b, c: (b, a, 1)),
    "torch.where(a > 0, b, c)": (
        lambda a, b, c: torch.where(a > 0, b, c) + 0 * a,
        lambda a, b, c: (0, (a > 0) * 1, (a <= 0) * 1),
    ),
    "broadcast_tensors": (
        lambda a, b, c: sum(torch.broadcast_tensors(a, b, c)) - 2 * b,
        lambda a, b, c: (1, -1, 1),
    ),
}


@claim(cites=["article/computes-tensor-gradients", "article/chain-rule-root-to-leaf"])
@given(three=values_that_broadcast(3), function=st.sampled_from(list(BROADCAST_FUNCTIONS)), weight=st.integers(-2, 2))
def spec_the_gradient_of_a_broadcast_operand_is_summed_to_its_shape(world, three, function, weight):
    """An operand that was broadcast gets a gradient of its own shape: the sum over all places in which each of
    its elements was used."""
    leaves = [world.leaf(v) for v in three]
    f, derivatives = BROADCAST_FUNCTIONS[function]
    result = f(*leaves)
    gradient = torch.arange(result.numel(), dtype=result.dtype, device=world.device).reshape(result.shape) + weight

    result.backward(gradient)

    for x, derivative in zip(leaves, derivatives(*[leaf.detach() for leaf in leaves])):
        expected = (gradient * derivative).expand(result.shape).sum_to_size(x.shape)
        same(x.grad, expected, why=f"{function} makes {tuple(result.shape)} of {tuple(x.shape)}")


CUTS = {
    "y.detach()": lambda y: y.detach(),
    "y.clone().detach()": lambda y: y.clone().detach(),
    "y.detach().clone()": lambda y: y.detach().clone(),
    "y.detach().requires_grad_()": lambda y: y.detach().requires_grad_(),
    "y.data": lambda y: y.data,
    "y.clone().detach_()": lambda y: y.clone().detach_(),
    "torch.no_grad()(lambda: y * 1)()": lambda y: torch.no_grad()(lambda: y * 1)(),
}


@claim(cites=["article/propagates-to-leaves", "torch_tensor/detach-leaves-the-graph"])
@given(v=values(), cut=st.sampled_from(list(CUTS)), otherwise=st.booleans(), further=st.integers(0, 2))
def spec_propagation_ends_where_the_graph_was_cut(world, v, cut, otherwise, further):
    """Behind a tensor that was detached, or computed without being recorded, backward goes no further: the
    tensor counts as a constant, and a leaf gets only what comes to it in other ways, or None."""
    x = world.leaf(v)
    behind = []
    y = x * x
    y.register_hook(behind.append)
    constant = CUTS[cut](y)
    for _ in range(further):
        constant = constant * 2
    bystander = torch.ones_like(x).requires_grad_()

    ((x if otherwise else bystander) * constant).sum().backward()

    value = x.detach() * x.detach() * 2**further
    same(x.grad, value if otherwise else None, why=f"{cut} leads no further to x")
    same(bystander.grad, None if otherwise else value, why="the product's other factor is the derivative")
    same(behind, [], why="y lies behind the cut")


@claim(cites=["article/propagates-to-leaves"])
@given(graph=graphs(anywhere=2))
def spec_constants_get_no_gradient(world, graph):
    """Inputs that don't require grad, and what was computed from them alone, count as constants: backward
    leaves their .grad None and makes none of them require grad."""
    tensors = graph.build(world)

    torch.autograd.backward(
        [tensors[name] for name in graph.cotangents], [world.constant(v) for v in graph.cotangents.values()]
    )

    predicted = graph.gradients(world)
    for name, tensor in tensors.items():
        if name not in predicted:
            same(tensor.grad, None, why=f"{name} doesn't require grad in {graph}")
            same(tensor.requires_grad, False, why=f"{name} doesn't require grad in {graph}")
        elif name in graph.leaves:
            same(tensor.grad, predicted[name], why="the other inputs get theirs")


@claim(cites=["article/propagates-to-leaves", "torch_autograd/backward-writes-into-its-inputs-only"])
@given(v=values(), steps=st.integers(1, 4), target=st.integers(0, 4))
def spec_propagation_ends_at_the_targets(world, v, steps, target):
    """backward(inputs=...) with a result in the middle gives this result the gradient by it, and nothing to
    what lies behind or before it."""
    x = world.leaf(v)
    chain = [x]
    for number in range(steps):
        chain.append(chain[-1] * (number + 2))
    middle = chain[target % len(chain)]

    chain[-1].sum().backward(inputs=[middle])

    factor = 1
    for number in range(target % len(chain), steps):
        factor *= number + 2
    for tensor in chain:
        expected = torch.full_like(tensor, factor, requires_grad=False) if tensor is middle else None
        same(tensor.grad, expected, why=f"the target is number {target % len(chain)} of {len(chain)}")


# Affine functions of a tensor.
AFFINE = {
    "3 * x - 1": lambda x: 3 * x - 1,
    "x.sum(-1)": lambda x: x.sum(-1),
    "x.reshape(-1)[::2]": lambda x: x.reshape(-1)[::2],
    "x.flip(0)": lambda x: x.flip(0) if x.dim() else -x,
    "x.cumsum(0)": lambda x: x.cumsum(0),
    "torch.stack([x, 2 * x])": lambda x: torch.stack([x, 2 * x]),
    "x + x.sum()": lambda x: x + x.sum(),
    "x.t()": lambda x: x.t() if x.dim() == 2 else x,
}


@claim(cites=["article/a-grad-measures-influence"], needs=["float64"])
@given(
    v=values(dtypes=("float64",)),
    path=st.lists(st.sampled_from(list(AFFINE)), max_size=3),
    step=st.sampled_from([1, -1, 2, 10]),
    squared=st.booleans(),
)
def spec_grad_measures_the_influence_of_a_change(world, v, path, step, squared):
    """The gradient tells, to first order, how a change d of the leaf changes the loss: if the loss is affine, by
    the product of the gradient and d; if it is quadratic, by so much on the average of d and -d."""

    def loss(point):
        for name in path:
            point = AFFINE[name](point)
        return (point * point).sum() if squared else point.sum()

    x = world.leaf(v)
    loss(x).backward()

    d = (torch.arange(x.numel(), dtype=x.dtype, device=x.device) - 1).reshape(x.shape) * step
    product = (x.grad * d).sum()
    point = x.detach()
    if squared:
        same(loss(point + d) - loss(point - d), 2 * product, why=f"the loss is quadratic in x, by {path}")
    else:
        same(loss(point + d) - loss(point), product, why=f"the loss is affine in x, by {path}")


CASTS = {
    "y.to(dtype)": lambda y, dtype: y.to(dtype),
    "y.type(dtype)": lambda y, dtype: y.type(dtype),
    "y * torch.ones(1, dtype=dtype)": lambda y, dtype: y * torch.ones(1, dtype=dtype, device=y.device),
}


@claim(cites=["article/computes-tensor-gradients"], needs=["float64", "float32", "float16", "bfloat16"], observed=True)
@given(
    v=values(dtypes=SMALL_DTYPES),
    casts=st.lists(st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16]), max_size=4),
    way=st.sampled_from(list(CASTS)),
)
def spec_gradients_flow_back_in_the_dtype_of_each_tensor(world, v, casts, way):
    """Where a graph goes from one dtype to another, each tensor gets its gradient in its own dtype, the leaf
    first of all."""
    x = world.leaf(v)
    steps, factor = [x], 2 ** len(casts)
    for dtype in casts:
        steps.append(CASTS[way](steps[-1] * 2, dtype))

    got = torch.autograd.grad(steps[-1].sum(), steps, retain_graph=True)
    steps[-1].sum().backward()

    same(x.grad, torch.full_like(x, factor), why=f"x is of {x.dtype}")
    for number, (step, gradient) in enumerate(zip(steps, got)):
        expected = torch.full_like(step, 2 ** (len(casts) - number), requires_grad=False)
        same(gradient, expected, why=f"step {number} is of {step.dtype}")
