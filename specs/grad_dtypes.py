"""Gradient dtypes: that of the leaf, or another one that was asked for with grad_dtype."""

import copy

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import claim, raises, same, values

FLOATS = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
ANY_FLOAT = st.sampled_from(list(FLOATS))
NEEDS = list(FLOATS)
DTYPES = {
    **FLOATS,
    "complex64": torch.complex64,
    "int64": torch.int64,
    "uint8": torch.uint8,
    "bool": torch.bool,
}
SMALL_VALUES = values(dtypes=tuple(FLOATS))

# Functions of x and a constant c whose result has, or passes through, the dtype of c.
MIXTURES = {
    "x * c": lambda x, c: x * c,
    "c * x": lambda x, c: c * x,
    "x.to(c.dtype) * c": lambda x, c: x.to(c.dtype) * c,
    "x.to(c.dtype).to(x.dtype) * c": lambda x, c: x.to(c.dtype).to(x.dtype) * c,
    "torch.where(c == c, x, c) * c": lambda x, c: torch.where(c == c, x.to(c.dtype), c) * c,
    "torch.stack([x.to(c.dtype) * c, c]).sum(0)": lambda x, c: torch.stack([x.to(c.dtype) * c, c]).sum(0),
    "c.clone().mul_(x.to(c.dtype))": lambda x, c: c.clone().mul_(x.to(c.dtype)),
}

# Tensors that operations make of x.
RESULTS = {
    "x * 1": lambda x: x * 1,
    "x[...]": lambda x: x[...],
    "x.clone()": lambda x: x.clone(),
    "x[None].double()": lambda x: x[None].double(),
    "x.unsqueeze(0).unbind()[0]": lambda x: x.unsqueeze(0).unbind()[0],
}

# Tensors made of x that might take over its grad_dtype.
OFFSPRING = {
    "x.detach()": lambda x: x.detach(),
    "x.data": lambda x: x.data,
    "x.detach().clone()": lambda x: x.detach().clone(),
    "torch.ones_like(x)": lambda x: torch.ones_like(x),
    "torch.nn.Parameter(x)": lambda x: torch.nn.Parameter(x),
    "copy.deepcopy(x)": lambda x: copy.deepcopy(x),
}

# What can't be a grad_dtype.
NO_DTYPES = {
    "a number": 3,
    "a name": "float32",
    "a type": float,
    "a tensor type": torch.FloatTensor,
    "True": True,
}


class WithGradient(torch.autograd.Function):
    """The identity, whose backward gives a gradient of ones in another dtype."""

    @staticmethod
    def forward(ctx, x, dtype):
        """Let x pass."""
        ctx.dtype = dtype
        return x.clone()

    @staticmethod
    def backward(ctx, cotangent):
        """Ones in the dtype."""
        return torch.ones(cotangent.shape, dtype=ctx.dtype, device=cotangent.device), None


@claim(
    cites=["torch_tensor/grad-becomes-a-tensor", "torch_tensor/results-that-require-grad-are-not-leaves"],
    needs=NEEDS,
)
@given(v=SMALL_VALUES, other=ANY_FLOAT, mixture=st.sampled_from(list(MIXTURES)), passes=st.integers(1, 2))
def spec_grad_has_the_dtype_of_its_leaf_whatever_the_graph_has(world, v, other, mixture, passes):
    """In a graph of several floating point dtypes the .grad of each leaf has the dtype of that leaf."""
    x = world.leaf(v)
    y = torch.full_like(x, 2, dtype=FLOATS[other]).requires_grad_()
    constant = torch.full_like(x, 2, dtype=FLOATS[other])

    for _ in range(passes):
        (MIXTURES[mixture](x, constant).sum() + (y * 3).sum()).backward()

    same(x.grad, torch.full_like(x, 2 * passes).detach(), why=f"the derivative of {mixture} is c, which is {other}")
    same(y.grad, torch.full_like(y, 3 * passes).detach(), why=f"y is {other}")


@claim(cites=["torch_tensor/grad-becomes-a-tensor"], needs=NEEDS)
@given(v=SMALL_VALUES, gradient=ANY_FLOAT, passes=st.integers(1, 2))
def spec_a_gradient_of_another_dtype_is_cast_to_that_of_its_leaf(world, v, gradient, passes):
    """If the backward of a user's Function gives a gradient of another floating point dtype, it is cast: a hook
    gets it, and .grad has it, in the dtype of the leaf."""
    x = world.leaf(v)
    seen = []
    x.register_hook(lambda grad: seen.append(grad.dtype))

    for _ in range(passes):
        WithGradient.apply(x, FLOATS[gradient]).sum().backward()

    same(seen, [x.dtype] * passes, why=f"the gradient was {gradient} at first")
    same(x.grad, torch.full_like(x, passes).detach(), why="its numbers are those of the gradient")


