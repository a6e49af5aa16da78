"""Putting blocks on wires: names, scopes and whose weights a block uses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rankitect.errors import SpaceError
from rankitect.graph.block import Block, Sum
from rankitect.graph.dag import Dag
from rankitect.graph.facts import facts_of, ports_of
from rankitect.graph.nodes import Node
from rankitect.graph.types import TensorType, unify
from rankitect.graph.wires import Edge, Wire
from rankitect.graph.wiring import check_fields, resolve_inputs
from rankitect.space.declaring import Choices
from rankitect.space.expr import Expr
from rankitect.space.names import check_name, nearest

__all__ = ["Builder"]


class Builder(Choices, Dag):
    """Choices, and nodes that are built in the scopes in which these are declared."""

    def __init__(self, name: str) -> None:
        Choices.__init__(self, name)
        Dag.__init__(self)
        self._settings = False
        self._node_scope: list[str] = []
        self._replicas: list[str] = []
        self._shared: set[str] = set()

    @contextmanager
    def inside(self, scope: str) -> Iterator[None]:
        """Prefix the names declared within with `scope`."""
        check_name("a scope", scope)
        self._node_scope.append(scope)
        try:
            with super().inside(scope):
                yield
        finally:
            self._node_scope.pop()

    @contextmanager
    def _again(self, scope: str) -> Iterator[None]:
        """Nodes built within have names of their own and the choices that were declared before."""
        self._node_scope.append(scope)
        was, self._replay = self._replay, True
        try:
            yield
        finally:
            self._replay = was
            self._node_scope.pop()

    def attach(
        self, block: Block, wires: Sequence[Wire], *, name: str | None = None, weights: str | None = None
    ) -> Wire:
        """Put a block on wires (what calling the block does)."""
        label = name if name is not None else block.label.lower()
        check_name(f"a {block.label}", label)
        where = f"{self.path(label)} ({block.label})"
        ports = ports_of(where, block)
        check_fields(where, block)
        resolved = resolve_inputs(self, where, ports, wires)
        outputs, sizes = unify(where, ports, [w.type for w in resolved], block.fields())
        owner = self._owner(where, weights)
        return self.add(label, block, tuple(w.edge for w in resolved), outputs, sizes, owner)

    def add_up(self, *wires: Wire) -> Wire:
        """The sum of wires (what `a + b` gives)."""
        return Sum()(*wires, name="add")

    def add(
        self,
        name: str,
        block: Block,
        edges: tuple[Edge, ...],
        outputs: tuple[TensorType, ...],
        sizes: Mapping[str, Expr],
        owner: str | None = None,
    ) -> Wire:
        """Add a node whose types are known (`attach` finds them).

        Args:
            name: In the present scope; one without weights is numbered where the name is taken.
            block: The block.
            edges: Its inputs.
            outputs: Its types.
            sizes: Its axes by name.
            owner: The node whose weights it uses; None for its own.

        Raises:
            SpaceError: The name is taken, or the weights are of another shape.
        """
        check_name(f"a {block.label}", name)
        path = self.path(name)
        params, flops, cache = facts_of(f"{path} ({block.label})", block, self.types(edges))
        if path in self.dag:
            if params:
                raise SpaceError(f"there is already a node {path!r}: give this {block.label} a name of its own")
            name = next(f"{name}_{n}" for n in range(2, 1 << 30) if self.path(f"{name}_{n}") not in self.dag)
            path = self.path(name)
        owner = owner or ".".join([*self._replicas, *self._scope, name])
        self.restore(Node(path, block, edges, outputs, owner, params, sizes, flops, cache))
        return Wire(self, Edge(path), outputs[0])

    def _owner(self, where: str, weights: str | None) -> str | None:
        """The full path of the node whose weights are meant: in the present scope first, then anywhere."""
        if weights is None:
            return None
        inner = ".".join([*self._scope, weights])
        for path in (".".join([*self._replicas, inner]), inner, weights):
            if path in self._users or path in self._shared:
                return path
        raise SpaceError(f"at {where}: no node has weights {weights!r}{nearest(weights, self._users)}")

    @property
    def scope(self) -> str:
        """The present scope, for messages."""
        return ".".join(self._scope)

    def path(self, name: str) -> str:
        """The path of a node of the present scope."""
        return ".".join([*self._node_scope, name])
