"""Cost readings: sums over nodes of what blocks state, gated by whether the node takes part. No module is built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from rankitect.graph.graph import Graph
from rankitect.graph.liveness import Liveness
from rankitect.graph.nodes import Node
from rankitect.graph.params import Param
from rankitect.graph.quantized import FLOAT, GROUP, Quantized
from rankitect.graph.stored import FLOAT_BYTES, cached_bytes, param_bytes
from rankitect.space.expr import Expr, any_of, as_expr

__all__ = ["COSTS", "FLOAT_BYTES", "cost_expression", "weight_bytes"]

_GROUP_OF = {4: GROUP}
"""Weights that share a scale where only the bits of a file are said."""

COSTS: Final[Mapping[str, str]] = {
    "params": "parameters",
    "flops": "FLOPs",
    "matrix_params": "parameters",
    "weight_bytes": "bytes",
    "program_bytes": "bytes",
    "activation_bytes": "bytes",
    "cache_bytes": "bytes",
    "table_rows": "rows",
    "table_bytes": "bytes",
}
"""The costs that every space has, with their units. FLOPs count a multiplication with its addition as two. Matrices
are the weights of two dimensions and more, which quantization stores in fewer bits. Tables are the weights that are
read row by row (`Param.table`); their bytes are among the weights' bytes, too. A weight that several blocks have is
stored once where it has the same bits for all; a program holds it once as a table and once as a matrix where it is
both, and leaves tables that are held apart outside. Scales of weights count as bytes, not as parameters."""


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
    if kind in ("weight_bytes", "program_bytes"):
        return weight_bytes(graph, live, scope, as_program=kind == "program_bytes")
    if kind in ("params", "matrix_params"):
        shapes = {
            (n.weights, name): p
            for n in graph.nodes
            for name, p in n.params.items()
            if within(n.weights) and p.trained and not p.scales_of
        }
        if kind == "matrix_params":
            shapes = {key: param for key, param in shapes.items() if len(param.shape) > 1}
        terms = [live.weights[key] * param.numel for key, param in shapes.items()]
    elif kind in ("table_rows", "table_bytes"):
        tables = {(n.weights, k): p for n in graph.nodes for k, p in n.params.items() if p.table and within(n.weights)}
        terms = [
            live.weights[key] * (param.shape[0] if kind == "table_rows" else param.numel * FLOAT_BYTES)
            for key, param in tables.items()
        ]
    elif kind == "flops":
        terms = [live.nodes[n.path] * n.flops for n in graph.nodes if within(n.path)]
    elif kind == "cache_bytes":
        terms = [live.nodes[n.path] * _cache_bytes(n) for n in graph.nodes if within(n.path)]
    elif kind == "activation_bytes":
        terms = [
            live.nodes[n.path] * out.numel * FLOAT_BYTES for n in graph.nodes if within(n.path) for out in n.outputs
        ]
    else:
        raise KeyError(kind)
    return _sum(terms)


def _cache_bytes(node: Node) -> Expr:
    block = node.block
    if not isinstance(block, Quantized) or node.cache == 0:
        return node.cache * FLOAT_BYTES
    return cached_bytes(node.cache, node.cache // block.cache_width, block.cache_bits)


def weight_bytes(
    graph: Graph, live: Liveness, scope: str = "", *, as_program: bool = False, float_bits: int = FLOAT
) -> Expr:
    """Bytes of all weights in a file, their scales included.

    Args:
        graph: The graph.
        live: Its liveness.
        scope: Count only nodes inside this scope.
        as_program: Whether a weight that is both a table and a matrix is counted as both, and tables that are held
            apart are not.
        float_bits: Bits in which those matrices are counted for which the space says nothing.
    """
    forms: dict[tuple[str, str, bool], dict[tuple[Expr, Expr], tuple[Param, list[Expr]]]] = {}
    for node in graph.nodes:
        if scope and node.weights != scope and not node.weights.startswith(scope + "."):
            continue
        for name, param in node.params.items():
            if param.scales_of or (as_program and param.table):
                continue
            numbers = param.bits, param.scale_group
            if param.is_matrix and param.bits == FLOAT:
                numbers = as_expr(float_bits), as_expr(_GROUP_OF.get(float_bits, 0))
            form = forms.setdefault((node.weights, name, as_program and param.is_table), {})
            form.setdefault(numbers, (param, []))[1].append(live.nodes[node.path] * param.gate)
    return _sum([term for form in forms.values() for term in _stored_forms(form)])


def _stored_forms(form: Mapping[tuple[Expr, Expr], tuple[Param, list[Expr]]]) -> Iterator[Expr]:
    """Bytes of one weight in each of the bits that its blocks have it in, where these are not the same."""
    before: list[tuple[Expr, Expr, Expr]] = []
    for (bits, group), (param, gates) in form.items():
        needed = gate = any_of(gates)
        for known_gate, known_bits, known_group in before:
            needed = needed * (1 - known_gate * known_bits.eq(bits) * known_group.eq(group))
        before.append((gate, bits, group))
        yield needed * param_bytes(param, bits, group)


def _sum(terms: list[Expr]) -> Expr:
    merged: dict = {}
    for term in terms:
        for monomial, coefficient in term.terms.items():
            merged[monomial] = merged.get(monomial, 0) + coefficient
    return Expr(merged) if merged else as_expr(0)
