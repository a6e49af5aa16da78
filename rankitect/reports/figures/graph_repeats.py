"""Repeated scopes of a graph, folded into one for drawing."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence

from rankitect.graph.picture import PictureEdge, PictureNode

__all__ = ["compress_repeats"]

_NUMBERED = re.compile(r"^(?P<prefix>.*?[^\d])(?P<index>\d+)$")


def compress_repeats(
    nodes: Sequence[PictureNode], edges: Sequence[PictureEdge]
) -> tuple[list[PictureNode], list[PictureEdge], dict[str, str]]:
    """Fold neighbouring scopes of one numbering (`layers.0`, `layers.1`, …) that hold the same into the first of them.

    Wires between folded scopes vanish, wires into and out of the run lead to and from the first. Where scopes repeat
    within repeated scopes, the outermost runs are folded, then those within.

    Args:
        nodes: The nodes.
        edges: The wires.

    Returns:
        The nodes and wires that are left, and for each folded scope its new name with the number: `layers.0–11 ×12`.
    """
    left, wires, names = list(nodes), list(edges), dict[str, str]()
    while True:
        run = _first_run(left, wires, set(names))
        if run is None:
            return left, wires, names
        first, last = run[0], run[-1]
        match = _NUMBERED.match(last)
        names[first] = f"{first}–{match['index'] if match else last} ×{len(run)}"
        left, wires = _fold(left, wires, run)


def _first_run(nodes: Sequence[PictureNode], edges: Sequence[PictureEdge], done: set[str]) -> list[str] | None:
    """The outermost run of two or more equal scopes with numbers in sequence, or None."""
    paths = {tuple(node.scope.split(".")) for node in nodes if node.scope}
    scopes = {".".join(path[: depth + 1]) for path in paths for depth in range(len(path))}
    numbered: dict[str, list[int]] = {}
    for scope in scopes - done:
        match = _NUMBERED.match(scope)
        if match:
            numbered.setdefault(match["prefix"], []).append(int(match["index"]))
    for prefix in sorted(numbered, key=lambda p: (p.count("."), p)):
        run: list[str] = []
        before: tuple[int, Hashable] | None = None
        for index in sorted(numbered[prefix]):
            # "03" and "3" would be one number: only the plain spelling is a numbering.
            scope = f"{prefix}{index}"
            if scope not in scopes:
                continue
            shape = _shape(scope, nodes, edges)
            if before and before == (index - 1, shape):
                run.append(scope)
            elif len(run) > 1:
                break
            else:
                run = [scope]
            before = (index, shape)
        if len(run) > 1:
            return run
    return None


def _inside(scope: str, nodes: Sequence[PictureNode]) -> list[PictureNode]:
    return [node for node in nodes if node.scope == scope or node.scope.startswith(f"{scope}.")]


def _shape(scope: str, nodes: Sequence[PictureNode], edges: Sequence[PictureEdge]) -> Hashable:
    """What a scope holds, without its own name: nodes in order, wires within, how many wires come in where."""
    members = _inside(scope, nodes)
    place = {node.id: index for index, node in enumerate(members)}
    facts = tuple(
        (n.label.replace(scope, ""), n.kind, n.detail.replace(scope, ""), n.scope[len(scope) :], n.live)
        for n in members
    )
    within = tuple(sorted((place[e.source], place[e.target]) for e in edges if e.source in place and e.target in place))
    entering = tuple(sorted(place[e.target] for e in edges if e.target in place and e.source not in place))
    return facts, within, entering


def _fold(
    nodes: list[PictureNode], edges: list[PictureEdge], run: Sequence[str]
) -> tuple[list[PictureNode], list[PictureEdge]]:
    first = [node.id for node in _inside(run[0], nodes)]
    to_first: dict[str, str] = {}
    number: dict[str, int] = {}
    for index, scope in enumerate(run):
        for own, node in zip(first, _inside(scope, nodes), strict=True):
            to_first[node.id], number[node.id] = own, index
    kept = [node for node in nodes if number.get(node.id, 0) == 0]
    wires: dict[tuple[str, str], PictureEdge] = {}
    for edge in edges:
        one, other = number.get(edge.source), number.get(edge.target)
        if one is not None and other is not None and one != other:
            continue
        ends = (to_first.get(edge.source, edge.source), to_first.get(edge.target, edge.target))
        wires.setdefault(ends, PictureEdge(*ends))
    return kept, list(wires.values())
