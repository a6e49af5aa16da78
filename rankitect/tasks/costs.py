"""The costs by which models are compared and bounded, each one reading of the graph, by names for people."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, cast

from rankitect.config.quantities import Amounts, Bounds
from rankitect.contracts import Metric, MetricSpec
from rankitect.errors import ConfigError, SpaceError, closest
from rankitect.graph.cost import COSTS, weight_bytes
from rankitect.space.tables import TabulatedExpr, tabulate

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


_log = logging.getLogger("rankitect")
_UNTIMED = (
    " Latencies are not predicted for models of this task, so that they bound no search: bound flops or params; with "
    "device=host the programs of candidates are timed, and the report tells it."
)

GRAPH_COSTS: Mapping[str, str] = {"params": "", "flops": "FLOP"}
"""The costs of a task that names none of its own, of one example, with their units."""


@dataclass(frozen=True)
class CostReading:
    """One cost.

    Attributes:
        kind: A key of `graph.cost.COSTS`.
        scope: The part of the graph that counts; "" for all.
        decode: Whether it is of one token after a full context, and not of a prefill.
        context: Tokens of the context that it is of, where that is not the task's.
        bits: Bits in which matrices are counted that the space gives no bits, for `weight_bytes`.
        relative: Whether it is reported as a share of the reference architecture's.
        about: What it counts, for people.
    """

    kind: str
    scope: str = ""
    decode: bool = False
    context: int | None = None
    bits: int = 32
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
    "program_bytes": CostReading("program_bytes", about="bytes of the weights in an exported program"),
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
        timed: Whether the task learns latencies where there is a device.
    """

    readings: Mapping[str, CostReading]
    space: ChoiceSpace
    reference: Architecture
    symbols: Mapping[str, int] = field(default_factory=dict)
    decode_symbols: Mapping[str, int] = field(default_factory=dict)
    timed: bool = False

    def value(self, architecture: Architecture, name: str) -> float:
        """One cost, absolute."""
        reading = self.readings[name]
        if reading.bits != 32:
            return float(self.space.cost(architecture, self.key(name)))
        return float(self.space.cost(architecture, reading.kind, reading.scope, **self._symbols(name)))

    def key(self, name: str) -> str:
        """A cost as `SearchSpace.sample` names it: a kind with its scope, or a name that the space is told here.

        A space knows the costs at its own free dimensions; one of another context, of one token, or of weights in fewer
        bits is added to what it has learned.
        """
        reading, defaults = self.readings[name], self.space.defaults
        if reading.bits != 32:
            name, tables = f"{name}_in_{reading.bits}_bits", partial(self._stored, reading)
        elif all(defaults.get(dimension) == size for dimension, size in self._symbols(name).items()):
            return reading.key
        else:
            tables = partial(self.space.cost_tables, reading.kind, reading.scope, **self._symbols(name))
        self.space.learned.setdefault(name, tables)
        return name

    def _symbols(self, name: str) -> Mapping[str, int]:
        reading = self.readings[name]
        symbols = self.decode_symbols if reading.decode else self.symbols
        return symbols if reading.context is None else {**symbols, "T": reading.context}

    def _stored(self, reading: CostReading) -> TabulatedExpr:
        space = cast("SearchSpace", self.space)  # other tasks have no bits
        return tabulate(
            weight_bytes(space.graph, space.live, reading.scope, float_bits=reading.bits), space.choices, {}
        )

    def metrics(self, architecture: Architecture, space: ChoiceSpace | None = None) -> dict[str, Metric]:
        """All costs of an architecture.

        Args:
            architecture: The architecture.
            space: Of it, where that is another than the reference's; by default the same.
        """
        own, metrics = self if space is None else replace(self, space=space), {}
        for name, reading in self.readings.items():
            value = own.value(architecture, name)
            metrics[name] = Metric(
                value / self.value(self.reference, name) if reading.relative else value, reading.unit
            )
        return metrics

    def limits(
        self, constraints: Mapping[str, Bounds], instead: Mapping[str, float] | None = None
    ) -> dict[str, tuple[float, float]]:
        """Constraints as the bounds that `SearchSpace.sample` takes.

        Args:
            constraints: By the cost's name: shares of the reference's, or amounts.
            instead: Costs of another model that shares are of, where they are known.

        Raises:
            ConfigError: A constraint names no cost, or its amounts are shares by mistake.
        """
        return {
            self._checked(name): self._amounts(name, bounds)
            if isinstance(bounds, Amounts)
            else self._of_whole(name, bounds, instead or {})
            for name, bounds in constraints.items()
        }

    def _amounts(self, name: str, bounds: Amounts) -> tuple[float, float]:
        """The ends of a range of amounts; those of costs that are counted are whole numbers, and no fractions of 1."""
        ends = [end for end in (bounds.low, bounds.high) if 0 < abs(end) < 1]
        if name in self.readings and ends:
            unit = COSTS[self.readings[name].kind] or name
            raise ConfigError(
                f"constraints.{name}={bounds} is an amount, in {unit}, of which there are whole numbers only. "
                f"Shares of the reference's are written in brackets: constraints.{name}=[{max(0.0, bounds.low):g},"
                f"{min(1.0, bounds.high):g}]."
            )
        return bounds.low, bounds.high

    def _checked(self, name: str) -> str:
        """The key of a cost that a constraint names; of latencies it is their name."""
        if name in self.readings:
            return self.key(name)
        if name in self.space.learned:
            return name
        allowed = [*self.readings, *(n for n in self.space.learned if n.endswith("_ms"))]
        guess = closest(name, allowed)
        hint = ""
        if name.endswith("_ms"):
            hint = " Latencies need a device: add device=host." if self.timed else _UNTIMED
        raise ConfigError(
            f"constraints: there is no cost {name!r}.{f' Did you mean {guess!r}?' if guess else ''} "
            f"Allowed: {', '.join(allowed)}.{hint}"
        )

    def _of_whole(self, name: str, shares: tuple[float, float], instead: Mapping[str, float]) -> tuple[float, float]:
        """Shares of a cost of the reference, or of another model, as amounts."""
        known = name in self.readings
        whole = instead.get(name) or (
            self.value(self.reference, name) if known else float(self.space.cost(self.reference, name))
        )
        return shares[0] * whole, shares[1] * whole


