"""Latencies as the search predicted them, and as they were measured on whole exported programs."""

from __future__ import annotations

from typing import TypeAlias

from rankitect.reports.cards import DASH, Cell, Status, Table
from rankitect.reports.figures.latency import latency_figure
from rankitect.reports.latencies import ProgramLatency, latencies_of
from rankitect.reports.material import Material
from rankitect.reports.numbers import as_value, compact, readable_name, signed_percent
from rankitect.reports.section import Facts, Section
from rankitect.study.summary import CandidateSummary

_AGREED = 0.05
"""Difference between predicted and measured latency that is as good as none."""
_DELEGATED = 0.9
"""Share of operators below which a program is only partly accelerated, and slower than its layers promise."""
_LOST = 0.02
"""Relative loss of quality against the model in floats from which on a program is warned of."""
_COLUMNS = (
    "Candidate",
    "Latency",
    "Predicted, ms",
    "Measured, ms",
    "Difference",
    "p90, ms",
    "p99, ms",
    "Tokens a second",
    "Loading, ms",
    "First run, ms",
    "Peak memory",
)
_Row: TypeAlias = tuple[CandidateSummary, str, ProgramLatency]


class LatencySection(Section):
    """Predicted beside measured latency; only in the report of a run whose programs were measured."""

    id, short, order = "latency", "Latency", 140

    def facts(self, material: Material) -> Facts | None:
        """Hold every prediction against its measurement."""
        measured = latencies_of(material.run)
        if not measured:
            return None
        rows: list[_Row] = [(c, name, one) for c, each in measured for name, one in each.latencies.items()]
        errors = [abs(one.error) for _, _, one in rows if one.error is not None]
        words = {
            "count": len(rows),
            "errors": errors,
            "worst": max(errors, default=0.0),
            "agreed": _AGREED,
            "lost": _LOST,
            "untrusted": sum(not one.trusted for _, _, one in rows),
            "partly": [c.rank for c, each in measured if each.delegated is not None and each.delegated < _DELEGATED],
            "device": ", ".join(measured[0][1].device.values()),
        }
        worse = [
            {"rank": c.rank, "precision": each.precision, **each.quality.model_dump(), "whole": each.quality.whole}
            for c, each in measured
            if each.quality is not None and (each.quality.change or 0.0) > _LOST
        ]
        words["worse"] = max(worse, key=lambda one: float(one["change"]), default=None)
        words["compared"] = sum(each.quality is not None and each.quality.change is not None for _, each in measured)
        doubt = max(errors, default=0.0) > _AGREED or words["untrusted"] or words["partly"] or worse
        table = Table(_COLUMNS, tuple(_cells(*row) for row in rows))
        figures = (latency_figure(rows),) if errors else ()
        return Facts(Status.WARN if doubt else Status.PASS, words, (table,), figures)


def _cells(candidate: CandidateSummary, name: str, one: ProgramLatency) -> tuple[Cell, ...]:
    low, high = one.predicted_interval_ms or (None, None)
    m, error = one.measured, one.error
    tone = "good" if error is not None and abs(error) <= _AGREED else "bad"
    return (
        Cell(str(candidate.rank), candidate.rank),
        Cell(readable_name(name.removesuffix("_ms"))),
        _number(one.predicted_ms, note="" if low is None or high is None else f"{compact(low)} to {compact(high)}"),
        _number(m.p50, note="" if one.trusted else "not settled, or machine busy"),
        DASH if error is None else Cell(signed_percent(error), error, tone=tone),
        _number(m.p90),
        _number(m.p99),
        _number(one.tokens_per_second),
        _number(m.load_ms),
        _number(m.first_ms),
        Cell(as_value(m.peak_bytes, "bytes"), m.peak_bytes),
    )


def _number(value: float | None, note: str = "") -> Cell:
    return DASH if value is None else Cell(compact(value), value, note=note)


SECTION = LatencySection()