@claim(cites=["torch_tensor/grad-dtype-is-the-dtype-by-default"], since="2.10", needs=[*NEEDS, "complex64"])
@given(v=values(), dtype=st.sampled_from(list(DTYPES)), parameter=st.booleans(), required=st.booleans())
def spec_grad_dtype_is_the_dtype_unless_set(world, v, dtype, parameter, required):
    """The grad_dtype of a leaf is the leaf's own dtype, whatever that is, unless it was set."""
    x = world.constant(v).to(DTYPES[dtype])
    if x.is_floating_point() or x.is_complex():
        x.requires_grad_(required)
    if parameter:
        x = torch.nn.Parameter(x, requires_grad=x.requires_grad)

    same(x.grad_dtype, DTYPES[dtype], why=f"its dtype is {dtype}")


@claim(
    cites=["torch_tensor/gradients-are-cast-to-grad-dtype", "torch_tensor/grad-dtype-can-be-set"],
    since="2.10",
    needs=NEEDS,
)
@given(
    v=SMALL_VALUES,
    chosen=ANY_FLOAT,
    passes=st.integers(1, 3),
    create_graph=st.booleans(),
    moment=st.sampled_from(["before requires_grad", "before forward", "before backward"]),
    parameter=st.booleans(),
    named=st.booleans(),
)
def spec_gradients_are_cast_to_grad_dtype(world, v, chosen, passes, create_graph, moment, parameter, named):
    """Once grad_dtype of a leaf is set, .grad has that dtype: backward casts each gradient before it adds it up.
    The leaf and the gradients of others keep theirs."""
    x, other = world.constant(v), world.leaf(v)
    x, dtype = torch.nn.Parameter(x, requires_grad=False) if parameter else x, x.dtype

    if moment == "before requires_grad":
        x.grad_dtype = FLOATS[chosen]
    x.requires_grad_()
    if moment == "before forward":
        x.grad_dtype = FLOATS[chosen]
    loss = (x * 2).sum() + (other * 3).sum()
    if moment == "before backward":
        x.grad_dtype = FLOATS[chosen]
    for _ in range(passes):
        loss.backward(retain_graph=True, create_graph=create_graph, inputs=[other, x] if named else None)

    same([x.grad_dtype, x.dtype], [FLOATS[chosen], dtype], why=f"grad_dtype was set {moment}")
    expected = torch.full_like(x, 2 * passes, dtype=FLOATS[chosen]).detach()
    same(x.grad.detach(), expected, why=f"{passes} gradients of sum(2x) were cast to {chosen}")
    same(other.grad.detach(), torch.full_like(other, 3 * passes).detach(), why="its grad_dtype was not set")


@claim(cites=["torch_tensor/gradients-are-cast-to-grad-dtype"], since="2.10", needs=NEEDS)
@given(v=SMALL_VALUES, chosen=ANY_FLOAT, gradient=ANY_FLOAT)
def spec_hooks_and_grad_give_gradients_in_grad_dtype(world, v, chosen, gradient):
    """Hooks on a leaf whose grad_dtype is set get its gradient in that dtype, and torch.autograd.grad gives it in
    that dtype, too."""
    x = world.leaf(v)
    x.grad_dtype = FLOATS[chosen]
    seen = []
    x.register_hook(lambda grad: seen.append(grad.dtype))
    x.register_post_accumulate_grad_hook(lambda leaf: seen.append(leaf.grad.dtype))

    WithGradient.apply(x, FLOATS[gradient]).sum().backward()
    same(seen, [FLOATS[chosen]] * 2, why=f"the gradient, {gradient} at first, is cast before hooks see it")

    (given,) = torch.autograd.grad((x * 2).sum(), [x])
    same(given, torch.full_like(x, 2, dtype=FLOATS[chosen]).detach(), why=f"grad_dtype is {chosen}")


@claim(cites=["torch_tensor/gradients-are-cast-to-grad-dtype"], since="2.10", needs=["float16", "bfloat16"])
@given(half=st.sampled_from(["float16", "bfloat16"]), v=values(dtypes=("float32",)), passes=st.integers(2, 5))
def spec_a_wider_grad_dtype_keeps_what_the_leaf_cannot_hold(world, half, v, passes):
    """Gradients add up in grad_dtype, not in the dtype of the leaf: a sum that the leaf's dtype can't represent is
    exact in a wider one."""
    x = world.constant(v).to(FLOATS[half]).requires_grad_()
    x.grad_dtype = torch.float32

    for _ in range(passes):
        (x * 2048).sum().backward()
        x.sum().backward()

    expected = torch.full_like(x, 2049 * passes, dtype=torch.float32).detach()
    same(x.grad, expected, why=f"2049 is no number of {half}, which lacks the digits")


