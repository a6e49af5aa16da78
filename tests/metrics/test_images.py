"""Quality of classifiers of images against plain definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rankitect.data.images.batch import ImageBatch
from rankitect.errors import DataError, TrainingError
from rankitect.metrics.images import ImageQuality, calibration_error, image_loss, quality_specs


def quality(losses: list[float], right: list[bool], split: str = "test") -> ImageQuality:
    return ImageQuality(
        split, np.asarray(losses), np.asarray(right), np.full(len(losses), 0.5), np.zeros(len(losses), int)
    )


@given(st.lists(st.tuples(st.floats(0.1, 1), st.booleans()), min_size=1, max_size=60))
def test_calibration_error_is_the_mean_gap_of_the_bins(pairs: list[tuple[float, bool]]) -> None:
    confidences, right = np.asarray([p for p, _ in pairs]), np.asarray([r for _, r in pairs])
    total = 0.0
    for low in range(15):
        here = (confidences >= low / 15) & ((confidences < (low + 1) / 15) | (low == 14))
        # A confidence at an edge may fall on either side of it in floating point.
        if here.any():
            total += here.mean() * abs(confidences[here].mean() - right[here].mean())
    edges = np.abs(confidences * 15 - np.round(confidences * 15)) < 1e-9
    if not edges.any():
        assert calibration_error(confidences, right) == pytest.approx(total, abs=1e-9)
    assert 0 <= calibration_error(confidences, right) <= 1


def test_metrics_have_the_names_that_are_promised_and_intervals() -> None:
    for split, begin in (("test", ""), ("validation", "validation_")):
        measured = quality([0.2, 0.4, 1.5, 0.1], [True, True, False, True], split).metrics
        assert list(measured) == [spec.name for spec in quality_specs(split)]
        accuracy, loss = measured[f"{begin}accuracy"], measured[f"{begin}cross_entropy"]
        assert (accuracy.value, loss.value) == (0.75, pytest.approx(0.55))
        assert accuracy.ci95 is not None
        assert accuracy.ci95[0] < 0.75 < accuracy.ci95[1]
    assert [spec.held_out for spec in quality_specs("validation")] == [spec.name for spec in quality_specs("test")[:2]]


def test_models_are_compared_in_pairs_on_the_same_images() -> None:
    one, other = quality([1.0, 2.0, 3.0], [True, False, False]), quality([1.1, 2.1, 3.1], [False, False, False])
    difference = one.minus(other)
    assert difference.value == pytest.approx(-0.1)
    assert difference.interval()[1] < 0, "always the same difference is no chance"
    assert one.minus(other, "accuracy").value > 0
    with pytest.raises(DataError, match="measure both on the same images"):
        one.minus(quality([1.0], [True]))
    answers = one.answers
    assert answers["cross_entropy"].values == (1.0, 2.0, 3.0)
    assert answers["accuracy"].values == (1, 0, 0)


def test_the_loss_is_smoothed_cross_entropy() -> None:
    logits, labels = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1])
    images = torch.zeros(5, 1, 2, 2)
    log = logits.log_softmax(1)
    plain = -log[torch.arange(5), labels].mean()
    assert image_loss(lambda x: logits, ImageBatch(images, labels)).item() == pytest.approx(plain.item())
    smoothed = 0.9 * plain - 0.1 * log.mean()
    assert image_loss(lambda x: logits, ImageBatch(images, labels, 0.1)).item() == pytest.approx(smoothed.item())
    with pytest.raises(TrainingError, match=r"gives logits \[images, classes\]; this gave \[5\] for 5"):
        image_loss(lambda x: logits[:, 0], ImageBatch(images, labels))
    for classes in (2, 4):
        with pytest.raises(TrainingError, match=rf"this gave \[5, 3\] for 5 of {classes} classes"):
            image_loss(lambda x: logits, ImageBatch(images, labels), classes)
