"""The costs that a differentiable search finds architectures for, and the shares in which users give and read them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rankitect.contracts import HasReference, offers
from rankitect.contracts.task import HasProduction
from rankitect.errors import ConfigError
from rankitect.methods.bounded_space import limits_of

if TYPE_CHECKING:
    from rankitect.graph import Architecture
    from rankitect.methods.bounded_space import BoundedSpace

__all__ = ["CostTargets"]

MISSED = 0.05
"""Share of a target by which an architecture's cost may differ from it before that is worth saying."""


@dataclass(frozen=True)
class CostTargets:
    """Cost targets of a search. The search itself knows costs as shares of the reference's.

    Attributes:
        cost: A kind, or scope:kind.
        values: The targets, shares of the reference's cost, the largest first.
        least: What an architecture costs at least.
        unit: What users' shares are of, in the same terms: the production model's cost where there is one; else 1.
    """

    cost: str
    values: tuple[float, ...]
    least: float = 0.0
    unit: float = 1.0

    @classmethod
    def of(
        cls, cost: str, given: Sequence[float] | None, points: int, task: HasReference, bounded: BoundedSpace
    ) -> CostTargets:
        """The targets that a user gives, or some that are spread evenly over what the constraints allow.

        Args:
            cost: A kind, or scope:kind.
            given: Shares of the production model's cost where there is one, else of the reference's.
            points: Number of targets where none are given.
            task: Has the reference and bounds.
            bounded: The space within the constraints.

        Raises:
            ConfigError: A target is outside of the constraints.
        """
        low, high = _range(cost, task, bounded)
        unit, step = _production_share(cost, task, bounded), (high - low) / points
        own = [round(target * unit, 12) for target in given or ()]
        targets = own or [round(low + (i + 0.5) * step, 4) for i in range(points)]
        if outside := [t for t in targets if not low - 1e-9 <= t <= high + 1e-9]:
            raise ConfigError(
                f"controller.targets: {outside[0] / unit:g} is outside of the constraints, which allow "
                f"{low / unit:g} to {high / unit:g} of {cost}."
            )
        return cls(cost, tuple(sorted(targets, reverse=True)), low, unit)

    def shown(self, share: float) -> float:
        """A share of the reference's cost as users give and read it."""
        return share if self.unit == 1.0 else round(share / self.unit, 4)

    def reached(self, architecture: Architecture, task: HasReference, bounded: BoundedSpace) -> float:
        """What an architecture costs, as users read it."""
        share = _cost(self.cost, architecture, bounded) / _cost(self.cost, task.reference, bounded)
        return round(share / self.unit, 4)

    def missed(self, target: float, reached: float) -> str:
        """What to say of a target, as users read it, that no architecture came near to; empty where one did."""
        if abs(reached - target) <= MISSED * target:
            return ""
        whole = "the largest architecture's" if self.unit == 1.0 else "the production model's"
        return (
            f"controller.targets: {target:g} of {whole} {self.cost} was missed: the best architecture that was found "
            f"below it has {reached:g}. More steps, or targets closer together, may find others."
        )


def _cost(cost: str, architecture: Architecture, bounded: BoundedSpace) -> float:
    scope, _, kind = cost.rpartition(":")
    return float(bounded.graph_space.cost(architecture, kind, scope))


def _range(cost: str, task: HasReference, bounded: BoundedSpace) -> tuple[float, float]:
    """The allowed cost, relative to the reference; down to the cheapest architecture where nothing bounds it."""
    low, high = limits_of(task).get(cost, (-math.inf, math.inf))
    whole = _cost(cost, task.reference, bounded)
    if low == -math.inf:
        low = _cost(cost, bounded.extreme(cost, False, np.random.default_rng(0)), bounded)
    return low / whole, min(high / whole, 1.0)


def _production_share(cost: str, task: HasReference, bounded: BoundedSpace) -> float:
    """What the production model costs, relative to the reference; 1 where there is none."""
    known = task.production_cost(cost) if offers(task, HasProduction) else None
    return known / _cost(cost, task.reference, bounded) if known else 1.0
