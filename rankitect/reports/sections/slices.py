"""The change of quality in every slice of the rows, corrected for how many are looked at."""

from __future__ import annotations

from collections.abc import Sequence

from rankitect.production.change import CONFIDENCE, FEWEST, SliceChange
from rankitect.production.evidence import Evidence
from rankitect.reports.cards import DASH, Cell, Status, Table
from rankitect.reports.case import Case
from rankitect.reports.rows import SHOWN, RowsSection, change_cells, forest, significant
from rankitect.reports.section import Facts

_WORSE = 0.05
"""Change of the quality in a slice that is bearable where no gate says otherwise."""


class SlicesSection(RowsSection):
    """Whether the candidate is worse for some part of the rows."""

    id, short, order = "slices", "Slices", 40
    judges_quality = True
    needs = "slices"

    def facts_of_rows(self, case: Case, evidence: Evidence) -> Facts:
        """Test every slice with enough rows."""
        tested = [s for s in case.slices if s.change is not None]
        if not tested:
            return Facts.missing("slices", fewest=FEWEST)
        worse = [s.name for s in tested if significant(s) and s.change is not None and s.change.value > 0]
        better = [s.name for s in tested if significant(s) and s.change is not None and s.change.value < 0]
        bearable = _bearable(case)
        changes = [s.change for s in tested if s.change is not None]
        words = {
            "names": case.names,
            "tested": len(tested),
            "small": len(case.slices) - len(tested),
            "fewest": FEWEST,
            "confidence": CONFIDENCE,
            "worse": worse,
            "better": better,
            "worst": tested[0],
            "bearable": bearable,
            "beyond": sum(change.high > bearable for change in changes),
            "single_seed": any(min(change.seeds) < 2 for change in changes),
        }
        doubt = worse or words["beyond"] or words["single_seed"]
        table = Table(("Slice", "Rows", "Change", "p", "q"), tuple((*change_cells(s), _q_cell(s)) for s in case.slices))
        return Facts(Status.WARN if doubt else Status.PASS, words, (table,), (forest(_extremes(tested)),))


def _bearable(case: Case) -> float:
    """The change that the gate on the worst slice allows."""
    limits = (g.at_most for g in case.gates.values() if g.metric == "worst_slice" and g.at_most is not None)
    return next(limits, _WORSE)


def _extremes(tested: Sequence[SliceChange]) -> list[SliceChange]:
    """The worst and the best, where there are too many to draw."""
    return list(tested) if len(tested) <= SHOWN else [*tested[: SHOWN // 2], *tested[-SHOWN // 2 :]]


def _q_cell(part: SliceChange) -> Cell:
    return DASH if part.change is None or part.q_value is None else Cell(f"{part.q_value:.3f}", part.q_value)


SECTION = SlicesSection()
