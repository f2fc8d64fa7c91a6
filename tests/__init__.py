"""The suite's own tests."""

import importlib

from specs import CHAPTERS


def all_claims() -> None:
    """Import every chapter, which registers its claims."""
    for chapter in CHAPTERS:
        importlib.import_module(f"specs.{chapter}")
