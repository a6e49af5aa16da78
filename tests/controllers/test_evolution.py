"""Evolution: fronts, crowding, constraints, and that it finds more than random draws do."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rankitect.contracts import Measurement, Metric, MetricSpec, Trial
from rankitect.controllers.evolution import Evolution
from rankitect.methods.objectives import Objectives, crowding, fronts, ranking
from rankitect.methods.staged import finalists
from tests.controllers import planted
from tests.controllers.planted import COST, QUALITY, SPACE, Task

points = st.integers(1, 12).flatmap(lambda n: arrays(np.float64, (n, 2), elements=st.integers(0, 4).map(float)))


@given(points)
def test_fronts_are_peeled_off_one_by_one(costs: np.ndarray) -> None:
    """Against the definition: a point's front is that of its worst dominator, plus one."""
    rank = fronts(costs)
    for i, a in enumerate(costs):
        above = [int(rank[j]) for j, b in enumerate(costs) if (b <= a).all() and (b < a).any()]
        assert rank[i] == max(above, default=-1) + 1


@given(points)
def test_the_ranking_keeps_fronts_together(costs: np.ndarray) -> None:
    order = ranking(costs)
    assert sorted(order) == list(range(len(costs)))
    assert (np.diff(fronts(costs)[order]) >= 0).all()


def test_crowding_is_the_box_between_neighbours() -> None:
    costs = np.asarray([[0.0, 10.0], [1.0, 6.0], [4.0, 5.0], [5.0, 0.0]])
    found = crowding(costs)
    assert np.isinf(found[[0, 3]]).all()
    assert found[1:3].tolist() == [4 / 5 + 5 / 10, 4 / 5 + 6 / 10]


def test_one_objective_is_ranked_by_its_value() -> None:
    assert ranking(np.asarray([[3.0], [1.0], [np.inf], [2.0]])).tolist() == [1, 3, 0, 2]


def controller(seed: int, objectives: tuple[MetricSpec, ...] = (QUALITY,), **config: object) -> Evolution:
    task = Task(config.pop("limits", None))  # type: ignore[arg-type]
    sizes = {"samples": 40, "population": 10, "tournament": 4, "finalists": 3, **config}
    return Evolution(Evolution.Config(**sizes), "screen", planted.bounded(task), planted.objectives(*objectives), seed)  # type: ignore[arg-type]


def test_it_finds_more_than_random_draws() -> None:
    ours = [planted.best(planted.run(controller(seed))) for seed in range(6)]
    random = [planted.random_best(40, seed) for seed in range(6)]
    assert np.mean(ours) < np.mean(random) - 0.05
    assert min(ours) <= planted.best_loss() + 0.1


def test_with_two_objectives_its_front_covers_more() -> None:
    from rankitect.methods.objectives import hypervolume

    corner = (3.5, 700.0)

    def area(architectures: list[object]) -> float:
        return hypervolume([(planted.loss_of(a), SPACE.cost(a, "flops")) for a in architectures], corner)  # type: ignore[call-overload]

    ours = [
        area([t.architecture for t in planted.run(controller(seed, (QUALITY, COST), samples=60))]) for seed in range(4)
    ]
    random = [area(list(SPACE.sample_many(60, [seed, 99]))) for seed in range(4)]  # type: ignore[arg-type]
    assert np.mean(ours) > np.mean(random)


def test_constraints_hold_and_nothing_comes_twice() -> None:
    limits = {"flops": (300.0, 500.0)}
    trials = planted.run(controller(0, (QUALITY, COST), limits=limits), n=3)
    screened = [t.architecture for t in trials if t.evaluator == "screen"]
    assert len(screened) == len(set(screened)) == 40
    assert all(300 <= SPACE.cost(a, "flops") <= 500 for a in screened)
    final = [t.architecture for t in trials if t.evaluator == "final"]
    assert len(final) == 3
    assert set(final) <= set(screened)


def test_failures_are_no_parents() -> None:
    found = controller(0, samples=12, population=4)
    architectures = []
    while (proposals := found.ask(1)) and proposals[0].evaluator == "screen":
        number = len(architectures) + 1
        made = proposals[0].architecture
        architectures.append(made)
        failed = number % 2 == 0
        result = None if failed else planted.measurement(made)
        state = "FAILED" if failed else "DONE"
        found.tell([Trial(number, number, 1, made, "screen", 0, proposals[0].tags, state, result)])
        if (parent := proposals[0].tags["parent"]) is not None:
            assert parent not in [a.fingerprint[:8] for a in architectures[1::2]]


