"""Reports: one page that says what a search found, what it cost and whether it beat the plain baselines."""

from __future__ import annotations

from pathlib import Path

__all__ = ["write_report"]


def write_report(folder: Path | str) -> Path:
    """Write the report of a search into its run folder.

    Reads `summary.json`, `trials.csv`, `config.yaml` and `candidates/*/graph.svg`; writes `report/index.html` (one file
    that opens offline), `report/report.md` and `report/report.json` (every number shown).

    Args:
        folder: The run folder of a search.

    Returns:
        The path of `report/index.html`.

    Raises:
        RunFolderError: The folder is not a run folder, or its summary or table of trials is damaged.
    """
    # Imported on use: `rankitect.reports.graph_picture` is also called by light code that needs no template engine.
    from rankitect.reports.page import write_report as write

    return write(Path(folder))
