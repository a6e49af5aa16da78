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
from rankitect.graph.choices import Choice
from rankitect.graph.tables import MAX_TABLE, Table

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
            gumbel = rng.gumbel(size=weights.shape)
            drawn[step.path] = np.argmax(weights + gumbel, axis=0)
        return drawn


def _spread(table: Table, paths: Sequence[str], sizes: Mapping[str, int]) -> np.ndarray:
    """A table with its axes in the order of `paths`, 1 where it lacks one."""
    order = sorted(range(len(table.paths)), key=lambda k: paths.index(table.paths[k]))
    shape = [sizes[p] if p in table.paths else 1 for p in paths]
    return table.values.transpose(order).reshape(shape)


def eliminate(choices: Mapping[str, Choice], factors: Sequence[Table], keep_steps: bool = True) -> Elimination:
    """Sum the product of exp(factor) over all joint values.

    Args:
        choices: The choices.
        factors: Log-factors: 0 allows, -inf forbids, other numbers weigh.

    Raises:
        SpaceError: An intermediate table would be too large (the factors tie too many choices together).
    """
    sizes = {p: len(c.values) for p, c in choices.items()}
    live = list(factors)
    left = list(choices)
    steps: list[_Step] = []
    total = 0.0
    while left:
        scopes = {p: {q for t in live if p in t.paths for q in t.paths} | {p} for p in left}
        path = min(left, key=lambda p: (float(np.prod([float(sizes[q]) for q in scopes[p]])), left.index(p)))
        scope = [path, *sorted(scopes[path] - {path})]
        if np.prod([float(sizes[q]) for q in scope]) > MAX_TABLE * 64:
            raise SpaceError(f"the rules and gates tie {len(scope)} choices together: {', '.join(scope[:6])}, ...")
        joint = np.zeros([sizes[p] for p in scope])
        for table in live:
            if path in table.paths:
                joint = joint + _spread(table, scope, sizes)
        top = joint.max(axis=0)
        safe = np.where(np.isfinite(top), top, 0.0)
        with np.errstate(divide="ignore"):
            message = np.log(np.exp(joint - safe).sum(axis=0)) + safe
        live = [t for t in live if path not in t.paths]
        if message.ndim:
            live.append(Table(tuple(scope[1:]), message))
        else:
            total += float(message)
        if keep_steps:
            steps.append(_Step(path, tuple(scope[1:]), joint))
        left.remove(path)
    return Elimination(total, tuple(steps))
