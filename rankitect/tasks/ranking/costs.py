"""The costs of rankers in one search, of one example."""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING

from rankitect.contracts import Metric, MetricSpec
from rankitect.graph import SearchSpace
from rankitect.space.expr import as_expr
from rankitect.space.tables import tabulate
from rankitect.tasks.costs import RANKING_COSTS, Costs, check_constraints, ranking_costs, specs

if TYPE_CHECKING:
    from rankitect.config.parts import Parts
    from rankitect.data.ranking.batches import RankingBatches
    from rankitect.data.ranking.features import Features
    from rankitect.graph import Architecture, ChoiceSpace
    from rankitect.production.registry import Entry
    from rankitect.tasks.ranking.known import KnownRankers

__all__ = ["RankingCosts"]


class RankingCosts:
    """FLOPs, parameters and tables of rankers of the searched space, known ones and registered modules.

    Args:
        reference: Name of the ranker that constraints are relative to; None for the space's largest architecture.
        known: Rankers by name, and registered ones.
        data: Gives an example to count a module's FLOPs with.
        features: What the data give to a model.
        parts: The study's; the searched space is made after the task.
    """

    def __init__(
        self, reference: str | None, known: KnownRankers, data: RankingBatches, features: Features, parts: Parts
    ) -> None:
        self._named, self._known, self._data = reference, known, data
        self._features, self._parts = features, parts

    def know_fixed(self) -> None:
        """Tell a space without a graph what its architectures cost: as much as the model whose settings they are.

        Raises:
            ConfigError: The configuration does not say which model that is.
        """
        space: ChoiceSpace = self._parts.space
        if isinstance(space, SearchSpace):
            return
        graph, architecture = self._known.model_of(space.sample(0))
        for reading in RANKING_COSTS.values():
            total = int(graph.cost(architecture, reading.kind, B=1))
            space.learned[reading.kind] = partial(tabulate, as_expr(total), space.choices)

    @cached_property
    def reference(self) -> Architecture:
        """The architecture that shares of a cost are of: the searched space's one of most FLOPs."""
        from rankitect.methods.bounded_space import largest_by

        return largest_by(self._parts.space, "flops")

    @cached_property
    def _readings(self) -> Costs:
        return ranking_costs(self._parts.space, self.reference)

    @property
    def specs(self) -> list[MetricSpec]:
        """The costs as metrics."""
        return specs(RANKING_COSTS)

    def metrics(self, architecture: Architecture) -> dict[str, Metric]:
        """All costs of an architecture."""
        entry = self._known.registered.entry(architecture)
        if entry is not None and entry.module is not None:
            return self._counted(entry)
        space = self._known.space_of(architecture)
        readings = self._readings if space is self._parts.space else ranking_costs(space, architecture)
        return readings.metrics(architecture)

    def _counted(self, entry: Entry) -> dict[str, Metric]:
        """Of a registered module, which has no graph to read them from."""
        from rankitect.tasks.registered import module_costs

        example = self._data.batch_at("validation", 0, batch=1)
        counted = module_costs(self._known.registered.module(entry, self._features, 0), example.inputs)
        units = {spec.name: spec.unit for spec in self.specs}
        return {name: Metric(counted[name], units[name]) for name in RANKING_COSTS}

    def limits(self) -> dict[str, tuple[float, float]]:
        """The configuration's constraints as bounds, relative to the reference model."""
        constraints = self._parts.config.constraints
        if self._named is None:
            return self._readings.limits(constraints)
        model = self._known.models[self._named]
        return ranking_costs(model.space, model.architecture).limits(constraints)

    def check(self) -> None:
        """Make sure that some architecture meets the constraints.

        Raises:
            ConfigError: None does.
        """
        self.know_fixed()
        whose = self._named or "the largest architecture"
        check_constraints(self._parts.space, self.limits(), self._parts.config.constraints, whose)
