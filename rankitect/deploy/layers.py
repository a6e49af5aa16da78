"""The different layers of a space: which there are, what they are made of, and the numbers that foretell their latency.

A search space has very many models and few different layers, which is why latencies are learned of layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rankitect.deploy.parts import Part, Workload, parts_of
from rankitect.errors import DeployError
from rankitect.models.plan import make_plan
from rankitect.space.repeats import LAYERS, running

if TYPE_CHECKING:
    from rankitect.graph import Architecture, SearchSpace
    from rankitect.space.choices import Choice

__all__ = ["Layer", "Place", "SpaceLayers"]

LAW = ("flops", "weight_bytes", "cache_bytes", "activation_bytes")
"""Readings of the graph in which the prior of a layer's latency is linear; it has a constant besides."""
ENUMERATED = 200
"""Architectures that are drawn to see which layers a space has."""

Place = tuple["Architecture", int]
"""Where a layer stands: an architecture, and the number under which it has the layer."""


@dataclass(frozen=True)
class Layer:
    """A layer by the choices that make it, wherever it stands.

    Attributes:
        choices: Values of its own choices and of those of the whole model, by name.
    """

    choices: tuple[tuple[str, Any], ...]


class SpaceLayers:
    """The different layers of a space.

    Args:
        space: The search space.
        seed: Of the draws that enumerate its layers.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self.space, self._seed = space, seed

    @cached_property
    def choices(self) -> dict[str, Choice]:
        """The choices that shape a model, by path. A setting of its training changes no latency."""
        return {path: choice for path, choice in self.space.choices.items() if path not in self.space.settings}

    def of(self, architecture: Architecture) -> dict[int, Layer]:
        """The layers of an architecture by number; those that do not run are not among them."""
        outside = {path: value for path, value in self.outside(architecture).items() if path in self.felt}
        layers = running(self._shaping(architecture))
        return {i: Layer(tuple(sorted({**outside, **own}.items()))) for i, own in layers.items()}

    def outside(self, architecture: Architecture) -> dict[str, Any]:
        """The choices of an architecture that belong to no layer but to the whole model, by path."""
        return {p: v for p, v in self._shaping(architecture).items() if not p.startswith(f"{LAYERS}.")}

    @cached_property
    def felt(self) -> frozenset[str]:
        """The choices of the whole model that layers depend on; bits of an embedding, say, are none of them."""
        within = [node for node in self.space.graph.nodes if node.path.startswith(f"{LAYERS}.")]
        felt: set[str] = set()
        for node in within:
            shapes = [d for t in node.outputs for d in t.dims]
            weights = [e for p in node.params.values() for e in (*p.shape, p.gate, p.bits, p.scale_group)]
            fields = [*node.sizes.values(), *node.block.fields().values(), node.flops, node.cache]
            felt |= {path for e in (*shapes, *weights, *fields) for path in e.paths}
            felt |= {path for edge in node.inputs for path in edge.gate.paths}
        return frozenset(felt)

    def _shaping(self, architecture: Architecture) -> dict[str, Any]:
        return {path: value for path, value in architecture.choices.items() if path in self.choices}

    @cached_property
    def places(self) -> dict[Layer, Place]:
        """The layers that were met in random architectures, each with one of its places; in a fixed order.

        Raises:
            DeployError: The space has no layers.
        """
        rng = np.random.default_rng(self._seed)
        places: dict[Layer, Place] = {}
        for architecture in self.space.sample_many(ENUMERATED, rng):
            for number, layer in self.of(architecture).items():
                places.setdefault(layer, (architecture, number))
        if not places:
            raise DeployError(
                f"space {self.space.name!r} has no repeated scope {LAYERS!r}: its latency is not composed."
            )
        return dict(sorted(places.items(), key=lambda item: repr(item[0].choices)))

    def part(self, layer: Layer, workload: Workload) -> Part:
        """What is timed of a layer among `places`."""
        architecture, number = self.places[layer]
        parts = parts_of(make_plan(self.space, architecture), workload)
        return next(part for part in parts if part.name == f"{LAYERS}.{number}")

    def readings(self, places: Sequence[Place], workload: Workload) -> NDArray[np.float64]:
        """The readings of `LAW` and a constant, [layers, 5]."""
        symbols = {"B": 1, "T": workload.called, "P": workload.tokens - workload.called}
        rows = [[self.space.cost(a, kind, f"{LAYERS}.{i}", **symbols) for kind in LAW] for a, i in places]
        return np.concatenate([np.asarray(rows, dtype=np.float64), np.ones((len(rows), 1))], axis=1)

    def features(self, layers: Sequence[Layer], places: Sequence[Place], workload: Workload) -> NDArray[np.float64]:
        """Numbers of each layer: its readings, and its choices, one column a value where they are no numbers.

        Returns:
            [layers, features].
        """
        readings = self.readings(places, workload)[:, :-1]
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
        """All values of each choice in which layers differ."""
        values_of: dict[str, set[Any]] = {}
        for layer in self.places:
            for name, value in layer.choices:
                values_of.setdefault(name, set()).add(value)
        return {name: sorted(values, key=repr) for name, values in sorted(values_of.items()) if len(values) > 1}
