"""Rankers: log-loss of a click to train on, normalized entropy to judge by.

A model is any `nn.Module` called as `model(numeric, ids)` that gives a logit for each row, [B, 1] or [B].
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rankitect.contracts import Metric, MetricSpec
from rankitect.data.ranking.batches import read_ahead
from rankitect.errors import DataError, TrainingError
from rankitect.metrics.intervals import Estimate
from rankitect.metrics.ranking_metrics import Bin, RankingMetrics, entropy_difference, entropy_estimate, sigmoid

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from rankitect.data.ranking.batch import RankingBatch
    from rankitect.data.ranking.batches import RankingBatches

__all__ = [
    "RankingQuality",
    "logits_of",
    "quality_specs",
    "ranking_loss",
    "ranking_quality",
    "require_classes",
    "summarised",
    "weighted_loss",
]

TEST = "test"
EVALUATED_ROWS = 8192
"""Rows in one forward of an evaluation."""


@dataclass(frozen=True, eq=False)
class RankingQuality:
    """How well a model predicts the clicks of a split.

    Attributes:
        split: the split.
        rows: rows evaluated.
        normalized_entropy: log-loss over that of the split's own base rate. Lower is better.
        log_loss: mean, nats. Lower is better.
        auc: area under the ROC curve. Higher is better.
        auc_error: by how much `auc` may be off at most; 0 where it is exact.
        calibration: predicted over observed clicks. 1 is best.
        base_rate: share of clicks.
        reliability: predicted against observed, from low to high predictions.
        losses: log-loss of each row, nats, [N]; for intervals, paired with another model's.
        predictions: probability of a click of each row, [N].
        labels: of each row, [N].
        weights: of each row, [N]; None where all count the same.
        groups: user (or other cluster) of each row, [N]; None where there is none.
    """

    split: str
    rows: int
    normalized_entropy: float
    log_loss: float
    auc: float
    auc_error: float
    calibration: float
    base_rate: float
    reliability: list[Bin]
    losses: NDArray[np.float32]
    predictions: NDArray[np.float32]
    labels: NDArray[np.float32]
    weights: NDArray[np.float32] | None
    groups: NDArray[np.int64] | None

    @property
    def metrics(self) -> dict[str, Metric]:
        """Normalized entropy with its interval; on the test split log-loss, AUC and calibration as well."""
        entropy = Metric(self.normalized_entropy, "NE", self.rows, self.interval())
        if self.split != TEST:
            return {f"{self.split}_normalized_entropy": entropy}
        return {
            "normalized_entropy": entropy,
            "log_loss": Metric(self.log_loss, "nat", self.rows),
            "auc": Metric(self.auc, "AUC", self.rows),
            "calibration": Metric(self.calibration, "", self.rows),
        }

    @property
    def amount(self) -> int:
        """Rows that were predicted."""
        return self.rows

    def estimate(self) -> Estimate:
        """The normalized entropy with its error over rows, clustered by user where there is one."""
        return entropy_estimate(self.losses, self.labels, weights=self.weights, clusters=self.groups)

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Confidence interval of the normalized entropy."""
        return self.estimate().interval(confidence)

    def minus(self, other: RankingQuality) -> Estimate:
        """This normalized entropy minus another model's on the same rows, with the paired error; below 0 is better.

        Raises:
            DataError: when the other was measured on other rows.
        """
        if self.split != other.split or not np.array_equal(self.labels, other.labels):
            raise DataError(
                f"Cannot compare normalized entropy on {self.rows:,} rows ({self.split}) with {other.rows:,} "
                f"({other.split}): measure both on the same rows."
            )
        return entropy_difference(self.losses, other.losses, self.labels, weights=self.weights, clusters=self.groups)


def quality_specs(split: str) -> list[MetricSpec]:
    """What `RankingQuality.metrics` promises for a split. A search goes by the validation split, a report shows the
    test split, by which nothing was chosen."""
    if split != TEST:
        held_out = "normalized_entropy" if split == "validation" else None
        return [MetricSpec(f"{split}_normalized_entropy", "NE", "min", "quality", held_out=held_out)]
    return [
        MetricSpec("normalized_entropy", "NE", "min", "quality"),
        MetricSpec("log_loss", "nat", "min", "quality"),
        MetricSpec("auc", "AUC", "max", "quality"),
    ]


def logits_of(model: Callable[..., Tensor], batch: RankingBatch) -> Tensor:
    """A model's logits for a batch, [B].

    Raises:
        TrainingError: the model does not give one logit a row.
    """
    logits = model(*batch.inputs)
    if logits.numel() != len(batch):
        raise TrainingError(f"A ranking model gives one logit a row; this gave {list(logits.shape)} for {len(batch)}.")
    return logits.reshape(-1)


def weighted_loss(logits: Tensor, batch: RankingBatch) -> Tensor:
    """Weighted mean of the binary cross-entropy, nats.

    Args:
        logits: [B].
        batch: labels and weights, [B].
    """
    from torch.nn.functional import binary_cross_entropy_with_logits

    total = binary_cross_entropy_with_logits(logits, batch.label, batch.weight, reduction="sum")
    return total / (len(batch) if batch.weight is None else batch.weight.sum().clamp_min(1e-12))


