"""Draws from a policy that are new and within the constraints."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

import numpy as np

from rankitect.controllers.reinforce_policy import Policy
from rankitect.errors import SpaceError
from rankitect.graph import Architecture
from rankitect.methods.bounded_space import TRIES, BoundedSpace

__all__ = ["Draws"]


class Draws:
    """Draws architectures from a policy at random cost targets.

    Args:
        policy: What is drawn from.
        bounded: The space within the constraints.
        targets: The lowest and the highest cost target; None where costs are no aim.
    """

    def __init__(self, policy: Policy, bounded: BoundedSpace, targets: tuple[float, float] | None = None) -> None:
        self.policy, self._bounded, self._targets = policy, bounded, targets
        self._refused: set[bytes] = set()  # rows of draws that are known or not allowed

    def new(
        self, rng: np.random.Generator, count: int, known: AbstractSet[str] = frozenset()
    ) -> list[tuple[Architecture, float | None, float, float]]:
        """Draw architectures within the constraints from the policy, all at one random cost target.

        Args:
            rng: Decides target and draws.
            count: How many.
            known: Fingerprints of architectures that are not to be drawn again.

        Returns:
            Each architecture with the target, the price of cost that meets it, and its log probability.

        Raises:
            SpaceError: There is nothing new.
        """
        target = None if self._targets is None else float(rng.uniform(*self._targets))
        price = self.policy.price(target)
        chances = self.policy.chances(price)
        draws = []
        for _ in range(count):
            architecture = self._drawn(chances, rng, known) or self._bounded.sample(rng, known)
            if architecture is None:
                raise SpaceError("nothing new within the constraints")
            chance = self.policy.log_chance(self._bounded.lower(architecture), chances)
            draws.append((architecture, target, price, chance))
        return draws

    def _drawn(
        self, chances: Mapping[str, np.ndarray], rng: np.random.Generator, known: AbstractSet[str]
    ) -> Architecture | None:
        """A draw that is new and allowed; None where the policy draws little but known architectures."""
        space = self._bounded.space
        columns = space.canonical(self.policy.draw(chances, rng, TRIES))
        keys = [row.tobytes() for row in np.stack(list(columns.values()), axis=1)]
        # A policy that has converged draws the same rows again and again; refused ones are not checked again.
        if not (new := [i for i, key in enumerate(keys) if key not in self._refused]):
            return None
        for i in np.asarray(new)[self._bounded.inside({p: c[new] for p, c in columns.items()})]:
            drawn = self._bounded.lift(space.decode({p: c[i : i + 1] for p, c in columns.items()})[0])
            if drawn.fingerprint not in known and all(rule(drawn) for rule in self._bounded.rules):
                return drawn
            self._refused.add(keys[i])
        return None
