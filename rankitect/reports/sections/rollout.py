"""What must be true before, during and after the ramp."""

from __future__ import annotations

from collections.abc import Iterator

from rankitect.reports.cards import Cell, Status, Table
from rankitect.reports.case import Case
from rankitect.reports.section import Facts, ProductionSection


class RolloutSection(ProductionSection):
    """A checklist for the launch review."""

    id, short, order = "rollout", "Rollout", 90

    def facts_of(self, case: Case) -> Facts:
        """List the steps, and what is deployed."""
        steps = tuple(tuple(Cell(text) for text in step) for step in _steps(case))
        artifacts = tuple((Cell(name), Cell(path)) for name, path in sorted(case.candidate.artifacts.items()))
        tables = (
            Table(("Step", "Condition", "When"), steps, sortable=False),
            Table(("Artifact", "Path"), artifacts, caption=f"What is deployed for {case.names[0]}", sortable=False),
        )
        return Facts(Status.WARN, {"steps": len(steps)}, tables)


def _steps(case: Case) -> Iterator[tuple[str, str, str]]:
    """Each step with its condition, and when it is due."""
    ours, theirs = case.names
    yield "Feature parity", "serving computes every feature as training did, on logged requests", "before"
    yield (
        "Shadow",
        f"{ours} scores live traffic without effect; its scores match offline ones on the same rows",
        "before",
    )
    yield "Kill switch", f"one flag sends all traffic back to {theirs}; tried out", "before"
    yield "Roll-back artifact", f"{theirs} ({case.prints[1][:8]}) stays deployed", "before"
    yield "Owners", "who is called for the model, its data and its serving: to be named by you", "before"
    yield "1%", "a day: errors, latency p99, calibration by hour", "ramp"
    yield "5%", "two days: the same, and the primary metric for disasters", "ramp"
    yield "50%", "the planned length: the decision", "ramp"
    yield "Latency guardrail", "p99 of the service at most 5% above production, or stop", "ramp"
    yield "Error guardrail", "failed or defaulted predictions at most 0.1%, or stop", "ramp"
    if case.evidence is not None and case.evidence.labels is not None:  # only probabilities can be calibrated
        yield (
            "Calibration guardrail",
            "predicted over observed within 0.9 to 1.1 in every hour with 10,000 rows",
            "ramp",
        )
    yield "Product guardrails", "revenue, complaints, hides: limits to be set by you", "ramp"


SECTION = RolloutSection()
