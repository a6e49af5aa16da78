"""Which nodes, weights and choices have an effect on the output: derived from the wiring, never declared."""

from __future__ import annotations

from dataclasses import dataclass

from rankitect.errors import SpaceError
from rankitect.graph.expr import Expr, any_of, as_expr
from rankitect.graph.graph import Edge, Graph, Node

__all__ = ["Liveness", "liveness"]


@dataclass(frozen=True)
class Liveness:
    """Conditions, each 1 or 0 under an architecture.

    Attributes:
        nodes: Whether a node takes part, by path.
        weights: Whether a weight exists, by (owner, name).
        choices: Whether a choice has an effect, by path.
    """

    nodes: dict[str, Expr]
    weights: dict[tuple[str, str], Expr]
    choices: dict[str, Expr]


def _uses(node: Node) -> frozenset[str]:
    """The choices that decide the node's own shape or its wiring."""
    found: set[str] = set()
    for expr in node.sizes.values():
        found |= expr.paths
    for param in node.params.values():
        for dim in param.shape:
            found |= dim.paths
    for output in node.outputs:
        for dim in output.dims:
            found |= dim.paths
    found |= node.flops.paths | node.cache.paths
    return frozenset(found)


def _check_declared(graph: Graph) -> None:
    for node in graph.nodes:
        used = _uses(node).union(*(e.gate.paths for e in node.inputs))
        if foreign := used - graph.choices.keys():
            raise SpaceError(f"at {node.path}: choice {min(foreign)!r} was not declared in graph {graph.name!r}")
    for rule in graph.rules:
        if foreign := rule.condition.paths - graph.choices.keys():
            raise SpaceError(f"rule {rule.text!r}: choice {min(foreign)!r} was not declared in graph {graph.name!r}")


def liveness(graph: Graph) -> Liveness:
    """Walk the graph backwards from its outputs.

    Raises:
        SpaceError: The graph has no output, a choice is used nowhere, or one of another graph is used.
    """
    if not graph.outputs:
        raise SpaceError(f"graph {graph.name!r} has no output: assign `g.out`")
    _check_declared(graph)
    consumers: dict[str, list[tuple[str | None, Edge]]] = {}
    for edge in graph.outputs:
        consumers.setdefault(edge.source, []).append((None, edge))
    nodes = list(graph.nodes)
    for node in nodes:
        for edge in node.inputs:
            consumers.setdefault(edge.source, []).append((node.path, edge))
    live: dict[str, Expr] = {}
    for node in reversed(nodes):
        uses = consumers.get(node.path, [])
        live[node.path] = any_of((live[to] if to is not None else as_expr(1)) * edge.gate for to, edge in uses)
    weights: dict[tuple[str, str], list[Expr]] = {}
    choices: dict[str, list[Expr]] = {path: [] for path in graph.choices}
    for node in nodes:
        for name, param in node.params.items():
            weights.setdefault((node.weights, name), []).append(live[node.path] * param.gate)
        for path in _uses(node):
            choices[path].append(live[node.path])
        for edge in node.inputs:
            for path in edge.gate.paths:
                choices[path].append(live[node.path])
    unused = [p for p, found in choices.items() if not found and len(graph.choices[p].values) > 1]
    if unused:
        raise SpaceError(f"choice {unused[0]!r} is declared but decides nothing in the graph")
    return Liveness(live, {k: any_of(v) for k, v in weights.items()}, {p: any_of(v) for p, v in choices.items()})
