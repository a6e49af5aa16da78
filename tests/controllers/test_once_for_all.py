"""A network for every budget, taken from weights that were trained once."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import rankitect
from rankitect.config.quantities import Amounts
from rankitect.contracts import Measurement, Metric, Trial, TrialContext
from rankitect.controllers.once_for_all import OnceForAll
from rankitect.errors import ConfigError, SpaceError
from rankitect.evaluators.trained import TrainedFromScratch
from rankitect.methods.bounded_space import BoundedSpace
from rankitect.methods.once_for_all.budgets import _rounded_up, budgets_of
from rankitect.methods.once_for_all.taken import TakenAsTheyAre
from rankitect.methods.supernet_search import Draws
from rankitect.models.candidate import load_ranker
from rankitect.study.summary import MetricSummary, ObjectiveSummary, Summary, read_summary
from rankitect.tasks.costs import ranking_costs
from tests.controllers import planted
from tests.controllers.planted import COST, QUALITY, SPACE, Regression

SMALL: dict[str, Any] = {"steps": 60, "weight_lr": 0.02, "samples": 40, "population": 10, "tournament": 3}
RANKERS = ["space=ranking_engineered", "task=ranking", "controller=once_for_all", "preset=smoke", "report.page=false"]


class Bounded(Regression):
    """With costs to bound."""

    def limits(self, constraints: Any = None) -> dict[str, tuple[float, float]]:
        if constraints is None:
            return {}
        for name in constraints:
            if name != "flops":
                raise ConfigError(f"constraints: there is no cost {name!r}. Allowed: flops.")
        return {name: (bounds.low, bounds.high) for name, bounds in constraints.items()}


def once_for_all(task: Any, budgets: Any, **keys: Any) -> OnceForAll:
    config = OnceForAll.Config(**{**SMALL, **keys}, budgets=budgets)
    bounded = planted.bounded(task)
    made = budgets_of(config.budgets, bounded, task, 0)
    return OnceForAll(config, made, "screen", bounded, planted.objectives(QUALITY, COST), task, 0)


def test_every_budget_gets_the_best_network_that_was_measured_within_it(tmp_path: Path) -> None:
    task = Bounded()
    found = once_for_all(task, [{"flops": "..300"}, {"flops": "..500"}, {"flops": "300..900"}])
    session = planted.session(tmp_path)
    session.logger = logging.getLogger("rankitect.tests")
    found.prepare(session)
    trials = planted.run(found, measure=task.measurement)
    screened = [t for t in trials if t.evaluator == "screen"]
    assert len(screened) == 40
    assert {t.tags["budget"] for t in screened} == {b.name for b in found.budgets}
    assert [b.name for b in found.budgets] == ["flops up to 300", "flops up to 500", "flops 300 to 900"]
    for trial in screened:
        assert next(b for b in found.budgets if b.name == trial.tags["budget"]).meets(trial.architecture)
    final = {t.architecture.fingerprint for t in trials if t.evaluator == "final"}
    assert 1 <= len(final) <= 3
    specialised = found.specialised(trials)
    assert [s.budget for s in specialised] == [b.name for b in found.budgets]
    assert {s.fingerprint for s in specialised} == final
    for budget, network in zip(found.budgets, specialised, strict=True):
        within = [t for t in screened if budget.meets(t.architecture)]
        best = min(within, key=lambda t: t.measurement.metrics["loss"].value)  # type: ignore[union-attr]
        assert network.fingerprint == best.architecture.fingerprint
    assert [s.fingerprint for s in found.specialised([])] == [None] * 3


def test_a_resumed_search_proposes_what_an_undisturbed_one_would(tmp_path: Path) -> None:
    def made() -> tuple[OnceForAll, Bounded]:
        task = Bounded()
        task.adopt(task.supernet(SPACE))
        return once_for_all(task, 3), task

    whole, task = made()
    trials = planted.run(whole, measure=task.measurement)
    again, task = made()
    again.recover(trials[:17])
    rest = planted.run(again, measure=task.measurement)
    assert [t.architecture for t in trials[:17]] + [t.architecture for t in rest] == [t.architecture for t in trials]


def test_a_number_of_budgets_is_spread_over_the_costs_of_the_space() -> None:
    budgets = budgets_of(4, BoundedSpace(SPACE, {}), Bounded(), 0)
    ends = [budget.bounded.limits["flops"][1] for budget in budgets]
    assert ends == sorted(ends)
    assert ends[-1] >= max(SPACE.cost(SPACE.sample_many(400, 1), "flops"))  # type: ignore[arg-type]
    ratios = [b / a for a, b in pairwise(ends)]
    assert max(ratios) < 1.1 * min(ratios), "each is larger than the one before by the same factor"


def test_the_ends_of_a_number_of_budgets_are_rounded_up() -> None:
    cheapest, dearest = (BoundedSpace(SPACE, {}).extreme("flops", m, np.random.default_rng(0)) for m in (False, True))
    low, high = SPACE.cost(cheapest, "flops"), SPACE.cost(dearest, "flops")
    for count in (1, 3, 12):
        budgets = budgets_of(count, BoundedSpace(SPACE, {"flops": (low, high)}), Bounded(), 0)
        assert all(budget.meets(budget.largest) for budget in budgets)
        assert SPACE.cost(budgets[-1].largest, "flops") == high
    assert [_rounded_up(each) for each in (1234.0, 1230.0, 999.4, 0.123401, 17.0)] == [
        1240.0,
        1230.0,
        1000.0,
        0.124,
        17.0,
    ]


def test_a_budget_that_few_networks_meet_is_met_before_and_after_training(monkeypatch: pytest.MonkeyPatch) -> None:
    few = float(np.quantile(SPACE.cost(SPACE.sample_many(2000, 1), "flops"), 0.003))  # type: ignore[call-overload]
    monkeypatch.setattr("rankitect.space.sampling.ROUNDS", 1)
    monkeypatch.setattr("rankitect.space.sampling.LONGEST", 1)
    with pytest.raises(SpaceError):
        SPACE.sample_many(64, 0, flops=(0, few))
    found = once_for_all(Bounded(), [{"flops": f"..{few:g}"}], samples=3)
    proposed = found.propose(0, np.random.default_rng(0))
    assert proposed is not None
    assert proposed[0] == found.budgets[0].largest
    assert found.budgets[0].meets(proposed[0])
    narrow = Draws(BoundedSpace(SPACE, {"flops": (0, few)}), 0)
    assert SPACE.cost(narrow.drawn(3), "flops") <= few, "and so are constraints that are as narrow"


@pytest.mark.parametrize(
    ("budgets", "told"),
    [
        ([{"flops": Amounts(high=500)}, {"flops": Amounts(high=2)}], r"controller.budgets\[1\]: no network meets it"),
        ([{"flop": Amounts(high=500)}], r"controller.budgets\[0\]: there is no cost 'flop'"),
    ],
)
def test_a_budget_that_cannot_be_met_is_refused(budgets: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        budgets_of(budgets, BoundedSpace(SPACE, {}), Bounded(), 0)
    assert len(str(caught.value)) <= 500


def test_a_latency_budget_without_a_device_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    keys = ["space=mobile_llm", "controller=once_for_all", "preset=smoke", f"output_dir={tmp_path / 'run'}"]
    with pytest.raises(ConfigError, match=r"controller.budgets\[0\].*'prefill_ms'.*add device=host"):
        rankitect.search([*keys, "controller.budgets=[{prefill_ms: ..5}]"], quiet=True)
    with pytest.raises(ConfigError, match=r"controller\.budgets"):
        rankitect.search([*keys, "controller.budgets=[{params: [2,1]}]"], quiet=True)


def test_rankers_are_taken_as_they_are_and_stay_with_the_front(tmp_path: Path) -> None:
    result = rankitect.search([*RANKERS, f"output_dir={tmp_path / 'run'}", "confirm.seeds=1"], quiet=True)
    summary = read_summary(result.folder)
    assert [b.name.partition(" up to ")[0] for b in summary.budgets] == ["flops", "flops"]
    ranks = {c.fingerprint: c for c in summary.pareto}
    smallest, largest = (ranks[b.fingerprint or ""] for b in summary.budgets)
    assert smallest.metrics["flops"].value < largest.metrics["flops"].value
    trained = summary.ledger.stages
    assert trained["trials"].train_examples == 0, "nothing is trained after the shared weights"
    assert trained["prepare"].train_examples > 0
    assert summary.baselines[0].metrics["normalized_entropy"].value > 0, "and baselines are trained as ever"
    model = load_ranker(result.folder / smallest.folder)
    assert sum(p.numel() for p in model.model.parameters()) == smallest.metrics["params"].value


def test_networks_that_a_budget_keeps_are_not_counted_to_the_front() -> None:
    def candidate(loss: float, flops: float) -> Any:
        quality = MetricSummary(value=loss, unit="nat", role="quality")
        return SimpleNamespace(metrics={"loss": quality, "flops": MetricSummary(value=flops, unit="FLOP", role="cost")})

    both = (QUALITY, COST)
    objectives = [ObjectiveSummary(name=o.name, unit=o.unit, direction=o.direction, role=o.role) for o in both]
    pareto = [candidate(1, 5), candidate(2, 5), candidate(2, 1), SimpleNamespace(metrics={})]
    assert Summary.model_construct(objectives=objectives, pareto=pareto).undominated == 2


def test_a_recipe_and_a_latency_are_refused_where_a_task_has_neither(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"finetune=true.*and evaluator.final.name=trained runs none"):
        rankitect.search([*RANKERS, f"output_dir={tmp_path / 'run'}", "controller.finetune=true"], quiet=True)
    with pytest.raises(ConfigError, match="Latencies are not predicted for models of this task") as caught:
        ranking_costs(SPACE, SPACE.sample(0)).limits({"image_ms": Amounts(high=5)})
    assert "device=host" in str(caught.value)
    assert len(str(caught.value)) <= 500


def test_baselines_are_trained_for_as_many_steps_as_the_shared_weights() -> None:
    class Counting:
        name, metrics = "steps", [QUALITY]

        def __init__(self, steps: int) -> None:
            self.steps = steps

        def lasting(self, steps: int) -> Any:
            return Counting(max(steps, self.steps))

        def measure(self, architecture: Any, context: Any) -> Measurement:
            return Measurement({"loss": Metric(self.steps, "nat")})

    task = SimpleNamespace(taking=lambda examples: nullcontext([]))
    for steps, expected in ((70, 70), (5, 20)):
        taking = TakenAsTheyAre(Counting(20), task, 8, steps)  # type: ignore[arg-type]
        own, baseline = (
            taking.measure(SPACE.sample(0), TrialContext(Path(), Path(), 0, baseline=each)).metrics["loss"].value
            for each in (False, True)
        )
        assert (own, baseline) == (20, expected)
    trained = TrainedFromScratch(TrainedFromScratch.Config(steps=20), Regression(), SPACE)  # type: ignore[arg-type]
    assert trained.lasting(70)._config.steps == 70
    assert trained.lasting(5)._config == trained._config


def test_baselines_are_neither_proposed_nor_taken_for_networks_of_budgets(tmp_path: Path) -> None:
    task = Bounded()
    found = once_for_all(task, 2, steps=0, samples=5)
    largest = found.propose(1, np.random.default_rng(0))
    assert largest is not None
    architecture = largest[0]
    measured = planted.measurement(architecture)
    trial = Trial(1, 1, 1, architecture, "final", 0, {}, "DONE", measured, baseline="backbone")
    assert [s.fingerprint for s in found.specialised([trial])] == [None, None]
    session = planted.session(tmp_path)
    session.trials = [trial]
    found.prepare(session)
    proposed = planted.run(found, measure=planted.measurement)
    assert proposed
    assert architecture not in [t.architecture for t in proposed]
