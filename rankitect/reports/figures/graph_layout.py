"""Layered layout of a DAG whose nodes stand in nested scopes: positions of nodes, boxes and wires."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from rankitect.graph.picture import PictureEdge

__all__ = ["Placed", "Size", "arrange"]

Size: TypeAlias = tuple[float, float]
Box: TypeAlias = tuple[float, float, float, float]
Spot: TypeAlias = tuple[float, float]

_GAP_X, _GAP_Y, _MARGIN, _HEAD = 22.0, 30.0, 16.0, 22.0
_WIRE = 10.0


@dataclass
class Placed:
    """A finished layout; boxes are x, y, width, height.

    Attributes:
        width: Width of the drawing.
        height: Height of the drawing.
        nodes: Boxes of nodes, by id.
        scopes: Boxes of scopes by path, outer before inner.
        segments: Pieces of wires: source id, target id where it is one wire ("" where several share the piece), start,
            end, and whether the piece ends at a node.
    """

    width: float = 0.0
    height: float = 0.0
    nodes: dict[str, Box] = field(default_factory=dict)
    scopes: dict[str, Box] = field(default_factory=dict)
    segments: list[tuple[str, str, Spot, Spot, bool]] = field(default_factory=list)


@dataclass(frozen=True)
class _Item:
    """What stands in a row of a scope: a node, an inner scope, a port of the scope, or a bend of a passing wire."""

    kind: str
    name: Hashable

    def __repr__(self) -> str:
        return f"{self.kind}:{self.name}"


@dataclass
class _Inner:
    """A laid-out scope: its size, its contents relative to its corner, and where wires enter and leave."""

    size: Size
    content: Placed
    enters: dict[str, float]
    leaves: dict[str, float]


def arrange(
    nodes: Mapping[str, tuple[str, Size]], edges: Sequence[PictureEdge], widths: Mapping[str, float] | None = None
) -> Placed:
    """Place nodes in rows from top to bottom, every wire downwards, every scope a box around what it holds.

    A scope that a wire leaves and enters again through other nodes cannot be one box in such a drawing; its nodes are
    placed in the scope around it.

    Args:
        nodes: Scope and size of every node, by id. Scopes are paths with dots.
        edges: Wires; they must not form a circle.
        widths: Least width of a scope's box, for its name.

    Returns:
        The layout.
    """
    scopes = {node: scope.strip(".") for node, (scope, _) in nodes.items()}
    flat = _flatten(scopes, edges)
    sizes = {node: size for node, (_, size) in nodes.items()}
    inner = _Layout(flat, sizes, edges, widths or {}).scope("")
    inner.content.width, inner.content.height = inner.size
    return inner.content


def _within(scope: str, path: str) -> bool:
    return not scope or path == scope or path.startswith(f"{scope}.")


def _child(scope: str, path: str) -> str | None:
    """The scope directly within `scope` that holds `path`, or None where `path` is `scope` itself."""
    if path == scope:
        return None
    rest = path[len(scope) + 1 :] if scope else path
    head = rest.partition(".")[0]
    return f"{scope}.{head}" if scope else head


def _flatten(scopes: dict[str, str], edges: Sequence[PictureEdge]) -> dict[str, str]:
    """Dissolve the scopes that would close a circle of boxes, until none is left."""
    import networkx as nx

    scopes = dict(scopes)
    waiting = [""]
    while waiting:
        scope = waiting.pop()
        held = {n: s for n, s in scopes.items() if _within(scope, s)}
        while True:
            item = {n: _child(scope, s) or f"\0{n}" for n, s in held.items()}
            graph = nx.DiGraph(
                (item[e.source], item[e.target])
                for e in edges
                if e.source in item and e.target in item and item[e.source] != item[e.target]
            )
            knots = [part for part in nx.strongly_connected_components(graph) if len(part) > 1]
            if not knots:
                break
            boxes = {name for part in knots for name in part if not name.startswith("\0")}
            worst = min(boxes, key=lambda name: (sum(value == name for value in item.values()), name))
            for node, name in item.items():
                if name == worst:
                    rest = held[node][len(worst) :].lstrip(".")
                    held[node] = ".".join(part for part in (scope, rest) if part)
            scopes.update(held)
        waiting += sorted({child for s in held.values() if (child := _child(scope, s))})
    return scopes


class _Layout:
    """Lays out scopes from the inside out."""

    def __init__(
        self,
        scopes: Mapping[str, str],
        sizes: Mapping[str, Size],
        edges: Sequence[PictureEdge],
        widths: Mapping[str, float],
    ) -> None:
        self.scopes, self.sizes, self.edges, self.widths = scopes, sizes, edges, widths

    def scope(self, scope: str) -> _Inner:
        """The layout of one scope and all within it."""
        held = {n: _child(scope, s) for n, s in self.scopes.items() if _within(scope, s)}
        children = {child: self.scope(child) for child in dict.fromkeys(held.values()) if child}
        items = {n: _Item("scope", child) if child else _Item("node", n) for n, child in held.items()}
        links = self._links(items)
        rows, chains = _rows(list(dict.fromkeys(items.values())), links)
        sizes = {item: self._size(item, children) for row in rows for item in row}
        rows = _order(rows, chains)
        centres = _columns(rows, chains, sizes, children)
        return self._assemble(scope, rows, chains, sizes, centres, children)

    def _links(self, items: Mapping[str, _Item]) -> dict[tuple[_Item, _Item, str], list[str]]:
        """Wires between the items of a scope, ports included: from, to, source id; with the ids of the targets."""
        links: dict[tuple[_Item, _Item, str], list[str]] = {}
        for edge in self.edges:
            start = items.get(edge.source)
            end = items.get(edge.target)
            if (start is None and end is None) or start == end:
                continue
            a = start or _Item("in", edge.source)
            b = end or _Item("out", edge.source)
            links.setdefault((a, b, edge.source), []).append(edge.target)
        return links

    def _size(self, item: _Item, children: Mapping[str, _Inner]) -> Size:
        if item.kind == "node":
            return self.sizes[str(item.name)]
        if item.kind == "scope":
            return children[str(item.name)].size
        return (_WIRE, 0.0)

    def _assemble(
        self,
        scope: str,
        rows: Sequence[Sequence[_Item]],
        chains: Mapping[tuple[_Item, _Item, str], list[str]],
        sizes: Mapping[_Item, Size],
        centres: Mapping[_Item, float],
        children: Mapping[str, _Inner],
    ) -> _Inner:
        left = min(centres[i] - sizes[i][0] / 2 for i in centres)
        right = max(centres[i] + sizes[i][0] / 2 for i in centres)
        width = max(right - left + 2 * _MARGIN, self.widths.get(scope, 0.0), 9.0 * len(scope.split(".")[-1]) + 30)
        shift = (width - (right - left)) / 2 - left
        placed = Placed()
        top: dict[_Item, float] = {}
        y = _HEAD + 8 if scope else _MARGIN
        ends: dict[_Item, float] = {}
        for row in rows:
            ports = all(item.kind in ("in", "out") for item in row)
            tall = max(sizes[item][1] for item in row)
            y = y if not ports else (0.0 if row[0].kind == "in" else y - _GAP_Y + _MARGIN)
            for item in row:
                own = sizes[item][1]
                passing = item.kind == "bend"
                if item.kind == "in":
                    # Straight down beside the scope's name, so that no wire strikes it through.
                    top[item], ends[item] = 0.0, _HEAD
                    continue
                top[item] = y if passing else y + (tall - own) / 2
                ends[item] = y + tall if passing else top[item] + own
            y = _HEAD + 24 if ports else y + tall + _GAP_Y
        bottom = max(ends.values()) + (0.0 if any(i.kind == "out" for i in rows[-1]) else _MARGIN)
        for item, at in top.items():
            self._put(placed, item, centres[item] + shift, at, sizes[item], children)
            if item.kind in ("bend", "in"):
                x, net = centres[item] + shift, item.name[0] if isinstance(item.name, tuple) else item.name
                placed.segments.append((str(net), "", (x, at), (x, ends[item]), False))
        for (a, b, net), targets in chains.items():
            x1 = centres[a] + shift + _port(a, net, children, leaving=True)
            x2 = centres[b] + shift + _port(b, net, children, leaving=False)
            target = targets[0] if len(targets) == 1 else ""
            placed.segments.append((net, target, (x1, ends[a]), (x2, top[b]), b.kind == "node"))
        enters = {str(i.name): centres[i] + shift - width / 2 for i in top if i.kind == "in"}
        leaves = {str(i.name): centres[i] + shift - width / 2 for i in top if i.kind == "out"}
        return _Inner((width, bottom), placed, enters, leaves)

    def _put(
        self, placed: Placed, item: _Item, centre: float, top: float, size: Size, children: Mapping[str, _Inner]
    ) -> None:
        corner = centre - size[0] / 2
        if item.kind == "node":
            placed.nodes[str(item.name)] = (corner, top, *size)
        elif item.kind == "scope":
            inner = children[str(item.name)].content
            placed.scopes[str(item.name)] = (corner, top, *size)
            placed.scopes.update({s: (x + corner, y + top, w, h) for s, (x, y, w, h) in inner.scopes.items()})
            placed.nodes.update({n: (x + corner, y + top, w, h) for n, (x, y, w, h) in inner.nodes.items()})
            for source, target, (x1, y1), (x2, y2), ends in inner.segments:
                moved = (x1 + corner, y1 + top), (x2 + corner, y2 + top)
                placed.segments.append((source, target, *moved, ends))


def _port(item: _Item, net: str, children: Mapping[str, _Inner], *, leaving: bool) -> float:
    """How far from an item's centre a wire meets it."""
    if item.kind != "scope":
        return 0.0
    inner = children[str(item.name)]
    return (inner.leaves if leaving else inner.enters).get(net, 0.0)


