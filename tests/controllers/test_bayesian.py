"""Bayesian optimisation: better than random draws, several objectives, outcome constraints."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rankitect.controllers.bayesian import Bayesian
from rankitect.errors import ConfigError
from tests.controllers import planted
from tests.controllers.planted import COST, QUALITY, Task

SMALL = {"samples": 14, "initial": 8, "finalists": 2, "pool": 24, "rounds": 2, "neighbours": 8, "draws": 16}


def controller(seed: int, objectives: Any = (QUALITY,), **config: Any) -> Bayesian:
    task = Task()
    made = Bayesian.Config(**{**SMALL, **config})
    metrics = ["loss", "flops"]
    return Bayesian(made, "screen", planted.moves(task), planted.aims(*objectives), task, seed, metrics=metrics)


@pytest.fixture(autouse=True)
def _installed() -> None:
    pytest.importorskip("botorch")


def test_it_finds_more_than_random_draws() -> None:
    assert planted.best(planted.run(controller(0))) < planted.random_best(14, 0)


def test_several_objectives_with_pending_and_an_outcome_constraint() -> None:
    bound = 2.0
    found = controller(0, (QUALITY, COST), samples=10, outcomes={"loss": (None, bound)})
    trials = planted.run(found, n=2)
    screened = [t for t in trials if t.evaluator == "screen"]
    assert len({t.architecture for t in screened}) == 10
    first, later = screened[:8], screened[8:]
    share = [np.mean([planted.loss_of(t.architecture) <= bound for t in part]) for part in (first, later)]
    assert share[1] >= share[0]


def test_it_is_a_function_of_the_seed_and_of_the_history() -> None:
    whole = planted.run(controller(1, samples=10))
    fresh = controller(1, samples=10)
    fresh.recover(whole[:9])
    assert [p.architecture for p in fresh.ask(1)] == [whole[9].architecture]


def test_an_unknown_outcome_is_refused() -> None:
    with pytest.raises(ConfigError, match="bounds 'lag', which evaluator"):
        controller(0, outcomes={"lag": (None, 1.0)})


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
    leftover = tmp_path / "torch_extensions" / "logei_fused_ext" / "lock"
    leftover.parent.mkdir(parents=True)
    leftover.touch()
    with _kernel_folder():
        assert not leftover.exists(), "torch would wait for it forever"
        assert os.environ["TORCH_EXTENSIONS_DIR"] == str(tmp_path / "torch_extensions")
    assert os.environ["TORCH_EXTENSIONS_DIR"] == "elsewhere"
