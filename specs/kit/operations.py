"""Operations of many kinds, each named by its code, with the number of their inputs."""

from __future__ import annotations

import torch

from .nodes import Twice

# Operations on so many inputs of one shape, each recorded as one node.
VIEWS = {  # they say under no_grad, too, that they require grad
    "a.view_as(a)": (1, lambda a: a.view_as(a)),
    "a.expand(2, *a.shape)": (1, lambda a: a.expand(2, *a.shape)),
}
NO_VIEWS = {
    "a + b": (2, lambda a, b: a + b),
    "a - b": (2, lambda a, b: a - b),
    "a * b": (2, lambda a, b: a * b),
    "a / b": (2, lambda a, b: a / b),
    "torch.maximum(a, b)": (2, lambda a, b: torch.maximum(a, b)),
    "torch.atan2(a, b)": (2, lambda a, b: torch.atan2(a, b)),
    "a.copysign(b)": (2, lambda a, b: a.copysign(b)),
    "torch.where(a > b, a, b)": (2, lambda a, b: torch.where(a > b, a, b)),
    "torch.nn.functional.mse_loss(a, b)": (2, lambda a, b: torch.nn.functional.mse_loss(a, b)),
    "torch.lerp(a, b, c)": (3, lambda a, b, c: torch.lerp(a, b, c)),
    "torch.addcmul(a, b, c)": (3, lambda a, b, c: torch.addcmul(a, b, c)),
    "torch.addcdiv(a, b, c)": (3, lambda a, b, c: torch.addcdiv(a, b, c)),
    "torch.clamp(a, b, c)": (3, lambda a, b, c: torch.clamp(a, b, c)),
    "torch.stack([a, b, c])": (3, lambda a, b, c: torch.stack([a, b, c])),
    "-a": (1, lambda a: -a),
    "a.exp()": (1, lambda a: a.exp()),
    "a.clone()": (1, lambda a: a.clone()),
    "a.sum()": (1, lambda a: a.sum()),
    "a.cumsum(-1)": (1, lambda a: a.cumsum(-1)),
    "a.floor()": (1, lambda a: a.floor()),
    "Twice.apply(a)": (1, lambda a: Twice.apply(a)),
}
SEVERAL_NODES = {  # operations that other ones make up, in a way that is up to the library
    "2 / a": (1, lambda a: 2 / a),
    "a.std()": (1, lambda a: a.std()),
    "a.clone().fill_(1)": (1, lambda a: a.clone().fill_(1)),
    "a.masked_fill(a > 0, b.sum())": (2, lambda a, b: a.masked_fill(a > 0, b.sum())),
    "a.clone().copy_(b)": (2, lambda a, b: a.clone().copy_(b)),
    "a.clone().mul_(b)": (2, lambda a, b: a.clone().mul_(b)),
    "torch.zeros_like(a).add_(b)": (2, lambda a, b: torch.zeros_like(a).add_(a).add_(b)),
    "torch.outer(a, b)": (2, lambda a, b: torch.outer(a.reshape(-1), b.reshape(-1))),
    "torch.einsum('...,...->...', a, b)": (2, lambda a, b: torch.einsum("...,...->...", a, b)),
    "torch.tensordot(a, b, 0)": (2, lambda a, b: torch.tensordot(a, b, 0)),
    "torch.nn.functional.l1_loss(a, b)": (2, lambda a, b: torch.nn.functional.l1_loss(a, b)),
    "sum(torch.broadcast_tensors(a, b))": (2, lambda a, b: sum(torch.broadcast_tensors(a, b))),
    "torch.block_diag(a, b, c)": (3, lambda *all: torch.block_diag(*(x.reshape(1, -1) for x in all))),
    "torch.cat([a, b, c])": (3, lambda *all: torch.cat([x.reshape(-1) for x in all])),
    "a.softmax(-1)": (1, lambda a: a.softmax(-1)),
    "torch.nn.functional.gelu(a)": (1, lambda a: torch.nn.functional.gelu(a)),
    "a.logcumsumexp(-1)": (1, lambda a: a.logcumsumexp(-1)),
    "a.cumprod(-1)": (1, lambda a: a.cumprod(-1)),
    "a.nan_to_num()": (1, lambda a: a.nan_to_num()),
    "a.repeat(2, *a.shape)": (1, lambda a: a.repeat(2, *a.shape)),
    "a.roll(1)": (1, lambda a: a.roll(1)),
    "a.flip(-1)": (1, lambda a: a.reshape(-1).flip(-1)),
    "a.norm()": (1, lambda a: a.norm()),
    "torch.hypot(a, b)": (2, lambda a, b: torch.hypot(a, b)),
    "torch.xlogy(a, b)": (2, lambda a, b: torch.xlogy(a, b)),
    "torch.logaddexp(a, b)": (2, lambda a, b: torch.logaddexp(a, b)),
    "torch.remainder(a, b)": (2, lambda a, b: torch.remainder(a, b)),
    "torch.fmod(a, b)": (2, lambda a, b: torch.fmod(a, b)),
    "a ** b": (2, lambda a, b: a**b),
    "torch.div(a, b, rounding_mode='floor')": (2, lambda a, b: torch.div(a, b, rounding_mode="floor")),
    "torch.fmax(a, b)": (2, lambda a, b: torch.fmax(a, b)),
    "torch.dist(a, b)": (2, lambda a, b: torch.dist(a, b)),
    "torch.vdot(a, b)": (2, lambda a, b: torch.vdot(a.reshape(-1), b.reshape(-1))),
    "torch.cdist(a, b)": (2, lambda a, b: torch.cdist(a.reshape(1, -1), b.reshape(1, -1))),
    "a.masked_scatter(a > 0, b)": (2, lambda a, b: a.masked_scatter(a > 0, b)),
    "a.index_add(0, zeros, b)": (
        2,
        lambda a, b: a.sum(-1).reshape(-1)[:1].index_add(0, torch.zeros_like(b.reshape(-1), dtype=int), b.reshape(-1)),
    ),
    "torch.nn.functional.huber_loss(a, b)": (2, lambda a, b: torch.nn.functional.huber_loss(a, b)),
    "torch.nn.functional.smooth_l1_loss(a, b)": (2, lambda a, b: torch.nn.functional.smooth_l1_loss(a, b)),
    "torch.nn.functional.binary_cross_entropy_with_logits(a, b)": (
        2,
        lambda a, b: torch.nn.functional.binary_cross_entropy_with_logits(a, b),
    ),
    "torch.nn.functional.prelu(a, b)": (
        2,
        lambda a, b: torch.nn.functional.prelu(a.reshape(1, -1), b.reshape(-1)),
    ),
    "torch.nn.functional.linear(a, b)": (
        2,
        lambda a, b: torch.nn.functional.linear(a.reshape(1, -1), b.reshape(1, -1)),
    ),
    "torch.nn.functional.linear(a, b, c)": (
        3,
        lambda a, b, c: torch.nn.functional.linear(a.reshape(1, -1), b.reshape(1, -1), c.sum().reshape(1)),
    ),
    "torch.nn.functional.layer_norm(a, b, c)": (
        3,
        lambda a, b, c: torch.nn.functional.layer_norm(a.reshape(1, -1), (a.numel(),), b.reshape(-1), c.reshape(-1)),
    ),
    "torch.baddbmm(a, b, c)": (
        3,
        lambda a, b, c: torch.baddbmm(a.sum().reshape(1, 1, 1), b.reshape(1, 1, -1), c.reshape(1, -1, 1)),
    ),
    "torch.linalg.multi_dot([a, b, c])": (
        3,
        lambda a, b, c: torch.linalg.multi_dot([a.reshape(1, -1), b.reshape(-1, 1), c.reshape(1, -1)]),
    ),
    "torch.addmm(a.sum(), b, c)": (
        3,
        lambda a, b, c: torch.addmm(a.sum(), b.reshape(-1, 1), c.reshape(1, -1)),
    ),
}
ONE_NODE = NO_VIEWS | VIEWS
RECORDED = NO_VIEWS | SEVERAL_NODES
