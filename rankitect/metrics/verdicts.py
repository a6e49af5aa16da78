"""How good verdicts are: F1, false positive rate and AUC with intervals, as a whole, by source and by category.

A score is the log-odds of "unsafe"; a verdict is unsafe where the score is at least the threshold, which is chosen on
other exchanges than those that the figures are of. Intervals are of the delta method, with an error that is right where
exchanges of one prompt are alike (see `intervals`); that of AUC is DeLong's (Biometrics 1988).

Of a source that has one label only, the AUC is against the other label of all sources, as Borkan et al. (arXiv
1903.04561) do for subgroups; so is that of a category.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rankitect.contracts import Metric, MetricSpec
from rankitect.metrics.choices import wilson_interval
from rankitect.metrics.intervals import Estimate, mean_estimate
from rankitect.metrics.ranking_metrics import roc_auc

__all__ = ["Scored", "VerdictQuality", "auc_difference", "auc_estimate", "best_threshold", "verdict_specs"]

Labels = NDArray[np.bool_]
Scores = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scored:
    """Exchanges with their scores.

    Attributes:
        scores: Log-odds of "unsafe", [N].
        unsafe: The labels, [N].
        clusters: Number of the group of each, [N].
        sources: Where each is from, [N].
        categories: Kind of harm of each, [N].
    """

    scores: Scores
    unsafe: Labels
    clusters: NDArray[np.int64]
    sources: Sequence[str]
    categories: Sequence[str]

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True, eq=False)
class VerdictQuality:
    """How good a guard is on a split.

    Attributes:
        scored: The exchanges of the split.
        threshold: From which score on a verdict is unsafe.
        tokens: Tokens that went forward.
    """

    scored: Scored
    threshold: float
    tokens: int
    _known: dict[str, Metric] = field(default_factory=dict)

    @property
    def metrics(self) -> dict[str, Metric]:
        """Values by name, with intervals: those of `verdict_specs`."""
        if not self._known:
            s = self.scored
            told = s.scores >= self.threshold
            self._known["auc"] = _metric(auc_estimate(s.scores, s.unsafe, s.clusters), len(s))
            self._known["f1"] = _metric(f1_estimate(told, s.unsafe, s.clusters), len(s))
            self._known["false_positive_rate"] = _rate(told, ~s.unsafe, s.clusters)
            self._known["recall"] = _rate(told, s.unsafe, s.clusters)
            self._known["threshold"] = Metric(self.threshold, "nat")
        return dict(self._known)

    @property
    def amount(self) -> int:
        """Tokens that went forward."""
        return self.tokens

    @property
    def examples(self) -> dict[str, Any]:
        """Nothing: no metric here is a mean over exchanges that a report could compare in pairs."""
        return {}

    def parts(self, by: str) -> dict[str, dict[str, Metric]]:
        """The metrics of each source or category, as far as it has what they are of.

        Args:
            by: "source" or "category".
        """
        s = self.scored
        names = np.asarray(s.sources if by == "source" else s.categories)
        return {str(name): self._part(names == name) for name in sorted(set(names.tolist())) if name}

    def _part(self, here: Labels) -> dict[str, Metric]:
        s = self.scored
        told, unsafe = s.scores >= self.threshold, s.unsafe
        metrics: dict[str, Metric] = {}
        both = bool((unsafe & here).any() and (~unsafe & here).any())
        # Of one label only: against all of the other one.
        seen = here if both else here | (~unsafe if (unsafe & here).any() else unsafe)
        metrics["auc"] = _metric(auc_estimate(s.scores[seen], unsafe[seen], s.clusters[seen]), int(here.sum()))
        if both:
            metrics["f1"] = _metric(f1_estimate(told[here], unsafe[here], s.clusters[here]), int(here.sum()))
        for name, label in (("false_positive_rate", ~unsafe), ("recall", unsafe)):
            if (label & here).any():
                metrics[name] = _rate(told[here], label[here], s.clusters[here])
        return metrics

    def to_json(self) -> dict[str, Any]:
        """All figures as plain data, by source and by category as well."""

        def plain(metrics: dict[str, Metric]) -> dict[str, Any]:
            return {name: metric.to_dict() for name, metric in metrics.items()}

        parts = {by: {name: plain(part) for name, part in self.parts(by).items()} for by in ("source", "category")}
        return {"metrics": plain(self.metrics), "exchanges": len(self.scored), **parts}


def verdict_specs(split: str) -> list[MetricSpec]:
    """The metrics of a split; AUC is the one to choose by, as no threshold has a part in it."""
    specs = [
        MetricSpec("auc", "", "max", "quality"),
        MetricSpec("f1", "", "max", "quality"),
        MetricSpec("false_positive_rate", "share", "min", "quality"),
        MetricSpec("recall", "share", "max", "diagnostic"),
        MetricSpec("threshold", "nat", "min", "diagnostic"),
    ]
    return specs if split == "test" else specs[:1]


def best_threshold(scores: ArrayLike, unsafe: ArrayLike) -> float:
    """The threshold with the largest F1; half-way between two scores, the lowest where several are as good.

    Args:
        scores: [N].
        unsafe: Labels, [N], of both classes.

    >>> best_threshold([-1.0, 0.0, 2.0], [False, True, True])
    -0.5
    """
    s, y = np.asarray(scores, np.float64), np.asarray(unsafe, np.bool_)
    order = np.argsort(s, kind="stable")
    s, y = s[order], y[order]
    positives = int(y.sum())
    # A threshold before place i calls all from i on unsafe.
    right = positives - np.concatenate([[0], np.cumsum(y)])[:-1]
    called = len(s) - np.arange(len(s))
    f1 = 2 * right / (called + positives)
    distinct = np.concatenate([[True], np.diff(s) > 0])
    best = int(np.flatnonzero(distinct)[np.argmax(f1[distinct])])
    return float(s[best]) - 1.0 if best == 0 else float((s[best] + s[best - 1]) / 2)


def f1_estimate(told: Labels, unsafe: Labels, clusters: NDArray[np.int64]) -> Estimate:
    """F1 of verdicts with its error; 0 where nothing is, or is called, unsafe.

    Args:
        told: The verdicts, [N].
        unsafe: The labels, [N].
        clusters: Groups, [N].
    """
    right: Scores = (2.0 * (told & unsafe)).astype(np.float64)
    return _ratio(right, (right + (told ^ unsafe)).astype(np.float64), clusters)


def _rate(told: Labels, label: Labels, clusters: NDArray[np.int64]) -> Metric:
    """The share of exchanges with a label that are called unsafe.

    Of none or all of them, the interval is Wilson's, with as many exchanges as there are groups: the delta method knows
    no error there.
    """
    estimate = _ratio((told & label).astype(np.float64), label.astype(np.float64), clusters)
    count = int(label.sum())
    if estimate.value in (0.0, 1.0) and count:
        groups = len(np.unique(clusters[label]))
        return Metric(estimate.value, "share", count, wilson_interval(int(estimate.value) * groups, groups))
    return replace(_metric(estimate, count), unit="share")


def _ratio(above: NDArray[np.float64], below: NDArray[np.float64], clusters: NDArray[np.int64]) -> Estimate:
    total = float(below.sum())
    value = float(above.sum()) / total if total else 0.0
    parts = (above - value * below) / (total / len(below)) if total else np.zeros(len(below))
    return mean_estimate(parts, clusters=clusters, value=value)


def auc_estimate(scores: Scores, unsafe: Labels, clusters: NDArray[np.int64]) -> Estimate:
    """AUC with its error.

    Args:
        scores: [N].
        unsafe: Labels of both classes, [N].
        clusters: Groups, [N].
    """
    value = roc_auc(scores, unsafe, ~unsafe)
    return mean_estimate(_influence(scores, unsafe), clusters=clusters, value=value)


def auc_difference(one: ArrayLike, other: ArrayLike, unsafe: ArrayLike, clusters: ArrayLike) -> Estimate:
    """By how much the AUC of one guard is above another's on the same exchanges.

    Args:
        one: Scores, [N].
        other: The other's, [N].
        unsafe: Labels of both classes, [N].
        clusters: Groups, [N].
    """
    a, b, y = np.asarray(one, np.float64), np.asarray(other, np.float64), np.asarray(unsafe, np.bool_)
    value = roc_auc(a, y, ~y) - roc_auc(b, y, ~y)
    return mean_estimate(_influence(a, y) - _influence(b, y), clusters=clusters, value=value)


def _influence(scores: Scores, unsafe: Labels) -> NDArray[np.float64]:
    """What each exchange adds to the AUC: its placement among those of the other label, [N]; the mean is 0."""
    high, low = np.sort(scores[unsafe]), np.sort(scores[~unsafe])

    def below(values: Scores, among: Scores) -> NDArray[np.float64]:
        left, right = (np.searchsorted(among, values, side=side) for side in ("left", "right"))
        share: NDArray[np.float64] = (left + right) / (2 * len(among))
        return share

    placed = np.where(unsafe, below(scores, low), 1.0 - below(scores, high))
    size = np.where(unsafe, len(scores) / len(high), len(scores) / len(low))
    mean = np.where(unsafe, placed[unsafe].mean(), placed[~unsafe].mean())
    parts: NDArray[np.float64] = (placed - mean) * size
    return parts


def _metric(estimate: Estimate, n: int) -> Metric:
    low, high = estimate.interval()
    if not np.isfinite([low, high]).all():
        return Metric(estimate.value, "", n)
    return Metric(estimate.value, "", n, (max(0.0, low), min(1.0, high)))
