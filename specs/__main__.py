"""Commands of the suite: `python -m specs pages` writes the generated pages."""

from __future__ import annotations

import argparse
import sys


def main() -> int:
    """Run the command that the arguments name; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m specs", description="Commands of the conformance suite.")
    commands = parser.add_subparsers(dest="command", required=True)
    pages_command = commands.add_parser("pages", help="write the pages that are made of specs, documents, ledgers")
    pages_command.add_argument("--check", action="store_true", help="only say which ones are stale")
    options = parser.parse_args()

    try:
        from .documents import DocumentError
        from .kit.claim import ClaimError
        from .verdicts import pages
        from .verdicts.ledger import LedgerError
    except ModuleNotFoundError as error:
        print(f"{sys.executable} has no {error.name}: pip install {error.name}", file=sys.stderr)
        return 1
    try:
        changed = pages.stale() if options.check else pages.write()
    except (ClaimError, DocumentError, LedgerError) as error:
        print(error, file=sys.stderr)
        return 1
    for path in changed:
        print(("stale: " if options.check else "written: ") + str(path.relative_to(pages.ROOT)))
    return int(options.check and bool(changed))


if __name__ == "__main__":
    sys.exit(main())
