"""Parameters that are computed from others: torch.nn.utils.parametrize and weight norm."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.utils import parametrize

from .kit import WRITABLE, claim, raises, same, values


class Multiple(torch.nn.Module):
    """A number times the tensor; to undo it, the tensor divided by the number."""

    def __init__(self, factor):
        """The factor isn't zero."""
        super().__init__()
        self.factor = factor

    def forward(self, x):
        """The multiple."""
        return x * self.factor

    def right_inverse(self, x):
        """What gives x."""
        return x / self.factor


class Sum(torch.nn.Module):
    """The sum of two tensors; to undo it, the tensor and zeros."""

    def forward(self, x, y):
        """The sum."""
        return x + y

    def right_inverse(self, x):
        """What gives x."""
        return x, torch.zeros_like(x)


FACTORS = st.lists(st.sampled_from((2, -1, 4, 0.5)), min_size=1, max_size=3)


def holder(world, v, frozen, buffer=False):
    """A module with one parameter, or buffer, called weight, perhaps frozen."""
    module = torch.nn.Module()
    if buffer:
        module.register_buffer("weight", world.constant(v))
    else:
        module.weight = torch.nn.Parameter(world.constant(v), requires_grad=not frozen)
    return module


@claim(
    cites=[
        "torch_nn/parametrized-tensors-are-computed",
        "torch_nn/parametrized-tensors-are-differentiated-through",
        "torch_nn/parametrizations-keep-the-original",
    ]
)
@given(
    v=values(layouts=WRITABLE),
    factors=FACTORS,
    frozen=st.booleans(),
    grad=st.sampled_from((None, 3)),
    recording=st.booleans(),
)
def spec_a_parametrized_weight_is_computed_and_differentiated_through(world, v, factors, frozen, grad, recording):
    """Once a parameter is parametrized, its name gives what the parametrizations make of it, one after the other, a
    result if the original requires grad. The original is the same leaf; it is a parameter, and gets the gradient."""
    module = holder(world, v, frozen)
    original, old = module.weight, world.constant(v)
    original.grad = None if grad is None else torch.full_like(original, grad).detach()
    total = 1
    with torch.set_grad_enabled(recording):
        for factor in factors:
            parametrize.register_parametrization(module, "weight", Multiple(factor))
            total *= factor

    found = module.parametrizations.weight.original
    same(found is original, True, why="the very parameter is the original")
    same([p is original for p in module.parameters()], [True], why="the original is the parameter now")
    same((original.is_leaf, original.requires_grad, original.grad_fn), (True, not frozen, None), why="it is a leaf")
    w = module.weight
    same(original, old / factors[0], why="what undoes the first parametrization was applied when it was registered")
    same(w, old / factors[0] * total, why="it is computed from the original")
    same((w.requires_grad, w.is_leaf), (not frozen, frozen), why="it is computed from the original")
    x = world.leaf(v)
    (w * 3 + x).sum().backward()
    gradient = torch.full_like(old, 3 * total + (grad or 0))
    kept = None if grad is None else torch.full_like(old, grad)
    same(original.grad, kept if frozen else gradient, why="backward goes through the parametrizations")
    with torch.no_grad():
        same(module.weight.requires_grad, False, why="under no_grad nothing is recorded")


@claim(cites=["torch_nn/parametrized-tensors-are-computed", "torch_nn/parametrized-tensors-are-cached-on-demand"])
@given(
    v=values(layouts=WRITABLE),
    factor=st.sampled_from((2, -1, 4)),
    reads=st.integers(1, 3),
    failing=st.booleans(),
    nested=st.booleans(),
)
def spec_a_parametrized_weight_is_computed_once_where_it_is_cached(world, v, factor, reads, failing, nested):
    """A parametrized weight is computed anew each time that it is read; within parametrize.cached() it is computed
    once, also after an error inside another such block. The gradients of all uses add up in the original."""
    module = holder(world, v, False)
    original = module.weight
    parametrize.register_parametrization(module, "weight", Multiple(factor))
    if failing:
        with raises(ArithmeticError, "on purpose", why="the block fails"):
            with parametrize.cached():
                module.weight.sum().backward()
                raise ArithmeticError("on purpose")
        original.grad = None

    fresh = [module.weight for _ in range(reads + 1)]
    same([w is fresh[0] for w in fresh[1:]], [False] * reads, why="it is computed each time")
    with parametrize.cached():
        if nested:
            with parametrize.cached():
                inside = [module.weight]
            inside += [module.weight for _ in range(reads)]
        else:
            inside = [module.weight for _ in range(reads + 1)]
        sum((w * 2).sum() for w in inside).backward()
    same([w is inside[0] for w in inside], [True] * (reads + 1), why="it is computed once")
    same(original.grad, torch.full_like(original, 2 * factor * (reads + 1)), why="each use counts")

    with torch.no_grad():
        original.add_(1)
    same(module.weight is inside[0], False, why="the block was left")
    same(module.weight, original.detach() * factor, why="it is computed from the original as it is")


