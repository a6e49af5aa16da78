"""The picture of a graph as plain data: what to draw, not how (a report draws it)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rankitect.graph.block import Input, Sum, Zeros
from rankitect.graph.nodes import Node
from rankitect.graph.types import TensorType
from rankitect.space.choices import Choice
from rankitect.space.expr import Expr
from rankitect.space.tables import Assignments

if TYPE_CHECKING:
    from rankitect.graph.space import SearchSpace
    from rankitect.space.architecture import Architecture

__all__ = ["PictureEdge", "PictureNode", "picture"]


@dataclass(frozen=True)
class PictureNode:
    """A node to draw.

    Attributes:
        id: The node's path.
        label: Its name in its scope.
        kind: Its block; "input" and "output" for the graph's ends.
        detail: Its sizes: numbers under an architecture, else the choices' names and values.
        scope: The path of the scope it stands in; "" for none.
        live: Whether the architecture keeps it (all, where none is given).
    """

    id: str
    label: str
    kind: str = ""
    detail: str = ""
    scope: str = ""
    live: bool = True


@dataclass(frozen=True)
class PictureEdge:
    """A wire between two nodes, by id."""

    source: str
    target: str


def picture(
    space: SearchSpace, architecture: Architecture | None = None, dropped: bool = True
) -> tuple[list[PictureNode], list[PictureEdge]]:
    """The graph of a space, or of one architecture in it, to be drawn.

    Args:
        space: The space.
        architecture: Says which nodes are live and which number each size is.
        dropped: Whether to show what the architecture leaves out.

    Returns:
        Nodes, inputs first, and edges. Sums of candidates are shown as "choice"; zeros are left out.

    Raises:
        SpaceError: The architecture is not of this space.
    """
    value = _values(space, architecture)
    shown = [n for n in space.graph.nodes if not isinstance(n.block, Zeros)]
    known = {n.path for n in shown}
    nodes, edges = [], []
    for node in shown:
        scope, _, label = node.path.rpartition(".")
        live = architecture is None or bool(value(space.live.nodes[node.path]))
        if not (live or dropped):
            continue
        nodes.append(PictureNode(node.path, label, _kind(node), _detail(space, node, architecture, value), scope, live))
        sources = [e.source for e in node.inputs if architecture is None or not live or value(e.gate)]
        edges += [PictureEdge(s, node.path) for s in dict.fromkeys(sources) if s in known]
    outputs = [e.source for e in space.graph.outputs]
    for i, source in enumerate(outputs):
        name = "output" if len(outputs) == 1 else f"output {i + 1}"
        nodes.append(PictureNode(f"{name}:", name, "output", _shape(space.graph.types(space.graph.outputs)[i], value)))
        edges.append(PictureEdge(source, f"{name}:"))
    return nodes, edges


Value = Callable[[Expr], Any]


def _values(space: SearchSpace, architecture: Architecture | None) -> Value:
    """What an expression is shown as: a number where the architecture decides it, otherwise itself."""
    if architecture is None:
        return lambda expr: expr.constant if expr.constant is not None else expr
    columns: Mapping[str, np.ndarray] = space.encode([space.validate(architecture)])
    batch = Assignments(space.choices, {p: c[0] for p, c in columns.items()}, {})

    def value(expr: Expr) -> Any:
        return expr if expr.symbols else int(expr.evaluate(batch))

    return value


def _kind(node: Node) -> str:
    if isinstance(node.block, Input):
        return "input"
    if isinstance(node.block, Sum):
        return "choice" if any(e.mixes for e in node.inputs) else "sum"
    return node.block.label


def _detail(space: SearchSpace, node: Node, architecture: Architecture | None, value: Value) -> str:
    if isinstance(node.block, Input):
        return _shape(node.outputs[0], value)
    if _kind(node) == "choice":
        return _options(space, node, architecture)
    sizes = [f"{name} {_short(space, value(e))}" for name, e in node.block.fields().items()]
    return ", ".join(sizes)


def _options(space: SearchSpace, node: Node, architecture: Architecture | None) -> str:
    """The choices that decide which input is used, with their values."""
    shown = []
    for path in sorted({p for e in node.inputs for p in e.gate.paths}):
        choice, name = space.choices[path], path.rpartition(".")[2]
        if architecture is None:
            shown.append(f"{name}: {_listed(choice)}")
        elif path in architecture.choices:
            shown.append(f"{name}: {architecture[path]}")
    return ", ".join(shown)


def _listed(choice: Choice) -> str:
    values = [str(v) for v in choice.values]
    return " | ".join(values if len(values) <= 4 else [*values[:2], "…", values[-1]])


def _short(space: SearchSpace, size: Any) -> str:
    """A size for a small box: names without their scope, and the values of a lone choice."""
    if not isinstance(size, Expr):
        return str(size)
    lone = [space.choices[p] for p in size.paths]
    if len(lone) == 1 and lone[0] == size:
        return _listed(lone[0])
    text = str(size)
    for path in sorted(size.paths, key=len, reverse=True):
        text = text.replace(path, path.rpartition(".")[2])
    return text


def _shape(kind: TensorType, value: Value) -> str:
    return " ".join(str(value(d)).rpartition(".")[2] for d in kind.dims)
