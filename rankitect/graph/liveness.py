"""Which nodes, weights and choices have an effect on the output: derived from the wiring, never declared."""

from __future__ import annotations

from dataclasses import dataclass

from rankitect.errors import SpaceError
from rankitect.graph.graph import Edge, Graph, Node
from rankitect.space.declaring import setting_liveness
from rankitect.space.expr import Expr, any_of, as_expr

__all__ = ["Liveness", "liveness"]


@dataclass(frozen=True)
class Liveness:
    """Conditions, each 1 or 0 under an architecture.

    Attributes:
        nodes: Whether a node takes part, by path.
        weights: Whether a weight exists, by (owner, name).
        choices: Whether a choice has an effect, by path.
        settings: The choices that nothing in the graph depends on.
    """

    nodes: dict[str, Expr]
    weights: dict[tuple[str, str], Expr]
    choices: dict[str, Expr]
    settings: tuple[str, ...] = ()


def _uses(node: Node) -> dict[str, list[Expr]]:
    """The choices that decide the node's shape, weights or cost, each with the conditions under which it does so.

    What belongs to an input that is not there decides nothing: the width of a layer that a pick left out is no
    difference between two architectures.
    """
    uses: dict[str, list[Expr]] = {}

    def add(paths: frozenset[str], condition: Expr) -> None:
        for path in paths:
            uses.setdefault(path, []).append(condition)

    shape = frozenset[str]().union(
        *(size.paths for size in node.sizes.values()), *(d.paths for o in node.outputs for d in o.dims)
    )
    add(shape, as_expr(1))  # whenever the node takes part
    for param in node.params.values():
        add(frozenset[str]().union(*(dim.paths for dim in param.shape)), param.gate)
    for cost in (node.flops, node.cache):
        for term, condition in cost.conditional_terms():
            add(term.paths, condition)
            add(condition.paths, as_expr(1))
    return {path: list(dict.fromkeys(conditions)) for path, conditions in uses.items()}


def _check_declared(graph: Graph) -> None:
    for node in graph.nodes:
        used = frozenset(_uses(node)).union(*(e.gate.paths for e in node.inputs))
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
    # A node takes part where one that uses it does, over an edge whose gate is open. From the end backwards, all users
    # of a node are known before it.
    live: dict[str, Expr] = {}
    for node in reversed(nodes):
        uses = consumers.get(node.path, [])
        live[node.path] = any_of((live[to] if to is not None else as_expr(1)) * edge.gate for to, edge in uses)
    # A weight exists where any node that shares it takes part. A choice has an effect where a node takes part whose
    # shape, weights, cost or inputs it decides.
    weights: dict[tuple[str, str], list[Expr]] = {}
    choices: dict[str, list[Expr]] = {path: [] for path in graph.choices}
    for node in nodes:
        for name, param in node.params.items():
            weights.setdefault((node.weights, name), []).append(live[node.path] * param.gate)
        for path, conditions in _uses(node).items():
            choices[path].append(live[node.path] * any_of(conditions))
        for edge in node.inputs:
            for path in edge.gate.paths:
                choices[path].append(live[node.path])
    read = {p: any_of(conditions) for p, conditions in choices.items()}
    unread = [p for p, c in graph.choices.items() if read[p] == 0 and len(c.values) > 1]
    if unused := [p for p in unread if p not in graph.conditions]:
        raise SpaceError(
            f"choice {unused[0]!r} is declared but decides nothing in the graph; one that the task or a recipe reads "
            "is declared inside `with g.settings()`"
        )
    # A setting has its effect through whoever reads it, which the graph cannot see; blocks may read it, too.
    settings = setting_liveness(graph.conditions, read)
    decided = {p: any_of([read[p], settings[p]]) if p in settings else read[p] for p in graph.choices}
    return Liveness(live, {k: any_of(v) for k, v in weights.items()}, decided, tuple(unread))
