"""Graphs as plain JSON data, read back only with blocks from allowed packages."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from rankitect.errors import SpaceError
from rankitect.graph.block import Block, Input, Zeros
from rankitect.graph.graph import Edge, Graph, Node
from rankitect.graph.types import TensorType, parse_ports, unify
from rankitect.space.choice_space import choices_data, restore_choices
from rankitect.space.expr import Expr
from rankitect.space.expr_data import data_of, expr_of

__all__ = ["graph_data", "restored_graph"]


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


def _value_from(data: Any) -> Any:
    if not isinstance(data, dict):
        return data
    ((kind, inner),) = data.items()
    if kind == "expr":
        return expr_of(inner)
    return _type_from(inner) if kind == "type" else tuple(_value_from(v) for v in inner)


def _type_data(kind: TensorType) -> dict[str, Any]:
    return {"dims": [data_of(d) for d in kind.dims], "dtype": kind.dtype}


def _type_from(data: dict[str, Any]) -> TensorType:
    return TensorType(tuple(expr_of(d) for d in data["dims"]), data["dtype"])


def _edge_data(edge: Edge) -> dict[str, Any]:
    return {"from": edge.source, "gate": data_of(edge.gate), "mixes": edge.mixes, "index": edge.index}


def _edge_from(data: dict[str, Any]) -> Edge:
    return Edge(data["from"], expr_of(data["gate"]), data["mixes"], data["index"])


def _block_data(block: Block) -> dict[str, Any]:
    kind = type(block)
    fields = {f.name: _value_data(getattr(block, f.name)) for f in dataclasses.fields(block)}  # type: ignore[arg-type]
    return {"class": f"{kind.__module__}.{kind.__qualname__}", "fields": fields}


def _block_from(data: dict[str, Any], allowed: Sequence[str]) -> Block:
    module, _, name = data["class"].rpartition(".")
    if not any(module == p or module.startswith(p + ".") for p in allowed):
        raise SpaceError(f"block {data['class']!r} is not from an allowed package ({', '.join(allowed)})")
    try:
        kind = getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        raise SpaceError(f"block {data['class']!r} cannot be imported: {error}") from None
    if not (isinstance(kind, type) and issubclass(kind, Block)):
        raise SpaceError(f"{data['class']!r} is no block")
    return kind(**{k: _value_from(v) for k, v in data["fields"].items()})


def graph_data(graph: Graph) -> dict[str, Any]:
    """A graph with its choices and rules as plain data."""
    nodes = [
        {
            "path": n.path,
            "block": _block_data(n.block),
            "inputs": [_edge_data(e) for e in n.inputs],
            "weights": n.weights,
            "outputs": [_type_data(t) for t in n.outputs],
        }
        for n in graph.nodes
    ]
    return {**choices_data(graph), "nodes": nodes, "out": [_edge_data(e) for e in graph.outputs]}


def restored_graph(data: Mapping[str, Any], allowed_packages: Sequence[str]) -> Graph:
    """The inverse of `graph_data`; types, weights and costs are derived again from the blocks.

    Args:
        data: The data.
        allowed_packages: Packages that blocks may come from.

    Raises:
        SpaceError: A block is from elsewhere, or is none.
        KeyError: Something is missing.
    """
    graph = Graph(data["name"])
    restore_choices(graph, data)
    for item in data["nodes"]:
        graph.restore(_node_from(graph, item, allowed_packages))
    graph.restore_outputs([_edge_from(e) for e in data["out"]])
    return graph


def _node_from(graph: Graph, item: dict[str, Any], allowed: Sequence[str]) -> Node:
    block = _block_from(item["block"], allowed)
    edges = tuple(_edge_from(e) for e in item["inputs"])
    types = graph.types(edges)
    outputs = tuple(_type_from(t) for t in item["outputs"])
    sizes = block.fields()
    if not isinstance(block, Input | Zeros):  # both are of any type
        derived, sizes = unify(item["path"], parse_ports(block.ports), types, sizes)
        outputs = derived if "..." not in parse_ports(block.ports).outputs[0].axes else outputs
    params = block.params(*types)
    return Node(
        item["path"], block, edges, outputs, item["weights"], params, sizes, block.flops(*types), block.cache(*types)
    )
