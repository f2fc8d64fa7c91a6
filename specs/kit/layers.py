"""Layers whose gradients are products of small integers."""

from __future__ import annotations

import torch


class Times(torch.nn.Module):
    """The input times a number and a parameter, which is 1 at first."""

    def __init__(self, factor, like):
        """The parameter is made like a tensor."""
        super().__init__()
        self.factor = factor
        self.p = torch.nn.Parameter(torch.ones((), dtype=like.dtype, device=like.device))

    def forward(self, x):
        """The product."""
        return x * self.factor * self.p


class Mix(torch.nn.Module):
    """For each row of factors the sum of the tensors among the inputs, times the factors and a parameter."""

    def __init__(self, rows, like, shape=tuple):
        """What is returned is put into a shape: a tuple, a single tensor or something else."""
        super().__init__()
        self.rows, self.shape = rows, shape
        self.p = torch.nn.Parameter(torch.ones((), dtype=like.dtype, device=like.device))

    def forward(self, *inputs, extra=None):
        """All rows, and a number last."""
        tensors = [(i, x) for i, x in enumerate(inputs) if isinstance(x, torch.Tensor)]
        sums = [sum(x * row[i] for i, x in tensors) * self.p for row in self.rows]
        if extra is not None:
            sums = [y * extra for y in sums]
        return self.shape(sums)
