"""The nodes of a graph: blocks in their places."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rankitect.graph.block import Block
from rankitect.graph.params import Param
from rankitect.graph.types import TensorType
from rankitect.graph.wires import Edge
from rankitect.space.expr import Expr

__all__ = ["Node"]


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
