"""Search by policy gradient (REINFORCE) with rewards used more than once, and a baseline trained beside.

Where the task offers weights that can be shared, policy and supernet are trained together in `prepare`: each step draws
an architecture, takes its loss on a batch that no weight has seen as its reward, and only then trains on that batch;
after a few such steps the policy learns. On data that drift, batches differ more than architectures do. So a fixed
baseline model is trained on the same batches, and the reward is by how much the architecture was better than the
baseline on that very batch (Rankitect, arXiv 2311.08430; the details are ours, see `paired_reward`).
`paired_baseline: false` shows what that brings.

Rewards are reused off-policy with clipped importance weights. Costs are no part of the reward: each draw is for a cost
target, which the policy meets in expectation (`rankitect.methods.cost_target`). After `prepare`, the policy goes on
learning from what the screening evaluator measures, and the best are measured in full.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from rankitect.contracts import SharesWeights, Spent, offers, require
from rankitect.errors import SpaceError
from rankitect.methods.bounded_space import TRIES, BoundedSpace, main_cost, reference_of
from rankitect.methods.objectives import Objectives
from rankitect.methods.shared_weights import (
    CoTraining,
    Paired,
    TrainingState,
    samples_per_update,
    train_steps,
    training_defaults,
)
from rankitect.methods.staged import StagedConfig, StagedSearch, measured_by, shared_sizes

if TYPE_CHECKING:
    from rankitect.config.parts import Parts
    from rankitect.contracts import Session, Trial
    from rankitect.controllers.reinforce_policy import Policy, Record
    from rankitect.graph import Architecture

__all__ = ["Reinforce", "paired_reward"]

STATE = "reinforce.safetensors"
WINDOW, ENOUGH = 64, 16
"""Steps back from which it is judged how far the baseline's loss tells the architecture's; the least number of them."""


def paired_reward(loss: float, beside: float, history: Sequence[Sequence[float]]) -> float:
    """By how much an architecture was better than the baseline, what the batch did to both taken out.

    The baseline's loss is its usual loss and what the batch added. An architecture feels the batch less or more than
    the baseline does, so that part counts with the coefficient of least variance, as a control variate's (Greensmith et
    al., JMLR 5, 2004): the covariance of the two losses over the variance of the baseline's, of late. With a
    coefficient of 1 it is the plain difference, which can be noisier than the loss alone.

    Args:
        loss: The architecture's on this batch.
        beside: The baseline's on this batch.
        history: Rows of the steps before: target, loss, loss of the baseline, ...
    """
    late = np.asarray([row[1:3] for row in history[-WINDOW:]])
    if len(late) < ENOUGH:
        return beside - loss
    usual, spread = float(late[:, 1].mean()), np.cov(late.T)
    felt = min(max(float(spread[0, 1] / spread[1, 1]), 0.0), 1.0) if spread[1, 1] > 0 else 1.0
    return usual - loss + felt * (beside - usual)


class Reinforce(StagedSearch):
    """See the module."""

    trains = True
    """`prepare` trains weights."""

    class Config(StagedConfig):
        """Keys of `controller`."""

        co_training: bool = Field(
            True,
            description="train a supernet with the policy, where the task offers one and every choice shapes the graph",
        )
        paired_baseline: bool = Field(True, description="rewards relative to a baseline trained on the same batches")
        steps: int | None = Field(None, ge=0, description="steps of the co-training; null: the task's")
        episodes: int | None = Field(
            None, ge=1, description="architectures drawn and trained on before the policy learns; null: the task's"
        )
        weight_lr: float | None = Field(None, gt=0, description="peak rate of the shared weights; null: the task's")
        lr: float = Field(0.3, gt=0, description="step of the policy, in logits for one standard deviation of reward")
        reuse: int = Field(4, ge=0, description="earlier rewards used again with each new one")
        memory: int = Field(64, ge=1, description="rewards that are remembered")
        clip: float = Field(2.0, gt=0, description="largest importance weight of an earlier reward")
        cost: str | None = Field(
            None, description="cost that is targeted: a kind, or scope:kind; null: the first bound"
        )
        share: float = Field(0.5, gt=0, le=1, description="of a limited budget, what the co-training may use")
        checkpoint_every: int = Field(20, ge=1, description="steps between checkpoints")

    def __init__(
        self,
        config: Config,
        by: str,
        bounded: BoundedSpace,
        objectives: Objectives,
        task: object,
        seed: int,
        *,
        targeted: bool = True,
    ) -> None:
        super().__init__(*shared_sizes(config, task), by, objectives, seed)
        self._config, self.bounded, self._task, self._targeted = config, bounded, task, targeted
        self._memory: list[Record] = []
        self._refused: set[bytes] = set()  # rows of draws that are known or not allowed
        self._range = (0.0, 1.0)

    @classmethod
    def from_config(cls, config: Config, parts: Parts) -> Reinforce:
        """Made from its section of the configuration.

        Raises:
            ConfigError: The evaluator that the search asks is not configured.
        """
        by = measured_by(config.by, parts)
        targeted = len(parts.config.evaluator.objectives) > 1
        bounded, objectives = BoundedSpace.of(parts, shared=True), Objectives.of(parts, by)
        return cls(config, by, bounded, objectives, parts.task, parts.config.seed, targeted=targeted)

    def prepare(self, session: Session) -> None:
        """Train policy and supernet together, or go on from the last checkpoint."""
        super().prepare(session)
        self._policy = self._new_policy()
        if self._config.co_training and offers(self._task, SharesWeights) and self.bounded.space.graph_only:
            self._co_train(session)
        self._memory = []  # what the evaluator measures is another scale

    def _new_policy(self) -> Policy:
        from rankitect.controllers.reinforce_policy import Policy
        from rankitect.methods.cost_target import CostTarget

        space, cost = self.bounded.space, None
        if self._targeted:
            name = self._config.cost or main_cost(self._task)
            cost = CostTarget(space, name, reference_of(self._task, space), quick=True)
            rng = np.random.default_rng([self.seed, 2])
            self._range = tuple(cost.of(self.bounded.extreme(name, most, rng)) for most in (False, True))  # type: ignore[assignment]
            if self._range[0] >= self._range[1]:  # no choice changes the cost
                self._targeted, cost = False, None
        return Policy(space, cost, self._config.clip)

    # --- learning from losses, in prepare ---------------------------------------------------------------------------
    def _co_train(self, session: Session) -> None:
        from rankitect.controllers.reinforce_policy import Record

        c, path = self._config, session.state_dir / STATE
        task = require(self._task, SharesWeights, "co-training")
        steps, lr, *_ = training_defaults(task)
        steps, lr = (steps if c.steps is None else c.steps), c.weight_lr or lr
        episodes = min(c.episodes or samples_per_update(task), max(steps, 1))
        supernet = task.supernet(self.bounded.graph_space)
        history: list[list[float]] = []
        if steps:
            updates = -(-steps // episodes)
            weights = CoTraining(supernet, task, lr, updates * episodes)
            baseline = None
            if c.paired_baseline:
                # What the space knows by name costs less than its largest architecture, and learns as steadily.
                fixed = next(iter(self.bounded.points()), None) or self.bounded.extreme(
                    "flops", True, np.random.default_rng(0)
                )
                baseline = Paired(supernet, fixed, task, lr, updates * episodes)
            state = TrainingState()
            if path.exists():
                info, tensors = weights.load(path)
                state = TrainingState.from_info(info, task.unit)
                self._policy.logits = {p: tensors[f"policy/{p}"] for p in self._policy.logits}
                self._memory = [Record.from_data(self.bounded.space, row) for row in info["memory"]]
                history = info["history"]
                if baseline is not None:
                    baseline.load(tensors, info["baseline_halvings"])

            def save(state: TrainingState) -> None:
                more = {f"policy/{p}": x for p, x in self._policy.logits.items()}
                more |= baseline.tensors() if baseline is not None else {}
                info = {
                    **state.to_info(),
                    "memory": [r.to_data() for r in self._memory],
                    "history": history,
                    "baseline_halvings": baseline.halvings if baseline is not None else 0,
                }
                weights.save(path, state.step >= updates, info, more)

            train_steps(
                session, "reinforce", state, updates,
                lambda update: self._update(weights, baseline, update, episodes, history),
                save, share=c.share, every=-(-c.checkpoint_every // episodes),
            )  # fmt: skip
            weights.close()
            if baseline is not None:
                baseline.close()
        task.adopt(supernet)

    def _update(
        self, weights: CoTraining, baseline: Paired | None, update: int, episodes: int, history: list[list[float]]
    ) -> tuple[float, Spent]:
        """Draw some, reward each by the loss before its step, learn from all. History: target, loss, and where there is
        a baseline its loss and the reward."""
        from rankitect.controllers.reinforce_policy import Record

        rng = np.random.default_rng([self.seed, 5, update])
        drawn, new, spent, loss = self._draws(rng, episodes), [], Spent(), math.nan
        for i, (architecture, target, price, chance) in enumerate(drawn):
            step = update * episodes + i
            loss, cost = weights.step(architecture, step)
            spent += cost
            row, reward = [target if target is not None else 0.0, loss], -loss
            if baseline is not None:
                beside, cost = baseline.step(step)
                spent += cost
                reward = paired_reward(loss, beside, history)
                row += [beside, reward]
            if math.isfinite(reward):
                history.append(row)
                new.append(Record(self.bounded.lower(architecture), target, price, reward, chance))
        if new:
            self._learn_from(new, rng)
        return loss, spent

    def _learn_from(self, new: list[Record], rng: np.random.Generator) -> None:
        """A step on new records and some of memory."""
        from rankitect.controllers.reinforce_policy import advantages

        old = self._memory
        count = min(self._config.reuse * len(new), len(old))
        again = [old[i] for i in rng.choice(len(old), count, replace=False)] if count else []
        self._memory = [*old, *new][-self._config.memory :]
        if len(self._memory) >= 2:
            records = [*new, *again]
            self._policy.learn(records, advantages(records, self._memory), self._config.lr)

    # --- learning from measurements ---------------------------------------------------------------------------------
    def _draws(
        self, rng: np.random.Generator, count: int, known: set[str] | frozenset[str] = frozenset()
    ) -> list[tuple[Architecture, float | None, float, float]]:
        """Architectures within the constraints from the policy at one cost target, each with that and its price, and
        its log probability; none of them `known`.

        Raises:
            SpaceError: There is nothing new.
        """
        target = float(rng.uniform(*self._range)) if self._targeted else None
        price = self._policy.price(target)
        chances = self._policy.chances(price)
        found = []
        for _ in range(count):
            made = self._drawn(chances, rng, known) or self.bounded.sample(rng, known)
            if made is None:
                raise SpaceError("nothing new within the constraints")
            found.append((made, target, price, self._policy.log_chance(self.bounded.lower(made), chances)))
        return found

    def _drawn(
        self, chances: Mapping[str, np.ndarray], rng: np.random.Generator, known: set[str] | frozenset[str]
    ) -> Architecture | None:
        """A draw that is new and allowed; None where the policy is too sure of what is known."""
        space = self.bounded.space
        columns = space.canonical(self._policy.draw(chances, rng, TRIES))
        keys = [row.tobytes() for row in np.stack(list(columns.values()), axis=1)]
        # A policy that is sure draws the same again and again.
        if not (new := [i for i, key in enumerate(keys) if key not in self._refused]):
            return None
        for i in np.asarray(new)[self.bounded.inside({p: c[new] for p, c in columns.items()})]:
            drawn = self.bounded.lift(space.decode({p: c[i : i + 1] for p, c in columns.items()})[0])
            if drawn.fingerprint not in known and all(rule(drawn) for rule in self.bounded.rules):
                return drawn
            self._refused.add(keys[i])
        return None

    def propose(self, index: int, rng: np.random.Generator) -> tuple[Architecture, dict[str, Any]] | None:
        """A draw of the policy."""
        try:
            ((made, target, price, chance),) = self._draws(rng, 1, self.known)
        except SpaceError:
            return None
        return made, {"target": target, "price": price, "chance": chance}

    def learn(self, trials: list[Trial]) -> None:
        """A step of the policy on new measurements and some earlier ones."""
        from rankitect.controllers.reinforce_policy import Record

        new = []
        for trial in trials:
            if trial.ok and trial.measurement is not None:
                cost = self.objectives.costs(trial.measurement)[0]
                reward = -math.log(cost) if cost > 0 else -cost
                made = self.bounded.lower(trial.architecture)
                tags = trial.tags
                new.append(Record(made, tags["target"], tags["price"], reward, tags["chance"]))
        if new:
            self._learn_from(new, np.random.default_rng([self.seed, 6, len(self.told)]))
