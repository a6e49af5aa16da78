"""Predicted against observed clicks, overall and by tenth, and what recalibration would change."""

from __future__ import annotations

from collections.abc import Sequence

from rankitect.metrics.intervals import Estimate
from rankitect.production.calibration import Bucket, Calibration, calibration
from rankitect.production.evidence import Evidence
from rankitect.production.gates import GateResult, Observed, judge
from rankitect.production.settings import GateConfig
from rankitect.reports.cards import Cell, Table
from rankitect.reports.case import Case
from rankitect.reports.figures.intervals import reliability_figure
from rankitect.reports.numbers import signed_percent
from rankitect.reports.rows import OUTCOMES, RowsSection
from rankitect.reports.section import Facts

_RIGHT = GateConfig(metric="calibration", of="value", at_least=0.9, at_most=1.1)
"""Predicted over observed clicks that is right enough where no gate says otherwise, as in the guardrail of a ramp."""


class CalibrationSection(RowsSection):
    """Whether predictions are right on average, overall and in each tenth of the rows."""

    id, short, order = "calibration", "Calibration", 30
    judges_quality = True
    needs = "predicted click rate"

    def facts_of_rows(self, case: Case, evidence: Evidence) -> Facts:
        """Measure the calibration of both models and judge the candidate's."""
        measured = [calibration(evidence, f) for f in case.prints]
        ratio = measured[0].ratio
        observed = Observed(ratio.value, *ratio.interval(), ratio.vague)
        result = _result(case, observed)
        words = {
            "names": case.names,
            "title": case.titles[0],
            "observed": observed,
            "production": measured[1].ratio.value,
            "outcome": result.outcome,
            "why": result.reason,
            "bounds": result.gate.bound_text(signed=False),
            "gated": bool(result.name),
        }
        models = zip(case.names, measured, strict=True)
        curves = [(name, [(b.predicted, b.observed) for b in c.buckets]) for name, c in models]
        tables = (_measures(case, measured), _tenths(case, measured[0]))
        return Facts(OUTCOMES[result.outcome], words, tables, (reliability_figure(curves),))


def _result(case: Case, observed: Observed) -> GateResult:
    """What came of the gate on calibration, or of the usual limits where there is no such gate."""
    gated = (r for r in case.results if (r.gate.metric, r.gate.of) == ("calibration", "value"))
    return next(gated, None) or judge({"": _RIGHT}, {("calibration", "value"): observed}, {})[0]


def _measures(case: Case, measured: Sequence[Calibration]) -> Table:
    rows = (
        (Cell("Predicted over observed"), *(_ratio_cell(c.ratio) for c in measured)),
        (Cell("Expected calibration error"), *(Cell(f"{c.expected_error:.4f}", c.expected_error) for c in measured)),
        (Cell("Normalized entropy"), *(Cell(f"{c.entropy:.4f}", c.entropy) for c in measured)),
        (Cell("… after the best recalibration"), *map(_recalibrated_cell, measured)),
    )
    return Table(("Measure", *case.titles), rows, sortable=False)


def _recalibrated_cell(measured: Calibration) -> Cell:
    entropy = measured.recalibrated_entropy
    return Cell(f"{entropy:.4f}", entropy, note=signed_percent(entropy / measured.entropy - 1))


def _tenths(case: Case, measured: Calibration) -> Table:
    columns = ("Tenth", "Rows", "Predicted", "Observed", "Predicted over observed")
    rows = tuple(_tenth(place, bucket) for place, bucket in enumerate(measured.buckets, 1))
    return Table(columns, rows, caption=f"Tenths of the rows by the prediction of {case.names[0]}")


def _tenth(place: int, bucket: Bucket) -> tuple[Cell, ...]:
    return (
        Cell(str(place), place),
        Cell(f"{bucket.rows:,}", bucket.rows),
        Cell(f"{bucket.predicted:.4f}", bucket.predicted),
        Cell(f"{bucket.observed:.4f}", bucket.observed),
        Cell("–", note="no click") if bucket.ratio is None else _ratio_cell(bucket.ratio),
    )


def _ratio_cell(ratio: Estimate) -> Cell:
    note = "two seeds or users: no interval" if ratio.vague else "{:.3f} to {:.3f}".format(*ratio.interval())
    return Cell(f"{ratio.value:.3f}", ratio.value, note=note)


SECTION = CalibrationSection()
