"""The nodes of a graph and the edges between them: what is stored, apart from how it is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import networkx as nx

from rankitect.errors import SpaceError
from rankitect.graph.block import Input
from rankitect.graph.nodes import Node
from rankitect.graph.types import TensorType
from rankitect.graph.wires import Edge

__all__ = ["Dag"]


class Dag:
    """A directed acyclic graph of nodes.

    Attributes:
        dag: The networkx graph; each node's data holds a `Node` under "node".
    """

    def __init__(self) -> None:
        self.dag: nx.DiGraph = nx.DiGraph()
        self._out: list[Edge] = []
        self._users: dict[str, list[str]] = {}  # the nodes that use a weight, by the weight's owner
        self._sorted: tuple[Node, ...] | None = None  # the nodes in order, where nothing was added since

    def node(self, path: str) -> Node:
        """The node at a path."""
        node: Node = self.dag.nodes[path]["node"]
        return node

    @property
    def nodes(self) -> Iterator[Node]:
        """All nodes, inputs first."""
        if self._sorted is None:
            order = nx.lexicographical_topological_sort(self.dag, key=self._order)
            self._sorted = tuple(self.dag.nodes[p]["node"] for p in order)
        return iter(self._sorted)

    def _order(self, path: str) -> int:
        position: int = self.dag.nodes[path]["order"]
        return position

    def types(self, edges: Sequence[Edge]) -> list[TensorType]:
        """The types that come in over edges, with the edges' gates."""
        return [replace(self.node(e.source).outputs[e.index], gate=e.gate) for e in edges]

    @property
    def inputs(self) -> list[Node]:
        """The sources, in order of declaration."""
        return [n for n in self.nodes if isinstance(n.block, Input)]

    @property
    def outputs(self) -> list[Edge]:
        """What the model gives."""
        return self._out

    def restore(self, node: Node) -> None:
        """Add a finished node (one that a stored space holds).

        Raises:
            SpaceError: It shares weights of another shape.
        """
        self._check_shared(node)
        if node.params:
            self._users.setdefault(node.weights, []).append(node.path)
        self._sorted = None
        self.dag.add_node(node.path, node=node, order=self.dag.number_of_nodes())
        self.dag.add_edges_from((e.source, node.path) for e in node.inputs)

    def restore_outputs(self, edges: Sequence[Edge]) -> None:
        """Set the outputs of a stored space."""
        self._out = list(edges)

    def _check_shared(self, node: Node) -> None:
        for path in self._users.get(node.weights, ()):
            other = self.node(path)
            for name in other.params.keys() & node.params.keys():
                mine, theirs = TensorType(node.params[name].shape), TensorType(other.params[name].shape)
                if mine != theirs:
                    raise SpaceError(
                        f"{node.path} and {other.path} share the weights {node.weights!r}, but {name} is {mine} in one "
                        f"and {theirs} in the other"
                    )
