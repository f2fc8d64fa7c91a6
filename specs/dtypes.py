"""Dtypes: a gradient has the dtype of the tensor that it belongs to, whatever was computed in between."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from .kit import SHAPES, SMALL_DTYPES, claim, same, values, values_that_broadcast
from .kit.tensors import counting

COMPUTING = ("float64", "float32", "bfloat16")  # in float16 older releases compute little on the CPU
NOT_EMPTY = tuple(shape for shape in SHAPES if 0 not in shape)
FLOATING = st.sampled_from(COMPUTING)
NEEDS = ["float64", "bfloat16"]

# Ways to cast a tensor.
CASTS = {
    "x.double()": lambda x: x.double(),
    "x.float()": lambda x: x.float(),
    "x.half()": lambda x: x.half(),
    "x.bfloat16()": lambda x: x.bfloat16(),
    "x.to(torch.float64)": lambda x: x.to(torch.float64),
    "x.type(torch.float32)": lambda x: x.type(torch.float32),
    "x.to(torch.bfloat16, copy=True)": lambda x: x.to(torch.bfloat16, copy=True),
    "x.to(torch.ones((), dtype=torch.float16))": lambda x: x.to(torch.ones((), dtype=torch.float16, device=x.device)),
}

# Operations on two tensors that broadcast, with their derivatives by each of them.
MIXED = {
    "x + y": (lambda x, y: x + y, lambda x, y: (1, 1)),
    "x - y": (lambda x, y: x - y, lambda x, y: (1, -1)),
    "x * y": (lambda x, y: x * y, lambda x, y: (y, x)),
    "torch.add(x, y, alpha=3)": (lambda x, y: torch.add(x, y, alpha=3), lambda x, y: (1, 3)),
    "torch.addcmul(x, x, y)": (lambda x, y: torch.addcmul(x, x, y), lambda x, y: (1 + y, x)),
    "torch.where(x > 0, x, y)": (lambda x, y: torch.where(x > 0, x, y), lambda x, y: (x > 0, x <= 0)),
    "torch.maximum(x, y + 9)": (lambda x, y: torch.maximum(x, y + 9), lambda x, y: (0, 1)),
    "torch.cat([x, y], -1)": (
        lambda x, y: torch.cat([t.flatten() for t in torch.broadcast_tensors(x, y)]),
        lambda x, y: (1, 1),
    ),
    "torch.stack([x, y])": (lambda x, y: torch.stack(torch.broadcast_tensors(x, y)), lambda x, y: (1, 1)),
}

# Operations on a tensor and one of integers or booleans, with the derivative by the first.
WITH_INTEGERS = {
    "x + n": (lambda x, n: x + n, lambda n: torch.ones_like(n)),
    "x * n": (lambda x, n: x * n, lambda n: n),
    "n * x": (lambda x, n: n * x, lambda n: n),
    "x.mul(n).neg()": (lambda x, n: x.mul(n).neg(), lambda n: -n.long()),
    "torch.addcmul(x, x, n)": (lambda x, n: torch.addcmul(x, x, n.to(x)), lambda n: 1 + n.long()),
    "torch.where(n > 0, x, n)": (lambda x, n: torch.where(n > 0, x, n), lambda n: n > 0),
    "x.masked_fill(n > 0, 5)": (lambda x, n: x.masked_fill(n > 0, 5), lambda n: n <= 0),
}

# Reductions that compute in a dtype of their own.
REDUCTIONS = {
    "x.sum(dtype=d)": lambda x, d: x.sum(dtype=d),
    "x.sum((), dtype=d)": lambda x, d: x.sum((), dtype=d),
    "x.flatten().sum(0, dtype=d)": lambda x, d: x.flatten().sum(0, dtype=d),
    "x.flatten().cumsum(0, dtype=d)[-1]": lambda x, d: x.flatten().cumsum(0, dtype=d)[-1],
    "torch.nansum(x, dtype=d)": lambda x, d: torch.nansum(x, dtype=d),
}

# Ways to write a tensor x into zeros y of another dtype, and how often x counts in the result.
WRITES = {
    "y.copy_(x)": (lambda y, x: y.copy_(x), 1),
    "y[...] = x": (lambda y, x: y.__setitem__(..., x), 1),
    "y.add_(x, alpha=2)": (lambda y, x: y.add_(x, alpha=2), 2),
    "y.sub_(x)": (lambda y, x: y.sub_(x), -1),
}

# Real functions of a real tensor by way of complex numbers, with their derivatives.
BY_COMPLEX_NUMBERS = {
    "(x * (1 + 2j)).real": (lambda x: (x * (1 + 2j)).real, lambda x: 1),
    "(x * (1 + 2j)).imag": (lambda x: (x * (1 + 2j)).imag, lambda x: 2),
    "(x * 1j * (x * 1j)).real": (lambda x: (x * 1j * (x * 1j)).real, lambda x: -2 * x),
    "((x + 2j) * (x - 2j)).real": (lambda x: ((x + 2j) * (x - 2j)).real, lambda x: 2 * x),
    "((x + 2j) * 3j).conj().imag": (lambda x: ((x + 2j) * 3j).conj().imag, lambda x: -3),
    "torch.complex(x, x * 3).imag": (lambda x: torch.complex(x, x * 3).imag, lambda x: 3),
    "torch.view_as_complex(torch.stack([x, 2 * x], -1)).imag": (
        lambda x: torch.view_as_complex(torch.stack([x, 2 * x], -1)).imag,
        lambda x: 2,
    ),
    "torch.view_as_real(x * 1j)[..., 1]": (lambda x: torch.view_as_real(x * 1j)[..., 1], lambda x: 1),
    "(x.to(torch.complex128) * 1j).imag": (lambda x: (x.to(torch.complex128) * 1j).imag, lambda x: 1),
    "torch.stack([x, x * 1j]).imag": (lambda x: torch.stack([x, x * 1j]).imag.sum(0), lambda x: 1),
}


@claim(
    cites=["torch_tensor/grad-has-the-dtype-of-the-tensor", "torch_autograd/only-floating-point-and-complex"],
    needs=[*NEEDS, "float16"],
)
@given(v=values(dtypes=SMALL_DTYPES), casts=st.lists(st.sampled_from(list(CASTS)), min_size=1, max_size=4))
def spec_a_cast_takes_the_gradient_back_to_the_dtype_that_it_came_from(world, v, casts):
    """A cast between floating dtypes is recorded. Backward casts the gradient back: the gradient by each tensor on
    the way has the dtype of this tensor."""
    steps = [world.leaf(v)]
    for cast in casts:
        steps.append(CASTS[cast](steps[-1]))

    got = torch.autograd.grad(steps[-1], steps, counting(steps[-1]), retain_graph=True)
    steps[-1].backward(counting(steps[-1]))

    for step, gradient in zip(steps, got, strict=True):
        same(gradient, counting(step), why=f"the tensor is {step.dtype}")
    same(steps[0].grad, counting(steps[0]), why=f"the leaf is {steps[0].dtype}")


@claim(cites=["torch_tensor/grad-has-the-dtype-of-the-tensor"], needs=NEEDS)
@given(
    pair=values_that_broadcast(2),
    dtypes=st.tuples(FLOATING, FLOATING),
    operation=st.sampled_from(list(MIXED)),
)
def spec_operands_of_different_dtypes_get_gradients_of_their_own(world, pair, dtypes, operation):
    """An operation on tensors of two dtypes computes in the one that they are promoted to; each operand gets a
    gradient of its own dtype and shape."""
    f, derivatives = MIXED[operation]
    x, y = (world.constant(v).to(getattr(torch, d)).requires_grad_() for v, d in zip(pair, dtypes, strict=True))
    z = f(x, y)

    z.backward(torch.full_like(z, 2))

    shape = torch.broadcast_shapes(x.shape, y.shape)
    for operand, derivative in zip([x, y], derivatives(x.detach(), y.detach()), strict=True):
        whole = torch.full(shape, 2.0, device=world.device) * derivative
        expected = whole.sum_to_size(operand.shape).to(operand.dtype)
        same(operand.grad, expected, why=f"{operation} of {x.dtype} and {y.dtype}, in shape {tuple(shape)}")


@claim(cites=["torch_tensor/grad-has-the-dtype-of-the-tensor"], needs=NEEDS)
@given(v=values(dtypes=COMPUTING), casts=st.lists(st.sampled_from(list(CASTS)), min_size=1, max_size=4))
def spec_uses_of_a_leaf_in_other_dtypes_add_up_in_its_own(world, v, casts):
    """If a leaf is used in several dtypes, the gradients of all uses are added up in the leaf's dtype."""
    x = world.leaf(v)
    uses = [CASTS[cast](x) * (number + 1) for number, cast in enumerate(casts)]

    sum(use.float().sum() for use in uses).backward()

    same(x.grad, torch.full_like(x, sum(range(len(casts) + 1))), why=f"the uses count 1 to {len(casts)}")


