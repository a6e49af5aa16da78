"""The latency of architectures on a device: composed of their layers', of which a model is learned first.

A search space has few different layers and very many models. Each measured layer is exported once; a Gaussian process
on a linear prior predicts the layers that were not measured; a model's latency is the sum over its layers and of what
stands around them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rankitect.contracts import Metric, MetricSpec
from rankitect.deploy.latency_model import NORMAL, LatencyModel
from rankitect.deploy.layer_learning import LayerLearning, LearnedLayers, PartTimer
from rankitect.deploy.layers import Layer, Place, SpaceLayers
from rankitect.deploy.parts import Workload, parts_of
from rankitect.models.plan import make_plan
from rankitect.space.expr import as_expr
from rankitect.space.repeats import LAYERS, repeats
from rankitect.space.tables import JointTable, TabulatedExpr, joint_grid

if TYPE_CHECKING:
    from rankitect.graph import Architecture, SearchSpace

__all__ = ["Latency", "Predicted"]

COMPOSED: Mapping[str, float] = {"prefill": 0.021, "decode": 0.05}
"""Deviation of a whole program from the sum of its parts, relative to it, by what is called: 1.7% and 4.0% are the mean
absolute errors of predictions in docs/results/latency.md, and those of a normal distribution are 0.8 deviations."""


@dataclass(frozen=True)
class Predicted:
    """A predicted latency.

    Attributes:
        ms: Milliseconds.
        low: Lower end of the 95% interval.
        high: Upper end.
    """

    ms: float
    low: float
    high: float


class Latency:
    """Latencies of a space's architectures on a device.

    Args:
        device: What times parts.
        space: The search space.
        workloads: What is timed, by the names under which latencies are reported.
        measurements: Layers measured at most, for each workload.
        target: Cross-validated error, percent, at which measuring ends.
        seed: Seed of the draws that enumerate layers.
        say: Called with a sentence about what happens.
    """

    def __init__(
        self,
        device: PartTimer,
        space: SearchSpace,
        workloads: Mapping[str, Workload],
        *,
        measurements: int = 48,
        target: float = 2.0,
        seed: int = 0,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.device, self.space, self.workloads = device, space, dict(workloads)
        self._say = say
        self._layers = SpaceLayers(space, seed)
        self._learning = LayerLearning(device, self._layers, measurements, target, seed, say)
        self._learned: dict[str, LearnedLayers] = {}

    @property
    def excluded(self) -> list[str]:
        """What could not be measured, or not well, as sentences."""
        return self._learning.excluded

    @property
    def specs(self) -> list[MetricSpec]:
        """The latencies as metrics, ms."""
        return [MetricSpec(name, self._unit, "min", "cost") for name in self.workloads]

    @property
    def _unit(self) -> str:
        return "ms (estimate)" if self.device.estimate else "ms"

    def metrics(self, architecture: Architecture) -> dict[str, Metric]:
        """The predicted latencies of an architecture, with their intervals."""
        predicted = {name: self.predict(architecture, name) for name in self.workloads}
        return {
            name: Metric(p.ms, self._unit, len(self._learned[name].measured), (p.low, p.high))
            for name, p in predicted.items()
        }

    def learn(
        self,
        name: str,
        check: Callable[[], None] = lambda: None,
        progress: Callable[[int, int, str], None] | None = None,
    ) -> LatencyModel:
        """Measure layers until the model of a workload is good enough; later calls give what was learned.

        Args:
            name: The workload.
            check: Called between measurements; raises to stop. What was measured is kept.
            progress: Told measurements made, measurements at most, and a note; by default each is said.
        """
        if name not in self._learned:
            self._learned[name] = self._learning.learn(name, self.workloads[name], check, progress or self._tell)
        return self._learned[name].model

    def _tell(self, done: int, most: int, note: str) -> None:
        self._say(f"{note}, {done} of at most {most}")

    def measured(self, name: str) -> int:
        """How many layers were measured for a workload."""
        self.learn(name)
        return len(self._learned[name].measured)

    def error(self, name: str) -> float:
        """Cross-validated error of a workload's layers, percent."""
        self.learn(name)
        return self._learned[name].error

    def predict(self, architecture: Architecture, name: str) -> Predicted:
        """The latency of an architecture under a workload, and the interval of a measurement of its whole program.

        The interval holds the errors of the layers that are predicted, those of the ones that were measured, and the
        difference between a program and the sum of its parts.
        """
        numbered = self._layers.of(architecture)
        known = self.of_layers(name, {layer: (architecture, i) for i, layer in numbered.items()})
        parts = [self._around(name, architecture), *(known[layer] for layer in numbered.values())]
        total = sum(ms for ms, _ in parts)
        # Equal layers err alike, so standard deviations add up, not variances.
        composed = 0.0 if self.device.estimate else COMPOSED[self.workloads[name].mode] * total
        spread = NORMAL * float(np.hypot(sum(std for _, std in parts), composed))
        calls = self._learned[name].call * len(numbered)
        return Predicted(total, max(0.0, total - calls - spread), total + spread)

    def of_layers(self, name: str, places: Mapping[Layer, Place]) -> Mapping[Layer, tuple[float, float]]:
        """Milliseconds of layers under a workload with their standard deviations: as measured, or else as predicted.

        Args:
            name: The workload.
            places: For each layer an architecture and the number under which it has it.
        """
        self.learn(name)
        learned, workload = self._learned[name], self.workloads[name]
        new = [layer for layer in places if layer not in learned.known]
        if new:
            where = [places[layer] for layer in new]
            prior = self._layers.readings(where, workload) @ learned.weights
            predicted = learned.model.predict(self._layers.features(new, where, workload), prior)
            learned.known |= {
                layer: learned.measured.get(layer, (float(m), float(s)))
                for layer, m, s in zip(new, predicted.mean, predicted.std, strict=True)
            }
        return learned.known

    def around(self, name: str, architecture: Architecture) -> float:
        """Milliseconds of what stands around the layers, measured once for each choice that it has."""
        return self._around(name, architecture)[0]

    def _around(self, name: str, architecture: Architecture) -> tuple[float, float]:
        self.learn(name)
        around = self._learned[name].around
        shared = Layer(tuple(sorted(self._layers.outside(architecture).items())))
        if shared not in around:
            part = parts_of(make_plan(self.space, architecture), self.workloads[name])[-1]
            timing = self.device.part(part)
            around[shared] = timing.p50, self._learning.deviation(timing)
        return around[shared]

    def tables(self, name: str) -> TabulatedExpr:
        """A workload's latency as a cost of the space: a table for each layer over its choices.

        So it bounds draws and changes, and its expectation is exact under independent choices and differentiable in
        their probabilities, like that of any reading of the graph.

        Args:
            name: The workload.
        """
        choices = self._layers.choices
        shared = tuple(p for p in choices if not p.startswith(f"{LAYERS}."))
        felt = tuple(p for p in shared if p in self._layers.felt)
        numbers = repeats(choices)
        grids: dict[Any, NDArray[np.float64]] = {}
        tables = []
        for i in numbers:
            paths = (*felt, *(p for p in choices if p.startswith(f"{LAYERS}.{i}.")))
            # Layers that have the same choices with the same values have the same table.
            alike = tuple((p.replace(f"{LAYERS}.{i}.", ""), repr(choices[p].values)) for p in paths)
            if alike not in grids:
                grids[alike] = self._grid(name, i, paths)
            tables.append(JointTable(paths, grids[alike]))
        rest = [self.around(name, a) for a in self._joint(shared)]
        if len(rest) > 1:
            tables.append(JointTable(shared, np.reshape(rest, [len(choices[p].values) for p in shared])))
        return TabulatedExpr(rest[0] if len(rest) == 1 else 0.0, tuple(tables), as_expr(0), self.space.defaults)

    def _grid(self, name: str, i: int, paths: Sequence[str]) -> NDArray[np.float64]:
        """Milliseconds of a layer for all joint values of choices; 0 where it does not run."""
        with_layer = [(self._layers.of(a).get(i), a) for a in self._joint(paths)]
        known = self.of_layers(name, {layer: (a, i) for layer, a in with_layer if layer is not None})
        ms = [0.0 if layer is None else known[layer][0] for layer, _ in with_layer]
        return np.reshape(np.asarray(ms), [len(self.space.choices[p].values) for p in paths])

    def _joint(self, paths: Sequence[str]) -> list[Architecture]:
        """An architecture for each joint value of choices, the others at their first values."""
        choices = self.space.choices
        grid = joint_grid(choices, paths)
        shape = [len(choices[p].values) for p in paths]
        count = int(np.prod(shape))
        columns = {
            p: np.broadcast_to(grid[p], shape).reshape(-1) if p in grid else np.zeros(count, int) for p in choices
        }
        return self.space.decode(self.space.canonical(columns))
