"""Every controller on a task that has nothing: it searches, or it refuses before any work and says what would work."""

from __future__ import annotations

from pathlib import Path

import pytest

import rankitect
from rankitect.config.alternatives import controllers_for
from rankitect.config.compose import configs_folder
from rankitect.errors import ConfigError
from tests.controllers.least import space

KEYS = {
    "random": ["controller.bands=2"],
    "evolution": ["controller.samples=4"],
    "bayesian": ["controller.samples=4", "controller.initial=3", "controller.pool=8", "controller.draws=8"],
    "reinforce": ["controller.samples=4"],
    "sampled": ["controller.samples=4"],
}
OTHERS = {"given"}  # no method; tests/test_measure.py
LACKING = {
    "one_shot": ("SharesWeights", "train_loss"),
    "once_for_all": ("SharesWeights", "train_loss"),
    "sigeo": ("SharesWeights", "supernet"),
    "dnas": ("Searchable", "search_loss"),
    "staged": ("Deployable", "learn_latency"),
}


def search(folder: Path, controller: str, *keys: str) -> rankitect.Result:
    device = ["device=analytic"] if controller == "staged" else []
    return rankitect.search(
        [
            "task=own", "task.target=tests.controllers.least.task", "task.name=number", "space.name=least",
            "space.target=tests.controllers.least.space", f"controller={controller}", *device, "~evaluator",
            "+evaluator.objectives=[loss,flops]", "+evaluator.final.name=measured",
            "+evaluator.final.target=tests.controllers.least.Measured", "allowed_packages=[rankitect,tests]",
            "report.page=false", f"output_dir={folder / 'run'}", *keys,
        ],
        quiet=True,
    )  # fmt: skip


def test_every_controller_is_tried_here() -> None:
    assert {path.stem for path in (configs_folder() / "controller").glob("*.yaml")} == {*KEYS, *LACKING, *OTHERS}
    assert set(controllers_for(3, space())) == set(KEYS)


@pytest.mark.parametrize("controller", KEYS)
def test_methods_without_shared_weights_search_on_the_least_task(controller: str, tmp_path: Path) -> None:
    if controller == "bayesian":
        pytest.importorskip("botorch")
    result = search(tmp_path, controller, *KEYS[controller])
    assert result.ended == "finished"
    assert result.summary.ledger.trials["done"] >= 2
    assert result.summary.ledger.trials["failed"] == 0
    assert [o.role for o in result.summary.objectives] == ["quality", "cost"]


@pytest.mark.parametrize("controller", LACKING)
def test_others_refuse_and_name_what_is_lacking_and_what_would_work(controller: str, tmp_path: Path) -> None:
    capability, member = LACKING[controller]
    with pytest.raises(ConfigError) as refused:
        search(tmp_path, controller)
    said = str(refused.value)
    assert f"controller={controller} needs " in said
    assert f"({capability}), which task=number (int) is not: it has no " in said
    assert member in said
    assert "Controllers that work with it: bayesian, evolution, random, reinforce, sampled." in said
    assert not (tmp_path / "run" / "study.db").exists(), "nothing was begun"


def test_a_warm_up_needs_weights_to_share(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"controller=sampled needs .*\(SharesWeights\)"):
        search(tmp_path, "sampled", "controller.warmup=0.5")


def test_constraints_need_a_task_that_bounds_costs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"constraints \(flops\) needs? .*\(BoundsCosts\)"):
        search(tmp_path, "random", "constraints.flops=[0.1,1.0]")
