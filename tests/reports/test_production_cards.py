"""The sections of a production comparison: what they call decided, and what they leave open."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rankitect.metrics.ranking_metrics import log_losses, sigmoid
from rankitect.production.evidence import Evidence, Slicing
from rankitect.production.settings import GateConfig
from rankitect.reports.cards import Card, Status
from rankitect.reports.case import Case
from rankitect.reports.comparison import ModelPoint, compare
from rankitect.reports.material import Material
from rankitect.reports.rivals import Standing
from rankitect.reports.roles import Roles
from rankitect.reports.run import Run, load_run
from rankitect.reports.section import ProductionSection
from rankitect.reports.sections import agreement, calibration, cost, experiment, launch, quality, slices
from rankitect.study.summary import BaselineSummary, CandidateSummary, MetricSummary
from tests.production.rows import OURS, THEIRS, evidence
from tests.reports.example import CANDIDATES, fingerprint, pruned, write_example
from tests.reports.test_latency import latencies
from tests.reports.test_parts import roles

ROLES = roles("normalized_entropy", "flops", "FLOPs")
TEXT = roles("perplexity", "block_flops", "FLOPs")


def metrics(entropy: float, flops: float) -> dict[str, MetricSummary]:
    spread = MetricSummary(value=entropy, unit="NE", role="quality", n=3, ci95=(entropy - 2, entropy + 2))
    return {"normalized_entropy": spread, "flops": MetricSummary(value=flops, unit="FLOPs", role="cost")}


def card(section: ProductionSection, case: Case) -> Card:
    """The section's card on one comparison."""
    made = section.card(Material(case.run, case.roles, [], [], case, {}))
    assert made is not None
    return made


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return load_run(write_example(tmp_path / "run"))


def case(run: Run, rows: Evidence | None, roles: Roles = ROLES, /, **gates: dict[str, Any]) -> Case:
    ours = CandidateSummary(
        rank=1, fingerprint=OURS, architecture={"choices": {}}, metrics=metrics(0.8, 200.0), artifacts={}
    )
    theirs = BaselineSummary(name="live", fingerprint=THEIRS, metrics=metrics(0.9, 100.0))
    made = {name: GateConfig.model_validate(keys) for name, keys in gates.items()}
    return Case(run, roles, ours, theirs, rows, made, Standing.NAMED)


def calibrated(rows: int, shift: float) -> Evidence:
    """Two seeds of two models that know the chance of each click, up to a shift of the logit."""
    rng = np.random.default_rng(0)
    truth = rng.normal(-1.0, 1.0, rows)
    labels = (rng.random(rows) < sigmoid(truth)).astype(np.float32)
    losses = np.stack([log_losses(truth + shift, labels)] * 2).astype(np.float32)
    return Evidence("normalized_entropy", {OURS: losses, THEIRS: losses}, labels)


@pytest.mark.parametrize(
    ("rows", "shift", "gate", "status", "words"),
    [
        (60, 0.0, {}, Status.WARN, "undecided"),
        (20_000, 0.0, {}, Status.PASS, "within the limits: at least 0.9, at most 1.1, where no gate says otherwise"),
        (20_000, 0.7, {}, Status.FAIL, "outside of the limits"),
        (20_000, 0.0, {"at_least": 0.999, "at_most": 1.001}, Status.WARN, "at least 0.999, at most 1.001"),
        (20_000, 0.7, {"at_most": 2.0}, Status.PASS, "at most 2"),
    ],
)
def test_calibration_is_right_only_where_its_whole_interval_is(
    run: Run, rows: int, shift: float, gate: dict[str, float], status: Status, words: str
) -> None:
    gates = {"calibration": {"metric": "calibration", "of": "value", **gate}} if gate else {}
    found = card(calibration.SECTION, case(run, calibrated(rows, shift), **gates))
    assert found.status is status
    assert words in found.reason


def sliced(rows: int, seeds: int = 3, noise: float = 0.02) -> Evidence:
    codes = (np.arange(rows) % 2).astype(np.int16)
    made = evidence(rows, seeds=seeds, better=0.3, noise=noise, slicings=(Slicing("country", codes, ("a", "b")),))
    return dataclasses.replace(made, clusters=None)


def test_slices_with_wide_intervals_are_undecided(run: Run) -> None:
    few = card(slices.SECTION, case(run, sliced(220, noise=1.0)))
    assert few.status is Status.WARN
    assert "undecided: no slice is clearly worse, but in" in few.reason
    many = case(run, sliced(20_000))
    assert card(slices.SECTION, many).status is Status.PASS
    strict = {"slices": {"metric": "worst_slice", "at_most": -0.5}}
    assert "beyond −50.0%" in card(slices.SECTION, case(run, sliced(20_000), **strict)).reason
    single = card(slices.SECTION, case(run, sliced(20_000, seeds=1)))
    assert single.status is Status.WARN
    assert "one training seed" in single.reason


