"""Tables of tensors that several chapters make, each named by its code."""

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