def _rows(
    items: Sequence[_Item], links: Mapping[tuple[_Item, _Item, str], list[str]]
) -> tuple[list[list[_Item]], dict[tuple[_Item, _Item, str], list[str]]]:
    """Rows by longest path, ports first and last, and wires cut into pieces from one row to the next."""
    import networkx as nx

    graph: nx.DiGraph[_Item] = nx.DiGraph()
    graph.add_nodes_from(items)
    graph.add_edges_from((a, b) for a, b, _ in links)
    entering = any(item.kind == "in" for item in graph)
    level = {}
    for depth, generation in enumerate(nx.topological_generations(graph)):
        for item in generation:
            level[item] = depth
    for item in graph:
        # A port's row is its own; what no wire enters begins below it.
        if entering and item.kind != "in":
            level[item] = max([1, *(level[a] + 1 for a in graph.predecessors(item))])
    for item in reversed(list(nx.topological_sort(graph))):
        after = [level[b] for b in graph.successors(item) if b.kind != "out"]
        # A source stands just above what it feeds, rather than far away at the top.
        if item.kind not in ("in", "out") and graph.in_degree(item) == 0 and after:
            level[item] = max(level[item], min(after) - 1)
    last = 1 + max((level[i] for i in graph if i.kind != "out"), default=0)
    for item in graph:
        if item.kind == "out":
            level[item] = last
    pieces: dict[tuple[_Item, _Item, str], list[str]] = {}
    bends: dict[_Item, int] = {}
    for (a, b, net), targets in links.items():
        here = a
        for depth in range(level[a] + 1, level[b]):
            bend = _Item("bend", (net, a.kind, a.name, depth))
            bends[bend] = depth
            pieces.setdefault((here, bend, net), []).extend(targets)
            here = bend
        pieces.setdefault((here, b, net), []).extend(targets)
    rows: list[list[_Item]] = [[] for _ in range(1 + max([*level.values(), 0]))]
    for item, depth in {**level, **bends}.items():
        rows[depth].append(item)
    return [row for row in rows if row], pieces


