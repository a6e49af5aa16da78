from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from rankitect.contracts import Baseline, Proposal
from rankitect.errors import ConfigError, DiskError, RunFolderError
from rankitect.study.folder import RunFolder
from rankitect.study.ledger import Budget
from rankitect.study.outputs import Labels, OutputOptions, ProductionModels
from rankitect.study.plan import Hooks, Limits, StudyPlan, Subject
from rankitect.study.stopping import StopSignal
from rankitect.study.store import Store
from rankitect.study.study import Study, StudyOutcome
from rankitect.study.summary import read_summary
from tests.study.toys import Climber, Point, Quadratic, RandomPoints, downgrade, sql

CONFIG = {"space": {"target": "toys.Grid"}, "seed": 0}
REGISTRY = {"registry": "baselines", "left_out": "left_out"}
LABELS = Labels("grid", "none", "random", "python -m rankitect.search output_dir=here")


def run(path: Path, controller: Any = None, evaluator: Any = None, baselines: Any = (), **options: Any) -> StudyOutcome:
    """Run a study. Options are fields of StudyPlan, OutputOptions, ProductionModels and Hooks, and the runner."""

    def fields(kind: type, **defaults: Any) -> dict[str, Any]:
        return defaults | {f.name: options.pop(f.name) for f in dataclasses.fields(kind) if f.name in options}

    plan = StudyPlan(**fields(StudyPlan, objectives=["loss", "cost"], limits=Limits(batch=4)))
    registry = ProductionModels(**{new: options.pop(old) for old, new in REGISTRY.items() if old in options})
    outputs = OutputOptions(**fields(OutputOptions, labels=LABELS, registry=registry, tensorboard=False))
    hooks, runner = Hooks(**fields(Hooks)), options.pop("runner", None)
    assert not options
    with RunFolder(path, CONFIG) as folder:
        subject = Subject({"final": evaluator or Quadratic()}, Point.from_json)
        return Study(folder, subject, plan, outputs, hooks, runner).run(controller or RandomPoints(), baselines)


def stored(path: Path) -> list[Any]:
    with Store(path / "study.db", Point.from_json, readonly=True) as store:
        return store.trials


def result(path: Path) -> dict[str, Any]:
    """The summary without what is about the clock."""
    data = json.loads((path / "summary.json").read_text())
    del data["ledger"]["minutes"], data["ledger"]["seconds"]
    del data["files"], data["checksum"]  # of times as well
    for stage in data["ledger"]["stages"].values():
        del stage["seconds"]
    return data


def test_a_run_writes_its_folder(tmp_path: Path) -> None:
    outcome = run(tmp_path / "run", baselines=[Baseline("production", Point({"x": 7, "y": 2}))], tensorboard=True)
    assert outcome.ended == "finished"
    folder = tmp_path / "run"
    names = {"config.yaml", "study.db", "trials.csv", "summary.json", "tensorboard", "candidates", "state"}
    assert names <= {entry.name for entry in folder.iterdir()}
    summary = read_summary(folder)
    assert summary == outcome.summary
    assert [baseline.name for baseline in summary.baselines] == ["production"]
    assert [candidate.rank for candidate in summary.pareto] == list(range(1, len(summary.pareto) + 1))
    for candidate in summary.pareto:
        place = folder / "candidates" / f"{candidate.rank:02d}-{candidate.fingerprint[:8]}"
        assert Point.from_json((place / "architecture.json").read_text()).fingerprint == candidate.fingerprint
        x, y = candidate.architecture["choices"]["x"], candidate.architecture["choices"]["y"]
        assert (folder / candidate.artifacts["weights"]).read_bytes() == f"{x} {y}".encode()
    assert set(json.loads((folder / "summary.json").read_text())) == {
        "schema", "space", "task", "controller", "seed", "objectives", "baselines", "pareto", "ledger", "versions",
        "reproduce", "files", "checksum",
    }  # fmt: skip
    rows = list(csv.DictReader((folder / "trials.csv").open()))
    assert [int(row["number"]) for row in rows] == list(range(1, 14))
    assert float(rows[0]["loss.ci95_lo"]) == pytest.approx(float(rows[0]["loss"]) - 1)


def test_the_front_holds_exactly_what_nothing_beats(tmp_path: Path) -> None:
    run(tmp_path / "run", RandomPoints(total=30))
    measured = {
        trial.architecture.fingerprint: tuple(metric.value for metric in trial.measurement.metrics.values())
        for trial in stored(tmp_path / "run")
    }
    front = {
        name
        for name, a in measured.items()
        if not any(b != a and b[0] <= a[0] and b[1] <= a[1] for b in measured.values())
    }
    assert {candidate.fingerprint for candidate in read_summary(tmp_path / "run").pareto} == front


