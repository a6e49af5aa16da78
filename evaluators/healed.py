"""Perplexity after healing: the pruned backbone is distilled from the whole one for a given number of tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from rankitect.contracts import Measurement, Metric, MetricSpec, Spent

if TYPE_CHECKING:
    from rankitect.config.parts import Parts
    from rankitect.contracts import TrialContext
    from rankitect.graph import Architecture
    from rankitect.models.supernet import Standalone
    from rankitect.tasks.language.task import Language
    from rankitect.training.optimizer import StepReport

__all__ = ["Healed"]


class Healed:
    """Perplexity and bits per byte on the test split after healing, with the weights as an artifact.

    The backbone itself is measured as it is: it is what healing aims at.
    """

    name = "perplexity after healing"

    class Config(BaseModel):
        """Keys of `evaluator.final`."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        save: bool = Field(True, description="keep each candidate's weights")
        tokens: int | None = Field(None, ge=1, description="healing tokens; null: heal.tokens")
        split: Literal["search", "test"] = Field("test", description="text that the perplexity is of")

    def __init__(self, config: Config, task: Language) -> None:
        self._config, self._task = config, task

    @classmethod
    def from_config(cls, config: Config, parts: Parts) -> Healed:
        """Made from its section of the configuration."""
        return cls(config, parts.task)

    @property
    def metrics(self) -> list[MetricSpec]:
        """Perplexity, bits per byte, and all costs."""
        return [
            MetricSpec("perplexity", "", "min", "quality"),
            MetricSpec("bits_per_byte", "bit/byte", "min", "quality"),
            *self._task.cost_specs,
        ]

    def measure(self, architecture: Architecture, context: TrialContext) -> Measurement:
        """Inherit, heal, measure, save."""
        task = self._task
        task.learn_latency(context.check, context.progress)
        model = task.inherited.extract(architecture)
        trained = 0
        if architecture != task.reference:
            trained = self._heal(model, context)
        split = self._config.split
        quality = task.quality(model, split, check=context.check)
        metrics = {
            "perplexity": Metric(quality.perplexity, "", quality.tokens, quality.interval()),
            "bits_per_byte": Metric(quality.bits_per_byte, "bit/byte", quality.tokens),
        }
        metrics |= task.costs(architecture)
        artifacts = self._save(architecture, model, context) if self._config.save else {}
        examples = {
            "metric": "perplexity",
            "values": [round(float(x), 6) for x in quality.window_nats],
            "clusters": quality.window_documents.tolist(),
        }
        notes = {"examples": examples, "healed_tokens": trained}
        return Measurement(metrics, Spent(train_tokens=trained, eval_tokens=quality.tokens), artifacts, notes)

    def _heal(self, model: Standalone, context: TrialContext) -> int:
        from rankitect.training.distill import heal

        distillation = self._task.distillation

        def progress(done: int, total: int, report: StepReport) -> None:
            context.spent = Spent(train_tokens=done * distillation.config.batch * distillation.config.context)
            context.progress(done, total, f"healing, loss {report.loss:.3f}")

        result = heal(
            model,
            distillation,
            seed=context.seed,
            tokens=self._config.tokens,
            progress=progress,
            should_stop=context.should_stop,
        )
        context.check()
        return int(result.tokens)

    def _save(self, architecture: Architecture, model: Standalone, context: TrialContext) -> dict[str, str]:
        from rankitect.models.candidate import save_candidate

        task = self._task
        saved = save_candidate(
            context.folder,
            task.space,
            architecture,
            model,
            task.checkpoint.tokenizer,
            config=task.checkpoint.config,
            notes={"backbone": task.checkpoint.source},
        )
        return {name: context.artifact(context.folder / path) for name, path in saved.items()}