@claim(cites=["torch_autograd/only-floating-point-and-complex"])
@given(
    v=values(dtypes=COMPUTING),
    number=st.integers(0, 3),
    dtype=st.sampled_from(["int64", "int32", "uint8", "bool"]),
    operation=st.sampled_from(list(WITH_INTEGERS)),
)
def spec_integers_and_booleans_are_constants_for_autograd(world, v, number, dtype, operation):
    """Tensors of integers or booleans may be operands beside one that requires grad: that one gets its gradient, and
    they get none."""
    f, derivative = WITH_INTEGERS[operation]
    x = world.leaf(v)
    n = (torch.arange(x.numel(), device=world.device) + number).remainder(3).reshape(x.shape).to(getattr(torch, dtype))
    y = f(x, n)

    y.backward(torch.full_like(y, 3))

    expected = derivative(n).to(x.dtype) * 3
    same(x.grad, expected, why=f"{operation} with n = {n.tolist()}, and 3 was passed")
    same((n.requires_grad, n.grad, y.dtype), (False, None, x.dtype), why="n is a constant")


@claim(cites=["torch_tensor/grad-has-the-dtype-of-the-tensor"], needs=NEEDS)
@given(v=values(shapes=NOT_EMPTY, dtypes=COMPUTING), dtype=FLOATING, reduction=st.sampled_from(list(REDUCTIONS)))
def spec_a_reduction_in_another_dtype_gives_a_gradient_in_that_of_its_input(world, v, dtype, reduction):
    """A reduction that is asked to compute in another dtype gives a result of that dtype, and backward gives the
    input a gradient of the input's dtype."""
    x = world.leaf(v)
    y = REDUCTIONS[reduction](x, getattr(torch, dtype))

    y.backward(torch.full_like(y, 3))

    same(y.dtype, getattr(torch, dtype), why="it was asked for")
    same(x.grad, torch.full_like(x, 3), why=f"{reduction} with d = {dtype} is a sum")


