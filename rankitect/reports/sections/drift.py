"""The change of quality from day to day, or week to week, as the rows allow."""

from __future__ import annotations

from collections.abc import Sequence

from rankitect.production.change import FEWEST, SliceChange, changes_by_time, heterogeneity
from rankitect.production.evidence import Evidence
from rankitect.reports.cards import DASH, Cell, Status, Table
from rankitect.reports.case import Case
from rankitect.reports.numbers import plural
from rankitect.reports.rows import SHOWN, SIGNIFICANT, RowsSection, change_cells, forest
from rankitect.reports.section import Facts


class DriftSection(RowsSection):
    """Whether the gain fades with the distance from the training data."""

    id, short, order = "drift", "Drift", 50
    judges_quality = True
    needs = "days"

    def facts_of_rows(self, case: Case, evidence: Evidence) -> Facts:
        """Test whether the change is the same in every period with enough rows."""
        if evidence.days is None:
            return Facts.missing("timestamps")
        periods = changes_by_time(evidence, *case.prints)
        tested = [p for p in periods if p.change is not None]
        period = periods[0].slicing if periods else "day"
        words: dict[str, object] = {"period": period, "tested": len(tested), "fewest": FEWEST}
        if len(tested) < 2:
            return Facts.missing("periods", **words)
        changes = [p.change for p in tested if p.change is not None]
        p_value = heterogeneity(changes)
        differ = p_value is not None and p_value < SIGNIFICANT
        words |= {"title": case.titles[0], "better": sum(c.value < 0 for c in changes), "p": p_value, "differ": differ}
        table = Table((period.capitalize(), "Rows", "Change", "p"), _rows(periods, period))
        return Facts(Status.WARN if differ else Status.PASS, words, (table,), (forest(tested[-SHOWN:]),))


def _rows(periods: Sequence[SliceChange], period: str) -> tuple[tuple[Cell, ...], ...]:
    """What was tested, and in one row what was too small."""
    rows = [change_cells(p) for p in periods if p.change is not None]
    if small := [p for p in periods if p.change is None]:
        count = sum(p.rows for p in small)
        text = f"{plural(len(small), f'smaller {period}')}, not tested"
        rows.append((Cell(text), Cell(f"{count:,}", count), DASH, DASH))
    return tuple(rows)


SECTION = DriftSection()
