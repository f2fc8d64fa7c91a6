"""Which devices a run is for: those that were asked for, or every kind that is here."""

from __future__ import annotations

from dataclasses import dataclass

ALWAYS_NAMED = ("cpu", "cuda")  # a report says of these kinds also that they were not run


class DeviceError(ValueError):
    """A device that can't be run on; the message is one sentence for the user."""


@dataclass(frozen=True)
class Devices:
    """What a run is for: `present` devices, and why others that were meant are `absent`."""

    present: dict[str, str]  # device to its name, as the hardware is called
    absent: dict[str, str]  # device to the reason


def find(asked: list[str], required: list[str]) -> Devices:
    """Sort the devices asked for, or all kinds known here, into present and absent ones.

    Raises DeviceError for a string that names no device, a required device that is absent, and
    when no device is left to run on.
    """
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
    return Devices(present, absent)


def _kinds() -> list[str]:
    """The kinds that are always named, and the others that are present here."""
    import torch

    out_of_tree = getattr(torch._C, "_get_privateuse1_backend_name", lambda: "privateuseone")()
    others = ["mps", "xpu", out_of_tree]
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

    try:
        kind = torch.device(device).type
    except (RuntimeError, ValueError, TypeError):
        raise DeviceError(f"{device!r} names no device; PyTorch knows such as cpu, cuda, cuda:1, mps") from None
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
    return platform.machine() if device == "cpu" else device
