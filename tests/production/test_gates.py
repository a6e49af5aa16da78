"""Gates and the verdict; the plan of an A/B test."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rankitect.production.experiment import design, detectable, units_needed, variance_of
from rankitect.production.gates import GateResult, Observed, Outcome, Verdict, judge, verdict_of
from rankitect.production.settings import ExperimentConfig, GateConfig
from tests.production.rows import evidence


def outcome(gate: GateConfig, low: float, high: float) -> Outcome:
    seen = {(gate.metric, gate.of): Observed((low + high) / 2, low, high)}
    return judge({"g": gate}, seen, {})[0].outcome


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (-0.02, -0.01, "PASS"),
        (-0.01, 0.001, "PASS"),
        (-0.01, 0.01, "OPEN"),
        (0.003, 0.01, "FAIL"),
        (0.002, 0.002, "PASS"),
    ],
)
def test_non_inferiority_is_decided_by_the_whole_interval(low: float, high: float, wanted: str) -> None:
    assert outcome(GateConfig(metric="quality", at_most=0.002), low, high) == wanted


@given(st.floats(-2, 2), st.floats(0, 2), st.floats(-1, 0.5), st.floats(0, 1))
def test_a_gate_passes_inside_fails_outside_and_is_open_between(
    at: float, width: float, low: float, more: float
) -> None:
    gate = GateConfig(metric="x", of="value", at_least=low, at_most=low + more)
    found = outcome(gate, at, at + width)
    inside = low <= at and at + width <= low + more
    outside = at + width < low or at > low + more
    assert found == ("PASS" if inside else "FAIL" if outside else "OPEN")


def test_a_gate_on_what_was_not_measured_says_why() -> None:
    found = judge({"g": GateConfig(metric="latency", at_most=0)}, {}, {"latency": "no device"})[0]
    assert (found.outcome, found.reason) == (Outcome.MISSING, "no device")


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [
        ("PASS PASS", "ship to A/B"),
        ("PASS OPEN", "hold"),
        ("PASS MISSING", "hold"),
        ("OPEN FAIL", "reject"),
        ("", "hold"),
    ],
)
def test_the_verdict_follows_the_required_gates(outcomes: str, verdict: str) -> None:
    gate = GateConfig(metric="x", at_most=0)
    results = [GateResult(str(i), gate, Outcome(o)) for i, o in enumerate(outcomes.split())]
    optional = GateResult("o", gate.model_copy(update={"required": False}), Outcome.FAIL)
    assert verdict_of([*results, optional]) == Verdict(verdict)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"metric": "x"}, "at_most"),
        ({"metric": "x", "at_most": 1, "at_least": 2}, "above"),
        ({"metric": "worst_slice", "of": "value", "at_most": 1}, "worst_slice"),
        ({"metric": "x", "at_most": 1, "atleast": 2}, "atleast"),
    ],
)
def test_a_gate_without_sense_is_refused(keys: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        GateConfig.model_validate(keys)


@given(st.floats(1e-4, 0.1), st.floats(1e-3, 10), st.floats(0.1, 0.9))
def test_so_many_units_find_just_the_effect_that_they_were_planned_for(
    effect: float, variance: float, allocation: float
) -> None:
    config = ExperimentConfig(allocation=allocation)
    units = units_needed(effect, variance, config)
    assert detectable(units, variance, config) <= effect * (1 + 1e-9)
    assert units <= 2 or detectable(units - 1, variance, config) > effect * (1 - 1e-6)


def test_the_textbook_sample_size_of_a_proportion() -> None:
    """5% against 6%, level 0.05, power 0.8, equal arms: 16 p (1 - p) / effect² an arm by Lehr's rule."""
    units = units_needed(0.01, 0.05 * 0.95, ExperimentConfig())
    assert units / 2 == pytest.approx(15.7 * 0.05 * 0.95 / 0.01**2, rel=0.01)


def test_the_variance_of_a_unit_is_that_of_its_ratio_over_many_draws() -> None:
    rows = evidence(20_000, users=2000)
    assert rows.labels is not None
    assert rows.clusters is not None
    found = variance_of(rows, ExperimentConfig())
    assert found is not None
    rng = np.random.default_rng(0)
    clicks, counts = np.bincount(rows.clusters, rows.labels), np.bincount(rows.clusters)
    drawn = [rng.integers(2000, size=2000) for _ in range(2000)]
    rates = [clicks[d].sum() / counts[d].sum() for d in drawn]
    assert found.unit / 2000 == pytest.approx(float(np.var(rates)), rel=0.1)


def test_the_time_before_a_test_shortens_it_by_its_squared_correlation() -> None:
    rows = evidence(20_000, users=500)
    assert rows.labels is not None
    assert rows.clusters is not None
    before = np.stack([np.bincount(rows.clusters), np.bincount(rows.clusters, rows.labels)], 1).astype(np.int64)
    same = variance_of(dataclasses.replace(rows, before=before), ExperimentConfig())
    assert same is not None
    assert same.correlation == pytest.approx(1)
    other = dataclasses.replace(same, correlation=0.6)
    for _, plain, reduced in design(other, ExperimentConfig()).needed:
        assert reduced is not None
        assert reduced / plain == pytest.approx(1 - 0.36, rel=1e-3)


def test_without_users_the_variance_must_be_given() -> None:
    rows = evidence(users=None)
    assert variance_of(rows, ExperimentConfig()) is None
    given_ = variance_of(rows, ExperimentConfig(rate=0.1, variance=0.2))
    assert given_ is not None
    assert (given_.rate, given_.unit) == (0.1, 0.2)
    assert not math.isnan(given_.rate)
