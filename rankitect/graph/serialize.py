"""Graphs as plain JSON data; `rankitect.graph.restoring` reads them back."""

from __future__ import annotations

from typing import Any

from rankitect.errors import SpaceError
from rankitect.graph.block import Block
from rankitect.graph.graph import Edge, Graph
from rankitect.graph.types import TensorType
from rankitect.space.choice_space import choices_data
from rankitect.space.expr import Expr
from rankitect.space.expr_data import data_of

__all__ = ["block_data", "graph_data"]


def _value_data(value: Any) -> Any:
    if isinstance(value, Expr):
        return {"expr": data_of(value)}
    if isinstance(value, TensorType):
        return {"type": _type_data(value)}
    if isinstance(value, tuple):
        return {"tuple": [_value_data(v) for v in value]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise SpaceError(
        f"a block's field of type {type(value).__name__} cannot be stored: use numbers, strings and expressions"
    )


def _type_data(kind: TensorType) -> dict[str, Any]:
    return {"dims": [data_of(d) for d in kind.dims], "dtype": kind.dtype}


def _edge_data(edge: Edge) -> dict[str, Any]:
    return {"from": edge.source, "gate": data_of(edge.gate), "mixes": edge.mixes, "index": edge.index}


def block_data(block: Block) -> dict[str, Any]:
    """A block's class and fields as plain data.

    Raises:
        SpaceError: A field is of a type that cannot be stored.
    """
    kind = type(block)
    fields = {name: _value_data(value) for name, value in block.stated().items()}
    return {"class": f"{kind.__module__}.{kind.__qualname__}", "fields": fields}


def graph_data(graph: Graph) -> dict[str, Any]:
    """A graph with its choices and rules as plain data."""
    nodes = [
        {
            "path": n.path,
            "block": block_data(n.block),
            "inputs": [_edge_data(e) for e in n.inputs],
            "weights": n.weights,
            "outputs": [_type_data(t) for t in n.outputs],
        }
        for n in graph.nodes
    ]
    return {**choices_data(graph), "nodes": nodes, "out": [_edge_data(e) for e in graph.outputs]}
