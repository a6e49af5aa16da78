"""Mermaid flowcharts of the pages are drawn as SVG while the site is built.

Mermaid's own script would be loaded from the network whenever a page is opened. GitHub draws the same blocks by itself,
so they stay in the pages as they are. Only the part of the language that the pages use is understood: nodes with
labels, and arrows with or without words. Subgraphs are drawn as part of the whole.
"""

from __future__ import annotations

import html
import re

import networkx as nx

from rankitect.graph.picture import PictureEdge, PictureNode
from rankitect.reports.figures.graph_picture import draw_graph

_BLOCK = re.compile(r"^```mermaid\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
_NODE = re.compile(r"(\w+)\[\"?(.*?)\"?\]")
_ARROW = re.compile(r"^(\w+)\s*(?:-->|-\.->|--\s.*?-->|-\.\s.*?\.->)\s*(\w+)$")


def with_drawings(page: str) -> str:
    """A page with its flowcharts as SVG."""
    return _BLOCK.sub(lambda match: _svg(match[1]), page)


def _svg(chart: str) -> str:
    nodes: dict[str, PictureNode] = {}
    arrows: list[tuple[str, str]] = []
    for line in chart.splitlines():
        if line.strip().startswith("subgraph"):
            continue
        for name, label in _NODE.findall(line):
            first, *more = label.split("<br/>")
            nodes[name] = PictureNode(name, first, detail=", ".join(more))
        if arrow := _ARROW.match(_NODE.sub(r"\1", line).strip()):
            arrows.append((arrow[1], arrow[2]))
    for name in (end for arrow in arrows for end in arrow):
        nodes.setdefault(name, PictureNode(name, name))
    drawn, left = _split(arrows)
    picture = draw_graph(list(nodes.values()), [PictureEdge(*arrow) for arrow in drawn], compress=False)
    # The layout has no room for arrows that lead back up, so they are said below it.
    back = "; ".join(html.escape(f"{nodes[source].label} → {nodes[target].label}") for source, target in left)
    return f"<div>{picture}</div>\n" + (f"\nAnd back: {back}.\n" if back else "")


def _split(arrows: list[tuple[str, str]]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The arrows in their order: those without circles, and those that would close one with earlier ones."""
    graph = nx.DiGraph()
    drawn, left = [], []
    for source, target in arrows:
        closes = graph.has_node(source) and graph.has_node(target) and nx.has_path(graph, target, source)
        (left if closes else drawn).append((source, target))
        if not closes:
            graph.add_edge(source, target)
    return drawn, left