def _order(rows: list[list[_Item]], chains: Mapping[tuple[_Item, _Item, str], list[str]]) -> list[list[_Item]]:
    """Order each row by the mean place of its neighbours, sweeping down and up, so that few wires cross."""
    above: dict[_Item, list[_Item]] = {}
    below: dict[_Item, list[_Item]] = {}
    for a, b, _ in chains:
        above.setdefault(b, []).append(a)
        below.setdefault(a, []).append(b)
    place = {item: (i + 0.5) / len(row) for row in rows for i, item in enumerate(row)}
    for sweep in range(8):
        near = above if sweep % 2 == 0 else below
        for row in rows if sweep % 2 == 0 else rows[::-1]:
            wish = {i: sum(place[n] for n in near[i]) / len(near[i]) if near.get(i) else place[i] for i in row}
            row.sort(key=lambda item: wish[item])
            place.update({item: (i + 0.5) / len(row) for i, item in enumerate(row)})
    return rows


def _columns(
    rows: Sequence[Sequence[_Item]],
    chains: Mapping[tuple[_Item, _Item, str], list[str]],
    sizes: Mapping[_Item, Size],
    children: Mapping[str, _Inner],
) -> dict[_Item, float]:
    """Centres: every item near its neighbours' ports, none over another, order kept."""
    pulls: dict[_Item, list[tuple[_Item, float, float]]] = {}
    for a, b, net in chains:
        offset = _port(a, net, children, leaving=True) - _port(b, net, children, leaving=False)
        # A passing wire should be straight; that matters more than where a node stands.
        weight = 4.0 if a.kind == "bend" and b.kind == "bend" else 1.0
        pulls.setdefault(b, []).append((a, offset, weight))
        pulls.setdefault(a, []).append((b, -offset, weight))
    at: dict[_Item, float] = {}
    for row in rows:
        x = -sum(sizes[item][0] + _GAP_X for item in row) / 2
        for item in row:
            at[item] = x + sizes[item][0] / 2
            x += sizes[item][0] + _GAP_X
    for sweep in range(24):
        for row in rows if sweep % 2 == 0 else rows[::-1]:
            wish = {}
            for item in row:
                near = pulls.get(item, [])
                weight = sum(w for *_, w in near)
                wish[item] = sum((at[n] + offset) * w for n, offset, w in near) / weight if near else at[item]
            at.update(_apart(row, wish, sizes))
    return at


def _apart(row: Sequence[_Item], wish: Mapping[_Item, float], sizes: Mapping[_Item, Size]) -> dict[_Item, float]:
    """The positions nearest to what is wished that keep the order and the gaps; what collides shares one shift."""
    offsets, total = [0.0], 0.0
    for a, b in pairwise(row):
        total += (sizes[a][0] + sizes[b][0]) / 2 + (_GAP_X if "bend" not in (a.kind, b.kind) else _GAP_X * 0.7)
        offsets.append(total)
    groups: list[tuple[float, int]] = []
    for item, offset in zip(row, offsets, strict=True):
        mean, count = wish[item] - offset, 1
        while groups and groups[-1][0] > mean:
            other, many = groups.pop()
            mean, count = (mean * count + other * many) / (count + many), count + many
        groups.append((mean, count))
    shifts = [mean for mean, count in groups for _ in range(count)]
    return {item: shift + offset for item, shift, offset in zip(row, shifts, offsets, strict=True)}
