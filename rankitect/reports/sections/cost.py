"""What the candidate and the production model cost to hold and to run."""

from __future__ import annotations

from collections.abc import Iterator

from rankitect.reports.cards import DASH, Cell, Status, Table
from rankitect.reports.case import Case
from rankitect.reports.latencies import measured_latencies
from rankitect.reports.numbers import as_value, compact, readable_name, signed_percent
from rankitect.reports.section import Facts, ProductionSection


class CostSection(ProductionSection):
    """All metrics that are costs, and the latencies of the exported program."""

    id, short, order = "cost", "Cost", 70

    def facts_of(self, case: Case) -> Facts:
        """Compare the costs of both models."""
        names = [name for name, metric in case.candidate.metrics.items() if metric.role == "cost"]
        table = Table(("Cost", *case.titles, "Change"), tuple(_row(case, name) for name in names), sortable=False)
        latencies = list(_latencies(case))
        timed = [n for n in names if n.endswith("_ms") and n in case.production.metrics] if latencies else []
        cost = case.roles.cost
        words = {
            "names": case.names,
            "title": case.titles[0],
            "cost": cost.name if cost else "",
            "change": case.relative(cost.name) if cost else None,
            "exported": bool(latencies),
            "timed": timed,
        }
        status = Status.PASS if timed else Status.NA if latencies else Status.WARN
        return Facts(status, words, (table, *latencies))


def _row(case: Case, name: str) -> tuple[Cell, ...]:
    ours, theirs, change = case.candidate.metrics[name], case.production.metrics.get(name), case.relative(name)
    tone = "" if change is None or change.value == 0 else "good" if change.value < 0 else "bad"
    return (
        Cell(readable_name(name)),
        Cell(as_value(ours.value, ours.unit), ours.value),
        DASH if theirs is None else Cell(as_value(theirs.value, theirs.unit), theirs.value),
        DASH if change is None else Cell(signed_percent(change.value), change.value, tone=tone),
    )


def _latencies(case: Case) -> Iterator[Table]:
    """What was measured on the candidate's exported program, a table each."""
    for name, latency in measured_latencies(case.run, case.candidate).items():
        measured = latency.measured
        cells = [("p50", measured.p50), ("p90", measured.p90), ("p99", measured.p99)]
        yield Table(
            tuple(word for word, _ in cells),
            (tuple(Cell(f"{compact(ms)} ms", ms) for _, ms in cells),),
            caption=f"{readable_name(name.removesuffix('_ms'))}, measured on the exported program",
            sortable=False,
        )


SECTION = CostSection()
