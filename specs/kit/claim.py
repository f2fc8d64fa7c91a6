"""A claim: one sentence about autograd, and the spec that decides it."""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from packaging.version import InvalidVersion, Version

from ..documents import statements
from .examples import counted
from .world import CAPABILITIES, World


class ClaimError(ValueError):
    """A claim that its author has to mend; the message is one sentence."""


@dataclass(frozen=True)
class Claim:
    """The record of a claim; everything else about it is computed."""

    id: str  # chapter and name, said once by module and function
    sentence: str  # the spec's docstring
    cites: tuple[str, ...]  # ids of statements that the claim confirms or corrects
    standing: str  # promised (documented: it gates) or observed (reported)
    since: Version | None  # the first release on which the claim is made
    until: Version | None  # the first release on which it is made no more
    needs: tuple[str, ...]  # capabilities of the world
    formerly: tuple[str, ...]  # ids that it had before a renaming
    reaches: tuple[str, ...]  # what a good part of its examples has to contain
    spec: Callable[..., None]
    line: int

    @property
    def chapter(self) -> str:
        """The module in which the claim stands."""
        return self.id.partition("/")[0]

    @property
    def seed(self) -> int:
        """What examples are drawn from: every device, release and worker sees the same ones."""
        return zlib.crc32(self.id.encode())

    @property
    def generated(self) -> bool:
        """Whether the spec draws its examples; one that doesn't is a single example."""
        return hasattr(self.spec, "hypothesis")

    @property
    def body(self) -> Callable[..., None]:
        """The spec as it was written, without what draws and counts its examples."""
        return inspect.unwrap(self.spec.hypothesis.inner_test if self.generated else self.spec)

    @property
    def releases(self) -> str:
        """The releases on which the claim is made, in words; empty for all of them."""
        words = [f"since {self.since}"] if self.since else []
        return ", ".join(words + ([f"before {self.until}"] if self.until else []))

    def made_on(self, release: Version) -> bool:
        """Whether the claim is made on a release of PyTorch; a build before it counts as the release."""
        number = Version(release.base_version)
        return not (self.since and number < self.since) and not (self.until and number >= self.until)

    def why_not_applicable(self, world: World) -> str | None:
        """Why the claim is not made in this world, or None if it is."""
        if not self.made_on(Version(torch.__version__)):
            return f"the claim is made {self.releases}"
        if lacking := [need for need in self.needs if not world.has(need)]:
            return f"needs {', '.join(lacking)}"
        return None


CLAIMS: dict[str, Claim] = {}  # filled as chapters are imported, in reading order within each


def claim(
    *,
    cites: Collection[str] = (),
    observed: bool = False,
    since: str | None = None,
    until: str | None = None,
    needs: Collection[str] = (),
    formerly: Collection[str] = (),
    reaches: Collection[str] = (),
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make the function `spec_NAME` below, with its docstring, the claim `CHAPTER/NAME`.

    cites     statements, as `document/key`, that the claim confirms or corrects
    observed  true for undocumented behaviour: it is reported but doesn't fail a run
    since     the first release on which the claim is made
    until     the first release on which it is made no more
    needs     capabilities without which the claim isn't applicable
    formerly  ids that the claim had before it was renamed
    reaches   what examples have to contain, one in ten at the least, or the verdict is vacuous

    Raises ClaimError, with one sentence, for a claim that can't stand.
    """

    def decorate(spec: Callable[..., None]) -> Callable[..., None]:
        name = spec.__name__.removeprefix("spec_")
        identity = f"{spec.__module__.rpartition('.')[2]}/{name}"
        sentence = " ".join((spec.__doc__ or "").split())
        inner = getattr(spec, "hypothesis", None)
        function = inner.inner_test if inner else spec

        if not spec.__name__.startswith("spec_"):
            raise ClaimError(f"{identity}: a spec's name begins with 'spec_'")
        if not sentence.endswith("."):
            raise ClaimError(f"{identity}: a claim needs a sentence, its docstring, with a full stop")
        for word in ("should", "test that", "tests that"):
            if word in sentence.lower():
                raise ClaimError(f"{identity}: a claim says what is so; it has {word!r} in it")
        if not cites and not observed:
            raise ClaimError(f"{identity}: a promised claim cites the statement that promises it")
        for statement in cites:
            if statement not in statements():
                raise ClaimError(f"{identity}: it cites {statement!r}, which no document has")
        for need in needs:
            if need not in CAPABILITIES:
                known = ", ".join(CAPABILITIES)
                raise ClaimError(f"{identity}: it needs {need!r}, which is none of {known}")
        for taken in (identity, *formerly):
            if any(taken == other.id or taken in other.formerly for other in CLAIMS.values()):
                raise ClaimError(f"{identity}: the id {taken!r} exists already")
        try:
            first, last = (Version(text) if text else None for text in (since, until))
        except InvalidVersion as error:
            raise ClaimError(f"{identity}: {error}") from error

        body = counted(function)
        if inner:
            inner.inner_test = body
        else:
            spec = body
        record = Claim(
            id=identity,
            sentence=sentence,
            cites=tuple(cites),
            standing="observed" if observed else "promised",
            since=first,
            until=last,
            needs=tuple(needs),
            formerly=tuple(formerly),
            reaches=tuple(reaches),
            spec=spec,
            line=function.__code__.co_firstlineno,
        )
        CLAIMS[identity] = record
        spec.claim = record
        return spec

    return decorate
