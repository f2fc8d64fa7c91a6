"""Choices from the tables of a chapter."""

from __future__ import annotations

from collections.abc import Collection

from hypothesis import strategies as st


def some_of(table: Collection[str], at_once: int = 6) -> st.SearchStrategy[list[str]]:
    """One of the table's names, or about `at_once` of them together.

    It is a single draw that comes upon every name often, whereas each name of a drawn list costs a
    draw and some are hardly ever drawn. A counterexample shrinks to a single name.
    """
    names = list(table)
    groups = -(-len(names) // at_once)
    together = [names[first::groups] for first in range(groups)]
    return st.sampled_from([[name] for name in names] + together * (2 * at_once))
