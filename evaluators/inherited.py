"""Quality with inherited weights: seconds a candidate, to screen with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from pydantic import BaseModel, ConfigDict, Field

from rankitect.config.measures import Measures
from rankitect.contracts import InheritsWeights, Measurement, MetricSpec, Spent, Task, offers, require
from rankitect.contracts.task import HasBackbone, LearnsLatency, TrainsBriefly
from rankitect.evaluators.costs import cost_specs_of, costs_of
from rankitect.methods.calibrated import EXAMPLES, calibrated, require_calibration

if TYPE_CHECKING:
    from torch import nn

    from rankitect.config.parts import Parts
    from rankitect.contracts import TrialContext
    from rankitect.graph import Architecture, ChoiceSpace

__all__ = ["Inherited"]


class Screenable(Task, InheritsWeights, Protocol):
    """A task with a quality to measure and weights to inherit."""


class Inherited:
    """Quality on the split that a search chooses by, which no weight is trained on, and all costs.

    Candidates have the weights that a search has trained, or those of a backbone. Where a task has neither yet, a short
    training from scratch stands in.
    """

    class Config(BaseModel):
        """Keys of `evaluator.screen`."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        sample: int | None = Field(
            None,
            ge=1,
            le=10**12,
            description="how much of the split is used: windows of a text, rows of a table; null takes the task's",
        )
        calibration: int = Field(
            EXAMPLES,
            ge=0,
            le=10**9,
            description="examples that the running statistics of a candidate are taken from, where it has any",
        )

    def __init__(self, config: Config, task: Screenable, space: ChoiceSpace, measures: Measures | None = None) -> None:
        self._config, self._task, self._space = config, task, space
        self._measures = Measures() if measures is None else measures
        # The first metric alone: it is what a search goes by.
        self._quality = task.quality_specs(task.search_split)[0]

    @classmethod
    def needs(cls, config: Config) -> Sequence[type]:
        """See `Screenable`."""
        return (Screenable,)

    @classmethod
    def from_config(cls, config: Config, parts: Parts) -> Inherited:
        """Made from its section of the configuration.

        Raises:
            ConfigError: The task has no quality, or nobody has weights for its candidates.
        """
        task = parts.require(Screenable, "evaluator.screen")
        # The weights of a backbone are there, and calibrating them takes long: they are not asked for before any trial.
        pretrained = offers(task, HasBackbone) and task.backbone_name is not None
        if not parts.trains_weights and not pretrained and task.inherited is None:
            _trains_briefly(task, f"evaluator.screen={parts.names.get('evaluator.screen', 'inherited')}")
        if config.calibration:
            require_calibration(task, parts.space, "evaluator.screen")
        return cls(config, task, parts.space, parts.measures)

    @property
    def name(self) -> str:
        """Which quality it is."""
        return f"{self._quality.name.replace('_', ' ')} with inherited weights"

    @property
    def metrics(self) -> list[MetricSpec]:
        """The quality that a search goes by, what the measures give, and all costs."""
        return [self._quality, *self._measures.specs(self._task.search_split), *cost_specs_of(self._task)]

    def measure(self, architecture: Architecture, context: TrialContext) -> Measurement:
        """Measure one architecture."""
        task = self._task
        if offers(task, LearnsLatency):
            task.learn_latency(context.check, context.progress)
        model, spent = self._model(architecture, context)
        quality = self._task.quality(model, self._task.search_split, sample=self._config.sample, check=context.check)
        name = self._quality.name
        asked = self._measures.measure(model, self._task.search_split, context.check)
        costs = costs_of(self._task, self._space, architecture)
        spent += Spent.evaluation(quality.amount, self._task.unit) + asked.spent
        return Measurement({name: quality.metrics[name], **asked.metrics, **costs}, spent)

    def _model(self, architecture: Architecture, context: TrialContext) -> tuple[nn.Module, Spent]:
        supernet = self._task.inherited
        if supernet is not None:
            model = supernet.activate(architecture).eval()
            return model, calibrated(model, self._task, self._task.unit, self._config.calibration, context.check)
        return _trains_briefly(self._task, self.name).briefly_trained(architecture, context)


def _trains_briefly(task: object, who: str) -> TrainsBriefly:
    """What stands in for weights to inherit."""
    return require(
        task, TrainsBriefly, f"{who}, where no search trains shared weights,",
        instead="Take a controller that trains them (one_shot, sigeo, dnas), or evaluator.screen=null.",
    )  # fmt: skip
