"""Which objective says how good a model is and which what it costs, and how a cost is shown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rankitect.reports.numbers import FINE, as_percent, as_value, is_share, lower_name, readable_name
from rankitect.study.summary import BaselineSummary, MetricSummary, ObjectiveSummary

if TYPE_CHECKING:
    from rankitect.reports.run import Run

__all__ = ["Roles", "roles_of"]


@dataclass(frozen=True)
class Roles:
    """The quality and the cost of a search, and the reference model for shares.

    Attributes:
        quality: The objective that says how good a model is.
        cost: The objective that says what it costs, or None where the search had no such objective.
        reference: The baseline that costs are a share of and that pictures compare with; None where there is none.
        scale: What a cost is divided by to be shown: the reference's cost where shares are shown, else 1.
        unit: The unit of the costs shown; "share" where they are shares of the reference.
        selected: The metric that the search went by, where the quality is its twin on held-out data; "" else.
    """

    quality: ObjectiveSummary
    cost: ObjectiveSummary | None
    reference: BaselineSummary | None
    scale: float
    unit: str
    selected: str = ""

    @property
    def selection(self) -> str:
        """The metric by which a model is chosen among several, so that the quality stays untouched by the choice."""
        return self.selected or self.quality.name

    @property
    def quality_label(self) -> str:
        """Axis title for quality, with its unit and direction."""
        unit = self.quality.unit
        shown = f", {unit}" if unit and unit.lower() != self.quality.name.lower() and unit.lower() not in FINE else ""
        better = "lower" if self.quality.direction == "min" else "higher"
        return f"{readable_name(self.quality.name)}{shown} ({better} is better)"

    @property
    def cost_label(self) -> str:
        """Axis title for cost, with its unit."""
        name = self._cost_name
        if self.unit == "share":
            return f"{name}, % of the {self._reference_name}"
        return f"{name}, {self.unit}" if self.unit and self.unit != name else name

    @property
    def _cost_name(self) -> str:
        return readable_name(self.cost.name.removesuffix("_share").removesuffix("_ratio")) if self.cost else ""

    @property
    def _reference_name(self) -> str:
        return self.reference.name if self.reference else "reference model"

    def cost_text(self, cost: float) -> str:
        """A cost as text, in the unit of the axis."""
        return as_percent(cost) if self.unit == "share" else as_value(cost, self.unit)

    def cost_phrase(self, low: float, high: float | None = None) -> str:
        """A cost, or a span of costs, within a sentence: "60% of the backbone's block FLOPs"."""
        text = self.cost_text(low) + (f" to {self.cost_text(high)}" if high is not None else "")
        if self.unit != "share":
            return text
        return f"{text} of the {self._reference_name}'s {lower_name(self._cost_name)}"

    def cost_of(self, metrics: Mapping[str, MetricSummary]) -> float | None:
        """A model's cost in the unit of the axis, or None."""
        cost = metrics.get(self.cost.name) if self.cost else None
        return None if cost is None else cost.value / self.scale

    def gain(self, quality: float, reference: float) -> float:
        """How much better a quality is than a reference, relative to it; positive is better, 0.05 is 5%."""
        if reference == 0:
            return 0.0 if quality == 0 else math.copysign(math.inf, self.sign * (quality - reference))
        return self.sign * (quality - reference) / abs(reference)

    @property
    def sign(self) -> int:
        """-1 where lower quality values are better, else 1."""
        return -1 if self.quality.direction == "min" else 1


def roles_of(run: Run) -> Roles | None:
    """The roles as the summary states them; None where it has no objectives.

    The quality is the first objective of that role, or the first of all where none has it (a search among costs).
    """
    objectives = [_shown(o, run) for o in run.summary.objectives]
    if not objectives:
        return None
    quality = next((o for o in objectives if o.role == "quality"), objectives[0])
    cost = next((o for o in objectives if o.role == "cost" and o is not quality), None)
    reference = _reference(run.summary.baselines, cost)
    went_by = run.summary.objectives[objectives.index(quality)].name
    return Roles(quality, cost, reference, *_scale(cost, reference), "" if went_by == quality.name else went_by)


def _scale(cost: ObjectiveSummary | None, reference: BaselineSummary | None) -> tuple[float, str]:
    """What a cost is divided by to be shown, and the unit that it then has."""
    if cost is None:
        return 1.0, ""
    if cost.unit.strip().lower() in ("%", "percent"):
        return 100.0, "share"
    if is_share(cost.unit):
        return 1.0, "share"
    whole = reference.metrics.get(cost.name) if reference else None
    return (whole.value, "share") if whole is not None and whole.value else (1.0, cost.unit)


def _shown(objective: ObjectiveSummary, run: Run) -> ObjectiveSummary:
    """The objective on data by which nothing was chosen, where every model has it."""
    name = objective.held_out
    measured = [*(b.metrics for b in run.summary.baselines), *(c.metrics for c in run.summary.pareto)]
    if name is None or not all(name in metrics for metrics in measured):
        return objective
    return objective.model_copy(update={"name": name})


def _reference(baselines: Sequence[BaselineSummary], cost: ObjectiveSummary | None) -> BaselineSummary | None:
    """The baseline that is marked as the reference, or else the only one that is no smaller version of another."""
    marked = [b for b in baselines if b.reference]
    if marked:
        return marked[-1]
    whole = [b for b in baselines if cost and cost.name in b.metrics and b.family == b.name]
    return whole[0] if len(whole) == 1 else None
