"""Cost readings: sums over nodes of what blocks state, gated by whether the node takes part. No module is built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rankitect.graph.graph import Graph
from rankitect.graph.liveness import Liveness
from rankitect.space.expr import Expr, as_expr

__all__ = ["COSTS", "FLOAT_BYTES", "STORED_BITS", "cost_expression"]

FLOAT_BYTES: Final = 4

STORED_BITS: Final[Mapping[int, float]] = {32: 32.0, 16: 16.0, 8: 8.0, 4: 4.5}
"""Bits that a weight of a matrix takes in a file, by the bits of its value. Of 4 bits, groups of 32 weights share a
scale of 16 bits; the scale that a whole row of 8 bits shares is not counted, as it is less than a hundredth."""

COSTS: Final[Mapping[str, str]] = {
    "params": "parameters",
    "flops": "FLOPs",
    "matrix_params": "parameters",
    "weight_bytes": "bytes",
    "activation_bytes": "bytes",
    "cache_bytes": "bytes",
    "table_rows": "rows",
    "table_bytes": "bytes",
}
"""The costs that every space has, with their units. FLOPs count a multiplication with its addition as two. Matrices
are the weights of two dimensions and more, which quantization stores in fewer bits. Tables are the weights that are
read row by row (`Param.table`); their bytes are among the weights' bytes, too."""


def cost_expression(graph: Graph, live: Liveness, kind: str, scope: str = "") -> Expr:
    """One cost of a space as an expression of its choices and free dimensions.

    Args:
        graph: The graph.
        live: Its liveness.
        kind: A key of `COSTS`.
        scope: Count only nodes inside this scope, for example "layers".
    """

    def within(path: str) -> bool:
        return not scope or path == scope or path.startswith(scope + ".")

    terms: list[Expr] = []
    if kind in ("params", "matrix_params", "weight_bytes"):
        shapes = {
            (n.weights, name): p
            for n in graph.nodes
            for name, p in n.params.items()
            if within(n.weights) and not p.scales_of
        }
        if kind == "matrix_params":
            shapes = {key: param for key, param in shapes.items() if len(param.shape) > 1}
        factor = FLOAT_BYTES if kind == "weight_bytes" else 1
        terms = [live.weights[key] * param.numel * factor for key, param in shapes.items()]
    elif kind in ("table_rows", "table_bytes"):
        tables = {(n.weights, k): p for n in graph.nodes for k, p in n.params.items() if p.table and within(n.weights)}
        terms = [
            live.weights[key] * (param.shape[0] if kind == "table_rows" else param.numel * FLOAT_BYTES)
            for key, param in tables.items()
        ]
    elif kind == "flops":
        terms = [live.nodes[n.path] * n.flops for n in graph.nodes if within(n.path)]
    elif kind == "cache_bytes":
        terms = [live.nodes[n.path] * n.cache * FLOAT_BYTES for n in graph.nodes if within(n.path)]
    elif kind == "activation_bytes":
        terms = [
            live.nodes[n.path] * out.numel * FLOAT_BYTES for n in graph.nodes if within(n.path) for out in n.outputs
        ]
    else:
        raise KeyError(kind)
    return _sum(terms)


def _sum(terms: list[Expr]) -> Expr:
    merged: dict = {}
    for term in terms:
        for monomial, coefficient in term.terms.items():
            merged[monomial] = merged.get(monomial, 0) + coefficient
    return Expr(merged) if merged else as_expr(0)