def test_it_begins_with_what_the_space_knows_within_the_constraints() -> None:
    from rankitect.methods.bounded_space import BoundedSpace

    space = planted.planted()
    drawn = list(dict.fromkeys(space.sample_many(6, 1)))
    space.points.update({f"known{i}": a for i, a in enumerate([*drawn, drawn[0]])})
    costs = [space.cost(a, "flops") for a in drawn]
    bounded = BoundedSpace(space, {"flops": (min(costs), sorted(costs)[-2])})
    within = [a for a, cost in zip(drawn, costs, strict=True) if cost < max(costs)]

    def first(count: int, **config: object) -> list[object]:
        sizes: dict[str, object] = {"samples": 40, "population": 10, **config}
        search = Evolution(Evolution.Config(**sizes), "screen", bounded, planted.objectives(QUALITY), 0)  # type: ignore[arg-type]
        return [proposal.architecture for proposal in search.ask(count)]

    assert first(len(within)) == within
    assert first(len(within), known=False) != within
    assert len(set(first(12))) == 12


def test_recovering_equals_going_on() -> None:
    whole = planted.run(controller(5))
    fresh = controller(5)
    fresh.recover(whole[:25])
    assert [p.architecture for p in fresh.ask(1)] == [whole[25].architecture]
    fresh = controller(5)
    fresh.recover(whole[:41])
    assert [p.architecture for p in fresh.ask(5)] == [t.architecture for t in whole[41:]]


def test_the_best_finalists_are_scaled_when_they_are_known() -> None:
    larger = {a.fingerprint: a for a in SPACE.sample_many(60, 9)}

    class Scaling(Evolution):
        def scaled(self, architecture: Any) -> list[Any]:
            asked.append(architecture)
            return list(larger.values())[len(asked) - 1 :: 30]

    def scaling() -> Evolution:
        config = Evolution.Config(samples=30, population=10, finalists=4)
        return Scaling(config, "screen", planted.bounded(Task()), planted.objectives(QUALITY), 0)

    asked: list[Any] = []
    whole = planted.run(scaling())
    finals = [t.architecture for t in whole if t.evaluator == "final"]
    order = sorted(finals[:4], key=planted.loss_of)
    assert asked == order[:2]
    assert len(finals) > 4
    assert set(finals[4:]) <= set(larger.values())
    for done in (30, 34, len(whole) - 1):
        asked = []
        fresh = scaling()
        fresh.recover(whole[:done])
        assert [p.architecture for p in fresh.ask(1)] == [whole[done].architecture]


def test_a_proxy_stands_in_for_quality() -> None:
    score = MetricSpec("score", "", "max", "quality")
    objectives = Objectives((QUALITY, COST), score)
    measured = Measurement({"score": Metric(3.0, ""), "flops": Metric(7.0, "FLOP")})
    assert objectives.costs(measured) == [-3.0, 7.0]
    assert objectives.costs(Measurement({"loss": Metric(0.5, "nat")})) == [0.5]


def test_finalists_are_no_close_relatives_and_different_functions() -> None:
    best = SPACE.architecture({f"place{i}.{k}": v for i in range(5) for k, v in {"op": "relu", "width": 8}.items()})
    near = [SPACE.architecture({**best.choices, "place0.width": w}) for w in (6, 4)]
    far = [
        SPACE.architecture({**best.choices, **{f"place{i}.op": "linear" for i in places}})
        for places in ((0, 1, 2), (2, 3, 4))
    ]
    losses = [0.1, 0.11, 0.12, 0.2, 0.2]
    trials = [
        Trial(i, i, 1, a, "screen", 0, {}, "DONE", Measurement({"loss": Metric(loss, "nat")}))
        for i, (a, loss) in enumerate(zip([best, *near, *far], losses, strict=True), start=1)
    ]
    chosen = finalists(trials, planted.objectives(QUALITY), 3)
    assert [t.number for t in chosen] == [1, 4, 2], "the second of two equal losses is the same function as the first"


def test_finalists_are_spread_over_the_cost() -> None:
    drawn = list(dict.fromkeys(SPACE.sample_many(30, 0)))
    trials = [Trial(i, i, 1, a, "screen", 0, {}, "DONE", planted.measurement(a)) for i, a in enumerate(drawn, start=1)]
    chosen = finalists(trials, planted.objectives(QUALITY, COST), 4)
    costs = [SPACE.cost(t.architecture, "flops") for t in chosen]
    assert costs == sorted(costs)
    low, high = (f(SPACE.cost(drawn, "flops")) for f in (np.min, np.max))
    halves = [min(int((c - low) / (high - low) * 2), 1) for c in costs]
    losses = [planted.loss_of(a) for a in drawn]
    lower = [loss for a, loss in zip(drawn, losses, strict=True) if SPACE.cost(a, "flops") < (low + high) / 2]
    upper = [loss for a, loss in zip(drawn, losses, strict=True) if SPACE.cost(a, "flops") >= (low + high) / 2]
    found = [planted.loss_of(t.architecture) for t in chosen]
    assert set(halves) == {0, 1}
    assert min(lower) in found
    assert min(upper) in found
    assert sorted(found)[:2] == sorted(losses)[:2], "the other two are the best of all"
    alone = finalists(trials, planted.objectives(QUALITY), 4)
    assert {planted.loss_of(t.architecture) for t in alone} == set(sorted(map(planted.loss_of, drawn))[:4])
