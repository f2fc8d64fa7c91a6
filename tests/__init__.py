"""The suite's own tests."""

import functools
import importlib

import torch

from specs import CHAPTERS
from specs.kit.claim import Claim
from specs.kit.world import World
from specs.verdicts.devices import DeviceError, Devices, find


def all_claims() -> None:
    """Import every chapter, which registers its claims."""
    for chapter in CHAPTERS:
        importlib.import_module(f"specs.{chapter}")


@functools.cache
def loopback() -> Devices | None:
    """The loopback device, if this machine can have it."""
    try:
        return find(["loopback"], [])
    except DeviceError:
        return None


@functools.cache
def worlds() -> list[World]:
    """The CPU, and the loopback device if this machine can have it."""
    found = loopback()
    cpu = World(torch.device("cpu"))
    return [cpu, World(torch.device("loopback"), found.imports)] if found else [cpu]


def world_of(claim: Claim) -> World | str:
    """A world in which the claim is made: the CPU, or else the loopback device; or why there is none."""
    first, *others = worlds()
    reason = claim.why_not_applicable(first)
    if reason is None:
        return first
    return next((world for world in others if not claim.why_not_applicable(world)), reason)
