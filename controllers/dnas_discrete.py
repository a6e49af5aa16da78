"""From scores of values to the one architecture of a cost target: what `dnas` proposes when its search has ended."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from rankitect.errors import SpaceError
from rankitect.methods.bounded_space import Limits, nearest_within, within
from rankitect.methods.cost_target import BISECTIONS, CostTarget

if TYPE_CHECKING:
    import torch

    from rankitect.graph import Architecture, SearchSpace

__all__ = ["Discretisation"]

DRAWS = 512
"""Feasible draws of which the best is taken where the best value of every choice is not feasible together."""
SPARE = 0.004
"""Share of the largest cost that is not worth spending."""


class Discretisation:
    """Chooses architectures by the sum of their values' scores.

    Args:
        space: The space.
        target: The cost that targets are of.
        scores: Of each value of each choice, higher is better.
        others: Bounds on other costs, as `SearchSpace.sample` takes them.
    """

    def __init__(
        self, space: SearchSpace, target: CostTarget, scores: Mapping[str, torch.Tensor], others: Limits | None = None
    ) -> None:
        self._space, self._target, self._scores, self._others = space, target, scores, dict(others or {})

    def at(
        self, target: float, rng: np.random.Generator, start: Mapping[str, torch.Tensor], least: float = 0.0
    ) -> Architecture:
        """The architecture of the best total score whose cost is at most the target and near it, and at least `least`.

        The best value of each choice at a price of cost is taken, at the lowest price that meets the target. Where that
        breaks a bound on another cost, single changes follow that lose the least score for what they bring it nearer to
        all bounds; what is left of the target is then spent on the best single changes. Where a rule forbids the
        result, the best of many feasible draws is taken.

        Args:
            target: Of the reference's cost.
            rng: Decides the draws.
            start: Probabilities of all values, for the first marginal costs.
            least: As `target`, from below.

        Raises:
            SpaceError: No feasible architecture meets the target and the bounds.
        """
        best = self._cheapest(target, start)
        if best is not None and self._others:
            best = nearest_within(self._space, best, {**self._others, **self._bounds(0.0, target)}, self.score)
        if best is None:
            best = self._best_draw(0.0, target, rng)
        best = self.spend(best, target)
        return best if self._target.of(best) >= least else self._best_draw(least, target, rng)

    def _cheapest(self, target: float, start: Mapping[str, torch.Tensor]) -> Architecture | None:
        """The best values together at the lowest price of cost at which they cost at most the target."""
        # Bisection. A price slightly below 0 breaks ties between equal scores in favour of the larger value.
        low, high = -1e-3, 1.0
        best_values = _BestValues(self._space, self._target, self._scores, start)
        while (hardened := best_values.at(high)) is not None and self._target.of(hardened) > target and high < 1e6:
            high *= 4
        best: Architecture | None = None
        for _ in range(2 * BISECTIONS):
            middle = (low + high) / 2
            hardened = best_values.at(middle)
            if hardened is not None and self._target.of(hardened) <= target:
                best, high = hardened, middle
            else:
                low = middle
        return best

    def score(self, architecture: Architecture) -> float:
        """The sum of the scores of its values."""
        columns = self._space.encode([architecture])
        return sum(float(self._scores[p][columns[p][0]]) for p in architecture.choices)

    def _bounds(self, least: float, target: float) -> Limits:
        return {self._target.name: (least * self._target.whole, target * self._target.whole)}

    def _best_draw(self, least: float, target: float, rng: np.random.Generator) -> Architecture:
        bounds = {**self._others, **self._bounds(least, target)}
        return max(self._space.sample_many(DRAWS, rng, **bounds), key=self.score)

    def spend(self, architecture: Architecture, target: float) -> Architecture:
        """What is left of a target, spent on the single changes that gain most for their cost."""
        current, score, cost = architecture, self.score(architecture), self._target.of(architecture)
        while target - cost > SPARE:
            better = []
            near = [a for a in self._space.neighbours(current) if within(self._space, a, self._others)]
            for other, total in zip(near, self._target.of_many(near), strict=True):
                gain, price = self.score(other) - score, total - cost
                if gain > 0 and cost + price <= target:
                    # The most gain for its cost comes first; fingerprints order equals the same way in every run.
                    better.append((gain / max(price, 1e-6), other.fingerprint, other))
            if not better:
                break
            current = max(better)[2]
            score, cost = self.score(current), self._target.of(current)
        return current


class _BestValues:
    """The best value of each choice at a price of cost, for many prices.

    Args:
        space: The space.
        target: Tells marginal costs, and remembers those of the last price that was asked for.
        scores: Of each value of each choice.
        start: Probabilities, for the first marginal costs.
    """

    def __init__(
        self,
        space: SearchSpace,
        target: CostTarget,
        scores: Mapping[str, torch.Tensor],
        start: Mapping[str, torch.Tensor],
    ) -> None:
        self._space, self._target = space, target
        self._paths = list(scores)
        self._scores = self._table(scores, -math.inf)
        target.remember(start)
        self._first = self._table(target.marginal, 0.0)
        self._marginal: dict[tuple[int, ...], tuple[dict[str, torch.Tensor], np.ndarray]] = {}
        self._architectures: dict[tuple[int, ...], Architecture | None] = {}

    def at(self, mu: float) -> Architecture | None:
        """The architecture at a price; None where a rule forbids it."""
        # Marginal costs depend on what the other choices are, and the values picked depend on marginal costs: iterate.
        marginal, picked = self._first, tuple[int, ...]()
        for step in range(3):
            if step:
                remembered, marginal = self._marginal_costs(picked)
                self._target.marginal.update(remembered)
            picked = tuple((self._scores - mu * marginal).argmax(1).tolist())
        if picked not in self._architectures:
            values = {p: self._space.choices[p].values[n] for p, n in zip(self._paths, picked, strict=True)}
            try:
                self._architectures[picked] = self._space.architecture(values)
            except SpaceError:
                self._architectures[picked] = None
        return self._architectures[picked]

    def _marginal_costs(self, picked: tuple[int, ...]) -> tuple[dict[str, torch.Tensor], np.ndarray]:
        if picked not in self._marginal:
            self._target.remember_values(dict(zip(self._paths, picked, strict=True)))
            self._marginal[picked] = dict(self._target.marginal), self._table(self._target.marginal, 0.0)
        return self._marginal[picked]

    def _table(self, vectors: Mapping[str, torch.Tensor], beyond: float) -> np.ndarray:
        """A row for each choice, filled up with `beyond`."""
        table = np.full((len(self._paths), max((len(vectors[p]) for p in self._paths), default=1)), beyond)
        for row, path in zip(table, self._paths, strict=True):
            row[: len(vectors[path])] = vectors[path].numpy()
        return table
