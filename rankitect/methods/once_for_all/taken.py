"""An evaluator's measurement of networks as they are taken from shared weights, without any training of their own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rankitect.contracts import Measurement, MetricSpec, TakesWeights, TrainsForSteps, offers

if TYPE_CHECKING:
    from rankitect.contracts import Evaluator, TrialContext
    from rankitect.graph import Architecture

__all__ = ["TakenAsTheyAre"]


class TakenAsTheyAre:
    """Another evaluator's measurement, which finds candidates trained already. Baselines are trained by it: where it
    counts its steps, for at least as many as the shared weights, or networks with more training behind them would be
    compared with others that had less.

    Args:
        inner: Measures in full.
        task: Holds the shared weights.
        examples: Of which statistics of a network are taken, where it has any.
        steps: Of the training of the shared weights.
    """

    takes_candidates = True
    """However often a candidate is measured, its weights are the same."""

    def __init__(self, inner: Evaluator, task: TakesWeights, examples: int, steps: int) -> None:
        self._inner, self._task, self._examples = inner, task, examples
        self._alone = inner.lasting(steps) if offers(inner, TrainsForSteps) else inner

    @property
    def name(self) -> str:
        """The quality, and of what."""
        quality = next((spec.name for spec in self.metrics if spec.role == "quality"), self._inner.name)
        return f"{quality.replace('_', ' ')} of networks taken from shared weights"

    @property
    def metrics(self) -> list[MetricSpec]:
        """The inner evaluator's."""
        return self._inner.metrics

    def measure(self, architecture: Architecture, context: TrialContext) -> Measurement:
        """Measure a network as it is taken from the shared weights."""
        if context.baseline:
            return self._alone.measure(architecture, context)
        with self._task.taking(self._examples) as spent:
            measured = self._inner.measure(architecture, context)
        return replace(measured, spent=sum(spent, measured.spent))
