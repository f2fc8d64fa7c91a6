"""Commands of the suite: `python -m specs show`, `compare` and `pages`; see --help of each."""

from __future__ import annotations

import argparse
import difflib
import sys
import textwrap
from pathlib import Path


def main() -> int:
    """Run the command that the arguments name; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m specs", description="Commands of the conformance suite.")
    commands = parser.add_subparsers(dest="command", required=True)
    pages_command = commands.add_parser("pages", help="write the pages that are made of specs, documents, ledgers")
    pages_command.add_argument("--check", action="store_true", help="only say which ones are stale")
    pages_command.set_defaults(run=_pages)
    compare_command = commands.add_parser(
        "compare",
        help="tell what changed between two ledgers",
        description="Tell what changed from the first ledger to the second. The exit code is 1 if a claim that the "
        "documentation promises held in the first and fails in the second, 2 if a ledger can't be read, 0 otherwise.",
    )
    compare_command.add_argument("before", type=Path, metavar="BEFORE.json")
    compare_command.add_argument("after", type=Path, metavar="AFTER.json")
    compare_command.add_argument("--format", choices=("text", "json", "markdown"), default="text")
    compare_command.set_defaults(run=_compare)
    show_command = commands.add_parser(
        "show",
        help="print a claim, what it cites, and an example of it as a script",
        description="Print a claim, the statements that it cites, its verdicts in the committed ledgers, and its "
        "first example as a script of plain PyTorch, which can be run as it is printed.",
    )
    show_command.add_argument("claim", metavar="CHAPTER/NAME")
    show_command.add_argument("--device", default="cpu")
    show_command.set_defaults(run=_show)
    options = parser.parse_args()
    try:
        return options.run(options)
    except ModuleNotFoundError as error:
        print(f"{sys.executable} has no {error.name}: pip install {error.name}", file=sys.stderr)
        return 2


def _pages(options: argparse.Namespace) -> int:
    from .documents import DocumentError
    from .kit.claim import ClaimError
    from .verdicts import pages
    from .verdicts.ledger import LedgerError

    try:
        changed = pages.stale() if options.check else pages.write()
    except (ClaimError, DocumentError, LedgerError) as error:
        print(error, file=sys.stderr)
        return 1
    for path in changed:
        print(("stale: " if options.check else "written: ") + str(path.relative_to(pages.ROOT)))
    return int(options.check and bool(changed))


def _compare(options: argparse.Namespace) -> int:
    from .verdicts import compare, ledger

    try:
        before, after = ledger.read(options.before), ledger.read(options.after)
    except ledger.LedgerError as error:
        print(error, file=sys.stderr)
        return 2
    comparison = compare.compare(before, after)
    print(compare.FORMATS[options.format](comparison), end="")
    return int(comparison.gates)


def _show(options: argparse.Namespace) -> int:
    import torch

    from .documents import statements
    from .kit.world import World
    from .verdicts import pages, profiles
    from .verdicts.decide import decide
    from .verdicts.devices import DeviceError, find
    from .verdicts.script import script

    claims = pages.claims()
    claim = claims.get(options.claim) or next((c for c in claims.values() if options.claim in c.formerly), None)
    if claim is None:
        close = difflib.get_close_matches(options.claim, claims, 3, 0.5)
        hint = f"; is it {' or '.join(close)}?" if close else ""
        print(f"there is no claim {options.claim}{hint}", file=sys.stderr)
        return 2
    try:
        find([], [options.device])
    except DeviceError as error:
        print(error, file=sys.stderr)
        return 2
    lines = [claim.sentence, f"{claim.id}, {claim.standing}{', made ' + claim.releases if claim.releases else ''}"]
    for identity in claim.cites:
        cited = statements()[identity]
        lines.append(f"{identity}: {cited.says} ({cited.where}) Finding: {cited.finding}. {cited.why}".rstrip())
    for line in [*lines, pages.verified(claim)]:  # as comments, so that the output can be run
        print(textwrap.fill(line, 98, initial_indent="# ", subsequent_indent="#   "))
    world = World(torch.device(options.device))
    if reason := claim.why_not_applicable(world):
        print(f"# No example here: {reason}.")
        return 0
    profiles.load("quick", shrink=False, examples=1)
    print(script(claim, world, decide(claim, world).example, "an example"), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
