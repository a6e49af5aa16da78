"""A space whose best architecture is known, and a study in miniature, so that methods can be compared in seconds."""

from __future__ import annotations

from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np

from rankitect.blocks import Linear
from rankitect.contracts import Measurement, Metric, MetricSpec, Trial
from rankitect.graph import B, Graph, SearchSpace, Zero
from rankitect.methods.bounded_space import BoundedSpace
from rankitect.methods.objectives import Objectives
from rankitect.models.supernet import Supernet, build

PLACES = 5
QUALITY, COST = MetricSpec("loss", "nat", "min", "quality"), MetricSpec("flops", "FLOP", "min", "cost")
LOSSES = np.random.default_rng(3).uniform(0, 1, (PLACES, 4))
WIDTHS = [8, 6, 4, 2]


def planted() -> SearchSpace:
    """Five places in a row, each skipped or a layer of one of four widths with a ReLU or without: 9^5 architectures."""
    g = Graph("planted")
    x = g.input("x", B, 8)
    for i in range(PLACES):
        with g.inside(f"place{i}"):
            w = g.choice("width", WIDTHS)

            def layer(x: Any, act: str = "none", w: Any = w) -> Any:
                return Linear(8)(Linear(w, act)(x, name="up"), name="down")

            x = x + g.oneof("op", {"none": Zero(), "relu": lambda x, f=layer: f(x, "relu"), "linear": layer}, x)
    g.out = Linear(1)(x, name="out")
    return SearchSpace(g)


SPACE = planted()


def loss_of(architecture: Any) -> float:
    """What each place adds, a little more for narrow layers; at least 0.05."""
    total = 0.05
    for i in range(PLACES):
        op = architecture[f"place{i}.op"]
        narrow = WIDTHS.index(architecture[f"place{i}.width"]) if op != "none" else 0
        total += LOSSES[i, ["none", "relu", "linear"].index(op)] + 0.05 * narrow
    return float(total)


def best_loss() -> float:
    """Of all architectures: losses add up over places."""
    return float(0.05 + LOSSES[:, :3].min(1).sum())


class Task:
    """What methods may ask of a task, without weights."""

    unit = "examples"

    def __init__(self, limits: dict[str, tuple[float, float]] | None = None) -> None:
        wide = {f"place{i}.{k}": v for i, (k, v) in product(range(PLACES), {"op": "relu", "width": 8}.items())}
        self.reference = SPACE.architecture(wide)
        self._limits = limits or {}

    def limits(self) -> dict[str, tuple[float, float]]:
        return self._limits

    @property
    def cost_specs(self) -> list[MetricSpec]:
        return [MetricSpec("flops", "FLOP", "min", "cost")]

    def costs(self, architecture: Any) -> dict[str, Metric]:
        return {"flops": Metric(SPACE.cost(architecture, "flops"), "FLOP")}


class Regression(Task):
    """The same with weights to share: the outputs of one architecture are learnt from batches of 32 that drift.

    `noise` is the largest spread of what no model can know, which differs from batch to batch.
    """

    def __init__(self, noise: float = 0.0) -> None:
        super().__init__()
        import torch

        self.adopted: Any = None
        self.noise = noise
        self.teacher = build(SPACE, self.reference, seed=7)
        self.steps: list[int] = []
        self._fixed = self._batch(10**6, 256)
        torch.manual_seed(0)

    def _batch(self, step: int, size: int = 32) -> tuple[Any, Any]:
        import torch

        draw = torch.Generator().manual_seed(step)
        x = torch.randn(size, 8, generator=draw)
        spread = float(torch.rand((), generator=draw)) * self.noise
        with torch.no_grad():
            return x, self.teacher(x) + spread * torch.randn(size, 1, generator=draw)

    def supernet(self, space: Any) -> Supernet:
        return Supernet(space, seed=1)

    def train_loss(self, model: Any, step: int) -> tuple[Any, int]:
        self.steps.append(step)
        x, y = self._batch(step)
        return (model(x) - y).square().mean(), len(x)

    def search_loss(self, forward: Any, step: int) -> tuple[Any, int]:
        x, y = self._batch(10**5 + step)
        return (forward(x) - y).square().mean(), len(x)

    def adopt(self, supernet: Any) -> None:
        self.adopted = supernet

    @property
    def inherited(self) -> Any:
        return self.adopted

    def quality(self, model: Any) -> float:
        import torch

        x, y = self._fixed
        with torch.no_grad():
            return float((model(x) - y).square().mean())

    def measurement(self, architecture: Any) -> Measurement:
        """With inherited weights."""
        loss = self.quality(self.adopted.activate(architecture))
        return Measurement({"loss": Metric(loss, "nat"), **self.costs(architecture)})


def bounded(task: Any) -> BoundedSpace:
    return BoundedSpace(SPACE, task.limits())


def objectives(*specs: MetricSpec) -> Objectives:
    return Objectives(specs or (QUALITY,), (specs or (QUALITY,))[0])


def measurement(architecture: Any) -> Measurement:
    values = {"loss": Metric(loss_of(architecture), "nat"), "flops": Metric(SPACE.cost(architecture, "flops"), "FLOP")}
    return Measurement(values)


def run(controller: Any, n: int = 1, measure: Any = measurement) -> list[Trial]:
    """All trials of a search, measured as planted."""
    trials: list[Trial] = []
    batch = 0
    while proposals := controller.ask(n):
        batch += 1
        told = [
            Trial(
                len(trials) + i + 1, batch, n, p.architecture, p.evaluator, 0, p.tags, "DONE", measure(p.architecture)
            )
            for i, p in enumerate(proposals)
        ]
        controller.tell(told)
        trials += told
    return trials


def best(trials: list[Trial]) -> float:
    return min(loss_of(t.architecture) for t in trials)


def random_best(samples: int, seed: int) -> float:
    """What uniform draws find."""
    return min(loss_of(a) for a in SPACE.sample_many(samples, [seed, 99]))  # type: ignore[arg-type]


def session(folder: Any) -> Any:
    """A study's session that records charges."""
    charged: dict[str, Any] = {}
    return SimpleNamespace(
        state_dir=folder, scalar=lambda *a: None, progress=lambda *a: None, charge=charged.__setitem__, trials=[],
        check=lambda: None, should_stop=lambda: False, remaining=lambda: 1.0, remaining_trials=lambda: 1.0,
        charged=charged,
        logger=SimpleNamespace(info=lambda *a: None),
    )  # fmt: skip
