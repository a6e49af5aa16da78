"""Calibration, and agreement of two models."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from rankitect.metrics.ranking_metrics import log_losses, sigmoid
from rankitect.production.calibration import agreement, calibration, calibration_ratio
from rankitect.production.evidence import Evidence
from tests.production.rows import OURS, THEIRS, evidence


def model(logits: np.ndarray, labels: np.ndarray) -> Evidence:
    return Evidence("normalized_entropy", {"m": log_losses(logits, labels)[None].astype(np.float32)}, labels)


def clicks(rows: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    logits = rng.normal(-1, 1.2, rows)
    return logits, (rng.random(rows) < sigmoid(logits)).astype(np.float32)


def test_the_true_probabilities_are_calibrated_in_every_tenth() -> None:
    logits, labels = clicks()
    found = calibration(model(logits, labels), "m")
    low, high = found.ratio.interval()
    assert low < 1 < high
    assert found.expected_error < 0.02
    assert len(found.buckets) == 10
    assert sum(b.rows for b in found.buckets) == len(labels)
    predicted = [b.predicted for b in found.buckets]
    assert predicted == sorted(predicted)
    assert found.recalibrated_entropy == pytest.approx(found.entropy, rel=1e-3)


def test_a_shifted_scale_is_seen_and_recalibration_takes_it_away() -> None:
    logits, labels = clicks()
    right, wrong = (calibration(model(z, labels), "m") for z in (logits, 0.5 * logits + 1.0))
    assert wrong.ratio.interval()[0] > 1.2
    assert wrong.expected_error > 0.1
    assert wrong.entropy > right.entropy
    assert wrong.recalibrated_entropy == pytest.approx(right.recalibrated_entropy, rel=1e-4)


def test_the_ratio_is_predicted_over_observed_and_seeds_add_to_its_error() -> None:
    rows = evidence(noise=1.0)
    assert rows.labels is not None
    ratio = calibration_ratio(rows, THEIRS)
    assert ratio.value == pytest.approx(rows.predictions(THEIRS).mean() / rows.labels.mean())
    one = dataclasses.replace(rows, losses={THEIRS: rows.losses[THEIRS][:1]})
    assert calibration_ratio(one, THEIRS).error > 0


def test_a_model_agrees_with_itself_and_not_with_its_reverse() -> None:
    logits, labels = clicks(2000)
    losses = {"m": log_losses(logits, labels), "r": log_losses(-logits, labels)}
    rows = Evidence("normalized_entropy", {k: v[None].astype(np.float32) for k, v in losses.items()}, labels)
    same, reverse = agreement(rows, "m", "m"), agreement(rows, "r", "m")
    assert (same.reordered, same.difference) == (0, 0)
    assert same.correlation == pytest.approx(1)
    assert reverse.reordered > 0.99
    assert reverse.correlation == pytest.approx(-1, abs=1e-3)
    assert same.noise is None


def test_pairs_are_of_one_user_each() -> None:
    users = np.repeat(np.arange(50), 10)
    rng = np.random.default_rng(0)
    within, labels = rng.normal(size=500), (rng.random(500) < 0.5).astype(np.float32)
    # Between users the two models order everything the other way round, within a user all the same.
    losses = {"m": log_losses(within + users, labels), "o": log_losses(within - users, labels)}
    rows = Evidence(
        "normalized_entropy",
        {k: v[None].astype(np.float64) for k, v in losses.items()},  # type: ignore[misc]
        labels,
        clusters=users,
    )
    found = agreement(rows, "m", "o")
    assert found.within
    assert found.reordered < 0.01
    assert agreement(dataclasses.replace(rows, clusters=None), "m", "o").reordered > 0.5


def test_retraining_changes_fewer_pairs_than_another_model() -> None:
    found = agreement(evidence(noise=0.05, better=0.8), OURS, THEIRS)
    assert found.noise is not None
    assert found.noise < found.reordered


def test_the_ratio_of_few_clicks_stays_above_zero() -> None:
    few = evidence(60, users=None, seeds=1)
    assert few.labels is not None
    rows = dataclasses.replace(few, labels=(np.arange(60) < 2).astype(np.float32))
    found = calibration_ratio(rows, OURS)
    low, high = found.interval()
    assert found.value - 2 * found.error < 0 < low < found.value < high
    for bucket in calibration(few, OURS).buckets:
        if bucket.ratio is not None:
            low, high = bucket.ratio.interval()
            assert 0 <= low <= bucket.ratio.value <= high


def test_probabilities_as_labels_are_compared_with_the_predictions_that_were_kept() -> None:
    """Of a label between 0 and 1 two predictions have the same loss: the loss alone says nothing of the calibration."""
    logits, _ = clicks()
    soft = sigmoid(logits).astype(np.float32)
    losses = {"m": log_losses(logits, soft)[None].astype(np.float32)}
    rows = Evidence("normalized_entropy", losses, soft, predicted={"m": soft[None]})
    exact = calibration(rows, "m")
    assert exact.ratio.value == pytest.approx(1, abs=1e-6)
    assert exact.expected_error == pytest.approx(0, abs=1e-6)
    assert all(bucket.predicted == pytest.approx(bucket.observed) for bucket in exact.buckets)
    weighted = dataclasses.replace(rows, weights=np.where(np.arange(len(soft)) % 2, 0, 1).astype(np.float32))
    assert calibration(weighted, "m").ratio.value == pytest.approx(1, abs=1e-6)
