"""The costs of rankers in one search, of one example."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict

from rankitect.config.quantities import Amounts
from rankitect.contracts import Metric, MetricSpec
from rankitect.data.files import write_whole
from rankitect.documents import read_json
from rankitect.errors import ConfigError, RunFolderError
from rankitect.graph import SearchSpace
from rankitect.space.expr import as_expr
from rankitect.space.tables import tabulate
from rankitect.tasks.costs import RANKING_COSTS, Costs, check_constraints, ranking_costs, specs
from rankitect.tasks.ranking.logged import LOGGED

if TYPE_CHECKING:
    from rankitect.config.parts import Parts
    from rankitect.config.quantities import Bounds
    from rankitect.data.ranking.batches import RankingBatches
    from rankitect.data.ranking.features import Features
    from rankitect.graph import Architecture, ChoiceSpace
    from rankitect.production.registry import Entry
    from rankitect.tasks.ranking.known import KnownRankers

__all__ = ["REFERENCE", "RankingCosts", "ReferenceCosts"]

REFERENCE = "reference.json"
"""The file, in a run folder, that says which production model constraints are relative to."""


class ReferenceCosts(BaseModel):
    """The production model that bounds are relative to, with its costs."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str
    costs: dict[str, float]


class RankingCosts:
    """FLOPs, parameters and tables of rankers of the searched space, known ones and registered modules.

    Args:
        reference: Name of the ranker that constraints are relative to where there is no production model; None for the
            space's largest architecture.
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
        if architecture.space == LOGGED:
            return {}
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

    # --- what bounds are relative to --------------------------------------------------------------------------------
    @cached_property
    def _whole(self) -> ReferenceCosts | None:
        """The production model whose costs bounds are shares of, as it was when the run began; None where there was
        none."""
        path = self._parts.folder / REFERENCE
        if (self._parts.folder / "study.db").exists():  # the registry may have changed since
            return read_json(path, ReferenceCosts, RunFolderError) if path.is_file() else None
        production = self._known.production()
        if production is None:
            return None
        name, architecture = production
        return ReferenceCosts(
            name=name, costs={cost: m.value for cost, m in self.metrics(architecture).items() if m.value}
        )

    def keep_reference(self) -> None:
        """Note in the run folder which production model bounds are relative to, so that a resumed run has the same."""
        path = self._parts.folder / REFERENCE
        if (self._parts.folder / "study.db").exists():
            return
        if self._whole is None:
            path.unlink(missing_ok=True)
            return
        write_whole(path, self._whole.model_dump_json(indent=1) + "\n")
        shares = (name for name, b in self._parts.config.constraints.items() if not isinstance(b, Amounts))
        names = [name for name in shares if name in self._whole.costs]
        if names:
            self._parts.say(
                f"Constraints ({', '.join(names)}) are relative to {self._whole.name}, the production model."
            )

    def production_cost(self, name: str) -> float | None:
        """A cost of the production model that bounds are relative to; None where there is none, or it has none."""
        return None if self._whole is None else self._whole.costs.get(name)

    def limits(self, constraints: Mapping[str, Bounds] | None = None) -> dict[str, tuple[float, float]]:
        """Constraints, by default the configuration's, as bounds: relative to the production model where there is one
        with such a cost, else to the reference model."""
        if constraints is None:
            constraints = self._parts.config.constraints
        instead = {} if self._whole is None else self._whole.costs
        if self._named is None:
            return self._readings.limits(constraints, instead)
        model = self._known.models[self._named]
        return ranking_costs(model.space, model.architecture).limits(constraints, instead)

    def check(self) -> None:
        """Make sure that some architecture meets the constraints.

        Raises:
            ConfigError: None does.
        """
        self.know_fixed()
        space, constraints = self._parts.space, self._parts.config.constraints
        if self._whole is None or not set(constraints) & set(self._whole.costs):
            check_constraints(space, self.limits(), constraints, self._named or "the largest architecture")
            return
        try:
            check_constraints(space, self.limits(), constraints, f"{self._whole.name}, the production model")
        except ConfigError as error:
            raise ConfigError(f"{error} {self._spans()}") from None

    def _spans(self) -> str:
        """What the space spans of each constrained cost, relative to the production model, for a message."""
        from rankitect.methods.bounded_space import BoundedSpace

        assert self._whole is not None
        space, rng = BoundedSpace(self._parts.space, {}), np.random.default_rng(0)
        spans = []
        for name in self._parts.config.constraints:
            if (whole := self._whole.costs.get(name)) is None:
                continue
            ends = [space.extreme(RANKING_COSTS[name].kind, largest, rng) for largest in (False, True)]
            low, high = (float(self._parts.space.cost(a, RANKING_COSTS[name].kind, B=1)) / whole for a in ends)
            spans.append(f"constraints.{name}=[{low:.3g},{high:.3g}]")
        return f"The whole space is {' '.join(spans)}."
