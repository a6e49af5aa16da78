"""Bayesian optimisation: better than random draws, its parts exact, several objectives, outcome constraints."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rankitect.contracts import Trial
from rankitect.controllers.bayesian import Bayesian
from rankitect.controllers.bayesian_model import Acquisition
from rankitect.controllers.bayesian_process import process, readings
from rankitect.errors import ConfigError
from rankitect.methods.objectives import hypervolume
from tests.controllers import planted
from tests.controllers.planted import COST, QUALITY, SPACE, Task

SMALL = {
    "samples": 14,
    "initial": 8,
    "finalists": 2,
    "pool": 24,
    "starts": 4,
    "rounds": 2,
    "neighbours": 8,
    "draws": 16,
}


class Silent(Task):
    """A task that knows no cost without a measurement."""

    def costs(self, architecture: Any) -> dict[str, Any]:
        return {}


def controller(seed: int, objectives: Any = (QUALITY,), task: Task | None = None, **config: Any) -> Bayesian:
    task = task or Task()
    made = Bayesian.Config(**{**SMALL, **config})
    metrics = ["loss", "flops"]
    return Bayesian(made, "screen", planted.bounded(task), planted.objectives(*objectives), task, seed, metrics=metrics)


@pytest.fixture(autouse=True)
def _installed() -> None:
    pytest.importorskip("botorch")


def screened(trials: list[Trial]) -> list[Any]:
    return [t.architecture for t in trials if t.evaluator == "screen"]


def test_it_finds_more_than_random_draws() -> None:
    ours = [planted.best(planted.run(controller(seed, samples=20))) for seed in range(2)]
    random = [planted.random_best(20, seed) for seed in range(2)]
    assert np.mean(ours) < np.mean(random) - 0.1
    assert min(ours) <= planted.best_loss() + 0.1


@pytest.mark.parametrize("task", [Task(), Silent()], ids=["known cost", "measured cost"])
def test_with_two_objectives_its_front_covers_more(task: Task) -> None:
    def area(architectures: list[Any]) -> float:
        return hypervolume([(planted.loss_of(a), SPACE.cost(a, "flops")) for a in architectures], (3.5, 700.0))

    ours = area(screened(planted.run(controller(0, (QUALITY, COST), task, samples=20))))
    assert ours > 1.05 * np.mean([area(SPACE.sample_many(20, [s, 99])) for s in range(9)])  # type: ignore[arg-type]


def test_several_objectives_with_pending_and_an_outcome_constraint() -> None:
    bound = 2.0
    found = controller(0, (QUALITY, COST), samples=12, outcomes={"loss": (None, bound)})
    tried = screened(planted.run(found, n=2))
    assert len(set(tried)) == 12
    first, later = tried[:8], tried[8:]
    share = [np.mean([planted.loss_of(a) <= bound for a in part]) for part in (first, later)]
    assert share[1] > share[0]


def test_a_bound_on_a_known_cost_holds_for_all_that_the_model_suggests() -> None:
    tried = screened(planted.run(controller(0, samples=14, outcomes={"flops": (None, 450.0)})))
    assert all(SPACE.cost(a, "flops") <= 450 for a in tried[8:])


def test_where_nothing_is_allowed_it_looks_for_what_may_be() -> None:
    tried = screened(planted.run(controller(0, samples=14, outcomes={"loss": (None, 0.2)})))
    assert np.mean([planted.loss_of(a) for a in tried[8:]]) < np.mean([planted.loss_of(a) for a in tried[:8]])


def test_limits_and_rules_hold_and_failures_do_not_come_again() -> None:
    task = Task({"flops": (200.0, 500.0)})
    found = controller(0, (QUALITY, COST), task, samples=16)
    found.bounded.rules.append(lambda a: a["place0.op"] != "relu")
    tried: list[Any] = []
    while (proposals := found.ask(1)) and proposals[0].evaluator == "screen":
        made, number = proposals[0].architecture, len(tried) + 1
        failed = number % 3 == 0
        tried.append(made)
        result = None if failed else planted.measurement(made)
        found.tell([Trial(number, number, 1, made, "screen", 0, {}, "FAILED" if failed else "DONE", result)])
    assert len(set(tried)) == len(tried) == 16
    assert all(200 <= SPACE.cost(a, "flops") <= 500 and a["place0.op"] != "relu" for a in tried)


def test_it_is_a_function_of_the_seed_and_of_the_history() -> None:
    whole = planted.run(controller(1, (QUALITY, COST), samples=11))
    for done in (9, 10):
        fresh = controller(1, (QUALITY, COST), samples=11)
        fresh.recover(whole[:done])
        assert [p.architecture for p in fresh.ask(1)] == [whole[done].architecture]


def test_resuming_between_two_fits_equals_going_on() -> None:
    whole = planted.run(controller(1, samples=46, initial=42))
    fresh = controller(1, samples=46, initial=42)
    fresh.recover(whole[:45])  # parameters are fitted to 44 of them
    assert [p.architecture for p in fresh.ask(1)] == [whole[45].architecture]


def test_a_small_space_is_searched_until_nothing_is_new() -> None:
    task = Task({"flops": (0.0, 80.0)})
    space = {a.fingerprint for a in SPACE.sample_many(2000, 0, flops=(0.0, 80.0))}
    tried = screened(planted.run(controller(0, task=task, samples=len(space) + 5, initial=len(space) - 2)))
    assert {a.fingerprint for a in tried} >= space


def test_an_unknown_outcome_is_refused() -> None:
    with pytest.raises(ConfigError, match="bounds 'lag', which evaluator"):
        controller(0, outcomes={"lag": (None, 1.0)})


def learned(x: np.ndarray, y: np.ndarray, new: np.ndarray, hinted: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation at new points."""
    model, shift, scale = process("y", torch.from_numpy(x), torch.from_numpy(y), False, {}, range(x.shape[1]), hinted)
    with torch.no_grad():
        found = model.posterior(torch.from_numpy(new))
    return found.mean[:, 0].numpy() * scale + shift, found.variance[:, 0].sqrt().numpy() * scale


