"""Parameters as layers are made with, and filled by torch.nn.init: in place, in every mode, without a record."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import SHAPES, WRITABLE, claim, raises, same, values
from .kit.choices import some_of

# Initializers that leave nothing to chance, and the value that p, which was `old` before, has afterwards.
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


@claim(
    cites=["autograd_mechanics/init-relies-on-no-grad"],
    needs=["random"],
    formerly=["parameters/nn_init_fills_a_leaf_in_every_mode"],
)
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


# Initializers that draw numbers, or need a matrix or more.
RANDOM = {
    "torch.nn.init.uniform_(p)": lambda p: torch.nn.init.uniform_(p),
    "torch.nn.init.normal_(p)": lambda p: torch.nn.init.normal_(p),
    "torch.nn.init.trunc_normal_(p)": lambda p: torch.nn.init.trunc_normal_(p),
    "torch.nn.init.xavier_uniform_(p)": lambda p: torch.nn.init.xavier_uniform_(p),
    "torch.nn.init.xavier_normal_(p)": lambda p: torch.nn.init.xavier_normal_(p),
    "torch.nn.init.kaiming_uniform_(p)": lambda p: torch.nn.init.kaiming_uniform_(p),
    "torch.nn.init.kaiming_normal_(p)": lambda p: torch.nn.init.kaiming_normal_(p),
    "torch.nn.init.sparse_(p, 0.5)": lambda p: torch.nn.init.sparse_(p, 0.5),
}


@claim(cites=["autograd_mechanics/init-relies-on-no-grad"], needs=["random"])
@given(
    v=values(shapes=((2, 3), (3, 2), (4, 4)), layouts=WRITABLE),
    names=some_of(RANDOM, 3),
    enabled=st.booleans(),
    flag=st.booleans(),
    grad=st.sampled_from((None, 3)),
)
def spec_random_initializers_record_nothing(world, v, names, enabled, flag, grad):
    """The functions of torch.nn.init that draw random numbers fill a leaf in place in every mode, unrecorded: it has
    the memory, the requires_grad and the .grad that it had, and what follows is differentiated by its new values."""
    p = torch.nn.Parameter(world.constant(v), requires_grad=flag)
    p.grad = None if grad is None else torch.full_like(p, grad).detach()
    for name in names:
        gradient, version, address = p.grad, p._version, p.data_ptr()
        with torch.no_grad():
            p.fill_(1000)  # no function draws that

        with torch.set_grad_enabled(enabled):
            result = RANDOM[name](p)
            same(torch.is_grad_enabled(), enabled, why="the mode is the caller's")

        same((result is p, p.data_ptr()), (True, address), why=f"{name} works in place")
        same((p.is_leaf, p.requires_grad, p.grad_fn), (True, flag, None), why="nothing was recorded")
        same(bool((p < 1000).all()), True, why=f"{name} was run")
        same(p._version > version, True, why="a change in place is counted")
        same(p.grad is gradient, True, why="the values changed, not .grad")
    p.grad = None
    x = world.leaf(v)
    (p * x).sum().backward()
    same(x.grad, p.detach(), why="the new values are used")
    same(p.grad, x.detach() if flag else None, why="it requires grad as before")


@claim(cites=["autograd_mechanics/init-relies-on-no-grad"], needs=["random"])
@given(
    v=values(shapes=SHAPES[1:9], layouts=WRITABLE),
    name=st.sampled_from([*INITIALIZERS]),
    enabled=st.booleans(),
    number=st.integers(0, 2),
)
def spec_nn_init_fills_a_part_of_a_leaf(world, v, name, enabled, number):
    """Given a view of a leaf, the functions of torch.nn.init fill this part of the leaf, in every mode, and nothing is
    recorded: the leaf is still one."""
    p = world.leaf(v)
    row = number % len(p)
    old = p.detach().clone()
    initialize, written = INITIALIZERS[name]
    with torch.set_grad_enabled(enabled):
        initialize(p[row])
    same(p[row].detach(), written(old[row]), why=f"{name} was run on one row")
    others = [i for i in range(len(p)) if i != row]
    same([p[i].detach() for i in others], [old[i] for i in others], why="the others are as they were")
    same((p.is_leaf, p.requires_grad, p.grad_fn), (True, True, None), why="nothing was recorded")
    (p * 3).sum().backward()
    same(p.grad, torch.full_like(p, 3), why="nothing was recorded")


TOO_FLAT = {
    "torch.nn.init.xavier_uniform_(p)": (lambda p: torch.nn.init.xavier_uniform_(p), "dimensions"),
    "torch.nn.init.xavier_normal_(p)": (lambda p: torch.nn.init.xavier_normal_(p), "dimensions"),
    "torch.nn.init.kaiming_uniform_(p)": (lambda p: torch.nn.init.kaiming_uniform_(p), "dimensions"),
    "torch.nn.init.eye_(p)": (lambda p: torch.nn.init.eye_(p), "dimensions"),
    "torch.nn.init.orthogonal_(p)": (lambda p: torch.nn.init.orthogonal_(p), "dimensions"),
    "torch.nn.init.dirac_(p)": (lambda p: torch.nn.init.dirac_(p), "dimensions"),
    "torch.nn.init.sparse_(p, 0.5)": (lambda p: torch.nn.init.sparse_(p, 0.5), "dimensions"),
}


@claim(observed=True)
@given(v=values(shapes=((3,), (1,), (24,)), layouts=WRITABLE), names=some_of(TOO_FLAT, 3), enabled=st.booleans())
def spec_an_initializer_that_needs_a_matrix_refuses_a_vector(world, v, names, enabled):
    """A function of torch.nn.init that needs two dimensions or more raises an error for a vector, which stays as it
    is, and leaves grad mode as it is."""
    p = torch.nn.Parameter(world.constant(v))
    with torch.set_grad_enabled(enabled):
        for name in names:
            initialize, telling = TOO_FLAT[name]
            with raises(ValueError, telling, why="p has one dimension"):
                initialize(p)
            same(torch.is_grad_enabled(), enabled, why="the mode is the caller's")
    same([p, p._version], [world.constant(v), 0], why="it was refused")
    same((p.is_leaf, p.requires_grad, p.grad_fn, p.grad), (True, True, None, None), why="it was refused")


RESET = {
    "torch.nn.Linear(2, 3)": lambda **where: torch.nn.Linear(2, 3, **where),
    "torch.nn.Linear(2, 3, bias=False)": lambda **where: torch.nn.Linear(2, 3, bias=False, **where),
    "torch.nn.Bilinear(1, 2, 3)": lambda **where: torch.nn.Bilinear(1, 2, 3, **where),
    "torch.nn.Conv2d(2, 3, 2)": lambda **where: torch.nn.Conv2d(2, 3, 2, **where),
    "torch.nn.Embedding(3, 2)": lambda **where: torch.nn.Embedding(3, 2, **where),
    "torch.nn.LayerNorm(3)": lambda **where: torch.nn.LayerNorm(3, **where),
    "torch.nn.BatchNorm1d(3)": lambda **where: torch.nn.BatchNorm1d(3, **where),
    "torch.nn.GroupNorm(1, 3)": lambda **where: torch.nn.GroupNorm(1, 3, **where),
    "torch.nn.LSTM(2, 3)": lambda **where: torch.nn.LSTM(2, 3, **where),
    "torch.nn.GRUCell(2, 3)": lambda **where: torch.nn.GRUCell(2, 3, **where),
}


@claim(cites=["autograd_mechanics/init-relies-on-no-grad"], needs=["random"])
@given(layers=some_of(RESET, 4), frozen=st.integers(0, 15), grad=st.sampled_from((None, 3)), enabled=st.booleans())
def spec_resetting_a_layer_keeps_its_parameters(world, layers, frozen, grad, enabled):
    """reset_parameters() of a layer fills its parameters anew in place and unrecorded, in every mode: they are the same
    leaves, frozen or not as before, with the same .grad."""
    for name in layers:
        layer = RESET[name](device=world.device)
        parameters = dict(layer.named_parameters())
        for number, p in enumerate(parameters.values()):
            p.requires_grad_(not frozen >> number & 1)
            p.grad = None if grad is None else torch.full_like(p, grad).detach()
            p.data.fill_(1000)
        before = {key: (p, p.grad, p.data_ptr(), p._version) for key, p in parameters.items()}

        with torch.set_grad_enabled(enabled):
            layer.reset_parameters()

        for number, (key, (p, gradient, address, version)) in enumerate(before.items()):
            same((layer.get_parameter(key) is p, p.data_ptr()), (True, address), why=f"{key} of {name} is the same one")
            same(bool((p < 1000).all()), True, why=f"{key} was filled")
            flags = (p.is_leaf, p.requires_grad, p.grad_fn, p.grad is gradient)
            same(flags, (True, not frozen >> number & 1, None, True), why="nothing was recorded")
            same(p._version > version, True, why="a change in place is counted")
