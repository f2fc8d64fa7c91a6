"""Parameters written in place: allowed and unrecorded under no_grad, refused outside it."""

import contextlib

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import SHAPES, WRITABLE, claim, raises, same, values
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

# The same for tensors filled with what is no arithmetic of their old values.
INITIALIZERS = {
    "torch.nn.init.ones_(p)": (lambda p: torch.nn.init.ones_(p), lambda old: torch.ones_like(old)),
    "torch.nn.init.zeros_(p)": (lambda p: torch.nn.init.zeros_(p), lambda old: torch.zeros_like(old)),
    "torch.nn.init.constant_(p, 3)": (
        lambda p: torch.nn.init.constant_(p, 3),
        lambda old: torch.full_like(old, 3),
    ),
    "torch.nn.init.uniform_(p, 2, 2)": (
        lambda p: torch.nn.init.uniform_(p, 2, 2),
        lambda old: torch.full_like(old, 2),
    ),
    "torch.nn.init.normal_(p, 2, 0)": (
        lambda p: torch.nn.init.normal_(p, 2, 0),
        lambda old: torch.full_like(old, 2),
    ),
}
# Random numbers that are no longer random: the range, or the deviation, is zero.
RANDOM_FILLERS = {
    "p.normal_(2, 0)": lambda p: p.normal_(2, 0),
    "p.uniform_(2, 2)": lambda p: p.uniform_(2, 2),
}
MATRICES = ((2, 3), (2, 2), (3, 2), (1, 1))
MATRIX_INITIALIZERS = {
    "torch.nn.init.eye_(p)": (
        lambda p: torch.nn.init.eye_(p),
        lambda old: torch.tensor(
            [[float(i == j) for j in range(old.shape[1])] for i in range(old.shape[0])],
            dtype=old.dtype,
            device=old.device,
        ),
    ),
}


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
REFUSED = ("in-place operation", "modified inplace", "out=")

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

