"""What a search method minimises: the objectives of a study as one evaluator measures them, and their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rankitect.study.checks import objectives
from rankitect.study.records import Measurement, MetricSpec, Trial

if TYPE_CHECKING:
    from rankitect.study.join import Parts

__all__ = ["Aims", "crowding", "fronts", "ranking"]


@dataclass(frozen=True)
class Aims:
    """The objectives of a study, as a cheaper evaluator measures them.

    The first objective is quality. An evaluator that does not measure it (a proxy) offers its own first metric instead;
    further objectives that it does not measure are left out.

    Attributes:
        objectives: The study's objectives, quality first.
        stand_in: The evaluator's own first metric.
    """

    objectives: tuple[MetricSpec, ...]
    stand_in: MetricSpec

    @classmethod
    def of(cls, parts: Parts, evaluator: str) -> Aims:
        """The objectives of a configuration for one of its evaluators ("screen", "proxy", "final").

        Raises:
            ConfigError: An objective that the final evaluator does not measure.
        """
        found = objectives(parts.config.evaluator.objectives, parts.evaluators["final"].metrics)
        return cls(tuple(found), parts.evaluators[evaluator].metrics[0])

    def specs(self, measurement: Measurement) -> list[MetricSpec]:
        """The metrics of a measurement that count, quality first."""
        found = [spec for spec in self.objectives if spec.name in measurement.metrics]
        if found[:1] != list(self.objectives[:1]):
            found.insert(0, self.stand_in)
        return found

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
    found = np.zeros(len(costs))
    for column in costs.T:
        order = np.argsort(column, kind="stable")
        low, high = column[order[0]], column[order[-1]]
        found[order[[0, -1]]] = np.inf
        if low < high < np.inf:
            found[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / (high - low)
    return found


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
