"""A graph with other blocks in the places of some: the same choices and wires, all that follows from blocks anew."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace

from rankitect.errors import SpaceError
from rankitect.graph.block import Block, Input, Zeros
from rankitect.graph.dag import Dag
from rankitect.graph.facts import facts_of, ports_of
from rankitect.graph.graph import Graph
from rankitect.graph.nodes import Node
from rankitect.graph.types import TensorType, unify
from rankitect.graph.wiring import check_fields
from rankitect.space.names import nearest

__all__ = ["with_blocks"]


def with_blocks(graph: Graph, blocks: Mapping[str, Block], owners: Mapping[str, str]) -> Graph:
    """A copy of a graph in which some nodes have other blocks. Types, weights and costs are derived again.

    Args:
        graph: The graph, which is left as it is.
        blocks: The new blocks, by the paths of their nodes.
        owners: For nodes whose weights are to be another node's from now on, or their own, the path of that node.

    Raises:
        SpaceError: There is no such node, a block does not fit its wires, or nodes that share weights disagree on them.
    """
    for path in (*blocks, *owners):
        if path not in graph.dag:
            raise SpaceError(f"graph {graph.name!r} has no node {path!r}{nearest(path, list(graph.dag))}")
    changed = copy.copy(graph)
    Dag.__init__(changed)
    for node in graph.nodes:
        types = changed.types(node.inputs)
        block, owner = blocks.get(node.path, node.block), owners.get(node.path, node.weights)
        same = block == node.block and types == graph.types(node.inputs)
        fixed = isinstance(block, Input | Zeros) or same
        changed.restore(replace(node, weights=owner) if fixed else _derived(node, block, owner, types))
    changed.restore_outputs(graph.outputs)
    return changed


def _derived(node: Node, block: Block, owner: str, types: Sequence[TensorType]) -> Node:
    where = f"{node.path} ({block.label})"
    check_fields(where, block)
    outputs, sizes = unify(where, ports_of(where, block), types, block.fields())
    params, flops, cache = facts_of(where, block, types)
    return Node(node.path, block, node.inputs, outputs, owner, params, sizes, flops, cache)
