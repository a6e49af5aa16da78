"""What the tasks with costs of their own have alike: a part of them knows the costs, and the task answers for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rankitect.config.quantities import Bounds
    from rankitect.contracts import Metric, MetricSpec
    from rankitect.graph import Architecture

__all__ = ["CostedTask", "TaskCosts"]


class TaskCosts(Protocol):
    """The part of a task that knows its costs."""

    @property
    def reference(self) -> Architecture:
        """The architecture that shares of a cost are of."""
        ...

    @property
    def specs(self) -> list[MetricSpec]:
        """The costs as metrics."""
        ...

    def metrics(self, architecture: Architecture) -> dict[str, Metric]:
        """All costs of an architecture."""
        ...

    def limits(self, constraints: Mapping[str, Bounds] | None = None) -> dict[str, tuple[float, float]]:
        """Constraints as bounds; by default the configuration's."""
        ...


class CostedTask:
    """Base of a task with the capabilities `TellsCosts`, `BoundsCosts` and `HasReference`."""

    _costs: TaskCosts

    @property
    def reference(self) -> Architecture:
        """The architecture that shares of a cost are of."""
        return self._costs.reference

    def limits(self, constraints: Mapping[str, Bounds] | None = None) -> dict[str, tuple[float, float]]:
        """Constraints, by default the configuration's, as bounds for `SearchSpace.sample`."""
        return self._costs.limits(constraints)

    @property
    def cost_specs(self) -> list[MetricSpec]:
        """The costs as metrics."""
        return self._costs.specs

    def costs(self, architecture: Architecture) -> dict[str, Metric]:
        """All costs by name, for evaluators and for methods that need them before a measurement."""
        return self._costs.metrics(architecture)
