"""What networks are specialised for: bounds on costs, each of which some network of the space meets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rankitect.config.quantities import Amounts, Bounds
from rankitect.contracts import BoundsCosts, require
from rankitect.errors import ConfigError, SpaceError, brief
from rankitect.methods.bounded_space import BoundedSpace, main_cost

if TYPE_CHECKING:
    from rankitect.contracts import Trial
    from rankitect.graph import Architecture
    from rankitect.methods.objectives import Objectives

__all__ = ["Budget", "best_within", "budgets_of"]

_DRAWS = 256
_SMALLEST = 0.02
"""Share of uniform draws that are smaller than what the first of several even budgets begins from."""


@dataclass(frozen=True)
class Budget:
    """A bound that a network is specialised for.

    Attributes:
        name: For people, such as "flops up to 250,000".
        bounded: The space within it and within the constraints.
        largest: The network of most FLOPs there, of the space that weights are shared in.
    """

    name: str
    bounded: BoundedSpace
    largest: Architecture

    def meets(self, architecture: Architecture) -> bool:
        """Whether an architecture is within it."""
        return self.bounded.allowed(architecture)


def budgets_of(
    given: int | Sequence[Mapping[str, Bounds]], bounded: BoundedSpace, task: object, seed: int
) -> list[Budget]:
    """The budgets of a configuration, once it is sure that each can be met.

    Args:
        given: `controller.budgets`.
        bounded: The space within the constraints.
        task: Knows the costs.
        seed: Of draws.

    Raises:
        ConfigError: A cost is none, a latency has no device, or no network is within a budget.
    """
    if isinstance(given, int):
        return _even(given, bounded, task, seed)
    bounds = require(task, BoundsCosts, "controller.budgets", instead="A number of budgets needs no names of costs.")
    budgets = []
    for place, budget in enumerate(given):
        where = f"controller.budgets[{place}]"
        name = ", ".join(f"{cost} {_words(each)}" for cost, each in budget.items())
        try:
            limits = bounds.limits(budget)
        except ConfigError as error:
            raise ConfigError(f"{where}: {str(error).removeprefix('constraints: ')}") from None
        budgets.append(_met(name, _within(bounded, limits), where, (seed, place)))
    return budgets


def _met(name: str, within: BoundedSpace, where: str, seed: tuple[int, int]) -> Budget:
    """A budget that some network meets, which is found here: once the weights are trained it is too late to refuse it.

    Raises:
        ConfigError: None is found.
    """
    try:
        largest = within.extreme("flops", True, np.random.default_rng([seed[0], 8, seed[1]]))
    except SpaceError as error:
        raise ConfigError(f"{where}: no network meets it ({brief(name, 120)}). {brief(error, 250)}") from None
    return Budget(name, within, largest)


def _words(bounds: Bounds) -> str:
    """A range for people."""
    if not isinstance(bounds, Amounts):
        return f"{bounds[0]:g} to {bounds[1]:g} of the reference's"
    low, high = (f"{end:,.15g}" for end in (bounds.low, bounds.high))
    if np.isinf(bounds.low):
        return f"up to {high}"
    return f"from {low}" if np.isinf(bounds.high) else f"{low} to {high}"


def _within(bounded: BoundedSpace, limits: Mapping[str, tuple[float, float]]) -> BoundedSpace:
    """The space within bounds and more bounds."""
    both = dict(bounded.limits)
    for key, (low, high) in limits.items():
        first = both.get(key, (-np.inf, np.inf))
        both[key] = max(low, first[0]), min(high, first[1])
    inner = BoundedSpace(bounded.space, both, bounded.whole)
    inner.rules = bounded.rules
    return inner


def _even(count: int, bounded: BoundedSpace, task: object, seed: int) -> list[Budget]:
    """So many upper bounds of the main cost, each larger than the one before it by the same factor."""
    key = main_cost(task)
    scope, _, kind = key.rpartition(":")
    space = bounded.space

    def cost(architectures: list[Architecture]) -> np.ndarray:
        return np.asarray([space.cost(each, kind, scope) for each in architectures], dtype=np.float64)

    drawn = cost(space.sample_many(_DRAWS, np.random.default_rng([seed, 6]), **bounded.limits))
    largest = bounded.extreme(key, True, np.random.default_rng([seed, 7]))
    low, high = float(np.quantile(drawn, _SMALLEST)), max(float(cost([largest])[0]), float(drawn.max()))
    if low <= 0 or low >= high:  # all cost the same, or some cost nothing: no factor leads from one to the other
        ends = np.linspace(max(low, 0.0), high, count + 1)[1:] if low < high else np.asarray([high])
    else:
        ends = low * (high / low) ** (np.arange(1, count + 1) / count)
    ends[-1] = high
    rounded = dict.fromkeys([*(min(_rounded_up(end), high) for end in ends[:-1]), high])
    return [
        _met(f"{kind} up to {end:,.15g}", _within(bounded, {key: (-np.inf, end)}), "controller.budgets", (seed, place))
        for place, end in enumerate(rounded)
    ]


def _rounded_up(number: float) -> float:
    """A number in three digits that is not below it, as what costs least may lie just there."""
    rounded = float(f"{number:.3g}")
    if rounded >= number:
        return rounded
    return float(f"{rounded + 10.0 ** (math.floor(math.log10(abs(number))) - 2):.3g}")


def best_within(budget: Budget, trials: Sequence[Trial], objectives: Objectives) -> Trial | None:
    """The trial of best quality within a budget; of equal ones the first.

    Args:
        budget: The budget.
        trials: Of one evaluator, which measured on the split that a search chooses by.
        objectives: What quality is.
    """
    done = [trial for trial in trials if trial.ok and budget.meets(trial.architecture)]
    return done[int(objectives.table(done)[:, 0].argmin())] if done else None
