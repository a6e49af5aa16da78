"""Normalized entropy of rankers: after training from scratch, and with the weights of a supernet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from rankitect.contracts import Measurement, Metric, MetricSpec, Spent

if TYPE_CHECKING:
    from torch import nn

    from rankitect.config.parts import Parts
    from rankitect.contracts import TrialContext
    from rankitect.graph import Architecture
    from rankitect.metrics.ranking import RankingQuality
    from rankitect.tasks.ranking.fit import FitResult
    from rankitect.tasks.ranking.task import Ranking

__all__ = ["Inherited", "Trained"]

TEST, VALIDATION = "normalized_entropy", "validation_normalized_entropy"


def _entropy(quality: RankingQuality) -> Metric:
    return Metric(quality.normalized_entropy, "NE", quality.rows, quality.interval())


def _trained(
    task: Ranking, architecture: Architecture, context: TrialContext, epochs: float | None
) -> tuple[nn.Module, FitResult | None]:
    """A model of an architecture, trained from scratch with early stopping; one with weights of its own as it is."""
    from rankitect.tasks.ranking.fit import fit

    model, ready = task.standalone(architecture, context.seed)
    if ready:
        return model, None
    config = task.fit_config(architecture, context.seed, epochs)

    def progress(done: int, total: int, note: str) -> None:
        context.spent = Spent(train_examples=done * config.batch)
        context.progress(done, total, note)

    result = fit(model, task.data, config, progress=progress, should_stop=context.should_stop)
    context.check()
    return model, result


def _refitted(
    task: Ranking, architecture: Architecture, context: TrialContext, result: FitResult
) -> tuple[nn.Module, int]:
    """The model that would go live, and the rows that it was trained on: see `rankitect.tasks.ranking.fit.refit`."""
    from rankitect.tasks.ranking.fit import refit

    config = task.fit_config(architecture, context.seed)
    model, _ = task.standalone(architecture, context.seed)
    epochs = result.best_step / task.data.steps("train", config.batch)
    rows, _ = refit(model, task.data, config, epochs, progress=context.progress, should_stop=context.should_stop)
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

    def __init__(self, config: Config, task: Ranking) -> None:
        self._config, self._task = config, task

    @classmethod
    def from_config(cls, config: Config, parts: Parts) -> Trained:
        """Made from its section of the configuration."""
        return cls(config, parts.task)

    @property
    def metrics(self) -> list[MetricSpec]:
        """Normalized entropy on both splits, log-loss and AUC on the test split, and all costs."""
        return [
            MetricSpec(VALIDATION, "NE", "min", "quality", held_out=TEST),
            MetricSpec(TEST, "NE", "min", "quality"),
            MetricSpec("log_loss", "nat", "min", "quality"),
            MetricSpec("auc", "AUC", "max", "quality"),
            *self._task.cost_specs,
        ]

    def measure(self, architecture: Architecture, context: TrialContext) -> Measurement:
        """Train, measure, save."""
        from rankitect.models.supernet import Standalone
        from rankitect.tasks.ranking.models import save_losses, save_ranker

        task, folder = self._task, context.folder
        model, result = _trained(task, architecture, context, None)
        validation = task.quality(model, "validation", check=context.check)
        trained = 0 if result is None else result.examples
        if result is not None and task.config.refit and not task.config.one_pass:
            model, more = _refitted(task, architecture, context, result)
            trained += more
        test = task.quality(model, "test", check=context.check)
        metrics = {
            VALIDATION: _entropy(validation),
            TEST: _entropy(test),
            "log_loss": Metric(test.log_loss, "nat", test.rows),
            "auc": Metric(test.auc, "AUC", test.rows),
            "calibration": Metric(test.calibration, "", test.rows),
            **task.costs(architecture),
        }
        artifacts = {"losses": context.artifact(folder / save_losses(folder, test))}
        if self._config.save and isinstance(model, Standalone):
            space, closed = task.model_of(architecture)
            for name, path in save_ranker(folder, space, closed, model, task.features, architecture).items():
                artifacts[name] = context.artifact(folder / path)
        evaluated = 0 if result is None else result.evaluated
        spent = Spent(train_examples=trained, eval_examples=evaluated + validation.rows + test.rows)
        return Measurement(metrics, spent, artifacts, _notes(result, test))


def _notes(result: FitResult | None, test: RankingQuality) -> dict[str, object]:
    found: dict[str, object] = {
        "base_rate": test.base_rate,
        "reliability": [[round(v, 6) for v in (b.predicted, b.observed, b.weight)] for b in test.reliability],
    }
    if result is None:
        return found
    found |= {
        "steps": result.steps,
        "best_step": result.best_step,
        "validation": {str(step): round(value, 6) for step, value in result.entropies.items()},
    }
    if result.progressive is not None:
        found["progressive"] = result.progressive.whole.normalized_entropy
        found["progressive_parts"] = [round(p.normalized_entropy, 6) for p in result.progressive.parts if p.rows]
    return found


class Inherited:
    """Normalized entropy on the validation split, with the weights that a search has trained: seconds a candidate.

    Where no search has trained shared weights, a short training from scratch stands in.
    """

    name = "normalized entropy with inherited weights"

    class Config(BaseModel):
        """Keys of `evaluator.screen`."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        rows: int | None = Field(None, ge=1, description="validation rows, a fixed sample; null takes the task's")

    def __init__(self, config: Config, task: Ranking) -> None:
        self._task, self._rows = task, config.rows or task.config.search_rows

    @classmethod
    def from_config(cls, config: Config, parts: Parts) -> Inherited:
        """Made from its section of the configuration."""
        return cls(config, parts.task)

    @property
    def metrics(self) -> list[MetricSpec]:
        """Normalized entropy on the validation split, and all costs."""
        return [MetricSpec(VALIDATION, "NE", "min", "quality"), *self._task.cost_specs]

    def measure(self, architecture: Architecture, context: TrialContext) -> Measurement:
        """Measure one architecture."""
        task, spent = self._task, Spent()
        model: nn.Module
        if task.inherited is not None:
            model = task.inherited.activate(architecture)
        else:
            model, result = _trained(task, architecture, context, task.config.short_epochs)
            if result is not None:
                spent = Spent(train_examples=result.examples, eval_examples=result.evaluated)
        quality = task.quality(model, "validation", sample=self._rows, check=context.check)
        metrics = {VALIDATION: _entropy(quality), **task.costs(architecture)}
        return Measurement(metrics, spent + Spent(eval_examples=quality.rows))
