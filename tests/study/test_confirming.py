"""What a search found is measured again with more seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rankitect.contracts import Baseline, StopRequested
from rankitect.study.confirming import CONFIRM, Confirmation
from rankitect.study.summary import read_summary
from tests.study.test_study import result, run, stored
from tests.study.toys import Climber, Point, Quadratic

BASELINES = [Baseline("production", Point({"x": 7, "y": 2}))]
PLAN = Confirmation(seeds=3, candidates=4)


def test_the_front_and_the_baselines_are_measured_with_every_seed(tmp_path: Path) -> None:
    controller = Climber()
    run(tmp_path / "run", controller, baselines=BASELINES, confirmation=PLAN, seed=5)
    trials = stored(tmp_path / "run")
    summary = read_summary(tmp_path / "run")
    assert len(summary.pareto) <= PLAN.candidates
    for model in (*summary.pareto, *summary.baselines):
        mine = {t.seed for t in trials if t.architecture.fingerprint == model.fingerprint and t.ok}
        assert mine == {5, 6, 7}
        losses = [t.measurement.metrics["loss"].value for t in trials if t.architecture.fingerprint == model.fingerprint
                  and t.duplicate_of is None]  # fmt: skip
        assert model.metrics["loss"].n == 3
        assert abs(model.metrics["loss"].value - sum(losses) / 3) < 1e-9
    assert not [t for t in controller.told if t.batch == CONFIRM], "the search is over"
    searched = [t for t in trials if t.baseline is None and t.batch != CONFIRM and t.duplicate_of is None]
    assert summary.ledger.train_tokens == 3000 + 100 * len(searched), "it is charged to a stage of its own"
    assert summary.ledger.stages["confirmation"].train_tokens == 200 * (len(summary.pareto) + len(_left(trials))) + 200


def _left(trials: list[Any]) -> set[str]:
    """Architectures that were confirmed and left the front by it."""
    return {t.architecture.fingerprint for t in trials if t.batch == CONFIRM and t.baseline is None} - _front(trials)


def _front(trials: list[Any]) -> set[str]:
    from rankitect.study.pareto import candidates, pareto_front

    return {c.trial.architecture.fingerprint for c in pareto_front(candidates(trials, "final"), Quadratic.metrics)}


def test_a_confirmation_that_was_stopped_goes_on(tmp_path: Path) -> None:
    run(tmp_path / "whole", Climber(), baselines=BASELINES, confirmation=PLAN)

    class Stopping(Quadratic):
        def measure(self, architecture: Any, context: Any) -> Any:
            if context.seed and len(self.measured) > 14:
                raise StopRequested
            return super().measure(architecture, context)

    stopped = run(tmp_path / "cut", Climber(), Stopping(), baselines=BASELINES, confirmation=PLAN)
    assert stopped.ended == "interrupted"
    run(tmp_path / "cut", Climber(), baselines=BASELINES, confirmation=PLAN)
    assert result(tmp_path / "cut")["pareto"] == result(tmp_path / "whole")["pareto"]


def test_candidates_whose_weights_are_there_already_are_measured_once(tmp_path: Path) -> None:
    class Taking(Quadratic):
        takes_candidates = True

    run(tmp_path / "run", Climber(), Taking(), baselines=BASELINES, confirmation=PLAN, seed=5)
    trials, summary = stored(tmp_path / "run"), read_summary(tmp_path / "run")
    assert summary.pareto
    assert {t.seed for t in trials if t.baseline is None} == {5}
    assert all(candidate.metrics["loss"].n != PLAN.seeds for candidate in summary.pareto)
    for baseline in summary.baselines:
        own = {t.seed for t in trials if t.baseline == baseline.name}
        assert own == {5, 6, 7}


def test_one_seed_confirms_nothing(tmp_path: Path) -> None:
    run(tmp_path / "run", baselines=BASELINES)
    assert not [t for t in stored(tmp_path / "run") if t.batch == CONFIRM]
