"""The latency of architectures on a device: composed of their layers', of which a model is learned first.

A search space has few different layers and very many models. Each measured layer is exported once; a Gaussian process
on a linear prior predicts the layers that were not measured; a model's latency is the sum over its layers and of what
stands around them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rankitect.contracts import Metric, MetricSpec
from rankitect.deploy.latency_model import LatencyModel, space_filling
from rankitect.deploy.layers import Layer, Place, SpaceLayers
from rankitect.deploy.parts import Part, Workload, parts_of
from rankitect.errors import DeployError
from rankitect.models.plan import make_plan
from rankitect.space.expr import as_expr
from rankitect.space.repeats import LAYERS, repeats
from rankitect.space.tables import Table, Tables, joint_grid

if TYPE_CHECKING:
    from rankitect.deploy.timing import Timing
    from rankitect.graph import Architecture, SearchSpace

__all__ = ["Latency", "PartTimer", "Predicted"]

FIRST, STEP = 12, 6
"""Layers measured before the first model, and between two models."""


class PartTimer(Protocol):
    """What times the parts of a model: a device's processor, or a formula."""

    name: str
    estimate: bool
    """Whether it computes times instead of measuring them."""

    @property
    def identity(self) -> Mapping[str, str]:
        """What times depend on beside the part, such as the processor and the runtime's version."""
        ...

    def part(self, part: Part) -> Timing:
        """Time one part, or give the time that was measured earlier."""
        ...


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