@claim(cites=["torch_nn/assigning-to-a-parametrized-tensor-inverts", "torch_nn/parametrizations-keep-the-original"])
@given(
    v=values(layouts=WRITABLE),
    factors=FACTORS,
    constant=st.booleans(),
    recording=st.booleans(),
)
def spec_assigning_to_a_parametrized_weight_changes_the_original_in_place(world, v, factors, constant, recording):
    """Assigned to the name of a parametrized weight, a tensor is put through what undoes the parametrizations, and the
    result is written into the original, the same leaf, without a record and in any grad mode."""
    module = holder(world, v, False)
    original, total = module.weight, 1
    for factor in factors:
        parametrize.register_parametrization(module, "weight", Multiple(factor))
        total *= factor
    x = world.leaf(v)
    new = x.detach() + 4 if constant else x * 2

    with torch.set_grad_enabled(recording):
        module.weight = new

    same(module.parametrizations.weight.original is original, True, why="the original was written in place")
    same(original, new.detach() / total, why="that gives the tensor that was assigned")
    same((original.is_leaf, original.requires_grad, original.grad_fn), (True, True, None), why="nothing was recorded")
    same(module.weight, new.detach(), why="that was assigned")
    (module.weight * 2).sum().backward()
    same(original.grad, torch.full_like(original, 2 * total), why="the original is the leaf")
    same(x.grad, None, why="no graph leads to what was assigned")


@claim(cites=["torch_nn/removing-parametrizations-leaves-a-parameter"])
@given(v=values(layouts=WRITABLE), factors=FACTORS, leave=st.booleans(), frozen=st.booleans(), changed=st.booleans())
def spec_removing_parametrizations_leaves_a_leaf(world, v, factors, leave, frozen, changed):
    """remove_parametrizations() leaves a parameter under the old name, a leaf that requires grad as the original did:
    with the value computed last, or with leave_parametrized=False the original itself, as it is."""
    module = holder(world, v, frozen)
    original, total = module.weight, 1
    for factor in factors:
        parametrize.register_parametrization(module, "weight", Multiple(factor))
        total *= factor
    if changed:
        with torch.no_grad():
            original.add_(1)
    expected = original.detach().clone() * (total if leave else 1)

    same(parametrize.remove_parametrizations(module, "weight", leave_parametrized=leave) is module, True, why="it is")
    p = module.weight
    same([name for name, _ in module.named_parameters()], ["weight"], why="the parameter has its old name")
    flags = (isinstance(p, torch.nn.Parameter), p.is_leaf, p.requires_grad, p.grad_fn)
    same(flags, (True, True, not frozen, None), why="it is a parameter again")
    same(p, expected, why="that is its value")
    if not leave:
        same(p is original, True, why="it is the original")
    (p * 2 + world.leaf(v)).sum().backward()
    same(p.grad, None if frozen else torch.full_like(p, 2), why="nothing is computed any more")


