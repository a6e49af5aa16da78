"""Differentiable search (DNAS) on the relaxed supernet, giving one architecture for each of several cost targets.

Every choice has a score for each value, in nats a token. Probabilities at a cost target are the softmax of
(score - mu * marginal cost) / scale, with mu such that the expected cost *is* the target: the cost constraint holds at
every step, and no penalty weight has to be found. A step samples a target, draws Gumbel-softmax weights
(arXiv 1611.01144) from those probabilities, runs the relaxed model on text that its weights never see, and moves the
scores against the gradient of the loss (the gradient with respect to a value's weight is the change of the loss that
the value brings, in the unit of the scores). Between two such steps the shared weights take a step of the task's
training, or several, on architectures sampled from the same probabilities, on data of their own. Targets are drawn from
the whole range, so one search yields a front.

A task may offer second-order estimates of what each value costs (`prior`). Free scores for some 700 values are a random
walk on the few ten thousand tokens that a search can afford; with a prior, the search estimates one multiplier a choice
from the same gradients instead (`dnas_scores`).

The relaxation and the sampled weights follow DARTS (arXiv 1806.09055) and FBNet (arXiv 1812.03443); the exact target in
place of their penalty, and the shared scores over targets, are ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from rankitect.contracts import HasReference, Proposal, SharesWeights, Spent, offers
from rankitect.contracts.task import HasPrior, HasSearchLoss
from rankitect.controllers.dnas_scores import Scores
from rankitect.controllers.dnas_targets import CostTargets
from rankitect.errors import SpaceError, TrainingError
from rankitect.methods.bounded_space import BoundedSpace, main_cost
from rankitect.methods.shared_weights import CoTraining, samples_per_update, training_defaults
from rankitect.training.host import give_back_memory
from rankitect.training.parallel import peers
from rankitect.training.placement import placement
from rankitect.training.spending import training_spent

if TYPE_CHECKING:
    import torch

    from rankitect.config.parts import Parts
    from rankitect.contracts import Session, Trial
    from rankitect.graph import Architecture, ChoiceSpace
    from rankitect.models.relaxed import RelaxedSupernet
    from rankitect.models.supernet import Supernet

__all__ = ["DNAS"]

STATE = "dnas.safetensors"
PATIENCE = 4
"""Steps in a row whose loss may be not finite: they teach nothing and are left out."""


class Searchable(SharesWeights, HasSearchLoss, HasReference, Protocol):
    """A task with weights to share, a loss to choose architectures by, and a reference for costs."""


class DNAS:
    """See the module. The cost is any reading of the graph.

    Works on any task that shares weights, has a loss to search by and a reference for costs (`Searchable`); a task's
    prior is where the search starts.
    """

    trains = True
    """`prepare` trains weights."""
    independent = frozenset({"points", "targets", "share", "checkpoint_every"})
    """A search is for any target between those that it was begun with."""

    class Config(BaseModel):
        """Keys of `controller`."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        steps: int | None = Field(None, ge=0, le=10**9, description="steps of the search; null: the task's")
        weight_steps: int | None = Field(
            None,
            ge=1,
            le=10**9,
            description="steps of the shared weights for each of these, each its own draw; null: the task's",
        )
        points: int = Field(
            6, ge=1, le=10_000, description="cost targets, spread evenly over what the constraints allow"
        )
        targets: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]] | None = Field(
            None,
            min_length=1,
            description="cost targets of one's own, of the production model's where there is one, else of the largest "
            "architecture's",
        )
        cost: str | None = Field(
            None, description="the cost: a kind, or scope:kind; null: the first that is constrained"
        )
        lr: float = Field(0.05, gt=0, description="nats of free score for a nat of gradient")
        scale: tuple[float, float] = Field(
            (0.006, 0.001), description="softness of the choices, first and last step, nats"
        )
        temperature: tuple[float, float] = Field((1.0, 0.3), description="of the Gumbel-softmax, first and last step")
        prior: bool = Field(True, description="start from the task's second-order estimates")
        weight_lr: float | None = Field(
            None,
            ge=0,
            description="peak rate of the shared weights' training; null: the task's; 0 keeps them as they are",
        )
        share: float = Field(
            0.5, gt=0, le=1, description="of a limited budget, what the search may use before candidates are healed"
        )
        checkpoint_every: int = Field(20, ge=1, le=10**9, description="steps between checkpoints")

    def __init__(
        self,
        config: Config,
        bounded: BoundedSpace,
        task: Searchable,
        seed: int,
        targets: CostTargets,
    ) -> None:
        self._config, self._bounded, self._task, self._seed = config, bounded, task, seed
        self._space = bounded.graph_space
        steps, lr, *_ = training_defaults(task)
        self._weight_steps = samples_per_update(task) if config.weight_steps is None else config.weight_steps
        self._steps = -(-steps // self._weight_steps) if config.steps is None else config.steps
        self._weight_lr = lr if config.weight_lr is None else config.weight_lr
        self._cost, self._targets = targets.cost, targets
        self._front: list[tuple[Architecture, dict[str, float]]] = []
        self._asked: set[Architecture] = set()

    @classmethod
    def needs(cls, config: Config) -> Sequence[type]:
        """See `Searchable`."""
        return (Searchable,)

    @classmethod
    def by_graph_alone(cls, config: Config) -> bool:
        """Always: it learns by shared weights."""
        return True

    @classmethod
    def trains_weights(cls, config: Config, space: ChoiceSpace) -> bool:
        """Not where the shared weights are kept as they are."""
        return config.weight_lr != 0 and config.steps != 0

    @classmethod
    def from_config(cls, config: Config, parts: Parts) -> DNAS:
        """Made from its section of the configuration.

        Raises:
            ConfigError: A target is outside of the constraints.
            SpaceError: The cost is unknown.
        """
        task = parts.require(Searchable, "controller")
        cost = config.cost or main_cost(task)
        bounded = BoundedSpace.of(parts, shared=True)
        Scores(bounded.graph_space, cost, task.reference)  # refuses an unknown cost before any work
        targets = CostTargets.of(cost, config.targets, config.points, task, bounded)
        return cls(config, bounded, task, parts.config.seed, targets)

    def prepare(self, session: Session) -> None:
        """Search, or go on from the last checkpoint; then discretise."""
        c, folder = self._config, session.state_dir
        scores = Scores.load(self._space, self._cost, self._task.reference, folder / STATE, self._task.unit)
        if scores is None:
            prior, spent = (
                self._task.prior(session.check, session.progress)
                if c.prior and offers(self._task, HasPrior)
                else ({}, Spent())
            )
            scores = Scores(self._space, self._cost, self._task.reference, prior)
            session.charge("prior", spent)
            scores.save(folder / STATE)  # the prior takes a while
        supernet = self._task.supernet(self._space)
        weights = (
            CoTraining(supernet, self._task, self._weight_lr, self._steps * self._weight_steps)
            if self._weight_lr and self._steps
            else None
        )
        if weights is not None and scores.step:
            weights.load(folder / _weights_file(scores.step))
        if scores.step < self._steps:
            self._search(scores, weights, supernet, session)
        if weights is not None:
            weights.close()
            self._task.adopt(supernet)
        del weights  # the state of its optimiser is twice the weights
        give_back_memory()
        for share in self._targets.values:
            rng, target = np.random.default_rng([self._seed, 1]), self._targets.shown(share)
            try:
                discrete = scores.discretise(share, rng, self._targets.least, self._bounded.limits)
            except SpaceError as error:
                session.logger.warning("Nothing is proposed at %g of %s: %s", target, self._cost, error)
                continue
            reached = self._targets.reached(discrete, self._task, self._bounded)
            if missed := self._targets.missed(target, reached):
                session.logger.warning("%s", missed)
            tags = {"target": target, "reached": reached}
            alone, *larger = self._bounded.scaled(self._bounded.lift(discrete))
            # The search may move in a small base space: the largest size of each result is measured as well.
            for variant, about in ((alone, tags), *((a, {"target": target}) for a in larger[-1:])):
                if variant not in [a for a, _ in self._front]:
                    self._front.append((variant, about))

    def _search(self, scores: Scores, weights: CoTraining | None, supernet: Supernet, session: Session) -> None:
        from rankitect.models.relaxed import RelaxedSupernet

        c, relaxed = self._config, RelaxedSupernet(supernet)
        give_back_memory()  # what refits were made from
        low, high = self._targets.values[-1], self._targets.values[0]
        bad = 0  # steps in a row whose loss was not finite
        while scores.step < self._steps and session.remaining() > 1 - c.share:
            part = scores.step / max(self._steps - 1, 1)
            scale = _anneal(c.scale, part)
            # One generator for each step, so that a resumed search draws what an undisturbed one would have drawn.
            rng = np.random.default_rng([self._seed, scores.step])
            if weights is not None:
                drawn = scores.sample(float(rng.uniform(low, high)), scale, rng, self._weight_steps)
                for i, sampled in enumerate(drawn):
                    loss, spent = weights.step(sampled, scores.step * self._weight_steps + i)
                    scores.spent += spent
                    session.scalar("dnas/weight_loss", loss, scores.step * self._weight_steps + i)
            target = float(rng.uniform(low, high))
            weighted = scores.draw(target, scale, _anneal(c.temperature, part), rng)
            value, spent = _score_step(scores, self._task, relaxed, weighted, c.lr)
            scores.spent += spent
            bad = 0 if math.isfinite(value) else bad + 1
            if bad > PATIENCE:
                raise TrainingError(f"The search cannot go on: its loss is not finite, {bad} steps in a row.")
            session.scalar("dnas/loss", value, scores.step)
            session.scalar("dnas/target", self._targets.shown(target), scores.step)
            session.progress(scores.step, self._steps, f"loss {value:.3f} at {self._targets.shown(target):.0%}")
            session.charge("dnas", scores.spent)
            if scores.step % c.checkpoint_every == 0 or scores.step == self._steps or session.should_stop():
                _save(session.state_dir, scores, weights, final=scores.step == self._steps)
                session.check()
        if scores.step < self._steps:
            session.logger.info("The search stops after %d steps: its share of the budget is spent.", scores.step)
            _save(session.state_dir, scores, weights, final=scores.step == self._steps)

    def ask(self, n: int) -> list[Proposal]:
        """The discretised architectures that were not asked for, from the largest target to the smallest."""
        chosen = [(a, tags) for a, tags in self._front if a not in self._asked][:n]
        self._asked |= {a for a, _ in chosen}
        return [Proposal(a, "final", dict(tags)) for a, tags in chosen]

    def waits(self) -> bool:
        """False: `prepare` has chosen what is measured."""
        return False

    def reopen(self, trials: list[Trial]) -> None:
        """Note what an earlier process asked for; by architecture, because `prepare` may have found others since."""
        self._asked |= {trial.architecture for trial in trials}

    def tell(self, trials: list[Trial]) -> None:
        """Nothing: the search ended before the first measurement."""

    def recover(self, trials: list[Trial]) -> None:
        """What was asked for is not asked for again."""
        self.reopen(trials)


def _score_step(
    scores: Scores, task: Searchable, relaxed: RelaxedSupernet, drawn: dict[str, torch.Tensor], lr: float
) -> tuple[float, Spent]:
    """Learn from one batch that no weight is trained on; the loss and what the step cost.

    The relaxed supernet computes every value of every choice: it is charged as training of the reference is.
    """
    from rankitect.training.optimizer import backpropagate

    def compute() -> tuple[torch.Tensor, float]:
        with placement().computing():
            return task.search_loss(lambda *x: relaxed(drawn, *x), scores.step)

    def gradients() -> list[torch.Tensor]:
        return [weight.grad for weight in drawn.values() if weight.grad is not None]

    relaxed.freeze(True)  # gradients of the mixture's weights alone are wanted, which saves those of the model
    try:
        loss, used = backpropagate(compute, gradients)
    finally:
        relaxed.freeze(False)
    peers().sum_(gradients())  # so that the scores stay the same in all processes that train together
    scores.move(drawn, lr)
    return loss, training_spent(task, task.unit, scores.space, task.reference, int(peers().total(used)))


def _save(folder: Path, scores: Scores, weights: CoTraining | None, final: bool) -> None:
    """A checkpoint: the scores name the step, so weights of that step are there before them."""
    if weights is not None:
        weights.save(folder / _weights_file(scores.step), final=final)
    scores.save(folder / STATE)
    for old in folder.glob("weights-*.safetensors"):
        if old.name != _weights_file(scores.step):
            old.unlink()


def _weights_file(step: int) -> str:
    return f"weights-{step:06d}.safetensors"


def _anneal(ends: tuple[float, float], part: float) -> float:
    """Geometric interpolation."""
    return float(ends[0] * (ends[1] / ends[0]) ** part)
