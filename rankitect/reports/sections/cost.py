"""What the candidate and the production model cost to hold and to run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rankitect.production.gates import GateResult, Outcome
from rankitect.reports.cards import DASH, Cell, Status, Table
from rankitect.reports.case import Case
from rankitect.reports.latencies import ProgramLatency, measured_latencies
from rankitect.reports.numbers import as_value, compact, readable_name, signed_percent
from rankitect.reports.rows import OUTCOMES
from rankitect.reports.section import Facts, ProductionSection


class CostSection(ProductionSection):
    """All metrics that are costs, and the latencies of the exported program."""

    id, short, order = "cost", "Cost", 70

    def facts_of(self, case: Case) -> Facts:
        """Compare the costs of both models."""
        names = [name for name, metric in case.candidate.metrics.items() if metric.role == "cost"]
        table = Table(("Cost", *case.titles, "Change"), tuple(_row(case, name) for name in names), sortable=False)
        programs = [measured_latencies(case.run, model) for model in (case.candidate, case.production)]
        cost = case.roles.cost
        words = {
            "names": case.names,
            "title": case.titles[0],
            "cost": cost.name if cost else "",
            "change": case.relative(cost.name) if cost else None,
            "exported": [bool(measured) for measured in programs],
            "timed": [latency.name for latency in case.latencies],
            "failed": [r.name for r in self._gates(case) if r.outcome is Outcome.FAIL],
            "known": any(name in case.production.metrics for name in names),
        }
        status = Status.PASS if case.latencies else Status.NA if programs[0] else Status.WARN
        judged = self._judged(case)
        if status is Status.PASS or judged is Status.FAIL:
            status = judged
        return Facts(status, words, (table, *_programs(case, programs)))

    @staticmethod
    def _gates(case: Case) -> list[GateResult]:
        """What came of the gates on costs."""
        return [r for r in case.results if case.is_cost(r.gate.metric) and r.outcome is not Outcome.NA]

    @classmethod
    def _judged(cls, case: Case) -> Status:
        """As the worst of the gates on costs: a cost is not called right where a gate on it is not passed."""
        outcomes = [r.outcome for r in cls._gates(case)]
        order = [Status.FAIL, Status.WARN, Status.PASS]
        statuses = [Status.WARN if o is Outcome.MISSING else OUTCOMES[o] for o in outcomes]
        return min(statuses, key=order.index, default=Status.PASS)


def _row(case: Case, name: str) -> tuple[Cell, ...]:
    ours, theirs, change = case.candidate.metrics[name], case.production.metrics.get(name), case.relative(name)
    tone = "" if change is None or change.value == 0 else "good" if change.value < 0 else "bad"
    return (
        Cell(readable_name(name)),
        Cell(as_value(ours.value, ours.unit), ours.value),
        DASH if theirs is None else Cell(as_value(theirs.value, theirs.unit), theirs.value),
        DASH if change is None else Cell(signed_percent(change.value), change.value, tone=tone),
    )


def _programs(case: Case, programs: Sequence[Mapping[str, ProgramLatency]]) -> Iterator[Table]:
    """What was measured on the exported programs, a table for each latency."""
    for name in dict.fromkeys(name for measured in programs for name in measured):
        rows = []
        for title, measured in zip(case.titles, programs, strict=True):
            if name in measured:
                spans = measured[name].measured
                cells = (Cell(f"{compact(ms)} ms", ms) for ms in (spans.p50, spans.p90, spans.p99))
                rows.append((Cell(title), *cells))
        yield Table(
            ("Model", "p50", "p90", "p99"),
            tuple(rows),
            caption=f"{readable_name(name.removesuffix('_ms'))}, measured on exported programs",
            sortable=False,
        )


SECTION = CostSection()
