"""Timing some layers of a space, and learning the others' latencies from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from rankitect.deploy.latency_model import NORMAL, LatencyModel, space_filling
from rankitect.deploy.layers import Layer, SpaceLayers
from rankitect.deploy.parts import Part, Workload
from rankitect.errors import DeployError

if TYPE_CHECKING:
    from rankitect.deploy.timing import Timing

__all__ = ["LayerLearning", "LearnedLayers", "PartTimer"]

FIRST, STEP = 12, 6
"""Layers measured before the first model, and between two models."""
REPEATED = 0.022
"""Deviation of a measurement that is made again in another process, relative to it: the largest of those in
docs/results/latency.md."""


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


@dataclass
class LearnedLayers:
    """What is known of one workload.

    Attributes:
        model: Predicts layers.
        weights: Of the readings in the prior, [5].
        measured: The layers that were timed.
        error: Cross-validated error of the model, percent.
        call: Milliseconds of a call that computes nothing, at most: each part is timed as a program of its own and has
            them, and a whole program has them once.
        around: What stands around the layers, by the choices that it has.
        known: Every layer that was asked for.

    Latencies are a mean and a standard deviation, milliseconds.
    """

    model: LatencyModel
    weights: NDArray[np.float64]
    measured: dict[Layer, tuple[float, float]]
    error: float
    call: float
    around: dict[Layer, tuple[float, float]] = field(default_factory=dict)
    known: dict[Layer, tuple[float, float]] = field(default_factory=dict)


class LayerLearning:
    """Measures layers where a model of them is least certain, until it is good enough.

    Args:
        device: What times parts.
        layers: The layers of the space.
        most: Layers measured at most, for each workload.
        target: Cross-validated error, percent, at which measuring ends.
        seed: Breaks ties among the first layers.
        say: Called with a sentence about what happens.

    Attributes:
        excluded: What could not be measured, or not well, as sentences.
    """

    def __init__(
        self,
        device: PartTimer,
        layers: SpaceLayers,
        most: int,
        target: float,
        seed: int,
        say: Callable[[str], None],
    ) -> None:
        self._device, self._layers, self._most, self._target = device, layers, most, target
        self._seed, self._say = seed, say
        self.excluded: list[str] = []

    def learn(
        self, name: str, workload: Workload, check: Callable[[], None], progress: Callable[[int, int, str], None]
    ) -> LearnedLayers:
        """Measure layers until a model of them is good enough.

        Args:
            name: What the workload is called.
            workload: What is timed.
            check: Called between measurements; raises to stop.
            progress: Told measurements made, measurements at most, and a note.

        Raises:
            DeployError: The device cannot run layers of this space.
        """
        layers = list(self._layers.places)
        places = [self._layers.places[layer] for layer in layers]
        table, readings = self._layers.features(layers, places, workload), self._layers.readings(places, workload)
        times: dict[int, float] = {}
        deviations: dict[int, float] = {}
        failed: set[int] = set()

        def measure(rows: Sequence[int]) -> None:
            for row in rows:
                check()
                try:
                    timing = self._device.part(self._layers.part(layers[row], workload))
                except DeployError as error:
                    failed.add(row)
                    self.excluded.append(f"{name}, layer {dict(layers[row].choices)}: {error}")
                    if len(failed) > len(times) + 3:  # not one layer's fault: the device cannot run this space
                        raise
                    continue
                if not timing.trusted:
                    self.excluded.append(f"{name}, layer {dict(layers[row].choices)}: did not settle, or machine busy")
                times[row], deviations[row] = timing.p50, self.deviation(timing)
                progress(len(times), self._most, f"{name}: a layer took {timing.p50:.3g} ms")

        most = min(self._most, len(layers))
        measure(space_filling(table, min(FIRST, most), self._seed))
        # Measure where the model is least certain, a few layers at a time, until it is good enough.
        while True:
            rows = sorted(times)
            y = np.asarray([times[r] for r in rows])
            weights = _law(readings[rows], y)
            prior = readings @ weights
            model = LatencyModel({**self._device.identity, "workload": str(workload)})
            model.fit(table[rows], y, prior[rows])
            error = model.cross_validated()
            rest = [r for r in range(len(layers)) if r not in times and r not in failed]
            if error <= self._target or len(times) >= most or not rest:
                break
            measure([rest[i] for i in model.choose(table[rest], prior[rest], min(STEP, most - len(times)))])
        self._say(f"{name}: {len(times)} of {len(layers)} layers measured, cross-validated error {error:.1f}%")
        call = 0.0 if self._device.estimate else min(float(weights[-1]), min(times.values()))
        return LearnedLayers(model, weights, {layers[r]: (times[r], deviations[r]) for r in rows}, error, call)

    def deviation(self, timing: Timing) -> float:
        """The standard deviation of a measurement, ms: what it says of itself, and how others differ from it."""
        if self._device.estimate:
            return 0.0
        return float(np.hypot((timing.high - timing.low) / (2 * NORMAL), REPEATED * timing.p50))


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
