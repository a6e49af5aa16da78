"""Edges between nodes, and the wires that an author holds. They know of blocks only that a graph attaches them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from rankitect.errors import SpaceError
from rankitect.graph.types import TensorType
from rankitect.space.choices import Choice
from rankitect.space.expr import Expr, as_expr
from rankitect.space.tables import joint_values

__all__ = ["ONE", "Attaches", "Edge", "Wire"]

ONE = as_expr(1)


@dataclass(frozen=True)
class Edge:
    """One input of a node.

    Args:
        source: Path of the node it comes from.
        gate: 1 where the input is used.
        mixes: Whether a relaxed model weighs the input by its gate (false where the source has been weighed already).
        index: Which output of the source.
    """

    source: str
    gate: Expr = ONE
    mixes: bool = False
    index: int = 0


class Attaches(Protocol):
    """The graph that a wire belongs to, as far as wires and blocks use it (`rankitect.graph.builder.Builder`)."""

    name: str
    choices: dict[str, Choice]

    def attach(self, block: Any, wires: Sequence[Wire], *, name: str | None = None, weights: str | None = None) -> Wire:
        """Put a block (`rankitect.graph.block.Block`, which is made of what is here) on wires."""

    def add_up(self, *wires: Wire) -> Wire:
        """The sum of wires."""


@dataclass(frozen=True)
class Wire:
    """An output of a node, to be put into other blocks. `a + b` adds two wires.

    Attributes:
        graph: The graph.
        edge: Where it comes from, and when it is there.
        type: What it carries.
        optional: Whether it may be left out (where a choice leaves nothing, blocks with any number of inputs skip it).
    """

    graph: Attaches
    edge: Edge
    type: TensorType
    optional: bool = False

    def __add__(self, other: Wire) -> Wire:
        return self.graph.add_up(self, other)

    def when(self, gate: Expr) -> Wire:
        """The wire where `gate` is 1, and nothing elsewhere: put it into a block that takes any number of wires.

        Args:
            gate: 0 or 1 by the choices, for example `kind.is_("deep")`.

        Raises:
            SpaceError: The gate is never 1, or is no condition.
        """
        check_condition(self.graph.choices, gate)
        return self.always().gated(gate)

    def gated(self, gate: Expr) -> Wire:
        """The wire with one more condition, which is taken as it is."""
        return replace(self, edge=replace(self.edge, gate=self.edge.gate * gate, mixes=True))

    def always(self) -> Wire:
        """The wire with zeros where it would be left out (the source gives them)."""
        return replace(self, edge=replace(self.edge, gate=ONE), optional=False) if self.optional else self

    def __str__(self) -> str:
        return f"{self.edge.source}{self.type}"


def check_condition(choices: Mapping[str, Choice], gate: Expr) -> None:
    """Raise where an expression is no condition that some architecture meets; pass where it has too many choices."""
    if gate == 0:
        raise SpaceError("a wire that is there when 0 holds is never there")
    values = joint_values(as_expr(gate), choices)
    if values is None:
        return
    if not np.isin(values, (0, 1)).all():
        raise SpaceError(f"a wire is there when a condition holds, 0 or 1, not when {gate}: ask `is_(value)` or `ge`")
    if not values.any():
        raise SpaceError(
            f"a wire is there when {gate} holds, which no values of {', '.join(sorted(gate.paths))} make true"
        )
