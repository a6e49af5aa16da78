"""The picture of a graph: a typed DAG drawn in layers from top to bottom, with its scopes as boxes.

What is drawn is what `rankitect.graph.picture` gives, so that a graph need not know how it is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

from rankitect.errors import RankitectError
from rankitect.graph.picture import PictureEdge, PictureNode
from rankitect.reports.figures.graph_layout import Placed, Size, arrange
from rankitect.reports.figures.graph_repeats import compress_repeats
from rankitect.reports.figures.svg import Canvas

__all__ = ["draw_graph"]

_CHAR, _ROW, _PAD = 6.6, 16, 10
_STYLE = (
    ".rk-graph{--ink:#16202c;--soft:#556372;--line:#8796a8;--box:#f5f7fa;--edge:#c3ccd7;--node:#fff;--tint:#2b5fd9;"
    "background:var(--ground,transparent);font-family:system-ui,-apple-system,'Segoe UI',Roboto,Arial,sans-serif}"
    "@media (prefers-color-scheme:dark){.rk-graph{--ink:#e7ecf2;--soft:#9dabbb;--line:#6b7c90;--box:#141b23;"
    "--edge:#334050;--node:#1d2630;--tint:#7da7ff}}"
    ".rk-graph .scope{fill:var(--box);stroke:var(--edge)}"
    ".rk-graph .scope-name{font-size:12px;font-weight:600;fill:var(--soft)}"
    ".rk-graph .times{font-size:12px;font-weight:700;fill:var(--tint)}"
    ".rk-graph .node{fill:var(--node);stroke:var(--line)}.rk-graph .input{stroke:var(--tint);stroke-width:1.6}"
    ".rk-graph .name{font-size:12px;font-weight:600;fill:var(--ink)}.rk-graph .kind{font-size:11px;fill:var(--soft)}"
    ".rk-graph .edge{fill:none;stroke:var(--line);stroke-width:1.3}.rk-graph .tip{fill:var(--line)}"
    ".rk-graph .dead{opacity:.4}.rk-graph .dead .node{stroke-dasharray:4 3}.rk-graph .edge.dead{stroke-dasharray:4 3}"
)


def draw_graph(
    nodes: Sequence[PictureNode], edges: Sequence[PictureEdge], *, title: str = "graph", compress: bool = True
) -> str:
    """Draw a graph.

    Args:
        nodes: The nodes; scopes are drawn as boxes.
        edges: The wires.
        title: What the picture shows, for those who cannot see it.
        compress: Draw neighbouring identical scopes (`layers.0`, `layers.1`, …) once, marked with their number.

    Returns:
        An SVG document that stands alone, readable on light and dark grounds.

    Raises:
        RankitectError: Two nodes have one id, an edge ends at an unknown node, or the wires form a circle.
    """
    _check(nodes, edges)
    times: dict[str, str] = {}
    if compress:
        nodes, edges, times = compress_repeats(nodes, edges)
    sizes = {node.id: _size(node) for node in nodes}
    names = {scope: 12 + _CHAR * (len(scope) + len(more) + 1) for scope, more in times.items()}
    placed = arrange({node.id: (node.scope, sizes[node.id]) for node in nodes}, edges, names)
    canvas = Canvas(placed.width, placed.height, title, style=_STYLE, css="rk-graph")
    _scopes(canvas, placed, times)
    _edges(canvas, placed, {node.id for node in nodes if not node.live})
    for node in nodes:
        _node(canvas, node, placed)
    return str(canvas.render())


def _check(nodes: Sequence[PictureNode], edges: Sequence[PictureEdge]) -> None:
    import networkx as nx

    known = {node.id for node in nodes}
    if len(known) != len(nodes):
        twice = sorted({node.id for node in nodes if sum(other.id == node.id for other in nodes) > 1})
        raise RankitectError(f"A graph to draw has two nodes called {twice[0]!r}. Give every node its own id.")
    for edge in edges:
        for end in (edge.source, edge.target):
            if end not in known:
                raise RankitectError(f"A graph to draw has a wire {edge.source} -> {edge.target}, but no node {end!r}.")
    graph = nx.DiGraph([(edge.source, edge.target) for edge in edges])
    if not nx.is_directed_acyclic_graph(graph):
        circle = " -> ".join(a for a, *_ in nx.find_cycle(graph))
        raise RankitectError(f"A graph to draw has a circle of wires: {circle}. Only graphs without one can be drawn.")


def _lines(node: PictureNode) -> list[tuple[str, str]]:
    """The texts of a node with their classes: its name, its kind unless the name says it, its detail."""
    lines = [(node.label or node.id, "name")]
    if node.kind and node.kind != node.label:
        lines.append((node.kind, "kind"))
    if node.detail:
        lines.append((node.detail, "kind"))
    return [(text if len(text) <= 44 else text[:43] + "…", css) for text, css in lines]


def _size(node: PictureNode) -> Size:
    lines = _lines(node)
    return max(72.0, 2 * _PAD + max(_CHAR * len(text) for text, _ in lines)), float(_ROW * len(lines) + 12)


def _scopes(canvas: Canvas, placed: Placed, times: dict[str, str]) -> None:
    for scope, (x, y, width, height) in placed.scopes.items():
        canvas.add("rect", x=x, y=y, width=width, height=height, rx=8, class_="scope")
        last = scope.rpartition(".")[2]
        # The number alone says nothing: `layers.3` keeps its prefix.
        name = ".".join(scope.split(".")[-2:]) if last.isdigit() else last
        shown, _, many = times.get(scope, "").rpartition(" ")
        canvas.text(x + 9, y + 16, shown or name, "scope-name")
        if many:
            canvas.text(x + width - 9, y + 16, many, "times", "end")


def _edges(canvas: Canvas, placed: Placed, dead: set[str]) -> None:
    for source, target, (x1, y1), (x2, y2), ends in placed.segments:
        css = "edge dead" if source in dead or target in dead else "edge"
        tip = 5 if ends else 0
        bend = min(40.0, 0.5 * abs(y2 - y1)) if x1 != x2 else 0.0
        path = f"M{x1:.1f} {y1:.1f}C{x1:.1f} {y1 + bend:.1f} {x2:.1f} {y2 - tip - bend:.1f} {x2:.1f} {y2 - tip:.1f}"
        canvas.add("path", d=path, class_=css, title=f"{source} → {target}" if target else "")
        if ends:
            corners = f"{x2:.1f},{y2:.1f} {x2 - 3.5:.1f},{y2 - 6:.1f} {x2 + 3.5:.1f},{y2 - 6:.1f}"
            canvas.add("polygon", points=corners, class_="tip dead" if css != "edge" else "tip")


def _node(canvas: Canvas, node: PictureNode, placed: Placed) -> None:
    x, y, width, height = placed.nodes[node.id]
    canvas.open("g", title=f"{node.id}: {node.kind} {node.detail}".strip(), class_="" if node.live else "dead")
    css = "node input" if node.kind == "input" else "node"
    canvas.add("rect", x=x, y=y, width=width, height=height, rx=6, class_=css)
    for index, (text, style) in enumerate(_lines(node)):
        canvas.text(x + width / 2, y + 18 + _ROW * index, text, style, "middle")
    canvas.close("g")
