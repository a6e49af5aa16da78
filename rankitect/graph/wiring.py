"""Which wires a block is put on: what may be absent goes only where absence has a meaning."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from math import prod

import numpy as np

from rankitect.errors import SpaceError
from rankitect.graph.block import Block
from rankitect.graph.types import Ports
from rankitect.graph.wires import Attaches, Wire
from rankitect.space.expr import Expr
from rankitect.space.tables import MAX_TABLE, Assignments, joint_grid

__all__ = ["check_fields", "resolve_inputs"]


_PLAIN = ("float", "str", "bool")
"""Annotations of fields that a block uses as they are when it runs."""


def check_fields(where: str, block: Block) -> None:
    """Check that no choice stands where a block needs a plain value.

    Raises:
        SpaceError: Names the field, the choice and what would work.
    """
    for field in dataclasses.fields(block):  # type: ignore[arg-type]
        value = getattr(block, field.name)
        annotation = field.type if isinstance(field.type, str) else field.type.__name__
        if isinstance(value, Expr) and (annotation in _PLAIN or field.name in block.plain):
            raise SpaceError(
                f"at {where}: {field.name} must be known when the block is made, and {value} is open: offer a block "
                "for each value with `oneof`"
            )


def resolve_inputs(graph: Attaches, where: str, ports: Ports, wires: Sequence[Wire]) -> list[Wire]:
    """The wires as a block gets them: zeros for an optional wire where the port cannot do without.

    Args:
        graph: The graph.
        where: The node, for errors.
        ports: The block's ports; only the last one may take any number of wires.
        wires: What the author gave.

    Raises:
        SpaceError: A wire is of another graph, a picked wire meets a port that needs it, or none may be left.
    """
    variadic = bool(ports.inputs) and ports.inputs[-1].variadic
    fixed = len(ports.inputs) - 1 if variadic else len(wires)
    resolved = []
    for i, wire in enumerate(wires):
        if not isinstance(wire, Wire):
            raise SpaceError(f"at {where}: input {i} is a {type(wire).__name__}, not a wire (unpack a list with *)")
        if wire.graph is not graph:
            raise SpaceError(f"at {where}: input {i} ({wire}) belongs to another graph, {wire.graph.name!r}")
        if i < fixed and wire.edge.mixes:
            raise SpaceError(
                f"at {where}: input {i} ({wire}) was picked, so it may be absent; the port must take any number"
            )
        resolved.append(wire.always() if i < fixed else wire)
    rest = resolved[fixed:]
    if rest and not _one_is_there(graph, rest):
        first = next((i for i, wire in enumerate(rest) if wire.optional), None)
        if first is None:
            raise SpaceError(
                f"at {where}: the choices {_paths(rest)} may leave none of its {len(rest)} inputs; pick with least=1 "
                "or add a wire that is always there"
            )
        resolved[fixed + first] = rest[first].always()  # a sum of nothing has no shape
    return resolved


def _paths(wires: Sequence[Wire]) -> str:
    return ", ".join(repr(p) for p in sorted({p for w in wires for p in w.edge.gate.paths}))


def _one_is_there(graph: Attaches, wires: Sequence[Wire]) -> bool:
    """Whether every choice leaves at least one of the wires; False where there are too many choices to tell."""
    groups: dict[frozenset[str], list[Wire]] = {}
    for wire in wires:
        groups.setdefault(wire.edge.gate.paths, []).append(wire)
    everything = frozenset().union(*groups)
    for paths, group in [*groups.items(), (everything, list(wires))]:
        names = sorted(paths)
        sizes = [len(graph.choices[p].values) for p in names]
        if prod(sizes) > MAX_TABLE:
            continue
        batch = Assignments(graph.choices, joint_grid(graph.choices, names), {})
        there = np.zeros(sizes, dtype=bool)
        for wire in group:
            there = there | (np.asarray(wire.edge.gate.evaluate(batch)) != 0)
        if there.all():
            return True
    return False