# Losses of p that save p, or a result made from it, for backward; and losses that save none of it,
# with the gradient by p.
SAVING = {
    "(p * p).sum()": lambda p, w: (p * p).sum(),
    "(p * w).sum()": lambda p, w: (p * w).sum(),
    "(w * p**2).sum() + p.sum()": lambda p, w: (w * p**2).sum() + p.sum(),
    "p.square().sum()": lambda p, w: p.square().sum(),
    "(p[...] * w).sum()": lambda p, w: (p[...] * w).sum(),
    "(p.unsqueeze(0) * p).sum() * 2": lambda p, w: (p.unsqueeze(0) * p).sum() * 2,
    "p.abs().sum() + (p * w).sum()": lambda p, w: p.abs().sum() + (p * w).sum(),
}
SPARING = {
    "(p + 1).sum()": (lambda p: (p + 1).sum(), 1),
    "(p * 3).sum()": (lambda p: (p * 3).sum(), 3),
    "(1 - p).sum()": (lambda p: (1 - p).sum(), -1),
    "p.clone().sum()": (lambda p: p.clone().sum(), 1),
    "p.sum() * 2": (lambda p: p.sum() * 2, 2),
    "(p * torch.full_like(p, 2)).sum()": (lambda p: (p * torch.full_like(p, 2)).sum(), 2),
    "(p[...] + p).sum()": (lambda p: (p[...] + p).sum(), 2),
    "(p.square().detach() - p).sum()": (lambda p: (p.square().detach() - p).sum(), -1),
    "torch.stack([p, p, -p]).sum()": (lambda p: torch.stack([p, p, -p]).sum(), 1),
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


@claim(cites=["autograd_mechanics/init-relies-on-no-grad"], needs=["random"])
@given(
    example=st.one_of(
        st.tuples(st.sampled_from(list(INITIALIZERS)), values(layouts=WRITABLE)),
        st.tuples(st.sampled_from(list(MATRIX_INITIALIZERS)), values(shapes=MATRICES, layouts=WRITABLE)),
    ),
    enabled=st.booleans(),
    used=st.booleans(),
)
def spec_nn_init_fills_a_leaf_in_every_mode(world, example, enabled, used):
    """The functions of torch.nn.init fill a leaf in place, unrecorded, also where grad mode is on; they
    leave the mode as it is."""
    name, v = example
    p = world.leaf(v)
    if used:
        (p * 2).sum().backward()
    old, gradient, version = p.detach().clone(), p.grad, p._version
    initialize, written = (INITIALIZERS | MATRIX_INITIALIZERS)[name]

    with torch.set_grad_enabled(enabled):
        result = initialize(p)
        same(torch.is_grad_enabled(), enabled, why="the mode is the caller's")

    same(p, written(old), why=f"{name} was run")
    same(result is p, True, why="it was filled in place")
    same((p.is_leaf, p.requires_grad, p.grad_fn), (True, True, None), why="nothing was recorded")
    same(p._version > version, True, why="a change in place is counted")
    same(p.grad is gradient, True, why="the values changed, not .grad")


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


@claim(
    cites=["article/no-grad-disables-gradient-computation", "autograd_mechanics/grad-mode-is-the-default"],
)
@given(
    v=values(layouts=WRITABLE),
    fillers=SOME_FILLERS,
    parameter=st.booleans(),
    used=st.booleans(),
    earlier=st.one_of(st.none(), ANY_WAY),
)
def spec_a_leaf_that_requires_grad_takes_no_change_in_grad_mode(world, v, fillers, parameter, used, earlier):
    """In grad mode, also where no_grad was left, to write a leaf that requires grad in place is an error;
    it changes nothing, and what was computed from the leaf before can still be differentiated."""
    p = torch.nn.Parameter(world.constant(v)) if parameter else world.leaf(v)
    if used:
        (p * 2).sum().backward()
    if earlier:
        UNRECORDED[earlier](lambda: p.add_(1))
    old, gradient, version = p.detach().clone(), p.grad, p._version
    y = (p * p).sum()

    for filler in fillers:
        write, _ = FILLERS[filler]
        with raises(RuntimeError, *REFUSED, why=f"grad mode is on where {filler} is run on a leaf"):
            write(p)
        same(p, old, why="the change was refused")
        with torch.no_grad(), torch.enable_grad():
            with raises(RuntimeError, *REFUSED, why=f"grad mode is on where {filler} is run on a leaf"):
                write(p)
        same(p, old, why="the change was refused")

    same((p.is_leaf, p.requires_grad, p.grad_fn), (True, True, None), why="the change was refused")
    same(p._version, version, why="the change was refused")
    same(p.grad is gradient, True, why="the change was refused")
    y.backward()
    same(p.grad, 2 * old + (2 if used else 0), why="y was computed before")


@claim(
    cites=["article/no-grad-disables-gradient-computation", "autograd_mechanics/grad-mode-is-the-default"],
)
@given(
    v=values(shapes=SHAPES[1:9], layouts=WRITABLE),
    views=SOME_VIEWS,
    fillers=SOME_FILLERS,
    earlier=st.booleans(),
)
def spec_a_view_of_such_a_leaf_takes_no_change_in_grad_mode(world, v, views, fillers, earlier):
    """In grad mode, to write a leaf that requires grad through one of its views is the same error, and
    changes nothing either."""
    p = world.leaf(v)
    if earlier:
        in_a_block(lambda: p[-1:].add_(1))
    old, version = p.detach().clone(), p._version

    for number, filler in enumerate(fillers):
        view = views[number % len(views)]
        write, _ = FILLERS[filler]
        part = VIEWS[view](p)
        with raises(RuntimeError, *REFUSED, why=f"{view} shows a leaf that requires grad, and {filler} is run on it"):
            write(part)
        same(part, VIEWS[view](old), why="the change was refused")

    same(p, old, why="the change was refused")
    same((p.is_leaf, p.requires_grad, p.grad_fn), (True, True, None), why="the change was refused")
    same(p._version, version, why="the change was refused")
    (p * p).sum().backward()
    same(p.grad, 2 * old, why="p is as it was")


@claim(
    cites=["article/no-grad-disables-gradient-computation", "autograd_mechanics/no-grad-for-in-place-updates"],
    needs=["random"],
)
@given(v=values(layouts=WRITABLE), filler=st.sampled_from(list(RANDOM_FILLERS)), way=ANY_WAY, parameter=st.booleans())
def spec_random_numbers_are_no_exception(world, v, filler, way, parameter):
    """To fill a leaf that requires grad with random numbers is the same error in grad mode; under no_grad
    it is allowed, and the leaf is still a leaf that requires grad."""
    p = torch.nn.Parameter(world.constant(v)) if parameter else world.leaf(v)
    old, write = p.detach().clone(), RANDOM_FILLERS[filler]

    with raises(RuntimeError, *REFUSED, why=f"grad mode is on where {filler} is run on a leaf"):
        write(p)
    same(p, old, why="the change was refused")
    refused = error_of(lambda: UNRECORDED[way](lambda: write(p)))

    same(refused, None, why=f"under no_grad {filler} is allowed")
    same(p, torch.full_like(old, 2), why=f"{filler} was run")
    same((p.is_leaf, p.requires_grad, p.grad_fn), (True, True, None), why=f"{filler} wasn't recorded")


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


@claim(cites=["autograd_mechanics/changed-saved-tensor-raises"])
@given(
    v=values(layouts=WRITABLE),
    losses=some_of(SAVING, 4),
    fillers=SOME_FILLERS,
    computed=st.booleans(),
    way=ANY_WAY,
    by_grad=st.booleans(),
)
def spec_a_change_of_a_saved_tensor_is_noticed(world, v, losses, fillers, computed, way, by_grad):
    """When a tensor that was saved for backward was changed in place afterwards, under no_grad too, be it
    a leaf or a result, backward raises an error; a leaf whose gradient needs the old values gets none."""
    for number, filler in enumerate(fillers):
        x, w = world.leaf(v), world.leaf(v)
        p = x * 1 if computed else x
        y = SAVING[losses[number % len(losses)]](p, w)
        write, _ = FILLERS[filler]

        UNRECORDED[way](lambda: write(p))

        with raises(RuntimeError, "modified by an inplace operation", why=f"p was saved before {filler}"):
            if by_grad:
                torch.autograd.grad(y, [x, w], allow_unused=True)
            else:
                y.backward()
        same(x.grad, None, why="its gradient can't be computed any more")
        w.grad = None  # which doesn't always need the old values
        (x * w).sum().backward()
        same(x.grad, w.detach(), why="a new graph saves the new values")
        same(w.grad, x.detach(), why="a new graph saves the new values")


@claim(cites=["autograd_mechanics/no-error-means-right-gradients"])
@given(
    v=values(layouts=WRITABLE),
    loss=st.sampled_from(list(SPARING)),
    fillers=st.lists(ANY_FILLER, min_size=1, max_size=2),
    computed=st.booleans(),
    way=ANY_WAY,
)
def spec_a_change_of_a_tensor_that_is_not_saved_does_no_harm(world, v, loss, fillers, computed, way):
    """When a tensor that backward doesn't need was changed under no_grad, be it a leaf or a result,
    backward gives the gradient of what was computed before the change."""
    x = world.leaf(v)
    p = x * 1 if computed else x
    make, factor = SPARING[loss]
    y = make(p)
    total = y.detach().clone()

    for filler in fillers:
        UNRECORDED[way](lambda: FILLERS[filler][0](p))
    refused = error_of(lambda: y.backward())

    same(refused, None, why="p wasn't saved")
    same(y, total, why="the loss was computed before")
    same(x.grad, torch.full_like(x, factor), why="its gradient doesn't depend on the values of p")


@claim(observed=True)
@given(v=values(), filler=ANY_FILLER, way=ANY_WAY)
def spec_a_result_changed_under_no_grad_keeps_its_history(world, v, filler, way):
    """A result that is changed in place under no_grad keeps its grad_fn: it has the new values, and the
    gradient that flows through it is that of the operation that made it."""
    x = world.leaf(v)
    y = x * 2
    node, old = y.grad_fn, y.detach().clone()
    write, written = FILLERS[filler]

    UNRECORDED[way](lambda: write(y))

    same(y, written(old), why=f"{filler} was run")
    same(y.grad_fn is node, True, why="the change wasn't recorded")
    same((y.is_leaf, y.requires_grad), (False, True), why="the change wasn't recorded")
    (y * 3).sum().backward()
    same(x.grad, torch.full_like(x, 6), why="y was made by x * 2")
