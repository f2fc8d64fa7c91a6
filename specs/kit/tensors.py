"""Tensors that several chapters make, each named by its code, and what their .grad holds."""

from __future__ import annotations

import torch

# Tensors that don't require grad, made of x, which does.
WITHOUT_GRAD = {
    "x.detach()": lambda x: x.detach(),
    "x.detach() * 2": lambda x: x.detach() * 2,
    "torch.ones_like(x)": lambda x: torch.ones_like(x),
    "torch.no_grad()(x.clone)()": lambda x: torch.no_grad()(x.clone)(),
    "x > 0": lambda x: x > 0,
    "x.long()": lambda x: x.long(),
    "(x * 2).detach_()": lambda x: (x * 2).detach_(),
}

# x itself, or a result of it that has its values and its shape.
SAME_VALUES = {
    "x": lambda x: x,
    "x * 1": lambda x: x * 1,
    "x.clone()": lambda x: x.clone(),
    "x[...]": lambda x: x[...],
    "torch.stack([x, x])[1]": lambda x: torch.stack([x, x])[1],
}

# What a hook makes of a gradient.
HOOKS_MAKE = {
    "None": lambda grad: None,
    "grad * 2": lambda grad: grad * 2,
    "grad + 1": lambda grad: grad + 1,
    "-grad": lambda grad: -grad,
    "grad": lambda grad: grad,
    "torch.full_like(grad, 5)": lambda grad: torch.full_like(grad, 5),
    "torch.zeros_like(grad)": lambda grad: torch.zeros_like(grad),
}

# Operations whose result has the values of x.
IDENTITIES = {
    "x * 1": lambda x: x * 1,
    "x + 0": lambda x: x + 0,
    "x.clone()": lambda x: x.clone(),
    "x.to(another dtype)": lambda x: x.to(another_dtype(x)),
    "x.type(another dtype)": lambda x: x.type(another_dtype(x)),
    "x.half()": lambda x: x.half(),
    "x.half() and back": lambda x: x.half().double() if x.dtype == torch.float64 else x.half().float(),
    "x.to(x.dtype, copy=True)": lambda x: x.to(x.dtype, copy=True),
    "x.to(x.device, copy=True)": lambda x: x.to(x.device, copy=True),
    "torch.empty_like(x).copy_(x)": lambda x: torch.empty_like(x).copy_(x),
    "x[...]": lambda x: x[...],
    "x.view(x.shape)": lambda x: x.view(x.shape),
    "x.view_as(x)": lambda x: x.view_as(x),
    "x.reshape(1, -1)": lambda x: x.reshape(1, -1),
    "x.unsqueeze(0)": lambda x: x.unsqueeze(0),
    "x.squeeze()": lambda x: x.squeeze(),
    "x.expand_as(x)": lambda x: x.expand_as(x),
    "torch.stack([x])[0]": lambda x: torch.stack([x])[0],
}

# Tensors with the values of the leaf x that don't require grad.
PLAIN = {
    "x.detach()": lambda x: x.detach(),
    "x.detach() * 1": lambda x: x.detach() * 1,
    "x.detach()[...]": lambda x: x.detach()[...],
    "x.detach().clone()": lambda x: x.detach().clone(),
    "x.detach().to(another dtype)": lambda x: x.detach().to(another_dtype(x)),
    "(x * 1).detach()": lambda x: (x * 1).detach(),
    "x[...].detach()": lambda x: x[...].detach(),
    "torch.no_grad()(x.clone)()": lambda x: torch.no_grad()(x.clone)(),
    "x.new_tensor(x.tolist())": lambda x: x.new_tensor(x.tolist()),
}


def another_dtype(x):
    """A floating dtype that is not the one of x."""
    return torch.float16 if x.dtype == torch.float32 else torch.float32


def prepared(leaf, start):
    """A .grad for the leaf, full of `start` unless that is None."""
    leaf.grad = None if start is None else torch.full_like(leaf, start)
    return leaf.grad


def full(tensor, start):
    """What .grad of the tensor holds as long as nothing is added to it."""
    return None if start is None else torch.full_like(tensor, start, requires_grad=False)


def added(start, gradient):
    """What .grad holds after the gradient was added to `start`; None stands for no gradient."""
    if gradient is None or start is None:
        return gradient
    return gradient + start


# Tensors made of x, a leaf that requires grad: its own memory, a part of it, or another.
WRAPPED = {
    "x": lambda x: x,
    "x.detach()": lambda x: x.detach(),
    "x * 2": lambda x: x * 2,
    "x[...]": lambda x: x[...],
    "(x * 2).unsqueeze(0)": lambda x: (x * 2).unsqueeze(0),
    "x.unsqueeze(0).detach()": lambda x: x.unsqueeze(0).detach(),
    "torch.nn.Parameter(x)": lambda x: torch.nn.Parameter(x),
    "torch.nn.Parameter(x, requires_grad=False)": lambda x: torch.nn.Parameter(x, requires_grad=False),
}


def counting(y: torch.Tensor) -> torch.Tensor:
    """The cotangent 1, 2, 3, ... in the shape of y."""
    return torch.arange(1, y.numel() + 1, dtype=y.dtype, device=y.device).reshape(y.shape)
