"""Which candidates are worth having: those that no other beats in every objective."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rankitect.contracts import Measurement, Metric, MetricSpec, Trial

__all__ = ["MeasuredCandidate", "baselines", "candidates", "merge", "nondominated", "pareto_front"]


@dataclass(frozen=True)
class MeasuredCandidate:
    """An architecture with its metrics over all seeds, and the last trial of it, whose artifacts stand for it."""

    trial: Trial
    metrics: dict[str, Metric]


def merge(measurements: Sequence[Measurement]) -> dict[str, Metric]:
    """Metrics of one architecture over its seeds.

    One measurement is returned as it is. Of several, each metric is the mean over seeds, with n the number of seeds and
    Student's t interval of the mean (the spread over training seeds, which is wider than that over examples).
    """
    if len(measurements) == 1:
        return dict(measurements[0].metrics)
    merged = {}
    for name, metric in measurements[0].metrics.items():
        values = [measurement.metrics[name].value for measurement in measurements if name in measurement.metrics]
        n = len(values)
        mean = math.fsum(values) / n
        spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1)) if n > 1 else 0.0
        if spread == 0.0:
            merged[name] = Metric(mean, metric.unit, n=n)
            continue
        from scipy.stats import t

        half = float(t.ppf(0.975, n - 1)) * spread / math.sqrt(n)
        merged[name] = Metric(mean, metric.unit, n=n, ci95=(mean - half, mean + half))
    return merged


def candidates(trials: Sequence[Trial], evaluator: str) -> list[MeasuredCandidate]:
    """Every architecture that `evaluator` measured, baselines left out, each once, in order of its first trial."""
    return [candidate for name, candidate in _merged(trials, evaluator) if name is None]


def baselines(trials: Sequence[Trial], evaluator: str) -> list[tuple[str, MeasuredCandidate]]:
    """Every baseline that `evaluator` measured, with its name, in order of its first trial."""
    return [(name, candidate) for name, candidate in _merged(trials, evaluator) if name is not None]


def _merged(trials: Sequence[Trial], evaluator: str) -> list[tuple[str | None, MeasuredCandidate]]:
    """Each model once, over its seeds, with the baseline's name where it is one."""
    measured: dict[tuple[str | None, str], dict[int, Trial]] = {}
    for trial in trials:
        if trial.ok and trial.evaluator == evaluator:
            model = (trial.baseline, trial.architecture.fingerprint)
            measured.setdefault(model, {}).setdefault(trial.seed, trial)
    out = []
    for (name, _), by_seed in measured.items():
        measurements = [trial.measurement for trial in by_seed.values() if trial.measurement is not None]
        out.append((name, MeasuredCandidate(list(by_seed.values())[-1], merge(measurements))))
    return out


def pareto_front(points: Sequence[MeasuredCandidate], objectives: Sequence[MetricSpec]) -> list[MeasuredCandidate]:
    """The candidates that no other dominates, best in the first objective first.

    Args:
        points: Candidates; one of which an objective is not known is on no front.
        objectives: Names and directions; at least one.
    """
    signs = [(o.name, 1.0 if o.direction == "min" else -1.0) for o in objectives]
    points = [point for point in points if all(name in point.metrics for name, _ in signs)]
    return [points[i] for i in nondominated([[sign * p.metrics[n].value for n, sign in signs] for p in points])]


def nondominated(costs: Sequence[Sequence[float]]) -> list[int]:
    """Indices of the points that no other dominates, in lexicographic order of the points.

    A point dominates another if it is no worse in every value and better in one. Of equal points the first stays, so
    that a front holds no repetition.

    Args:
        costs: Values to be minimised, as many for each point.
    """
    # In lexicographic order a point can only be dominated by one before it, and then by one of the front so far; of two
    # values the second falls along the front, so that only its last point matters.
    front: list[int] = []
    for index in sorted(range(len(costs)), key=lambda i: (tuple(costs[i]), i)):
        rivals = front[-1:] if len(costs[index]) <= 2 else front
        if not any(all(a <= b for a, b in zip(costs[kept], costs[index], strict=True)) for kept in rivals):
            front.append(index)
    return front