@claim(cites=["torch_tensor/grad-dtype-none-takes-any"], since="2.10", needs=NEEDS)
@given(v=SMALL_VALUES, gradient=ANY_FLOAT, later=ANY_FLOAT)
def spec_without_a_grad_dtype_gradients_keep_their_own(world, v, gradient, later):
    """If grad_dtype of a leaf is None, the first gradient becomes .grad in the dtype in which it came; later
    ones are added to that."""
    x = world.leaf(v)
    x.grad_dtype = None

    WithGradient.apply(x, FLOATS[gradient]).sum().backward()
    same(x.grad, torch.ones_like(x, dtype=FLOATS[gradient]).detach(), why=f"the gradient was {gradient}")

    WithGradient.apply(x, FLOATS[later]).sum().backward()
    expected = torch.full_like(x, 2, dtype=FLOATS[gradient]).detach()
    same(x.grad, expected, why=f"a gradient of {later} was added in place")
    same(x.grad_dtype, None, why="it stays as it was set")


@claim(
    cites=["torch_tensor/grad-dtype-is-what-grad-may-have", "torch_tensor/grad-dtype-none-takes-any"],
    since="2.10",
    needs=[*NEEDS, "complex64"],
)
@given(
    v=SMALL_VALUES,
    chosen=st.one_of(st.none(), ANY_FLOAT),
    put=st.sampled_from(list(DTYPES)),
    required=st.booleans(),
)
def spec_grad_takes_tensors_of_grad_dtype_only(world, v, chosen, put, required):
    """.grad can be set to a tensor of the leaf's grad_dtype, and to one of any dtype if that is None. A tensor of
    another dtype, be it the leaf's own, is refused with an error, and .grad stays as it was."""
    x = world.constant(v).requires_grad_(required)
    x.grad_dtype = None if chosen is None else FLOATS[chosen]
    x.grad = old = torch.ones_like(x, dtype=FLOATS.get(chosen or put, x.dtype)).detach()
    new = torch.ones(x.shape, dtype=DTYPES[put], device=x.device)

    if chosen in (None, put):
        x.grad = new
        same(x.grad is new, True, why=f"grad_dtype is {chosen}, and it is {put}")
    else:
        with raises(RuntimeError, "grad_dtype", why=f"grad_dtype is {chosen}, and it is {put}"):
            x.grad = new
        same(x.grad is old, True, why="it was not taken")

    x.grad = None
    same([x.grad, x.grad_dtype], [None, None if chosen is None else FLOATS[chosen]], why=".grad can be cleared")


@claim(cites=["torch_tensor/grad-dtype-can-be-set"], since="2.10", needs=NEEDS)
@given(v=SMALL_VALUES, other=ANY_FLOAT, passes=st.integers(0, 2))
def spec_grad_dtype_cannot_be_set_against_a_grad_that_is_there(world, v, other, passes):
    """While a leaf has a .grad, its grad_dtype can be set to the dtype of that, or to None. To set it to another dtype
    raises an error that tells to clear .grad, and changes nothing; then it can be set."""
    x = world.leaf(v)
    for _ in range(passes):
        (x * 2).sum().backward()
    old = x.grad

    if passes and FLOATS[other] != x.dtype:
        with raises(RuntimeError, ".grad = None", why=f".grad is there, and it is not {other}"):
            x.grad_dtype = FLOATS[other]
        same([x.grad_dtype, x.grad is old], [x.dtype, True], why="nothing was changed")
        x.grad_dtype = None
        same(old, torch.full_like(x, 2 * passes).detach(), why="its dtype may be any now")
        x.grad = None
    x.grad_dtype = FLOATS[other]

    (x * 3).sum().backward()
    expected = (2 * passes if FLOATS[other] == x.dtype else 0) + 3
    same(x.grad, torch.full_like(x, expected, dtype=FLOATS[other]).detach(), why=f"grad_dtype is {other}")