def require_classes(batches: RankingBatches, split: str) -> None:
    """Check that a split has clicks and others, so that it can be learnt from and measured.

    Raises:
        DataError: when it has not, is empty, or holds a label outside of [0, 1].
    """
    batches.steps(split)
    source, metrics = (
        batches.table.split(split),
        RankingMetrics(f"{batches.table.name}, {split} split", exact_rows=0),
    )
    for start in range(0, source.rows, 1 << 20):
        part = slice(start, start + (1 << 20))
        weights = None if source.weights is None else source.weights[part]
        metrics.update(np.zeros(len(source.labels[part])), source.labels[part], weights)
    metrics.require()


def ranking_loss(model: nn.Module | Callable[..., Tensor], batch: RankingBatch) -> Tensor:
    """Weighted mean of the binary cross-entropy, nats.

    Args:
        model: (numeric [B, N], ids [B, S]) to logits [B, 1] or [B].
        batch: the rows.
    """
    return weighted_loss(logits_of(model, batch), batch)


def ranking_quality(
    model: nn.Module,
    batches: RankingBatches,
    split: str = "test",
    *,
    rows: int | None = None,
    batch: int = EVALUATED_ROWS,
    check: Callable[[], None] | None = None,
    device: torch.device | str = "cpu",
) -> RankingQuality:
    """Normalized entropy and the rest of a model on a split.

    Args:
        model: (numeric [B, N], ids [B, S]) to logits [B, 1] or [B]; it keeps its mode.
        batches: the rows.
        split: the split.
        rows: how many rows to use at least, a random sample that is the same every time; all when None.
        batch: rows in one forward.
        check: called before every forward; may raise, to stop.
        device: where the model is.

    Raises:
        DataError: when the split is empty, of one class, or holds a label outside of [0, 1].
        TrainingError: when a prediction is not finite.
    """
    import torch

    batches.steps(split, batch)  # refuses an empty split
    source = batches.table.split(split)
    wanted = source.rows if rows is None else min(rows, source.rows)
    metrics = RankingMetrics(f"{batches.table.name}, {split} split")
    losses: list[NDArray[np.float64]] = []
    seen: list[_Facts] = []
    training = model.training
    model.eval()
    try:
        with (
            torch.inference_mode(),
            closing(read_ahead(source, batch, None if wanted == source.rows else 0)) as reader,
        ):
            for each in reader:
                if check is not None:
                    check()
                weights = None if each.weight is None else each.weight.numpy()
                logits = logits_of(model, each.to(device)).float().cpu().numpy()
                losses.append(metrics.update(logits, each.label.numpy(), weights, row=each.row))
                seen.append(_Facts(logits, each.label, each.weight, each.group))
                if metrics.rows >= wanted:
                    break
    finally:
        model.train(training)
    return _summary(split, metrics, losses, seen)


class _Facts(NamedTuple):
    """What intervals need of a batch, and the logits."""

    logits: NDArray[np.float32]
    label: Tensor
    weight: Tensor | None
    group: Tensor | None


def _summary(
    split: str, metrics: RankingMetrics, losses: list[NDArray[np.float64]], seen: list[_Facts]
) -> RankingQuality:
    weights = [b.weight.numpy() for b in seen if b.weight is not None]
    groups = [b.group.numpy() for b in seen if b.group is not None]
    return summarised(
        split,
        metrics,
        np.concatenate([b.logits for b in seen]),
        np.concatenate(losses),
        np.concatenate([b.label.numpy() for b in seen]),
        np.concatenate(weights) if weights else None,
        np.concatenate(groups) if groups else None,
    )


def summarised(
    split: str,
    metrics: RankingMetrics,
    logits: NDArray[np.floating],
    losses: NDArray[np.float64],
    labels: NDArray[np.float32],
    weights: NDArray[np.float32] | None,
    groups: NDArray[np.int64] | None,
) -> RankingQuality:
    """The quality of what was measured row by row.

    Args:
        split: The split.
        metrics: What was seen of all rows.
        logits: Of each row, [N].
        losses: Of each row, nats, [N].
        labels: Of each row, [N].
        weights: Of each row, [N], or None.
        groups: User of each row, [N], or None.

    Raises:
        DataError: The rows are none, or of one class.
    """
    metrics.require()
    return RankingQuality(
        split=split,
        rows=metrics.rows,
        normalized_entropy=metrics.normalized_entropy,
        log_loss=metrics.log_loss,
        auc=metrics.auc,
        auc_error=metrics.auc_error,
        calibration=metrics.calibration,
        base_rate=metrics.base_rate,
        reliability=metrics.reliability(),
        losses=losses.astype(np.float32),
        predictions=sigmoid(logits).astype(np.float32),
        labels=labels,
        weights=weights,
        groups=groups,
    )
