"""Graphs from plain JSON data, which others may have written: only with blocks from allowed packages, and checked."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from rankitect.documents import as_kind
from rankitect.errors import SpaceError
from rankitect.graph.block import Block, Input, Zeros
from rankitect.graph.facts import facts_of
from rankitect.graph.graph import Edge, Graph, Node
from rankitect.graph.types import TensorType, parse_ports, unify
from rankitect.space.choice_space import restore_choices
from rankitect.space.choices import Choice
from rankitect.space.expr_data import expr_of
from rankitect.space.names import check_name, shown
from rankitect.space.stored import Name, Stored, StoredChoices, Value

__all__ = ["StoredSpace", "restored_graph"]

MAX_NODES, MAX_EDGES, MAX_AXES = 20_000, 4096, 16


class StoredType(Stored):
    """A tensor type."""

    dims: list[Any] = Field(max_length=MAX_AXES)
    dtype: Literal["float", "int"]


class StoredEdge(Stored):
    """An input of a node, or an output of the graph."""

    source: Name = Field(alias="from")
    gate: Any
    mixes: bool
    index: int = Field(ge=0)


class StoredBlock(Stored):
    """The class of a block, and its fields by name."""

    class_: Name = Field(alias="class")
    fields: dict[Name, Any] = Field(max_length=100)


class StoredNode(Stored):
    """A block in its place."""

    path: Name
    block: StoredBlock
    inputs: list[StoredEdge] = Field(max_length=MAX_EDGES)
    weights: Name
    outputs: list[StoredType] = Field(max_length=MAX_AXES)


class StoredSpace(StoredChoices):
    """What `SearchSpace.to_json` writes."""

    defaults: dict[Name, int] = Field(max_length=100)
    nodes: list[StoredNode] = Field(max_length=MAX_NODES)
    out: list[StoredEdge] = Field(max_length=MAX_EDGES)
    base: dict[str, Any] | None = None
    closed: dict[Name, Value] = Field({})


def restored_graph(stored: StoredSpace, allowed_packages: Sequence[str]) -> Graph:
    """The inverse of `rankitect.graph.serialize.graph_data`; weights and costs are derived again from the blocks.

    Args:
        stored: The data.
        allowed_packages: Packages that blocks may come from.

    Raises:
        SpaceError: A block is from elsewhere or none, or a node does not fit the others.
    """
    graph = Graph(stored.name)
    restore_choices(graph, stored)
    reader = _Reader(graph, allowed_packages)
    for item in stored.nodes:
        graph.restore(reader.node(item))
    edges = [reader.edge("the output", e) for e in stored.out]
    graph.restore_outputs(edges)
    return graph


class _Reader:
    """Reads the parts of a graph whose choices are known."""

    def __init__(self, graph: Graph, allowed: Sequence[str]) -> None:
        self._graph, self._allowed = graph, allowed
        self._choices: Mapping[str, Choice] = graph.choices

    def node(self, item: StoredNode) -> Node:
        """A node whose inputs are in the graph."""
        check_name("a node", item.path)
        check_name("the owner of weights", item.weights)
        if item.path in self._graph.dag:
            raise SpaceError(f"there are two nodes {item.path!r}")
        block = self._block(item)
        edges = tuple(self.edge(f"node {item.path!r}", e) for e in item.inputs)
        types = self._graph.types(edges)
        outputs = tuple(self._type(t) for t in item.outputs)
        sizes = block.fields()
        if isinstance(block, Input | Zeros):  # both are of any type
            if len(outputs) != 1 or len(edges) != isinstance(block, Zeros):
                raise SpaceError(f"at {item.path}: {block.label} has {len(edges)} inputs and {len(outputs)} outputs")
        else:
            derived, sizes = unify(item.path, parse_ports(block.ports), types, sizes)
            if derived != outputs:
                raise SpaceError(
                    f"at {item.path}: {block.label} gives {shown(', '.join(map(str, derived)))}, not what is stored: "
                    f"{shown(', '.join(map(str, outputs)))}"
                )
        params, flops, cache = facts_of(item.path, block, types)
        return Node(item.path, block, edges, outputs, item.weights, params, sizes, flops, cache)

    def edge(self, where: str, item: StoredEdge) -> Edge:
        """An edge from a node of the graph."""
        if item.source not in self._graph.dag:
            raise SpaceError(f"{where} has the input {item.source!r}, which is no node before it")
        if item.index >= len(self._graph.node(item.source).outputs):
            raise SpaceError(f"{where} has the input {item.source!r}, which has no output {item.index}")
        gate = expr_of(item.gate, self._choices)
        if gate.symbols:
            raise SpaceError(f"{where} has an input whose condition depends on {min(gate.symbols)}")
        return Edge(item.source, gate, item.mixes, item.index)

    def _type(self, item: StoredType) -> TensorType:
        return TensorType(tuple(expr_of(d, self._choices) for d in item.dims), item.dtype)

    def _block(self, item: StoredNode) -> Block:
        data = item.block
        module, _, name = data.class_.rpartition(".")
        # A module such as `__main__` does something when it is imported.
        known = any(module == p or module.startswith(p + ".") for p in self._allowed)
        if not known or any(part.startswith("__") or not part.isidentifier() for part in module.split(".")):
            raise SpaceError(f"block {data.class_!r} is not from an allowed package ({', '.join(self._allowed)})")
        try:
            kind = vars(importlib.import_module(module)).get(name)
        except ImportError as error:
            raise SpaceError(f"block {data.class_!r} cannot be imported: {error}") from None
        if not (isinstance(kind, type) and issubclass(kind, Block)):
            raise SpaceError(f"{data.class_!r} is no block")
        try:
            return kind(**{k: self._value(v, 0) for k, v in data.fields.items()})
        except SpaceError as error:
            raise SpaceError(f"at {item.path} ({kind.__name__}): {error}") from None
        except Exception as error:  # the block's own code, given fields that its author did not expect
            raise SpaceError(
                f"at {item.path}: no {kind.__name__} can be made of {shown(data.fields)}: {type(error).__name__}: "
                f"{str(error)[:200]}"
            ) from error

    def _value(self, data: Any, depth: int) -> Any:
        """The value of a block's field."""
        if not isinstance(data, dict):
            if isinstance(data, list):
                raise SpaceError(f"a field of a block cannot be {shown(data)}")
            return data
        if len(data) != 1 or depth > MAX_AXES:
            raise SpaceError(f"a field of a block cannot be {shown(data)}")
        ((kind, inner),) = data.items()
        if kind == "expr":
            return expr_of(inner, self._choices)
        if kind == "type":
            return self._type(as_kind(inner, StoredType, "the type in a field of a block", SpaceError))
        if kind == "tuple" and isinstance(inner, list):
            return tuple(self._value(v, depth + 1) for v in inner)
        raise SpaceError(f"a field of a block cannot be {shown(data)}")
