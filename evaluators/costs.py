"""The costs that evaluators add to what they measure: a task's own, or those of the graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankitect.contracts import Metric, MetricSpec, TellsCosts, offers
from rankitect.tasks.costs import GRAPH_COSTS

if TYPE_CHECKING:
    from rankitect.graph import Architecture, ChoiceSpace

__all__ = ["cost_specs_of", "costs_of"]


def cost_specs_of(task: object) -> list[MetricSpec]:
    """The costs that `costs_of` gives, as metrics."""
    if offers(task, TellsCosts):
        return task.cost_specs
    return [MetricSpec(kind, unit, "min", "cost") for kind, unit in GRAPH_COSTS.items()]


def costs_of(task: object, space: ChoiceSpace, architecture: Architecture) -> dict[str, Metric]:
    """The costs of an architecture: a task's, else parameters and FLOPs of one example."""
    if offers(task, TellsCosts):
        return task.costs(architecture)
    return {kind: Metric(float(space.cost(architecture, kind)), unit) for kind, unit in GRAPH_COSTS.items()}
