"""Regularised evolution as a proposer: who is a parent, and how a child differs from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from rankitect.methods.bounded_space import BoundedSpace
from rankitect.methods.objectives import Objectives, ranking
from rankitect.methods.staged import StagedConfig, StagedSearch

if TYPE_CHECKING:
    from rankitect.graph import Architecture

__all__ = ["EvolutionConfig", "EvolvingSearch"]


class EvolutionConfig(StagedConfig):
    """Keys of `controller` for methods that evolve architectures."""

    population: int = Field(16, ge=2, le=10**6, description="the youngest so many architectures can be parents")
    tournament: int = Field(
        6, ge=1, le=10**6, description="drawn from the population, of which the best becomes a parent"
    )
    crossover: float = Field(0.2, ge=0, le=1, description="share of children of two parents")
    changes: int = Field(2, ge=1, le=10**6, description="choices changed in a child, at most")
    known: bool = Field(True, description="the first architectures are those that the space knows by name")


class EvolvingSearch(StagedSearch):
    """Regularised evolution (Real et al., arXiv 1802.01548) over the first stage of a search.

    The first `population` architectures are those within the constraints that the space knows by name
    (`SearchSpace.points`), followed by uniform draws. Afterwards the parent of each child is the winner of a tournament
    among the youngest `population`: the oldest die, however good, so that no lucky measurement lives forever. With
    several objectives the winner is, in turns, the loneliest member of the lowest front (non-dominated sorting with
    crowding, NSGA-II, Deb et al. 2002) and the member of best quality. Crowding alone would favour the ends of a front,
    and at its cheap end there are models that predict nothing.

    Args:
        config: Sizes.
        by: Evaluator of the first stage.
        bounded: Draws and changes.
        objectives: What counts.
        seed: Of all proposals.
    """

    def __init__(
        self, config: EvolutionConfig, by: str, bounded: BoundedSpace, objectives: Objectives, seed: int
    ) -> None:
        super().__init__(config.samples, config.finalists, by, objectives, seed)
        self.config, self.bounded = config, bounded
        self._starts = self.always = bounded.points() if config.known else []

    def propose(self, index: int, rng: np.random.Generator) -> tuple[Architecture, dict[str, Any]] | None:
        """A known or a random architecture at first, then a child of the population."""
        if index < len(self._starts):
            return self._starts[index], {"parent": None}
        alive = self.told[-self.config.population :]
        if index >= self.config.population and (parents := [t for t in alive if t.ok]):
            costs = self.objectives.table(parents)
            order = ranking(costs if index % 2 else costs[:, :1])  # in turns by the front, and by quality alone
            for _ in range(self.config.population):
                child = self.child([parents[i].architecture for i in order], rng, self.bounded)
                if child is not None:
                    return child
        drawn = self.bounded.sample(rng, self.known)
        return None if drawn is None else (drawn, {"parent": None})

    def child(
        self, ordered: list[Architecture], rng: np.random.Generator, bounded: BoundedSpace
    ) -> tuple[Architecture, dict[str, Any]] | None:
        """A new child of the winner of a tournament; None where all that was tried is known.

        Args:
            ordered: Possible parents, the best first.
            rng: Decides all.
            bounded: What the child is within.
        """
        mother = ordered[self._winner(len(ordered), rng)]
        child: Architecture | None = None
        if rng.random() < self.config.crossover:
            child = bounded.crossover(mother, ordered[self._winner(len(ordered), rng)], rng, self.known)
        if child is None:
            changes = int(rng.integers(1, self.config.changes + 1))
            child = bounded.mutate(mother, rng, self.known, changes)
        return None if child is None else (child, {"parent": mother.fingerprint[:8]})

    def _winner(self, count: int, rng: np.random.Generator) -> int:
        return int(rng.choice(count, size=min(self.config.tournament, count), replace=False).min())