def test_a_process_learns_a_function_and_its_noise() -> None:
    rng = np.random.default_rng(0)
    x, new = rng.random((80, 5)), rng.random((200, 5))
    error = learned(x, np.sin(3 * x[:, 0]) + x[:, 1], new)[0] - (np.sin(3 * new[:, 0]) + new[:, 1])
    assert np.sqrt(np.mean(error**2)) < 0.05
    noisy = np.sin(3 * x[:, 0]) + 0.3 * rng.normal(size=80)
    assert learned(x, noisy, x)[1].max() < 0.3, "of the mean, not of another measurement"
    assert np.mean((learned(x, noisy, new)[0] - np.sin(3 * new[:, 0])) ** 2) < 0.3**2 / 2
    assert np.isfinite(learned(x, np.ones(80), new)[0]).all()


def test_a_hint_tells_what_few_measurements_cannot() -> None:
    rng = np.random.default_rng(0)
    x, new = rng.random((16, 40)), rng.random((200, 40))
    truth = [np.sin(6 * v).sum(1, keepdims=True) for v in (x, new)]  # of 40 columns, of which 16 rows tell little
    rough = [2 * t + 3 + 0.1 * rng.normal(size=t.shape) for t in truth]
    plain = learned(x, truth[0][:, 0], new)[0]
    told = learned(np.hstack([x, rough[0]]), truth[0][:, 0], np.hstack([new, rough[1]]), True)[0]
    assert np.corrcoef(plain, truth[1][:, 0])[0, 1] < 0.7
    assert np.corrcoef(told, truth[1][:, 0])[0, 1] > 0.99


def test_what_is_pending_is_not_proposed_for_its_neighbour() -> None:
    objectives = planted.objectives(QUALITY, COST)
    trials = [t for t in planted.run(controller(3, (QUALITY, COST), samples=8)) if t.evaluator == "screen"]
    pool = SPACE.sample_many(400, 5)

    def values(pending: list[Any]) -> Acquisition:
        return Acquisition(SPACE, lambda a: {}, objectives, trials, pending, {}, 64, 0)

    plain = values([])
    best = pool[int(plain.values(pool).argmax())]
    assert values([best]).values([best])[0] < plain.values([best])[0] - 1


def test_screening_by_models_agrees_with_known_costs() -> None:
    trials = [t for t in planted.run(controller(3, (QUALITY, COST), samples=12)) if t.evaluator == "screen"]
    objectives = planted.objectives(QUALITY, COST)
    acquisition = Acquisition(SPACE, lambda a: {"flops": SPACE.cost(a, "flops")}, objectives, trials, [], {}, 64, 0)
    pool = SPACE.sample_many(200, 5)
    exact, screened = acquisition.values(pool), acquisition.screened(pool)
    assert set(np.argsort(-exact)[:5]) <= set(np.argsort(-screened)[:40])


def test_a_maximised_metric_is_maximised() -> None:
    score = replace(QUALITY, name="loss", direction="max")
    tried = screened(planted.run(controller(0, (score,), samples=20)))
    assert max(map(planted.loss_of, tried)) > max(planted.loss_of(a) for a in tried[:8])


def test_repeated_parts_are_read_together() -> None:
    known = SPACE.sample_many(30, 0)
    plain, more = SPACE.features(known), readings(SPACE, known)
    assert (more[:, : plain.shape[1]] == plain).all()
    # The kinds of a place: three operations, and a width with the share of places that have one.
    assert more.shape[1] == plain.shape[1] + 5
    layers = [sum(a[f"place{i}.op"] != "none" for i in range(planted.PLACES)) / planted.PLACES for a in known]
    assert any(np.allclose(column, layers) for column in more.T[plain.shape[1] :])


def test_without_botorch_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    plain = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "botorch" else plain(name))
    with pytest.raises(ConfigError, match="needs BoTorch, which is not installed: pip install"):
        Bayesian.from_config(Bayesian.Config(), None)  # type: ignore[arg-type]


def test_a_compilation_that_was_killed_does_not_hang_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rankitect.controllers.bayesian_model import _kernel_folder

    monkeypatch.setenv("RANKITECT_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", "elsewhere")
    monkeypatch.setattr("rankitect.controllers.bayesian_model._compiled", [])
    leftover = tmp_path / "torch_extensions" / "logei_fused_ext" / "lock"
    leftover.parent.mkdir(parents=True)
    leftover.touch()
    with _kernel_folder():
        assert not leftover.exists(), "torch would wait for it forever"
        assert os.environ["TORCH_EXTENSIONS_DIR"] == str(tmp_path / "torch_extensions")
    assert os.environ["TORCH_EXTENSIONS_DIR"] == "elsewhere"
