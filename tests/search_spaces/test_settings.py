"""Studies whose choices are settings of a training: without a graph, and beside one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rankitect
from rankitect.baseline import main
from rankitect.config.parts import Parts, build
from rankitect.config.resolve import resolve
from rankitect.errors import ConfigError
from rankitect.models.candidate import load_ranker
from rankitect.search_spaces.ranking_points import baseline

SMALL = [
    "task=ranking", "preset=smoke", "task.data.synthetic.rows=1500", "task.baselines=[]", "confirm.seeds=1",
    "report.page=false", "report.tensorboard=false", "runner.progress=false",
]  # fmt: skip
SETTINGS = ["space=settings", *SMALL]
BOTH = [
    "space=ranking_blocks", *SMALL, "space.blocks=1", "choices.lr={low: 1e-4, high: 1e-2, values: 9, log: true}",
    "choices.batch=[64,128,256]", "task.optimizer.lr={choice: lr}", "task.batch={choice: batch}",
]  # fmt: skip
BY_MEASUREMENT = ["random", "evolution", "bayesian", "reinforce", "sampled"]


def study(folder: Path, *overrides: str) -> list[dict[str, Any]]:
    """The choices of the models on the front of a small study."""
    result = rankitect.search([*overrides, f"output_dir={folder}"], quiet=True)
    assert not result.summary.ledger.trials.get("failed")
    assert result.summary.pareto
    return [candidate.architecture["choices"] for candidate in result.summary.pareto]


def parts(folder: Path, *overrides: str) -> Parts:
    return build(resolve([*overrides]), folder, lambda text: None)


@pytest.mark.slow
@pytest.mark.parametrize("controller", BY_MEASUREMENT)
def test_every_method_that_measures_searches_settings_without_a_graph(tmp_path: Path, controller: str) -> None:
    if controller == "bayesian":
        pytest.importorskip("botorch")
    for choices in study(tmp_path / "run", *SETTINGS, f"controller={controller}"):
        assert set(choices) == {"lr", "table_lr", "weight_decay"}


@pytest.mark.slow
@pytest.mark.parametrize("controller", BY_MEASUREMENT)
def test_every_method_that_measures_searches_architecture_and_settings_at_once(tmp_path: Path, controller: str) -> None:
    if controller == "bayesian":
        pytest.importorskip("botorch")
    for choices in study(tmp_path / "run", *BOTH, f"controller={controller}"):
        assert {"lr", "batch", "block0.dense.width"} <= set(choices)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (SETTINGS, r"space=settings \(ChoiceSpace\) is not: it has no graph"),
        (BOTH, r"space=ranking_blocks \(SearchSpace\) is not: 'lr' decides a setting"),
    ],
)
@pytest.mark.parametrize("controller", ["one_shot", "sigeo", "dnas", "sampled"])
def test_methods_that_share_weights_say_why_they_cannot_and_which_can(
    tmp_path: Path, controller: str, given: list[str], why: str
) -> None:
    more = ["controller.warmup=0.5"] if controller == "sampled" else []
    said = f"controller={controller} needs a space whose every choice shapes its graph, which {why}. "
    with pytest.raises(ConfigError, match=said + f"Controllers that work with it: {', '.join(sorted(BY_MEASUREMENT))}"):
        parts(tmp_path, *given, f"controller={controller}", *more)


@pytest.mark.parametrize("space", ["settings", "ranking_blocks"])
@pytest.mark.parametrize("device", [[], ["device=analytic"]])
def test_the_staged_search_asks_for_a_task_with_latencies(tmp_path: Path, space: str, device: list[str]) -> None:
    said = r"such as task=language \(Deployable\), which task=ranking \(Ranking\) is not: it has no latency"
    with pytest.raises(ConfigError, match=said):
        parts(tmp_path, f"space={space}", *SMALL, "controller=staged", *device)


def test_a_proxy_asks_for_a_graph(tmp_path: Path) -> None:
    proxy = ["evaluator.screen.name=proxy", "evaluator.screen.target=rankitect.evaluators.proxies.Proxy"]
    with pytest.raises(
        ConfigError, match="proxy score 'sigeo' is that of a model's graph, and space=settings has none"
    ):
        parts(tmp_path, *SETTINGS, "controller=random", *proxy)


def test_settings_train_one_model_in_different_ways(tmp_path: Path) -> None:
    made = parts(tmp_path, *SETTINGS, "controller=random")
    space, dlrm = made.task.model_of(made.space.sample(0))
    assert (space.name, dlrm) == (baseline("dlrm", made.task.features)[0].name, made.task.models["dlrm"].architecture)
    for seed in range(5):
        architecture = made.space.sample(seed)
        config = made.task.fit_config(architecture, 0)
        trained_with = (config.optimizer.lr, config.tables.lr, config.optimizer.weight_decay)
        assert trained_with == (architecture["lr"], architecture["table_lr"], architecture["weight_decay"])
        assert config.batch == made.task.config.batch


def test_costs_without_a_graph_are_those_of_the_model_and_limits_are_checked(tmp_path: Path) -> None:
    made = parts(tmp_path, *SETTINGS, "controller=random")
    space, dlrm = made.task.model_of(made.space.sample(0))
    costs = made.task.costs(made.space.sample(1))
    assert costs["flops"].value == space.cost(dlrm, "flops", B=1) > 0
    assert costs["params"].value == space.cost(dlrm, "params")
    parts(tmp_path, *SETTINGS, "controller=random", "constraints.flops=[0.5,1.0]")
    with pytest.raises(ConfigError, match=r"no architecture meets them \(flops 0.1 to 0.5, relative to dlrm\)"):
        parts(tmp_path, *SETTINGS, "controller=random", "constraints.flops=[0.1,0.5]")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"space=settings has no graph: say which ranker's settings are searched"):
        parts(tmp_path, *SETTINGS, "controller=random", "task.model=null")
    with pytest.raises(ConfigError, match=r"there is no model 'dlrn' in task.models"):
        parts(tmp_path, *SETTINGS, "controller=random", "task.model=dlrn")
    with pytest.raises(ConfigError, match=r"space=settings has no graph, and there is nothing under choices to search"):
        parts(tmp_path, *SETTINGS, "controller=random", "~choices")


@pytest.mark.slow
def test_a_candidate_without_a_graph_is_loaded_as_any_other_and_is_no_baseline(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study(tmp_path / "run", *SETTINGS, "controller=random")
    (candidate,) = (tmp_path / "run" / "candidates").iterdir()
    assert {"architecture.json", "model.json", "weights.safetensors"} <= set(os.listdir(candidate))
    registry = f"registry={tmp_path / 'baselines'}"
    assert main(["add", "live", f"run={tmp_path / 'run'}", registry]) == 2
    assert "is no architecture but settings of a training" in capsys.readouterr().err
    assert main(["add", "live", "task=ranking", f"architecture={candidate / 'architecture.json'}", registry]) == 2
    assert "architecture.json is no architecture but settings of a training" in capsys.readouterr().err
    assert not (tmp_path / "baselines").exists()
    ranker = load_ranker(candidate)
    features = ranker.features
    numeric, ids = torch.zeros(2, len(features.numeric)), torch.zeros(2, sum(features.slots), dtype=torch.int64)
    assert np.isfinite(ranker.model(numeric, ids).detach().numpy()).all()
