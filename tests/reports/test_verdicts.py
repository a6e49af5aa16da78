"""What a verdict rests on: the model that it compares with, gates on every cost, and data that are in doubt."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from rankitect.config.compose import configs_folder
from rankitect.production.doubts import Doubt
from rankitect.production.evidence import Evidence
from rankitect.production.gates import Outcome, Verdict
from rankitect.reports.cards import Status
from rankitect.reports.case import Case, case_of
from rankitect.reports.comparison import compare, points_of
from rankitect.reports.material import Material, material_of
from rankitect.reports.rivals import Standing
from rankitect.reports.roles import roles_of
from rankitect.reports.run import Run
from rankitect.reports.sections import calibration, cost, launch, quality, verdict, warnings
from rankitect.study.summary import MetricSummary, RegisteredSummary, Summary
from tests.production.rows import OURS, evidence
from tests.reports.test_latency import timing
from tests.reports.test_production_cards import calibrated, card, case

ROWS, NE, VALIDATION = "c" * 64, "normalized_entropy", "validation_normalized_entropy"
DEFAULTS = yaml.safe_load((configs_folder() / "report" / "ranking.yaml").read_text())["gates"]


def metric(value: float, role: str = "quality", **more: Any) -> dict[str, Any]:
    return {"value": value, "unit": "NE" if role == "quality" else "FLOP", "role": role, **more}


def ranking_run(*baselines: tuple[str, float, float], gates: dict[str, Any] | None = None, **marks: Any) -> Run:
    """A run with one candidate, and baselines by name, test and validation normalized entropy."""
    entries = []
    for name, test, validation in baselines:
        metrics = {NE: metric(test), VALIDATION: metric(validation), "flops": metric(100, "cost")}
        mark = marks.get(name.replace(" ", "_"), {})
        entries.append(
            {"name": name, "fingerprint": hashlib.sha256(name.encode()).hexdigest(), "metrics": metrics} | mark
        )
    candidate = {
        "rank": 1, "fingerprint": OURS, "architecture": {"choices": {}}, "artifacts": {},
        "metrics": {NE: metric(0.8), VALIDATION: metric(0.8), "flops": metric(90, "cost")},
    }  # fmt: skip
    objectives = [
        {"name": VALIDATION, "unit": "NE", "direction": "min", "role": "quality", "held_out": NE},
        {"name": "flops", "unit": "FLOP", "direction": "min", "role": "cost"},
    ]
    summary = {
        "space": "ranking_blocks", "task": "movielens", "controller": "random", "seed": 0, "objectives": objectives,
        "baselines": entries, "pareto": [candidate], "ledger": {}, "versions": {}, "reproduce": "",
    }  # fmt: skip
    config = json.dumps({"report": {"gates": gates or {}}})
    return Run(Path("/nowhere"), Summary.model_validate(summary), (), "", config)


def case_in(run: Run) -> Case:
    roles = roles_of(run)
    assert roles is not None
    found = case_of(run, roles, compare(points_of(run, roles), roles))
    assert isinstance(found, Case)
    return found


LIVE = {"registered": {"version": 1, "added": "2026-01-01", "live": True}}


def test_the_default_production_model_is_the_best_baseline_by_validation() -> None:
    # dcnv2 is better on the test rows; dlrm was named by a digit at the end of its rival's name.
    for run in (
        ranking_run(("dlrm", 0.9, 0.9), ("dcnv2", 0.82, 0.81)),
        ranking_run(("dlrm", 0.8, 0.9), ("dcnv2", 0.82, 0.81)),
    ):
        found = case_in(run)
        assert (found.production.name, found.standing) == ("dcnv2", Standing.BEST)
        assert "dcnv2, the best baseline by validation" in card(launch.SECTION, found).finding
        assert verdict.SECTION.card(material_of(run)).finding.count("dcnv2") > 0  # type: ignore[union-attr]


def test_the_headline_states_the_gain_over_the_live_model_and_over_the_best_baseline() -> None:
    run = ranking_run(("dlrm v1", 0.9, 0.9), ("dcnv2", 0.79, 0.79), dlrm_v1=LIVE, gates={"cost": DEFAULTS["cost"]})
    said = card(launch.SECTION, case_in(run)).finding
    assert "against dlrm v1" in said
    assert "is 11.1% lower (better) than that of dlrm v1, the registered live model" in said
    assert "and is 1.3% higher (worse) than that of dcnv2, the best baseline by validation" in said
    named = dataclasses.replace(
        run, config=json.dumps({"report": {"baseline": "dcnv2", "gates": {"cost": DEFAULTS["cost"]}}})
    )
    said = card(launch.SECTION, case_in(named)).finding
    assert "dcnv2, named as the production model and the best baseline by validation" in said
    assert "than that of dlrm v1, the registered live model" in said


# --- costs ------------------------------------------------------------------------------------------------------------
def costly(run: Run, ours: dict[str, float], theirs: dict[str, float], rows: Evidence | None = None) -> Case:
    """A comparison in which both models have these costs, by the gates of every ranking search."""
    one = case(run, rows if rows is not None else evidence(), **DEFAULTS)
    sides = [
        {NE: side.metrics[NE]}
        | {name: MetricSummary(value=value, unit="", role="cost") for name, value in costs.items()}
        for side, costs in ((one.candidate, ours), (one.production, theirs))
    ]
    candidate, production = (
        side.model_copy(update={"metrics": metrics})
        for side, metrics in zip((one.candidate, one.production), sides, strict=True)
    )
    return dataclasses.replace(one, candidate=candidate, production=production)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return dataclasses.replace(ranking_run(), folder=tmp_path)


def outcomes(found: Case) -> dict[str, Outcome]:
    return {result.name: result.outcome for result in found.results}


def test_bytes_and_rows_of_tables_have_gates_by_default(run: Run) -> None:
    theirs = {"flops": 1000.0, "table_bytes": 1e6, "table_rows": 1e4}
    found = costly(run, {"flops": 533.0, "table_bytes": 4.25e6, "table_rows": 8e4}, theirs)
    assert outcomes(found)["cost"] is Outcome.PASS
    assert {outcomes(found)[name] for name in ("bytes", "rows")} == {Outcome.FAIL}
    assert found.verdict is Verdict.REJECT
    assert card(cost.SECTION, found).status is Status.FAIL, "no PASS beside a cost that failed"
    equal = costly(run, {**theirs, "flops": 900.0}, theirs)
    assert {outcomes(equal)[name] for name in ("cost", "bytes", "rows")} == {Outcome.PASS}
    assert outcomes(equal)["latency"] is Outcome.NA
    assert "latency, program: does not apply" in card(launch.SECTION, equal).reason


def write_latency(run: Run, folder: str, ms: float, trusted: bool = True) -> None:
    place = run.folder / folder
    place.mkdir(parents=True, exist_ok=True)
    record = {"latencies": {f"batch_{n}_ms": {"measured": timing(n * ms), "trusted": trusted} for n in (1, 64)}}
    (place / "latency.json").write_text(json.dumps(record))


def test_the_latencies_of_both_models_are_compared_where_they_are_measured(run: Run) -> None:
    costs = {"flops": 1000.0, "table_bytes": 1e6, "table_rows": 1e4}
    found = costly(run, costs, costs)
    write_latency(run, found.candidate.folder, 2.0)
    assert outcomes(found)["latency"] is Outcome.MISSING
    assert "that of live is not known" in str(card(launch.SECTION, found).tables[0].rows)
    write_latency(run, found.production.folder, 1.0)
    slower = costly(run, costs, costs)
    assert outcomes(slower)["latency"] is Outcome.FAIL
    shown = card(cost.SECTION, slower)
    assert "batch 1 latency, batch 64 latency of both models" in shown.reason
    assert [row[0].text for row in shown.tables[1].rows] == ["Candidate 1", "live"]
    write_latency(run, found.candidate.folder, 1.02)
    assert outcomes(costly(run, costs, costs))["latency"] is Outcome.PASS
    write_latency(run, found.candidate.folder, 1.02, trusted=False)
    assert outcomes(costly(run, costs, costs))["latency"] is Outcome.OPEN


def test_costs_of_logged_scores_are_not_known_and_neither_pass_nor_fail(run: Run) -> None:
    found = costly(run, {"flops": 1000.0, "table_bytes": 1e6, "table_rows": 1e4}, {})
    logged = dataclasses.replace(found, production=found.production.model_copy(update={"logged": True}))
    assert {outcomes(logged)[name] for name in ("cost", "bytes", "rows")} == {Outcome.MISSING}
    said = card(launch.SECTION, logged)
    assert "not known: live has no costs" in str(said.tables[0].rows)
    assert "not known: cost, bytes, rows" in said.reason
    assert said.finding.startswith("Hold")
    assert card(cost.SECTION, logged).reason == "what live costs is not known"


# --- doubts -----------------------------------------------------------------------------------------------------------
def doubted(run: Run, *doubts: Doubt) -> Case:
    rows = dataclasses.replace(evidence(20_000, better=0.9), facts={"doubts": [d.to_json() for d in doubts]})
    return costly(run, {"flops": 900.0}, {"flops": 1000.0}, rows)


def test_nothing_about_quality_passes_beside_a_severe_doubt(run: Run) -> None:
    sure = doubted(run)
    assert outcomes(sure)["quality"] is Outcome.PASS
    assert card(quality.SECTION, sure).status is Status.PASS
    assert card(warnings.SECTION, sure).status is Status.PASS
    for doubt in (
        Doubt("leak", "price", True, {"auc": 1.0}),
        Doubt("unknown", "item", True, {"share": 0.58, "validation": 0.5}),
    ):
        found = doubted(run, doubt)
        shown = card(warnings.SECTION, found)
        assert shown.status is Status.FAIL
        assert doubt.feature in shown.finding
        assert outcomes(found)["cost"] is Outcome.PASS, "a cost is not in doubt"
        assert outcomes(found)["quality"] is outcomes(found)["calibration"] is Outcome.OPEN
        assert found.verdict is Verdict.HOLD
        for section in (quality.SECTION, calibration.SECTION, launch.SECTION):
            assert card(section, found).status is not Status.PASS
    look = doubted(run, Doubt("constant", "city", False))
    assert card(warnings.SECTION, look).status is Status.WARN
    assert outcomes(look)["quality"] is Outcome.PASS


def test_results_raise_doubts_of_their_own(run: Run) -> None:
    def kinds(found: Case) -> list[str]:
        return [doubt.kind for doubt in found.doubts]

    worse = costly(run, {}, {})
    above = {NE: MetricSummary(value=1.2, unit="NE", role="quality")}
    ours, theirs = (side.model_copy(update={"metrics": above}) for side in (worse.candidate, worse.production))
    assert kinds(dataclasses.replace(worse, candidate=ours, production=theirs)) == ["base_rate"]
    auc = {
        NE: MetricSummary(value=0.1, unit="NE", role="quality"),
        "auc": MetricSummary(value=1.0, unit="AUC", role="quality"),
    }
    perfect = dataclasses.replace(worse, candidate=worse.candidate.model_copy(update={"metrics": auc}))
    assert kinds(perfect) == ["leak_together"]
    few = dataclasses.replace(worse, evidence=evidence(150, users=None))
    assert kinds(few) == ["few_clicks"]


# --- two seeds --------------------------------------------------------------------------------------------------------
def test_an_interval_from_two_seeds_is_not_shown(run: Run) -> None:
    one = calibrated(20_000, 0.0)
    shifted = {
        name: np.stack([values[0], calibrated(20_000, 0.7).losses[name][0]]) for name, values in one.losses.items()
    }
    found = case(run, dataclasses.replace(one, losses=shifted), **DEFAULTS)
    shown = card(calibration.SECTION, found)
    assert "two seeds or users give no interval" in shown.finding
    assert shown.tables[0].rows[0][1].note == "two seeds or users: no interval"
    assert shown.status is Status.WARN
    row = next(row for row in card(launch.SECTION, found).tables[0].rows if row[0].text == "calibration")
    assert row[1].note == "two training seeds: no interval"
    assert "confirm.seeds=3" in row[2].note
    two = MetricSummary(value=0.8, unit="NE", role="quality", n=2, ci95=(0.5, 1.66))
    assert two.interval is None
    assert two.model_copy(update={"n": 3}).interval == (0.5, 1.66)


def test_registered_models_that_nobody_could_measure_leave_the_live_one_unknown() -> None:
    run = ranking_run(("dlrm", 0.9, 0.9), gates={"cost": DEFAULTS["cost"]})
    lost = RegisteredSummary(version=1, added="2026-01-01", live=True)
    entry = run.summary.baselines[0].model_copy(
        update={"name": "live v1", "metrics": {}, "registered": lost, "fingerprint": ROWS}
    )
    summary = run.summary.model_copy(update={"baselines": [*run.summary.baselines, entry]})
    found = case_in(dataclasses.replace(run, summary=summary))
    assert found.production.name == "dlrm"
    assert found.verdict is Verdict.HOLD
    assert "but live v1 could not be compared with" in card(launch.SECTION, found).reason
    assert "cannot be compared with that of live v1" in card(launch.SECTION, found).finding


def test_a_report_of_no_comparison_says_one_and_the_same_reason_everywhere() -> None:
    run = ranking_run()
    report = material_of(run)
    assert isinstance(report, Material)
    assert report.common.incomparable == "unmeasured"
    assert verdict.SECTION.card(report).reason == "the task names no baseline."  # type: ignore[union-attr]
    unwanted = dataclasses.replace(run, config="runner: {baselines: false}")
    assert material_of(unwanted).common.incomparable == "unwanted"
