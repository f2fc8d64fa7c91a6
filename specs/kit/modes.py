"""Ways to enter a mode, each named by its code."""

from __future__ import annotations

import torch

# How to enter a grad mode, and whether grad mode is on inside it.
MODES = {
    "torch.no_grad()": (lambda: torch.no_grad(), False),
    "torch.enable_grad()": (lambda: torch.enable_grad(), True),
    "torch.set_grad_enabled(False)": (lambda: torch.set_grad_enabled(False), False),
    "torch.set_grad_enabled(True)": (lambda: torch.set_grad_enabled(True), True),
}

# The modes in which nothing is recorded.
QUIET = {
    "torch.no_grad()": lambda: torch.no_grad(),
    "torch.inference_mode()": lambda: torch.inference_mode(),
    "torch.set_grad_enabled(False)": lambda: torch.set_grad_enabled(False),
}


@torch.inference_mode()
def made_inside(x):
    """A copy of x that is an inference tensor."""
    return x.clone()