def test_artifacts_of_dominated_trials_are_dropped(tmp_path: Path) -> None:
    run(tmp_path / "run", RandomPoints(total=30))
    kept = {folder.name[-8:] for folder in (tmp_path / "run" / "trials").iterdir()}
    assert kept == {candidate.fingerprint[:8] for candidate in read_summary(tmp_path / "run").pareto}


def test_artifacts_that_somebody_deleted_are_missed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(tmp_path / "run", RandomPoints(total=5))
    (best, *_) = read_summary(tmp_path / "run").pareto
    shutil.rmtree(next((tmp_path / "run" / "trials").glob(f"*-{best.fingerprint[:8]}")))
    again = run(tmp_path / "run", RandomPoints(total=5)).summary.pareto[0]
    assert again.fingerprint == best.fingerprint
    assert "weights" not in again.artifacts
    assert f"weights of candidate 01-{best.fingerprint[:8]} is gone" in caplog.text


def test_nothing_is_measured_twice(tmp_path: Path) -> None:
    evaluator = Quadratic()
    run(tmp_path / "run", RandomPoints(total=60), evaluator)
    assert len(evaluator.measured) == len(set(evaluator.measured)) <= 24
    trials = stored(tmp_path / "run")
    assert len(trials) == 60
    for trial in trials:
        if trial.duplicate_of is not None:
            assert trial.measurement == trials[trial.duplicate_of - 1].measurement
            assert trial.spent.train_tokens == 0
    ledger = read_summary(tmp_path / "run").ledger
    assert ledger.trials["duplicates"] == 60 - len(evaluator.measured)
    assert ledger.train_tokens == 3000 + 100 * len(evaluator.measured)


def test_seeds_are_different_measurements_and_are_merged(tmp_path: Path) -> None:
    class Seeds(RandomPoints):
        def ask(self, n: int) -> list[Proposal]:
            self.proposed += 1
            point = Point({"x": 3, "y": 0})
            return [Proposal(point, seed=seed) for seed in (0, 1, 2)] if self.proposed == 1 else []

    summary = run(tmp_path / "run", Seeds()).summary
    loss = summary.pareto[0].metrics["loss"]
    values = [trial.measurement.metrics["loss"].value for trial in stored(tmp_path / "run")]
    assert loss.n == 3
    assert loss.value == pytest.approx(math.fsum(values) / 3)
    assert loss.ci95 is not None
    assert loss.ci95[0] < loss.value < loss.ci95[1]


def test_a_baseline_that_cannot_be_measured_is_named_with_its_cause(tmp_path: Path) -> None:
    known = [Baseline("old", Point({"x": 2, "y": 0})), Baseline("live", Point({"x": 7, "y": 2}))]
    run(tmp_path / "run", evaluator=Quadratic(misbehave={2: "raise"}), baselines=known)
    summary = read_summary(tmp_path / "run")
    assert [baseline.name for baseline in summary.baselines] == ["live"]
    assert list(summary.left_out) == ["old"]
    assert "the model exploded" in summary.left_out["old"]


@pytest.mark.parametrize(("trouble", "cause"), [("raise", "RuntimeError: the model exploded"), ("nan", "loss = nan")])
def test_a_failed_trial_does_not_end_the_study(tmp_path: Path, trouble: str, cause: str) -> None:
    outcome = run(tmp_path / "run", RandomPoints(total=20), Quadratic(misbehave={2: trouble, 5: trouble}))
    failed = [trial for trial in stored(tmp_path / "run") if trial.state == "FAILED"]
    assert outcome.ended == "finished"
    assert failed
    assert all(trial.architecture.choices["x"] in (2, 5) and cause in trial.cause for trial in failed)
    assert len(outcome.summary.pareto) >= 1


def test_a_failed_trial_is_charged_and_explained(tmp_path: Path) -> None:
    run(tmp_path / "run", RandomPoints(total=20), Quadratic(misbehave={2: "raise"}))
    with Store(tmp_path / "run" / "study.db", Point.from_json, readonly=True) as store:
        failed = next(trial for trial in store.trials if trial.state == "FAILED")
        assert failed.spent.train_tokens == 5
        assert "in measure" in (
            store.connection.execute("SELECT traceback FROM trials WHERE number = ?", (failed.number,)).fetchone()[0]
            or ""
        )


