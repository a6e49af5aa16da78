"""The sections of a production comparison that look at single rows: calibration, slices, days, agreement."""

from __future__ import annotations

from collections.abc import Sequence

from rankitect.production.calibration import Agreement, Bucket, Calibration, agreement, calibration
from rankitect.production.change import CONFIDENCE, FEWEST, PERIODS, SliceChange, changes_by_time, heterogeneity
from rankitect.production.evidence import Evidence
from rankitect.production.gates import Observed, Outcome, judge
from rankitect.production.settings import GateConfig
from rankitect.reports.cards import Card, Cell, Figure, Status, Table
from rankitect.reports.case import Case
from rankitect.reports.figures.intervals_figure import Interval, intervals_figure, reliability_figure
from rankitect.reports.numbers import as_percent, percent_range, plural, signed_percent

__all__ = ["agreement_card", "calibration_card", "drift_card", "slices_card"]

_RIGHT = GateConfig(metric="calibration", of="value", at_least=0.9, at_most=1.1)
"""Predicted over observed clicks that is right enough where no gate says otherwise, as in the guardrail of a ramp."""
_WORSE = 0.05
"""Change of the quality in a slice that is bearable where no gate says otherwise."""
_ALIKE = 1.5
"""Times as many pairs as retraining production reorders that are still as good as none."""
_SHOWN = 24
"""Slices drawn; the table has all."""
_SIGNIFICANT = 0.05


def _rows_of(case: Case | str, what: str) -> Evidence | str:
    """The rows of clicks, or why there are none."""
    if isinstance(case, str):
        return case
    if case.evidence is None:
        return "the run keeps no rows of both models: repeat the search's command with this version."
    return case.evidence if case.evidence.of_clicks else f"windows of text have no {what}."


def calibration_card(case: Case | str) -> Card:
    """Predicted against observed clicks, overall and by decile, and what recalibration would change."""
    title = "Calibration"
    evidence = _rows_of(case, "predicted click rate")
    if isinstance(evidence, str) or isinstance(case, str):
        return Card("calibration", title, "Calibration does not apply.", reason=str(evidence))
    found = [calibration(evidence, f) for f in case.prints]
    ours = found[0]
    low, high = ours.ratio.interval()
    off = ours.ratio.value - 1
    result = next((r for r in case.results if (r.gate.metric, r.gate.of) == ("calibration", "value")), None)
    if result is None:
        result = judge({"": _RIGHT}, {("calibration", "value"): Observed(ours.ratio.value, low, high)}, {})[0]
    rows = [
        _calibration_row("Predicted over observed", [_ratio_cell(c) for c in found]),
        _calibration_row(
            "Expected calibration error", [Cell(f"{c.expected_error:.4f}", c.expected_error) for c in found]
        ),
        _calibration_row("Normalized entropy", [Cell(f"{c.entropy:.4f}", c.entropy) for c in found]),
        _calibration_row(
            "… after the best recalibration",
            [
                Cell(
                    f"{c.recalibrated_entropy:.4f}",
                    c.recalibrated_entropy,
                    note=f"{signed_percent(c.recalibrated_entropy / c.entropy - 1)}",
                )
                for c in found
            ],
        ),
    ]
    tables = (
        Table(("Measure", *case.titles), tuple(rows), sortable=False),
        Table(
            ("Tenth", "Rows", "Predicted", "Observed", "Predicted over observed"),
            tuple(_bucket_row(i, b) for i, b in enumerate(ours.buckets, 1)),
            caption=f"Tenths of the rows by the prediction of {case.names[0]}",
        ),
    )
    models = [(name, [(b.predicted, b.observed) for b in c.buckets]) for name, c in zip(case.names, found, strict=True)]
    word = "many" if off > 0 else "few"
    return Card(
        "calibration",
        title,
        f"{case.titles[0]} predicts {as_percent(abs(off))} too {word} clicks, 95% interval of predicted "
        f"over observed {low:.3f} to {high:.3f}; {case.names[1]}: {found[1].ratio.value:.3f}.",
        how_to_read=(
            "A bid or a blend with other scores needs probabilities that are right on average, overall and in each "
            "tenth. Normalized entropy can fall by a mere change of scale: the last row is what is left once both "
            "models have had the best one (a line in the logit, fitted on these rows), so a difference there is one of "
            "ranking. All but the first row is of one "
            "training seed, as a live system serves one model."
        ),
        status=_STATUS[result.outcome],
        reason=f"{_WHERE[result.outcome]}: {result.gate.bound_text(False)}"
        + ("" if result.name else ", where no gate says otherwise"),
        tables=tables,
        figures=(reliability_figure(models),),
    )


_STATUS = {Outcome.PASS: Status.PASS, Outcome.FAIL: Status.FAIL, Outcome.OPEN: Status.WARN, Outcome.MISSING: Status.NA}
_WHERE = {
    Outcome.PASS: "the whole interval is within the limits",
    Outcome.FAIL: "the whole interval is outside of the limits",
    Outcome.OPEN: "undecided: the interval reaches beyond the limits",
    Outcome.MISSING: "not measured",
}


