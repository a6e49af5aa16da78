"""Which candidates are worth having: those that no other beats in every objective."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rankitect.contracts import Measurement, Metric, MetricSpec, Trial

__all__ = ["Candidate", "baselines", "candidates", "merge", "pareto_front"]


@dataclass(frozen=True)
class Candidate:
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


def candidates(trials: Sequence[Trial], evaluator: str) -> list[Candidate]:
    """Every architecture that `evaluator` measured, baselines left out, each once, in order of its first trial."""
    return [found for name, found in _merged(trials, evaluator) if name is None]


def baselines(trials: Sequence[Trial], evaluator: str) -> list[tuple[str, Candidate]]:
    """Every baseline that `evaluator` measured, with its name, in order of its first trial."""
    return [(name, found) for name, found in _merged(trials, evaluator) if name is not None]


def _merged(trials: Sequence[Trial], evaluator: str) -> list[tuple[str | None, Candidate]]:
    """Each model once, over its seeds, with the baseline's name where it is one."""
    found: dict[tuple[str | None, str], dict[int, Trial]] = {}
    for trial in trials:
        if trial.ok and trial.evaluator == evaluator:
            model = (trial.baseline, trial.architecture.fingerprint)
            found.setdefault(model, {}).setdefault(trial.seed, trial)
    out = []
    for (name, _), by_seed in found.items():
        measurements = [trial.measurement for trial in by_seed.values() if trial.measurement is not None]
        out.append((name, Candidate(list(by_seed.values())[-1], merge(measurements))))
    return out


def pareto_front(points: Sequence[Candidate], objectives: Sequence[MetricSpec]) -> list[Candidate]:
    """The candidates that no other dominates, best in the first objective first.

    A point dominates another if it is no worse in every objective and better in one. Of points equal in every
    objective the first stays, so that the front holds no repetition.

    Args:
        points: Candidates with all objectives among their metrics.
        objectives: Names and directions; at least one.
    """
    signs = [1.0 if objective.direction == "min" else -1.0 for objective in objectives]

    def costs(point: Candidate) -> tuple[float, ...]:
        return tuple(
            sign * point.metrics[objective.name].value for sign, objective in zip(signs, objectives, strict=True)
        )

    # In lexicographic order a point can only be dominated by one before it, and then by one of the front so far.
    ordered = sorted(((costs(point), index) for index, point in enumerate(points)))
    front: list[tuple[tuple[float, ...], int]] = []
    for cost, index in ordered:
        if not any(all(a <= b for a, b in zip(kept, cost, strict=True)) for kept, _ in front):
            front.append((cost, index))
    return [points[index] for _, index in front]
