"""The command `python -m rankitect.verify`: does a report still say what its run folder says?

    python -m rankitect.verify runs/my-run/report

Recomputes what is cheap: the hash over architecture, code, configuration, data, seeds and versions; the checksums of
all files that numbers come from; the study's file, where there is one; the fingerprints; and every number of every
section.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from rankitect.documents import as_kind, read_json
from rankitect.errors import RunFolderError, short
from rankitect.terminal import Parser, answered, ended, say

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify one report.

    Args:
        arguments: The command line without the program's name; the process's own when None.

    Returns:
        The exit code: 0, 1 where something differs, 2 where there is no report to verify.
    """
    parser = Parser(prog="python -m rankitect.verify", description="Verify a report.")
    parser.add_argument("report", type=Path, help="the report's folder or report.json, or its run folder")
    parser.add_argument("--sections", default="", help="sections of yours that it was written with, as for report")
    options = parser.parse_args(arguments)
    return answered(lambda: _verify(options.report, options.sections))


def _verify(report: Path, sections: str) -> int:
    from rankitect.reports.page import verified
    from rankitect.reports.sections import named_sections
    from rankitect.study.entries import refuse_strange

    path = _report(Path(os.path.realpath(report)))
    if (path.parent.parent / "summary.json").exists():  # its run folder
        refuse_strange(path.parent.parent)
    checks = verified(path.parent.parent, _read(path), named_sections(sections))
    for check in checks:
        say(f"{'ok  ' if check.ok else 'FAIL'}  {check.name:<14} {short(check.found, 400)}")
    return 0 if all(check.ok for check in checks) else 1


class _Asked(BaseModel):
    candidate: str | None = None
    baseline: str | None = None


class _Compared(BaseModel):
    asked: _Asked = _Asked()


class _Reproduction(BaseModel):
    files: dict[str, str] = {}


class _Card(BaseModel):
    id: str


class _Report(BaseModel):
    """What a report must have to be held against its run folder; a missing hash is told by the check itself."""

    cards: list[_Card]
    tiles: list[Any]
    compared: _Compared
    reproduction: _Reproduction = _Reproduction()
    folder: str = ""


def _report(given: Path) -> Path:
    """The report.json that is meant."""
    wanted = "Give a run folder, its report folder, or report.json."
    if not given.exists():
        raise RunFolderError(f"There is no {given}. {wanted}")
    places = (given / "report.json", given / "report" / "report.json") if given.is_dir() else (given,)
    report = next((path.with_name("report.json") for path in places if path.is_file()), None)
    if report is None or not report.is_file():
        raise RunFolderError(f"{given} is no report and has none beside or in it. {wanted}")
    return report


def _read(path: Path) -> dict[str, object]:
    again = f"Write it again: python -m rankitect.report run={shlex.quote(str(path.parent.parent))}"
    report = read_json(path, dict[str, object], RunFolderError, advice=again)
    as_kind(report, _Report, path, RunFolderError, advice=again)
    return report


if __name__ == "__main__":
    sys.exit(ended(main))
