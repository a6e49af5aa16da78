"""Fronts and what stands for them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankitect.contracts import Measurement, Metric, MetricSpec
from rankitect.methods.objectives import Objectives, fronts, hypervolume, hypervolume_subset, quality_first

POINTS = st.lists(st.tuples(st.floats(0.5, 100), st.floats(0.5, 100)), min_size=1, max_size=20)


@given(POINTS, st.integers(1, 6))
def test_a_covering_is_of_the_first_fronts_and_as_large_as_asked(points: list[tuple[float, float]], count: int) -> None:
    costs = np.array(points)
    chosen = hypervolume_subset(costs, count)
    assert len(chosen) == len(set(chosen)) == min(count, len(points))
    rank = fronts(costs)
    left = [i for i in range(len(points)) if i not in chosen]
    assert max(rank[chosen]) <= min(rank[left], default=len(points))


@given(st.integers(0, 10_000))
def test_no_other_point_would_add_more_to_the_first_chosen(seed: int) -> None:
    x = np.sort(np.random.default_rng(seed).random(9))
    costs = np.exp(np.stack([x, 1 - x], 1))
    scaled = (np.log(costs) - np.log(costs).min(0)) / np.ptp(np.log(costs), axis=0)
    chosen = hypervolume_subset(costs, 3)
    for place in range(3):
        area = [hypervolume([*map(tuple, scaled[chosen[:place]]), tuple(p)], (1.1, 1.1)) for p in scaled]
        assert area[chosen[place]] == pytest.approx(max(area))


def test_dominated_relatives_are_left_out_and_the_ends_are_there() -> None:
    """Perplexities and latencies of a search whose finalists were once bunched in the middle."""
    costs = np.array(
        [(31.0, 73.1), (26.5, 83.0), (23.5, 93.2), (21.6, 103.3), (20.1, 113.3), (18.1, 123.4), (16.9, 133.5),
         (26.9, 85.4), (27.3, 90.4), (43.2, 65.6), (36.8, 103.8)]
    )  # fmt: skip
    chosen = hypervolume_subset(costs, 4)
    assert set(chosen) <= {0, 1, 2, 3, 4, 5, 6, 9}
    latencies = sorted(costs[chosen, 1])
    assert latencies[0] < 80
    assert latencies[-1] > 120


def test_failed_trials_cover_nothing() -> None:
    assert hypervolume_subset(np.array([[np.inf, np.inf], [1.0, 2.0]]), 2) == [1]


def test_quality_comes_first_by_its_role_whatever_names_and_order_suggest() -> None:
    size = MetricSpec("weight_kib", "KiB", "min", "cost")
    quality = MetricSpec("kv_cache_perplexity", "", "min", "quality")
    measured = Measurement({"weight_kib": Metric(7.0, "KiB"), "kv_cache_perplexity": Metric(31.0, "")})
    for declared in ([quality, size], [size, quality]):
        objectives = Objectives(tuple(quality_first(declared)), quality)
        assert objectives.costs(measured) == [31.0, 7.0]


def test_without_a_quality_the_order_stays() -> None:
    costs = [MetricSpec("flops", "FLOP", "min", "cost"), MetricSpec("params", "", "min", "cost")]
    assert quality_first(costs) == costs
