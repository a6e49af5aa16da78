"""The design of the A/B test: variance of the primary metric, smallest effects, sample sizes, days.

The primary metric is a ratio of two sums over the units of randomisation, clicks over rows of each user. Its variance
for a unit is that of the linear part (delta method; Deng, Knoblich and Lu, KDD 2018). With CUPED (Deng, Xu, Kohavi and
Walker, WSDM 2013) it falls by the squared correlation with the same unit's behaviour before the test.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankitect.production.evidence import Evidence
from rankitect.production.settings import ExperimentConfig

__all__ = ["Design", "Variance", "design", "detectable", "units_needed", "variance_of"]


@dataclass(frozen=True)
class Variance:
    """The spread of the primary metric over units.

    Attributes:
        rate: Clicks over rows.
        unit: Variance of a unit's linear part: of its clicks minus the rate times its rows, over the mean rows a unit.
        units: Units it was estimated from; 0 where the configuration gave it.
        correlation: Correlation of a unit's linear part with that of the time before; None where it is not known.
        source: Where it comes from.
    """

    rate: float
    unit: float
    units: int
    correlation: float | None
    source: str


@dataclass(frozen=True)
class Design:
    """A planned test.

    Attributes:
        variance: What it is planned with.
        needed: Units in both arms together, without and with CUPED, by relative effect.
    """

    variance: Variance
    needed: tuple[tuple[float, int, int | None], ...]


def variance_of(evidence: Evidence, config: ExperimentConfig) -> Variance | None:
    """The variance of a unit, from the configuration or else from the test rows; None where neither has it."""
    if config.variance is not None and config.rate is not None:
        return Variance(config.rate, config.variance, 0, None, "given in report.experiment")
    if evidence.labels is None or evidence.clusters is None:
        return None
    clicks, rows = _sums(evidence.labels, evidence.clusters, evidence.weights)
    if len(rows) < 2:
        return None
    rate = config.rate if config.rate is not None else float(clicks.sum() / rows.sum())
    linear = _linear(clicks, rows)
    unit = config.variance if config.variance is not None else float(linear.var(ddof=1))
    source = f"{len(rows):,} {config.unit}s of the test rows"
    return Variance(rate, unit, len(rows), _correlation(linear, evidence.before), source)


def _sums(
    labels: NDArray[np.float32], clusters: NDArray[np.int64], weights: NDArray[np.float32] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Clicks and rows of each unit, as many as the rows stand for."""
    count = np.ones(len(labels)) if weights is None else weights.astype(np.float64)
    clicks = np.bincount(clusters, weights=labels.astype(np.float64) * count).astype(np.float64)
    return clicks, np.bincount(clusters, weights=count).astype(np.float64)


def _linear(clicks: NDArray[np.float64], rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each unit's part of the rate's error, times the number of units."""
    # Clicks over rows is a ratio of two sums over users. Its variance is to first order that of this linear part (the
    # delta method), which also covers that users with many rows count for more.
    return (clicks - clicks.sum() / rows.sum() * rows) / rows.mean()


def _correlation(linear: NDArray[np.float64], before: NDArray[np.int64] | None) -> float | None:
    if before is None or len(before) != len(linear) or not before[:, 0].any():
        return None  # no unit was seen before the test data
    earlier = _linear(before[:, 1].astype(np.float64), before[:, 0].astype(np.float64))
    if earlier.std() == 0 or linear.std() == 0:
        return None
    return float(np.corrcoef(linear, earlier)[0, 1])


def units_needed(effect: float, variance: float, config: ExperimentConfig) -> int:
    """Units in both arms together for an absolute effect, by the normal approximation of the two-sided test.

    Args:
        effect: Absolute difference of the rate.
        variance: Variance of a unit.
        config: Level, power and allocation.
    """
    from scipy import stats

    quantiles = float(stats.norm.ppf(1 - config.alpha / 2) + stats.norm.ppf(config.power))
    share = config.allocation
    return math.ceil(quantiles**2 * variance * (1 / share + 1 / (1 - share)) / effect**2)


def detectable(units: int, variance: float, config: ExperimentConfig) -> float:
    """The smallest absolute effect that so many units in both arms find with the configured power."""
    from scipy import stats

    quantiles = float(stats.norm.ppf(1 - config.alpha / 2) + stats.norm.ppf(config.power))
    share = config.allocation
    return quantiles * math.sqrt(variance * (1 / share + 1 / (1 - share)) / units)


def design(variance: Variance, config: ExperimentConfig, effects: Sequence[float] | None = None) -> Design:
    """Sample sizes for relative effects."""
    rows = []
    for effect in effects or config.effects:
        plain = units_needed(effect * variance.rate, variance.unit, config)
        reduced = None
        if variance.correlation is not None:
            left = max(variance.unit * (1 - variance.correlation**2), 1e-12)
            reduced = units_needed(effect * variance.rate, left, config)
        rows.append((effect, plain, reduced))
    return Design(variance, tuple(rows))
