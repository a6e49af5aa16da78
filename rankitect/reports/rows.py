"""What the sections have in common that look at single rows of the test data."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from rankitect.production.change import PERIODS, SliceChange
from rankitect.production.evidence import Evidence
from rankitect.production.gates import Outcome
from rankitect.reports.cards import DASH, Cell, Figure, Status
from rankitect.reports.case import Case
from rankitect.reports.figures.intervals import ForestRow, intervals_figure
from rankitect.reports.numbers import percent_range, signed_percent
from rankitect.reports.section import Facts, ProductionSection

__all__ = ["OUTCOMES", "SHOWN", "SIGNIFICANT", "RowsSection", "change_cells", "forest", "significant"]

OUTCOMES = {Outcome.PASS: Status.PASS, Outcome.FAIL: Status.FAIL, Outcome.OPEN: Status.WARN, Outcome.MISSING: Status.NA}
"""The status of a section that a gate decides."""
SHOWN = 24
"""Slices or periods that are drawn; the table has all."""
SIGNIFICANT = 0.05
"""Level of a test, and share of false alarms that is borne."""


class RowsSection(ProductionSection):
    """A section that needs the label of every row and what both models predict for it.

    Attributes:
        needs: What data without labels do not have, in the words of the section.
    """

    needs: ClassVar[str]

    def facts_of(self, case: Case) -> Facts:
        """Compute what the section says, or say what the run does not keep."""
        evidence = case.evidence
        if evidence is None:
            return Facts.missing("the run keeps no rows of both models: repeat the search's command with this version.")
        if evidence.labels is None:
            return Facts.missing(f"{evidence.examples} have no {self.needs}.")
        return self.facts_of_rows(case, evidence)

    @abstractmethod
    def facts_of_rows(self, case: Case, evidence: Evidence) -> Facts:
        """Compute what the section says of these rows."""


def significant(part: SliceChange) -> bool:
    """Whether a change is clear for all that so many parts are looked at."""
    return part.q_value is not None and part.q_value < SIGNIFICANT


def change_cells(part: SliceChange) -> tuple[Cell, ...]:
    """A row of a table: the part, its rows, the change with its interval, and p."""
    name = part.part if part.slicing in PERIODS else part.name
    cells = (DASH, DASH)
    if part.change is not None:
        change = part.change
        tone = ("good" if change.value < 0 else "bad") if significant(part) else ""
        note = "two seeds or users: no interval" if change.vague else percent_range(change.low, change.high)
        cells = (
            Cell(signed_percent(change.value), change.value, note=note, tone=tone),
            Cell(f"{change.p_value:.3f}", change.p_value),
        )
    return Cell(name, name), Cell(f"{part.rows:,}", part.rows), *cells


def forest(parts: Sequence[SliceChange]) -> Figure:
    """The change in each part with its interval, one below the other."""
    rows = [
        ForestRow(
            part.name if part.slicing not in PERIODS else part.part,
            part.change.value,
            part.change.low,
            part.change.high,
            "" if not part.change.separated else "good" if part.change.value < 0 else "bad",
        )
        for part in parts
        if part.change is not None
    ]
    caption = "" if len(rows) == len(parts) and len(rows) < SHOWN else "The worst and the best; the table has all."
    return intervals_figure(rows, "Change of the quality, below 0 is better", signed_percent, caption=caption)
