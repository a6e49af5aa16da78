"""`python -m rankitect.reports FOLDER`: write the report of a run folder again."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rankitect.errors import RankitectError
from rankitect.reports import write_report


def main(arguments: Sequence[str] | None = None) -> int:
    """Rebuild the report of one run folder.

    Args:
        arguments: The command line without the program's name; the process's own when None.

    Returns:
        The exit code: 0, or 2 when the folder cannot be reported on (the reason goes to standard error).
    """
    parser = argparse.ArgumentParser(prog="python -m rankitect.reports", description="Write a search's report again.")
    parser.add_argument("folder", type=Path, help="the run folder: where summary.json is")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    given = parser.parse_args(arguments)
    try:
        page = write_report(given.folder)
    except RankitectError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: the report of {given.folder} cannot be written: {error}.", file=sys.stderr)
        return 2
    if not given.quiet:
        print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
