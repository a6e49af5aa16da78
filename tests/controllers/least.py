"""The least that a search can be made of: a task that is a number, a space, and an evaluator of one's own."""

from __future__ import annotations

from typing import Any, ClassVar

from rankitect.blocks import Linear
from rankitect.contracts import Measurement, Metric, MetricSpec, Spent, plugin
from rankitect.graph import B, Graph, SearchSpace


@plugin
def task(steps: int = 3) -> int:
    """How long a model trains."""
    return steps


def space() -> SearchSpace:
    """Perceptrons of open width and depth."""
    g = Graph("least")
    x, width, depth = g.input("x", B, 4), g.choice("width", [8, 4, 2]), g.choice("depth", [3, 2, 1])
    h = g.repeat("mlp", depth, lambda i, h: Linear(width, "relu")(h, name="linear"), Linear(width)(x, name="first"))
    g.out = Linear(1)(h, name="out")
    return SearchSpace(g)


class Measured:
    """A made-up loss that falls with size, and the size."""

    name = "a made-up loss"
    metrics: ClassVar = [MetricSpec("loss", "nat", "min", "quality"), MetricSpec("flops", "FLOP", "min", "cost")]

    def __init__(self, space: SearchSpace, steps: Any) -> None:
        self._space, self._steps = space, steps

    @classmethod
    def from_config(cls, config: Any, parts: Any) -> Measured:
        return cls(parts.space, parts.task)

    def measure(self, architecture: Any, context: Any) -> Measurement:
        flops = float(self._space.cost(architecture, "flops"))
        values = {"loss": Metric(1 / flops, "nat"), "flops": Metric(flops, "FLOP")}
        return Measurement(values, Spent(train_examples=self._steps))