@dataclass
class _Learned:
    """What is known of one workload.

    Attributes:
        model: Predicts layers.
        weights: Of the readings in the prior, [5].
        measured: Milliseconds of the layers that were timed.
        error: Cross-validated error of the model, percent.
        around: Milliseconds of what stands around the layers, by the choices that it has.
        known: Mean and standard deviation of every layer that was asked for, milliseconds.
    """

    model: LatencyModel
    weights: NDArray[np.float64]
    measured: dict[Layer, float]
    error: float
    around: dict[Layer, float] = field(default_factory=dict)
    known: dict[Layer, tuple[float, float]] = field(default_factory=dict)


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
        self.measurements, self.target, self._seed = measurements, target, seed
        self._say = say
        self._layers = SpaceLayers(space, seed)
        self._learned: dict[str, _Learned] = {}
        self.excluded: list[str] = []

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
            self._learned[name] = self._learn(name, check, progress or self._tell)
        return self._learned[name].model

    def _tell(self, done: int, most: int, note: str) -> None:
        self._say(f"{note}, {done} of at most {most}")

    def _learn(self, name: str, check: Callable[[], None], progress: Callable[[int, int, str], None]) -> _Learned:
        workload, layers = self.workloads[name], list(self._layers.places)
        places = [self._layers.places[layer] for layer in layers]
        table, readings = self._layers.features(layers, places, workload), self._layers.readings(places, workload)
        times: dict[int, float] = {}
        failed: set[int] = set()

        def measure(rows: Sequence[int]) -> None:
            for row in rows:
                check()
                try:
                    timing = self.device.part(self._layers.part(layers[row], workload))
                except DeployError as error:
                    failed.add(row)
                    self.excluded.append(f"{name}, layer {dict(layers[row].choices)}: {error}")
                    if len(failed) > len(times) + 3:  # not one layer's fault: the device cannot run this space
                        raise
                    continue
                if not timing.trusted:
                    self.excluded.append(f"{name}, layer {dict(layers[row].choices)}: did not settle, or machine busy")
                times[row] = timing.p50
                progress(len(times), self.measurements, f"{name}: a layer took {timing.p50:.3g} ms")

        most = min(self.measurements, len(layers))
        measure(space_filling(table, min(FIRST, most), self._seed))
        # Measure where the model is least certain, a few layers at a time, until it is good enough.
        while True:
            rows = sorted(times)
            y = np.asarray([times[r] for r in rows])
            weights = _law(readings[rows], y)
            prior = readings @ weights
            model = LatencyModel({**self.device.identity, "workload": str(workload)})
            model.fit(table[rows], y, prior[rows])
            error = model.cross_validated()
            rest = [r for r in range(len(layers)) if r not in times and r not in failed]
            if error <= self.target or len(times) >= most or not rest:
                break
            measure([rest[i] for i in model.choose(table[rest], prior[rest], min(STEP, most - len(times)))])
        self._say(f"{name}: {len(times)} of {len(layers)} layers measured, cross-validated error {error:.1f}%")
        return _Learned(model, weights, {layers[r]: times[r] for r in rows}, error)

    def measured(self, name: str) -> int:
        """How many layers were measured for a workload."""
        self.learn(name)
        return len(self._learned[name].measured)

    def error(self, name: str) -> float:
        """Cross-validated error of a workload's layers, percent."""
        self.learn(name)
        return self._learned[name].error

    def predict(self, architecture: Architecture, name: str) -> Predicted:
        """The latency of an architecture under a workload."""
        numbered = self._layers.of(architecture)
        known = self.of_layers(name, {layer: (architecture, i) for i, layer in numbered.items()})
        total = self.around(name, architecture) + sum(known[layer][0] for layer in numbered.values())
        # Equal layers err alike, so standard deviations add up, not variances.
        spread = 1.96 * sum(known[layer][1] for layer in numbered.values())
        return Predicted(total, max(0.0, total - spread), total + spread)

    def of_layers(self, name: str, places: Mapping[Layer, Place]) -> Mapping[Layer, tuple[float, float]]:
        """Milliseconds of layers under a workload with their standard deviations, which are 0 for measured layers.

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
                layer: (learned.measured.get(layer, float(m)), 0.0 if layer in learned.measured else float(s))
                for layer, m, s in zip(new, predicted.mean, predicted.std, strict=True)
            }
        return learned.known

    def around(self, name: str, architecture: Architecture) -> float:
        """Milliseconds of what stands around the layers, measured once for each choice that it has."""
        self.learn(name)
        around = self._learned[name].around
        shared = Layer(tuple(sorted(self._layers.outside(architecture).items())))
        if shared not in around:
            part = parts_of(make_plan(self.space, architecture), self.workloads[name])[-1]
            around[shared] = self.device.part(part).p50
        return around[shared]

    def tables(self, name: str) -> Tables:
        """A workload's latency as a cost of the space: a table for each layer over its choices.

        So it bounds draws and changes, and its expectation is exact under independent choices and differentiable in
        their probabilities, like that of any reading of the graph.

        Args:
            name: The workload.
        """
        choices = self._layers.choices
        shared = tuple(p for p in choices if not p.startswith(f"{LAYERS}."))
        numbers = repeats(choices)
        grids: dict[Any, NDArray[np.float64]] = {}
        tables = []
        for i in numbers:
            paths = (*shared, *(p for p in choices if p.startswith(f"{LAYERS}.{i}.")))
            # Layers that have the same choices with the same values have the same table.
            alike = tuple((p.replace(f"{LAYERS}.{i}.", ""), repr(choices[p].values)) for p in paths)
            if alike not in grids:
                grids[alike] = self._grid(name, i, paths)
            tables.append(Table(paths, grids[alike]))
        rest = [self.around(name, a) for a in self._joint(shared)]
        if len(rest) > 1:
            tables.append(Table(shared, np.reshape(rest, [len(choices[p].values) for p in shared])))
        return Tables(rest[0] if len(rest) == 1 else 0.0, tuple(tables), as_expr(0), self.space.defaults)

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


def _law(readings: NDArray[np.float64], times: NDArray[np.float64]) -> NDArray[np.float64]:
    """The weights of a linear law of latency, fitted so that relative errors are least.

    Args:
        readings: Of the measured layers, a constant last, [layers, 5].
        times: Their latencies, ms, [layers].

    Returns:
        Weights [5], none negative: more work never takes less time.
    """
    from scipy.optimize import nnls

    scale = np.maximum(readings.max(0), 1e-12)
    weights, _ = nnls(readings / scale / times[:, None], np.ones(len(times)))
    if not (readings / scale @ weights > 0).all():  # a prior of zero would have no ratio to a measured time
        weights[-1] += float(times.min())
    return np.asarray(weights / scale)
