"""The latency of architectures on a device: composed of their layers', of which a model is learned first.

A search space has few different layers and very many models. Each measured layer is exported once; a Gaussian process
on a linear prior predicts the layers that were not measured; a model's latency is the sum over its layers and of what
stands around them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rankitect.contracts import Metric, MetricSpec
from rankitect.deploy.latency_model import LatencyModel, space_filling
from rankitect.deploy.parts import Part, Workload, parts_of
from rankitect.errors import DeployError
from rankitect.models.plan import make_plan
from rankitect.space.expr import as_expr
from rankitect.space.repeats import LAYERS, repeats, running
from rankitect.space.tables import Table, Tables, joint_grid

if TYPE_CHECKING:
    from rankitect.deploy.timing import Timing
    from rankitect.graph import Architecture, SearchSpace

__all__ = ["Latency", "Layer", "PartTimer", "Predicted", "layers_of"]

LAW = ("flops", "weight_bytes", "cache_bytes", "activation_bytes")
"""Readings of the graph in which the prior is linear; it has a constant besides."""
ENUMERATED = 200
"""Architectures that are drawn to see which layers a space has."""
FIRST, STEP = 12, 6
"""Layers measured before the first model, and between two models."""


class PartTimer(Protocol):
    """What times the parts of a model: a device's processor, or a formula."""

    name: str
    estimate: bool
    """Whether it computes times instead of measuring them."""

    @property
    def identity(self) -> Mapping[str, str]:
        """What times depend on beside the part."""
        ...

    def part(self, part: Part) -> Timing:
        """The time of a part."""
        ...


@dataclass(frozen=True)
class Layer:
    """A layer by the choices that make it, wherever it stands.

    Attributes:
        choices: Values of its own choices and of those of the whole model, by name.
    """

    choices: tuple[tuple[str, Any], ...]


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


def layers_of(architecture: Architecture) -> dict[int, Layer]:
    """The layers of an architecture by number; those that do not run are not among them."""
    shared = _shared(architecture)
    layers = running(architecture.choices)
    return {i: Layer(tuple(sorted({**shared, **own}.items()))) for i, own in layers.items()}


def _shared(architecture: Architecture) -> dict[str, Any]:
    """The choices of the whole model."""
    return {p: v for p, v in architecture.choices.items() if not p.startswith(f"{LAYERS}.")}


@dataclass
class _Learned:
    """What is known of one workload."""

    model: LatencyModel
    weights: NDArray[np.float64]
    measured: dict[Layer, float]
    error: float
    around: dict[Layer, float] = field(default_factory=dict)
    found: dict[Layer, tuple[float, float]] = field(default_factory=dict)


