"""Screening with inherited weights is refused before any work where nobody has such weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import rankitect
from rankitect.config.parts import Parts
from rankitect.contracts import MetricSpec, Spent
from rankitect.errors import ConfigError
from rankitect.evaluators.inherited import Inherited
from rankitect.space.choice_space import ChoiceSpace
from rankitect.space.declaring import Choices
from tests.controllers.planted import SPACE, Regression


class Measured(Regression):
    """A task with all that screening needs, without a way to train one model alone."""

    search_split = "validation"

    def batch_at(self, split: str, step: int) -> Any:
        return self._batch(step)

    def loss(self, model: Any, batch: Any) -> Any:
        return (model(batch[0]) - batch[1]).square().mean()

    def quality_specs(self, split: str) -> list[MetricSpec]:
        return [MetricSpec("loss", "nat", "min", "quality")]


class Brief(Measured):
    def briefly_trained(self, architecture: Any, context: Any) -> tuple[Any, Spent]:
        return self.teacher, Spent()


def screened(task: Any, folder: Path, *, trains: bool = False) -> Inherited:
    names = {"task": "own", "evaluator.screen": "inherited"}
    parts = Parts(None, folder, names=names, task=task, space=SPACE, trains_weights=trains)  # type: ignore[arg-type]
    return Inherited.from_config(Inherited.Config(sample=None), parts)


def test_a_task_without_weights_and_without_short_trainings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"evaluator.screen=inherited, .*\(TrainsBriefly\).*no briefly_trained"):
        screened(Measured(), tmp_path)


def test_weights_of_a_search_or_of_the_task_or_short_trainings_are_enough(tmp_path: Path) -> None:
    with_weights = Measured()
    with_weights.adopt(with_weights.supernet(SPACE))
    assert screened(with_weights, tmp_path).metrics
    assert screened(Measured(), tmp_path, trains=True).metrics
    assert screened(Brief(), tmp_path).metrics


def test_a_space_without_a_graph_is_refused_where_models_are_built_from_one(tmp_path: Path) -> None:
    names, space = {"space": "settings", "task": "own"}, ChoiceSpace(Choices("settings"))
    parts = Parts(None, tmp_path, names=names, space=space)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="space=settings has no graph, and task=own"):
        _ = parts.graph_space


def test_language_models_from_scratch_are_not_screened_where_no_search_trains_weights(tmp_path: Path) -> None:
    keys = ["task=scratch", "space=mobile_llm", "controller=random", "preset=smoke", f"output_dir={tmp_path / 'run'}"]
    with pytest.raises(ConfigError, match=r"evaluator.screen=inherited, .*\(TrainsBriefly\).*evaluator.screen=null"):
        rankitect.search(keys, quiet=True)
    assert not (tmp_path / "run" / "study.db").exists(), "nothing was begun"


@pytest.mark.parametrize("keys", [("dnas", "weight_lr=0"), ("dnas", "steps=0"), ("reinforce", "co_training=false")])
def test_a_method_that_is_told_to_train_nothing_counts_as_one_that_does_not(
    tmp_path: Path, keys: tuple[str, str]
) -> None:
    controller, setting = keys
    command = ["task=scratch", "space=mobile_llm", f"controller={controller}", f"controller.{setting}", "preset=smoke"]
    with pytest.raises(ConfigError, match=r"evaluator.screen=inherited, .*\(TrainsBriefly\).*evaluator.screen=null"):
        rankitect.search([*command, f"output_dir={tmp_path / 'run'}"], quiet=True)
    assert not (tmp_path / "run" / "study.db").exists(), "nothing was begun"
