"""How much of the ranking would change, beside what training the production model again would change."""

from __future__ import annotations

from rankitect.production.calibration import Agreement, agreement
from rankitect.production.evidence import Evidence
from rankitect.reports.cards import DASH, Cell, Status, Table
from rankitect.reports.case import Case
from rankitect.reports.numbers import as_percent
from rankitect.reports.rows import RowsSection
from rankitect.reports.section import Facts

_ALIKE = 1.5
"""Times as many pairs as retraining production reorders that are still as good as none."""


class AgreementSection(RowsSection):
    """What users would notice: how many pairs of rows change places."""

    id, short, order = "agreement", "Agreement", 60
    judges_quality = True
    needs = "scores to order"

    def facts_of_rows(self, case: Case, evidence: Evidence) -> Facts:
        """Compare the order of both models' scores."""
        measured = agreement(evidence, *case.prints)
        words = {
            "title": case.titles[0],
            "production": case.names[1],
            "agreement": measured,
            "whose": _whose(measured),
            "alike": _ALIKE,
        }
        alike = measured.noise is not None and measured.reordered <= _ALIKE * measured.noise
        return Facts(Status.PASS if alike else Status.WARN, words, (_table(measured),))


def _whose(measured: Agreement) -> str:
    return "one user's rows" if measured.within else "rows"


def _table(measured: Agreement) -> Table:
    noise = DASH if measured.noise is None else Cell(as_percent(measured.noise), measured.noise)
    rows = (
        (Cell("Rank correlation of scores (Spearman)"), Cell(f"{measured.correlation:.3f}", measured.correlation)),
        (Cell("Mean difference of predicted rates"), Cell(f"{measured.difference:.4f}", measured.difference)),
        (
            Cell(f"Pairs of {_whose(measured)} in another order"),
            Cell(as_percent(measured.reordered), measured.reordered),
        ),
        (Cell("… between two seeds of production"), noise),
    )
    return Table(("Measure", "Value"), rows, sortable=False)


SECTION = AgreementSection()
