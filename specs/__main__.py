"""Commands of the suite: `python -m specs show`, `compare`, `expectations` and others; see --help of each.

Installed they are commands of `autograd-conformance`, which runs the specs unless it is given one of them.
"""

from __future__ import annotations

import argparse
import difflib
import functools
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from packaging.version import Version

    from .kit.claim import Claim

from . import INSTALLED


def main() -> int:
    """Run the command that the arguments name, or the installed specs; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="autograd-conformance" if INSTALLED else "python -m specs",
        description="Commands of the conformance suite."
        + (" Without one of them the specs are run by pytest, with its options and those below." if INSTALLED else ""),
    )
    commands = parser.add_subparsers(dest="command", required=True)
    if not INSTALLED:
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
    show_command.add_argument("--import", action="append", default=[], dest="imports", metavar="MODULE")
    show_command.set_defaults(run=_show)
    bisect_command = commands.add_parser(
        "bisect",
        help="find the first release on which a claim broke",
        description="Find the first release on which a claim broke, by running nothing but this claim in environments "
        "of releases between one on which it holds and one on which it is broken. The exit code is 0 if it was found, "
        "1 if the claim doesn't hold on the first, isn't broken on the second or isn't made on one of them, 2 if an "
        "option is wrong or an environment is missing or broken.",
    )
    bisect_command.add_argument("claim", metavar="CHAPTER/NAME")
    bisect_command.add_argument("--good", required=True, type=_release, metavar="RELEASE", help="where it holds")
    bisect_command.add_argument("--bad", required=True, type=_release, metavar="RELEASE", help="where it is broken")
    bisect_command.add_argument(
        "--python-for",
        metavar="PATTERN",
        help="the Python of each release's environment, with {} for the release, such as ~/envs/torch-{}/bin/python; "
        "default: the environments that tox made for this repository",
    )
    bisect_command.add_argument(
        "--releases",
        type=lambda text: [_release(part) for part in text.split(",")],
        metavar="RELEASE,...",
        help="try these between the two; default: all that there is an environment of",
    )
    bisect_command.add_argument("--device", default="cpu")
    bisect_command.add_argument("--import", action="append", default=[], dest="imports", metavar="MODULE")
    bisect_command.set_defaults(run=_bisect)
    expectations_command = commands.add_parser("expectations", help="keep the file of known deviations up to date")
    update_command = expectations_command.add_subparsers(required=True).add_parser(
        "update",
        help="make the file say what is so on this release",
        description="Run the claims that are expected to fail here. An entry whose claim doesn't fail gets the release "
        "and device into its list `gone`; counterexamples are stored. Everything else in the file stays as it is.",
    )
    update_command.add_argument("--device", action="append", default=[], help="default: every kind present")
    update_command.add_argument("--expectations", type=Path, metavar="FILE", help="default: expectations.toml")
    update_command.add_argument("--add", action="store_true", help="run all claims; those that fail get an entry")
    update_command.add_argument("--import", action="append", default=[], dest="imports", metavar="MODULE")
    update_command.set_defaults(run=_update)
    replay_command = commands.add_parser(
        "replay", help="decide the claims that the standard input names, as JSON; a run does so for those that crash"
    )
    replay_command.set_defaults(run=_replay)
    for name, what in (
        ("badge", "print the JSON of which shields.io makes a badge"),
        ("summary", "print what a run found as Markdown"),
        ("annotations", "print what GitHub shows as an error for each promised claim that fails"),
    ):
        command = commands.add_parser(name, help=what, description=f"From a ledger, {what}.")
        command.add_argument("ledger", type=Path, metavar="LEDGER.json")
        command.set_defaults(run=_tell, against=None)
    command.add_argument("--against", type=Path, metavar="BEFORE.json", help="leave out what fails in this one already")
    arguments = sys.argv[1:]
    try:
        if INSTALLED and not (arguments and arguments[0] in commands.choices):
            return _run_installed(arguments, parser)
        options = parser.parse_args(arguments)
        return options.run(options)
    except ModuleNotFoundError as error:
        print(f"{sys.executable} has no {error.name}: pip install {error.name}", file=sys.stderr)
        return 2


def _run_installed(arguments: list[str], parser: argparse.ArgumentParser) -> int:
    """Run the specs by pytest, from whichever folder, with its settings beside the plugin and its cache here."""
    import pytest

    if {"-h", "--help"} & set(arguments):
        parser.print_help()
    package = Path(__file__).parent
    settings = ["-c", str(package / "verdicts" / "installed.ini"), "--rootdir", str(package)]
    settings += ["-o", f"cache_dir={Path.cwd() / '.pytest_cache'}", "-p", f"{__package__}.verdicts.plugin"]
    sys.argv[1:] = [*settings, *arguments]
    return pytest.console_main()


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


def _update(options: argparse.Namespace) -> int:
    from .documents import DocumentError
    from .kit.claim import ClaimError
    from .verdicts import expectations, pages
    from .verdicts.apart import ApartError
    from .verdicts.devices import DeviceError, find

    path = options.expectations or expectations.FILE
    try:
        found = find(options.device, options.device, options.imports)
        said = expectations.update(path, pages.claims(), list(found.present), found.imports, add=options.add)
    except (ClaimError, DocumentError, DeviceError, expectations.ExpectationError, ApartError) as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{path} can't be written: {error.strerror}", file=sys.stderr)
        return 2
    print("\n".join([*said, f"written: {path}"]) if said else f"{path} says what is so")
    return 0


def _replay(options: argparse.Namespace) -> int:
    from .verdicts.apart import serve

    return serve()


def _tell(options: argparse.Namespace) -> int:
    from .verdicts import ci, ledger

    tell = {"badge": ci.badge, "summary": ci.summary, "annotations": ci.annotations}[options.command]
    try:
        print(tell(*(ledger.read(path) for path in (options.ledger, options.against) if path)), end="")
    except ledger.LedgerError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _release(text: str) -> Version:
    from packaging.version import InvalidVersion, Version

    try:
        return Version(text)
    except InvalidVersion:
        raise argparse.ArgumentTypeError(f"{text!r} is no release; one is written like 2.6.0") from None


def _bisect(options: argparse.Namespace) -> int:
    from .verdicts import bisect

    claim = _claim(options.claim)
    if claim is None:
        return 2
    say = functools.partial(print, flush=True)
    try:
        environments = bisect.pythons(options.python_for)
        found = bisect.search(
            claim, options.good, options.bad, environments, options.releases, options.device, say, options.imports
        )
    except bisect.BisectError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped before the release was found", file=sys.stderr)
        return 130
    if isinstance(found, str):
        print(found, file=sys.stderr)
        return 1
    print("\n" + bisect.as_text(found), end="")
    return 0


def _claim(name: str) -> Claim | None:
    """The claim that has or had this id; None, and a sentence to the user, if there is none."""
    from .verdicts import pages

    claims = pages.claims()
    claim = claims.get(name) or next((c for c in claims.values() if name in c.formerly), None)
    if claim is None:
        close = difflib.get_close_matches(name, claims, 3, 0.5)
        hint = f"; is it {' or '.join(close)}?" if close else ""
        print(f"there is no claim {name}{hint}", file=sys.stderr)
    return claim


def _show(options: argparse.Namespace) -> int:
    import torch

    from .documents import statements
    from .kit.world import World
    from .verdicts import pages, profiles
    from .verdicts.decide import decide
    from .verdicts.devices import DeviceError, find
    from .verdicts.expectations import ExpectationError, takes_down
    from .verdicts.script import script

    claim = _claim(options.claim)
    if claim is None:
        return 2
    try:
        imports = find([], [options.device], options.imports).imports
    except DeviceError as error:
        print(error, file=sys.stderr)
        return 2
    lines = [claim.sentence, f"{claim.id}, {claim.standing}{', made ' + claim.releases if claim.releases else ''}"]
    for identity in claim.cites:
        cited = statements()[identity]
        lines.append(f"{identity}: {cited.says} ({cited.where}) Finding: {cited.finding}. {cited.why}".rstrip())
    if not INSTALLED:
        lines.append(pages.verified(claim))
    for line in lines:  # as comments, so that the output can be run
        print(textwrap.fill(line, 98, initial_indent="# ", subsequent_indent="#   "))
    world = World(torch.device(options.device), imports)
    try:
        reason = claim.why_not_applicable(world) or takes_down(claim, options.device)
    except ExpectationError as error:
        print(error, file=sys.stderr)
        return 2
    if reason:
        print(f"# No example here: {reason}.")
        return 0
    profiles.load("quick", shrink=False, examples=1)
    print(script(claim, world, decide(claim, world).example, "an example"), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