@claim(cites=["torch_tensor/grad-dtype-can-be-set"], since="2.10")
@given(v=SMALL_VALUES, wrong=st.sampled_from(list(NO_DTYPES)), chosen=st.one_of(st.none(), ANY_FLOAT))
def spec_grad_dtype_takes_dtypes_and_none_only(world, v, wrong, chosen):
    """Setting grad_dtype to anything but a dtype or None raises an error and leaves it as it was."""
    x = world.leaf(v)
    x.grad_dtype = None if chosen is None else FLOATS[chosen]

    with raises(RuntimeError, "torch.dtype or None", why=f"{wrong} is no dtype"):
        x.grad_dtype = NO_DTYPES[wrong]

    same(x.grad_dtype, None if chosen is None else FLOATS[chosen], why="it was refused")


@claim(cites=["torch_tensor/grad-dtype-is-for-leaves"], since="2.10", needs=["float64"])
@given(
    v=SMALL_VALUES,
    chosen=st.one_of(st.none(), ANY_FLOAT),
    result=st.sampled_from(list(RESULTS)),
)
def spec_grad_dtype_of_a_result_cannot_be_set(world, v, chosen, result):
    """To set grad_dtype of a tensor that is no leaf raises an error, and its gradients are those of its own dtype;
    a leaf that it was made of has its own grad_dtype."""
    x = world.leaf(v)
    x.grad_dtype = torch.float32
    y = RESULTS[result](x)

    with raises(RuntimeError, "leaf", why=f"it is {result}"):
        y.grad_dtype = None if chosen is None else FLOATS[chosen]

    y.retain_grad()
    (y * 2).sum().backward()
    same(y.grad, torch.full_like(y, 2).detach(), why="it was refused")
    same(x.grad, torch.full_like(x, 2, dtype=torch.float32).detach(), why="the leaf's was set")


@claim(cites=["torch_tensor/grad-dtype-of-results-can-be-read"], since="2.15", needs=NEEDS)
@given(v=SMALL_VALUES, chosen=ANY_FLOAT, other=ANY_FLOAT)
def spec_grad_dtype_of_a_result_is_its_dtype(world, v, chosen, other):
    """The grad_dtype of what an operation made is the dtype of that, whatever grad_dtype the leaves have."""
    x = world.leaf(v)
    x.grad_dtype = FLOATS[chosen]

    same((x * 1).grad_dtype, x.dtype, why="the product has the dtype of x")
    same((x.to(FLOATS[other]) * 1).grad_dtype, FLOATS[other], why=f"the product is {other}")


@claim(cites=["torch_tensor/grad-dtype-of-results-can-be-read"], since="2.10", until="2.15")
@given(v=SMALL_VALUES, chosen=ANY_FLOAT)
def spec_grad_dtype_of_a_result_cannot_be_read(world, v, chosen):
    """To read grad_dtype of a tensor that is no leaf raises an error."""
    x = world.leaf(v)
    x.grad_dtype = FLOATS[chosen]
    y = x * 1

    with raises(RuntimeError, "leaf", why="it is no leaf"):
        y.grad_dtype  # noqa: B018

    same(x.grad_dtype, FLOATS[chosen], why="x is one")


@claim(observed=True, since="2.10")
@given(v=SMALL_VALUES, chosen=st.one_of(st.none(), ANY_FLOAT), offspring=st.sampled_from(list(OFFSPRING)))
def spec_copies_do_not_take_over_grad_dtype(world, v, chosen, offspring):
    """grad_dtype belongs to the tensor on which it was set: not even a deep copy has it. It outlives
    requires_grad and .grad of its tensor."""
    x = world.leaf(v)
    x.grad_dtype = None if chosen is None else FLOATS[chosen]

    same(OFFSPRING[offspring](x).grad_dtype, x.dtype, why=f"{offspring} is another tensor than x")
    x.requires_grad_(False)
    x.grad = None
    x.requires_grad_()
    same(x.grad_dtype, None if chosen is None else FLOATS[chosen], why="nobody set it to something else")


@claim(cites=["torch_tensor/gradients-are-cast-to-grad-dtype"], observed=True, since="2.10")
@given(v=SMALL_VALUES, dtype=st.sampled_from(["int64", "uint8", "bool"]), passes=st.integers(1, 2))
def spec_grad_dtype_takes_integers_but_backward_does_not(world, v, dtype, passes):
    """grad_dtype can be set to a dtype of integers or booleans, and then each backward that comes to the leaf
    raises an error. Set back, it lets the next one through."""
    x = world.leaf(v)
    x.grad_dtype = DTYPES[dtype]

    for _ in range(passes):
        with raises(RuntimeError, why=f"no gradient can be {dtype}"):
            (x * 2).sum().backward()
        same(x.grad, None, why="nothing came to it")
    x.grad_dtype = x.dtype
    (x * 2).sum().backward()
    same(x.grad, torch.full_like(x, 2).detach(), why="the gradient of sum(2x) is 2")
