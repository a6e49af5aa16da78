"""The costs of language models in one search: readings of the graph, and predicted latencies on a device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

from rankitect.contracts import offers
from rankitect.contracts.stage import WorksOnSpaces
from rankitect.errors import ConfigError
from rankitect.tasks.costs import LANGUAGE_COSTS, CostReading, Costs, language_costs, specs

if TYPE_CHECKING:
    from rankitect.config.parts import Parts
    from rankitect.config.quantities import Bounds
    from rankitect.contracts import Latencies, Metric, MetricSpec
    from rankitect.graph import Architecture, SearchSpace
    from rankitect.tasks.language.settings import BackboneConfig

__all__ = ["LanguageCosts"]


class LanguageCosts:
    """Costs of a prefill of a whole context, and of the token after it; relative ones are shares of the backbone's.

    Args:
        config: Says how many tokens the context has, and in how many bits weights are stored.
        longest: Tokens that the backbone was made for, at most.
        parts: The study's; space and device are made after the task.
    """

    def __init__(self, config: BackboneConfig, longest: int, parts: Parts) -> None:
        self._config, self._longest, self._parts = config, longest, parts
        self._changed: dict[str, Latencies | None] = {}

    @property
    def reference(self) -> Architecture:
        """The backbone."""
        from rankitect.models.backbone import largest

        return largest(self._parts.graph_space)

    @property
    def _readings(self) -> Costs:
        c = self._config
        return language_costs(self._parts.graph_space, self.reference, c.context, c.cache_context, c.bits)

    def limits(self, constraints: Mapping[str, Bounds] | None = None) -> dict[str, tuple[float, float]]:
        """Constraints, by default the configuration's, as bounds; latencies are learned for theirs."""
        return self._readings.limits(self._parts.config.constraints if constraints is None else constraints)

    @property
    def specs(self) -> list[MetricSpec]:
        """The costs as metrics; latencies where there is a device."""
        return [*specs(self._shown(LANGUAGE_COSTS)), *(self.latency.specs if self.latency is not None else [])]

    def metrics(self, architecture: Architecture, space: SearchSpace | None = None) -> dict[str, Metric]:
        """All costs of an architecture; relative ones are shares of the backbone's as it was given.

        Args:
            architecture: The architecture.
            space: Of it, where stages of a recipe have changed blocks; by default that which is searched.
        """
        readings = self._readings
        metrics = replace(readings, readings=self._shown(readings.readings)).metrics(architecture, space)
        latency = self.latency_of(space)
        return metrics if latency is None else {**metrics, **latency.metrics(architecture)}

    def _shown(self, readings: Mapping[str, CostReading]) -> dict[str, CostReading]:
        """The costs that are reported: those of programs where some models have bits of their own."""
        return {name: r for name, r in readings.items() if name != "program_bytes" or self._few_bits}

    @cached_property
    def _few_bits(self) -> bool:
        """Whether the space has bits, or a stage of the recipe gives its models bits."""
        return not all(space.is_float for space in self._spaces)

    @cached_property
    def _spaces(self) -> list[SearchSpace]:
        """The searched space, and what it becomes in the stages of the recipe, in order."""
        spaces = [self._parts.graph_space]
        for stage in self._parts.stages.values():
            if offers(stage, WorksOnSpaces):
                spaces.append(stage.space_after(spaces[-1]))
        return spaces

    def require_latencies(self) -> None:
        """Refuse a recipe of which the device cannot run the models, before anything is trained.

        Raises:
            DeployError: The runtime lacks their bits; names the block, and what is allowed.
        """
        self.latency_of(self._spaces[-1])

    @cached_property
    def latency(self) -> Latencies | None:
        """Predicted latencies on the configured device; learned at their first use."""
        latency, space = self._latency(self._parts.graph_space), self._parts.graph_space
        if latency is not None:
            space.learned.update({name: partial(latency.tables, name) for name in latency.workloads})
        return latency

    def latency_of(self, space: SearchSpace | None) -> Latencies | None:
        """The latencies of a space whose blocks stages of a recipe have changed; by default of the searched space."""
        if space is None or space is self._parts.graph_space:
            return self.latency
        key = space.to_json()
        if key == self._searched:  # read from a candidate's folder
            return self.latency
        if key not in self._changed:
            self._changed[key] = self._latency(space)
        return self._changed[key]

    @cached_property
    def _searched(self) -> str:
        return self._parts.graph_space.to_json()

    def _latency(self, space: SearchSpace) -> Latencies | None:
        device = self._parts.device
        if device is None:
            return None
        if device.context > self._longest:
            raise ConfigError(f"device.context is {device.context}; the backbone was made for at most {self._longest}.")
        return device.latency(space, seed=self._parts.config.seed, say=self._parts.say)

    def learn_latency(self, check: Callable[[], None], progress: Callable[[int, int, str], None]) -> None:
        """Learn the latencies that are configured, where that was not done."""
        if self.latency is not None:
            for name in self.latency.workloads:
                self.latency.learn(name, check, progress)