def test_agreement_is_read_beside_what_retraining_production_changes(run: Run) -> None:
    other = card(agreement.SECTION, case(run, evidence(noise=0.05, better=0.8)))
    assert other.status is Status.WARN
    assert "times what retraining production changes" in other.reason
    like = card(agreement.SECTION, case(run, evidence(noise=0.5, better=0.0)))
    assert like.status is Status.PASS
    same = evidence(noise=0.0)
    assert "changes no pair" in card(agreement.SECTION, case(run, same)).reason
    single = card(agreement.SECTION, case(run, evidence(seeds=1)))
    assert single.status is Status.WARN
    assert "one training seed" in single.reason


def test_a_latency_of_the_candidate_alone_compares_with_nothing(tmp_path: Path) -> None:
    folder = write_example(tmp_path / "run")
    place = folder / "candidates" / f"01-{fingerprint(pruned(CANDIDATES[0][0], 1))[:8]}"
    place.mkdir(parents=True)
    (place / "latency.json").write_text(json.dumps(latencies(95.0, 93.0)))
    run = load_run(folder)
    alone = dataclasses.replace(case(run, None), candidate=run.summary.pareto[0])
    found = card(cost.SECTION, alone)
    assert found.status is Status.NA
    assert "that of live was not: there is nothing to compare it with" in found.reason
    timed = {"prefill_ms": MetricSummary(value=95.0, unit="ms", role="cost")}
    both = dataclasses.replace(
        alone,
        candidate=alone.candidate.model_copy(update={"metrics": alone.candidate.metrics | timed}),
        production=alone.production.model_copy(update={"metrics": alone.production.metrics | timed}),
    )
    run = dataclasses.replace(run, summary=run.summary.model_copy(update={"pareto": [both.candidate]}))
    assert card(cost.SECTION, dataclasses.replace(both, run=run)).status is Status.PASS
    assert card(cost.SECTION, case(run, None)).status is Status.WARN


def test_the_advice_for_an_experiment_is_that_of_the_task(run: Run) -> None:
    clicks, text = (
        card(experiment.SECTION, case(run, evidence(users=None))),
        card(experiment.SECTION, case(run, None, TEXT)),
    )
    assert "a click log with a user column" in clicks.reason
    assert "click" not in text.reason
    assert "the product's own logs" in text.reason


def test_the_gate_on_the_worst_slice_says_that_its_ends_are_of_different_ones(run: Run) -> None:
    gates = {"slices": {"metric": "worst_slice", "at_most": 0.05}, "cost": {"metric": "cost", "at_most": 2.0}}
    slices, cost = card(launch.SECTION, case(run, sliced(2000), **gates)).tables[0].rows
    assert "the largest over slices" in slices[1].note
    assert cost[1].note == ""


def test_values_are_shown_within_what_they_can_be(run: Run) -> None:
    row = card(quality.SECTION, case(run, evidence())).tables[0].rows[0]
    assert row[2].note.startswith("0.0000 NE to 2.8") or row[2].note.startswith("0.0000 to 2.8")


def test_the_gain_over_a_baseline_has_the_interval_of_the_change_turned_round(run: Run) -> None:
    rows = evidence()
    one = case(run, rows)
    assert one.change is not None
    points = [
        ModelPoint("live", "reference", 200.0, 0.9, fingerprint=THEIRS),
        ModelPoint("candidate 1", "candidate", 200.0, 0.8, fingerprint=OURS, rank=1),
    ]
    (found,) = compare(points, ROLES, rows)
    assert found.paired == (-one.change.high, -one.change.low)
    assert found.separated


@pytest.mark.parametrize(("seeds", "advice"), [(1, "hold"), (3, "ship to A/B")])
def test_a_gate_passes_where_its_interval_is_inside_its_bound_however_many_seeds_were_trained(
    run: Run, seeds: int, advice: str
) -> None:
    tested = case(run, sliced(20_000, seeds=seeds), quality={"metric": "quality", "at_most": 0.0})
    (result,) = tested.results
    assert result.observed is not None
    assert result.observed.high < 0
    assert result.outcome == "PASS"
    assert tested.verdict == advice
    said = card(launch.SECTION, tested)
    assert ("one training seed" in said.reason) == (seeds == 1)
    assert said.reason.startswith("the gate passed")
    assert ("one training seed" in json.dumps(said.as_json()["tables"][0])) == (seeds == 1)
