"""By how much the quality differs from production, with the spread over rows and that over training seeds apart."""

from __future__ import annotations

from rankitect.production.change import Change
from rankitect.production.gates import Observed
from rankitect.reports.cards import DASH, Cell, Status, Table
from rankitect.reports.case import Case
from rankitect.reports.numbers import as_value, percent_range, possible, readable_name, signed_percent
from rankitect.reports.section import Facts, ProductionSection
from rankitect.study.summary import MetricSummary

_SEEDS = 3
"""Training seeds from which on the spread between them can be told from luck."""


class QualitySection(ProductionSection):
    """By how much the quality differs, over the same rows where the run keeps them."""

    id, short, order = "quality", "Quality", 20
    judges_quality = True

    def facts_of(self, case: Case) -> Facts:
        """Compare all metrics of both models that are no costs."""
        name = case.roles.quality.name
        words: dict[str, object] = {"names": case.names, "metric": name, "paired": case.paired, "enough": _SEEDS}
        table = Table(
            ("Metric", "Change", *case.titles), tuple(_metric_row(case, n) for n in _qualities(case)), sortable=False
        )
        change = case.change
        if name in case.run.answers and (relative := case.relative(name)) is not None:
            separated = relative.low > 0 or relative.high < 0
            better = case.roles.sign * relative.value > 0
            words |= {"answered": True, "relative": relative, "separated": separated, "better": better}
            return Facts(Status.WARN if not separated else Status.PASS if better else Status.FAIL, words, (table,))
        if not case.paired or change is None or case.evidence is None:
            return Facts(Status.WARN, words, (table,))
        few = min(change.seeds) < _SEEDS
        clear = Status.PASS if change.value < 0 else Status.FAIL
        words |= {"change": change, "seeds": min(change.seeds), "examples": case.evidence.examples}
        words |= {"clusters": case.evidence.clusters_named, "few": few}
        status = Status.WARN if few or not change.separated else clear
        return Facts(status, words, (table, _spread_table(change, case.evidence.examples)))


def _qualities(case: Case) -> list[str]:
    """The metrics of both models that are no costs, the quality first; what a search went by has its held-out twin."""
    gone_by = {o.name for o in case.run.summary.objectives if o.held_out is not None}
    names = [n for n, m in case.candidate.metrics.items() if m.role != "cost" and n not in gone_by]
    wanted = dict.fromkeys((case.roles.quality.name, *names))
    return [n for n in wanted if n in case.candidate.metrics and n in case.production.metrics]


def _metric_row(case: Case, name: str) -> tuple[Cell, ...]:
    relative, note = case.relative(name), ""
    if case.change is not None and case.evidence is not None and name == case.evidence.metric:
        relative = Observed(case.change.value, case.change.low, case.change.high, case.change.vague)
        ends = "two training seeds: no interval" if relative.vague else percent_range(relative.low, relative.high)
        note = f"{ends}, paired"
    elif relative is not None and name in case.run.answers and not relative.vague:
        note = f"{percent_range(relative.low, relative.high)}, paired"
    change = DASH if relative is None else Cell(signed_percent(relative.value), relative.value, note=note)
    models = (case.candidate.metrics[name], case.production.metrics[name])
    return Cell(readable_name(name)), change, *(_value_cell(name, metric) for metric in models)


def _value_cell(name: str, metric: MetricSummary) -> Cell:
    note = " to ".join(as_value(end, metric.unit) for end in possible(name, metric.interval) or ())
    return Cell(as_value(metric.value, metric.unit), metric.value, note=note)


def _spread_table(change: Change, examples: str) -> Table:
    """How much of the error is due to the rows that were tested, and how much to the seeds that were trained."""
    single = change.seeds == (1, 1)
    seeds = "one seed each" if single else f"{change.seeds[0]} and {change.seeds[1]} seeds"
    seeding = Cell("unknown") if change.seeding is None else _error_cell(change.seeding)
    over = f"{change.rows:,} {examples}" + (f", {change.clusters:,} clusters" if change.clusters else "")
    return Table(
        ("Source", "Standard error of the change", "Over"),
        (
            (Cell("Which rows were tested"), _error_cell(change.sampling), Cell(over)),
            (Cell("Which seeds were trained"), seeding, Cell(seeds)),
        ),
        caption="Where the uncertainty comes from",
        sortable=False,
    )


def _error_cell(error: float) -> Cell:
    return Cell(f"±{100 * error:.2g}%", error)


SECTION = QualitySection()
