"""Walking the graph: what several chapters need to look at its nodes and to differentiate it."""

from __future__ import annotations

import torch


def nodes_below(node):
    """Every node that can be reached from `node` along next_functions, itself the first; none from None."""
    found = [] if node is None else [node]
    for one in found:
        for below, _ in one.next_functions:
            if below is not None and below not in found:
                found.append(below)
    return found


class Twice(torch.autograd.Function):
    """An operation that the user defines."""

    @staticmethod
    def forward(ctx, x):  # noqa: D102
        return x * 2

    @staticmethod
    def backward(ctx, cotangent):  # noqa: D102
        return cotangent * 2


# Ways to differentiate a root by leaves.
WAYS = {
    "backward": lambda root, leaves, v, **how: root.backward(v, **how),
    "backward with inputs": lambda root, leaves, v, **how: root.backward(v, inputs=leaves, **how),
    "grad": lambda root, leaves, v, **how: torch.autograd.grad(root, leaves, v, allow_unused=True, **how),
}
