"""Probabilities of choices whose expected cost is exactly a target, whatever the scores of their values are.

With scores in some unit, probabilities are the softmax of (score - mu * marginal cost) / scale: mu, the price of cost
in that unit, is solved for. So a method needs no penalty weight, and one set of scores serves all targets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from rankitect.errors import SpaceError

if TYPE_CHECKING:
    import torch

    from rankitect.graph import Architecture, ChoiceSpace

__all__ = ["BISECTIONS", "CostTarget"]

BISECTIONS = 20
LOWEST, HIGHEST = -1e3, 1e6
"""Prices beyond which no target is looked for."""

TINY = 1e-12
"""Stands for a cost or a slope of 0 where its logarithm or inverse is needed."""

CLOSE = 2e-3
"""Where `quick`, the distance from a target, relative to the reference's cost, at which the search for a price ends."""


class CostTarget:
    """The expected cost of a space's choices, and how it is met.

    Args:
        space: The space.
        cost: A kind, or scope:kind.
        reference: The architecture whose cost is 1.
        quick: Whether the expected cost may be 0.2% of the reference's from its target. By default where the cost ties
            many choices together, so that its expectation takes long.

    Attributes:
        whole: The reference's cost.
        marginal: Of each value of each choice, given the probabilities that were last remembered.

    Raises:
        SpaceError: The cost is unknown, or counts nothing.
    """

    def __init__(self, space: ChoiceSpace, cost: str, reference: Architecture, quick: bool | None = None) -> None:
        scope, _, kind = cost.rpartition(":")
        self.name, self._space = cost, space
        self._tables = space.cost_tables(kind, scope)
        self._quick = bool(self._tables.rest.terms) if quick is None else quick
        self.whole = float(space.cost(reference, kind, scope))
        if self.whole <= 0:
            raise SpaceError(f"cost {cost!r} counts nothing in space {space.name!r}: is {scope!r} a part of its graph?")
        self.marginal: dict[str, torch.Tensor] = {}
        self.forget()

    def forget(self) -> None:
        """Marginal costs under uniform probabilities, as at the start."""
        import torch

        choices = self._space.choices.items()
        self.remember({p: torch.full((len(c.values),), 1 / len(c.values), dtype=torch.float64) for p, c in choices})

    def of(self, architecture: Architecture) -> float:
        """An architecture's cost, relative to the reference."""
        return self.of_many([architecture])[0]

    def of_many(self, architectures: Sequence[Architecture]) -> list[float]:
        """The costs of many, relative to the reference."""
        columns = self._space.encode(architectures)
        costs = self._tables.evaluate(self._space.choices, columns, len(architectures))
        return [float(cost) / self.whole for cost in costs]

    def expected(self, weights: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The expected cost of independent choices, relative to the reference."""
        import torch

        zero = torch.zeros((), dtype=torch.float64)
        cost: torch.Tensor = self._tables.expectation(weights.__getitem__, zero)
        return cost / self.whole

    def remember(self, chances: Mapping[str, torch.Tensor]) -> None:
        """The marginal cost of each value, given the probabilities of all other choices (the cost is multilinear)."""
        import torch

        leaves = {p: c.detach().clone().requires_grad_(True) for p, c in chances.items()}
        with torch.enable_grad():
            grads = torch.autograd.grad(self.expected(leaves), list(leaves.values()), allow_unused=True)
        for path, grad in zip(leaves, grads, strict=True):
            self.marginal[path] = torch.zeros_like(leaves[path]) if grad is None else grad - grad.min()

    def remember_values(self, positions: Mapping[str, int]) -> None:
        """What `remember` gives where each choice certainly has the value at a position, to the last digit: looked up.

        A search for the best values of a target asks for this some hundred times, and gradients take fifty times as
        long.
        """
        import torch

        sizes = {p: len(self._space.choices[p].values) for p in positions}
        if self._tables.rest.terms:
            certain = {p: torch.eye(n, dtype=torch.float64)[positions[p]] for p, n in sizes.items()}
            return self.remember(certain)
        sums = {p: np.zeros(n) for p, n in sizes.items()}
        one = 1.0 / self.whole
        for table in reversed(self._tables.tables):  # in the order in which gradients are added up
            chosen = [positions[p] for p in table.paths]
            for axis, path in enumerate(table.paths):
                row: tuple[int | slice, ...] = (*chosen[:axis], slice(None), *chosen[axis + 1 :])
                sums[path] += table.values[row] * one
        for path, costs in sums.items():
            self.marginal[path] = torch.from_numpy(costs - costs.min())
        return None

    def at(self, scores: Mapping[str, torch.Tensor], mu: float, scale: float) -> dict[str, torch.Tensor]:
        """Probabilities at a price of cost."""
        return {p: ((s - mu * self.marginal[p]) / scale).softmax(0) for p, s in scores.items()}

    def priced(self, scores: Mapping[str, torch.Tensor]) -> Callable[[float, float], dict[str, np.ndarray]]:
        """What `at` gives as a function of price and scale, in arrays: for those who want it at many prices."""
        many, slope = Softmaxes(scores), Softmaxes({p: self.marginal[p] for p in scores}).flat
        return lambda mu, scale: many.at(mu, slope, scale)

    def price(self, scores: Mapping[str, torch.Tensor], target: float, scale: float) -> float:
        """The price of cost at which the expected cost is the target."""
        priced = self.priced(scores)

        def cost(mu: float) -> float:
            return float(self._tables.expectation(priced(mu, scale).__getitem__, 0.0)) / self.whole

        def excess(mu: float) -> float:
            return cost(mu) - target

        def spread() -> float:
            marginal = ((c, self.marginal[p].numpy()) for p, c in priced(0.0, scale).items())
            return sum(float(c @ np.square(m - c @ m)) for c, m in marginal) / scale

        if self._quick:
            return _crossing(cost, spread, target)
        # Bracket the price, then bisect: the expected cost falls as its price rises.
        low, high = -1e-3, 1.0
        while excess(high) > 0 and high < HIGHEST:
            high *= 4
        while excess(low) < 0 and low > LOWEST:
            low *= 4  # soft choices at a high target: cost has to be rewarded
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            low, high = (middle, high) if excess(middle) > 0 else (low, middle)
        return (low + high) / 2

    def chances(self, scores: Mapping[str, torch.Tensor], target: float, scale: float) -> dict[str, torch.Tensor]:
        """Probabilities of all values with the expected cost at `target` (of the reference's)."""
        for _ in range(1 if self._quick else 2):  # marginal costs depend on the probabilities: iterate
            self.remember(self.at(scores, self.price(scores, target, scale), scale))
        return self.at(scores, self.price(scores, target, scale), scale)


class Softmaxes:
    """Softmaxes of many short vectors at once, as arrays: torch takes ten times as long over tensors of a few numbers.

    Args:
        scores: The vectors, by name.
    """

    def __init__(self, scores: Mapping[str, torch.Tensor]) -> None:
        self._sizes = np.asarray([len(x) for x in scores.values()], np.intp)
        ends = np.cumsum(self._sizes, dtype=np.intp)
        self._starts = ends - self._sizes
        self._places = dict(zip(scores, map(slice, self._starts, ends), strict=True))
        self.flat = np.concatenate([x.detach().numpy() for x in scores.values()]) if scores else np.zeros(0)

    def at(self, mu: float = 0.0, slope: np.ndarray | float = 0.0, scale: float = 1.0) -> dict[str, np.ndarray]:
        """The softmaxes of (scores - mu slope) / scale."""
        raised = (self.flat - mu * slope) / scale
        if not self._places:
            return {}
        chances = np.exp(raised - np.repeat(np.maximum.reduceat(raised, self._starts), self._sizes))
        chances /= np.repeat(np.add.reduceat(chances, self._starts), self._sizes)
        return {path: chances[place] for path, place in self._places.items()}


def _crossing(cost: Callable[[float], float], spread: Callable[[], float], target: float) -> float:
    """The price at which a falling cost is within `CLOSE` of its target, in few evaluations.

    Cost falls about exponentially in its price, so this is the secant method in log cost, from a price of 0. Its first
    slope is that of a tilted distribution: minus the variance of the cost.

    Args:
        cost: Expected cost at a price.
        spread: The variance of the cost at a price of 0, about; asked for only where 0 is not the answer.
        target: The cost that is wanted.
    """
    low, high, mu = -math.inf, math.inf, 0.0
    reached, rate, best = cost(mu), math.nan, (math.inf, mu)
    for step in range(BISECTIONS):
        best = min(best, (abs(reached - target), mu))
        if best[0] < CLOSE:
            break
        low, high = (mu, high) if reached > target else (low, mu)
        if step == 0:
            rate = spread() / max(reached, TINY)
        ahead = mu + math.log(max(reached, TINY) / max(target, TINY)) / max(rate, TINY)
        # A secant step out of the bracket is replaced by a bisection, which always converges.
        if not low < ahead < high and math.isfinite(low) and math.isfinite(high):
            ahead = (low + high) / 2
        ahead = min(max(ahead, LOWEST), HIGHEST)
        if ahead == mu:
            break  # no price reaches the target
        before, reached = reached, cost(ahead)
        rate = math.log(max(before, TINY) / max(reached, TINY)) / (ahead - mu)
        mu = ahead
    return min(best, (abs(reached - target), mu))[1]
