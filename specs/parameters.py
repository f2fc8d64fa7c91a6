"""Parameters written in place: allowed and unrecorded under no_grad."""

import contextlib

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import SHAPES, WRITABLE, claim, same, values
from .kit.choices import some_of

DTYPES = ("float64", "float32", "bfloat16")  # float16 has not every one of these operations everywhere

# Ways to write p in place, and the value that p, which was `old` before, has afterwards.
FILLERS = {
    "p.fill_(3)": (lambda p: p.fill_(3), lambda old: torch.full_like(old, 3)),
    "p.zero_()": (lambda p: p.zero_(), lambda old: torch.zeros_like(old)),
    "p.copy_(2 - p)": (lambda p: p.copy_(2 - p), lambda old: 2 - old),
    "p.add_(1)": (lambda p: p.add_(1), lambda old: old + 1),
    "p.add_(p, alpha=2)": (lambda p: p.add_(p, alpha=2), lambda old: 3 * old),
    "p.sub_(1)": (lambda p: p.sub_(1), lambda old: old - 1),
    "p.mul_(2)": (lambda p: p.mul_(2), lambda old: 2 * old),
    "p.mul_(p)": (lambda p: p.mul_(p), lambda old: old * old),
    "p.div_(2)": (lambda p: p.div_(2), lambda old: old / 2),
    "p.neg_()": (lambda p: p.neg_(), lambda old: -old),
    "p.abs_()": (lambda p: p.abs_(), lambda old: torch.where(old < 0, -old, old)),
    "p.relu_()": (lambda p: p.relu_(), lambda old: torch.where(old < 0, 0 * old, old)),
    "p.clamp_(-1, 1)": (lambda p: p.clamp_(-1, 1), lambda old: torch.where(old.abs() > 1, old.sign(), old)),
    "p.masked_fill_(p > 0, 5)": (
        lambda p: p.masked_fill_(p > 0, 5),
        lambda old: torch.where(old > 0, torch.full_like(old, 5), old),
    ),
    "p += 1": (lambda p: p.__iadd__(1), lambda old: old + 1),
    "p -= 1": (lambda p: p.__isub__(1), lambda old: old - 1),
    "p *= 2": (lambda p: p.__imul__(2), lambda old: 2 * old),
    "p /= 2": (lambda p: p.__itruediv__(2), lambda old: old / 2),
    "p[...] = 3": (lambda p: p.__setitem__(..., 3), lambda old: torch.full_like(old, 3)),
    "p[p > 0] = 5": (
        lambda p: p.__setitem__(p > 0, 5),
        lambda old: torch.where(old > 0, torch.full_like(old, 5), old),
    ),
    "torch.neg(p, out=p)": (lambda p: torch.neg(p, out=p), lambda old: -old),
}
ANY_FILLER = st.sampled_from(list(FILLERS))
SOME_FILLERS = some_of(FILLERS)


def in_a_block(write):
    """Write inside no_grad."""
    with torch.no_grad():
        write()


def in_a_block_that_fails_afterwards(write):
    """Write inside no_grad, in a block that an exception leaves."""
    with contextlib.suppress(ArithmeticError):
        with torch.no_grad():
            write()
            raise ArithmeticError("on purpose")


def in_a_block_inside_another(write):
    """Write inside no_grad, after another no_grad inside it was left."""
    with torch.no_grad():
        with torch.no_grad():
            pass
        write()


def in_a_block_inside_enable_grad(write):
    """Write inside no_grad inside enable_grad."""
    with torch.no_grad(), torch.enable_grad(), torch.no_grad():
        write()


def after_set_grad_enabled(write):
    """Write where set_grad_enabled, called as a function, turned grad mode off."""
    torch.set_grad_enabled(False)
    write()
    torch.set_grad_enabled(True)


@torch.no_grad()
def in_a_decorated_function(write):
    """Write inside a function that no_grad decorates."""
    write()


def error_of(do):
    """What the error says with which do() ends, or None if there is none."""
    try:
        do()
    except RuntimeError as error:
        return str(error)
    return None


UNRECORDED = {
    "in_a_block": in_a_block,
    "in_a_block_that_fails_afterwards": in_a_block_that_fails_afterwards,
    "in_a_block_inside_another": in_a_block_inside_another,
    "in_a_block_inside_enable_grad": in_a_block_inside_enable_grad,
    "after_set_grad_enabled": after_set_grad_enabled,
    "in_a_decorated_function": in_a_decorated_function,
}
ANY_WAY = st.sampled_from(list(UNRECORDED))

