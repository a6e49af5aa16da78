from __future__ import annotations

from pathlib import Path

import pytest

from rankitect.contracts import Spent
from rankitect.methods.final_layer import FinalLayerTuned
from rankitect.methods.shared_weights import CoTraining, Paired, TrainingState, train_steps
from rankitect.methods.teaching import Lesson
from tests.controllers.planted import SPACE, Regression, session

NARROW, WIDE = SPACE.sample_many(2, 3)
ROWS = 32


def of_training(*architectures: object) -> Spent:
    """A step on each of them: three forward passes for every row."""
    flops = sum(int(3 * SPACE.cost(a, "flops")) * ROWS for a in architectures)  # type: ignore[arg-type]
    return Spent(train_examples=ROWS * len(architectures), train_flops=flops)


def co_training() -> CoTraining:
    task = Regression()
    return CoTraining(task.supernet(SPACE), task, 1e-3, 4)


def test_a_step_of_shared_weights_is_charged_for_data_and_flops() -> None:
    assert co_training().step(NARROW, 0)[1] == of_training(NARROW)


def test_a_sandwich_is_charged_for_each_of_its_architectures() -> None:
    assert co_training().step_together(Lesson([WIDE, NARROW], distil=0.5), 0)[1] == of_training(WIDE, NARROW)


def test_a_paired_model_is_charged_like_any_other() -> None:
    task = Regression()
    assert Paired(task.supernet(SPACE), WIDE, task, 1e-3, 4).step(0)[1] == of_training(WIDE)


def test_a_resumed_training_is_charged_for_all_of_its_steps(tmp_path: Path) -> None:
    study, weights = session(tmp_path), co_training()
    state = TrainingState.from_info({**TrainingState(1, of_training(NARROW)).to_info()}, "examples")
    train_steps(study, "supernet", state, 3, lambda step: weights.step(NARROW, step), lambda state: None)
    assert study.charged["supernet"] == of_training(NARROW, NARROW, NARROW)


@pytest.mark.parametrize("unit", ["examples", "tokens"])
def test_checkpoints_of_earlier_versions_know_the_amount_of_data_alone(unit: str) -> None:
    state = TrainingState.from_info({"step": 5, "tokens": 160}, unit)  # type: ignore[arg-type]
    assert (state.step, state.spent) == (5, Spent.training(160, unit))  # type: ignore[arg-type]


def test_fitting_the_last_layer_is_charged_beside_the_measurement() -> None:
    from types import SimpleNamespace

    task = Regression()
    task.adopt(task.supernet(SPACE))
    inner = SimpleNamespace(name="loss", metrics=[], measure=lambda a, context: task.measurement(a))
    context = SimpleNamespace(check=lambda: None, spent=Spent())
    tuned = FinalLayerTuned(inner, SPACE, task, steps=2, lr=0.01)  # type: ignore[arg-type]
    assert tuned.measure(NARROW, context).spent == of_training(NARROW, NARROW)  # type: ignore[arg-type]
