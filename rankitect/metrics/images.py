"""Image classifiers: cross-entropy to train on and to choose by, accuracy and calibration error to report.

A model is any `nn.Module` from images [B, C, H, W] to the logits of K classes, [B, K].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rankitect.contracts import Metric, MetricSpec
from rankitect.contracts.measure import Answers
from rankitect.errors import DataError, TrainingError
from rankitect.metrics.choices import paired_difference, wilson_interval
from rankitect.metrics.intervals import Estimate, mean_estimate

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from rankitect.data.images.batch import ImageBatch
    from rankitect.data.images.batches import ImageBatches

__all__ = ["ImageQuality", "calibration_error", "image_loss", "image_quality", "quality_specs"]

_TEST, _VALIDATION = "test", "validation"
_TOGETHER = 250
"""Images in one forward of an evaluation."""
_BINS = 15
"""Of confidences, as Guo et al. (arXiv 1706.04599) take them."""
_DIGITS = 4
"""Of a loss that is kept for paired intervals."""


@dataclass(frozen=True, eq=False)
class ImageQuality:
    """How well a model tells the classes of a split's images.

    Attributes:
        split: The split.
        losses: Cross-entropy of each image, nats, [N].
        right: Whether the likeliest class is the image's, [N].
        confidences: The probability that the model gave to the class it found likeliest, [N].
        labels: The classes, [N].
    """

    split: str
    losses: NDArray[np.float64]
    right: NDArray[np.bool_]
    confidences: NDArray[np.float64]
    labels: NDArray[np.int64]

    @property
    def metrics(self) -> dict[str, Metric]:
        """Cross-entropy and accuracy, on the test split the calibration error as well: those of `quality_specs`."""
        count, begin = len(self.losses), "" if self.split == _TEST else f"{self.split}_"
        loss, right = mean_estimate(self.losses), int(self.right.sum())
        low, high = loss.interval()
        metrics = {
            f"{begin}cross_entropy": Metric(loss.value, "nat", count, (max(0.0, low), high)),
            f"{begin}accuracy": Metric(right / count, "share", count, wilson_interval(right, count)),
        }
        if self.split == _TEST:
            metrics["calibration_error"] = Metric(calibration_error(self.confidences, self.right), "share", count)
        return metrics

    @property
    def amount(self) -> int:
        """Images that were looked at."""
        return len(self.losses)

    @property
    def answers(self) -> Mapping[str, Answers]:
        """What each image gave to the metrics that are means, for comparisons of models in pairs."""
        begin = "" if self.split == _TEST else f"{self.split}_"
        losses = np.round(self.losses, _DIGITS)
        return {
            f"{begin}cross_entropy": Answers(tuple(losses.tolist()), direction="min", of="image"),
            f"{begin}accuracy": Answers(tuple(self.right.astype(np.int64).tolist()), direction="max", of="image"),
        }

    def minus(self, other: ImageQuality, metric: str = "cross_entropy") -> Estimate:
        """A metric minus another model's on the same images, with the paired error.

        Args:
            other: Of the other model.
            metric: "cross_entropy" or "accuracy".

        Raises:
            DataError: The other was measured on other images.
        """
        if self.split != other.split or not np.array_equal(self.labels, other.labels):
            raise DataError(
                f"Cannot compare {metric} on {self.amount:,} images ({self.split}) with {other.amount:,} "
                f"({other.split}): measure both on the same images."
            )
        if metric == "accuracy":
            return paired_difference(self.right[None].astype(np.float64), other.right[None].astype(np.float64))
        return mean_estimate(self.losses - other.losses)


def quality_specs(split: str) -> list[MetricSpec]:
    """What `ImageQuality.metrics` promises for a split. A search goes by the validation split, a report shows the test
    split, by which nothing was chosen."""
    begin, validation = "" if split == _TEST else f"{split}_", split == _VALIDATION
    specs = [
        MetricSpec(f"{begin}cross_entropy", "nat", "min", "quality", held_out="cross_entropy" if validation else None),
        MetricSpec(f"{begin}accuracy", "share", "max", "quality", held_out="accuracy" if validation else None),
    ]
    return [*specs, MetricSpec("calibration_error", "share", "min", "diagnostic")] if split == _TEST else specs


def image_loss(model: nn.Module | Callable[..., Tensor], batch: ImageBatch, classes: int | None = None) -> Tensor:
    """Mean cross-entropy, nats, with the batch's label smoothing (Szegedy et al., arXiv 1512.00567).

    Args:
        model: The model.
        batch: The images.
        classes: How many logits an image must get; None for any number.

    Raises:
        TrainingError: The model does not give a logit for every class of every image.
    """
    from torch.nn.functional import cross_entropy

    return cross_entropy(_logits(model, batch.images, classes), batch.labels, label_smoothing=batch.smoothing)


def image_quality(
    model: nn.Module,
    batches: ImageBatches,
    split: str,
    *,
    most: int | None = None,
    check: Callable[[], None] | None = None,
    device: torch.device | None = None,
) -> ImageQuality:
    """Measure a model on a split; it keeps its mode.

    Args:
        model: The model.
        batches: The images.
        split: Of these.
        most: How many images, always the same ones; None for all.
        check: Called before every forward; may raise, to stop.
        device: Where the model is.

    Raises:
        TrainingError: The model does not give a logit for every class of every image.
    """
    import torch

    places = batches.sampled(split, most)
    losses, right, confidences = (np.empty(len(places)) for _ in range(3))
    mode, done = model.training, 0
    model.eval()
    try:
        with torch.inference_mode():
            for images, labels in batches.images_at(places, _TOGETHER):
                if check is not None:
                    check()
                log = _logits(model, images.to(device), len(batches.data.classes)).double().log_softmax(1).cpu().numpy()
                here = slice(done, done + len(labels))
                losses[here] = -log[np.arange(len(labels)), labels]
                right[here] = log.argmax(1) == labels
                confidences[here] = np.exp(log.max(1))
                done += len(labels)
    finally:
        model.train(mode)
    return ImageQuality(split, losses, right.astype(np.bool_), confidences, batches.data.stored.labels[places])


def calibration_error(confidences: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """By how much confidences and accuracy differ, as the mean over bins of equal width, by the images in them.

    Args:
        confidences: Of the class that was found likeliest, [N].
        right: Whether it was the class, [N].

    >>> calibration_error(np.array([0.9, 0.9, 0.6, 0.6]), np.array([True, True, True, False]))
    0.1
    """
    bins = np.minimum((confidences * _BINS).astype(np.int64), _BINS - 1)
    gaps = np.bincount(bins, weights=confidences - right, minlength=_BINS)
    return round(float(np.abs(gaps).sum() / len(confidences)), 12)


def _logits(model: nn.Module | Callable[..., Tensor], images: Tensor, classes: int | None) -> Tensor:
    logits: Tensor = model(images)
    if logits.ndim != 2 or len(logits) != len(images) or classes not in (None, logits.shape[1]):
        of = f"{len(images)}" if classes is None else f"{len(images)} of {classes:,} classes"
        raise TrainingError(
            f"A classifier of images gives logits [images, classes]; this gave {list(logits.shape)} for {of}."
        )
    return logits.float()
