"""Supernet training and the searches on it: one-shot and SiGeo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rankitect.blocks import Linear
from rankitect.contracts import Measurement, Metric, MetricSpec, StopRequested, TrialContext
from rankitect.controllers.one_shot import OneShot
from rankitect.controllers.sigeo import SiGeo
from rankitect.graph import B, Graph, SearchSpace
from rankitect.methods.bounded_space import BoundedSpace
from rankitect.methods.final_layer import FinalLayerTuned, final_parameters
from rankitect.methods.supernet_search import STATE, Paths, SupernetConfig
from rankitect.methods.teaching import likeness
from tests.controllers import planted
from tests.controllers.planted import COST, QUALITY, SPACE, Regression

SMALL = {"steps": 60, "weight_lr": 0.02, "samples": 24, "population": 8, "tournament": 3, "finalists": 3}


def one_shot(task: Regression, seed: int = 0, **config: Any) -> OneShot:
    made = OneShot.Config(**{**SMALL, **config})
    steps = made.steps or 0
    return OneShot(made, steps, "screen", planted.bounded(task), planted.objectives(QUALITY), task, seed)


@pytest.mark.parametrize("sampling", ["any_path", "sandwich"])
def test_what_it_finds_is_better_than_random_draws_on_the_same_weights(sampling: str, tmp_path: Path) -> None:
    task = Regression()
    found = one_shot(task, sampling=sampling)
    found.prepare(planted.session(tmp_path))
    untrained = Regression().supernet(SPACE).activate(task.reference)
    assert task.quality(task.adopted.activate(task.reference)) < 0.5 * task.quality(untrained), "it was trained"
    trials = planted.run(found, measure=task.measurement)
    final = [task.quality(task.adopted.activate(t.architecture)) for t in trials if t.evaluator == "final"]
    random = [task.quality(task.adopted.activate(a)) for a in SPACE.sample_many(200, 99)]
    assert len(final) == 3
    assert np.mean(final) < np.quantile(random, 0.1)


def test_examples_are_charged_for_each_architecture_of_a_step(tmp_path: Path) -> None:
    for sampling, each in (("any_path", 1), ("sandwich", 3)):
        session = planted.session(tmp_path / sampling)
        one_shot(Regression(), steps=5, sampling=sampling).prepare(session)
        assert session.charged["supernet"].train_examples == 5 * 32 * each


@pytest.mark.parametrize("sampling", ["any_path", "sandwich"])
def test_a_training_that_was_stopped_goes_on_to_the_same_weights(sampling: str, tmp_path: Path) -> None:
    task, again = Regression(), Regression()
    one_shot(task, steps=9, sampling=sampling).prepare(planted.session(tmp_path / "whole"))
    session = planted.session(tmp_path / "cut")
    calls = iter(range(4))
    session.should_stop = lambda: next(calls, None) is None

    def check() -> None:
        if next(calls, None) is None:
            raise StopRequested

    session.check = check
    with pytest.raises(StopRequested):
        one_shot(again, steps=9, sampling=sampling).prepare(session)
    assert (tmp_path / "cut" / STATE).exists()
    assert again.adopted is None
    fresh = planted.session(tmp_path / "cut")
    again = Regression()
    one_shot(again, steps=9, sampling=sampling).prepare(fresh)
    assert 0 < min(again.steps) < 9, "some steps were done before"
    assert fresh.charged["supernet"].train_examples == 9 * 32 * (3 if sampling == "sandwich" else 1)
    for name, weight in task.adopted.weights.named_parameters():
        assert torch.equal(weight, again.adopted.weights.get_parameter(name)), name


def picks() -> SearchSpace:
    g = Graph("picks")
    pool = [Linear(4)(g.input("x", B, 4), name="stem")]
    for i in range(3):
        with g.inside(f"b{i}"):
            pool.append(Linear(4, "relu")(*g.pick("from", pool), name="layer"))
    g.out = Linear(1)(*g.pick("last", pool), name="out")
    return SearchSpace(g)


def test_paths_are_single_any_or_sandwiched() -> None:
    space = picks()
    bounded = BoundedSpace(space, {})
    single = Paths(bounded, SupernetConfig(sampling="single_path"), 0, 50)
    many = Paths(bounded, SupernetConfig(sampling="any_path"), 0, 50)
    sandwich = Paths(bounded, SupernetConfig(sampling="sandwich", between=2), 0, 50)

    def inputs(paths: Paths) -> list[int]:
        return [len(v) for step in range(20) for a in paths.at(step) for v in a.choices.values()]  # type: ignore[arg-type]

    assert set(inputs(single)) == {1}
    assert len(set(inputs(many))) > 1
    large, *between, small = sandwich.at(3)
    assert len(between) == 2
    costs = np.asarray(space.cost(space.sample_many(300, 0), "flops"))
    assert space.cost(large, "flops") >= costs.max()
    assert space.cost(small, "flops") <= costs.min()
    full = Paths(bounded, SupernetConfig(full=0.5), 0, 100)
    early, late = (sum(full.at(s) == [full.largest] for s in steps) for steps in (range(20), range(50, 100)))
    assert early >= 12
    assert late <= 10


def test_the_extremes_keep_the_constraints() -> None:
    bounded = BoundedSpace(SPACE, {"flops": (250.0, 600.0)})
    rng = np.random.default_rng(0)
    drawn = np.asarray(SPACE.cost(SPACE.sample_many(500, 0, flops=(250.0, 600.0)), "flops"))
    large, small = (SPACE.cost(bounded.extreme("flops", most, rng), "flops") for most in (True, False))
    assert drawn.max() <= large <= 600
    assert 250 <= small <= drawn.min()


def test_distillation_pulls_outputs_toward_the_teacher() -> None:
    teacher = torch.tensor([[2.0], [-1.0]])
    logits = torch.zeros(2, 1, requires_grad=True)
    value = likeness(logits, teacher)
    assert value.item() == pytest.approx(np.log(2))
    value.backward()
    expected = (0.5 - torch.sigmoid(teacher)) / 2
    torch.testing.assert_close(logits.grad, expected)
    many = torch.randn(3, 5, 7)
    assert float(likeness(many, many)) < float(likeness(torch.zeros(3, 5, 7), many))


class Inner:
    """Measures with the inherited weights."""

    name, metrics = "loss", (QUALITY,)

    def __init__(self, task: Regression) -> None:
        self.task = task

    def measure(self, architecture: Any, context: TrialContext) -> Measurement:
        return self.task.measurement(architecture)


def test_a_fitted_last_layer_helps_and_leaves_no_trace(tmp_path: Path) -> None:
    task = Regression()
    task.adopt(task.supernet(SPACE))
    before = {n: w.clone() for n, w in task.adopted.weights.named_parameters()}
    architecture = SPACE.sample(0)
    fitted = FinalLayerTuned(Inner(task), SPACE, task, steps=30, lr=0.05)  # type: ignore[arg-type]
    found = fitted.measure(architecture, TrialContext(tmp_path, tmp_path, 0))
    assert found.metrics["loss"].value < task.measurement(architecture).metrics["loss"].value
    assert found.spent.train_examples == 30 * 32
    assert set(final_parameters(task.adopted)) == {"weight", "bias"}
    for name, weight in task.adopted.weights.named_parameters():
        assert torch.equal(weight, before[name])
        assert weight.requires_grad


def test_sigeo_warms_up_on_its_share_and_asks_the_proxy(tmp_path: Path) -> None:
    task = Regression()
    config = SiGeo.Config(**{**SMALL, "steps": 20}, warmup=0.4)
    stand_in = MetricSpec("score", "", "max", "quality")
    objectives = planted.Objectives((QUALITY, COST), stand_in)
    found = SiGeo(config, 8, "proxy", planted.bounded(task), objectives, task, 0)
    session = planted.session(tmp_path)
    found.prepare(session)
    assert session.charged["supernet"].train_examples == 8 * 32

    def proxy(architecture: Any) -> Measurement:
        return Measurement({"score": Metric(-planted.loss_of(architecture), ""), **task.costs(architecture)})

    trials = planted.run(found, measure=proxy)
    assert [t.evaluator for t in trials] == ["proxy"] * 24 + ["final"] * 3


def test_sigeo_finds_what_its_proxy_likes(tmp_path: Path) -> None:
    def proxy(architecture: Any) -> Measurement:
        return Measurement({"score": Metric(-planted.loss_of(architecture), "")})

    ours, random = [], []
    for seed in range(4):
        task = Regression()
        config = SiGeo.Config(**{**SMALL, "samples": 40})
        found = SiGeo(
            config,
            0,
            "proxy",
            planted.bounded(task),
            planted.Objectives((QUALITY,), MetricSpec("score", "", "max", "quality")),
            task,
            seed,
        )
        found.prepare(planted.session(tmp_path))
        ours.append(planted.best(planted.run(found, measure=proxy)))
        random.append(planted.random_best(40, seed))
    assert np.mean(ours) < np.mean(random)