@claim(cites=["torch_tensor/grad-has-the-dtype-of-the-tensor"], needs=[*NEEDS, "in-place"])
@given(v=values(dtypes=COMPUTING), dtype=FLOATING, write=st.sampled_from(list(WRITES)))
def spec_a_tensor_written_into_one_of_another_dtype_gets_a_gradient_of_its_own(world, v, dtype, write):
    """What is written in place into a tensor of another dtype is cast, and the gradient is cast back on its way."""
    do, factor = WRITES[write]
    x = world.leaf(v)
    y = torch.zeros(x.shape, dtype=getattr(torch, dtype), device=world.device)

    do(y, x)
    y.backward(counting(y))

    same(y.dtype, getattr(torch, dtype), why="writing changes no dtype")
    same(x.grad, counting(x) * factor, why=f"{write}, from {x.dtype} into {y.dtype}")


@claim(cites=["torch_autograd/only-floating-point-and-complex"], needs=["in-place"])
@given(v=values(), dtype=st.sampled_from(["int64", "uint8", "bool"]), indexed=st.booleans())
def spec_writing_into_integers_records_nothing(world, v, dtype, indexed):
    """A tensor of integers or booleans takes the values of one that requires grad, and doesn't require grad itself."""
    x = world.leaf(v)
    n = torch.zeros(x.shape, dtype=getattr(torch, dtype), device=world.device)

    if indexed:
        n[...] = x.abs()
    else:
        n.copy_(x.abs())

    same(n, x.detach().abs().to(n.dtype), why="these values were written")
    same((n.requires_grad, n.is_leaf, n.grad_fn), (False, True, None), why=f"{dtype} can't require grad")


@claim(observed=True, needs=["bfloat16"])
@given(v=values(dtypes=("bfloat16",)), steps=st.integers(1, 3))
def spec_gradients_accumulate_in_the_precision_of_the_leaf(world, v, steps):
    """Gradients are added up in the dtype of the leaf: a bfloat16 leaf that has 256 in its .grad still has 256 after
    1 was added to it, however often, since 257 is no number of this dtype."""
    x = world.leaf(v)
    x.grad = torch.full_like(x, 256)

    for _ in range(steps):
        x.sum().backward()

    same(x.grad, torch.full_like(x, 256), why="256 + 1 is rounded to 256 in bfloat16")


@claim(
    cites=["autograd_mechanics/real-inputs-get-real-gradients", "torch_autograd/only-floating-point-and-complex"],
    needs=["float64", "complex64", "complex128"],
)
@given(v=values(), function=st.sampled_from(list(BY_COMPLEX_NUMBERS)))
def spec_a_real_tensor_gets_a_real_gradient_from_complex_numbers(world, v, function):
    """A real tensor that complex numbers are computed from gets a real gradient: the real part of what comes back,
    and that is the derivative of the real function that it is all in all."""
    f, derivative = BY_COMPLEX_NUMBERS[function]
    x = world.leaf(v)
    y = f(x)

    y.backward(counting(y))

    same(x.grad, counting(x) * derivative(x.detach()), why=f"the derivative of {function}")
