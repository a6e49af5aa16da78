"""Spaces as JSON: data without tensors, read back only with blocks from allowed packages."""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rankitect.errors import SpaceError
from rankitect.graph.block import Block, Input, Zeros
from rankitect.graph.graph import Edge, Graph, Node, Rule
from rankitect.graph.types import TensorType, parse_ports, unify
from rankitect.space.architecture import Architecture
from rankitect.space.choices import Choice
from rankitect.space.expr import Expr

if TYPE_CHECKING:
    from rankitect.graph.space import SearchSpace

__all__ = ["space_from_json", "space_to_json"]

SCHEMA = 1


def _value_data(value: Any) -> Any:
    if isinstance(value, Expr):
        return {"expr": value.to_data()}
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
        return Expr.from_data(inner)
    return _type_from(inner) if kind == "type" else tuple(_value_from(v) for v in inner)


def _type_data(kind: TensorType) -> dict[str, Any]:
    return {"dims": [d.to_data() for d in kind.dims], "dtype": kind.dtype}


def _type_from(data: dict[str, Any]) -> TensorType:
    return TensorType(tuple(Expr.from_data(d) for d in data["dims"]), data["dtype"])


def _edge_data(edge: Edge) -> dict[str, Any]:
    return {"from": edge.source, "gate": edge.gate.to_data(), "mixes": edge.mixes, "index": edge.index}


def _edge_from(data: dict[str, Any]) -> Edge:
    return Edge(data["from"], Expr.from_data(data["gate"]), data["mixes"], data["index"])


def _block_data(block: Block) -> dict[str, Any]:
    kind = type(block)
    fields = {f.name: _value_data(getattr(block, f.name)) for f in dataclasses.fields(block)}  # type: ignore[arg-type]
    return {"class": f"{kind.__module__}.{kind.__qualname__}", "fields": fields}


def _block_from(data: dict[str, Any], allowed: Sequence[str]) -> Block:
    module, _, name = data["class"].rpartition(".")
    if not any(module == p or module.startswith(p + ".") for p in allowed):
        raise SpaceError(f"block {data['class']!r} is not from an allowed package ({', '.join(allowed)})")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        raise SpaceError(f"block {data['class']!r} cannot be imported: {error}") from None
    if not (isinstance(found, type) and issubclass(found, Block)):
        raise SpaceError(f"{data['class']!r} is no block")
    return found(**{k: _value_from(v) for k, v in data["fields"].items()})


def space_to_json(space: SearchSpace) -> str:
    """Write a space."""
    graph = space.graph
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
    data = {
        "schema": SCHEMA,
        "name": graph.name,
        "version": space.version,
        "defaults": dict(space.defaults),
        "choices": [c.declaration() for c in graph.choices.values()],
        "rules": [{"condition": r.condition.to_data(), "text": r.text} for r in graph.rules],
        "nodes": nodes,
        "out": [_edge_data(e) for e in graph.outputs],
        "points": {name: json.loads(a.to_json()) for name, a in space.points.items()},
        "base": None if space.base is None else json.loads(space_to_json(space.base)),
        "closed": space.closed,
    }
    return json.dumps(data)


def space_from_json(text: str, allowed_packages: Sequence[str]) -> SearchSpace:
    """Read a space; types, weights and costs are derived again from the blocks."""
    from rankitect.graph.space import SearchSpace

    try:
        data = json.loads(text)
        if data.get("schema") != SCHEMA:
            raise SpaceError(f"space of schema {data.get('schema')!r}; this version reads {SCHEMA}")
        graph = Graph(data["name"])
        graph.choices = {c["path"]: Choice.from_declaration(c) for c in data["choices"]}
        graph.rules = [Rule(Expr.from_data(r["condition"]), r["text"]) for r in data["rules"]]
        for item in data["nodes"]:
            graph.restore(_node_from(graph, item, allowed_packages))
        graph.restore_outputs([_edge_from(e) for e in data["out"]])
        space = SearchSpace(graph, data["version"], data["defaults"])
        space.closed.update(data.get("closed", {}))
        if data.get("base") is not None:
            space.base = space_from_json(json.dumps(data["base"]), allowed_packages)
        for name, item in data.get("points", {}).items():
            space.points[name] = space.validate(Architecture.from_json(json.dumps(item)))
        return space
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise SpaceError(f"not a space in JSON: {type(error).__name__}: {error}") from None


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
