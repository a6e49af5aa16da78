"""Metrics of click prediction against torchrec's and scikit-learn's, and their intervals against what they promise."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rankitect.errors import DataError, TrainingError
from rankitect.metrics.intervals import Estimate, mean_estimate, seeded_estimate
from rankitect.metrics.ranking_metrics import (
    RankingMetrics,
    binary_entropy,
    entropy_difference,
    entropy_estimate,
    log_losses,
    roc_auc,
    sigmoid,
)


def clicks(rows=3000, seed=0, *, ties=False, soft=False):
    rng = np.random.default_rng(seed)
    z = rng.normal(-1.0, 1.5, rows).astype(np.float32)
    if ties:
        z = np.round(z * 2) / 2
    y = (rng.random(rows) < sigmoid(0.7 * z - 0.2)).astype(np.float32)
    if soft:
        y = np.clip(y + rng.normal(0, 0.2, rows), 0, 1).astype(np.float32)
    return z, y, rng.random(rows).astype(np.float32) * 3


def measured(z, y, w=None, batch=500, **keys):
    found = RankingMetrics("the clicks", **keys)
    for start in range(0, len(z), batch):
        part = slice(start, start + batch)
        found.update(z[part], y[part], None if w is None else w[part])
    return found


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ties", [False, True])
def test_equal_to_scikit_learn(weighted, ties):
    metrics = pytest.importorskip("sklearn.metrics")
    z, y, w = clicks(ties=ties)
    w = w if weighted else None
    found = measured(z, y, w)
    assert found.log_loss == pytest.approx(metrics.log_loss(y, sigmoid(z), sample_weight=w), rel=1e-9)
    assert found.auc == pytest.approx(metrics.roc_auc_score(y, z, sample_weight=w), abs=1e-7)
    assert found.rows == len(z)
    assert found.calibration == pytest.approx(np.average(sigmoid(z), weights=w) / np.average(y, weights=w))


@pytest.mark.parametrize("soft", [False, True])
def test_equal_to_torchrec(soft):
    """Normalized entropy, AUC and calibration, weighted, over several batches."""
    torch = pytest.importorskip("torch")
    ne = pytest.importorskip("torchrec.metrics.ne")
    from torchrec.metrics.auc import compute_auc
    from torchrec.metrics.calibration import compute_calibration, get_calibration_states

    z, y, w = clicks(soft=soft)
    found = measured(z, y, w)
    labels, weights = torch.from_numpy(y).double()[None], torch.from_numpy(w).double()[None]
    predictions = torch.from_numpy(sigmoid(z))[None]
    states = ne.get_ne_states(labels, predictions, weights, 1e-12)
    theirs = ne.compute_ne(*(states[k] for k in (
        "cross_entropy_sum", "weighted_num_samples", "pos_labels", "neg_labels")), 1e-12)  # fmt: skip
    assert found.normalized_entropy == pytest.approx(float(theirs), rel=1e-9)
    states = get_calibration_states(labels, predictions, weights)
    theirs = compute_calibration(states["calibration_num"], states["calibration_denom"])
    assert found.calibration == pytest.approx(float(theirs), rel=1e-7)
    assert found.auc == pytest.approx(float(compute_auc(1, [predictions], [labels], [weights])), abs=1e-6)


def test_normalized_entropy_uses_the_base_rate_of_what_is_evaluated():
    y = np.array([1.0, 0, 0, 0])
    constant = np.full(4, math.log(0.25 / 0.75))
    assert measured(constant, y).normalized_entropy == pytest.approx(1.0)
    assert measured(np.zeros(4), y).normalized_entropy == pytest.approx(math.log(2) / binary_entropy(0.25))


@pytest.mark.parametrize("exact", [10**6, 0])
def test_parts_merge_into_the_whole(exact):
    z, y, w = clicks()
    whole = measured(z, y, w, batch=len(z), exact_rows=exact)
    merged = RankingMetrics(exact_rows=exact)
    for part in (slice(0, 700), slice(700, 705), slice(705, None)):
        merged.merge(measured(z[part], y[part], w[part], exact_rows=exact))
    for name in ("rows", "normalized_entropy", "log_loss", "auc", "auc_error", "calibration", "base_rate"):
        assert getattr(merged, name) == pytest.approx(getattr(whole, name)), name
    assert [b.weight for b in merged.reliability()] == pytest.approx([b.weight for b in whole.reliability()])


def test_the_histogram_is_as_near_as_it_says():
    z, y, w = clicks(5000)
    exact, rough = measured(z, y, w), measured(z, y, w, exact_rows=100)
    assert exact.auc_error == 0
    assert 0 < rough.auc_error < 1e-4
    assert abs(rough.auc - exact.auc) <= rough.auc_error
    far = measured(z * 100, y, w, exact_rows=0)  # many beyond the range
    assert far.auc_error > 0.01
    assert abs(far.auc - exact.auc) <= far.auc_error


def test_reliability_adds_up():
    z, y, w = clicks()
    found = measured(z, y, w)
    bins = found.reliability(10)
    assert sum(b.weight for b in bins) == pytest.approx(found.weight)
    assert sum(b.weight * b.observed for b in bins) == pytest.approx(found.clicks)
    assert sum(b.weight * b.predicted for b in bins) == pytest.approx(found.predicted)
    assert [b.predicted for b in bins] == sorted(b.predicted for b in bins)
    assert max(b.weight for b in bins) < 1.3 * found.weight / 10


finite = st.floats(-30, 30, width=32)


@given(arrays(np.float32, 12, elements=finite), arrays(np.float32, 12, elements=st.sampled_from([0.0, 1.0])))
def test_auc_is_the_chance_that_a_click_scores_higher(z, y):
    if not 0 < y.sum() < len(y):
        return
    pairs = [(a > b) + 0.5 * (a == b) for a in z[y == 1] for b in z[y == 0]]
    assert roc_auc(z, y, 1 - y) == pytest.approx(np.mean(pairs))


@given(arrays(np.float64, 8, elements=st.floats(-700, 700)), arrays(np.float64, 8, elements=st.floats(0, 1)))
def test_log_loss_neither_overflows_nor_falls_below_the_label_s_entropy(z, y):
    losses = log_losses(z, y)
    assert np.isfinite(losses).all()
    assert (losses >= [binary_entropy(p) - 1e-9 for p in y]).all()


def test_bad_input_is_named():
    z, y, _ = clicks(20)
    y[7] = 2
    with pytest.raises(DataError, match=r"the clicks: the label of row 1007 is 2; labels must lie in \[0, 1\]"):
        RankingMetrics("the clicks").update(z, y, row=1000)
    with pytest.raises(DataError, match="label of row 7 is nan"):
        RankingMetrics().update(z, np.where(np.arange(20) == 7, np.nan, 0))
    with pytest.raises(DataError, match="weight of row 3 is -1"):
        RankingMetrics().update(z, np.zeros(20), np.where(np.arange(20) == 3, -1, 1))
    with pytest.raises(TrainingError, match="prediction for row 2 is not finite"):
        RankingMetrics().update(np.where(np.arange(20) == 2, np.inf, 0), np.zeros(20))
    with pytest.raises(DataError, match="do not match"):
        RankingMetrics().update(z, y[:5])


@pytest.mark.parametrize(("label", "said"), [(0.0, "has no clicks in 5 rows"), (1.0, "has clicks only in 5 rows")])
def test_one_class_is_an_error(label, said):
    found = RankingMetrics("split test")
    with pytest.raises(DataError, match="split test has no examples"):
        found.require()
    found.update(np.zeros(5), np.full(5, label))
    for name in ("normalized_entropy", "auc", "calibration"):
        with pytest.raises(DataError, match=said):
            getattr(found, name)
    with pytest.raises(DataError, match="both classes"):
        entropy_estimate(np.zeros(5), np.full(5, label))


# --- intervals ------------------------------------------------------------------------------------------------------
def _world(rng, users=60, each=20, effect=0.8):
    """Clicks whose chance depends on the user, and the logits of two models; user ids."""
    user = np.repeat(np.arange(users), each)
    taste = rng.normal(0, effect, users)[user]
    own = rng.normal(0, 1, len(user))
    y = (rng.random(len(user)) < sigmoid(taste + own - 1)).astype(float)
    return own - 1, 0.8 * own - 0.9, y, user


def test_intervals_cover_as_often_as_they_say():
    """95% intervals of NE and of a difference, clusters of like examples: near 95%; without clusters far below."""
    rng = np.random.default_rng(0)
    worlds = [_world(rng) for _ in range(300)]
    a, b, y, _ = (np.concatenate(x) for x in zip(*[_world(rng) for _ in range(400)], strict=True))
    entropy = binary_entropy(y.mean())
    truth = log_losses(a, y).mean() / entropy
    difference = (log_losses(a, y) - log_losses(b, y)).mean() / entropy
    inside = np.zeros(3)
    for a, b, y, user in worlds:
        la, lb = log_losses(a, y), log_losses(b, y)
        estimates = [
            (entropy_estimate(la, y, clusters=user), truth),
            (entropy_estimate(la, y), truth),
            (entropy_difference(la, lb, y, clusters=user), difference),
        ]
        inside += [low < value < high for (low, high), value in ((e.interval(), v) for e, v in estimates)]
    clustered, naive, paired = inside / len(worlds)
    assert clustered > 0.9
    assert naive < clustered
    assert paired > 0.9


def test_a_paired_interval_is_narrow():
    rng = np.random.default_rng(1)
    a, _, y, user = _world(rng)
    la = log_losses(a, y)
    worse = la + 0.01 + rng.normal(0, 0.01, len(la))
    found = entropy_difference(la, worse, y, clusters=user)
    low, high = found.interval()
    assert low < found.value < high < 0
    assert found.value == pytest.approx((la.mean() - worse.mean()) / binary_entropy(y.mean()))
    assert high - low < 0.1 * np.diff(entropy_estimate(la, y, clusters=user).interval())[0]


def test_seeds_widen_the_interval():
    rng = np.random.default_rng(2)
    a, b, y, user = _world(rng)
    la, lb = log_losses(a, y), log_losses(b, y)
    shifts = np.array([-0.03, 0.01, 0.02])[:, None]
    one = entropy_difference(la, lb, y, clusters=user)
    same = entropy_difference(np.stack([la] * 3), np.stack([lb] * 3), y, clusters=user)
    spread = entropy_difference(la + shifts, np.stack([lb] * 3), y, clusters=user)
    shared = entropy_difference(la + shifts, lb + shifts, y, clusters=user, paired_seeds=True)
    assert (same.value, same.error, same.freedom) == pytest.approx((one.value, one.error, one.freedom))
    assert spread.value == pytest.approx(one.value)
    assert spread.error > 1.5 * one.error
    assert spread.freedom < one.freedom
    assert shared.error == pytest.approx(one.error)


def test_plain_means():
    x = np.array([1.0, 2.0, 4.0, 5.0])
    found = mean_estimate(x)
    assert found == Estimate(3.0, x.std(ddof=1) / 2, 3.0)
    assert mean_estimate(x, weights=[1, 1, 0, 0]).value == 1.5
    assert mean_estimate(np.repeat(x, 3), clusters=np.repeat([7, 3, 9, 1], 3)).error == pytest.approx(found.error)
    assert mean_estimate(x, clusters=[1, 1, 1, 1]) == found  # one cluster says nothing
    assert mean_estimate([2.0]).interval() == (-math.inf, math.inf)
    assert seeded_estimate(found, [1.0]) == found
