"""Metrics of click prediction: normalized entropy, log-loss, AUC, calibration; streaming, weighted, mergeable.

Normalized entropy (He et al., ADKDD 2014) is the log-loss divided by the entropy of the evaluated data's own base rate:
1 is the best that a constant can do. Labels may lie anywhere in [0, 1]; a label of 0.3 counts as 0.3 of a click and 0.7
of none, here as in torchrec. Sums are in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rankitect.errors import DataError, TrainingError
from rankitect.metrics.intervals import Estimate, mean_estimate, seeded_estimate

__all__ = [
    "Bin",
    "RankingMetrics",
    "binary_entropy",
    "entropy_difference",
    "entropy_estimate",
    "log_losses",
    "roc_auc",
    "sigmoid",
]

EXACT_ROWS = 20_000_000
"""Rows up to which AUC is exact: 12 bytes each are kept."""
CELLS = 1 << 16
RANGE = 24.0
"""Logits are counted in `CELLS` equal cells of [-RANGE, RANGE], and the outer ones hold what lies beyond."""


def sigmoid(logits: ArrayLike) -> NDArray[np.float64]:
    """Probabilities, without overflow."""
    z = np.asarray(logits, dtype=np.float64)
    small = np.exp(-np.abs(z))
    return np.where(z >= 0, 1.0, small) / (1.0 + small)


def log_losses(logits: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """Log-loss of each example, nats.

    Args:
        logits: [N].
        labels: in [0, 1], [N].
    """
    z, y = np.asarray(logits, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    return np.maximum(z, 0.0) - z * y + np.log1p(np.exp(-np.abs(z)))


def binary_entropy(rate: float) -> float:
    """Entropy of a click with this rate, nats: the log-loss of the best constant."""
    if not 0 < rate < 1:
        return 0.0
    return -rate * math.log(rate) - (1 - rate) * math.log1p(-rate)


def roc_auc(scores: ArrayLike, clicks: ArrayLike, others: ArrayLike) -> float:
    """Area under the ROC curve: the chance that a click scores above a non-click; ties count half.

    Args:
        scores: [N], in any order.
        clicks: weight of clicks at each score, [N].
        others: weight of non-clicks at each score, [N].
    """
    s = np.asarray(scores)
    order = np.argsort(s, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(s[order])), len(s) - 1)
    above = np.diff(np.cumsum(np.asarray(clicks, dtype=np.float64)[order])[ends], prepend=0.0)
    below = np.cumsum(np.asarray(others, dtype=np.float64)[order])[ends]
    tied = np.diff(below, prepend=0.0)
    return float(np.dot(above, below - tied / 2)) / float(above.sum() * below[-1])


@dataclass(frozen=True)
class Bin:
    """Examples of like predictions, for a reliability diagram.

    Attributes:
        predicted: their mean predicted probability.
        observed: their share of clicks.
        weight: how many they are.
    """

    predicted: float
    observed: float
    weight: float


@dataclass
class RankingMetrics:
    """Sums over the examples seen so far. Two of them, over two parts of the data, merge into that of the whole.

    Args:
        name: of the data, for messages.
        exact_rows: up to so many rows AUC is exact; above, it is that of a histogram, off by at most `auc_error`.

    Attributes:
        rows: examples seen.
        weight: their total weight.
        loss: weighted sum of log-losses, nats.
        clicks: weighted sum of labels.
        predicted: weighted sum of predicted probabilities.
    """

    name: str = "the data"
    exact_rows: int = EXACT_ROWS
    rows: int = 0
    weight: float = 0.0
    loss: float = 0.0
    clicks: float = 0.0
    predicted: float = 0.0
    # By cell: weight, weighted labels, weighted predictions.
    _cells: NDArray[np.float64] = field(default_factory=lambda: np.zeros((3, CELLS)), repr=False)
    # Score, weighted click, weighted non-click of every row; None once there are too many.
    _kept: list[NDArray[np.float32]] | None = field(default_factory=list, repr=False)

    def update(
        self, logits: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None, *, row: int | None = None
    ) -> NDArray[np.float64]:
        """Take in some examples.

        Args:
            logits: [N].
            labels: in [0, 1], [N].
            weights: at least 0, [N].
            row: number of the first example in the data, for messages; by default the rows seen so far.

        Returns:
            The log-loss of each example, nats, [N].

        Raises:
            DataError: for a label outside of [0, 1], or a weight below 0 or not finite.
            TrainingError: for a logit that is not finite.
        """
        z = np.asarray(logits, dtype=np.float64).reshape(-1)
        y = np.asarray(labels, dtype=np.float64).reshape(-1)
        w = np.ones(len(z)) if weights is None else np.asarray(weights, dtype=np.float64).reshape(-1)
        if not len(z) == len(y) == len(w):
            raise DataError(f"{self.name}: {len(z)} predictions, {len(y)} labels and {len(w)} weights do not match.")
        self._check(z, y, w, self.rows if row is None else row)
        losses, p = log_losses(z, y), sigmoid(z)
        self.rows += len(z)
        self.weight += float(w.sum())
        self.loss += float(np.dot(w, losses))
        self.clicks += float(np.dot(w, y))
        self.predicted += float(np.dot(w, p))
        cell = np.clip((z + RANGE) * (CELLS / (2 * RANGE)), 0, CELLS - 1).astype(np.int64)
        used, inverse = np.unique(cell, return_inverse=True)
        for sums, values in zip(self._cells, (w, w * y, w * p), strict=True):
            sums[used] += np.bincount(inverse, weights=values, minlength=len(used))
        if self._kept is not None:
            self._kept.append(np.stack([z, w * y, w * (1 - y)]).astype(np.float32))
            self._forget()
        return losses

    def _check(self, z: NDArray[np.float64], y: NDArray[np.float64], w: NDArray[np.float64], row: int) -> None:
        if len(bad := np.flatnonzero(~((y >= 0) & (y <= 1)))):
            raise DataError(
                f"{self.name}: the label of row {row + bad[0]} is {y[bad[0]]:g}; labels must lie in [0, 1] (0 no "
                "click, 1 click)."
            )
        if len(bad := np.flatnonzero(~((w >= 0) & np.isfinite(w)))):
            raise DataError(f"{self.name}: the weight of row {row + bad[0]} is {w[bad[0]]:g}; it must be at least 0.")
        if len(bad := np.flatnonzero(~np.isfinite(z))):
            raise TrainingError(
                f"{self.name}: the model's prediction for row {row + bad[0]} is not finite: its training diverged. "
                "Lower the learning rate."
            )

    def _forget(self) -> None:
        if self._kept is not None and self.rows > self.exact_rows:
            self._kept = None

    def merge(self, other: RankingMetrics) -> None:
        """Take in all that another one has seen."""
        for name in ("rows", "weight", "loss", "clicks", "predicted"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self._cells = self._cells + other._cells
        self._kept = None if self._kept is None or other._kept is None else [*self._kept, *other._kept]
        self._forget()

    # --- results ----------------------------------------------------------------------------------------------------
    def require(self) -> None:
        """Check that there is something to measure.

        Raises:
            DataError: there are no examples, or all are of one class, so that there is no entropy to divide by.
        """
        if not self.weight > 0:
            raise DataError(f"{self.name} has no examples (or their weights are all 0), so nothing can be measured.")
        if not 0 < self.clicks < self.weight:
            kind = "no clicks" if self.clicks <= 0 else "clicks only"
            raise DataError(
                f"{self.name} has {kind} in {self.rows:,} rows: normalized entropy and AUC need both classes. Split "
                "the data in another way, or use more of it."
            )

    @property
    def base_rate(self) -> float:
        """Share of clicks in the evaluated data."""
        return self.clicks / self.weight if self.weight else math.nan

    @property
    def log_loss(self) -> float:
        """Mean log-loss, nats."""
        return self.loss / self.weight if self.weight else math.nan

    @property
    def normalized_entropy(self) -> float:
        """Log-loss relative to that of the evaluated data's base rate.

        Raises:
            DataError: see `require`.
        """
        self.require()
        return self.log_loss / binary_entropy(self.base_rate)

    @property
    def calibration(self) -> float:
        """Predicted over observed clicks; 1 is calibrated, 1.1 predicts 10% too many.

        Raises:
            DataError: see `require`.
        """
        self.require()
        return self.predicted / self.clicks

    @property
    def auc(self) -> float:
        """Area under the ROC curve, exact up to `exact_rows` rows.

        Raises:
            DataError: see `require`.
        """
        self.require()
        if self._kept is not None:
            return roc_auc(*np.concatenate(self._kept, axis=1))
        weight, clicks, _ = self._cells
        return roc_auc(np.arange(CELLS), clicks, weight - clicks)

    @property
    def auc_error(self) -> float:
        """By how much `auc` may be off at most: half of the chance that a click and a non-click share a cell."""
        if self._kept is not None:
            return 0.0
        weight, clicks, _ = self._cells
        pairs = self.clicks * (self.weight - self.clicks)
        return 0.5 * float(np.dot(clicks, weight - clicks)) / pairs if pairs else 0.0

    def reliability(self, bins: int = 10) -> list[Bin]:
        """Predicted against observed in bins of about equal weight, from low to high predictions."""
        weight, clicks, predicted = self._cells
        if not self.weight:
            return []
        # The middle of a cell's weight decides its bin, so that no bin is left of its neighbour.
        middle = (np.cumsum(weight) - weight / 2) / self.weight
        code = np.minimum((middle * bins).astype(np.int64), bins - 1)
        sums = [np.bincount(code, weights=x, minlength=bins) for x in (weight, clicks, predicted)]
        return [Bin(float(p / w), float(c / w), float(w)) for w, c, p in zip(*sums, strict=True) if w > 0]


# --- intervals ------------------------------------------------------------------------------------------------------
def entropy_estimate(
    losses: ArrayLike, labels: ArrayLike, *, weights: ArrayLike | None = None, clusters: ArrayLike | None = None
) -> Estimate:
    """Normalized entropy from log-losses of examples, with its error (that of the base rate included).

    Args:
        losses: log-loss of each example, nats, [N].
        labels: in [0, 1], [N].
        weights: [N].
        clusters: examples of one cluster (user) are alike, [N].

    Raises:
        DataError: all examples are of one class.
    """
    x = np.asarray(losses, dtype=np.float64)
    return _relative(x, np.asarray(labels, dtype=np.float64), weights, clusters)


def entropy_difference(
    losses: ArrayLike,
    other: ArrayLike,
    labels: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    paired_seeds: bool = False,
) -> Estimate:
    """How much lower or higher a model's normalized entropy is than another's, paired over the same examples.

    Args:
        losses: log-loss of each example, nats, [N]; or of S seeds of the model, [S, N].
        other: the other model's, [N] or [S', N].
        labels: in [0, 1], [N].
        weights: [N].
        clusters: examples of one cluster (user) are alike, [N].
        paired_seeds: the two models' seeds belong together (same order of the data), so their differences count.

    Returns:
        NE(model) - NE(other), below 0 where the model is better. With several seeds, the error is over examples,
        clusters and seeds.

    Raises:
        DataError: all examples are of one class.
    """
    a, b = np.atleast_2d(np.asarray(losses, dtype=np.float64)), np.atleast_2d(np.asarray(other, dtype=np.float64))
    y = np.asarray(labels, dtype=np.float64)
    over_examples = _relative(a.mean(0) - b.mean(0), y, weights, clusters)
    entropy = _entropy_of(y, weights)[1]
    runs = [[_mean(x, weights) / entropy for x in model] for model in (a, b)]
    if paired_seeds and len(a) == len(b):
        runs = [[i - j for i, j in zip(*runs, strict=True)]]
    return seeded_estimate(over_examples, *runs)


def _mean(values: NDArray[np.float64], weights: ArrayLike | None) -> float:
    return float(np.average(values, weights=None if weights is None else np.asarray(weights, dtype=np.float64)))


def _entropy_of(labels: NDArray[np.float64], weights: ArrayLike | None) -> tuple[float, float]:
    rate = _mean(labels, weights) if len(labels) else 0.0
    entropy = binary_entropy(rate)
    if not entropy > 0:
        raise DataError("Normalized entropy needs both classes: all examples are of one.")
    return rate, entropy


def _relative(
    losses: NDArray[np.float64], labels: NDArray[np.float64], weights: ArrayLike | None, clusters: ArrayLike | None
) -> Estimate:
    """Mean loss over entropy of the base rate. By the delta method, the rate's own error moves the divisor."""
    rate, entropy = _entropy_of(labels, weights)
    value = _mean(losses, weights) / entropy
    slope = math.log1p(-rate) - math.log(rate)  # of the entropy in the rate
    influence = (losses - value * slope * (labels - rate)) / entropy
    return mean_estimate(influence, clusters=clusters, weights=weights, value=value)
