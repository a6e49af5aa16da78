"""Confidence intervals of means: over examples, over clusters of examples that are alike, and over training seeds.

Quality is a mean over examples. Examples of one document or one user are alike, so its error is the cluster-robust one
(Liang & Zeger, Biometrika 1986); and a model is one draw of its training seed, whose spread comes on top.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["Estimate", "around", "mean_estimate", "seeded_estimate"]

_FEWEST = 2.0
"""Degrees of freedom from which on an interval is worth showing: those of three seeds."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its uncertainty.

    Attributes:
        value: the estimate.
        error: its standard error; infinite where there is nothing to estimate it from.
        freedom: degrees of freedom of the error.
        ratio: of a quantity that is above 0, such as a ratio: the interval is found in the logarithm (delta method),
            which keeps it above 0, and holds the truth more often where counts are small.
    """

    value: float
    error: float
    freedom: float
    ratio: bool = False

    @property
    def vague(self) -> bool:
        """Whether the error rests on two measurements (seeds, users) for the most part: its interval says nothing.

        >>> Estimate(1.0, 0.1, 1.0).vague, Estimate(1.0, 0.1, 2.0).vague
        (True, False)
        """
        return self.error > 0 and self.freedom < _FEWEST

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Student's t interval; all that the quantity can be where the error is unknown.

        Args:
            confidence: coverage, such as 0.95.

        >>> low, high = Estimate(0.0, 1.0, 1e9).interval()
        >>> round(low, 2), round(high, 2)
        (-1.96, 1.96)
        >>> low, high = Estimate(2.0, 2.0, 1e9, ratio=True).interval()
        >>> round(low, 2), round(high, 2)
        (0.28, 14.2)
        """
        from scipy import stats

        if not math.isfinite(self.error):
            return 0.0 if self.ratio else -math.inf, math.inf
        width = float(stats.t.ppf(0.5 + confidence / 2, self.freedom)) * self.error
        if self.ratio and self.value > 0:
            return around(self.value, width / self.value)
        return self.value - width, self.value + width


def around(value: float, relative: float) -> tuple[float, float]:
    """The interval of a quantity above 0 from half its width, relative to the value: found in the logarithm.

    >>> around(2.0, 0.0)
    (2.0, 2.0)
    """
    times = math.exp(min(relative, 700.0))
    return value / times, value * times


def mean_estimate(
    values: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    value: float | None = None,
) -> Estimate:
    """The (weighted) mean of values, with the error that is right when those of one cluster are alike.

    Args:
        values: of each example, [N].
        clusters: the cluster of each example, [N], any integers; ignored when there is but one.
        weights: of each example, [N], at least 0.
        value: reported in place of the mean. `values` may then be the linear parts (influence) of a statistic that is
            no mean itself, whose error is that of their mean.
    """
    x = np.asarray(values, dtype=np.float64)
    w = np.ones(len(x)) if weights is None else np.asarray(weights, dtype=np.float64)
    total = float(w.sum())
    mean = float(np.dot(w, x)) / total if total > 0 else 0.0
    groups, count = None, int(np.count_nonzero(w))
    if clusters is not None:
        labels, codes = np.unique(np.asarray(clusters)[w > 0], return_inverse=True)
        if len(labels) > 1:
            groups, count = codes, len(labels)
    value = mean if value is None else value
    if count < 2:
        return Estimate(value, math.inf, 0.0)
    parts = (w * (x - mean))[w > 0]
    sums = parts if groups is None else np.bincount(groups, weights=parts)
    error = math.sqrt(float(np.dot(sums, sums)) * count / (count - 1)) / total
    return Estimate(value, error, count - 1.0)


def seeded_estimate(over_examples: Estimate, *runs: Sequence[float]) -> Estimate:
    """An estimate whose error also holds the spread over training seeds.

    The variances add up; their degrees of freedom are Satterthwaite's (Biometrics Bulletin 1946). A little of the
    spread over seeds is already in that over examples, so the interval is rather too wide than too narrow.

    Args:
        over_examples: of the mean over seeds, with the error over examples.
        runs: for each model that takes part, the value of each of its seeds: two lists for a difference of two models
            with seeds of their own, one list of differences where the seeds are paired. A list of one adds nothing.
    """
    parts = [(over_examples.error**2, over_examples.freedom)]
    parts += [(float(np.var(v, ddof=1)) / len(v), len(v) - 1.0) for v in runs if len(v) > 1]
    variance = math.fsum(v for v, _ in parts)
    if not math.isfinite(variance) or variance == 0:
        return replace(over_examples, error=math.sqrt(variance))
    freedom = variance**2 / sum(v**2 / d for v, d in parts if v > 0)
    return replace(over_examples, error=math.sqrt(variance), freedom=freedom)