VIEWS = {
    "p[...]": lambda p: p[...],
    "p[0]": lambda p: p[0],
    "p[-1:]": lambda p: p[-1:],
    "p[..., ::2]": lambda p: p[..., ::2],
    "p.unsqueeze(0)": lambda p: p.unsqueeze(0),
    "p.transpose(0, -1)": lambda p: p.transpose(0, -1),
    "p.narrow(0, 0, 1)": lambda p: p.narrow(0, 0, 1),
    "p.unbind(0)[-1]": lambda p: p.unbind(0)[-1],
    "p.split(1)[0]": lambda p: p.split(1)[0],
    "p[0].unsqueeze(0)": lambda p: p[0].unsqueeze(0),
    "p.transpose(0, -1)[-1:]": lambda p: p.transpose(0, -1)[-1:],
}
SOME_VIEWS = some_of(VIEWS)

MODULES = {
    "torch.nn.Linear(2, 2)": (lambda: torch.nn.Linear(2, 2), ["weight", "bias"]),
    "torch.nn.Linear(3, 1, bias=False)": (lambda: torch.nn.Linear(3, 1, bias=False), ["weight"]),
    "torch.nn.Bilinear(2, 1, 3)": (lambda: torch.nn.Bilinear(2, 1, 3), ["weight", "bias"]),
    "torch.nn.BatchNorm1d(2)": (lambda: torch.nn.BatchNorm1d(2), ["weight", "bias"]),
    "two layers": (
        lambda: torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1, bias=False)),
        ["0.weight", "0.bias", "2.weight"],
    ),
    "a tree": (
        lambda: torch.nn.Sequential(torch.nn.Sequential(torch.nn.Linear(1, 2)), torch.nn.LayerNorm(2)),
        ["0.0.weight", "0.0.bias", "1.weight", "1.bias"],
    ),
    "no parameters": (lambda: torch.nn.Sequential(torch.nn.ReLU()), []),
}

UPDATES = {
    "p -= p.grad": lambda p: p.__isub__(p.grad),
    "p.sub_(p.grad)": lambda p: p.sub_(p.grad),
    "p.add_(p.grad, alpha=-1)": lambda p: p.add_(p.grad, alpha=-1),
    "p.copy_(p - p.grad)": lambda p: p.copy_(p - p.grad),
    "p[...] = p - p.grad": lambda p: p.__setitem__(..., p - p.grad),
}


@claim(
    cites=["article/no-grad-disables-gradient-computation", "autograd_mechanics/no-grad-for-in-place-updates"],
)
@given(
    v=values(layouts=WRITABLE, dtypes=DTYPES),
    fillers=SOME_FILLERS,
    way=ANY_WAY,
    parameter=st.booleans(),
    used=st.booleans(),
)
def spec_a_leaf_can_be_filled_in_place_under_no_grad(world, v, fillers, way, parameter, used):
    """Under no_grad a parameter or any other leaf can be written in place. It has the new values and is
    still the same leaf that requires grad; nothing is recorded, and its .grad stays as it was."""
    for filler in fillers:
        p = torch.nn.Parameter(world.constant(v)) if parameter else world.leaf(v)
        if used:
            (p * 2).sum().backward()
        old, gradient, version, address = p.detach().clone(), p.grad, p._version, p.data_ptr()
        write, written = FILLERS[filler]

        refused = error_of(lambda: UNRECORDED[way](lambda: write(p)))

        same(refused, None, why=f"under no_grad {filler} is allowed")
        same(p, written(old), why=f"{filler} was run")
        same((p.is_leaf, p.requires_grad, p.grad_fn), (True, True, None), why=f"{filler} wasn't recorded")
        same(p.data_ptr(), address, why="it was written in place")
        same(p._version > version, True, why=f"{filler} counts as a change")
        same(p.grad is gradient, True, why="the values changed, not .grad")
        same(gradient, torch.full_like(old, 2) if used else None, why="the values changed, not .grad")


