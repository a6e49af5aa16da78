"""Calibration of predicted click probabilities, and how far two models agree on who is shown what."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rankitect.metrics.intervals import Estimate, mean_estimate, seeded_estimate
from rankitect.metrics.ranking_metrics import log_losses, sigmoid
from rankitect.production.evidence import Evidence

__all__ = ["Agreement", "Bucket", "Calibration", "agreement", "calibration", "calibration_ratio", "platt"]

BUCKETS = 10
PAIRS = 200_000
"""Pairs of rows of one user that are drawn to see how many change their order."""
_EDGE = 1e-12


@dataclass(frozen=True)
class Bucket:
    """Rows of like predictions.

    Attributes:
        predicted: Mean predicted probability.
        observed: Share of clicks.
        ratio: Predicted over observed clicks, with its error; None where there is no click.
        rows: How many.
    """

    predicted: float
    observed: float
    ratio: Estimate | None
    rows: int


@dataclass(frozen=True)
class Calibration:
    """How well predicted probabilities are right on average.

    Attributes:
        ratio: Predicted over observed clicks, with its error; 1 is right.
        buckets: Tenths of the rows, from low to high predictions.
        expected_error: Mean distance of predicted from observed over the buckets (ECE).
        entropy: Normalized entropy.
        recalibrated_entropy: Normalized entropy after the best line in the logit, fitted on these very rows
            (Platt 1999): what a perfect recalibration would leave.
    """

    ratio: Estimate
    buckets: tuple[Bucket, ...]
    expected_error: float
    entropy: float
    recalibrated_entropy: float


def calibration(evidence: Evidence, fingerprint: str) -> Calibration:
    """The calibration of a model: the ratio over all training seeds, the rest of the first.

    A live system serves one model; a mean over several would look better than any of them.

    Args:
        evidence: Rows of clicks.
        fingerprint: Fingerprint of the model.
    """
    evidence = _counted(evidence, fingerprint)
    assert evidence.labels is not None
    y, w = evidence.labels.astype(np.float64), _weights(evidence)
    p = evidence.predictions(fingerprint)[0]
    order = np.argsort(p, kind="stable")
    share = (np.cumsum(w[order]) - w[order] / 2) / w.sum()
    code = np.empty(len(p), np.int64)
    code[order] = np.minimum((share * BUCKETS).astype(np.int64), BUCKETS - 1)
    buckets = [_bucket(evidence, p, y, w, code == i) for i in range(BUCKETS) if (code == i).any()]
    weight = [float(w[code == i].sum()) for i in range(BUCKETS) if (code == i).any()]
    gap = float(np.average([abs(b.predicted - b.observed) for b in buckets], weights=weight))
    z = np.log(np.clip(p, _EDGE, 1 - _EDGE)) - np.log1p(-np.clip(p, _EDGE, 1 - _EDGE))
    slope, intercept = platt(z, y, w)
    rate = float(np.average(y, weights=w))
    base = -(rate * math.log(rate) + (1 - rate) * math.log1p(-rate))
    entropies = [float(np.average(log_losses(x, y), weights=w)) / base for x in (z, slope * z + intercept)]
    return Calibration(calibration_ratio(evidence, fingerprint), tuple(buckets), gap, entropies[0], entropies[1])


def calibration_ratio(evidence: Evidence, fingerprint: str) -> Estimate:
    """Predicted over observed clicks, with its error over rows, users and training seeds."""
    assert evidence.labels is not None
    y, w, every = evidence.labels.astype(np.float64), _weights(evidence), evidence.predictions(fingerprint)
    rate = float(np.average(y, weights=w))
    runs = [float(np.average(p, weights=w)) / rate for p in every]
    return seeded_estimate(_ratio(every.mean(0), y, w, evidence.clusters), runs)


def _counted(evidence: Evidence, fingerprint: str) -> Evidence:
    """The rows that count for something: those without weight may fill a tenth."""
    if evidence.weights is None or evidence.labels is None or (evidence.weights > 0).all():
        return evidence
    kept = evidence.weights > 0
    clusters = None if evidence.clusters is None else evidence.clusters[kept]
    losses = {fingerprint: evidence.losses[fingerprint][:, kept]}
    predicted = {name: values[:, kept] for name, values in evidence.predicted.items() if name == fingerprint}
    return Evidence(
        evidence.metric, losses, evidence.labels[kept], evidence.weights[kept], clusters, predicted=predicted
    )


def _weights(evidence: Evidence) -> NDArray[np.float64]:
    return np.ones(evidence.rows) if evidence.weights is None else evidence.weights.astype(np.float64)


def _ratio(
    p: NDArray[np.float64], y: NDArray[np.float64], w: NDArray[np.float64], clusters: NDArray[np.int64] | None
) -> Estimate:
    rate = float(np.average(y, weights=w))
    ratio = float(np.average(p, weights=w)) / rate
    # Both means vary from sample to sample. To first order the error of their ratio is that of the mean of this value
    # (the delta method), in which users whose rows are alike count as one.
    return replace(mean_estimate((p - ratio * y) / rate, clusters=clusters, weights=w, value=ratio), ratio=True)


def _bucket(
    evidence: Evidence,
    p: NDArray[np.float64],
    y: NDArray[np.float64],
    w: NDArray[np.float64],
    rows: NDArray[np.bool_],
) -> Bucket:
    clusters = None if evidence.clusters is None else evidence.clusters[rows]
    ratio = None
    if float(np.dot(w[rows], y[rows])) > 0:  # without a click there is nothing to divide by
        ratio = _ratio(p[rows], y[rows], w[rows], clusters)
    predicted, observed = (float(np.average(x[rows], weights=w[rows])) for x in (p, y))
    return Bucket(predicted, observed, ratio, int(rows.sum()))


def platt(z: NDArray[np.float64], y: NDArray[np.float64], w: NDArray[np.float64]) -> tuple[float, float]:
    """Slope and intercept that minimise the log-loss of slope * z + intercept, which is convex (Platt 1999)."""
    from scipy.optimize import minimize

    scale = w.sum()  # weights may be large counts; the optimiser's tolerances are made for a mean

    def loss(line: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logit = line[0] * z + line[1]
        off = w * (sigmoid(logit) - y) / scale
        return float(np.dot(w, log_losses(logit, y)) / scale), np.array([np.dot(off, z), off.sum()])

    fitted = minimize(loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B").x
    return float(fitted[0]), float(fitted[1])


@dataclass(frozen=True)
class Agreement:
    """How alike two models order the same rows.

    Attributes:
        correlation: Spearman's rank correlation of their predictions.
        difference: Mean absolute difference of predicted probabilities.
        reordered: Share of pairs of one user's rows (of all rows without users) that the two order differently; ties
            of either count as kept.
        noise: The same between two training seeds of production: what a mere retraining changes; None with one seed.
        pairs: Pairs looked at.
        within: Whether pairs are of one user each.
    """

    correlation: float
    difference: float
    reordered: float
    noise: float | None
    pairs: int
    within: bool


def agreement(evidence: Evidence, candidate: str, production: str) -> Agreement:
    """Compare the predictions of one training seed of each; a live system serves one model, not a mean of several.

    Args:
        evidence: Rows of clicks.
        candidate: Fingerprint.
        production: Fingerprint.
    """
    from scipy import stats

    ours, theirs = evidence.predictions(candidate), evidence.predictions(production)
    one, other = _pairs(evidence)
    reordered = _reordered(ours[0], theirs[0], one, other)
    noise = _reordered(theirs[1], theirs[0], one, other) if len(theirs) > 1 else None
    return Agreement(
        correlation=float(stats.spearmanr(ours[0], theirs[0]).statistic),
        difference=float(np.abs(ours[0] - theirs[0]).mean()),
        reordered=reordered,
        noise=noise,
        pairs=len(one),
        within=evidence.clusters is not None,
    )


def _pairs(evidence: Evidence) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of different rows, of one user each where users are known; the same for every call."""
    rng = np.random.default_rng(0)
    n = evidence.rows
    first = rng.integers(n, size=PAIRS)
    if evidence.clusters is None:
        second = (first + rng.integers(1, max(2, n), size=PAIRS)) % n
    else:
        by_user = np.argsort(evidence.clusters, kind="stable")
        sizes = np.bincount(evidence.clusters)
        starts = np.cumsum(sizes) - sizes
        place = np.empty(n, np.int64)
        place[by_user] = np.arange(n) - np.repeat(starts, sizes)
        user = evidence.clusters[first]
        step = (rng.random(PAIRS) * np.maximum(sizes[user] - 1, 1)).astype(np.int64) + 1
        second = by_user[starts[user] + (place[first] + step) % sizes[user]]
    real = first != second
    return first[real], second[real]


def _reordered(
    a: NDArray[np.float64], b: NDArray[np.float64], one: NDArray[np.int64], other: NDArray[np.int64]
) -> float:
    if not len(one):
        return math.nan
    return float((np.sign(a[one] - a[other]) * np.sign(b[one] - b[other]) < 0).mean())
