"""The typed block graph and the seven verbs in which a search space is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeAlias

from rankitect.errors import SpaceError
from rankitect.graph.block import Block, Input, Zero
from rankitect.graph.builder import Builder
from rankitect.graph.nodes import Node
from rankitect.graph.switching import one_type, switch, zeros
from rankitect.graph.types import TensorType
from rankitect.graph.wires import ONE, Edge, Wire
from rankitect.space.choices import Choice
from rankitect.space.declaring import Rule
from rankitect.space.expr import Expr, ExprLike, as_expr
from rankitect.space.names import check_name, shown
from rankitect.space.repeats import AGAIN, RUNS
from rankitect.space.whole import check_whole

__all__ = ["Candidate", "Edge", "Graph", "Node", "Rule", "Wire"]

MAX_DEPTH, MAX_RUNS = 10_000, 64
"""Layers of a stack, and how often one of them runs."""

Candidate: TypeAlias = Block | Callable[..., Wire]
"""What `oneof` chooses among."""


class Graph(Builder):
    """A directed acyclic graph of blocks with open choices.

    Choices and rules are declared as in `Choices`; what a choice decides is read from the blocks and wires that use it.
    One that no block reads is a setting of the task or a recipe: declare it inside `settings()`.

    Args:
        name: The space's name, part of every architecture's identity.
    """

    @property
    def out(self) -> Wire | tuple[Wire, ...]:
        """The model's output: assign a wire or a tuple of wires."""
        wires = tuple(Wire(self, e, self.node(e.source).outputs[e.index]) for e in self._out)
        return wires if len(wires) != 1 else wires[0]

    @out.setter
    def out(self, wires: Wire | tuple[Wire, ...]) -> None:
        wires = wires if isinstance(wires, tuple) else (wires,)
        for wire in wires:
            if not isinstance(wire, Wire) or wire.graph is not self:
                raise SpaceError(f"graph {self.name!r}: an output must be a wire of this graph, not {wire}")
            if wire.edge.mixes:
                raise SpaceError(f"graph {self.name!r}: {wire} was picked, so it may be absent, and is no output")
        self._out = [replace(w.edge, gate=ONE, mixes=False) for w in wires]

    # --- the verbs --------------------------------------------------------------------------------------------------
    @contextmanager
    def settings(self) -> Iterator[None]:
        """Choices declared within are settings: the task or a recipe reads them, and no block has to."""
        was, self._settings = self._settings, True
        try:
            yield
        finally:
            self._settings = was

    @contextmanager
    def replicate(self, number: int) -> Iterator[None]:
        """Build once more what was built here: with the same choices, and weights of its own.

        Args:
            number: From 0, which declares the choices and has the plain names.
        """
        if not number:
            yield
            return
        self._replicas.append(f"twin{number}")
        try:
            with self._again(f"twin{number}"):
                yield
        finally:
            self._replicas.pop()

    def input(self, name: str, *dims: ExprLike, dtype: str = "float") -> Wire:
        """A source of data with a type."""
        return self.add(name, Input(), (), (TensorType.of(*dims, dtype=dtype),), {})

    def pick(self, name: str, pool: Sequence[Wire], least: int = 1, most: int | None = None) -> list[Wire]:
        """Choose `least` to `most` of the wires in `pool`; put the result into a block that takes any number.

        Raises:
            SpaceError: The bounds are impossible, or there are more than 4,096 subsets (give `most`).
        """
        chosen = self.subset(name, len(pool), least, most)
        return [wire.always().gated(chosen.has(i)) for i, wire in enumerate(pool)]

    def oneof(self, name: str, candidates: Mapping[str, Candidate], *wires: Wire, share: bool = False) -> Wire:
        """Choose one of several blocks (or functions of wires) with equal output types.

        Args:
            name: The choice; its values are the candidates' names.
            candidates: Blocks, or functions from wires to a wire. `Zero()` leaves the output out.
            wires: The inputs of every candidate.
            share: Whether candidates use one set of weights (their shapes must agree).

        Raises:
            SpaceError: The candidates' output types differ.
        """
        choice = self.choice(name, list(candidates))
        absent = [label for label, candidate in candidates.items() if isinstance(candidate, Zero)]
        with self.inside(name):
            outputs = {
                label: self._candidate(label, candidate, wires, share)
                for label, candidate in candidates.items()
                if label not in absent
            }
            kind = one_type(self, outputs)
            outputs |= {label: zeros(self, label, wires, kind) for label in absent}
            present = ONE - sum((choice.is_(label) for label in absent), start=as_expr(0))
            return switch(self, {label: choice.is_(label) for label in candidates}, outputs, present)

    def repeat(
        self,
        name: str,
        depth: int | Choice,
        layer: Callable[[int, Wire], Wire],
        x: Wire,
        runs: Sequence[int] | Callable[[int], Sequence[int]] = (1,),
    ) -> Wire:
        """Stack `layer(i, x)`, which must keep the type of `x`.

        Args:
            name: The scope; layer i is inside `name.i`.
            depth: How many layers, or a choice of it (the first ones are then kept).
            layer: Makes layer i on a wire.
            x: The input.
            runs: How often each layer may run: 0 drops it, 2 runs it twice in a row with the same weights (MobileLLM's
                immediate block-wise sharing, arXiv 2402.14905). More than one value makes a choice `name.i.runs`. Or a
                function that gives this for each layer.

        Raises:
            SpaceError: The depth or a number of runs is none, or a layer changes the type.
        """
        check_name("a stack of layers", name)
        if isinstance(depth, Choice):
            depth.as_number()
        if not callable(runs):
            self._check_runs(name, runs)
        most = max(int(v) for v in depth.values) if isinstance(depth, Choice) else depth  # type: ignore[arg-type]
        check_whole(f"at {self.path(name)}: the largest depth", most, 0, MAX_DEPTH)
        for i in range(most):
            times = self._check_runs(name, runs(i)) if callable(runs) else runs
            with self.inside(f"{name}.{i}"):
                kept = ONE
                if isinstance(depth, Choice):
                    kept = sum((depth.is_(v) for v in depth.values if int(v) > i), start=as_expr(0))  # type: ignore[arg-type]
                x = self._repeated(lambda w, i=i: layer(i, w), x, times, kept)  # type: ignore[misc]
        return x

    def _check_runs(self, name: str, runs: Sequence[int]) -> Sequence[int]:
        if not isinstance(runs, list | tuple | range) or not runs:
            raise SpaceError(f"at {self.path(name)}: runs must be a list of whole numbers from 0, not {shown(runs)}")
        for often in runs:
            check_whole(f"at {self.path(name)}: each of runs", often, 0, MAX_RUNS)
        return runs

    def _repeated(self, layer: Callable[[Wire], Wire], x: Wire, runs: Sequence[int], kept: Expr) -> Wire:
        """One layer of a stack, as often as chosen, or what came in where it is not `kept` or runs no time."""
        often = self.choice(RUNS, list(runs)) if len(runs) > 1 else None
        outs, gates, y = {}, {}, x
        for k in range(1, max(runs) + 1):
            if k == 1:
                y = layer(y)
            else:  # with the same choices and weights
                with self._again(f"{AGAIN}{k}"):
                    y = layer(y)
            if y.type != x.type:
                raise SpaceError(f"at {self.scope}: a repeated layer must keep {x.type}, not give {y.type}")
            if k in runs:
                outs[str(k)] = y
                gates[str(k)] = kept * (often.is_(k) if often is not None else ONE)
        rest = ONE - sum(gates.values(), start=as_expr(0))
        if rest != 0:
            outs["0"], gates["0"] = x, rest
        return switch(self, gates, outs, ONE)

    def _candidate(self, label: str, candidate: Candidate, wires: Sequence[Wire], share: bool) -> Wire:
        if isinstance(candidate, Block):
            if share:
                self._shared.add(".".join([*self._scope, "shared"]))
            return self.attach(candidate, wires, name=label, weights="shared" if share else None)
        with self.inside(label):
            output = candidate(*wires)
        if not isinstance(output, Wire):
            raise SpaceError(f"at {self.path(label)}: a candidate must give a wire, not {type(output).__name__}")
        return output

    def outputs_of(self, wire: Wire) -> tuple[Wire, ...]:
        """All outputs of the block that gives `wire`, in the order of its ports line."""
        kinds = self.node(wire.edge.source).outputs
        return tuple(replace(wire, edge=replace(wire.edge, index=i), type=kind) for i, kind in enumerate(kinds))

    def describe(self) -> dict[str, Any]:
        """Counts for a person: nodes, edges, choices, rules."""
        return {
            "nodes": self.dag.number_of_nodes(),
            "edges": self.dag.number_of_edges(),
            "choices": len(self.choices),
            "rules": len(self.rules),
        }
