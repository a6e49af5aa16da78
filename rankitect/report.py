"""The command `python -m rankitect.report`: the report of a run, one candidate against production.

python -m rankitect.report run=runs/my-run baseline=dcnv2 candidate=2
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rankitect.command_line import ended, keys_help, pairs
from rankitect.errors import RankitectError, brief

__all__ = ["main"]

_KEYS = {
    "run": "the run folder",
    "baseline": "name of the production model; by default report.baseline, else as docs/production.md says",
    "candidate": "rank or fingerprint of the candidate; by default the one with the best verdict",
    "sections": "classes of sections of your own, with commas between: my_package.my_module.MySection",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a run's report again.

    Args:
        arguments: The command line without the program's name; the process's own when None.

    Returns:
        The exit code: 0; 2 when there is nothing to report on, 3 when the disk is full (the reason goes to standard
        error).
    """
    parser = argparse.ArgumentParser(
        prog="python -m rankitect.report",
        description="Write a search's report again: one HTML file that opens offline, report.md and report.json.",
        epilog=keys_help(_KEYS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("keys", nargs="+", metavar="key=value", help="run=FOLDER, and optionally others")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    options = parser.parse_intermixed_args(arguments)
    try:
        given = pairs(options.keys, _KEYS)
    except RankitectError as error:
        return _wrong(str(error))
    if "run" not in given:
        return _wrong("run=FOLDER is missing: the folder that a search printed as its run folder.")
    from rankitect.reports import write_report
    from rankitect.reports.sections import named_sections

    try:
        sections = named_sections(given.get("sections", ""))
        page = write_report(given["run"], given.get("baseline"), given.get("candidate"), sections)
    except RankitectError as error:
        return ended(error)
    except OSError as error:
        return ended(error, f"the report of {brief(given['run'])} cannot be written: {error}.")
    if not options.quiet:
        print(page)
    return 0


def _wrong(text: str) -> int:
    print(f"Error: {text}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
