"""A search space: choices that shape a graph, and what follows from the pair without building a model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rankitect.documents import as_kind, parse_json
from rankitect.errors import SpaceError
from rankitect.graph.bits import check_bits
from rankitect.graph.block import Block
from rankitect.graph.cost import COSTS, cost_expression
from rankitect.graph.graph import Graph
from rankitect.graph.liveness import Liveness, liveness
from rankitect.graph.quantized import Quantized
from rankitect.graph.replacing import with_blocks
from rankitect.graph.restoring import StoredSpace, restored_graph
from rankitect.graph.serialize import graph_data
from rankitect.graph.sizes import check_sizes
from rankitect.space.choice_space import ChoiceSpace
from rankitect.space.declaring import Choices
from rankitect.space.distribution import Size
from rankitect.space.expr import Expr
from rankitect.space.stored import SCHEMA

__all__ = ["SearchSpace", "Size"]


class SearchSpace(ChoiceSpace):
    """A graph with open choices.

    Args:
        graph: The graph.
        version: Part of every architecture's identity; change it when the graph changes.
        defaults: Values of free dimensions for costs, for example `{"B": 1, "T": 256, "P": 0}`.

    Attributes:
        live: When each node, weight and choice has an effect.
        base: The same space with some choices closed (its `closed`), for its author to set: choices that multiply the
            whole model, say, which shared weights cannot rank. A search with shared weights moves in it, and decides
            these choices by full measurements.

    Raises:
        SpaceError: The graph has no output, a choice decides nothing, a size can be negative, or no architecture is
            feasible.
    """

    def __init__(self, graph: Graph, version: str = "1", defaults: Mapping[str, int] | None = None) -> None:
        self.graph = graph
        self.live: Liveness = liveness(graph)
        self.base: SearchSpace | None = None
        super().__init__(graph, version, {"B": 1, "T": 1, "P": 0, **(defaults or {})}, self.live.choices)
        check_sizes(graph, self.live)
        check_bits(graph, self.live)

    @property
    def cost_names(self) -> list[str]:
        """The costs that there are: those of every graph, and learned ones."""
        return [*COSTS, *self.learned]

    def cost_expression(self, kind: str, scope: str) -> Expr:
        """A cost of every graph as an expression of choices and free dimensions."""
        return cost_expression(self.graph, self.live, kind, scope)

    @property
    def is_float(self) -> bool:
        """Whether nothing in it is rounded: no block states bits (`rankitect.graph.Quantized`)."""
        return not any(isinstance(n.block, Quantized) and n.block.numerics() for n in self.graph.nodes)

    @property
    def settings(self) -> tuple[str, ...]:
        """The choices that nothing in the graph depends on."""
        return self.live.settings

    @property
    def graph_only(self) -> bool:
        """Whether there are no settings."""
        return not self.settings

    def with_settings(self, declared: Choices, values: Mapping[str, Any]) -> SearchSpace:
        """See `ChoiceSpace.with_settings`; the base is extended, too."""
        extended = SearchSpace(self.graph.with_settings(declared), self.version, self.defaults)
        extended.take_over(self, values)
        if self.base is not None:
            extended.base = self.base.with_settings(declared, values)
        return extended

    def with_blocks(self, blocks: Mapping[str, Block], owners: Mapping[str, str] | None = None) -> SearchSpace:
        """This space with other blocks in the places of some: what a stage of a recipe makes of a model's graph.

        Choices, name, version and wires are the same, so that architectures and their fingerprints stay what they are;
        types, weights and costs are derived again. What was learned of costs (latencies) is of the blocks before, and
        is not taken over.

        Args:
            blocks: The new blocks, by the paths of their nodes.
            owners: For nodes whose weights are to be another node's from now on, or their own, the path of that node.

        Raises:
            SpaceError: There is no such node, a block does not fit its wires, nodes that share weights disagree on
                them, or a choice decides nothing any more.
        """
        changed = SearchSpace(with_blocks(self.graph, blocks, owners or {}), self.version, self.defaults)
        changed.closed.update(self.closed)
        changed.usual.update(self.usual)
        changed.points.update(self.points)
        changed.spelling = self.spelling
        if self.base is not None:
            held = self.base.graph.dag
            changed.base = self.base.with_blocks(
                {path: block for path, block in blocks.items() if path in held},
                {path: owner for path, owner in (owners or {}).items() if path in held},
            )
        return changed

    def to_json(self) -> str:
        """The space as data, without tensors."""
        data = {
            "schema": SCHEMA,
            "name": self.name,
            "version": self.version,
            "defaults": self.defaults,
            **graph_data(self.graph),
            "points": {name: json.loads(a.to_json()) for name, a in self.points.items()},
            "base": None if self.base is None else json.loads(self.base.to_json()),
            "closed": self.closed,
        }
        return json.dumps(data)

    @classmethod
    def from_json(cls, text: str, allowed_packages: Sequence[str] = ("rankitect",)) -> SearchSpace:
        """The inverse of `to_json`; types, weights and costs are derived again from the blocks.

        Args:
            text: The data.
            allowed_packages: Packages that blocks may come from.

        Raises:
            SpaceError: The text is no space, or names a block from elsewhere.
        """
        return cls._restored(parse_json(text, StoredSpace, "a space in JSON", SpaceError), allowed_packages)

    @classmethod
    def _restored(cls, stored: StoredSpace, allowed_packages: Sequence[str]) -> SearchSpace:
        space = cls(restored_graph(stored, allowed_packages), stored.version, stored.defaults)
        space.closed.update(stored.closed)
        if stored.base is not None:
            base = as_kind(stored.base, StoredSpace, "the base of a space in JSON", SpaceError)
            space.base = cls._restored(base, allowed_packages)
        space.restore_points(stored)
        return space
