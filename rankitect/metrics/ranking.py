"""The ranking task: predict a click; log-loss to train on, normalized entropy to judge by.

A model is any `nn.Module` called as `model(numeric, ids)` that gives a logit for each row, [B, 1] or [B].
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace
from types import EllipsisType
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from rankitect.errors import DataError, TrainingError
from rankitect.metrics.intervals import Estimate
from rankitect.metrics.ranking_metrics import Bin, RankingMetrics, entropy_difference, entropy_estimate

if TYPE_CHECKING:
    from torch import Tensor, nn

    from rankitect.data.ranking.batch import RankingBatch
    from rankitect.data.ranking.dataset import RankingData, RankingSplit

__all__ = ["RankingQuality", "RankingTask", "logits_of", "weighted_loss"]

EVALUATED_ROWS = 8192
"""Rows in one forward of an evaluation."""
_STREAMS = 6


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
    labels: NDArray[np.float32]
    weights: NDArray[np.float32] | None
    groups: NDArray[np.int64] | None

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


class RankingTask:
    """Batches, loss and quality on one table of clicks.

    Args:
        data: with the splits train, validation and test.
        batch: rows of a training batch.
        seed: of the order of training rows; None reads them in their own order (time, for online training).
    """

    name = "ranking"

    def __init__(self, data: RankingData, *, batch: int = 1024, seed: int | None = 0) -> None:
        if batch < 1:
            raise DataError(f"task.batch must be at least 1 row, found {batch}.")
        self.data, self.batch, self.seed = data, batch, seed
        self._streams: dict[tuple[str, int, int | None], _Stream] = {}

    def steps(self, split: str, batch: int | None = None) -> int:
        """Batches of an epoch; the last may be smaller.

        Raises:
            DataError: when the split is empty.
        """
        found = self.data.split(split)
        if not found.rows:
            raise DataError(f"{self.data.name}: the {split} split has no rows. Choose another split, or more data.")
        return found.steps(batch or self.batch)

    def require_classes(self, split: str) -> None:
        """Check that a split has clicks and others, so that it can be learnt from and measured.

        Raises:
            DataError: when it has not, is empty, or holds a label outside of [0, 1].
        """
        self.steps(split)
        found, metrics = self.data.split(split), RankingMetrics(f"{self.data.name}, {split} split", exact_rows=0)
        for start in range(0, found.rows, 1 << 20):
            part = slice(start, start + (1 << 20))
            weights = None if found.weights is None else found.weights[part]
            metrics.update(np.zeros(len(found.labels[part])), found.labels[part], weights)
        metrics.require()

    def with_validation(self) -> RankingTask:
        """The same task with the validation rows among the training rows, for a last training before the test."""
        from rankitect.data.ranking.dataset import JoinedSplit

        train, validation = self.data.split("train"), self.data.split("validation")
        splits = {**self.data.splits, "train": JoinedSplit("train", train, validation)}
        return RankingTask(replace(self.data, splits=splits), batch=self.batch, seed=self.seed)

    def batch_at(
        self, split: str, step: int, *, batch: int | None = None, seed: int | EllipsisType | None = ...
    ) -> RankingBatch:
        """The batch of a step: every row once an epoch, each epoch in another order.

        A pure function of its arguments, so that training resumes at any step. Steps in a row are read ahead.

        Args:
            split: the split.
            step: from 0; epochs follow each other.
            batch: rows; by default the task's.
            seed: of the order; None for the table's own; by default the task's.
        """
        key = (split, batch or self.batch, self.seed if isinstance(seed, EllipsisType) else seed)
        stream = self._streams.pop(key, None)
        if stream is None:
            stream = _Stream(self.data, *key, steps=self.steps(split, batch))
        self._streams[key] = stream  # the last one used is the last one
        while len(self._streams) > _STREAMS:
            self._streams.pop(next(iter(self._streams))).close()
        return stream.at(step)

    def loss(self, model: nn.Module | Callable[..., Tensor], batch: RankingBatch) -> Tensor:
        """Weighted mean of the binary cross-entropy, nats.

        Args:
            model: (numeric [B, N], ids [B, S]) to logits [B, 1] or [B].
            batch: the rows.
        """
        return weighted_loss(logits_of(model, batch), batch)

    def quality(
        self,
        model: nn.Module,
        split: str = "test",
        *,
        rows: int | None = None,
        batch: int = EVALUATED_ROWS,
        check: Callable[[], None] | None = None,
    ) -> RankingQuality:
        """Normalized entropy and the rest of a model on a split.

        Args:
            model: (numeric [B, N], ids [B, S]) to logits [B, 1] or [B]; it keeps its mode.
            split: the split.
            rows: how many rows to use at least, a random sample that is the same every time; all when None.
            batch: rows in one forward.
            check: called before every forward; may raise, to stop.

        Raises:
            DataError: when the split is empty, of one class, or holds a label outside of [0, 1].
            TrainingError: when a prediction is not finite.
        """
        import torch

        self.steps(split, batch)  # refuses an empty split
        found = self.data.split(split)
        wanted = found.rows if rows is None else min(rows, found.rows)
        metrics = RankingMetrics(f"{self.data.name}, {split} split")
        losses: list[NDArray[np.float64]] = []
        seen: list[_Facts] = []
        training = model.training
        model.eval()
        try:
            with torch.inference_mode(), closing(_read(found, batch, None if wanted == found.rows else 0)) as batches:
                for each in batches:
                    if check is not None:
                        check()
                    weights = None if each.weight is None else each.weight.numpy()
                    logits = logits_of(model, each).float().numpy()
                    losses.append(metrics.update(logits, each.label.numpy(), weights, row=each.row))
                    seen.append(_Facts(each.label, each.weight, each.group))
                    if metrics.rows >= wanted:
                        break
        finally:
            model.train(training)
        return _summary(split, metrics, losses, seen)

    def close(self) -> None:
        """Stop reading ahead."""
        while self._streams:
            self._streams.popitem()[1].close()


def _read(split: RankingSplit, batch: int, seed: int | None, epoch: int = 0, start: int = 0) -> Generator[RankingBatch]:
    """Batches that are read ahead until they are closed."""
    return cast("Generator[RankingBatch]", split.batches(batch, seed, epoch, start_step=start))


class _Stream:
    """One order of a split's batches, read ahead as long as the steps asked for follow each other."""

    def __init__(self, data: RankingData, split: str, batch: int, seed: int | None, *, steps: int) -> None:
        self._split, self._batch, self._seed, self._steps = data.split(split), batch, seed, steps
        self._batches: Generator[RankingBatch] | None = None
        self._next = 0
        self._last: RankingBatch | None = None

    def at(self, step: int) -> RankingBatch:
        if self._last is not None and step == self._next - 1:  # another model on the same batch
            return self._last
        if self._batches is None or step != self._next or step % self._steps == 0:
            self.close()
            epoch, start = divmod(step, self._steps)
            self._batches = _read(self._split, self._batch, self._seed, epoch, start)
        self._last, self._next = next(self._batches), step + 1
        return self._last

    def close(self) -> None:
        if self._batches is not None:
            self._batches.close()
        self._batches = None


class _Facts(NamedTuple):
    """What intervals need of a batch."""

    label: Tensor
    weight: Tensor | None
    group: Tensor | None


def _summary(
    split: str, metrics: RankingMetrics, losses: list[NDArray[np.float64]], seen: list[_Facts]
) -> RankingQuality:
    metrics.require()
    weights = [b.weight.numpy() for b in seen if b.weight is not None]
    groups = [b.group.numpy() for b in seen if b.group is not None]
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
        losses=np.concatenate(losses).astype(np.float32),
        labels=np.concatenate([b.label.numpy() for b in seen]),
        weights=np.concatenate(weights) if weights else None,
        groups=np.concatenate(groups) if groups else None,
    )
