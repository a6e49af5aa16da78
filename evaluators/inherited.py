"""Perplexity with inherited weights: seconds a candidate, to screen with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from rankitect.contracts import Measurement, Metric, MetricSpec, Spent

if TYPE_CHECKING:
    from rankitect.config.parts import Parts
    from rankitect.contracts import TrialContext
    from rankitect.graph import Architecture
    from rankitect.tasks.language.task import Language

__all__ = ["Inherited"]


class Inherited:
    """Perplexity of the pruned backbone as it is, on the search split (which no weight is trained on)."""

    name = "perplexity with inherited weights"

    class Config(BaseModel):
        """Keys of `evaluator.screen`."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        windows: int | None = Field(None, ge=1, description="windows of the search split; null takes the task's")

    def __init__(self, config: Config, task: Language) -> None:
        self._task = task
        self._windows = config.windows or task.config.search_windows

    @classmethod
    def from_config(cls, config: Config, parts: Parts) -> Inherited:
        """Made from its section of the configuration."""
        return cls(config, parts.task)

    @property
    def metrics(self) -> list[MetricSpec]:
        """Perplexity and all costs."""
        return [MetricSpec("perplexity", "", "min", "quality"), *self._task.cost_specs]

    def measure(self, architecture: Architecture, context: TrialContext) -> Measurement:
        """Measure one architecture."""
        task = self._task
        task.learn_latency(context.check, context.progress)
        model = task.inherited.activate(architecture)
        quality = task.quality(model, "search", sample=self._windows, check=context.check)
        metrics = {"perplexity": Metric(quality.perplexity, "", quality.tokens, quality.interval())}
        metrics |= task.costs(architecture)
        return Measurement(metrics, Spent(eval_tokens=quality.tokens))
