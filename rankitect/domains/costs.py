"""The costs by which language models are compared, each one reading of the graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rankitect.errors import ConfigError
from rankitect.graph.cost import COSTS
from rankitect.graph.names import nearest
from rankitect.study.records import Metric, MetricSpec

if TYPE_CHECKING:
    from rankitect.graph import Architecture, SearchSpace

__all__ = ["LANGUAGE_COSTS", "CostReading", "cost_metrics", "cost_specs", "cost_value", "limits"]


@dataclass(frozen=True)
class CostReading:
    """One cost.

    Attributes:
        kind: A key of `graph.cost.COSTS`.
        scope: The part of the graph that counts; "" for all.
        decode: Whether it is of one token after a full context, and not of a prefill.
        relative: Whether it is reported as a share of the reference architecture's.
    """

    kind: str
    scope: str = ""
    decode: bool = False
    relative: bool = False

    @property
    def unit(self) -> str:
        """Of the reported value."""
        return "of backbone" if self.relative else COSTS[self.kind]


LANGUAGE_COSTS: Mapping[str, CostReading] = {
    "block_flops": CostReading("flops", "layers", relative=True),
    "params": CostReading("params"),
    "prefill_flops": CostReading("flops"),
    "decode_flops": CostReading("flops", decode=True),
    "weight_bytes": CostReading("weight_bytes"),
    "kv_cache_bytes": CostReading("cache_bytes"),
}
"""Costs by the name under which a configuration bounds them and a report shows them."""


def _symbols(reading: CostReading, context: int) -> dict[str, int]:
    return {"B": 1, "T": 1, "P": context - 1} if reading.decode else {"B": 1, "T": context, "P": 0}


def cost_value(space: SearchSpace, architecture: Architecture, name: str, context: int) -> float:
    """One cost, absolute: a prefill of `context` tokens, or the token after `context` - 1 others."""
    reading = LANGUAGE_COSTS[name]
    return float(space.cost(architecture, reading.kind, reading.scope, **_symbols(reading, context)))


def cost_specs() -> list[MetricSpec]:
    """The costs as metrics."""
    return [MetricSpec(name, reading.unit, "min") for name, reading in LANGUAGE_COSTS.items()]


def cost_metrics(
    space: SearchSpace, architecture: Architecture, reference: Architecture, context: int
) -> dict[str, Metric]:
    """All costs of an architecture."""
    found = {}
    for name, reading in LANGUAGE_COSTS.items():
        value = cost_value(space, architecture, name, context)
        if reading.relative:
            value /= cost_value(space, reference, name, context)
        found[name] = Metric(value, reading.unit)
    return found


def limits(
    space: SearchSpace, reference: Architecture, constraints: Mapping[str, tuple[float, float]], context: int
) -> dict[str, tuple[float, float]]:
    """Constraints relative to a reference, as the bounds that `SearchSpace.sample` takes.

    Raises:
        ConfigError: A constraint names no cost.
    """
    found = {}
    for name, (low, high) in constraints.items():
        if name not in LANGUAGE_COSTS or LANGUAGE_COSTS[name].decode:
            allowed = [n for n, r in LANGUAGE_COSTS.items() if not r.decode]
            raise ConfigError(f"constraints: there is no cost {name!r}{nearest(name, allowed)}.")
        whole = cost_value(space, reference, name, context)
        reading = LANGUAGE_COSTS[name]
        key = f"{reading.scope}:{reading.kind}" if reading.scope else reading.kind
        found[key] = (low * whole, high * whole)
    return found