def _calibration_row(name: str, cells: Sequence[Cell]) -> tuple[Cell, ...]:
    return Cell(name), *cells


def _ratio_cell(found: Calibration) -> Cell:
    low, high = found.ratio.interval()
    return Cell(f"{found.ratio.value:.3f}", found.ratio.value, note=f"{low:.3f} to {high:.3f}")


def _bucket_row(place: int, bucket: Bucket) -> tuple[Cell, ...]:
    ratio = Cell("–", note="no click")
    if bucket.ratio is not None:
        value, low, high = bucket.ratio
        ratio = Cell(f"{value:.3f}", value, note=f"{low:.3f} to {high:.3f}")
    return (
        Cell(str(place), place),
        Cell(f"{bucket.rows:,}", bucket.rows),
        Cell(f"{bucket.predicted:.4f}", bucket.predicted),
        Cell(f"{bucket.observed:.4f}", bucket.observed),
        ratio,
    )


def slices_card(case: Case | str) -> Card:
    """The change of quality in every slice of the rows, corrected for how many are looked at."""
    title = "Slices"
    evidence = _rows_of(case, "slices")
    if isinstance(evidence, str) or isinstance(case, str):
        return Card("slices", title, "Slices do not apply.", reason=str(evidence))
    tested = [s for s in case.slices if s.change is not None]
    if not tested:
        reason = f"no categorical feature divides the rows into parts of {FEWEST} rows or more."
        return Card("slices", title, "There are no slices to look at.", reason=reason)
    worse = [s for s in tested if s.change is not None and s.change.value > 0 and _significant(s)]
    better = [s for s in tested if s.change is not None and s.change.value < 0 and _significant(s)]
    worst = tested[0]
    assert worst.change is not None
    small = len(case.slices) - len(tested)
    left = f" {plural(small, 'slice')} of fewer than {FEWEST} rows are listed but not tested." if small else ""
    status, reason = _slices_status(case, tested, worse)
    return Card(
        "slices",
        title,
        f"Of {plural(len(tested), 'slice')} the quality of {case.names[0]} is clearly worse in {len(worse)} and "
        f"clearly better in {len(better)}. The worst is {worst.name} ({signed_percent(worst.change.value)}, "
        f"{worst.rows:,} rows).{left}",
        how_to_read=(
            "Change of the mean log-loss within the slice, below 0 is better. With many slices some look bad by luck: "
            f"intervals hold for all of them together (Bonferroni, {CONFIDENCE:.0%}), and q is the share of false "
            "alarms among all slices with so small a q (Benjamini and Hochberg). A slice by training rows says how "
            "often the training data have the row's value: new users and rare items are there."
        ),
        status=status,
        reason=reason,
        tables=(Table(("Slice", "Rows", "Change", "p", "q"), tuple(_slice_row(s) for s in case.slices)),),
        figures=(_forest(_extremes(tested), "Change of the quality, below 0 is better"),),
    )


def _slices_status(case: Case, tested: Sequence[SliceChange], worse: Sequence[SliceChange]) -> tuple[Status, str]:
    """Whether any slice is worse; wide intervals and a single training seed leave that open."""
    if worse:
        return Status.WARN, f"clearly worse: {', '.join(s.name for s in worse[:5])}"
    gates = (g.at_most for g in case.gates.values() if g.metric == "worst_slice" and g.at_most is not None)
    most = next(gates, _WORSE)
    beyond = sum(s.change is not None and s.change.high > most for s in tested)
    if beyond:
        text = f"in {beyond} of {len(tested)} the interval reaches beyond {signed_percent(most)}"
        return Status.WARN, f"undecided: no slice is clearly worse, but {text}"
    if any(s.change is not None and min(s.change.seeds) < 2 for s in tested):
        return Status.WARN, "undecided: one training seed, and what another would give is not known (confirm.seeds)"
    return Status.PASS, f"in every slice the interval, corrected for their number, is below {signed_percent(most)}"


def _significant(found: SliceChange) -> bool:
    return found.q_value is not None and found.q_value < _SIGNIFICANT


