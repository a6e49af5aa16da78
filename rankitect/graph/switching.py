"""Wires of which an architecture uses one: what `oneof` and `repeat` end in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from rankitect.errors import SpaceError
from rankitect.graph.block import Sum, Zeros
from rankitect.graph.builder import Builder
from rankitect.graph.types import TensorType
from rankitect.graph.wires import ONE, Edge, Wire
from rankitect.space.expr import Expr

__all__ = ["one_type", "switch", "zeros"]


def one_type(graph: Builder, outputs: Mapping[str, Wire]) -> TensorType:
    """The type that all candidates give.

    Raises:
        SpaceError: There is no candidate, or two give different types.
    """
    if not outputs:
        raise SpaceError(f"at {graph.scope}: every candidate is Zero, so there is no output type")
    first, *others = outputs
    for other in others:
        if outputs[other].type != outputs[first].type:
            raise SpaceError(
                f"at {graph.scope}: candidates must give one type, but {first!r} gives {outputs[first].type} and "
                f"{other!r} gives {outputs[other].type}"
            )
    return outputs[first].type


def switch(graph: Builder, gates: Mapping[str, Expr], outputs: Mapping[str, Wire], present: Expr) -> Wire:
    """The sum of wires, of which the gates let one through.

    Args:
        graph: The graph.
        gates: For each label, 1 where its wire is the one.
        outputs: The wires, by label.
        present: 1 where the result is there; elsewhere it may be left out.

    Raises:
        SpaceError: A wire may be absent itself.
    """
    if len(outputs) == 1 and present == 1:
        return next(iter(outputs.values()))
    for label, wire in outputs.items():
        if wire.edge.mixes:
            raise SpaceError(
                f"at {graph.path(label)}: {wire} was picked, so it may be absent: put it into a block first"
            )
    edges = tuple(replace(wire.edge, gate=gates[label], mixes=True) for label, wire in outputs.items())
    first = next(iter(outputs.values()))
    wire = graph.add("switch", Sum(), edges, (first.type,), {})
    return wire if present == 1 else replace(wire, edge=replace(wire.edge, gate=present), optional=True)


def zeros(graph: Builder, label: str, wires: Sequence[Wire], like: TensorType) -> Wire:
    """Zeros of a type, with free sizes taken from an input of the graph or one of the candidates' wires.

    Raises:
        SpaceError: None of them has these sizes.
    """
    # Inputs of the graph come first: they are always there, so taking sizes from them keeps no other node alive.
    given = [Wire(graph, Edge(n.path), n.outputs[0]) for n in graph.inputs]
    sources = sorted([*given, *wires], key=lambda w: w.type.dtype != like.dtype)
    free = [d for d in like.dims if d.symbols]
    source = next((w for w in sources if all(d in w.type.dims for d in free)), None)
    if source is None:
        raise SpaceError(
            f"at {graph.path(label)}: Zero() cannot tell the sizes {', '.join(map(str, free))} of {like}: no input of "
            "the candidates or the graph has them"
        )
    axes = tuple(source.type.dims.index(d) if d.symbols else -1 for d in like.dims)
    return graph.add(label, Zeros(like, axes), (replace(source.edge, gate=ONE, mixes=False),), (like,), {})