def test_a_run_in_which_everything_fails_ends(tmp_path: Path) -> None:
    evaluator = Quadratic(misbehave=dict.fromkeys(range(10), "raise"))
    outcome = run(tmp_path / "run", RandomPoints(total=1000, size=10), evaluator, limits=Limits(batch=4, failures=6))
    assert outcome.ended == "failures"
    assert len(evaluator.measured) == 6
    assert outcome.summary.pareto == []


def test_a_controller_without_new_ideas_ends(tmp_path: Path) -> None:
    outcome = run(tmp_path / "run", RandomPoints(total=10**6, size=2), limits=Limits(batch=4, duplicates=30))
    assert outcome.ended == "exhausted"


@pytest.mark.parametrize("name", ["trials", "tokens"])
def test_budget_ends_the_search_and_a_larger_one_continues_it(tmp_path: Path, name: str) -> None:
    small, large = {"trials": (5, 9), "tokens": (3000 + 5 * 110, 3000 + 9 * 110)}[name]
    controller = RandomPoints(total=100, size=50)
    outcome = run(tmp_path / "run", controller, budget=Budget(**{name: small}), limits=Limits(batch=2))
    assert outcome.ended == f"budget.{name}"
    assert outcome.summary.ledger.trials["done"] == 5
    again = run(tmp_path / "run", RandomPoints(total=100, size=50), budget=Budget(**{name: large}))
    assert again.summary.ledger.trials["done"] == 9


def test_minutes_count_over_sessions(tmp_path: Path) -> None:
    budget = Budget(minutes=0.05 / 60)
    assert run(tmp_path / "run", RandomPoints(total=10**6, size=10**6), budget=budget).ended == "budget.minutes"
    before = len(stored(tmp_path / "run"))
    assert run(tmp_path / "run", RandomPoints(total=10**6, size=10**6), budget=budget).ended == "budget.minutes"
    assert len(stored(tmp_path / "run")) == before


def test_baselines_are_not_held_against_the_search(tmp_path: Path) -> None:
    baselines = [Baseline("a", Point({"x": 0, "y": 0})), Baseline("b", Point({"x": 1, "y": 0}))]
    summary = run(tmp_path / "run", RandomPoints(total=5, size=10**6), baselines=baselines).summary
    assert summary.ledger.train_tokens == 3000 + 500
    assert summary.ledger.stages["baselines"].train_tokens == 200


@pytest.mark.parametrize("method", [RandomPoints, Climber])
@pytest.mark.parametrize("stop_after", [0, 1, 5, 6, 7])
def test_a_stopped_run_goes_on_as_if_undisturbed(tmp_path: Path, method: type[RandomPoints], stop_after: int) -> None:
    run(tmp_path / "whole", method(seed=4))

    class Stopping(Quadratic):
        def measure(self, architecture: Point, context: Any) -> Any:
            if len(self.measured) == stop_after:
                stop.request()
                context.check()
            return super().measure(architecture, context)

    stop = StopSignal()
    assert run(tmp_path / "cut", method(seed=4), Stopping(), stop=stop).ended == "interrupted"
    assert len([trial for trial in stored(tmp_path / "cut") if trial.finished]) >= stop_after
    assert run(tmp_path / "cut", method(seed=4)).ended == "finished"
    assert result(tmp_path / "cut") == result(tmp_path / "whole")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("statement", range(1, 57, 4))
def test_a_kill_at_any_statement_changes_nothing(tmp_path: Path, statement: int) -> None:
    """SIGKILL between any two statements that the store sends to SQLite, then the same command again."""

    class Killed(Climber):
        def prepare(self, session: Any) -> None:
            left = iter(range(statement))

            def trace(text: str) -> None:
                if next(left, None) is None:
                    os.kill(os.getpid(), signal.SIGKILL)

            session._store.connection.set_trace_callback(trace)
            super().prepare(session)

    run(tmp_path / "whole", Climber(total=4), limits=Limits(batch=2))
    child = os.fork()
    if child == 0:
        try:
            run(tmp_path / "cut", Killed(total=4), limits=Limits(batch=2))
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    kept = [trial for trial in stored(tmp_path / "cut") if trial.finished]
    run(tmp_path / "cut", Climber(total=4), limits=Limits(batch=2))
    assert result(tmp_path / "cut") == result(tmp_path / "whole")
    assert stored(tmp_path / "cut")[: len(kept)] == kept


def test_a_finished_run_can_be_repeated_without_measuring(tmp_path: Path) -> None:
    run(tmp_path / "run")
    before = result(tmp_path / "run")
    evaluator = Quadratic()
    run(tmp_path / "run", evaluator=evaluator)
    assert evaluator.measured == []
    assert result(tmp_path / "run") == before


