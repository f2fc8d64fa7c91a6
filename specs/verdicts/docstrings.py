"""Fingerprints of the docstrings that our documents are taken from: one that changes is to be read again."""

from __future__ import annotations

import hashlib
import inspect
import re
from typing import Any

from ..documents import statements


def fingerprints() -> dict[str, dict[str, Any]]:
    """For each name that a statement's `where` begins with: the fingerprint of its docstring on this release, empty if
    there is none, and the ids of the statements that were taken from it."""
    result: dict[str, dict[str, Any]] = {}
    for statement in statements().values():
        if match := re.match(r"torch(\.\w+)+", statement.where):
            entry = result.setdefault(match[0], {"fingerprint": fingerprint(match[0]), "statements": []})
            entry["statements"].append(statement.id)
    return dict(sorted(result.items()))


def fingerprint(name: str) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of the docstring of what is so named; empty without one."""
    import torch

    thing: Any = torch
    for part in name.split(".")[1:]:
        try:
            thing = inspect.getattr_static(thing, part) if inspect.isclass(thing) else getattr(thing, part)
        except AttributeError:
            return ""
    text = getattr(thing, "__doc__", None)
    if not isinstance(text, str):
        return ""
    return hashlib.sha256(" ".join(text.split()).encode()).hexdigest()[:16]
