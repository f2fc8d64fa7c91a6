"""Writes in place that several chapters draw from, each named by its code.

Each is elementwise, so its derivative is a matter of a line; the numbers stay exact.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from hypothesis import strategies as st

from .values import LAYOUTS, SHAPES, WRITABLE, Values, filled, forms


class Write(NamedTuple):
    """A write of y, with w where it takes another tensor, and what it is in terms of the numbers before."""

    run: Callable[..., Any]
    numbers: Callable[..., torch.Tensor]  # what y holds afterwards
    by_y: Callable[..., Any]  # the derivative of each of them by the number of y that was there
    by_w: Callable[..., Any] | None = None  # and by that of w; None if w isn't used


WRITES = {
    "y.add_(w)": Write(lambda y, w: y.add_(w), lambda y, w: y + w, lambda y, w: 1, lambda y, w: 1),
    "y.add_(w, alpha=3)": Write(
        lambda y, w: y.add_(w, alpha=3), lambda y, w: y + 3 * w, lambda y, w: 1, lambda y, w: 3
    ),
    "y.sub_(w)": Write(lambda y, w: y.sub_(w), lambda y, w: y - w, lambda y, w: 1, lambda y, w: -1),
    "y.mul_(w)": Write(lambda y, w: y.mul_(w), lambda y, w: y * w, lambda y, w: w, lambda y, w: y),
    "y.copy_(w)": Write(lambda y, w: y.copy_(w), lambda y, w: 0 * y + w, lambda y, w: 0, lambda y, w: 1),
    "y.lerp_(w, 3.0)": Write(
        lambda y, w: y.lerp_(w.expand(y.shape), 3.0), lambda y, w: 3 * w - 2 * y, lambda y, w: -2, lambda y, w: 3
    ),
    "y.addcmul_(w, w, value=2)": Write(
        lambda y, w: y.addcmul_(w, w, value=2), lambda y, w: y + 2 * w * w, lambda y, w: 1, lambda y, w: 4 * w
    ),
    "y[...] = w": Write(lambda y, w: y.__setitem__(..., w), lambda y, w: 0 * y + w, lambda y, w: 0, lambda y, w: 1),
    "y += w": Write(lambda y, w: y.__iadd__(w), lambda y, w: y + w, lambda y, w: 1, lambda y, w: 1),
    "y -= w": Write(lambda y, w: y.__isub__(w), lambda y, w: y - w, lambda y, w: 1, lambda y, w: -1),
    "y *= w": Write(lambda y, w: y.__imul__(w), lambda y, w: y * w, lambda y, w: w, lambda y, w: y),
    # with itself
    "y.add_(y, alpha=2)": Write(lambda y, w: y.add_(y, alpha=2), lambda y, w: 3 * y, lambda y, w: 3),
    "y.sub_(y)": Write(lambda y, w: y.sub_(y), lambda y, w: 0 * y, lambda y, w: 0),
    "y.copy_(y)": Write(lambda y, w: y.copy_(y), lambda y, w: y, lambda y, w: 1),
    # with numbers
    "y.add_(1)": Write(lambda y, w: y.add_(1), lambda y, w: y + 1, lambda y, w: 1),
    "y.mul_(-2)": Write(lambda y, w: y.mul_(-2), lambda y, w: -2 * y, lambda y, w: -2),
    "y.div_(0.5)": Write(lambda y, w: y.div_(0.5), lambda y, w: 2 * y, lambda y, w: 2),
    "y.pow_(3)": Write(lambda y, w: y.pow_(3), lambda y, w: y * y * y, lambda y, w: 3 * y * y),
    "y.fill_(3)": Write(lambda y, w: y.fill_(3), lambda y, w: torch.full_like(y, 3), lambda y, w: 0),
    "y.remainder_(5)": Write(
        lambda y, w: y.remainder_(5), lambda y, w: y - 5 * torch.div(y, 5, rounding_mode="floor"), lambda y, w: 1
    ),
    "y.clamp_(-2.5, 2.5)": Write(
        lambda y, w: y.clamp_(-2.5, 2.5),
        lambda y, w: torch.where(y.abs() > 2.5, 2.5 * y.sign(), y),
        lambda y, w: (y.abs() < 2.5).to(y.dtype),
    ),
    "y.clamp_(min=-0.5)": Write(
        lambda y, w: y.clamp_(min=-0.5),
        lambda y, w: torch.where(y < 0, 0 * y - 0.5, y),
        lambda y, w: (y >= 0).to(y.dtype),
    ),
    "y += 1": Write(lambda y, w: y.__iadd__(1), lambda y, w: y + 1, lambda y, w: 1),
    "y -= 1": Write(lambda y, w: y.__isub__(1), lambda y, w: y - 1, lambda y, w: 1),
    "y *= 2": Write(lambda y, w: y.__imul__(2), lambda y, w: 2 * y, lambda y, w: 2),
    "y /= 2": Write(lambda y, w: y.__itruediv__(2), lambda y, w: y / 2, lambda y, w: 0.5),
    "y **= 2": Write(lambda y, w: y.__ipow__(2), lambda y, w: y * y, lambda y, w: 2 * y),
    "y[...] = 3": Write(lambda y, w: y.__setitem__(..., 3), lambda y, w: torch.full_like(y, 3), lambda y, w: 0),
    # with a mask
    "y.masked_fill_(y > 0, 2)": Write(
        lambda y, w: y.masked_fill_(y > 0, 2),
        lambda y, w: torch.where(y > 0, torch.full_like(y, 2), y),
        lambda y, w: (y <= 0).to(y.dtype),
    ),
    "y[y > 0] = 2": Write(
        lambda y, w: y.__setitem__(y > 0, 2),
        lambda y, w: torch.where(y > 0, torch.full_like(y, 2), y),
        lambda y, w: (y <= 0).to(y.dtype),
    ),
    "y[y > 9] = 2": Write(
        lambda y, w: y.__setitem__(y > 9, 2),
        lambda y, w: torch.where(y > 9, torch.full_like(y, 2), y),
        lambda y, w: (y <= 9).to(y.dtype),
    ),
    # of y alone
    "y.neg_()": Write(lambda y, w: y.neg_(), lambda y, w: -y, lambda y, w: -1),
    "y.square_()": Write(lambda y, w: y.square_(), lambda y, w: y * y, lambda y, w: 2 * y),
    "torch.square_(y)": Write(lambda y, w: torch.square_(y), lambda y, w: y * y, lambda y, w: 2 * y),
    "y.abs_()": Write(lambda y, w: y.abs_(), lambda y, w: torch.where(y < 0, -y, y), lambda y, w: y.sign()),
    "y.relu_()": Write(
        lambda y, w: y.relu_(), lambda y, w: torch.where(y < 0, 0 * y, y), lambda y, w: (y > 0).to(y.dtype)
    ),
    "torch.nn.functional.relu(y, inplace=True)": Write(
        lambda y, w: torch.nn.functional.relu(y, inplace=True),
        lambda y, w: torch.where(y < 0, 0 * y, y),
        lambda y, w: (y > 0).to(y.dtype),
    ),
    "torch.nn.functional.leaky_relu(y, 2.0, inplace=True)": Write(
        lambda y, w: torch.nn.functional.leaky_relu(y, 2.0, inplace=True),
        lambda y, w: torch.where(y < 0, 2 * y, y),
        lambda y, w: 2 - (y > 0).to(y.dtype),
    ),
    "torch.nn.functional.threshold(y, 0, 7, inplace=True)": Write(
        lambda y, w: torch.nn.functional.threshold(y, 0, 7, inplace=True),
        lambda y, w: torch.where(y > 0, y, torch.full_like(y, 7)),
        lambda y, w: (y > 0).to(y.dtype),
    ),
    "y.zero_()": Write(lambda y, w: y.zero_(), lambda y, w: 0 * y, lambda y, w: 0),
    "y.sign_()": Write(lambda y, w: y.sign_(), lambda y, w: y.sign(), lambda y, w: 0),
    "y.floor_()": Write(lambda y, w: y.floor_(), lambda y, w: torch.floor(y), lambda y, w: 0),
    "y.nan_to_num_()": Write(lambda y, w: y.nan_to_num_(), lambda y, w: y, lambda y, w: 1),
}
# Those after which another write does no harm: relu_ saves its result, and clamp_ leaves y where it has a kink.
FOLLOWED = [name for name in WRITES if "relu" not in name and "clamp" not in name]

# Writes of tensors of any shape whose numbers are of no interest.
FURTHER_WRITES = {
    "y.sin_()": lambda y: y.sin_(),
    "y.exp_()": lambda y: y.exp_(),
    "y.sqrt_()": lambda y: y.sqrt_(),
    "y.reciprocal_()": lambda y: y.reciprocal_(),
    "y.round_()": lambda y: y.round_(),
    "y.fmod_(3)": lambda y: y.fmod_(3),
    "y.hypot_(y)": lambda y: y.hypot_(y),
    "y.eq_(1)": lambda y: y.eq_(1),
    "y.cumsum_(0)": lambda y: y.cumsum_(0),
    "y.scatter_(0, torch.zeros_like(y, dtype=torch.int64), 2)": lambda y: y.scatter_(
        0, torch.zeros_like(y, dtype=torch.int64), 2
    ),
    "y.scatter_add_(0, torch.zeros_like(y, dtype=torch.int64), y.detach().clone())": lambda y: y.scatter_add_(
        0, torch.zeros_like(y, dtype=torch.int64), y.detach().clone()
    ),
    "y.masked_scatter_(y > 0, y.detach().clone())": lambda y: y.masked_scatter_(y > 0, y.detach().clone()),
    "y[...] += 1": lambda y: y[...].add_(1),
    "torch.nn.functional.hardtanh(y, inplace=True)": lambda y: torch.nn.functional.hardtanh(y, inplace=True),
    "torch.sin_(y)": lambda y: torch.sin_(y),
    "y.unsqueeze_(0)": lambda y: y.unsqueeze_(0),
    "y.squeeze_()": lambda y: y.squeeze_(),
    "y.transpose_(0, -1)": lambda y: y.transpose_(0, -1),
    "y.normal_(2, 0)": lambda y: y.normal_(2, 0),
    "y.uniform_(2, 2)": lambda y: y.uniform_(2, 2),
    "y.bernoulli_(0.5)": lambda y: y.bernoulli_(0.5),
    "y.exponential_()": lambda y: y.exponential_(),
    "y.random_(3)": lambda y: y.random_(3),
}

# Tensors that share their memory with y.
ALIASES = {
    "y[...]": lambda y: y[...],
    "y.view(y.shape)": lambda y: y.view(y.shape),
    "y.unsqueeze(0)": lambda y: y.unsqueeze(0),
    "y.transpose(0, -1)": lambda y: y.transpose(0, -1),
    "y.detach()": lambda y: y.detach(),
    "y.detach()[...]": lambda y: y.detach()[...],
    "y[...].detach()": lambda y: y[...].detach(),
    "y.expand(2, *y.shape)[1]": lambda y: y.expand(2, *y.shape)[1],
    "y.unbind(0)[0] if y.dim() else y": lambda y: y.unbind(0)[0] if y.dim() else y,
    "torch.no_grad()(y.view)(y.shape)": lambda y: torch.no_grad()(y.view)(y.shape),
}
FILLED = tuple(shape for shape in SHAPES if 0 not in shape)


def facts(y):
    """What a write would change in a tensor, apart from its numbers."""
    return y._version, y.grad_fn, y.requires_grad, y.is_leaf, y.shape, y.stride(), y.data_ptr()


def error_of(do):
    """What the error says with which do() ends, or None if there is none."""
    try:
        do()
    except (RuntimeError, AssertionError) as error:
        return str(error)
    return None


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


def in_a_block_inside_enable_grad(write):
    """Write inside no_grad inside enable_grad, after another no_grad was left."""
    with torch.no_grad(), torch.enable_grad(), torch.no_grad():
        with torch.no_grad():
            pass
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


# Ways to write without a record.
UNRECORDED = {
    "in_a_block": in_a_block,
    "in_a_block_that_fails_afterwards": in_a_block_that_fails_afterwards,
    "in_a_block_inside_enable_grad": in_a_block_inside_enable_grad,
    "after_set_grad_enabled": after_set_grad_enabled,
    "in_a_decorated_function": in_a_decorated_function,
}


def _broadcasts_to(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    pairs = itertools.zip_longest(reversed(shape), reversed(target), fillvalue=None)
    return len(shape) <= len(target) and all(size in (None, 1, wanted) for size, wanted in pairs)


@functools.cache
def target_and_operand(
    dtypes: tuple[str, ...] = ("float64", "float32"), shapes: tuple[tuple[int, ...], ...] = SHAPES
) -> st.SearchStrategy[tuple[Values, Values]]:
    """Values that can be written, and others that broadcast to their shape."""
    small = [shape for shape in shapes if math.prod(shape) <= 6]
    targets = forms(small, WRITABLE, dtypes)
    operands = {target: [shape for shape in small if _broadcasts_to(shape, target)] for target in small}
    layouts = {shape: [form[1] for form in forms([shape], LAYOUTS, dtypes[:1])] for shape in small}

    def made(form, number, one, two):
        shape, _, dtype = form
        operand = operands[shape][number % len(operands[shape])]
        lies = layouts[operand][number // 7 % len(layouts[operand])]
        return filled(form, one), filled((operand, lies, dtype), two)

    content = st.binary(min_size=6, max_size=6)
    return st.builds(made, st.sampled_from(targets), st.integers(0, 34), content, content)
