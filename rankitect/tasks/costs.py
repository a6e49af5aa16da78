"""The costs by which models are compared and bounded, each one reading of the graph, by names for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rankitect.contracts import Metric, MetricSpec
from rankitect.errors import ConfigError, SpaceError, closest
from rankitect.graph.cost import COSTS

if TYPE_CHECKING:
    from rankitect.graph import Architecture, ChoiceSpace, SearchSpace

__all__ = [
    "GRAPH_COSTS",
    "LANGUAGE_COSTS",
    "RANKING_COSTS",
    "CostReading",
    "Costs",
    "bounded",
    "check_constraints",
    "cost_value",
    "language_costs",
    "ranking_costs",
    "specs",
]


GRAPH_COSTS: Mapping[str, str] = {"params": "", "flops": "FLOP"}
"""The costs of a task that names none of its own, of one example, with their units."""


@dataclass(frozen=True)
class CostReading:
    """One cost.

    Attributes:
        kind: A key of `graph.cost.COSTS`.
        scope: The part of the graph that counts; "" for all.
        decode: Whether it is of one token after a full context, and not of a prefill.
        relative: Whether it is reported as a share of the reference architecture's.
        about: What it counts, for people.
    """

    kind: str
    scope: str = ""
    decode: bool = False
    relative: bool = False
    about: str = ""

    @property
    def unit(self) -> str:
        """Of the reported value."""
        return "of backbone" if self.relative else COSTS[self.kind]

    @property
    def key(self) -> str:
        """The cost as `SearchSpace.sample` names it."""
        return f"{self.scope}:{self.kind}" if self.scope else self.kind


LANGUAGE_COSTS: Mapping[str, CostReading] = {
    "block_flops": CostReading("flops", "layers", relative=True, about="FLOPs of the layers in a prefill"),
    "params": CostReading("params", about="parameters"),
    "prefill_flops": CostReading("flops", about="FLOPs of a prefill"),
    "decode_flops": CostReading("flops", decode=True, about="FLOPs of one token after a full context"),
    "weight_bytes": CostReading("weight_bytes", about="bytes of all weights"),
    "kv_cache_bytes": CostReading("cache_bytes", about="bytes of the keys and values of a full context"),
}
"""Costs by the name under which a configuration bounds them and a report shows them."""

RANKING_COSTS: Mapping[str, CostReading] = {
    "flops": CostReading("flops", about="FLOPs of one example"),
    "params": CostReading("params", about="parameters, embedding tables included"),
    "table_rows": CostReading("table_rows", about="rows of the embedding tables"),
    "table_bytes": CostReading("table_bytes", about="bytes of the embedding tables"),
}
"""The same for rankers: of one example, embedding tables among the parameters."""


@dataclass(frozen=True)
class Costs:
    """The costs of a task on one space.

    Attributes:
        readings: Costs by name.
        space: The space.
        reference: The architecture that relative costs and constraints refer to.
        symbols: Values of free dimensions.
        decode_symbols: The same for readings of one token after a full context.
    """

    readings: Mapping[str, CostReading]
    space: ChoiceSpace
    reference: Architecture
    symbols: Mapping[str, int] = field(default_factory=dict)
    decode_symbols: Mapping[str, int] = field(default_factory=dict)

    def value(self, architecture: Architecture, name: str) -> float:
        """One cost, absolute."""
        reading = self.readings[name]
        symbols = self.decode_symbols if reading.decode else self.symbols
        return float(self.space.cost(architecture, reading.kind, reading.scope, **symbols))

    def metrics(self, architecture: Architecture) -> dict[str, Metric]:
        """All costs of an architecture."""
        metrics = {}
        for name, reading in self.readings.items():
            value = self.value(architecture, name)
            metrics[name] = Metric(
                value / self.value(self.reference, name) if reading.relative else value, reading.unit
            )
        return metrics

    def limits(
        self, constraints: Mapping[str, tuple[float, float]], instead: Mapping[str, float] | None = None
    ) -> dict[str, tuple[float, float]]:
        """Constraints relative to the reference, as the bounds that `SearchSpace.sample` takes.

        Args:
            constraints: Shares of a cost, by its name.
            instead: Costs of another model that shares are of, where they are known.

        Raises:
            ConfigError: A constraint names no cost.
        """
        bounds, other = {}, instead or {}
        for name, (low, high) in constraints.items():
            if name in self.space.learned:
                whole = other.get(name) or float(self.space.cost(self.reference, name))
                bounds[name] = (low * whole, high * whole)
                continue
            allowed = bounded(self.readings)
            if name not in allowed:
                guess = closest(name, allowed)
                hint = " Latencies need a device: add device=host." if name.endswith("_ms") else ""
                raise ConfigError(
                    f"constraints: there is no cost {name!r}.{f' Did you mean {guess!r}?' if guess else ''} "
                    f"Allowed: {', '.join([*allowed, *self.space.learned])}.{hint}"
                )
            whole = other.get(name) or self.value(self.reference, name)
            bounds[self.readings[name].key] = (low * whole, high * whole)
        return bounds


def bounded(readings: Mapping[str, CostReading]) -> dict[str, str]:
    """The costs that `constraints` may name, with what they count. Costs of decoding cannot be bounded on their own."""
    return {name: reading.about for name, reading in readings.items() if not reading.decode}


def specs(readings: Mapping[str, CostReading]) -> list[MetricSpec]:
    """Costs as metrics."""
    return [MetricSpec(name, reading.unit, "min", "cost") for name, reading in readings.items()]


def check_constraints(
    space: ChoiceSpace,
    limits: Mapping[str, tuple[float, float]],
    constraints: Mapping[str, tuple[float, float]],
    whose: str,
) -> None:
    """Make sure that some architecture is within bounds, before anything is trained.

    Args:
        space: The space.
        limits: The bounds, as `SearchSpace.sample` takes them.
        constraints: The same as configured, for the message.
        whose: What the constraints are relative to.

    Raises:
        ConfigError: None is.
    """
    try:
        space.sample(0, **limits)
    except SpaceError as error:
        given = ", ".join(f"{name} {low:g} to {high:g}" for name, (low, high) in constraints.items())
        raise ConfigError(f"constraints: no architecture meets them ({given}, relative to {whose}). {error}") from None


def ranking_costs(space: ChoiceSpace, reference: Architecture) -> Costs:
    """The costs of rankers, of one example."""
    return Costs(RANKING_COSTS, space, reference, {"B": 1})


# --- language models ------------------------------------------------------------------------------------------------
def language_costs(space: SearchSpace, reference: Architecture, context: int) -> Costs:
    """The costs of language models: a prefill of `context` tokens, or the token after `context` - 1 others."""
    prefill, decode = {"B": 1, "T": context, "P": 0}, {"B": 1, "T": 1, "P": context - 1}
    return Costs(LANGUAGE_COSTS, space, reference, prefill, decode)


def cost_value(space: SearchSpace, architecture: Architecture, name: str, context: int) -> float:
    """One cost of a language model, absolute."""
    return language_costs(space, architecture, context).value(architecture, name)
