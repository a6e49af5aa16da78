"""Scores of an architecture with the weights it inherits, from a few batches: proxies to search or compare with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from rankitect.contracts import InheritsWeights, Measurement, Metric, MetricSpec, SharesWeights, Spent, offers, require
from rankitect.contracts.task import HasSearchLoss
from rankitect.errors import ConfigError
from rankitect.evaluators.costs import cost_specs_of, costs_of
from rankitect.graph import SearchSpace
from rankitect.training.placement import placement

if TYPE_CHECKING:
    from torch import Tensor, nn

    from rankitect.config.parts import Parts
    from rankitect.contracts import TrialContext
    from rankitect.graph import Architecture, ChoiceSpace
    from rankitect.models.supernet import Supernet

__all__ = ["SCORES", "Proxy"]

Score = Literal["sigeo", "zico", "grad_norm", "snip", "synflow", "nwot", "params", "flops"]
SCORES: tuple[Score, ...] = ("sigeo", "zico", "grad_norm", "snip", "synflow", "nwot", "params", "flops")
COUNTED = ("params", "flops")
COMPARED = ("sigeo", "zico")
"""Scores of how gradients vary from batch to batch."""
JITTER = 1e-3


class Proxy:
    """A score of the model before its own training, and the task's costs. See `proxy_scores` for the formulas.

    Works on any task that has a loss to search by and weights to inherit: those that a search has trained, a
    backbone's, or else fresh ones. All architectures see the same batches. Parameters and FLOPs need no task at all.
    """

    class Config(BaseModel):
        """Keys of `evaluator.proxy`."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        score: Score = Field("sigeo", description="which score")
        batches: int = Field(4, ge=1, le=10**6, description="batches whose gradients are compared")
        zico: float = Field(1.0, description="SiGeo's coefficient of the ZiCo term")
        fisher_rao: float = Field(50.0, description="SiGeo's coefficient of the Fisher-Rao term; cold: 1")
        loss: float = Field(1.0, description="SiGeo's coefficient of the current loss; cold: 0")

    @classmethod
    def needs(cls, config: Config) -> Sequence[type]:
        """A loss and weights, for all scores but those that only count."""
        return () if config.score in COUNTED else (HasSearchLoss, InheritsWeights)

    def __init__(self, config: Config, space: ChoiceSpace, task: object) -> None:
        self._config, self._space, self._task = config, space, task

    @classmethod
    def from_config(cls, config: Config, parts: Parts) -> Proxy:
        """Made from its section of the configuration.

        Raises:
            ConfigError: The score needs models, and the space has no graph to build them from, or it compares batches
                and there is one.
        """
        if config.score in COMPARED and config.batches < 2:
            raise ConfigError(
                f"evaluator.proxy.batches={config.batches}: the score '{config.score}' compares the gradients of "
                "batches and needs 2 or more."
            )
        if config.score not in COUNTED and not isinstance(parts.space, SearchSpace):
            raise ConfigError(
                f"The proxy score '{config.score}' is that of a model's graph, and space={parts.names['space']} has "
                "none. Measure with another evaluator, or leave this one out: evaluator.proxy=null."
            )
        return cls(config, parts.space, parts.task)

    @property
    def name(self) -> str:
        """Which score it is."""
        return f"{self._config.score} (proxy)"

    @property
    def metrics(self) -> list[MetricSpec]:
        """The score, and the task's costs."""
        score = self._config.score
        return [
            MetricSpec(score, "", "max", "quality"),
            *(spec for spec in cost_specs_of(self._task) if spec.name != score),
        ]

    def measure(self, architecture: Architecture, context: TrialContext) -> Measurement:
        """Measure one architecture."""
        context.check()
        score = self._config.score
        if score in COUNTED:
            value, spent = float(self._space.cost(architecture, score)), Spent()
        else:
            value, spent = self._score(architecture, context)
        costs = {n: m for n, m in costs_of(self._task, self._space, architecture).items() if n != score}
        return Measurement({score: Metric(value, ""), **costs}, spent)

    @property
    def _graph_space(self) -> SearchSpace:
        assert isinstance(self._space, SearchSpace)  # `from_config` made sure
        return self._space

    @cached_property
    def _fresh(self) -> Supernet:
        task = require(self._task, SharesWeights, f"{self.name}, where no weights are there to inherit,")
        supernet: Supernet = task.supernet(self._graph_space)
        return placement().place(supernet)

    def _score(self, architecture: Architecture, context: TrialContext) -> tuple[float, Spent]:
        from rankitect.evaluators import proxy_scores as scores

        inherited = self._task.inherited if offers(self._task, InheritsWeights) else None
        task = require(self._task, HasSearchLoss, self.name)
        model = (inherited or self._fresh).extract(architecture)
        used: list[int] = []

        def loss_of(model: nn.Module, step: int) -> Tensor:
            context.check()
            with placement().computing():
                loss, tokens = task.search_loss(model, step)
            used.append(int(tokens))
            return loss

        c = self._config
        if c.score in ("synflow", "nwot"):
            inputs = scores.capture_inputs(model, partial(loss_of, step=0))
            ids = len(inputs) == 1 and not inputs[0].is_floating_point()
            tokens = inputs[0].numel() if ids else len(inputs[0])  # of a text; or rows, or images
            if c.score == "synflow":
                return scores.synflow(model, inputs), self._spent(task, architecture, tokens)
            # Nothing is trained, but the batch may have been made by a teacher.
            teacher = self._spent(task, architecture, tokens).teacher_tokens
            spent = Spent.evaluation(tokens, task.unit) + Spent(teacher_tokens=teacher)
            return scores.nwot(model, inputs, JITTER), spent
        grads = scores.gather_gradients(model, [partial(loss_of, step=step) for step in range(c.batches)])
        formula: dict[str, Callable[[scores.Gradients], float]] = {
            "sigeo": partial(scores.sigeo, coefficients=(c.zico, c.fisher_rao, c.loss)),
            "zico": scores.zico,
            "grad_norm": scores.grad_norm,
            "snip": scores.snip,
        }
        return formula[c.score](grads), self._spent(task, architecture, sum(used))

    def _spent(self, task: HasSearchLoss, architecture: Architecture, amount: int) -> Spent:
        """Gradients cost what a step of training does."""
        from rankitect.training.spending import training_spent

        return training_spent(task, task.unit, self._graph_space, architecture, amount)