def bounded(readings: Mapping[str, CostReading]) -> dict[str, str]:
    """The costs that `constraints` may name, with what they count."""
    return {name: reading.about for name, reading in readings.items()}


def specs(readings: Mapping[str, CostReading]) -> list[MetricSpec]:
    """Costs as metrics."""
    return [MetricSpec(name, reading.unit, "min", "cost") for name, reading in readings.items()]


def check_constraints(
    space: ChoiceSpace,
    limits: Mapping[str, tuple[float, float]],
    constraints: Mapping[str, Bounds],
    whose: str,
) -> None:
    """Make sure that some architecture is within bounds, before anything is trained. Amounts that every architecture
    is within are told in the log: they are a mistake more often than not.

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
        shares = any(not isinstance(bounds, Amounts) for bounds in constraints.values())
        given = ", ".join(
            f"{name} {bounds}" if isinstance(bounds, Amounts) else f"{name} {bounds[0]:g} to {bounds[1]:g}"
            for name, bounds in constraints.items()
        )
        relative = f", relative to {whose}" if shares else ""
        advice = "" if shares else f". Shares of {whose}'s are written [low,high]."
        raise ConfigError(f"constraints: no architecture meets them ({given}{relative}). {error}{advice}") from None
    for (name, bounds), (key, (low, high)) in zip(constraints.items(), limits.items(), strict=True):
        span = space.cost_span(key) if isinstance(bounds, Amounts) else None
        if span is not None and low <= span[0] and span[1] <= high:
            _log.warning(
                "constraints.%s=%s leaves nothing out: every architecture has from %s to %s. Shares of %s's are "
                "written [low,high].", name, bounds, f"{span[0]:,.6g}", f"{span[1]:,.6g}", whose,
            )  # fmt: skip


def ranking_costs(space: ChoiceSpace, reference: Architecture) -> Costs:
    """The costs of rankers, of one example."""
    return Costs(RANKING_COSTS, space, reference, {"B": 1})


# --- language models ------------------------------------------------------------------------------------------------
def language_costs(
    space: SearchSpace, reference: Architecture, context: int, cache_context: int | None = None, bits: int = 32
) -> Costs:
    """The costs of language models: a prefill of `context` tokens, or the token after `context` - 1 others.

    Args:
        space: The space.
        reference: What relative costs are shares of.
        context: Tokens.
        cache_context: Tokens whose keys and values are counted; by default as many.
        bits: Bits in which matrices are stored: 32, 16, 8 or 4.
    """
    prefill, decode = {"B": 1, "T": context, "P": 0}, {"B": 1, "T": 1, "P": context - 1}
    cached, weights = LANGUAGE_COSTS["kv_cache_bytes"], LANGUAGE_COSTS["weight_bytes"]
    own = {"kv_cache_bytes": replace(cached, context=cache_context), "weight_bytes": replace(weights, bits=bits)}
    return Costs({**LANGUAGE_COSTS, **own}, space, reference, prefill, decode, timed=True)


def cost_value(space: SearchSpace, architecture: Architecture, name: str, context: int) -> float:
    """One cost of a language model, absolute."""
    return language_costs(space, architecture, context).value(architecture, name)
