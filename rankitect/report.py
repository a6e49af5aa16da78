"""The command `python -m rankitect.report`: the report of a run, one candidate against production.

python -m rankitect.report run=runs/my-run baseline=dcnv2 candidate=2
"""

from __future__ import annotations

import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Mapping, Sequence

from rankitect.command_line import keys_help, pairs
from rankitect.errors import ConfigError
from rankitect.terminal import Parser, answered, ended, say

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
        The exit code: 0; 2 when there is nothing to report on, 3 for a full disk (standard error says why).
    """
    parser = Parser(
        prog="python -m rankitect.report",
        description="Write a search's report again: one HTML file that opens offline, report.md and report.json.",
        epilog=keys_help(_KEYS),
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("keys", nargs="+", metavar="key=value", help="run=FOLDER, and optionally others")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    options = parser.parse_intermixed_args(arguments)
    return answered(lambda: _write(pairs(options.keys, _KEYS), options.quiet))


def _write(given: Mapping[str, str], quiet: bool) -> int:
    if "run" not in given:
        raise ConfigError("run=FOLDER is missing: the folder that a search printed as its run folder.")
    from rankitect.reports import write_report
    from rankitect.reports.sections import named_sections

    sections = named_sections(given.get("sections", ""))
    page = write_report(given["run"], given.get("baseline"), given.get("candidate"), sections)
    if not quiet:
        say(page)
    return 0


if __name__ == "__main__":
    sys.exit(ended(main))