@claim(
    cites=["article/no-grad-disables-gradient-computation", "autograd_mechanics/no-grad-for-in-place-updates"],
)
@given(
    v=values(shapes=SHAPES[1:9], layouts=WRITABLE),
    views=SOME_VIEWS,
    before=st.booleans(),
    way=ANY_WAY,
)
def spec_a_part_of_a_leaf_can_be_filled_under_no_grad(world, v, views, before, way):
    """Under no_grad a leaf can be written through its views, taken inside or before: the elements that
    the view shows are written and no others, and the leaf is still a leaf that requires grad."""
    p = world.leaf(v)
    positions = torch.arange(p.numel(), device=p.device).reshape(p.shape)

    for number, view in enumerate(views, start=5):
        old, version = p.detach().clone(), p._version
        shown = torch.isin(positions, VIEWS[view](positions).reshape(-1))
        part = VIEWS[view](p)

        refused = error_of(lambda: UNRECORDED[way](lambda: (part if before else VIEWS[view](p)).fill_(number)))

        same(refused, None, why=f"under no_grad {view} can be filled")
        same(p, torch.where(shown, torch.full_like(old, number), old), why=f"{view} was filled with {number}")
        same((p.is_leaf, p.requires_grad, p.grad_fn), (True, True, None), why="nothing was recorded")
        same(p._version > version, True, why="a view and its base count changes together")


@claim(
    cites=["article/parameters-iterates-all", "article/no-grad-disables-gradient-computation"],
)
@given(name=st.sampled_from(list(MODULES)), start=st.integers(1, 3), step=st.integers(0, 1), way=ANY_WAY)
def spec_all_parameters_of_a_module_can_be_filled(world, name, start, step, way):
    """A loop over M.parameters() under no_grad reaches every parameter of the module and of the modules
    in it, once and in their order; filled in place they are still its parameters, and leaves."""
    make, names = MODULES[name]
    module = make().to(world.device)
    before = {n: module.get_parameter(n) for n in names}

    def fill():
        for number, p in enumerate(module.parameters()):
            p.fill_(start + number * step)

    refused = error_of(lambda: UNRECORDED[way](fill))

    same(refused, None, why="under no_grad parameters can be filled")
    same([n for n, _ in module.named_parameters()], names, why="these are its parameters")
    for number, (n, p) in enumerate(before.items()):
        same(module.get_parameter(n) is p, True, why=f"{n} was written in place")
        same(p, torch.full_like(p, start + number * step), why=f"{n} is parameter number {number}")
        same((p.is_leaf, p.requires_grad, p.grad_fn), (True, True, None), why="nothing was recorded")
        same(p.grad, None, why="no backward was run")


@claim(cites=["autograd_mechanics/no-grad-for-in-place-updates"])
@given(
    v=values(layouts=WRITABLE),
    fillers=st.lists(ANY_FILLER, min_size=1, max_size=2),
    way=ANY_WAY,
    used=st.booleans(),
)
def spec_a_forward_after_the_filling_uses_the_new_values(world, v, fillers, way, used):
    """What is computed from a leaf after it was filled, and its gradient, are those of the new values;
    the gradient is added to what .grad already holds."""
    p, q = world.leaf(v), world.leaf(v)
    if used:
        (p * q).sum().backward()
    old = p.detach().clone()
    expected_p, expected_q = old, old
    for filler in fillers:
        UNRECORDED[way](lambda: FILLERS[filler][0](p))
        expected_p = FILLERS[filler][1](expected_p)
    UNRECORDED[way](lambda: FILLERS[fillers[0]][0](q))
    expected_q = FILLERS[fillers[0]][1](expected_q)

    loss = (p * q).sum()
    loss.backward()

    same(loss, (expected_p * expected_q).sum(), why="p and q have new values")
    same(p.grad, expected_q + old if used else expected_q, why="the gradient by p is the new q")
    same(q.grad, expected_p + old if used else expected_p, why="the gradient by q is the new p")


