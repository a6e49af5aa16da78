"""DNAS: checkpoints in the middle of the search, and what it finds where the answer is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rankitect.blocks import Linear
from rankitect.controllers.dnas import DNAS, STATE
from rankitect.controllers.dnas_scores import Scores
from rankitect.controllers.dnas_targets import CostTargets
from rankitect.graph import B, Graph, SearchSpace, Zero
from rankitect.methods.bounded_space import BoundedSpace
from rankitect.models.supernet import Supernet
from rankitect.training.checkpoint import load_state
from tests.tasks.language.tiny import own_cache, parts_of, proposed, study

SMALL = ("controller=dnas", "controller.checkpoint_every=2")


@pytest.fixture(scope="module", autouse=True)
def _one_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with own_cache(tmp_path_factory.mktemp("cache")):
        yield


def failing_at(parts: Any, step: int) -> Any:
    """A task whose process "dies" at a step of the search."""
    plain = parts.task.search_loss

    def search_loss(forward: Any, at: int) -> Any:
        if at == step:
            raise MemoryError("killed")
        return plain(forward, at)

    parts.task.search_loss = search_loss
    return parts


@pytest.mark.parametrize("step", [1, 5])
def test_a_search_that_died_goes_on_from_its_checkpoint(tmp_path: Path, step: int) -> None:
    parts = parts_of(tmp_path, *SMALL)
    whole = study(tmp_path / "whole", parts)
    with pytest.raises(MemoryError):
        study(tmp_path / "run", failing_at(parts_of(tmp_path, *SMALL), step))
    state = tmp_path / "run" / "state" / STATE
    assert load_state(state)[1]["step"] == step // 2 * 2, "a checkpoint every two steps"
    done = study(tmp_path / "run", parts_of(tmp_path, *SMALL))
    assert proposed(tmp_path / "run", parts) == proposed(tmp_path / "whole", parts)
    assert done.summary.ledger.train_tokens == whole.summary.ledger.train_tokens, "no token is charged twice"
    left = sorted(p.name for p in (tmp_path / "whole" / "state").glob("*.safetensors"))
    assert sorted(p.name for p in (tmp_path / "run" / "state").glob("*.safetensors")) == left
    for name in left:
        a, b = (load_file(tmp_path / run / "state" / name) for run in ("run", "whole"))
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a), f"{name} is equal to the bit"


def test_a_stop_in_the_middle_saves_the_step_it_came_at(tmp_path: Path) -> None:
    parts = parts_of(tmp_path, "controller=dnas", "controller.checkpoint_every=1000")
    steps: list[int] = []
    plain = parts.task.search_loss
    parts.task.search_loss = lambda forward, at: (steps.append(at), plain(forward, at))[1]
    assert study(tmp_path / "run", parts, stop=lambda: len(steps) >= 3).ended == "interrupted"
    again = parts_of(tmp_path, "controller=dnas", "controller.checkpoint_every=1000")
    resumed: list[int] = []
    plain_again = again.task.search_loss
    again.task.search_loss = lambda forward, at: (resumed.append(at), plain_again(forward, at))[1]
    study(tmp_path / "run", again)
    assert [*steps, *resumed] == list(range(8)), "no step is lost or done twice"


# --- a space whose best architecture is known -------------------------------------------------------------------------
LOSSES = np.random.default_rng(3).uniform(0, 1, (4, 3))


def planted() -> SearchSpace:
    """Four places in a row, each skipped or a layer with a ReLU or without one: 3^4 architectures."""
    g = Graph("planted")
    x = g.input("x", B, 8)
    for i in range(4):
        with g.inside(f"place{i}"):
            x = x + g.oneof("op", {"none": Zero(), "relu": Linear(8, "relu"), "linear": Linear(8)}, x)
    g.out = Linear(1)(x, name="out")
    return SearchSpace(g)


SPACE = planted()
OPS = list(next(iter(SPACE.choices.values())).values)


def planted_loss(architecture: Any) -> float:
    return float(sum(LOSSES[i, OPS.index(architecture[f"place{i}.op"])] for i in range(4)))


class Planted:
    """A task whose loss is known for each choice; what a forward function would give is ignored."""

    def __init__(self) -> None:
        self.reference = max(
            (SPACE.architecture({f"place{i}.op": op for i in range(4)}) for op in OPS),
            key=lambda a: SPACE.cost(a, "flops"),
        )

    def supernet(self, space: SearchSpace) -> Supernet:
        return Supernet(space)


@pytest.mark.parametrize("budget", [1.0, 0.8, 0.5])
def test_it_finds_the_planted_optimum_at_a_budget(budget: float) -> None:
    """Against brute force over all architectures; losses add up, so the relaxed loss is their expectation."""
    task = Planted()
    scores = Scores(SPACE, "flops", task.reference)
    table = {f"place{i}.op": torch.tensor(LOSSES[i], dtype=torch.float32) for i in range(4)}
    for step in range(60):
        weights = scores.draw(
            float(np.random.default_rng(step).uniform(0.4, 1.0)), 0.3, 1.0, np.random.default_rng(step)
        )
        loss = sum(((w * table[p]).sum() for p, w in weights.items()), torch.zeros(()))
        loss.backward()
        scores.move(weights, 0.3)
    found = scores.discretise(budget, np.random.default_rng(0))
    whole = SPACE.cost(task.reference, "flops")
    all_of_them = [
        SPACE.architecture({f"place{i}.op": op for i, op in enumerate(ops)}) for ops in product(OPS, repeat=4)
    ]
    best = min((a for a in all_of_them if SPACE.cost(a, "flops") <= budget * whole), key=planted_loss)
    assert planted_loss(found) == pytest.approx(planted_loss(best), abs=1e-9)


def test_the_controller_needs_no_more_than_a_supernet_and_a_loss(tmp_path: Path) -> None:
    """Any task with these two can be searched: here a regression that only the first layer's ReLU can fit."""
    torch.manual_seed(0)
    supernet = Supernet(SPACE)
    x = torch.randn(64, 8)
    known = {f"place{i}.op": "none" for i in range(4)}
    best = SPACE.architecture({**known, "place0.op": "relu"})
    with torch.no_grad():
        y = supernet.activate(best)(x)

    class Regression:
        reference = Planted().reference

        def supernet(self, space: SearchSpace) -> Supernet:
            return supernet

        unit = "examples"

        def search_loss(self, forward: Callable[..., torch.Tensor], step: int) -> tuple[torch.Tensor, int]:
            return (forward(x) - y).square().mean(), len(x)

    whole = SPACE.cost(Regression.reference, "flops")
    target = SPACE.cost(best, "flops") / whole + 0.01
    config = DNAS.Config(steps=80, targets=[target], cost="flops", lr=0.3, scale=(0.3, 0.01), weight_lr=0)
    controller = DNAS(config, BoundedSpace(SPACE, {}), Regression(), seed=0, targets=CostTargets("flops", (target,)))
    session = SimpleNamespace(
        state_dir=tmp_path, scalar=lambda *a: None, progress=lambda *a: None, charge=lambda *a: None,
        check=lambda: None, should_stop=lambda: False, remaining=lambda: 1.0, spent=lambda: None,
    )  # fmt: skip
    controller.prepare(session)  # type: ignore[arg-type]
    assert [p.architecture for p in controller.ask(5)] == [best]
    assert controller.ask(5) == []


