"""Bits and groups that no runtime could hold: refused when a space is made, not when a model of it is built."""

from __future__ import annotations

from math import prod

import numpy as np

from rankitect.errors import SpaceError, short
from rankitect.graph.graph import Graph
from rankitect.graph.liveness import Liveness
from rankitect.graph.nodes import Node
from rankitect.graph.params import Param
from rankitect.graph.quantized import BITS, INTEGER_BITS, Quantized
from rankitect.graph.sizes import counterexample
from rankitect.space.expr import Expr, as_expr

__all__ = ["check_bits"]


def check_bits(graph: Graph, live: Liveness) -> None:
    """Refuse a graph in which numbers of a block have bits that there are not, or a group does not divide a weight.

    Raises:
        SpaceError: Names the node, the field or the weight, and values of choices that make it so.
    """
    for node in graph.nodes:
        block = node.block
        if not isinstance(block, Quantized) or block.numerics() == {}:
            continue
        for name in ("bits", "act_bits", "cache_bits"):
            _check_values(graph, node, live, name, as_expr(getattr(block, name)))
        if as_expr(block.cache_bits) != as_expr(32) and node.cache == 0:
            raise SpaceError(f"at {node.path} ({block.label}): cache_bits is given, and the block keeps no cache")
        for name, param in node.params.items():
            if param.is_matrix:
                _check_group(graph, node, name, param, live.nodes[node.path] * param.gate)


def _check_values(graph: Graph, node: Node, live: Liveness, name: str, bits: Expr) -> None:
    def bad(values: list[np.ndarray]) -> np.ndarray:
        return ~np.isin(values[0], BITS)

    if (example := counterexample(graph, [bits], live.nodes[node.path], bad)) is not None:
        raise SpaceError(f"at {node.path} ({node.block.label}): {name} {example}; allowed: {', '.join(map(str, BITS))}")


def _check_group(graph: Graph, node: Node, name: str, param: Param, gate: Expr) -> None:
    inputs = prod(param.shape[param.rows :], start=as_expr(1))

    def bad(values: list[np.ndarray]) -> np.ndarray:
        size, number, width = values
        grouped = (number <= INTEGER_BITS) & (size != 0)
        return grouped & ((size < 0) | (width % np.maximum(size, 1) != 0))

    if (example := counterexample(graph, [param.scale_group, param.bits, inputs], gate, bad)) is not None:
        raise SpaceError(
            f"at {node.path} ({node.block.label}): the scale_group of the weight {name!r} {example}, which does not "
            f"divide its {short(str(inputs), 80)} inputs; 0 is a scale for each output"
        )
