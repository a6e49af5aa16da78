"""What a graph is made of: nodes, the edges between them, and the wires that an author holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rankitect.graph.block import Block, Param, Sum
from rankitect.graph.types import TensorType
from rankitect.space.expr import Expr, as_expr

if TYPE_CHECKING:
    from rankitect.graph.graph import Graph

__all__ = ["ONE", "Edge", "Node", "Rule", "Wire"]

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


@dataclass(frozen=True)
class Node:
    """A block in its place: data, without tensors."""

    path: str
    block: Block
    inputs: tuple[Edge, ...]
    outputs: tuple[TensorType, ...]
    weights: str
    params: Mapping[str, Param]
    sizes: Mapping[str, Expr]
    flops: Expr
    cache: Expr


@dataclass(frozen=True)
class Rule:
    """A condition that an architecture must meet, and how to say it."""

    condition: Expr
    text: str


@dataclass(frozen=True)
class Wire:
    """An output of a node, to be put into other blocks. `a + b` adds two wires.

    Attributes:
        graph: The graph.
        edge: Where it comes from, and when it is there.
        type: What it carries.
        optional: Whether it may be left out (where a choice leaves nothing, blocks with any number of inputs skip it).
    """

    graph: Graph
    edge: Edge
    type: TensorType
    optional: bool = False

    def __add__(self, other: Wire) -> Wire:
        return Sum()(self, other, name="add")

    def always(self) -> Wire:
        """The wire with zeros where it would be left out (the source gives them)."""
        return replace(self, edge=replace(self.edge, gate=ONE), optional=False) if self.optional else self

    def __str__(self) -> str:
        return f"{self.edge.source}{self.type}"
