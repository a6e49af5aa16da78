"""The typed block graph and the six verbs in which a search space is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import networkx as nx

from rankitect.errors import SpaceError
from rankitect.graph.block import Block, Input, Sum, Zero, Zeros
from rankitect.graph.nodes import ONE, Edge, Node, Rule, Wire
from rankitect.graph.types import TensorType, parse_ports, unify
from rankitect.graph.wiring import resolve_inputs
from rankitect.space.choices import Choice, ChoiceValue
from rankitect.space.expr import Expr, ExprLike, as_expr
from rankitect.space.names import nearest

__all__ = ["Edge", "Graph", "Node", "Rule", "Wire"]

Candidate = Block | Callable[..., Wire]


class Graph:
    """A directed acyclic graph of blocks with open choices.

    Attributes:
        dag: The networkx graph; each node's data holds a `Node` under "node".
        choices: The declared choices by path.
        rules: What `require` has stated.

    Args:
        name: The space's name, part of every architecture's identity.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.dag: nx.DiGraph = nx.DiGraph()
        self.choices: dict[str, Choice] = {}
        self.rules: list[Rule] = []
        self._scope: list[str] = []
        self._node_scope: list[str] = []
        self._replay = False
        self._replicas: list[str] = []
        self._out: list[Edge] = []
        self._users: dict[str, list[str]] = {}
        self._shared: set[str] = set()
        self._sorted: tuple[Node, ...] | None = None  # the nodes in order, where nothing was added since

    # --- reading ----------------------------------------------------------------------------------------------------
    def node(self, path: str) -> Node:
        """The node at a path."""
        found: Node = self.dag.nodes[path]["node"]
        return found

    @property
    def nodes(self) -> Iterator[Node]:
        """All nodes, inputs first."""
        if self._sorted is None:
            order = nx.lexicographical_topological_sort(self.dag, key=self._order)
            self._sorted = tuple(self.dag.nodes[p]["node"] for p in order)
        return iter(self._sorted)

    def _order(self, path: str) -> int:
        position: int = self.dag.nodes[path]["order"]
        return position

    def types(self, edges: Sequence[Edge]) -> list[TensorType]:
        """The types that come in over edges, with the edges' gates."""
        return [replace(self.node(e.source).outputs[e.index], gate=e.gate) for e in edges]

    @property
    def inputs(self) -> list[Node]:
        """The sources, in order of declaration."""
        return [n for n in self.nodes if isinstance(n.block, Input)]

    @property
    def outputs(self) -> list[Edge]:
        """What the model gives."""
        return self._out

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
    def inside(self, scope: str) -> Iterator[None]:
        """Prefix the names declared within with `scope`."""
        self._scope.append(scope)
        self._node_scope.append(scope)
        try:
            yield
        finally:
            self._scope.pop()
            self._node_scope.pop()

    @contextmanager
    def replicate(self, number: int) -> Iterator[None]:
        """Build once more what was built here: with the same choices, and weights of its own.

        Args:
            number: From 0, which declares the choices and has the plain names.
        """
        if not number:
            yield
            return
        label, was = f"twin{number}", self._replay
        self._node_scope.append(label)
        self._replicas.append(label)
        self._replay = True
        try:
            yield
        finally:
            self._replay = was
            self._replicas.pop()
            self._node_scope.pop()

    def input(self, name: str, *dims: ExprLike, dtype: str = "float") -> Wire:
        """A source of data with a type."""
        return self._add(name, Input(), (), (TensorType.of(*dims, dtype=dtype),), {})

    def choice(self, name: str, values: Sequence[ChoiceValue]) -> Choice:
        """A named set of values, in the present scope. To share a choice, pass the object on.

        Raises:
            SpaceError: The path is taken, or the values are unusable.
        """
        return self._declare(name, lambda path: Choice(path, values))

    def pick(self, name: str, pool: Sequence[Wire], least: int = 1, most: int | None = None) -> list[Wire]:
        """Choose `least` to `most` of the wires in `pool`; put the result into a block that takes any number.

        Raises:
            SpaceError: The bounds are impossible, or there are more than 4,096 subsets (give `most`).
        """
        chosen = self._declare(name, lambda path: Choice.subset(path, len(pool), least, most))
        pool = [wire.always() for wire in pool]
        return [
            replace(wire, edge=replace(wire.edge, gate=wire.edge.gate * chosen.has(i), mixes=True))
            for i, wire in enumerate(pool)
        ]

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
        made: dict[str, Wire] = {}
        with self.inside(name):
            for label, candidate in candidates.items():
                if isinstance(candidate, Zero):
                    continue
                made[label] = self._candidate(label, candidate, wires, share)
            if not made:
                raise SpaceError(f"at {'.'.join(self._scope)}: every candidate is Zero, so there is no output type")
            first, *others = made
            for other in others:
                if made[other].type != made[first].type:
                    raise SpaceError(
                        f"at {'.'.join(self._scope)}: candidates must give one type, but {first!r} gives "
                        f"{made[first].type} and {other!r} gives {made[other].type}"
                    )
            absent = [label for label, c in candidates.items() if isinstance(c, Zero)]
            for label in absent:
                made[label] = self._zeros(label, wires, made[first].type)
            present = ONE - sum((choice.is_(label) for label in absent), start=as_expr(0))
            return self._switch({label: choice.is_(label) for label in candidates}, made, present)

    def repeat(
        self,
        name: str,
        depth: int | Choice,
        layer: Callable[[int, Wire], Wire],
        x: Wire,
        runs: Sequence[int] = (1,),
    ) -> Wire:
        """Stack `layer(i, x)`, which must keep the type of `x`.

        Args:
            name: The scope; layer i is inside `name.i`.
            depth: How many layers, or a choice of it (the first ones are then kept).
            layer: Makes layer i on a wire.
            x: The input.
            runs: How often each layer may run: 0 drops it, 2 runs it twice in a row with the same weights (MobileLLM's
                immediate block-wise sharing, arXiv 2402.14905). More than one value makes a choice `name.i.runs`.
        """
        if isinstance(depth, Choice):
            depth.as_number()
        if any(not isinstance(k, int) or k < 0 for k in runs) or not runs:
            raise SpaceError(f"at {self._path(name)}: runs must be whole numbers from 0, not {list(runs)}")
        most = max(int(v) for v in depth.values) if isinstance(depth, Choice) else depth  # type: ignore[arg-type]
        for i in range(most):
            with self.inside(f"{name}.{i}"):
                gate = ONE
                if isinstance(depth, Choice):
                    gate = sum((depth.is_(v) for v in depth.values if int(v) > i), start=as_expr(0))  # type: ignore[arg-type]
                often = self.choice("runs", list(runs)) if len(runs) > 1 else None
                outs, gates, y = {}, {}, x
                for k in range(1, max(runs) + 1):
                    y = self._again(k, lambda w, i=i: layer(i, w), y)  # type: ignore[misc]
                    if y.type != x.type:
                        raise SpaceError(
                            f"at {'.'.join(self._scope)}: a repeated layer must keep {x.type}, not give {y.type}"
                        )
                    if k in runs:
                        outs[str(k)] = y
                        gates[str(k)] = gate * (often.is_(k) if often is not None else ONE)
                rest = ONE - sum(gates.values(), start=as_expr(0))
                if rest != 0:
                    outs["0"], gates["0"] = x, rest
                x = self._switch(gates, outs, ONE)
        return x

    def require(self, condition: Expr, text: str | None = None) -> None:
        """State a rule. It holds vacuously where none of its choices has an effect; a choice without effect counts as
        its first value.

        Args:
            condition: 1 where the rule is met, for example `(heads % kv).eq(0)`.
            text: How to say it in errors. Default: the expression.
        """
        if condition == 0:
            raise SpaceError(f"rule {text or condition} can never hold")
        if not self._replay and condition != 1:
            self.rules.append(Rule(condition, text or str(condition)))

    # --- wiring -----------------------------------------------------------------------------------------------------
    def attach(
        self, block: Block, wires: Sequence[Wire], *, name: str | None = None, weights: str | None = None
    ) -> Wire:
        """Put a block on wires (what calling the block does)."""
        ports = parse_ports(block.ports)
        label = name or block.label.lower()
        where = f"{self._path(label)} ({block.label})"
        resolved = resolve_inputs(self, where, ports, wires)
        outputs, sizes = unify(where, ports, [w.type for w in resolved], block.fields())
        return self._add(
            label, block, tuple(w.edge for w in resolved), outputs, sizes, owner=self._owner(where, weights)
        )

    def _add(
        self,
        name: str,
        block: Block,
        edges: tuple[Edge, ...],
        outputs: tuple[TensorType, ...],
        sizes: Mapping[str, Expr],
        owner: str | None = None,
    ) -> Wire:
        types = self.types(edges)
        params = block.params(*types)
        path = self._path(name)
        if path in self.dag:
            if params:
                raise SpaceError(f"there is already a node {path!r}: give this {block.label} a name of its own")
            name = next(f"{name}_{n}" for n in range(2, 1 << 30) if self._path(f"{name}_{n}") not in self.dag)
            path = self._path(name)
        owner = owner or ".".join([*self._replicas, *self._scope, name])
        self.restore(Node(path, block, edges, outputs, owner, params, sizes, block.flops(*types), block.cache(*types)))
        return Wire(self, Edge(path), outputs[0])

    def restore(self, node: Node) -> None:
        """Add a finished node (one that a stored space holds).

        Raises:
            SpaceError: It shares weights of another shape.
        """
        self._check_shared(node)
        if node.params:
            self._users.setdefault(node.weights, []).append(node.path)
        self._sorted = None
        self.dag.add_node(node.path, node=node, order=self.dag.number_of_nodes())
        self.dag.add_edges_from((e.source, node.path) for e in node.inputs)

    def restore_outputs(self, edges: Sequence[Edge]) -> None:
        """Set the outputs of a stored space."""
        self._out = list(edges)

    def _check_shared(self, node: Node) -> None:
        for path in self._users.get(node.weights, ()):
            other = self.node(path)
            for name in other.params.keys() & node.params.keys():
                mine, theirs = TensorType(node.params[name].shape), TensorType(other.params[name].shape)
                if mine != theirs:
                    raise SpaceError(
                        f"{node.path} and {other.path} share the weights {node.weights!r}, but {name} is {mine} in one "
                        f"and {theirs} in the other"
                    )

    def _candidate(self, label: str, candidate: Candidate, wires: Sequence[Wire], share: bool) -> Wire:
        if isinstance(candidate, Block):
            if share:
                self._shared.add(".".join([*self._scope, "shared"]))
            return self.attach(candidate, wires, name=label, weights="shared" if share else None)
        with self.inside(label):
            made = candidate(*wires)
        if not isinstance(made, Wire):
            raise SpaceError(f"at {self._path(label)}: a candidate must give a wire, not {type(made).__name__}")
        return made

    def _owner(self, where: str, weights: str | None) -> str | None:
        """The full path of the node whose weights are meant: in the present scope first, then anywhere."""
        if weights is None:
            return None
        inner = ".".join([*self._scope, weights])
        for path in (".".join([*self._replicas, inner]), inner, weights):
            if path in self._users or path in self._shared:
                return path
        raise SpaceError(f"at {where}: no node has weights {weights!r}{nearest(weights, self._users)}")

    def _switch(self, gates: Mapping[str, Expr], made: Mapping[str, Wire], present: Expr) -> Wire:
        if len(made) == 1 and present == 1:
            return next(iter(made.values()))
        for label, wire in made.items():
            if wire.edge.mixes:
                raise SpaceError(
                    f"at {self._path(label)}: {wire} was picked, so it may be absent: put it into a block first"
                )
        edges = tuple(replace(wire.edge, gate=gates[label], mixes=True) for label, wire in made.items())
        first = next(iter(made.values()))
        wire = self._add("switch", Sum(), edges, (first.type,), {})
        return wire if present == 1 else replace(wire, edge=replace(wire.edge, gate=present), optional=True)

    def _zeros(self, label: str, wires: Sequence[Wire], like: TensorType) -> Wire:
        # Inputs of the graph come first: they are always there, so taking sizes from them keeps no other node alive.
        given = [Wire(self, Edge(n.path), n.outputs[0]) for n in self.inputs]
        sources = sorted([*given, *wires], key=lambda w: w.type.dtype != like.dtype)
        free = [d for d in like.dims if d.symbols]
        source = next((w for w in sources if all(d in w.type.dims for d in free)), None)
        if source is None:
            raise SpaceError(
                f"at {self._path(label)}: Zero() cannot tell the sizes {', '.join(map(str, free))} of {like}: no input "
                "of the candidates or the graph has them"
            )
        axes = tuple(source.type.dims.index(d) if d.symbols else -1 for d in like.dims)
        return self._add(label, Zeros(like, axes), (replace(source.edge, gate=ONE, mixes=False),), (like,), {})

    def _again(self, k: int, layer: Callable[[Wire], Wire], x: Wire) -> Wire:
        """Apply a layer; from the second time on with the same choices and weights."""
        if k == 1:
            return layer(x)
        self._node_scope.append(f"again{k}")
        was, self._replay = self._replay, True
        try:
            return layer(x)
        finally:
            self._replay = was
            self._node_scope.pop()

    def _declare(self, name: str, make: Callable[[str], Choice]) -> Choice:
        path = ".".join([*self._scope, name])
        if path in self.choices:
            if self._replay:
                return self.choices[path]
            raise SpaceError(
                f"choice {path!r} is declared twice: to share a choice, pass the object that the first call gave"
            )
        self.choices[path] = make(path)
        return self.choices[path]

    def _path(self, name: str) -> str:
        return ".".join([*self._node_scope, name])

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
