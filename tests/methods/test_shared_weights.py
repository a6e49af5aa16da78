from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from rankitect.blocks import FlatLinear, Tables
from rankitect.contracts import Spent
from rankitect.graph import B, Graph, SearchSpace
from rankitect.methods.final_layer import FinalLayerTuned
from rankitect.methods.shared_weights import CoTraining, Paired, TrainingState, train_steps
from rankitect.methods.supernet_search import Draws
from rankitect.methods.teaching import Lesson
from rankitect.models.supernet import Supernet
from rankitect.training.embeddings import TableConfig, TableStorage
from rankitect.training.optimizer import OptimizerConfig
from tests.controllers import planted
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


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_the_share_of_an_update_is_that_of_its_gradient_as_the_optimiser_sees_it(kind: Any) -> None:
    task = Regression()
    config = OptimizerConfig(kind=kind, lr=0.01, clip=None)
    weights = CoTraining(task.supernet(SPACE), task, 0.01, 4, optimizer=config)
    largest, other = Draws(planted.bounded(task), 0).largest, SPACE.sample(5)
    weights.step_together(Lesson([largest, other], [1.0, 1.0]), 0)
    moments = {n: t.clone() for n, t in weights.optimizer.state().items()}
    parameters = weights.optimizer.parameters

    def norm(architecture: Any) -> float:
        loss, _ = task.train_loss(weights.supernet.activate(architecture), 1)
        grads = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        total = 0.0
        for name, grad in zip(parameters, grads, strict=True):
            if grad is not None:
                scale = moments[f"exp_avg_sq/{name}"].sqrt() + config.eps if kind == "adamw" else torch.ones(())
                total += float((grad / scale).square().sum())
        return math.sqrt(total)

    expected = 0.5 * norm(other) / (norm(largest) + 0.5 * norm(other))
    weights.step_together(Lesson([largest, other], [1.0, 0.5]), 1, shared=True)
    assert weights.share == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("rule", ["sgd", "adagrad", "adam"])
def test_measuring_the_share_does_not_change_what_tables_learn(rule: Any) -> None:
    g = Graph("tables")
    width = g.choice("width", [4, 2])
    g.out = FlatLinear(1)(Tables((20,), (2,), width)(g.input("ids", B, 2, dtype="int"), name="tables"), name="head")
    space = SearchSpace(g)
    wide, narrow = (space.architecture({"width": width}) for width in (4, 2))

    class Rows:
        unit = "examples"

        def hold_tables(self, model: Any, lr: float | None = None) -> TableStorage:
            return TableStorage(model, TableConfig("torch", rule, lr=0.1))

        def train_loss(self, model: Any, step: int) -> tuple[Any, int]:
            ids = torch.randint(20, (16, 2), generator=torch.Generator().manual_seed(step))
            return model(ids).sub(ids.float().sum(1, keepdim=True) / 20).square().mean(), 16

    def trained(shared: bool) -> dict[str, torch.Tensor]:
        supernet = Supernet(space, seed=3)
        weights = CoTraining(supernet, Rows(), 0.01, 4)  # type: ignore[arg-type]
        for step in range(3):
            weights.step_together(Lesson([wide, narrow], [1.0, 1.0]), step, shared=shared)
        assert math.isnan(weights.share)
        weights.close()
        return {n: w.detach().clone() for n, w in supernet.named_parameters()}

    measured, plain = trained(shared=True), trained(shared=False)
    assert all(torch.equal(weight, plain[name]) for name, weight in measured.items())


def test_the_share_of_a_step_that_was_skipped_is_not_told() -> None:
    task = Regression()
    weights = CoTraining(task.supernet(SPACE), task, 0.01, 4)
    largest, other = Draws(planted.bounded(task), 0).largest, SPACE.sample(5)
    weights.step_together(Lesson([largest, other], [1.0, 1.0]), 0, shared=True)
    assert 0 < weights.share < 1
    before = {n: w.detach().clone() for n, w in weights.supernet.weights.named_parameters()}
    weights.step_together(Lesson([largest, other], [1.0, math.nan]), 1, shared=True)
    assert math.isnan(weights.share)
    assert all(torch.equal(weight, before[name]) for name, weight in weights.supernet.weights.named_parameters())
