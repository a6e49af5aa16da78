"""Quality after training from scratch for a number of steps, on any task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from rankitect.config.measures import Measures, notes_of
from rankitect.contracts import Measurement, Metric, MetricSpec, Spent, TakesWeights, Task
from rankitect.contracts.capability import offers
from rankitect.evaluators.costs import cost_specs_of, costs_of
from rankitect.training.settings import OptimizerConfig

if TYPE_CHECKING:
    from pathlib import Path

    from rankitect.config.parts import Parts
    from rankitect.contracts import TrialContext
    from rankitect.graph import Architecture, SearchSpace
    from rankitect.models.supernet import Standalone

__all__ = ["TrainedFromScratch"]


class TrainedFromScratch:
    """Quality on the split that a search chooses by and on the test split, by which nothing was chosen; all costs."""

    class Config(BaseModel):
        """Keys of `evaluator.final`."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        steps: int = Field(500, ge=1, le=10**9, description="training steps, on batches of the task's size")
        optimizer: OptimizerConfig = Field(OptimizerConfig(), description="learning rate, schedule, clipping")
        save: bool = Field(True, description="keep each candidate's weights")

    def __init__(self, config: Config, task: Task, space: SearchSpace, measures: Measures | None = None) -> None:
        self._config, self._task, self._space = config, task, space
        self._measures = Measures() if measures is None else measures

    @classmethod
    def needs(cls, config: Config) -> Sequence[type]:
        """Data, loss and quality."""
        return (Task,)

    @classmethod
    def from_config(cls, config: Config, parts: Parts) -> TrainedFromScratch:
        """Made from its section of the configuration.

        Raises:
            ConfigError: The task has no data, loss or quality, or the space no graph.
        """
        return cls(config, parts.require(Task, "evaluator.final"), parts.graph_space, parts.measures)

    @property
    def name(self) -> str:
        """Which quality it is."""
        return f"{self._task.quality_specs('test')[0].name.replace('_', ' ')} after training from scratch"

    @property
    def metrics(self) -> list[MetricSpec]:
        """Quality on both splits, what the measures give on the test split, and all costs."""
        task = self._task
        quality = [spec for split in (task.search_split, "test") for spec in task.quality_specs(split)]
        quality += self._measures.specs("test")
        return list({spec.name: spec for spec in (*quality, *cost_specs_of(task))}.values())

    def lasting(self, steps: int) -> TrainedFromScratch:
        """The same, with at least so many steps of training."""
        config = self._config.model_copy(update={"steps": max(steps, self._config.steps)})
        return type(self)(config, self._task, self._space, self._measures)

    def measure(self, architecture: Architecture, context: TrialContext) -> Measurement:
        """Train, measure, save."""
        from rankitect.tasks.alone import train_alone

        task, c = self._task, self._config
        taken, spent = self._taken(architecture), Spent()
        if taken is None:
            model, spent = train_alone(task, self._space, architecture, c.steps, c.optimizer, context)
        else:
            model = taken
        metrics: dict[str, Metric] = {}
        for split in (task.search_split, "test"):
            quality = task.quality(model, split, check=context.check)
            metrics |= quality.metrics
            spent += Spent.evaluation(quality.amount, task.unit)
        asked = self._measures.measure(model, "test", context.check)
        metrics |= asked.metrics
        spent += asked.spent
        artifacts = {}
        if c.save:
            saved = self._saved(architecture, model, context.folder)
            artifacts = {name: context.artifact(context.folder / path) for name, path in saved.items()}
        costs = costs_of(task, self._space, architecture)
        return Measurement({**metrics, **costs}, spent, artifacts, notes_of(asked, quality))  # of the test split

    def _taken(self, architecture: Architecture) -> Standalone | None:
        """The model where a search has trained it already."""
        model: Standalone | None = self._task.taken(architecture) if offers(self._task, TakesWeights) else None
        return model

    def _saved(self, architecture: Architecture, model: Standalone, folder: Path) -> dict[str, str]:
        """Write the candidate, with what its task knows of the use of its models."""
        from rankitect.contracts.task import SavesCandidates

        if offers(self._task, SavesCandidates):
            return self._task.save_candidate(folder, architecture, model)
        from rankitect.models.candidate import save_model

        return save_model(folder, self._space, architecture, model)