@pytest.mark.slow
def test_without_constraints_targets_reach_down_to_the_cheapest_architecture(tmp_path: Path) -> None:
    from rankitect.search import search

    words = ["space=ranking_blocks", "controller=dnas", "preset=smoke", "constraints=null", "runner.progress=false"]
    result = search(words, report={"page": False}, output_dir=str(tmp_path / "run"), quiet=True)
    assert result.ended == "finished"
    assert result.summary.pareto


def test_targets_of_another_configuration_are_measured(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second = (*SMALL, "controller.targets=[0.95]"), (*SMALL, "controller.targets=[0.95,0.7]")
    study(tmp_path / "run", parts_of(tmp_path, *first))
    before = proposed(tmp_path / "run", parts_of(tmp_path, *first))
    study(tmp_path / "run", parts_of(tmp_path, *second), forced=1)
    now = proposed(tmp_path / "run", parts_of(tmp_path, *second))
    assert now[: len(before)] == before
    assert all(state == "DONE" for *_, state in now)
    assert {tags["target"] for _, _, tags, _ in now} == {0.95, 0.7}
    study(tmp_path / "run", parts_of(tmp_path, *second), forced=1)
    assert proposed(tmp_path / "run", parts_of(tmp_path, *second)) == now, "nothing is asked for twice"
    missed = {t["target"] for *_, t, _ in now if abs(t.get("reached", t["target"]) - t["target"]) > 0.05 * t["target"]}
    told = [record.getMessage() for record in caplog.records if "was missed" in record.getMessage()]
    assert {target for target in (0.95, 0.7) if any(f"{target:g} of" in text for text in told)} == missed