def _extremes(tested: Sequence[SliceChange]) -> list[SliceChange]:
    """The worst and the best, where there are too many to draw."""
    if len(tested) <= _SHOWN:
        return list(tested)
    return [*tested[: _SHOWN // 2], *tested[-_SHOWN // 2 :]]


def _forest(slices: Sequence[SliceChange], title: str) -> Figure:
    rows = [
        Interval(
            s.name if s.slicing not in PERIODS else s.part,
            s.change.value,
            s.change.low,
            s.change.high,
            "" if not s.change.separated else "good" if s.change.value < 0 else "bad",
        )
        for s in slices
        if s.change is not None
    ]
    caption = "" if len(rows) == len(slices) and len(rows) < _SHOWN else "The worst and the best; the table has all."
    return intervals_figure(rows, title, signed_percent, caption=caption)


def _slice_row(found: SliceChange) -> tuple[Cell, ...]:
    cells = (Cell("–"), Cell("–"), Cell("–"))
    if found.change is not None:
        c = found.change
        tone = ("good" if c.value < 0 else "bad") if _significant(found) else ""
        note = percent_range(c.low, c.high)
        q = Cell("–") if found.q_value is None else Cell(f"{found.q_value:.3f}", found.q_value)
        cells = (Cell(signed_percent(c.value), c.value, note=note, tone=tone), Cell(f"{c.p_value:.3f}", c.p_value), q)
    name = found.part if found.slicing in PERIODS else found.name
    return Cell(name, name), Cell(f"{found.rows:,}", found.rows), *cells


def _period_rows(days: Sequence[SliceChange], period: str) -> tuple[tuple[Cell, ...], ...]:
    """What was tested, and in one row what was too small."""
    rows = [_slice_row(d)[:-1] for d in days if d.change is not None]
    if small := [d for d in days if d.change is None]:
        count = sum(d.rows for d in small)
        text = f"{plural(len(small), f'smaller {period}')}, not tested"
        rows.append((Cell(text), Cell(f"{count:,}", count), Cell("–"), Cell("–")))
    return tuple(rows)


def drift_card(case: Case | str) -> Card:
    """The change of quality from day to day, or week to week, as the rows allow."""
    title = "Drift"
    evidence = _rows_of(case, "days")
    if isinstance(evidence, str) or isinstance(case, str):
        return Card("drift", title, "Days do not apply.", reason=str(evidence))
    if evidence.days is None:
        reason = "the data have no timestamps (task.data.table.timestamp)."
        return Card("drift", title, "Days are not known.", reason=reason)
    days = changes_by_time(evidence, *case.prints)
    tested = [d for d in days if d.change is not None]
    period = days[0].slicing if days else "day"
    if len(tested) < 2:
        reason = f"{plural(len(tested), period)} with {FEWEST} test rows or more: drift needs two."
        return Card("drift", title, f"There are too few {period}s.", reason=reason)
    p_value = heterogeneity([d.change for d in tested if d.change is not None])
    differ = p_value is not None and p_value < _SIGNIFICANT
    ahead = sum(d.change.value < 0 for d in tested if d.change is not None)
    return Card(
        "drift",
        title,
        f"{case.titles[0]} is better in {ahead} of {plural(len(tested), period)} with {FEWEST} test rows or "
        f"more; the {period}s {'differ by more' if differ else 'do not differ by more'} than chance would make them.",
        how_to_read=(
            f"Change of the mean log-loss in each {period} (UTC), below 0 is better. A gain that fades with the "
            "distance from the training window would be gone in a live system that is retrained less often. The test "
            f"is Cochran's Q{'' if p_value is None else f', p = {p_value:.3f}'}."
        ),
        status=Status.WARN if differ else Status.PASS,
        reason=f"the change depends on the {period}" if differ else f"no sign that the change depends on the {period}",
        tables=(Table((period.capitalize(), "Rows", "Change", "p"), _period_rows(days, period)),),
        figures=(_forest(tested[-_SHOWN:], "Change of the quality, below 0 is better"),),
    )


def agreement_card(case: Case | str) -> Card:
    """How much of the ranking would change."""
    title = "Agreement with production"
    evidence = _rows_of(case, "scores to order")
    if isinstance(evidence, str) or isinstance(case, str):
        return Card("agreement", title, "Scores do not apply.", reason=str(evidence))
    found = agreement(evidence, *case.prints)
    whose = "one user's rows" if found.within else "rows"
    noise = (
        ""
        if found.noise is None
        else f"; retraining {case.names[1]} with another seed changes {as_percent(found.noise)}"
    )
    rows = [
        (Cell("Rank correlation of scores (Spearman)"), Cell(f"{found.correlation:.3f}", found.correlation)),
        (Cell("Mean difference of predicted rates"), Cell(f"{found.difference:.4f}", found.difference)),
        (Cell(f"Pairs of {whose} in another order"), Cell(as_percent(found.reordered), found.reordered)),
        (
            Cell("… between two seeds of production"),
            Cell("–" if found.noise is None else as_percent(found.noise), found.noise),
        ),
    ]
    return Card(
        "agreement",
        title,
        f"{case.titles[0]} orders {as_percent(found.reordered)} of pairs of {whose} differently{noise}.",
        how_to_read=(
            "What users would notice: the share of pairs whose order changes. Training the live model again, with "
            "another seed, changes some pairs too; that is the scale to read it by. The more changes, the more an A/B "
            "test can show, for better or worse, and the less old logs say about the new ranking. "
            f"{found.pairs:,} pairs were drawn."
        ),
        status=Status.PASS if found.noise is not None and found.reordered <= _ALIKE * found.noise else Status.WARN,
        reason=_agreement_reason(found),
        tables=(Table(("Measure", "Value"), tuple(rows), sortable=False),),
    )


def _agreement_reason(found: Agreement) -> str:
    if found.noise is None:
        return "production has one training seed, so there is no scale to read it by"
    if not found.noise > 0:
        return "retraining production changes no pair, so there is no scale to read it by"
    times = f"{found.reordered / found.noise:.1f} times what retraining production changes"
    return f"{times}; {_ALIKE:g} times or less is as good as none"
