"""Normalized entropy of rankers after training from scratch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from rankitect.config.measures import Measures, notes_of
from rankitect.contracts import Measurement, MetricSpec, Spent
from rankitect.training.placement import placement

if TYPE_CHECKING:
    from torch import nn

    from rankitect.config.parts import Parts
    from rankitect.contracts import TrialContext
    from rankitect.graph import Architecture
    from rankitect.metrics.ranking import RankingQuality
    from rankitect.tasks.ranking.fit import FitResult
    from rankitect.tasks.ranking.task import Ranking

__all__ = ["Trained"]


def _refitted(
    task: Ranking, architecture: Architecture, context: TrialContext, result: FitResult
) -> tuple[nn.Module, int]:
    """The model that would go live, and the rows that it was trained on: see `rankitect.tasks.ranking.fit.refit`."""
    from rankitect.tasks.ranking.fit import refit

    config = task.fit_config(architecture, context.seed)
    model, _ = task.standalone(architecture, context.seed)
    epochs = result.best_step / task.data.steps("train", config.batch)
    checkpoint = None if context.state is None else context.state / "refit.safetensors"
    rows, _ = refit(
        model, task.data, config, epochs,
        progress=context.progress, should_stop=context.should_stop, checkpoint=checkpoint,
    )  # fmt: skip
    context.check()
    return model, rows


class Trained:
    """Normalized entropy after training from scratch: early stopping on the validation split, then the test split.

    With `task.refit`, what is tested (and saved) was trained once more, on validation rows as well.

    A search chooses by the validation split; what it chose is reported on the test split, by which nothing was chosen.
    """

    name = "normalized entropy after training from scratch"

    class Config(BaseModel):
        """Keys of `evaluator.final`."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        save: bool = Field(True, description="keep each candidate's weights")

    def __init__(self, config: Config, task: Ranking, measures: Measures | None = None) -> None:
        self._config, self._task = config, task
        self._measures = Measures() if measures is None else measures

    @classmethod
    def from_config(cls, config: Config, parts: Parts) -> Trained:
        """Made from its section of the configuration."""
        from rankitect.tasks.ranking.task import Ranking

        return cls(config, parts.require(Ranking, "evaluator.final"), parts.measures)

    @property
    def metrics(self) -> list[MetricSpec]:
        """Normalized entropy on both splits, log-loss and AUC on the test split, what the measures give, all costs."""
        task = self._task
        quality = [*task.quality_specs("validation"), *task.quality_specs("test"), *self._measures.specs("test")]
        return [*quality, *task.cost_specs]

    def measure(self, architecture: Architecture, context: TrialContext) -> Measurement:
        """Train, measure, save."""
        from rankitect.metrics.ranking import ranking_quality
        from rankitect.models.supernet import Standalone
        from rankitect.tasks.ranking.models import save_losses

        task, folder = self._task, context.folder
        if (logged := task.logged(architecture, "test")) is not None:
            return self._of_log(architecture, logged, context)
        model, result = task.trained(architecture, context)
        with placement().computing():
            validation = ranking_quality(
                model, task.data, "validation", check=context.check, device=placement().of(model)
            )
        trained = 0 if result is None else result.examples
        if result is not None and task.config.refit and not task.config.one_pass:
            model, more = _refitted(task, architecture, context, result)
            trained += more
        test = task.quality(model, "test", check=context.check)
        asked = self._measures.measure(model, "test", context.check)
        metrics = {**validation.metrics, **test.metrics, **asked.metrics, **task.costs(architecture)}
        artifacts = {"losses": context.artifact(folder / save_losses(folder, test))}
        if self._config.save and isinstance(model, Standalone):
            for name, path in task.save_candidate(folder, architecture, model).items():
                artifacts[name] = context.artifact(folder / path)
        evaluated = 0 if result is None else result.evaluated
        spent = Spent(eval_examples=evaluated + validation.rows + test.rows) + asked.spent
        if trained:
            spent += task.spent_alone(architecture, trained)
        return Measurement(metrics, spent, artifacts, {**_notes(result, test), **notes_of(asked)})

    def _of_log(self, architecture: Architecture, test: RankingQuality, context: TrialContext) -> Measurement:
        """What production answered when the rows were logged: nothing is trained, and no cost is known."""
        from rankitect.tasks.ranking.models import save_losses

        validation = self._task.logged(architecture, "validation")
        assert validation is not None
        artifacts = {"losses": context.artifact(context.folder / save_losses(context.folder, test))}
        unknown = [spec.name for spec in (*self._measures.specs("test"), *self._task.cost_specs)]
        return Measurement(
            {**validation.metrics, **test.metrics},
            artifacts=artifacts,
            notes={**_notes(None, test), "not_known": unknown},
        )


def _notes(result: FitResult | None, test: RankingQuality) -> dict[str, object]:
    notes: dict[str, object] = {
        "base_rate": test.base_rate,
        "reliability": [[round(v, 6) for v in (b.predicted, b.observed, b.weight)] for b in test.reliability],
    }
    if result is None:
        return notes
    notes |= {
        "steps": result.steps,
        "best_step": result.best_step,
        "validation": {str(step): round(value, 6) for step, value in result.entropies.items()},
    }
    if result.progressive is not None:
        notes["progressive"] = result.progressive.whole.normalized_entropy
        notes["progressive_parts"] = [round(p.normalized_entropy, 6) for p in result.progressive.parts if p.rows]
    return notes
