"""Scores of an architecture with the weights it inherits, from a few batches: proxies to search or compare with."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from rankitect.contracts import Measurement, Metric, MetricSpec, Spent

if TYPE_CHECKING:
    from torch import Tensor, nn

    from rankitect.config.parts import Parts
    from rankitect.contracts import TrialContext
    from rankitect.graph import Architecture, SearchSpace
    from rankitect.models.supernet import Supernet

__all__ = ["SCORES", "Proxy"]

Score = Literal["sigeo", "zico", "grad_norm", "snip", "synflow", "nwot", "params", "flops"]
SCORES: tuple[Score, ...] = ("sigeo", "zico", "grad_norm", "snip", "synflow", "nwot", "params", "flops")
JITTER = 1e-3


class Proxy:
    """A score of the model before its own training, and the task's costs. See `proxy_scores` for the formulas.

    Works on any task that offers `search_loss(forward, step)` and either `inherited` (weights that a search has
    trained, or a backbone's) or `supernet(space)` (fresh weights). All architectures see the same batches.
    """

    class Config(BaseModel):
        """Keys of `evaluator.proxy`."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        score: Score = Field("sigeo", description="which score")
        batches: int = Field(4, ge=1, description="batches whose gradients are compared")
        zico: float = Field(1.0, description="SiGeo's coefficient of the ZiCo term")
        fisher_rao: float = Field(50.0, description="SiGeo's coefficient of the Fisher-Rao term; cold: 1")
        loss: float = Field(1.0, description="SiGeo's coefficient of the current loss; cold: 0")

    def __init__(self, config: Config, space: SearchSpace, task: Any) -> None:
        self._config, self._space, self._task = config, space, task

    @classmethod
    def from_config(cls, config: Config, parts: Parts) -> Proxy:
        """Made from its section of the configuration."""
        return cls(config, parts.space, parts.task)

    @property
    def name(self) -> str:
        """Which score it is."""
        return f"{self._config.score} (proxy)"

    @property
    def metrics(self) -> list[MetricSpec]:
        """The score, and the task's costs."""
        costs = self._costs(self._task.reference)
        return [
            MetricSpec(self._config.score, "", "max", "quality"),
            *(MetricSpec(n, m.unit, "min", "cost") for n, m in costs.items() if n != self._config.score),
        ]

    def measure(self, architecture: Architecture, context: TrialContext) -> Measurement:
        """Measure one architecture."""
        context.check()
        score = self._config.score
        if score in ("params", "flops"):
            value, spent = float(self._space.cost(architecture, score)), Spent()
        else:
            value, spent = self._score(architecture, context)
        found = {n: m for n, m in self._costs(architecture).items() if n != score}
        return Measurement({score: Metric(value, ""), **found}, spent)

    def _costs(self, architecture: Architecture) -> dict[str, Metric]:
        if hasattr(self._task, "costs"):
            found: dict[str, Metric] = self._task.costs(architecture)
            return found
        units = {"params": "", "flops": "FLOP"}
        return {kind: Metric(float(self._space.cost(architecture, kind)), unit) for kind, unit in units.items()}

    @cached_property
    def _fresh(self) -> Supernet:
        made: Supernet = self._task.supernet(self._space)
        return made

    def _score(self, architecture: Architecture, context: TrialContext) -> tuple[float, Spent]:
        from rankitect.evaluators import proxy_scores as scores

        weights = getattr(self._task, "inherited", None) or self._fresh
        model = weights.extract(architecture)
        used: list[int] = []

        def loss_of(model: nn.Module, step: int) -> Tensor:
            context.check()
            loss, tokens = self._task.search_loss(model, step)
            used.append(int(tokens))
            found: Tensor = loss
            return found

        c = self._config
        if c.score in ("synflow", "nwot"):
            inputs = scores.capture_inputs(model, partial(loss_of, step=0))
            tokens = inputs[0].numel() if len(inputs) == 1 else len(inputs[0])  # of a text, or rows
            if c.score == "synflow":
                return scores.synflow(model, inputs), Spent.training(tokens, self._task.unit)
            return scores.nwot(model, inputs, JITTER), Spent.evaluation(tokens, self._task.unit)
        grads = scores.gather_gradients(model, [partial(loss_of, step=step) for step in range(c.batches)])
        formula: dict[str, Callable[[scores.Gradients], float]] = {
            "sigeo": partial(scores.sigeo, coefficients=(c.zico, c.fisher_rao, c.loss)),
            "zico": scores.zico,
            "grad_norm": scores.grad_norm,
            "snip": scores.snip,
        }
        return formula[c.score](grads), Spent.training(sum(used), self._task.unit)
