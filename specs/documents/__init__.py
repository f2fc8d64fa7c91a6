"""The documents that say how autograd behaves, statement by statement.

A document is a TOML file in this folder. Its statements are told in our own words, each with our
finding. Citations run one way, from claims to statements, so nothing here names a claim.
"""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from pathlib import Path

FINDINGS = {
    "holds": "it is so, as it stands",
    "qualified": "it is so, but only with the limits that we give",
    "refuted": "it is not so; the claims state what happens instead",
    "undecidable": "no test can decide it; we say why",
}


class DocumentError(ValueError):
    """A document's file that cannot be read as one; the message is one sentence for its author."""


@dataclass(frozen=True)
class Statement:
    """What a document says in one place, and what we found about it."""

    document: str
    key: str
    says: str
    where: str
    finding: str
    why: str

    @property
    def id(self) -> str:
        """The name that claims cite it by."""
        return f"{self.document}/{self.key}"


@dataclass(frozen=True)
class Document:
    """A text about autograd: its title, what kind of text it is, and its statements in order."""

    name: str
    title: str
    about: str
    statements: tuple[Statement, ...]


def read(path: Path) -> Document:
    """The document in the TOML file at `path`; DocumentError says what is wrong with it."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DocumentError(f"{path.name} cannot be read as a document: {error}") from error
    statements: dict[str, Statement] = {}
    for number, entry in enumerate(data.get("statement", []), start=1):
        where = f"{path.name}, statement {number} ({entry.get('key', 'without a key')})"
        needed = {"key", "says", "where", "finding"}
        if missing := needed - entry.keys():
            raise DocumentError(f"{where} lacks {', '.join(sorted(missing))}")
        if unknown := entry.keys() - needed - {"why"}:
            raise DocumentError(f"{where} has the unknown entry {', '.join(sorted(unknown))}")
        if entry["finding"] not in FINDINGS:
            known = ", ".join(FINDINGS)
            raise DocumentError(f"{where}: finding {entry['finding']!r} is none of {known}")
        if entry["finding"] != "holds" and not entry.get("why"):
            raise DocumentError(f"{where} is {entry['finding']} and must say why")
        if entry["key"] in statements:
            raise DocumentError(f"{where}: the key is taken")
        statements[entry["key"]] = Statement(
            path.stem, entry["key"], entry["says"], entry["where"], entry["finding"], entry.get("why", "")
        )
    if missing := {"title", "about"} - data.keys():
        raise DocumentError(f"{path.name} lacks {', '.join(sorted(missing))}")
    return Document(path.stem, data["title"], data["about"], tuple(statements.values()))


@functools.cache
def documents() -> dict[str, Document]:
    """Every document of the suite by name."""
    return {path.stem: read(path) for path in sorted(Path(__file__).parent.glob("*.toml"))}


@functools.cache
def statements() -> dict[str, Statement]:
    """Every statement of every document by its id, `document/key`."""
    return {s.id: s for document in documents().values() for s in document.statements}
