"""Exact counting and uniform sampling of distinct architectures by variable elimination.

Every choice contributes a factor that allows all its values where it has an effect and only its first one where it has
none, so the product of factors is 1 exactly once for each distinct model. Summing the product out, one choice after the
other (Koller & Friedman, Probabilistic Graphical Models, chapter 9), gives the number of distinct models; going back
through the intermediate tables draws from them uniformly, or with weights exp(lambda . cost).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rankitect.errors import SpaceError
from rankitect.space.choices import Choice
from rankitect.space.tables import MAX_TABLE, JointTable

__all__ = ["Elimination", "eliminate"]


@dataclass(frozen=True)
class _Step:
    path: str
    given: tuple[str, ...]
    log_weights: np.ndarray  # axes: path, then given


@dataclass(frozen=True)
class Elimination:
    """The result of summing out all choices.

    Attributes:
        log_total: Natural logarithm of the sum; -inf where nothing is feasible.
        steps: For each choice, in order of elimination, its conditional weights.
    """

    log_total: float
    steps: tuple[_Step, ...]

    def sample(self, n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Draw `n` joint assignments; int64 indices [n] for each path."""
        drawn: dict[str, np.ndarray] = {}
        for step in reversed(self.steps):
            where: tuple[Any, ...] = (slice(None), *(drawn[g] for g in step.given))
            weights = step.log_weights[where]
            if not step.given:
                weights = np.repeat(weights[:, None], n, axis=1)
            # The largest of log-weights plus Gumbel noise is distributed as the weights say (the Gumbel-max trick).
            gumbel = rng.gumbel(size=weights.shape)
            drawn[step.path] = np.argmax(weights + gumbel, axis=0)
        return drawn


def _spread(table: JointTable, paths: Sequence[str], sizes: Mapping[str, int]) -> np.ndarray:
    """A table with its axes in the order of `paths`, 1 where it lacks one."""
    order = sorted(range(len(table.paths)), key=lambda k: paths.index(table.paths[k]))
    shape = [sizes[p] if p in table.paths else 1 for p in paths]
    return table.values.transpose(order).reshape(shape)


class _Pool:
    """The tables left, and for each choice which of them hold it: an elimination changes only its neighbours."""

    def __init__(self, choices: Mapping[str, Choice], factors: Sequence[JointTable]) -> None:
        self.sizes = {p: len(c.values) for p, c in choices.items()}
        self.order = {p: i for i, p in enumerate(choices)}
        self.tables = dict(enumerate(factors))
        self.holding: dict[str, set[int]] = {p: set() for p in choices}
        for key, table in self.tables.items():
            for p in table.paths:
                self.holding[p].add(key)
        self.scopes: dict[str, list[str]] = {}
        self.entries: dict[str, float] = {}
        for p in choices:
            self._measure(p)

    def _measure(self, path: str) -> None:
        near = {q for key in self.holding[path] for q in self.tables[key].paths} - {path}
        self.scopes[path] = [path, *sorted(near, key=self.order.__getitem__)]
        self.entries[path] = float(np.prod([float(self.sizes[q]) for q in self.scopes[path]]))

    def cheapest(self) -> str:
        """The choice whose elimination makes the smallest table: greedy, as the best order is hard to find."""
        return min(self.scopes, key=lambda p: (self.entries[p], self.order[p]))

    def joint(self, path: str) -> np.ndarray:
        """The sum of the tables that hold a choice, over its scope."""
        scope = self.scopes[path]
        total = np.zeros([self.sizes[p] for p in scope])
        for key in sorted(self.holding[path]):
            total = total + _spread(self.tables[key], scope, self.sizes)
        return total

    def replace(self, path: str, message: np.ndarray) -> None:
        """Put what an elimination leaves in the place of the tables that held the choice."""
        gone, rest = self.holding.pop(path), self.scopes.pop(path)[1:]
        for key in gone:
            del self.tables[key]
        # A number that no table has had: `holding` must not mistake it for one that has gone.
        new = max(self.tables, default=0) + len(gone) + 1
        if rest:
            self.tables[new] = JointTable(tuple(rest), message)
        for p in rest:
            self.holding[p] = (self.holding[p] - gone) | {new}
            self._measure(p)


def eliminate(
    choices: Mapping[str, Choice], factors: Sequence[JointTable], keep_steps: bool = True, best: bool = False
) -> Elimination:
    """Sum the product of exp(factor) over all joint values, or find the largest product.

    Args:
        choices: The choices.
        factors: Log-factors: 0 allows, -inf forbids, other numbers weigh.
        keep_steps: Whether to keep what sampling needs.
        best: Whether to take the largest product instead of the sum of all; `log_total` is then its logarithm.

    Raises:
        SpaceError: An intermediate table would be too large (the factors tie too many choices together).
    """
    pool = _Pool(choices, factors)
    steps: list[_Step] = []
    total = 0.0
    while pool.scopes:
        path = pool.cheapest()
        scope = pool.scopes[path]
        if pool.entries[path] > MAX_TABLE * 64:
            raise SpaceError(f"the rules and gates tie {len(scope)} choices together: {', '.join(scope[:6])}, ...")
        joint = pool.joint(path)
        top = joint.max(axis=0)
        message = top if best else _log_sum(joint, top)
        if not message.ndim:  # nothing was tied to this choice any more: a factor of the whole sum
            total += float(message)
        if keep_steps:
            steps.append(_Step(path, tuple(scope[1:]), joint))
        pool.replace(path, message)
    return Elimination(total, tuple(steps))


def _log_sum(joint: np.ndarray, top: np.ndarray) -> np.ndarray:
    # Relative to the largest term, sums neither overflow nor vanish; where all are -inf, nothing is subtracted.
    safe = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        summed: np.ndarray = np.log(np.exp(joint - safe).sum(axis=0)) + safe
    return summed
