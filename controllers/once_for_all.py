"""Once for all: shared weights are trained once, by a schedule, then a network is taken from them for every budget.

The schedules are delayed epsilon-shrinking (arXiv 2407.06167), the sandwich rule from the start (BigNAS, arXiv
2003.11142), progressive shrinking (Once-for-All, arXiv 1908.09791), and all others after the largest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rankitect.contracts import FollowsRecipe, SharesWeights, Specialised, TakesWeights, offers
from rankitect.errors import ConfigError
from rankitect.methods.bounded_space import BoundedSpace
from rankitect.methods.calibrated import require_calibration
from rankitect.methods.evolving import EvolutionConfig
from rankitect.methods.objectives import Objectives
from rankitect.methods.once_for_all.budgets import Budget, best_within, budgets_of
from rankitect.methods.once_for_all.opening import Opening
from rankitect.methods.once_for_all.settings import OnceForAllConfig
from rankitect.methods.once_for_all.taken import TakenAsTheyAre
from rankitect.methods.once_for_all.training import OnceForAllTraining, scheduled
from rankitect.methods.staged import finalists, measured_by
from rankitect.methods.supernet_search import Draws, SupernetSearch

if TYPE_CHECKING:
    from rankitect.config.parts import Parts
    from rankitect.contracts import Session, Trial
    from rankitect.graph import Architecture
    from rankitect.models.supernet import Supernet

__all__ = ["OnceForAll"]

_INDEPENDENT = ("share", "checkpoint_every", "budgets", "statistics", "finetune")


class OnceForAll(SupernetSearch):
    """Trains shared weights, then searches the best network of every budget by what the screening evaluator measures
    with them. The final evaluator measures these networks as they were taken from the shared weights.

    Args:
        config: The keys.
        budgets: What networks are specialised for.
        by: Evaluator of the search.
        bounded: The space within the constraints.
        objectives: What counts.
        task: Gives weights and loss.
        seed: Of everything.
    """

    Config = OnceForAllConfig
    reserve = 0.03
    """Networks that are not trained any more take little time to measure in full."""
    wraps_evaluators = True
    """Processes that measure need it as well: see `rankitect.config.parts.build`."""
    independent = frozenset({*EvolutionConfig.model_fields, *_INDEPENDENT})
    """What the shared weights do not depend on."""

    def __init__(
        self,
        config: OnceForAllConfig,
        budgets: Sequence[Budget],
        by: str,
        bounded: BoundedSpace,
        objectives: Objectives,
        task: object,
        seed: int,
    ) -> None:
        super().__init__(config, config.length(task), by, bounded, objectives, task, seed)
        self._keys, self.budgets = config, list(budgets)
        self.count = config.finalists or len(self.budgets)
        self._firsts: dict[int, list[Architecture]] = {}

    @classmethod
    def needs(cls, config: OnceForAllConfig) -> Sequence[type]:
        """Weights to share."""
        return (SharesWeights,)

    @classmethod
    def by_graph_alone(cls, config: OnceForAllConfig) -> bool:
        """Always: it compares by shared weights."""
        return True

    @classmethod
    def from_config(cls, config: OnceForAllConfig, parts: Parts) -> OnceForAll:
        """Made from its section of the configuration.

        Raises:
            ConfigError: The evaluator that the search asks is not configured, a budget cannot be met, keys of the
                schedule contradict each other, a phase opens a choice that there is not, or there is no recipe to
                train networks by.
        """
        by, seed = measured_by(config.by, parts), parts.config.seed
        bounded = BoundedSpace.of(parts, shared=True)
        if config.finetune:
            cls._check_recipe(parts)
        else:
            task = parts.require(TakesWeights, "controller")
            require_calibration(parts.task, bounded.space, "controller=once_for_all")
            final, steps = parts.evaluators["final"], config.length(task)
            parts.evaluators["final"] = TakenAsTheyAre(final, task, config.statistics, steps)
        scheduled(config, parts.task)
        if config.phases is not None:
            Opening(bounded, Draws(bounded, seed).largest, config.phases)
        budgets = budgets_of(config.budgets, bounded, parts.task, seed)
        return cls(config, budgets, by, bounded, Objectives.of(parts, by), parts.task, seed)

    @staticmethod
    def _check_recipe(parts: Parts) -> None:
        if not offers(parts.evaluators["final"], FollowsRecipe):
            raise ConfigError(
                "controller.finetune=true trains each network by the stages of a recipe, which are for language "
                f"models, and evaluator.final.name={parts.names['evaluator.final']} runs none. Leave it out: networks "
                "are then measured as they are taken from the shared weights."
            )
        if not parts.stages:
            raise ConfigError(
                "controller.finetune=true trains each network by the recipe, and there is none: add recipe=finetune."
            )

    def prepare(self, session: Session) -> None:
        """As every search with shared weights. Baselines are not proposed: what is known of them is how good they are
        when they are trained alone, and a study measures an architecture once."""
        super().prepare(session)
        self.known |= {trial.architecture.fingerprint for trial in session.trials if trial.baseline is not None}

    # --- the training -----------------------------------------------------------------------------------------------
    def train(self, session: Session, task: SharesWeights, supernet: Supernet) -> None:
        """By the schedule, from the beginning or from the last checkpoint."""
        OnceForAllTraining(self._keys, self.bounded, task, supernet, self.seed, session.state_dir).run(session)

    # --- the search -------------------------------------------------------------------------------------------------
    def propose(self, index: int, rng: np.random.Generator) -> tuple[Architecture, dict[str, Any]] | None:
        """A network for each budget in turn: the largest within it and those known by name at first, then children of
        the best that were measured within it, for whichever budget."""
        turn, at = divmod(index, len(self.budgets))
        for place in (*range(at, len(self.budgets)), *range(at)):  # a budget may hold nothing new
            if (proposed := self._within(place, turn, index, rng)) is not None:
                return proposed[0], {**proposed[1], "budget": self.budgets[place].name}
        return None

    def _within(
        self, place: int, turn: int, index: int, rng: np.random.Generator
    ) -> tuple[Architecture, dict[str, Any]] | None:
        budget, none = self.budgets[place], {"parent": None}
        if place not in self._firsts:
            named = budget.bounded.points() if self.config.known else []
            self._firsts[place] = [budget.bounded.lift(budget.largest), *named]
        firsts = self._firsts[place]
        if turn < len(firsts) and firsts[turn].fingerprint not in self.known:
            return firsts[turn], none
        alive = [t for t in self.told if t.ok and budget.meets(t.architecture)][-self.config.population :]
        if index >= self.config.population and len(alive) > 1:
            order = self.objectives.table(alive)[:, 0].argsort(kind="stable")
            child = self.child([alive[i].architecture for i in order], rng, budget.bounded)
            if child is not None:
                return child
        drawn = budget.bounded.sample(rng, self.known)
        return None if drawn is None else (drawn, none)

    def select(self, trials: list[Trial]) -> list[Trial]:
        """The best network of every budget; where `finalists` asks for more, the next best."""
        best = [best_within(budget, trials, self.objectives) for budget in self.budgets]
        chosen = list({t.architecture.fingerprint: t for t in best if t is not None}.values())
        known = {trial.architecture.fingerprint for trial in chosen}
        more = [t for t in trials if t.architecture.fingerprint not in known]
        return chosen + finalists(more, self.objectives, max(0, self.count - len(self.budgets)))

    def scaled(self, architecture: Architecture) -> list[Architecture]:
        """None: there are no trained weights at larger scales."""
        return []

    def specialised(self, trials: Sequence[Trial]) -> list[Specialised]:
        """For every budget the network that was taken for it, among those that were measured in full.

        Args:
            trials: Finished trials of the study.
        """
        final = {t.architecture.fingerprint for t in trials if t.evaluator == "final" and t.ok and t.baseline is None}
        measured = [t for t in trials if t.evaluator == self.by and t.baseline is None]
        if self.by != "final":
            measured = [t for t in measured if t.architecture.fingerprint in final]
        best = [(budget, best_within(budget, measured, self.objectives)) for budget in self.budgets]
        return [Specialised(b.name, None if t is None else t.architecture.fingerprint) for b, t in best]
