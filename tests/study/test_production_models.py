"""What a study does for the models that it compares with: they are timed, and the live one must be measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rankitect.contracts import Baseline, Measurement, TrialContext
from rankitect.errors import BaselineError, MeasureError
from rankitect.study.store import Store
from rankitect.study.summary import COMPARED, read_summary
from tests.study.test_study import run
from tests.study.toys import Point, Quadratic

KNOWN = [Baseline("old", Point({"x": 2, "y": 0})), Baseline("logged", Point({"x": 7, "y": 2}), logged=True)]


def test_the_programs_of_baselines_are_written_once(tmp_path: Path) -> None:
    exported: list[str] = []

    def export(trial: Any, folder: Path) -> dict[str, str]:
        exported.append(trial.baseline)
        (folder / "latency.json").write_text("{}")
        return {"latency": "latency.json"}

    for _ in range(2):
        run(tmp_path / "run", baselines=KNOWN, export_baseline=export)
    assert exported == ["old", "logged"]
    summary = read_summary(tmp_path / "run")
    assert sorted(p.name for p in (tmp_path / "run" / COMPARED).iterdir()) == sorted(
        b.fingerprint[:8] for b in summary.baselines
    )
    assert all((tmp_path / "run" / b.folder / "latency.json").is_file() for b in summary.baselines)
    assert [b.logged for b in summary.baselines] == [False, True]


def test_a_registered_model_that_fails_stops_the_search_before_it_spends_anything(tmp_path: Path) -> None:
    live = Baseline("live v1", Point({"x": 5, "y": 0}), {"version": 1, "added": "2026-01-01", "live": True})
    evaluator = Quadratic(misbehave={5: "raise"})
    for _ in range(2):
        with pytest.raises(BaselineError, match=r"live v1 could not be measured: .*exploded.* retire live\."):
            run(tmp_path / "run", evaluator=evaluator, baselines=KNOWN, registry=lambda: [live])
    assert len(evaluator.measured) == 4, "the baselines, the live one twice, and no trial of the search"
    run(tmp_path / "run", evaluator=evaluator, baselines=KNOWN, registry=list)
    assert read_summary(tmp_path / "run").pareto


def test_a_measure_that_fails_on_the_reference_stops_the_search_and_the_next_command_asks_again(tmp_path: Path) -> None:
    whole = Baseline("whole", Point({"x": 5, "y": 0}), reference=True)
    evaluator = Quadratic(misbehave=dict.fromkeys(range(10), "measure"))
    for times in (1, 2):
        with pytest.raises(
            MeasureError, match=r"reference model \(whole\) .*: measures\.mine failed: TypeError: no words"
        ):
            run(tmp_path / "run", evaluator=evaluator, baselines=[whole, *KNOWN])
        assert len(evaluator.measured) == times, "nothing is measured after it"
    run(tmp_path / "run", baselines=[whole, *KNOWN])
    mended = read_summary(tmp_path / "run")
    assert {b.name for b in mended.baselines} == {"whole", "old", "logged"}
    assert not mended.left_out


def test_a_registered_model_that_failed_is_tried_again(tmp_path: Path) -> None:
    live = Baseline("live v1", Point({"x": 5, "y": 0}), {"version": 1, "added": "2026-01-01", "live": True})
    for failures in (1, 2):
        with pytest.raises(BaselineError, match="Repeat the command once the cause is gone"):
            run(tmp_path / "run", evaluator=Quadratic(misbehave={5: "raise"}), registry=lambda: [live])
        with Store(tmp_path / "run" / "study.db", Point.from_json, readonly=True) as store:
            keys = [key for (key,) in store.connection.execute("SELECT key FROM charges ORDER BY key")]
            assert sum(key.endswith("trial:1") for key in keys) == failures, "no failure is forgotten in the ledger"
    run(tmp_path / "run", registry=lambda: [live])
    run(tmp_path / "fresh", registry=lambda: [live])
    mine, fresh = (read_summary(tmp_path / name) for name in ("run", "fresh"))
    assert [b.metrics for b in mine.baselines] == [b.metrics for b in fresh.baselines]
    assert [c.fingerprint for c in mine.pareto] == [c.fingerprint for c in fresh.pareto]
    assert mine.left_out == {}


class Costless(Quadratic):
    """Knows no cost of one model, and says so, or does not."""

    says: bool = True

    def measure(self, architecture: Point, context: TrialContext) -> Measurement:
        measurement = super().measure(architecture, context)
        if architecture.choices["x"] != 7:
            return measurement
        notes = {"not_known": ["cost"]} if self.says else {}
        return Measurement({"loss": measurement.metrics["loss"]}, measurement.spent, notes=notes)


@pytest.mark.parametrize("says", [True, False])
def test_a_cost_that_nobody_can_know_is_stated_as_such(tmp_path: Path, says: bool) -> None:
    evaluator = Costless()
    evaluator.says = says
    run(tmp_path / "run", evaluator=evaluator, baselines=KNOWN)
    summary = read_summary(tmp_path / "run")
    assert ("logged" in [b.name for b in summary.baselines]) == says
    assert ("logged" in summary.left_out) != says