@claim(cites=["autograd_mechanics/no-grad-for-in-place-updates"])
@given(
    v=values(layouts=WRITABLE),
    w=values(layouts=WRITABLE),
    update=st.sampled_from(list(UPDATES)),
    way=ANY_WAY,
    zeroed=st.lists(st.booleans(), min_size=1, max_size=4),
)
def spec_gradient_descent_updates_leaves_in_place(world, v, w, update, way, zeroed):
    """Steps of p -= p.grad under no_grad, each after a backward and with the gradients cleared between
    them, leave each of several leaves a leaf, with the values that the arithmetic gives."""
    p, q = world.leaf(v), world.leaf(w)
    start_p, start_q, first = p.detach().clone(), q.detach().clone(), [p, q]

    for number, in_place in enumerate(zeroed, start=1):
        ((p * p).sum() + 3 * q.sum()).backward()

        def step():
            for leaf in first:
                UPDATES[update](leaf)

        refused = error_of(lambda: UNRECORDED[way](step))
        same(refused, None, why=f"under no_grad {update} is allowed")
        same(p, start_p if number % 2 == 0 else -start_p, why="the gradient is 2p, and p - 2p is -p")
        same(q, start_q - 3 * number, why=f"the gradient is 3, and this is step {number}")
        for leaf in first:
            same((leaf.is_leaf, leaf.requires_grad), (True, True), why="nothing was recorded")
            if in_place:
                leaf.grad.zero_()
            else:
                leaf.grad = None


@claim(cites=["autograd_mechanics/no-grad-as-if-no-input-requires-grad"])
@given(
    v=values(layouts=WRITABLE, dtypes=DTYPES),
    fillers=SOME_FILLERS,
    frozen=st.booleans(),
    enabled=st.booleans(),
)
def spec_a_leaf_that_does_not_require_grad_can_be_filled_in_every_mode(world, v, fillers, frozen, enabled):
    """A leaf that doesn't require grad, a frozen parameter too, can be written in place in every mode;
    told to require grad later, it is a leaf with the new values."""
    for filler in fillers:
        p = torch.nn.Parameter(world.constant(v)).requires_grad_(False) if frozen else world.constant(v)
        old, version = p.detach().clone(), p._version
        write, written = FILLERS[filler]

        with torch.set_grad_enabled(enabled):
            refused = error_of(lambda: write(p))

        same(refused, None, why=f"p doesn't require grad, so {filler} is allowed")
        same(p, written(old), why=f"{filler} was run")
        same((p.is_leaf, p.requires_grad, p.grad_fn), (True, False, None), why="p doesn't require grad")
        same(p._version > version, True, why=f"{filler} counts as a change")
        p.requires_grad_()
        (p * 3).sum().backward()
        same(p.grad, torch.full_like(p, 3), why="p requires grad now")


@claim(observed=True)
@given(v=values(layouts=WRITABLE), filler=ANY_FILLER, data=st.booleans(), enabled=st.booleans())
def spec_a_leaf_can_be_written_through_detach_and_data_in_every_mode(world, v, filler, data, enabled):
    """Through p.detach() and p.data a leaf can be written in every mode without a record. Only a change
    through detach() counts up the version of p."""
    p = world.leaf(v)
    old, version = p.detach().clone(), p._version
    write, written = FILLERS[filler]

    with torch.set_grad_enabled(enabled):
        write(p.data if data else p.detach())

    same(p, written(old), why=f"{filler} was run on what shares memory with p")
    same((p.is_leaf, p.requires_grad, p.grad_fn, p.grad), (True, True, None, None), why="nothing was recorded")
    same(p._version > version, not data, why="detach() shares p's version, .data has its own")


@claim(observed=True)
@given(v=values(), used=st.booleans(), enabled=st.booleans(), parameter=st.booleans())
def spec_assigning_to_data_swaps_the_memory_of_a_leaf(world, v, used, enabled, parameter):
    """To assign a tensor to p.data, in whatever mode, gives the leaf p the values and the memory of that
    tensor. It is the same leaf that requires grad, and its .grad stays as it was."""
    p = torch.nn.Parameter(world.constant(v)) if parameter else world.leaf(v)
    if used:
        (p * 2).sum().backward()
    old, gradient, new = p.detach(), p.grad, world.constant(v) + 1

    with torch.set_grad_enabled(enabled):
        p.data = new

    same([p, p.data_ptr()], [new, new.data_ptr()], why="p has the memory of the tensor that was assigned")
    same((p.is_leaf, p.requires_grad, p.grad_fn), (True, True, None), why="nothing was recorded")
    same(old, world.constant(v), why="the memory that p had before wasn't written")
    same(p.grad is gradient, True, why="the values changed, not .grad")
    same(gradient, torch.full_like(new, 2) if used else None, why="the values changed, not .grad")
