"""What production answered when the rows were logged, as a model to compare with: no weights, and no known costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rankitect.errors import DataError

if TYPE_CHECKING:
    from rankitect.contracts import Baseline
    from rankitect.data.ranking.dataset import RankingData, RankingSplit
    from rankitect.data.ranking.schema import Score
    from rankitect.graph import Architecture
    from rankitect.metrics.ranking import RankingQuality

__all__ = ["LOGGED", "logged_baseline", "logged_quality"]

LOGGED = "logged"
"""Name of the space of architectures that stand for logged scores."""
_EDGE = 1e-7
"""The least probability, and the least distance from 1, that a logged one counts as: single precision has no finer."""
_PART = 1 << 20


def logged_baseline(score: Score) -> Baseline:
    """The logged scores as a model to compare with.

    Args:
        score: Their column.
    """
    from rankitect.contracts import Baseline
    from rankitect.graph import Architecture

    return Baseline(
        "logged production", Architecture(LOGGED, "1", {"column": score.name, "kind": score.kind}), logged=True
    )


def logged_quality(data: RankingData, architecture: Architecture, split: str) -> RankingQuality:
    """How well the logged scores predict the clicks of a split.

    Scores that are no probabilities become logits by the line that fits the labels of the validation split best (Platt
    1999), so that no test data are used.

    Args:
        data: The rows with their scores.
        architecture: Of `logged_baseline`.
        split: The split.

    Raises:
        DataError: The split is empty or of one class.
    """
    from rankitect.metrics.ranking import summarised
    from rankitect.metrics.ranking_metrics import RankingMetrics

    kind, line = str(architecture.choices["kind"]), (1.0, 0.0)
    if kind == "score":
        line = _line(data.split("validation"))
    source, metrics = data.split(split), RankingMetrics(f"{data.name}, {split} split")
    logits, losses = [np.zeros(0)], [np.zeros(0)]
    for start in range(0, source.rows, _PART):
        part = slice(start, start + _PART)
        weights = None if source.weights is None else np.asarray(source.weights[part])
        logits.append(_logits(_scores(source)[part], kind) * line[0] + line[1])
        losses.append(metrics.update(logits[-1], np.asarray(source.labels[part]), weights, row=start))
    return summarised(
        split,
        metrics,
        np.concatenate(logits),
        np.concatenate(losses),
        np.array(source.labels),
        None if source.weights is None else np.array(source.weights),
        None if source.groups is None else np.array(source.groups),
    )


def _scores(split: RankingSplit) -> NDArray[np.float32]:
    if split.scores is None:
        raise DataError(f"The {split.name} split holds no logged scores.")
    return split.scores


def _logits(scores: NDArray[np.float32], kind: str) -> NDArray[np.float64]:
    values = np.asarray(scores, np.float64)
    if kind != "probability":
        return values
    inside = np.clip(values, _EDGE, 1 - _EDGE)
    return np.asarray(np.log(inside) - np.log1p(-inside))


def _line(split: RankingSplit) -> tuple[float, float]:
    """Slope and intercept that make logits of scores."""
    from rankitect.production.calibration import platt

    scores = np.asarray(_scores(split), np.float64)
    weights = np.ones(split.rows) if split.weights is None else np.asarray(split.weights, np.float64)
    centre, spread = float(np.average(scores, weights=weights)), float(scores.std()) or 1.0
    slope, intercept = platt((scores - centre) / spread, np.asarray(split.labels, np.float64), weights)
    return slope / spread, intercept - slope * centre / spread
