"""Accuracy on questions, and differences between two models on the same ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankitect.errors import DataError
from rankitect.metrics.choices import accuracy, paired_difference, right_choices, wilson_interval


def test_the_likeliest_choice_depends_on_what_its_likelihood_is_divided_by():
    right = right_choices([[-3.0, -4.0], [-3.0, -4.0]], [["no", "never"], ["äää", "abcd"]], [1, 0])
    assert right["acc"].tolist() == [False, True]
    assert right["acc_norm"].tolist() == [True, True]  # -1.5 and -0.8 a character; -1 and -1, and the first counts
    assert right["acc_bytes"].tolist() == [True, True]  # -0.5 and -1 a byte


def test_an_accuracy_has_the_interval_of_wilson():
    metric = accuracy([True, True, False, True])
    assert (metric.value, metric.unit, metric.n) == (0.75, "share", 4)
    assert metric.ci95 == pytest.approx((0.3006, 0.9544), abs=1e-4)  # as statsmodels gives it
    assert wilson_interval(4, 4)[0] == pytest.approx(0.5101, abs=1e-4)


@settings(max_examples=50)
@given(st.integers(0, 30), st.integers(1, 30))
def test_the_interval_of_a_share_holds_it_and_is_one_of_shares(count, more):
    low, high = wilson_interval(count, count + more)
    assert 0 <= low <= count / (count + more) <= high <= 1


def test_a_paired_difference_is_narrower_than_two_intervals_and_never_certain():
    rng = np.random.default_rng(0)
    one = rng.random(400) < 0.6
    other = np.where(rng.random(400) < 0.05, ~one, one)
    low, high = paired_difference(one, other).interval()
    apart = accuracy(one).ci95, accuracy(other).ci95
    assert low < one.mean() - other.mean() < high
    assert high - low < 0.5 * min(b - a for a, b in apart)
    same = paired_difference(one, one)
    assert same.value == 0
    assert same.error > 0


def test_a_paired_difference_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        hard = rng.random(60)
        one, other = hard < 0.6, np.where(rng.random(60) < 0.2, rng.random(60) < 0.5, hard < 0.6)
        low, high = paired_difference(one, other).interval()
        covered += low < 0.2 * (0.6 - 0.5) < high
    assert 0.92 <= covered / 400 <= 1.0


def test_questions_that_are_alike_and_seeds_that_differ_widen_a_difference():
    one, other = np.tile([1, 0, 1, 1, 0, 0], 20), np.tile([0, 0, 1, 0, 1, 0], 20)
    alone = paired_difference(one, other)
    clustered = paired_difference(one, other, clusters=np.tile(np.arange(6), 20))
    assert clustered.error > alone.error
    seeded = paired_difference([one, np.zeros_like(one), one], [other, other, other])
    assert seeded.error > alone.error


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_likelihood_that_is_no_finite_number_wins_no_choice(wrong):
    with pytest.raises(DataError, match="likelihoods of question 1's choices are no finite numbers"):
        right_choices([[-1.0, -2.0], [-3.0, wrong]], [["a", "b"], ["no", "yes"]], [0, 1])
