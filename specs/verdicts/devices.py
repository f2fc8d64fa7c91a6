"""Which devices a run is for: those that were asked for, or every kind that is here."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

BROUGHT = {"loopback": f"{__package__.partition('.')[0]}.loopback"}  # kinds that modules of the suite itself bring
ALWAYS_NAMED = ("cpu", "cuda")  # a report says of these kinds also that they were not run


class DeviceError(ValueError):
    """A device that can't be run on, or a module that doesn't bring one; the message is one sentence for the user."""


@dataclass(frozen=True)
class Devices:
    """What a run is for: `present` devices, and why others that were meant are `absent`."""

    present: dict[str, str]  # device to its name, as the hardware is called
    absent: dict[str, str]  # device to the reason
    imports: tuple[str, ...] = ()  # modules that bring devices, for other processes to import


def find(asked: Sequence[str], required: Sequence[str], imports: Sequence[str] = ()) -> Devices:
    """Sort the devices asked for, or all kinds known here, into present and absent ones.

    imports  modules to import first, which bring devices

    Raises DeviceError for a module that can't be imported, a string that names no device, a required device that is
    absent, and when no device is left to run on.
    """
    for name in imports:
        try:
            importlib.import_module(name)
        except Exception as error:
            raise DeviceError(f"--import {name}: {type(error).__name__}: {error}") from None
    present: dict[str, str] = {}
    absent: dict[str, str] = {}
    for device in dict.fromkeys([*(asked or _kinds()), *required]):
        if reason := _why_absent(device):
            if device in required:
                raise DeviceError(f"device {device!r} is required, but there is {reason}")
            absent[device] = reason
        else:
            present[device] = _name(device)
    if not present:
        reasons = ", ".join(f"{device} ({reason})" for device, reason in absent.items())
        raise DeviceError(f"there is no device to run on: {reasons}")
    own = dict.fromkeys(BROUGHT[kind] for kind in map(_kind, present) if kind in BROUGHT)
    return Devices(present, absent, (*imports, *own))


def spread(devices: Iterable[str], worker: int) -> None:
    """Make another one of several GPUs the current one for each worker, numbered from 0; one with an index stays."""
    import torch

    for device in devices:
        module = getattr(torch, device, None)
        if device != "cpu" and hasattr(module, "set_device") and module.device_count() > 1:
            module.set_device(worker % module.device_count())


def out_of_tree() -> str:
    """The name of the kind of device for which PyTorch keeps a place."""
    import torch

    return getattr(torch._C, "_get_privateuse1_backend_name", lambda: "privateuseone")()  # since torch 2.1


def import_lines(device: str, imports: Sequence[str]) -> str:
    """What a script for the device begins with, if PyTorch alone doesn't know it."""
    return "".join(f"import {name}\n" for name in imports) if _kind(device) == out_of_tree() else ""


def _kind(device: str) -> str:
    return device.partition(":")[0]


def _kinds() -> list[str]:
    """The kinds that are always named, and the others that are present here."""
    others = ["mps", "xpu", out_of_tree()]
    return [*ALWAYS_NAMED, *(kind for kind in others if _offered(kind))]


def _offered(kind: str) -> bool:
    import torch

    module = torch.backends.mps if kind == "mps" else getattr(torch, kind, None)
    try:
        return bool(module and module.is_available())
    except Exception:
        return False


def _why_absent(device: str) -> str | None:
    """Why tensors can't be made and read on the device, or None if they can."""
    import torch

    if module := BROUGHT.get(_kind(device)):
        try:
            importlib.import_module(module)
        except ImportError as error:
            return f"no {device} device: {error}"
    try:
        kind = torch.device(device).type
    except (RuntimeError, ValueError, TypeError):
        raise DeviceError(
            f"{device!r} names no device; PyTorch knows such as cpu, cuda, cuda:1, mps; --import brings others"
        ) from None
    if kind == "cuda" and not torch.cuda.is_available():
        return "no CUDA device"
    try:
        if torch.ones(2, device=device).tolist() == [1, 1]:
            return None
        return f"a device {device!r} that computes wrongly"
    except Exception as error:
        first_line = str(error).partition("\n")[0]
        return f"no usable device {device!r} ({type(error).__name__}: {first_line})"


def _name(device: str) -> str:
    import platform

    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    if _kind(device) == "loopback":
        return "the CPU as a device of another kind"
    return platform.machine() if device == "cpu" else device
