"""The command `python -m rankitect.verify`: does a report still say what its run folder says?

    python -m rankitect.verify runs/my-run/report

Recomputes what is cheap: the hash over architecture, code, configuration, data, seeds and versions; the checksums of
all files that numbers come from; the fingerprints; and every number of every section.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rankitect.errors import RankitectError, RunFolderError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify one report.

    Args:
        arguments: The command line without the program's name; the process's own when None.

    Returns:
        The exit code: 0, 1 where something differs, 2 where there is no report to verify.
    """
    parser = argparse.ArgumentParser(prog="python -m rankitect.verify", description="Verify a report.")
    parser.add_argument("report", type=Path, help="the report's folder or report.json, or its run folder")
    options = parser.parse_args(arguments)
    from rankitect.reports.page import verified

    try:
        path = _report(options.report.resolve())
        checks = verified(path.parent.parent, _read(path))
    except RankitectError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    for check in checks:
        print(f"{'ok  ' if check.ok else 'FAIL'}  {check.name:<14} {check.found}")
    return 0 if all(check.ok for check in checks) else 1


def _report(given: Path) -> Path:
    """The report.json that is meant."""
    for path in (given, given / "report.json", given / "report" / "report.json"):
        if path.is_file():
            return path if path.name == "report.json" else path.with_name("report.json")
    raise RunFolderError(f"{given} holds no report. Give a run folder, its report folder, or report.json.")


def _read(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path} cannot be read ({error}). Write the report again.") from error
    if not isinstance(found, dict) or not {"cards", "tiles", "compared"} <= found.keys():
        raise RunFolderError(f"{path} is no report of this version. Write the report again.")
    return found


if __name__ == "__main__":
    sys.exit(main())
