"""Probabilities of choices whose expected cost is exactly a target, whatever the scores of their values are.

With scores in some unit, probabilities are the softmax of (score - mu * marginal cost) / scale: mu, the price of cost
in that unit, is solved for. So a method needs no penalty weight, and one set of scores serves all targets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rankitect.errors import SpaceError

if TYPE_CHECKING:
    import torch

    from rankitect.graph import Architecture, SearchSpace

__all__ = ["BISECTIONS", "CostTarget"]

BISECTIONS = 20


class CostTarget:
    """The expected cost of a space's choices, and how it is met.

    Args:
        space: The space.
        cost: A kind, or scope:kind.
        reference: The architecture whose cost is 1.
        tolerance: How far the expected cost may be from its target before the search for the price goes on.
        rounds: How often marginal costs, which depend on the probabilities, are found again.

    Attributes:
        whole: The reference's cost.
        marginal: Of each value of each choice, given the probabilities that were last remembered.

    Raises:
        SpaceError: The cost is unknown, or counts nothing.
    """

    def __init__(
        self, space: SearchSpace, cost: str, reference: Architecture, tolerance: float = 0.0, rounds: int = 2
    ) -> None:

        scope, _, kind = cost.rpartition(":")
        self.name, self._space, self._tolerance, self._rounds = cost, space, tolerance, rounds
        self._tables = space.cost_tables(kind, scope)
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
        columns = self._space.encode([architecture])
        return float(self._tables.evaluate(self._space.choices, columns, 1)[0]) / self.whole

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

    def at(self, scores: Mapping[str, torch.Tensor], mu: float, scale: float) -> dict[str, torch.Tensor]:
        """Probabilities at a price of cost."""
        return {p: ((s - mu * self.marginal[p]) / scale).softmax(0) for p, s in scores.items()}

    def price(self, scores: Mapping[str, torch.Tensor], target: float, scale: float) -> float:
        """The price of cost at which the expected cost is the target."""
        low, high = -1e-3, 1.0
        while float(self.expected(self.at(scores, high, scale))) > target and high < 1e6:
            high *= 4
        while float(self.expected(self.at(scores, low, scale))) < target and low > -1e3:
            low *= 4  # soft choices at a high target: cost has to be rewarded
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            excess = float(self.expected(self.at(scores, middle, scale))) - target
            if abs(excess) < self._tolerance:
                break
            low, high = (middle, high) if excess > 0 else (low, middle)
        return (low + high) / 2

    def chances(self, scores: Mapping[str, torch.Tensor], target: float, scale: float) -> dict[str, torch.Tensor]:
        """Probabilities of all values with the expected cost at `target` (of the reference's)."""
        for _ in range(self._rounds):
            self.remember(self.at(scores, self.price(scores, target, scale), scale))
        return self.at(scores, self.price(scores, target, scale), scale)
