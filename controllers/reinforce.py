"""Search by policy gradient (REINFORCE), with rewards that are used more than once and a baseline trained beside.

Where the task offers weights to share, policy and supernet are trained together in `prepare`: each step draws an
architecture, takes its loss on a batch that no weight has seen as its reward, and only then trains on that batch; after
a few such steps the policy learns. On data that drift, batches differ more than architectures do. A fixed baseline
model is therefore trained on the same batches, and the reward is how much better the architecture was than the baseline
on that batch (Rankitect, arXiv 2311.08430; the details are ours, see `reinforce_training`). `paired_baseline: false`
shows how much the baseline contributes.

Rewards are reused off-policy with clipped importance weights. Costs are no part of the reward: each draw is for a cost
target, which the policy meets in expectation (`rankitect.methods.cost_target`). After `prepare`, the policy goes on
learning from what the screening evaluator measures, and the best are measured in full.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from rankitect.contracts import SharesWeights, Spent, offers, require
from rankitect.controllers.reinforce_training import RewardedTraining
from rankitect.errors import SpaceError
from rankitect.graph import SearchSpace
from rankitect.methods.bounded_space import BoundedSpace, main_cost, reference_of
from rankitect.methods.objectives import Objectives
from rankitect.methods.shared_weights import (
    TrainingState,
    samples_per_update,
    train_steps,
    training_defaults,
)
from rankitect.methods.staged import StagedConfig, StagedSearch, measured_by, shared_sizes

if TYPE_CHECKING:
    from rankitect.config.parts import Parts
    from rankitect.contracts import Session, Trial
    from rankitect.controllers.reinforce_draws import Draws
    from rankitect.controllers.reinforce_policy import Record
    from rankitect.graph import Architecture, ChoiceSpace

__all__ = ["Reinforce"]

STATE = "reinforce.safetensors"


class Reinforce(StagedSearch):
    """See the module."""

    trains = True
    """`prepare` trains weights."""
    independent = frozenset({*StagedConfig.model_fields, "share", "checkpoint_every"})
    """Policy and supernet are trained before anything is measured."""

    class Config(StagedConfig):
        """Keys of `controller`."""

        co_training: bool = Field(
            True,
            description="train a supernet with the policy, where the task offers one and every choice shapes the graph",
        )
        paired_baseline: bool = Field(True, description="rewards relative to a baseline trained on the same batches")
        steps: int | None = Field(None, ge=0, le=10**9, description="steps of the co-training; null: the task's")
        episodes: int | None = Field(
            None,
            ge=1,
            le=10**9,
            description="architectures drawn and trained on before the policy learns; null: the task's",
        )
        weight_lr: float | None = Field(None, gt=0, description="peak rate of the shared weights; null: the task's")
        lr: float = Field(0.3, gt=0, description="step of the policy, in logits for one standard deviation of reward")
        reuse: int = Field(4, ge=0, le=10**6, description="earlier rewards used again with each new one")
        memory: int = Field(64, ge=1, le=10**6, description="rewards that are remembered")
        clip: float = Field(2.0, gt=0, description="largest importance weight of an earlier reward")
        cost: str | None = Field(
            None, description="cost that is targeted: a kind, or scope:kind; null: the first bound"
        )
        share: float = Field(0.5, gt=0, le=1, description="of a limited budget, what the co-training may use")
        checkpoint_every: int = Field(20, ge=1, le=10**9, description="steps between checkpoints")

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

    @classmethod
    def trains_weights(cls, config: Config, space: ChoiceSpace) -> bool:
        """Where policy and supernet are trained together, which they are not on settings: these share all weights."""
        return config.co_training and isinstance(space, SearchSpace) and space.graph_only

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
        self._draws = self._new_draws()
        if self._config.co_training and offers(self._task, SharesWeights) and self.bounded.space.graph_only:
            self._co_train(session)
        self._memory = []  # the evaluator's rewards are on another scale than losses of training

    def _new_draws(self) -> Draws:
        from rankitect.controllers.reinforce_draws import Draws
        from rankitect.controllers.reinforce_policy import Policy
        from rankitect.methods.cost_target import CostTarget

        space = self.bounded.space
        if self._targeted:
            name = self._config.cost or main_cost(self._task)
            cost = CostTarget(space, name, reference_of(self._task, space), quick=True)
            rng = np.random.default_rng([self.seed, 2])
            # Targets are drawn between the cheapest and the dearest architecture within the constraints.
            low, high = (cost.of(self.bounded.extreme(name, most, rng)) for most in (False, True))
            if low < high:
                return Draws(Policy(space, cost, self._config.clip), self.bounded, (low, high))
        return Draws(Policy(space, None, self._config.clip), self.bounded)  # no choice changes the cost

    # --- learning from losses, in prepare ---------------------------------------------------------------------------
    def _co_train(self, session: Session) -> None:
        from rankitect.controllers.reinforce_policy import Record

        c, path = self._config, session.state_dir / STATE
        task = require(self._task, SharesWeights, "co-training")
        steps, lr, *_ = training_defaults(task)
        steps, lr = (steps if c.steps is None else c.steps), c.weight_lr or lr
        episodes = min(c.episodes or samples_per_update(task), max(steps, 1))
        supernet = task.supernet(self.bounded.graph_space)
        if steps:
            updates = -(-steps // episodes)
            baseline = self._baseline() if c.paired_baseline else None
            training = RewardedTraining(supernet, task, lr, updates * episodes, baseline)
            state = TrainingState()
            if path.exists():
                info, tensors = training.load(path)
                state = TrainingState.from_info(info, task.unit)
                self._draws.policy.logits = {p: tensors[f"policy/{p}"] for p in self._draws.policy.logits}
                self._memory = [Record.from_data(self.bounded.space, row) for row in info["memory"]]

            def save(state: TrainingState) -> None:
                info = {**state.to_info(), "memory": [record.to_data() for record in self._memory]}
                policy = {f"policy/{p}": logits for p, logits in self._draws.policy.logits.items()}
                training.save(path, state.step >= updates, info, policy)

            train_steps(
                session, "reinforce", state, updates, lambda update: self._update(training, update, episodes),
                save, share=c.share, every=-(-c.checkpoint_every // episodes),
            )  # fmt: skip
            training.close()
        task.adopt(supernet)

    def _baseline(self) -> Architecture:
        """An architecture that the space knows by name, where it knows any: it costs less than the largest one and
        learns as steadily."""
        named = next(iter(self.bounded.points()), None)
        return named or self.bounded.extreme("flops", True, np.random.default_rng(0))

    def _update(self, training: RewardedTraining, update: int, episodes: int) -> tuple[float, Spent]:
        """Draw some architectures, reward each with its loss before its step, and let the policy learn from all.

        Returns:
            The last loss, and what all steps cost.
        """
        from rankitect.controllers.reinforce_policy import Record

        rng = np.random.default_rng([self.seed, 5, update])
        new, spent, loss = [], Spent(), math.nan
        for i, (architecture, target, price, chance) in enumerate(self._draws.new(rng, episodes)):
            loss, reward, cost = training.step(architecture, target, update * episodes + i)
            spent += cost
            if math.isfinite(reward):
                new.append(Record(self.bounded.lower(architecture), target, price, reward, chance))
        if new:
            self._learn_from(new, rng)
        return loss, spent

    def _learn_from(self, new: list[Record], rng: np.random.Generator) -> None:
        """One step of the policy on new records and on some that are remembered."""
        from rankitect.controllers.reinforce_policy import advantages

        # A measured reward is dear and a step of the policy is cheap: each new one brings back several earlier ones,
        # which importance weights in `Policy.learn` correct for having been drawn by an earlier policy.
        old = self._memory
        count = min(self._config.reuse * len(new), len(old))
        again = [old[i] for i in rng.choice(len(old), count, replace=False)] if count else []
        self._memory = [*old, *new][-self._config.memory :]
        if len(self._memory) >= 2:
            records = [*new, *again]
            self._draws.policy.learn(records, advantages(records, self._memory), self._config.lr)

    # --- learning from measurements ---------------------------------------------------------------------------------
    def propose(self, index: int, rng: np.random.Generator) -> tuple[Architecture, dict[str, Any]] | None:
        """An architecture that the policy draws."""
        try:
            ((architecture, target, price, chance),) = self._draws.new(rng, 1, self.known)
        except SpaceError:
            return None
        return architecture, {"target": target, "price": price, "chance": chance}

    def learn(self, trials: list[Trial]) -> None:
        """One step of the policy on new measurements and on some earlier ones."""
        from rankitect.controllers.reinforce_policy import Record

        new = []
        for trial in trials:
            if trial.ok and trial.measurement is not None:
                cost = self.objectives.costs(trial.measurement)[0]
                reward = -math.log(cost) if cost > 0 else -cost  # a ratio of losses counts the same at any level
                architecture = self.bounded.lower(trial.architecture)
                tags = trial.tags
                new.append(Record(architecture, tags["target"], tags["price"], reward, tags["chance"]))
        if new:
            self._learn_from(new, np.random.default_rng([self.seed, 6, len(self.told)]))
