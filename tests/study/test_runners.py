"""Runners: what is found does not depend on where trials are measured, nor on what happens to workers."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rankitect
from rankitect.contracts import Job, JobResult, Proposal, TrialContext
from rankitect.errors import ConfigError
from rankitect.study.plan import Limits
from rankitect.study.runner import measure
from rankitect.study.store import Store
from tests.study.test_study import result, run, stored
from tests.study.toys import Freely, Point, Quadratic

CONFIGS = Path(__file__).parent / "configs"
TOY = [
    "space=grid", "task=none", "controller=freely", "evaluator=quadratic", "allowed_packages=[rankitect,tests]",
    "report.page=false", "report.tensorboard=false", "runner.threads=1",
]  # fmt: skip


class Shuffled:
    """Measures in this process, several at a time as it seems, and gives back any of them first."""

    workers = 3

    def __init__(self, path: Path, seed: int) -> None:
        self.path, self.random, self.evaluator = path, random.Random(seed), Quadratic()
        self.jobs: list[Job] = []
        self.most = 0

    def start(self, shared: dict[str, bytes]) -> None:
        self.shared = shared

    def submit(self, job: Job) -> None:
        self.jobs.append(job)
        self.most = max(self.most, len(self.jobs))

    def wait(self) -> list[JobResult]:
        job = self.jobs.pop(self.random.randrange(len(self.jobs)))
        return [measure(self.evaluator, job, TrialContext(self.path, job.folder, job.seed))]

    def cancel(self) -> None:
        self.jobs.clear()

    def close(self) -> None:
        pass


def outcome(path: Path) -> Any:
    """What was found, without what is about clocks and processes."""
    data = result(path)
    data.pop("reproduce", None)
    return {k: data[k] for k in ("pareto", "baselines", "objectives")} | {"trials": data["ledger"]["trials"]}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10**6), st.integers(0, 4))
def test_the_order_in_which_trials_end_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, seed: int, ahead: int
) -> None:
    one, other = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("other")
    limits = Limits(batch=2, ahead=ahead)
    run(one, Freely(total=20), limits=limits)
    runner = Shuffled(other, seed)
    controller = Freely(total=20)
    run(other, controller, limits=limits, runner=runner)
    assert outcome(one) == outcome(other)
    assert [t.number for t in controller.told] == sorted(t.number for t in stored(other))
    assert runner.most == min(3, 2 * (ahead + 1))


class Losing(Shuffled):
    """Loses the first worker of every third trial."""

    def wait(self) -> list[JobResult]:
        job = self.jobs.pop(self.random.randrange(len(self.jobs)))
        if job.number % 3 == 0 and job.attempt == 1:
            return [JobResult(job.number, None, "the process that measured it ended", lost=True)]
        self.jobs.append(job)
        return super().wait()


def test_which_of_equal_trials_is_measured_does_not_depend_on_lost_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rankitect.study.dispatch._BACK_OFF", (0.1,))
    found = []
    for name, kind in (("kept", Shuffled), ("lost", Losing)):
        run(tmp_path / name, Freely(total=40, size=3), limits=Limits(batch=2, ahead=2), runner=kind(tmp_path / name, 0))
        found.append([(t.number, t.state, t.duplicate_of) for t in stored(tmp_path / name)])
    assert found[0] == found[1]
    assert any(of is not None for _, _, of in found[0])


def test_a_controller_that_cannot_be_asked_ahead_is_told_first(tmp_path: Path) -> None:
    from tests.study.toys import RandomPoints

    runner = Shuffled(tmp_path, 0)
    run(tmp_path, RandomPoints(), limits=Limits(batch=1, ahead=5), runner=runner)
    assert runner.most == 1


def test_a_limit_of_trials_is_kept_by_workers_side_by_side(tmp_path: Path) -> None:
    from rankitect.study.ledger import Budget

    ended = run(tmp_path, Freely(total=50, size=50), limits=Limits(ahead=4), runner=Shuffled(tmp_path, 1),
                budget=Budget(trials=7))  # fmt: skip
    assert ended.ended == "budget.trials"
    assert ended.summary.ledger.trials["done"] == 7
    assert ended.summary.ledger.trials["waiting"] == 0


class Watching(Freely):
    """Proposes by how much it was told, so that being told too much on resume would show."""

    def ask(self, n: int) -> list[Any]:
        n = min(n, self.total - self.proposed)
        made = [Proposal(Point({"x": len(self.told), "y": self.proposed + i})) for i in range(n)]
        self.proposed += n
        return made

    def reopen(self, trials: list[Any]) -> None:
        self.proposed += len(trials)

    def recover(self, trials: list[Any]) -> None:
        self.proposed += len(trials)
        self.told.extend(trials)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10**6), st.integers(0, 3), st.integers(1, 18))
def test_a_resumed_run_asks_with_what_an_undisturbed_one_knew(
    tmp_path_factory: pytest.TempPathFactory, seed: int, ahead: int, stop_after: int
) -> None:
    calm, stopped = tmp_path_factory.mktemp("calm"), tmp_path_factory.mktemp("stopped")
    limits = Limits(batch=1, ahead=ahead)
    run(calm, Watching(total=20), limits=limits)
    first = Shuffled(stopped, seed)

    def stop() -> bool:
        return len(first.evaluator.measured) >= stop_after

    run(stopped, Watching(total=20), limits=limits, runner=first, stop=stop)
    run(stopped, Watching(total=20), limits=limits, runner=Shuffled(stopped, seed + 1))
    assert [t.architecture.fingerprint for t in stored(stopped)] == [t.architecture.fingerprint for t in stored(calm)]
    assert {t.attempts for t in stored(stopped)} == {1}, "a polite stop is no attempt"


def test_trials_beyond_the_budget_are_not_measured_with_the_confirmation(tmp_path: Path) -> None:
    from rankitect.study.confirming import Confirmation
    from rankitect.study.ledger import Budget

    ended = run(tmp_path, Freely(total=50, size=50), limits=Limits(batch=4, ahead=2), runner=Shuffled(tmp_path, 1),
                budget=Budget(tokens=3500), confirmation=Confirmation(seeds=2, candidates=2))  # fmt: skip
    assert ended.ended == "budget.tokens"
    searched = [t for t in stored(tmp_path) if t.batch > 0]
    assert any(t.state == "WAITING" for t in searched), "the batch that the budget cut is still there for a larger one"
    assert sum(t.ok for t in searched if not t.duplicate_of) < 12
    assert all(t.ok for t in stored(tmp_path) if t.batch < 0)


def search(path: Path, *more: str) -> Any:
    return rankitect.search([*TOY, f"output_dir={path}", *more], config_dir=CONFIGS, quiet=True)


def test_a_pool_finds_what_one_process_finds(tmp_path: Path) -> None:
    search(tmp_path / "one", "runner.ahead=2")
    search(tmp_path / "pool", "runner.ahead=2", "runner.workers=2")
    assert outcome(tmp_path / "one") == outcome(tmp_path / "pool")
    first = json.loads((tmp_path / "pool" / "summary.json").read_text())["pareto"][0]
    assert (tmp_path / "pool" / first["artifacts"]["weights"]).read_bytes()


def test_a_killed_worker_costs_an_attempt_and_nothing_else(tmp_path: Path) -> None:
    search(tmp_path / "calm", "runner.ahead=2")
    search(
        tmp_path / "wild",
        "runner.ahead=2",
        "runner.workers=2",
        "evaluator.final.misbehave={1: kill once, 3: kill once}",
    )
    assert outcome(tmp_path / "calm")["pareto"] == outcome(tmp_path / "wild")["pareto"]
    with Store(tmp_path / "wild" / "study.db", Point.from_json, readonly=True) as store:
        attempts = {t.attempts for t in store.trials if t.architecture.choices["x"] in (1, 3) and not t.duplicate_of}
        assert attempts == {2}
        assert all(t.ok for t in store.trials)


def test_trials_that_hang_or_take_too_much_memory_fail_alone(tmp_path: Path) -> None:
    found = search(
        tmp_path, "runner.workers=2", "runner.trial_minutes=0.05", "runner.trial_gib=3",
        "evaluator.final.misbehave={1: hang, 3: memory}",
    )  # fmt: skip
    trials = stored(tmp_path)
    causes = {t.architecture.choices["x"]: t.cause for t in trials if not t.ok}
    assert set(causes) == {1, 3}
    assert "runner.trial_minutes=0.05" in causes[1]
    assert "MemoryError" in causes[3]
    assert all(t.ok for t in trials if t.architecture.choices["x"] not in (1, 3))
    assert found.ended == "finished"


def test_a_device_that_measures_is_refused_beside_other_trials(tmp_path: Path) -> None:
    pytest.importorskip("executorch")
    with pytest.raises(ConfigError, match="device=analytic"):
        rankitect.search(["space=mobile_llm", "device=host", "runner.workers=2", f"output_dir={tmp_path}"], quiet=True)
