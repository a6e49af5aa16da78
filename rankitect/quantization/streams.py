"""The streams of a model: wires whose channels may be turned into another basis, with all weights that touch them.

Which weights read and which write a wire is what blocks claim (`rankitect.graph.rotation`). Each claim is tried out on
the block itself with random numbers, once for each kind of step, so that a block of whatever author is turned only
where it computes the same: a norm that subtracts a mean, a product of channels or an activation keep a wire's basis.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from rankitect.errors import SpaceError
from rankitect.graph import Expr, SearchSpace
from rankitect.graph.block import Zeros
from rankitect.graph.rotation import channels_of
from rankitect.models.plan import Plan, Step
from rankitect.quantization.trials import Facts, Trial
from rankitect.space.tables import Assignments

__all__ = ["Key", "Stream", "streams"]

Key = tuple[str, str]
"""A weight: the path of its owner and its name there."""
_SIZES = {"B": 2, "T": 3, "P": 0}
"""Free dimensions of what a step is tried on."""
_KNOWN: dict[Any, Facts] = {}
"""What trials have shown, by all that a step computes."""
_MOST_KNOWN = 4096


@dataclass(frozen=True)
class Stream:
    """Wires of one basis.

    Attributes:
        width: Channels.
        reads: The weights that read it as it is, each with its axis.
        normed: The same for weights behind a norm, by the norm's gain.
        writes: The weights that write it.
        gains: The gains of norms on the stream, each with the value that changes nothing.
        kept: Gains that no matrix takes over, because what they give is added to the stream; by path of the norm.
    """

    width: int
    reads: frozenset[tuple[Key, int]]
    normed: Mapping[Key, frozenset[tuple[Key, int]]]
    writes: frozenset[tuple[Key, int]]
    gains: Mapping[Key, float]
    kept: Mapping[str, Key]


def streams(space: SearchSpace, plan: Plan) -> list[Stream]:
    """The streams of a model, widest use first.

    Args:
        space: The space of the model's graph.
        plan: Of its architecture.

    Raises:
        SpaceError: There is none; names the node that keeps the basis of the wire that most weights touch.
    """
    reading = _Reading(space, plan)
    result, refused = reading.streams()
    if not result:
        raise SpaceError(
            f"space {space.name!r} has no stream that could be rotated: "
            + (f"{refused}." if refused else "no wire is both written and read by matrices.")
        )
    return result


class _Reading:
    """Joins the wires of a plan that must have one basis, and collects who touches them."""

    def __init__(self, space: SearchSpace, plan: Plan) -> None:
        self._space, self._plan = space, plan
        self._parent: dict[Any, Any] = {}
        self._fixed: dict[Any, str] = {}
        self._gains: dict[str, tuple[Key, float]] = {}  # of a norm's output, with the value that changes nothing
        self._alias: dict[str, str] = {}  # of a sum of one wire, that wire
        self._mixed: set[str] = set()  # what goes into sums and norms
        self._reads: list[tuple[str, Key, int]] = []
        self._writes: list[tuple[str, Key, int]] = []
        columns = space.encode([plan.architecture]) if plan.architecture is not None else {}
        self._at = Assignments(space.choices, {p: int(c[0]) for p, c in columns.items()}, {**space.defaults, **_SIZES})
        for step in plan.steps:
            self._add(step)
        for edge in plan.outputs:
            self._fix(edge.source, "it is the model's output")
        for path in plan.inputs:
            self._fix(path, "it is the model's input")

    # --- joining --------------------------------------------------------------------------------------------------
    def _root(self, wire: Any) -> Any:
        while self._parent.setdefault(wire, wire) != wire:
            self._parent[wire] = self._parent[self._parent[wire]]
            wire = self._parent[wire]
        return wire

    def _join(self, one: Any, other: Any) -> None:
        self._parent[self._root(one)] = self._root(other)

    def _fix(self, wire: str, reason: str) -> None:
        self._fixed.setdefault(wire, reason)

    def _add(self, step: Step) -> None:
        path, node = step.path, self._space.graph.node(step.path)
        if isinstance(step.block, Zeros):
            return
        where = f"{path} ({step.block.label})"
        if any(edge.index for edge in step.edges) or len(node.outputs) != 1:
            for wire in (path, *(edge.source for edge in step.edges)):
                self._fix(wire, f"{where} has several outputs")
            return
        facts = self._tried(step)
        for i, edge in enumerate(step.edges):
            for name, axis in facts.reads.get(i, ()):
                self._touch(self._reads, edge.source, (step.weights, name), axis)
            if i in facts.same:
                self._join(edge.source, path)
            elif i not in facts.reads and facts.gain is None:
                self._fix(edge.source, f"{where} depends on the basis of what it is given")
        for name, axis in facts.writes:
            self._touch(self._writes, path, (step.weights, name), axis)
        if facts.gain is not None:
            self._join(step.edges[0].source, path)
            self._gains[path] = (step.weights, facts.gain[0]), facts.gain[1]
        elif not facts.writes and not facts.same:
            self._fix(path, f"{where} gives channels in a basis of its own")
        if facts.same and not facts.writes and not facts.reads and len(step.edges) == 1:
            self._alias[path] = step.edges[0].source
        elif facts.same or facts.gain is not None:
            self._mixed.update(self._origin(edge.source) for edge in step.edges)

    def _touch(self, touches: list[tuple[str, Key, int]], wire: str, key: Key, axis: int) -> None:
        touches.append((wire, key, axis))
        self._join(wire, (key, axis))  # one weight has one basis, whoever else uses it

    # --- trying out -------------------------------------------------------------------------------------------------
    def _tried(self, step: Step) -> Facts:
        node, types = self._space.graph.node(step.path), self._space.graph.types(step.edges)
        claims = channels_of(step.block, self._space.graph.types(node.inputs))
        if claims is None or any(not t.dims for t in types):
            return Facts()
        shapes = tuple(tuple(self._number(d) for d in t.dims) for t in types)
        kinds = tuple(t.dtype for t in types)
        key = (type(step.block), _values(step), tuple(sorted(step.shapes.items())), step.present, shapes, kinds)
        if key not in _KNOWN:
            if len(_KNOWN) >= _MOST_KNOWN:
                _KNOWN.clear()
            neutral = {name: float(p.init != "zeros") for name, p in node.params.items()}
            _KNOWN[key] = Trial(step, shapes, kinds).facts(claims, neutral)
        return _KNOWN[key]

    def _number(self, dim: Expr) -> int:
        return int(dim.evaluate(self._at))

    # --- the result -------------------------------------------------------------------------------------------------
    def streams(self) -> tuple[list[Stream], str]:
        """The streams, and why the wire with the most weights is none."""
        fixed: dict[Any, str] = {}
        for wire, reason in self._fixed.items():
            fixed.setdefault(self._root(wire), reason)
        touched: dict[Any, int] = {}
        for wire, _, _ in (*self._reads, *self._writes):
            touched[self._root(wire)] = touched.get(self._root(wire), 0) + 1
        result, refused = [], ""
        for root in sorted(touched, key=lambda r: -touched[r]):
            reads = [touch for touch in self._reads if self._root(touch[0]) == root]
            writes = frozenset((key, axis) for wire, key, axis in self._writes if self._root(wire) == root)
            if not reads or not writes:
                continue
            if root in fixed:
                refused = refused or fixed[root]
            else:
                result.append(self._stream(root, reads, writes))
        return result, refused

    def _stream(self, root: Any, reads: list[tuple[str, Key, int]], writes: frozenset[tuple[Key, int]]) -> Stream:
        plain, normed = set(), dict[Key, set[tuple[Key, int]]]()
        gains = {path: gain for path, gain in self._gains.items() if self._root(path) == root}
        for wire, key, axis in reads:
            origin = self._origin(wire)
            if origin in gains and origin not in self._mixed:
                normed.setdefault(gains[origin][0], set()).add((key, axis))
            else:
                plain.add((key, axis))
        (key, axis), shapes = next(iter(writes)), self._plan.shapes()
        kept = {path: key for path, (key, _) in gains.items() if path in self._mixed}
        return Stream(
            shapes[key][axis], frozenset(plain), {gain: frozenset(by) for gain, by in normed.items()}, writes,
            dict(gains.values()), kept,
        )  # fmt: skip

    def _origin(self, wire: str) -> str:
        while wire in self._alias:
            wire = self._alias[wire]
        return wire


def _values(step: Step) -> tuple[Any, ...]:
    """The fields of a step's block, each choice at its value: layers have choices of their own, and compute alike."""
    values = (getattr(step.block, f.name) for f in fields(step.block))  # type: ignore[arg-type]
    return tuple(step.resolve(v) if isinstance(v, Expr) and not v.symbols else v for v in values)
