"""A world: where a spec runs. For now a device; what it can do is probed, never listed by name."""

from __future__ import annotations

import dataclasses
import threading
import warnings
from collections.abc import Callable, Sequence

import torch

from .values import Values

CAPABILITIES: dict[str, Callable[[torch.device], bool]] = {}


def _capability(probe: Callable[[torch.device], bool]) -> Callable[[torch.device], bool]:
    CAPABILITIES[probe.__name__.replace("_", "-")] = probe
    return probe


def _computes(dtype: torch.dtype) -> Callable[[torch.device], bool]:
    def probe(device: torch.device) -> bool:
        x = torch.tensor([1, 2, 3], dtype=dtype, device=device)
        # The arithmetic that chapters rely on, in the forward pass and for gradients.
        return (x * x + x - 2 * x).sum().item() == 8 and torch.equal(x, x.clone())

    probe.__doc__ = f"Tensors of the dtype {str(dtype).removeprefix('torch.')}, and sums and products of them."
    return probe


for _dtype in ("float64", "float32", "float16", "bfloat16", "complex64", "complex128"):
    CAPABILITIES[_dtype] = _computes(getattr(torch, _dtype))


@_capability
def in_place(device: torch.device) -> bool:
    """A tensor can be written in place."""
    x = torch.zeros(2, device=device)
    x.fill_(3).add_(1)
    return x.tolist() == [4, 4]


@_capability
def views(device: torch.device) -> bool:
    """A view shares its storage with its base: a write to the one shows in the other."""
    x = torch.zeros(2, 3, device=device)
    x.t()[1:].fill_(1)
    return x.tolist() == [[0, 1, 1], [0, 1, 1]]


@_capability
def sparse(device: torch.device) -> bool:
    """There are sparse tensors in coordinate format, and products and sums of them."""
    x = torch.eye(2, device=device).to_sparse()
    return torch.sparse.mm(x + x, x.to_dense()).tolist() == [[2, 0], [0, 2]]


@_capability
def sparse_csr(device: torch.device) -> bool:
    """There are sparse tensors of compressed rows, and products and sums of them."""
    with warnings.catch_warnings():  # that they are in beta state
        warnings.simplefilter("ignore")
        x = torch.eye(2, device=device).to_sparse_csr()
        return torch.sparse.mm(x + x, x.to_dense()).tolist() == [[2, 0], [0, 2]]


@_capability
def python_functions(device: torch.device) -> bool:
    """A tensor can be written by a Python function, element by element."""
    return torch.ones(2, device=device).apply_(lambda number: number + 1).tolist() == [2, 2]


@_capability
def printing(device: torch.device) -> bool:
    """A tensor can be printed, for which PyTorch takes float64 on most kinds of devices."""
    return "3" in repr(torch.full((2,), 3.0, device=device))


def _threads_of_hooks(device: torch.device) -> set[bool]:
    """Whether hooks on the device are called in the thread that calls backward."""
    seen: set[bool] = set()
    caller = threading.get_ident()
    x = torch.ones(2, device=device, requires_grad=True)
    x.register_hook(lambda grad: seen.add(threading.get_ident() == caller))
    (x * 2).sum().backward()
    return seen


@_capability
def callers_thread(device: torch.device) -> bool:
    """The engine runs the nodes of the device in the thread that calls backward."""
    return _threads_of_hooks(device) == {True}


@_capability
def device_threads(device: torch.device) -> bool:
    """The engine runs the nodes of the device in a thread that is the device's own."""
    return _threads_of_hooks(device) == {False}


@_capability
def accelerator(device: torch.device) -> bool:
    """The device isn't the CPU, and tensors are copied from the one to the other and back."""
    return device.type != "cpu" and torch.ones(2).to(device).cpu().tolist() == [1, 1]


@_capability
def second_device(device: torch.device) -> bool:
    """There are two devices of this kind, and it isn't the CPU."""
    if device.type == "cpu":
        return False
    first, second = (torch.ones(2, device=f"{device.type}:{index}") for index in (0, 1))
    return (first.to("cpu") + second.to("cpu")).tolist() == [2, 2]


@_capability
def pinned_memory(device: torch.device) -> bool:
    """Tensors of the CPU can be put into memory from which the device copies without help."""
    pinned = torch.ones(2).pin_memory()
    return device.type != "cpu" and pinned.is_pinned() and pinned.to(device).tolist() == [1, 1]


@_capability
def streams(device: torch.device) -> bool:
    """The device works in streams, which torch.Stream and torch.accelerator (since torch 2.6) know."""
    stream = torch.Stream(device=device)
    return torch.accelerator.current_stream(device) != stream


@_capability
def autocast(device: torch.device) -> bool:
    """Products can be computed in bfloat16 by torch.autocast."""
    x = torch.ones(2, 2, device=device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        return (x @ x).dtype == torch.bfloat16


@_capability
def lists_in_turn(device: torch.device) -> bool:
    """What stands several times in the list of a torch._foreach_ function is written one time after the other."""
    x = torch.zeros(1, device=device)
    torch._foreach_add_([x] * 64, 1)
    return x.item() == 64


@_capability
def dlpack(device: torch.device) -> bool:
    """A tensor can be handed on by DLPack."""
    return torch.from_dlpack(torch.ones(2, device=device)).tolist() == [1, 1]


@_capability
def random(device: torch.device) -> bool:
    """Tensors can be filled with random numbers."""
    x = torch.zeros(8, device=device).uniform_(1, 2)
    return bool((x >= 1).all())


class World:
    """A device, its capabilities, and tensors made there."""

    def __init__(self, device: torch.device, imports: Sequence[str] = ()):
        self.device = device
        self.imports = imports  # modules without which PyTorch may not know the device
        self._has: dict[str, bool] = {}

    def __repr__(self) -> str:
        return f"World({str(self.device)!r})"

    def has(self, capability: str) -> bool:
        """Whether the device has the capability; a probe that raises anything says no."""
        if capability not in self._has:
            try:
                self._has[capability] = CAPABILITIES[capability](self.device)
            except Exception:
                self._has[capability] = False
        return self._has[capability]

    def fresh(self) -> None:
        """Undo what an earlier example may have left behind: grad mode and random state."""
        torch.set_grad_enabled(True)
        torch.default_generator.manual_seed(0)  # torch.manual_seed costs as much as a whole example
        if self.device.type == "cuda":
            current = torch.cuda.current_device()  # which initializes CUDA in a new process
            index = current if self.device.index is None else self.device.index
            torch.cuda.default_generators[index].manual_seed(0)

    def fitted(self, v: Values) -> Values:
        """The values in a dtype that the device has: their own, or else float32.

        So every device sees the same examples, also one that lacks float64.
        """
        return v if self.has(v.dtype) else dataclasses.replace(v, dtype="float32")

    def code(self, v: Values | None) -> str:
        """The expression of plain PyTorch for a constant of the values here; None for no values."""
        if v is None:
            return "None"
        return self.fitted(v).code("" if self.device.type == "cpu" else repr(str(self.device)))

    def constant(self, v: Values) -> torch.Tensor:
        """A tensor of the values that doesn't require grad."""
        return self.fitted(v).tensor(self.device)

    def leaf(self, v: Values) -> torch.Tensor:
        """A leaf of the values that requires grad."""
        return self.constant(v).requires_grad_()
