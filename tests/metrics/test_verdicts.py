"""F1, false positive rate and AUC of verdicts, with their intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, roc_auc_score

from rankitect.metrics.verdicts import Scored, VerdictQuality, auc_difference, auc_estimate, best_threshold


def drawn(seed: int, n: int = 80, shift: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    unsafe = np.arange(n) % 2 == 0
    return np.round(random.normal(size=n) + shift * unsafe, 1), unsafe


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6))
def test_the_chosen_threshold_has_the_best_f1_of_all(seed: int) -> None:
    scores, unsafe = drawn(seed)
    chosen = f1_score(unsafe, scores >= best_threshold(scores, unsafe))
    assert chosen == pytest.approx(max(f1_score(unsafe, scores >= cut) for cut in scores))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6))
def test_values_are_those_of_scikit_learn(seed: int) -> None:
    scores, unsafe = drawn(seed)
    quality = VerdictQuality(Scored(scores, unsafe, np.arange(80), ["a"] * 80, [""] * 80), 0.3, 0)
    told = scores >= 0.3
    assert quality.metrics["auc"].value == pytest.approx(roc_auc_score(unsafe, scores))
    assert quality.metrics["f1"].value == pytest.approx(f1_score(unsafe, told))
    assert quality.metrics["false_positive_rate"].value == pytest.approx(told[~unsafe].mean())
    assert quality.metrics["recall"].value == pytest.approx(told[unsafe].mean())


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    truth = 0.7602  # of two normals whose means are a deviation apart
    held = 0
    for seed in range(300):
        scores, unsafe = drawn(seed, 120)
        low, high = auc_estimate(scores, unsafe, np.arange(120)).interval()
        held += low <= truth <= high
    assert 0.91 <= held / 300 <= 0.99


def test_a_rate_of_none_has_an_interval_all_the_same() -> None:
    scores, unsafe = drawn(3, shift=20.0)
    quality = VerdictQuality(Scored(scores, unsafe, np.arange(80), ["a"] * 80, [""] * 80), 10.0, 0)
    assert quality.metrics["false_positive_rate"].value == 0.0
    low, high = quality.metrics["false_positive_rate"].ci95 or (0.0, 0.0)
    assert low == 0.0
    assert 0.05 < high < 0.15


def test_exchanges_of_one_prompt_make_the_interval_wider() -> None:
    scores, unsafe = drawn(1)
    doubled, labels = np.repeat(scores, 4), np.repeat(unsafe, 4)
    alone = auc_estimate(doubled, labels, np.arange(320)).error
    together = auc_estimate(doubled, labels, np.repeat(np.arange(80), 4)).error
    assert together == pytest.approx(2 * alone, rel=0.03)


def test_a_guard_does_not_differ_from_itself() -> None:
    scores, unsafe = drawn(2)
    same = auc_difference(scores, scores, unsafe, np.arange(80))
    assert (same.value, same.error) == (0.0, 0.0)


def test_a_source_of_one_label_is_held_against_the_other_label_of_all() -> None:
    scores = np.array([0.0, 1.0, 2.0, 3.0, 0.5, 2.5])
    unsafe = np.array([False, False, True, True, True, False])
    sources = ["mixed"] * 4 + ["bad", "good"]
    quality = VerdictQuality(Scored(scores, unsafe, np.arange(6), sources, [""] * 6), 1.5, 0)
    parts = quality.parts("source")
    assert parts["mixed"]["auc"].value == 1.0
    assert parts["bad"].keys() == {"auc", "recall"}
    assert parts["bad"]["auc"].value == pytest.approx(1 / 3)  # above one of the three that are safe
    assert parts["good"].keys() == {"auc", "false_positive_rate"}
    assert parts["good"]["false_positive_rate"].value == 1.0
    assert quality.to_json()["source"]["bad"]["recall"]["value"] == 0.0
