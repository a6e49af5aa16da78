"""Relative changes of quality: their values, intervals, slices and days."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankitect.metrics.ranking_metrics import RankingMetrics, log_losses
from rankitect.production.calibration import calibration
from rankitect.production.change import (
    FEWEST,
    change,
    changes_by_slice,
    changes_by_time,
    heterogeneity,
    slicing_of,
)
from rankitect.production.evidence import Evidence, Slicing
from tests.production.rows import OURS, THEIRS, evidence


@given(st.integers(0, 1000))
def test_the_change_is_that_of_normalized_entropy(seed: int) -> None:
    rows = evidence(500, users=None, seeds=1, seed=seed)
    assert rows.labels is not None
    entropies = []
    for name in (OURS, THEIRS):
        p = rows.predictions(name)[0]
        metrics = RankingMetrics()
        metrics.update(np.log(p) - np.log1p(-p), rows.labels)
        entropies.append(metrics.normalized_entropy)
    assert change(rows, OURS, THEIRS).value == pytest.approx(entropies[0] / entropies[1] - 1, abs=1e-6)


@given(st.lists(st.tuples(st.floats(-12, 12), st.booleans()), min_size=1, max_size=20))
def test_a_prediction_is_got_back_from_its_loss(rows: list[tuple[float, bool]]) -> None:
    logits, labels = np.array([z for z, _ in rows]), np.array([y for _, y in rows], np.float32)
    found = Evidence("normalized_entropy", {"m": log_losses(logits, labels)[None].astype(np.float32)}, labels)
    assert found.predictions("m")[0] == pytest.approx(1 / (1 + np.exp(-logits)), rel=1e-4, abs=1e-7)


def test_a_model_is_no_better_than_itself() -> None:
    found = change(evidence(), THEIRS, THEIRS)
    assert found.value == 0
    assert not found.separated
    assert found.p_value == 1


def test_less_noise_is_a_clear_gain_and_the_other_way_round_a_clear_loss() -> None:
    rows = evidence()
    gain, loss = change(rows, OURS, THEIRS), change(rows, THEIRS, OURS)
    assert gain.high < 0 < loss.low
    assert gain.value == pytest.approx(1 / (1 + loss.value) - 1)
    assert gain.clusters == 200
    assert gain.seeds == (3, 3)


def test_one_seed_has_no_spread_over_seeds_and_three_add_to_the_error() -> None:
    one, three = change(evidence(seeds=1), OURS, THEIRS), change(evidence(noise=0.5), OURS, THEIRS)
    assert one.seeding is None
    assert three.seeding is not None
    assert three.seeding > 0


def test_rows_of_one_user_that_are_alike_widen_the_interval() -> None:
    rows = evidence(seeds=1)
    gaps = rows.losses[OURS] - rows.losses[THEIRS]
    assert rows.clusters is not None
    shared = gaps + np.random.default_rng(1).normal(size=200).astype(np.float32)[rows.clusters] * 0.3
    alike = dataclasses.replace(rows, losses={OURS: rows.losses[THEIRS] + shared, THEIRS: rows.losses[THEIRS]})
    apart = dataclasses.replace(alike, clusters=None)
    assert change(alike, OURS, THEIRS).sampling > 1.5 * change(apart, OURS, THEIRS).sampling


def test_perplexity_changes_by_the_exponential_of_the_mean_difference() -> None:
    nats = {OURS: np.full((1, 40), 2.0, np.float32), THEIRS: np.full((1, 40), 2.5, np.float32)}
    nats[OURS] += np.linspace(-0.1, 0.1, 40, dtype=np.float32)
    found = change(Evidence("perplexity", nats, clusters=np.arange(40) // 4), OURS, THEIRS)
    assert found.value == pytest.approx(np.exp(-0.5) - 1, rel=1e-5)
    assert found.low < found.value < found.high < 0


def test_slices_are_found_where_the_candidate_is_worse_and_small_ones_are_not_tested() -> None:
    codes = np.repeat([0, 1, 2], [1990, 1990, 20]).astype(np.int16)
    rows = evidence(slicings=(Slicing("country", codes, ("here", "there", "islands")),), seeds=1)
    worse = rows.losses[OURS].copy()
    worse[0, codes == 1] = rows.losses[THEIRS][0, codes == 1] + 0.2
    rows = dataclasses.replace(rows, losses={OURS: worse, THEIRS: rows.losses[THEIRS]})
    found = changes_by_slice(rows, OURS, THEIRS)
    assert [s.name for s in found] == ["country: there", "country: here", "country: islands"]
    bad, good, small = found
    assert bad.change is not None
    assert good.change is not None
    assert bad.change.low > 0 > good.change.high
    assert bad.q_value is not None
    assert bad.q_value < 0.05
    assert small.change is None
    assert small.rows == 20 < FEWEST


def test_intervals_of_slices_are_wide_enough_for_all_of_them_together() -> None:
    codes = (np.arange(4000) % 8).astype(np.int16)
    rows = evidence(slicings=(Slicing("x", codes, tuple("abcdefgh")),))
    for found in changes_by_slice(rows, OURS, THEIRS):
        alone = change(rows, OURS, THEIRS, codes == "abcdefgh".index(found.part))
        assert found.change is not None
        assert found.change.value == alone.value
        assert found.change.low < alone.low
        assert found.q_value is not None
        assert found.q_value >= alone.p_value


def test_days_come_in_order_and_differ_only_where_they_do() -> None:
    rows = evidence(days=4, seeds=1)
    days = changes_by_time(rows, OURS, THEIRS)
    assert [d.part for d in days] == ["2024-10-04", "2024-10-05", "2024-10-06", "2024-10-07"]
    same = heterogeneity([d.change for d in days if d.change])
    assert rows.days is not None
    drifting = rows.losses[OURS] + np.where(rows.days == 20_003, 0.3, 0.0).astype(np.float32)
    moved = dataclasses.replace(rows, losses={OURS: drifting, THEIRS: rows.losses[THEIRS]})
    other = heterogeneity([d.change for d in changes_by_time(moved, OURS, THEIRS) if d.change])
    assert same is not None
    assert other is not None
    assert other < 0.001 < same
    assert changes_by_time(evidence(), OURS, THEIRS) == []


def test_few_rows_a_day_are_looked_at_by_week_or_month() -> None:
    rows = evidence(days=1, seeds=1)
    thin = dataclasses.replace(rows, days=20_000 + np.arange(rows.rows) // 50)  # 2024-10-04 is a Friday; 60 days
    weeks = changes_by_time(thin, OURS, THEIRS)
    assert {w.slicing for w in weeks} == {"week"}
    assert [w.part for w in weeks][:3] == ["2024-09-30", "2024-10-07", "2024-10-14"]
    assert sum(w.rows for w in weeks) == rows.rows
    thinner = dataclasses.replace(rows, days=20_000 + np.arange(rows.rows) // 8)
    months = changes_by_time(thinner, OURS, THEIRS)
    assert {m.slicing for m in months} == {"month"}
    assert months[0].part == "2024-10"
    assert months[0].rows == 28 * 8


@given(st.lists(st.integers(-1, 5), min_size=1, max_size=60), st.integers(2, 6))
def test_a_slicing_keeps_every_row_in_a_part_of_its_own_or_the_rest(codes: list[int], most: int) -> None:
    given_codes = np.array(codes)
    found = slicing_of("x", given_codes, list("abcdef"), most)
    parts = {c for c in codes if c >= 0}
    if found is None:
        assert len(parts) < 2
        return
    assert len(found.parts) == min(len(parts), most)
    assert ((found.codes >= 0) == (given_codes >= 0)).all()
    for part, code in zip(found.codes.tolist(), codes, strict=True):
        if part >= 0 and found.parts[part] != "other":
            assert found.parts[part] == "abcdef"[code]


def test_what_is_known_of_one_user_says_nothing_of_others() -> None:
    rows = evidence(seeds=1)
    assert rows.clusters is not None
    alone = dataclasses.replace(rows, clusters=np.zeros_like(rows.clusters))
    found = change(alone, OURS, THEIRS)
    assert not found.separated
    assert found.p_value == 1
    assert found.value == change(rows, OURS, THEIRS).value


def test_rows_without_weight_count_for_nothing() -> None:
    codes = np.repeat([0, 1], [3000, 1000]).astype(np.int16)
    weights = np.where(codes == 1, 0.0, 1.0).astype(np.float32)
    rows = evidence(slicings=(Slicing("x", codes, ("kept", "sampled away")),), days=2)
    weighted = dataclasses.replace(rows, weights=weights)
    (only,) = changes_by_slice(weighted, OURS, THEIRS)
    assert only.part == "kept"
    assert change(weighted, OURS, THEIRS).value == pytest.approx(change(rows, OURS, THEIRS, codes == 0).value)
    assert all(d.rows <= 3000 for d in changes_by_time(weighted, OURS, THEIRS))
    assert calibration(weighted, OURS).buckets[0].rows == 300


def test_a_spread_over_seeds_needs_more_than_one_of_each() -> None:
    rows = evidence()
    single = dataclasses.replace(rows, losses={OURS: rows.losses[OURS][:1], THEIRS: rows.losses[THEIRS]})
    assert change(single, OURS, THEIRS).seeding is None
    assert change(rows, OURS, THEIRS).seeding is not None


def test_no_interval_of_a_change_reaches_below_all_of_it() -> None:
    two = evidence(400, users=None, seeds=2)
    spread = np.array([[0.2], [3.0]], np.float32)
    rows = dataclasses.replace(two, losses={OURS: two.losses[OURS] * spread, THEIRS: two.losses[THEIRS]})
    found = change(rows, OURS, THEIRS)
    assert -1 < found.low < found.value < found.high
    assert found.high - found.value > 1, "two seeds so far apart say next to nothing"
    near = change(evidence(), OURS, THEIRS)
    assert near.value - near.low == pytest.approx(near.high - near.value, rel=0.05)


def test_a_reference_between_two_models_is_their_geometric_mean() -> None:
    rows = evidence(users=None)
    half = rows.losses[THEIRS] * np.float32(1.5)
    rows = dataclasses.replace(rows, losses={**rows.losses, "c" * 64: half})
    found = change(rows, OURS, {THEIRS: 0.5, "c" * 64: 0.5})
    whole = change(rows, OURS, THEIRS)
    assert 1 + found.value == pytest.approx((1 + whole.value) / 1.5**0.5, rel=1e-5)
    assert found.sampling / (1 + found.value) == pytest.approx(whole.sampling / (1 + whole.value), rel=1e-4)
