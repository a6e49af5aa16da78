"""What a search method minimises: the objectives of a study as one evaluator measures them, and their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rankitect.contracts import Measurement, MetricSpec, Trial
from rankitect.study.checks import resolve_objectives

if TYPE_CHECKING:
    from rankitect.config.parts import Parts

__all__ = ["Objectives", "crowding", "fronts", "hypervolume", "hypervolume_subset", "quality_first", "ranking"]


@dataclass(frozen=True)
class Objectives:
    """The objectives of a study, as a cheaper evaluator measures them.

    The first objective is one whose role is quality, wherever the study names it. An evaluator that does not measure it
    (a proxy) offers a quality of its own instead; further objectives that it does not measure are left out.

    Attributes:
        declared: The study's objectives, quality first.
        stand_in: The evaluator's own first quality.
    """

    declared: tuple[MetricSpec, ...]
    stand_in: MetricSpec

    @classmethod
    def of(cls, parts: Parts, evaluator: str) -> Objectives:
        """The objectives of a configuration for one of its evaluators ("screen", "proxy", "final").

        Raises:
            ConfigError: An objective that the final evaluator does not measure.
        """
        declared = resolve_objectives(parts.config.evaluator.objectives, parts.evaluators["final"].metrics)
        return cls(tuple(quality_first(declared)), quality_first(parts.evaluators[evaluator].metrics)[0])

    def specs(self, measurement: Measurement) -> list[MetricSpec]:
        """The metrics of a measurement that count, quality first."""
        counting = [spec for spec in self.declared if spec.name in measurement.metrics]
        if counting[:1] != list(self.declared[:1]):
            counting.insert(0, self.stand_in)
        return counting

    def costs(self, measurement: Measurement) -> list[float]:
        """The values that count, each to be minimised, quality first."""
        return [
            (1.0 if spec.direction == "min" else -1.0) * measurement.metrics[spec.name].value
            for spec in self.specs(measurement)
        ]

    def table(self, trials: Sequence[Trial]) -> np.ndarray:
        """The costs of finished trials, float64 [n, objectives]; infinite where a trial failed."""
        rows = [self.costs(t.measurement) if t.ok and t.measurement is not None else None for t in trials]
        width = max((len(row) for row in rows if row is not None), default=1)
        return np.asarray([row if row is not None else [np.inf] * width for row in rows], dtype=np.float64).reshape(
            len(rows), width
        )


def quality_first(specs: Sequence[MetricSpec]) -> list[MetricSpec]:
    """Metrics in their order, but with the first whose role is quality before all others."""
    first = next((spec for spec in specs if spec.role == "quality"), None)
    return list(specs) if first is None else [first, *(spec for spec in specs if spec is not first)]


def fronts(costs: np.ndarray) -> np.ndarray:
    """The number of the non-dominated front that each point is on, from 0 (Deb et al. 2002, fast sorting).

    Args:
        costs: To be minimised, float [n, objectives].

    Returns:
        int64 [n].
    """
    no_worse = (costs[:, None, :] <= costs[None, :, :]).all(-1)
    better = (costs[:, None, :] < costs[None, :, :]).any(-1)
    dominates = no_worse & better
    rank, left = np.full(len(costs), -1, dtype=np.int64), np.ones(len(costs), dtype=bool)
    for number in range(len(costs)):
        now = left & ~(dominates & left[:, None]).any(0)
        rank[now] = number
        left &= ~now
        if not left.any():
            break
    return rank


def crowding(costs: np.ndarray) -> np.ndarray:
    """How far the neighbours of each point of one front are (NSGA-II, Deb et al. 2002); infinite at the ends.

    Args:
        costs: float [n, objectives].

    Returns:
        float64 [n]; larger is lonelier.
    """
    distances = np.zeros(len(costs))
    for column in costs.T:
        order = np.argsort(column, kind="stable")
        low, high = column[order[0]], column[order[-1]]
        distances[order[[0, -1]]] = np.inf
        if low < high < np.inf:
            distances[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / (high - low)
    return distances


def ranking(costs: np.ndarray) -> np.ndarray:
    """Positions from the best point to the worst: by front, then by crowding, then as given.

    With one objective it is the order of its values.

    Args:
        costs: To be minimised, float [n, objectives].
    """
    rank, lonely = fronts(costs), np.zeros(len(costs))
    for number in range(int(rank.max(initial=-1)) + 1):
        lonely[rank == number] = crowding(costs[rank == number])
    return np.lexsort((np.arange(len(costs)), -lonely, rank))


def hypervolume(points: Sequence[tuple[float, float]], reference: tuple[float, float]) -> float:
    """The area that points dominate below a reference corner, both coordinates to be minimised.

    Args:
        points: Pairs to be minimised.
        reference: The corner; what lies beyond it counts for nothing.

    Returns:
        The area, in the product of the two units.
    """
    area, ceiling = 0.0, reference[1]
    for x, y in sorted(points):
        if x < reference[0] and y < ceiling:
            area += (reference[0] - x) * (ceiling - y)
            ceiling = y
    return area


def hypervolume_subset(costs: np.ndarray, count: int) -> list[int]:
    """A few points that stand for the front: each next one adds most to the hypervolume (greedy subset selection).

    Volumes are those of logarithms where all values are positive, in the front's ranges, below a corner that is a tenth
    of each range beyond the front. Where the front has fewer points, the next fronts give the rest.

    Args:
        costs: Two objectives to be minimised, float [n, 2].
        count: How many at most.

    Returns:
        Positions, the first chosen first.
    """
    finite = np.isfinite(costs).all(1)
    scaled = np.log(costs) if (costs[finite] > 0).all() else costs
    chosen: list[int] = []
    rank = fronts(costs)
    for number in range(int(rank.max(initial=-1)) + 1):
        members = [int(i) for i in np.nonzero((rank == number) & finite)[0]]
        if not members:
            continue
        low, high = scaled[members].min(0), scaled[members].max(0)
        points = {i: tuple((scaled[i] - low) / np.maximum(high - low, 1e-12)) for i in members}
        taken: list[int] = []
        while len(chosen) < count and len(taken) < len(members):
            rest = [i for i in members if i not in taken]
            area = {i: hypervolume([points[k] for k in (*taken, i)], (1.1, 1.1)) for i in rest}
            taken.append(max(rest, key=lambda i: (area[i], -i)))
            chosen.append(taken[-1])
    return chosen