@claim(
    cites=[
        "torch_nn/parametrizations-may-have-several-inputs",
        "torch_nn/parametrized-tensors-are-differentiated-through",
    ]
)
@given(v=values(layouts=WRITABLE), factor=st.sampled_from((None, 2, -1)), step=st.booleans())
def spec_a_weight_of_several_originals_gives_each_its_gradient(world, v, factor, step):
    """A parametrization may compute a weight from several tensors: they are new parameters, original0 and so on, leaves
    that require grad, and each gets its gradient. An optimizer made before doesn't know them."""
    module = holder(world, v, False)
    earlier = torch.optim.SGD(module.parameters(), lr=1)
    parametrize.register_parametrization(module, "weight", Sum())
    if factor is not None:
        parametrize.register_parametrization(module, "weight", Multiple(factor))
    total = factor or 1
    first, second = module.parametrizations.weight.original0, module.parametrizations.weight.original1
    found = [(p.is_leaf, p.requires_grad, p.grad_fn, p.grad) for p in (first, second)]
    same(found, [(True, True, None, None)] * 2, why="both are new leaves")
    same([p is q for p, q in zip(module.parameters(), (first, second))], [True, True], why="both are parameters")

    (module.weight * 3).sum().backward()
    same([first.grad, second.grad], [torch.full_like(first, 3 * total)] * 2, why="the weight is their sum")
    old = first.detach().clone()
    (torch.optim.SGD(module.parameters(), lr=1) if step else earlier).step()
    same(first, old - first.grad if step else old, why="only a new optimizer was given the new parameters")


@claim(observed=True)
@given(v=values(layouts=WRITABLE), name=st.sampled_from(("other", "parametrizations")), buffer=st.booleans())
def spec_what_is_not_there_is_not_parametrized(world, v, name, buffer):
    """register_parametrization() raises an error for a name that is no parameter or buffer of the module, and
    remove_parametrizations() for one that isn't parametrized; the module is as it was."""
    module = holder(world, v, False, buffer)
    weight = module.weight
    with raises(ValueError, "does not have a parameter", why=f"there is no {name}"):
        parametrize.register_parametrization(module, name, Multiple(2))
    with raises(ValueError, "does not have a parametrization", why="it isn't parametrized"):
        parametrize.remove_parametrizations(module, "weight")
    same(module.weight is weight, True, why="nothing was parametrized")
    same([weight, weight.is_leaf, weight._version], [world.constant(v), True, 0], why="nothing was parametrized")
    same(parametrize.is_parametrized(module), False, why="nothing was parametrized")


NORMED = {
    "torch.nn.utils.weight_norm": (
        lambda module: torch.nn.utils.weight_norm(module),
        lambda module: (module.weight_g, module.weight_v),
    ),
    "torch.nn.utils.weight_norm, twice": (
        lambda module: torch.nn.utils.weight_norm(
            torch.nn.utils.remove_weight_norm(torch.nn.utils.weight_norm(module))
        ),
        lambda module: (module.weight_g, module.weight_v),
    ),
}


@claim(cites=["torch_nn/weight-norm-splits-the-weight"], needs=["random"])
@given(
    way=st.sampled_from([*NORMED]),
    rows=st.lists(st.tuples(st.integers(0, 2), st.sampled_from((1, 2, -4, -1))), min_size=1, max_size=3),
    cotangents=st.tuples(*[st.sampled_from((1, 2, -1, 0, 3))] * 9),
    recording=st.booleans(),
)
def spec_weight_norm_gives_length_and_direction_their_gradients(world, way, rows, cotangents, recording):
    """Weight norm puts two leaves in the place of a weight, the lengths of its rows and the rows. The length gets the
    part of the gradient along the row, and the row what is across, scaled by what its length is to be."""
    weight = torch.zeros(len(rows), 3, dtype=torch.float32, device=world.device)
    for row, (column, number) in enumerate(rows):
        weight[row, column] = number
    module = torch.nn.Linear(3, len(rows), bias=False, device=world.device)
    with torch.no_grad():
        module.weight.copy_(weight)
    make, parts = NORMED[way]
    with torch.set_grad_enabled(recording):
        make(module)

    g, v = parts(module)
    same([(p.is_leaf, p.requires_grad, p.grad) for p in (g, v)], [(True, True, None)] * 2, why="both are leaves")
    same(sorted(map(id, module.parameters())), sorted((id(g), id(v))), why="they are the parameters now")
    same([g.detach().reshape(-1), v], [weight.abs().sum(1), weight], why="the lengths and the rows")
    x = torch.eye(3, device=world.device)  # a row of x picks out a column
    cotangent = torch.tensor(cotangents, dtype=torch.float32, device=world.device).reshape(3, 3)[: len(rows)]
    module(x).backward(cotangent.t())

    unit = weight / weight.abs().sum(1, keepdim=True)
    along = (cotangent * unit).sum(1, keepdim=True)
    same(module.weight, weight, why="the product is the weight")
    same(g.grad, along, why="the length gets what is along the row")
    same(v.grad, cotangent - along * unit, why="the row gets what is across")
