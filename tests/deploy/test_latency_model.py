"""The latency model on tables whose law is known."""

from __future__ import annotations

import numpy as np
import pytest

from rankitect.deploy.latency_model import LatencyModel, space_filling
from rankitect.errors import AssetError, DataError


def table(rows, seed=0, noise=0.0):
    rng = np.random.default_rng(seed)
    x = rng.integers(1, 9, (rows, 3)).astype(float)
    y = 2.0 + x[:, 0] * (0.5 + 0.2 * x[:, 1]) + 0.3 * x[:, 2]
    return x, y * np.exp(noise * rng.standard_normal(rows))


def error(model, x, y, prior=None):
    return float(np.mean(np.abs(model.predict(x, prior).mean / y - 1)))


def test_it_learns_a_law_from_forty_rows():
    x, y = table(40)
    new, truth = table(60, seed=1)
    assert error(LatencyModel().fit(x, y), new, truth) < 0.02


def test_a_good_prior_needs_few_rows():
    x, y = table(8)
    new, truth = table(60, seed=1)
    without = error(LatencyModel().fit(x, y), new, truth)
    with_prior = error(LatencyModel().fit(x, y, 0.8 * y), new, truth, 0.8 * truth)
    assert with_prior < 0.01 < without


def test_intervals_hold_what_they_promise():
    x, y = table(60, noise=0.03)
    new, truth = table(200, seed=1, noise=0.03)
    found = LatencyModel().fit(x, y).predict(new)
    inside = np.mean((found.low <= truth) & (truth <= found.high))
    assert 0.88 <= inside <= 1.0


@pytest.mark.parametrize(("rows", "outliers"), [(60, 0.06), (14, 0.0)])
def test_intervals_hold_what_they_promise_with_outliers_and_with_few_rows(rows, outliers):
    x, y = table(rows + 300, noise=0.03)
    rng = np.random.default_rng(0)
    y = np.where(rng.random(len(y)) < outliers, y * rng.uniform(1.5, 3, len(y)), y)
    predicted = LatencyModel().fit(x[:rows], y[:rows]).predict(x[rows:])
    assert np.mean((predicted.low <= y[rows:]) & (y[rows:] <= predicted.high)) >= 0.92


def test_an_interval_of_four_rows_says_that_nothing_is_known():
    x, y = table(4)
    predicted = LatencyModel().fit(x, y).predict(x)
    assert (predicted.low == 0).all()
    assert (predicted.high > 10 * y).all()


def test_outliers_are_left_out_and_named():
    x, y = table(60, noise=0.01)
    y[[7, 20, 41]] *= 3
    new, truth = table(100, seed=1)
    model = LatencyModel().fit(x, y)
    assert {7, 20, 41} <= set(model.outliers)
    assert error(model, new, truth) < 0.03


def test_cross_validation_is_worse_than_the_fit():
    x, y = table(30, noise=0.05)
    model = LatencyModel().fit(x, y)
    assert model.cross_validated() / 100 > error(model, x, y)


def test_what_is_measured_next_is_far_from_what_is_known():
    x = np.linspace(0, 1, 8)[:, None]
    model = LatencyModel().fit(x, 5 + np.sin(3 * x[:, 0]))
    candidates = np.array([[0.5], [0.51], [3.0], [3.01], [-2.0]])
    assert set(model.choose(candidates, count=2)) == {2, 4} or set(model.choose(candidates, count=2)) == {3, 4}


def test_space_filling_takes_the_ends_first():
    x = np.array([[i, j] for i in range(5) for j in range(5)], dtype=float)
    chosen = x[space_filling(x, 4)]
    assert {(0, 0), (4, 4), (0, 4), (4, 0)} == {tuple(row) for row in chosen}


def test_saved_and_loaded_it_predicts_the_same(tmp_path):
    x, y = table(25)
    model = LatencyModel({"device": "host", "precision": "float32"}).fit(x, y)
    model.save(tmp_path / "model.safetensors")
    again = LatencyModel.load(tmp_path / "model.safetensors", {"device": "host"})
    assert np.array_equal(again.predict(x).mean, model.predict(x).mean)
    with pytest.raises(AssetError, match="precision=float32, not 8da4w"):
        LatencyModel.load(tmp_path / "model.safetensors", {"precision": "8da4w"})
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(AssetError, match="no latency model"):
        LatencyModel.load(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (np.where(x == x[2, 1], np.nan, x), y), "row .*, column"),
        (lambda x, y: (x, np.where(y == y[3], -1.0, y)), "latency, row 3"),
        (lambda x, y: (x[:3], y[:3]), "at least 4 rows"),
        (lambda x, y: (x[:, 0], y), "table"),
    ],
)
def test_bad_tables_are_named(change, message):
    with pytest.raises(DataError, match=message):
        LatencyModel().fit(*change(*table(10)))


def test_predictions_need_what_was_learned_with():
    x, y = table(10)
    with pytest.raises(DataError, match="call fit first"):
        LatencyModel().predict(x)
    with pytest.raises(DataError, match="3 columns"):
        LatencyModel().fit(x, y).predict(x[:, :2])
    with pytest.raises(DataError, match="both fit and predict"):
        LatencyModel().fit(x, y, y).predict(x)
