"""The costs of language models in one search: readings of the graph, and predicted latencies on a device."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import TYPE_CHECKING

from rankitect.errors import ConfigError
from rankitect.tasks.costs import LANGUAGE_COSTS, Costs, language_costs, specs

if TYPE_CHECKING:
    from rankitect.config.parts import Parts
    from rankitect.contracts import Latencies, Metric, MetricSpec
    from rankitect.graph import Architecture
    from rankitect.tasks.language.settings import LanguageConfig

__all__ = ["LanguageCosts"]


class LanguageCosts:
    """Costs of a prefill of a whole context, and of the token after it; relative ones are shares of the backbone's.

    Args:
        config: Says how many tokens the context has, and in how many bits weights are stored.
        longest: Tokens that the backbone was made for, at most.
        parts: The study's; space and device are made after the task.
    """

    def __init__(self, config: LanguageConfig, longest: int, parts: Parts) -> None:
        self._config, self._longest, self._parts = config, longest, parts

    @property
    def reference(self) -> Architecture:
        """The backbone."""
        from rankitect.models.backbone import largest

        return largest(self._parts.graph_space)

    @property
    def _readings(self) -> Costs:
        c = self._config
        return language_costs(self._parts.graph_space, self.reference, c.context, c.cache_context, c.bits)

    def limits(self) -> dict[str, tuple[float, float]]:
        """The configuration's constraints as bounds; latencies are learned for theirs."""
        return self._readings.limits(self._parts.config.constraints)

    @property
    def specs(self) -> list[MetricSpec]:
        """The costs as metrics; latencies where there is a device."""
        return [*specs(LANGUAGE_COSTS), *(self.latency.specs if self.latency is not None else [])]

    def metrics(self, architecture: Architecture) -> dict[str, Metric]:
        """All costs of an architecture."""
        metrics = self._readings.metrics(architecture)
        return metrics if self.latency is None else {**metrics, **self.latency.metrics(architecture)}

    @cached_property
    def latency(self) -> Latencies | None:
        """Predicted latencies on the configured device; learned at their first use."""
        device = self._parts.device
        if device is None:
            return None
        if device.context > self._longest:
            raise ConfigError(f"device.context is {device.context}; the backbone was made for at most {self._longest}.")
        space = self._parts.graph_space
        latency = device.latency(space, seed=self._parts.config.seed, say=self._parts.say)
        space.learned.update({name: partial(latency.tables, name) for name in latency.workloads})
        return latency

    def learn_latency(self, check: Callable[[], None], progress: Callable[[int, int, str], None]) -> None:
        """Learn the latencies that are configured, where that was not done."""
        if self.latency is not None:
            for name in self.latency.workloads:
                self.latency.learn(name, check, progress)