def test_prepare_is_charged_once(tmp_path: Path) -> None:
    class Crashing(RandomPoints):
        def prepare(self, session: Any) -> None:
            super().prepare(session)
            (session.state_dir / "chunks.json").write_text("1")  # as if killed before the checkpoint was written
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        run(tmp_path / "run", Crashing())
    assert run(tmp_path / "run").summary.ledger.stages["prepare"].train_tokens == 3000


def test_an_evaluator_that_fills_the_disk_stops_the_run_with_advice(tmp_path: Path) -> None:
    with pytest.raises(DiskError) as error:
        run(tmp_path / "run", RandomPoints(total=40), Quadratic(misbehave={6: "full"}))
    finished = sum(trial.finished for trial in stored(tmp_path / "run"))
    assert f"Kept: {finished} finished trials" in str(error.value)
    assert LABELS.reproduce in str(error.value)
    run(tmp_path / "run", RandomPoints(total=40))
    run(tmp_path / "whole", RandomPoints(total=40))
    assert result(tmp_path / "run") == result(tmp_path / "whole")


def test_a_database_that_cannot_grow_loses_nothing(tmp_path: Path) -> None:
    run(tmp_path / "run", RandomPoints(total=4))

    class Full(RandomPoints):
        def prepare(self, session: Any) -> None:
            super().prepare(session)
            pages = session._store.connection.execute("PRAGMA page_count").fetchone()[0]
            session._store.connection.execute(f"PRAGMA max_page_count = {pages + 1}")

    with pytest.raises(DiskError, match="No space is left on the disk"):
        run(tmp_path / "run", Full(total=60, size=10**6))
    assert sum(trial.ok for trial in stored(tmp_path / "run")) >= 4
    assert run(tmp_path / "run", RandomPoints(total=60, size=10**6), limits=Limits(batch=20)).ended == "finished"


def test_a_killed_trial_is_given_up_after_some_attempts(tmp_path: Path) -> None:
    run(tmp_path / "run", RandomPoints(total=1))
    with Store(tmp_path / "run" / "study.db", Point.from_json) as store:
        [trial] = store.add_batch(2, 4, [Proposal(Point({"x": 9, "y": 9}))], 0)
        for _ in range(3):
            store.start(trial.number)
    run(tmp_path / "run", RandomPoints(total=1), limits=Limits(batch=4, attempts=3))
    assert "3 times" in (stored(tmp_path / "run")[1].cause or "")


def test_an_objective_that_is_not_measured_is_refused(tmp_path: Path) -> None:
    with (
        RunFolder(tmp_path / "run", CONFIG) as folder,
        pytest.raises(ConfigError, match=r"does not measure\. It measures: loss, cost"),
    ):
        Study(folder, Subject({"final": Quadratic()}, Point.from_json), StudyPlan(["speed"]), OutputOptions(LABELS))


def test_a_study_of_format_1_is_read_and_goes_on(tmp_path: Path) -> None:
    run(tmp_path / "run", budget=Budget(trials=2))
    path = tmp_path / "run" / "study.db"
    later = ("train_examples", "eval_examples", "teacher_tokens", "generated_tokens", "train_flops")
    before = stored(tmp_path / "run")
    downgrade(path)
    sql(path, *(f"ALTER TABLE charges DROP COLUMN {column}" for column in later), "UPDATE meta SET value = '1'")
    with Store(path, Point.from_json, readonly=True) as store:
        assert store.trials == before
        assert store.charges.totals()["trials"].train_tokens == 200
    ended = run(tmp_path / "run", budget=Budget(trials=4))
    assert ended.summary.ledger.stages["trials"].train_tokens == 400
    with Store(path, Point.from_json, readonly=True) as store:
        columns = store.connection.execute("PRAGMA table_info(charges)").fetchall()
    assert {column[1] for column in columns} >= set(later)


def test_a_study_of_another_format_is_refused(tmp_path: Path) -> None:
    run(tmp_path / "run")
    with Store(tmp_path / "run" / "study.db", Point.from_json) as store:
        store.connection.execute("UPDATE meta SET value = '99'")
    with pytest.raises(RunFolderError, match="study format 99, this version reads the formats 1, 2 and 3"):
        run(tmp_path / "run")


def test_a_damaged_study_is_refused(tmp_path: Path) -> None:
    run(tmp_path / "run")
    (tmp_path / "run" / "study.db").write_bytes(b"not a database" * 500)
    with pytest.raises(RunFolderError, match="not a readable study"):
        run(tmp_path / "run")


def test_no_temporary_files_are_left(tmp_path: Path) -> None:
    run(tmp_path / "run")
    left = [name for _, _, files in os.walk(tmp_path) for name in files if name.endswith((".tmp", ".part"))]
    assert left == []
