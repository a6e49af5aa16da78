"""REINFORCE: the policy against the formulas, the paired baseline, resume."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from rankitect.contracts import StopRequested
from rankitect.controllers.reinforce import STATE, Reinforce
from rankitect.controllers.reinforce_policy import Policy, Record, advantages
from rankitect.controllers.reinforce_training import paired_reward
from rankitect.methods.cost_target import CostTarget
from tests.controllers import planted
from tests.controllers.planted import COST, QUALITY, SPACE, Regression, Task

SMALL = {"samples": 40, "finalists": 2, "memory": 32, "lr": 0.5, "weight_lr": 0.02}


def controller(task: Any, seed: int = 0, **config: Any) -> Reinforce:
    targeted = config.pop("targeted", False)
    made = Reinforce.Config(**{**SMALL, **config})
    specs = (QUALITY, COST) if targeted else (QUALITY,)
    return Reinforce(made, "screen", planted.bounded(task), planted.objectives(*specs), task, seed, targeted=targeted)


def test_it_finds_more_than_random_draws(tmp_path: Path) -> None:
    ours = []
    for seed in range(5):
        found = controller(Task(), seed, samples=60, reuse=2)
        found.prepare(planted.session(tmp_path))
        ours.append(planted.best(planted.run(found)))
    assert np.mean(ours) < np.mean([planted.random_best(60, seed) for seed in range(5)])


def test_the_policy_moves_along_the_gradient_of_the_log_probability() -> None:
    policy = Policy(SPACE, None, clip=2.0)
    policy.logits = {p: torch.randn(len(x), dtype=torch.float64) for p, x in policy.logits.items()}
    architecture = SPACE.sample(0)
    leaves = {p: x.clone().requires_grad_(True) for p, x in policy.logits.items()}
    total = sum(leaves[p].log_softmax(0)[SPACE.choices[p].position(v)] for p, v in architecture.choices.items())
    total.backward()  # type: ignore[union-attr]
    chance = policy.log_chance(architecture, policy.chances())
    assert chance == pytest.approx(total.item())  # type: ignore[union-attr]
    before = {p: x.clone() for p, x in policy.logits.items()}
    weights = policy.learn([Record(architecture, None, 0.0, 0.0, chance)], np.asarray([1.5]), lr=0.1)
    assert weights == [pytest.approx(1.0)]
    for path, leaf in leaves.items():
        slope = leaf.grad if leaf.grad is not None else torch.zeros_like(leaf)
        torch.testing.assert_close(policy.logits[path], before[path] + 0.1 * 1.5 * slope)


@pytest.mark.parametrize(("shift", "weight"), [(-5.0, 2.0), (math.log(2) / 2, 2**-0.5)])
def test_importance_weights_are_ratios_and_clipped(shift: float, weight: float) -> None:
    policy = Policy(SPACE, None, clip=2.0)
    architecture = SPACE.sample(1)
    chance = policy.log_chance(architecture, policy.chances())
    found = policy.learn([Record(architecture, None, 0.0, 0.0, chance + shift)], np.asarray([0.0]), lr=0.1)
    assert found == [pytest.approx(weight)]


def test_the_expected_cost_is_the_target() -> None:
    task = Task()
    cost = CostTarget(SPACE, "flops", task.reference, quick=True)
    policy = Policy(SPACE, cost, clip=2.0)
    for target in (0.4, 0.6, 0.8):
        chances = policy.chances(policy.price(target))
        assert float(cost.expected({p: torch.from_numpy(c) for p, c in chances.items()})) == pytest.approx(
            target, abs=0.003
        )
        rng = np.random.default_rng(0)
        drawn = SPACE.decode(SPACE.canonical(policy.draw(chances, rng, 300)))
        assert np.mean([cost.of(a) for a in drawn]) == pytest.approx(target, abs=0.05)


def test_advantages_are_relative_to_what_is_usual_at_the_target() -> None:
    made = SPACE.sample(0)
    memory = [
        Record(made, t, 0.0, 2 * t + e, 0.0) for t, e in zip((0.2, 0.4, 0.6, 0.8), (0.1, -0.1, -0.1, 0.1), strict=True)
    ]
    found = advantages(memory, memory)
    assert found == pytest.approx([1.0, -1.0, -1.0, 1.0])


def history(folder: Path) -> np.ndarray:
    with safe_open(folder / STATE, framework="pt") as file:
        return np.asarray(json.loads(file.metadata()["rankitect"])["history"])


def test_the_paired_baseline_takes_the_difficulty_of_the_batch_out_of_the_reward(tmp_path: Path) -> None:
    task = Regression(noise=3.0)
    session = planted.session(tmp_path)
    controller(task, steps=60, weight_lr=0.005).prepare(session)
    rows = history(tmp_path)[20:]  # after both have learnt most
    alone, paired = rows[:, 1].var(), rows[:, 3].var()
    assert paired < 0.5 * alone
    assert session.charged["reinforce"].train_examples == 2 * 60 * 32, "the baseline's training is charged, too"
    assert task.adopted is not None


def test_a_baseline_that_hardly_feels_the_batch_adds_no_noise() -> None:
    rng = np.random.default_rng(0)
    batch, own, other = rng.normal(0, 1, (3, 400))
    loss, beside = 0.6 + 0.2 * batch + own, 0.5 + 0.2 * batch + other
    rows = [[0.0, a, b] for a, b in zip(loss, beside, strict=True)]
    rewards = np.asarray([paired_reward(*rows[i][1:], rows[:i]) for i in range(100, 400)])
    assert rewards.var() < 1.1 * loss[100:].var() < 0.7 * (beside - loss)[100:].var()
    assert rewards.mean() == pytest.approx(float((beside - loss)[100:].mean()), abs=0.15)
    same = [[0.0, 0.6 + x, 0.5 + x] for x in batch]
    assert np.ptp([paired_reward(*same[i][1:], same[:i]) for i in range(20, 400)]) < 1e-9, (
        "nothing but the batch differs"
    )


def test_without_the_baseline_nothing_is_trained_beside(tmp_path: Path) -> None:
    session = planted.session(tmp_path)
    controller(Regression(), steps=5, paired_baseline=False).prepare(session)
    assert history(tmp_path).shape == (5, 2)
    assert session.charged["reinforce"].train_examples == 5 * 32


def test_a_co_training_that_was_stopped_goes_on_to_the_same_policy(tmp_path: Path) -> None:
    whole = controller(Regression(), steps=6, targeted=True, samples=12)
    whole.prepare(planted.session(tmp_path / "whole"))
    session = planted.session(tmp_path / "cut")
    stops = iter([False, False, False, True])
    session.should_stop = lambda: next(stops)

    def check() -> None:
        raise StopRequested

    session.check = check
    with pytest.raises(StopRequested):
        controller(Regression(), steps=6, targeted=True, samples=12).prepare(session)
    assert len(history(tmp_path / "cut")) == 4
    again = controller(Regression(), steps=6, targeted=True, samples=12)
    again.prepare(planted.session(tmp_path / "cut"))
    for path, logits in whole._draws.policy.logits.items():
        assert torch.equal(logits, again._draws.policy.logits[path])
    assert np.array_equal(history(tmp_path / "whole"), history(tmp_path / "cut"))
    trials = planted.run(whole)
    again.recover(trials[:8])
    assert [p.architecture for p in again.ask(1)] == [trials[8].architecture]
