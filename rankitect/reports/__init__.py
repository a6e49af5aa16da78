"""Reports: one page that says what a search found, what it cost and whether it beat the plain baselines.

Here belongs what turns a finished run folder into pages for people. `run` reads the folder in the study's own records;
`roles`, `comparison` and `case` work out who is compared with whom; each card of the page is one file with a template
of its sentences in `sections` (which says how to add one), each chart one file in `figures`; `page` puts them together.
Nothing here measures anything or changes a run, except for its folder `report`. `method_comparison` lays several
searches side by side for `rankitect.compare`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rankitect.reports.section import Section

__all__ = ["write_report"]


def write_report(
    folder: Path | str, baseline: str | None = None, candidate: str | None = None, sections: Sequence[Section] = ()
) -> Path:
    """Write the report of a search into its run folder: a candidate against production, and the search behind it.

    Reads what the search left there; writes `report/index.html` (one file that opens offline), `report/report.md` and
    `report/report.json` (every number shown).

    Args:
        folder: The run folder of a search.
        baseline: Name of the production model; by default `report.baseline`, the newest registered model, the logged
            scores of production, the reference model (the backbone of pruned models), or the best baseline by
            validation.
        candidate: Rank or beginning of the fingerprint; by default the candidate with the best verdict.
        sections: Sections of your own (`rankitect.reports.section.Section`), beside those that every report has.

    Returns:
        The path of `report/index.html`.

    Raises:
        RunFolderError: The folder is not a run folder, or its summary or table of trials is damaged; or it has no
            such baseline or candidate.
        ConfigError: Two sections have one id.
    """
    # Imported on use: `reports.figures.graph_picture` is also called by light code that needs no template engine.
    from rankitect.reports.page import write_report as write

    return write(Path(folder), baseline, candidate, sections)