class Latency:
    """Latencies of a space's architectures on a device.

    Args:
        device: Runs parts.
        space: The search space.
        workloads: By the names under which latencies are reported.
        measurements: Layers measured at most, for each workload.
        target: Cross-validated error, percent, at which measuring ends.
        seed: Of the draws that enumerate layers.
        say: Told what happens.
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
        self._learned: dict[str, _Learned] = {}
        self.excluded: list[str] = []

    @cached_property
    def layers(self) -> dict[Layer, tuple[Architecture, int]]:
        """The space's layers, each with an architecture and the number under which it has it."""
        rng = np.random.default_rng(self._seed)
        found: dict[Layer, tuple[Architecture, int]] = {}
        for architecture in self.space.sample_many(ENUMERATED, rng):
            for i, layer in layers_of(architecture).items():
                found.setdefault(layer, (architecture, i))
        if not found:
            raise DeployError(
                f"space {self.space.name!r} has no repeated scope {LAYERS!r}: its latency is not composed."
            )
        return dict(sorted(found.items(), key=lambda item: repr(item[0].choices)))

    @property
    def specs(self) -> list[MetricSpec]:
        """The latencies as metrics, ms."""
        return [MetricSpec(name, self._unit, "min", "cost") for name in self.workloads]

    @property
    def _unit(self) -> str:
        return "ms (estimate)" if self.device.estimate else "ms"

    def metrics(self, architecture: Architecture) -> dict[str, Metric]:
        """The predicted latencies of an architecture, with their intervals."""
        found = {name: self.predict(architecture, name) for name in self.workloads}
        return {
            name: Metric(p.ms, self._unit, len(self._learned[name].measured), (p.low, p.high))
            for name, p in found.items()
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
        workload, layers = self.workloads[name], list(self.layers)
        places = [self.layers[layer] for layer in layers]
        table, readings = self._features(layers, places, workload), self._readings(places, workload)
        times: dict[int, float] = {}
        failed: set[int] = set()

        def measure(rows: Sequence[int]) -> None:
            for row in rows:
                check()
                try:
                    timing = self.device.part(self._part(layers[row], workload))
                except DeployError as error:
                    failed.add(row)
                    self.excluded.append(f"{name}, layer {dict(layers[row].choices)}: {error}")
                    if len(failed) > len(times) + 3:
                        raise
                    continue
                if not timing.trusted:
                    self.excluded.append(f"{name}, layer {dict(layers[row].choices)}: did not settle, or machine busy")
                times[row] = timing.p50
                progress(len(times), self.measurements, f"{name}: a layer took {timing.p50:.3g} ms")

        most = min(self.measurements, len(layers))
        measure(space_filling(table, min(FIRST, most), self._seed))
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
        numbered = layers_of(architecture)
        found = self.of_layers(name, {layer: (architecture, i) for i, layer in numbered.items()})
        total = self.around(name, architecture) + sum(found[layer][0] for layer in numbered.values())
        spread = 1.96 * sum(found[layer][1] for layer in numbered.values())  # equal layers err alike
        return Predicted(total, max(0.0, total - spread), total + spread)

    def of_layers(
        self, name: str, places: Mapping[Layer, tuple[Architecture, int]]
    ) -> Mapping[Layer, tuple[float, float]]:
        """Milliseconds of layers under a workload, and their standard deviations: 0 for those that were measured.

        Args:
            name: The workload.
            places: For each layer an architecture and the number under which it has it.
        """
        self.learn(name)
        learned, workload = self._learned[name], self.workloads[name]
        new = [layer for layer in places if layer not in learned.found]
        if new:
            where = [places[layer] for layer in new]
            prior = self._readings(where, workload) @ learned.weights
            found = learned.model.predict(self._features(new, where, workload), prior)
            learned.found |= {
                layer: (learned.measured.get(layer, float(m)), 0.0 if layer in learned.measured else float(s))
                for layer, m, s in zip(new, found.mean, found.std, strict=True)
            }
        return learned.found

    def around(self, name: str, architecture: Architecture) -> float:
        """Milliseconds of what stands around the layers, measured once for each choice that it has."""
        self.learn(name)
        around = self._learned[name].around
        shared = Layer(tuple(sorted(_shared(architecture).items())))
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
        choices = self.space.choices
        shared = tuple(p for p in choices if not p.startswith(f"{LAYERS}."))
        numbers = repeats(choices)
        grids: dict[Any, NDArray[np.float64]] = {}
        tables = []
        for i in numbers:
            paths = (*shared, *(p for p in choices if p.startswith(f"{LAYERS}.{i}.")))
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
        made = [(layers_of(a).get(i), a) for a in self._joint(paths)]
        found = self.of_layers(name, {layer: (a, i) for layer, a in made if layer is not None})
        ms = [0.0 if layer is None else found[layer][0] for layer, _ in made]
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

    def _part(self, layer: Layer, workload: Workload) -> Part:
        architecture, i = self.layers[layer]
        return next(p for p in parts_of(make_plan(self.space, architecture), workload) if p.name == f"{LAYERS}.{i}")

    def _readings(self, places: Sequence[tuple[Architecture, int]], workload: Workload) -> NDArray[np.float64]:
        """The readings of `LAW` and a constant, [layers, 5]."""
        symbols = {"B": 1, "T": workload.called, "P": workload.tokens - workload.called}
        rows = [[self.space.cost(a, kind, f"{LAYERS}.{i}", **symbols) for kind in LAW] for a, i in places]
        return np.concatenate([np.asarray(rows, dtype=np.float64), np.ones((len(rows), 1))], axis=1)

    def _features(
        self, layers: Sequence[Layer], places: Sequence[tuple[Architecture, int]], workload: Workload
    ) -> NDArray[np.float64]:
        """Numbers of a layer: its choices, one column a value where they are no numbers, and its readings."""
        readings = self._readings(places, workload)[:, :-1]
        columns = [np.log1p(readings[:, i]) for i in range(readings.shape[1])]
        for name, values in self._values.items():
            chosen = [dict(layer.choices).get(name) for layer in layers]
            if all(isinstance(v, int | float) for v in values):
                columns.append(np.asarray([0.0 if v is None else float(v) for v in chosen]))
            else:
                columns += [np.asarray([float(v == value) for v in chosen]) for value in values]
        return np.stack(columns, axis=1)

    @cached_property
    def _values(self) -> dict[str, list[Any]]:
        """All values of each choice that layers differ in."""
        found: dict[str, set[Any]] = {}
        for layer in self.layers:
            for name, value in layer.choices:
                found.setdefault(name, set()).add(value)
        return {name: sorted(values, key=repr) for name, values in sorted(found.items()) if len(values) > 1}


def _law(readings: NDArray[np.float64], times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Non-negative weights of readings and constant, by relative error; never all zero."""
    from scipy.optimize import nnls

    scale = np.maximum(readings.max(0), 1e-12)
    weights, _ = nnls(readings / scale / times[:, None], np.ones(len(times)))
    if not (readings / scale @ weights > 0).all():
        weights[-1] += float(times.min())
    return np.asarray(weights / scale)
