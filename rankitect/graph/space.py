"""A search space: choices that shape a graph, and what follows from the pair without building a model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rankitect.errors import SpaceError
from rankitect.graph.cost import COSTS, cost_expression
from rankitect.graph.graph import Graph
from rankitect.graph.liveness import Liveness, liveness
from rankitect.graph.serialize import graph_data, restored_graph
from rankitect.space.architecture import Architecture
from rankitect.space.choice_space import SCHEMA, ChoiceSpace
from rankitect.space.declaring import Choices
from rankitect.space.distribution import Size
from rankitect.space.expr import Expr

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
        SpaceError: The graph has no output, a choice decides nothing, or no architecture is feasible.
    """

    def __init__(self, graph: Graph, version: str = "1", defaults: Mapping[str, int] | None = None) -> None:
        self.graph = graph
        self.live: Liveness = liveness(graph)
        self.base: SearchSpace | None = None
        super().__init__(graph, version, {"B": 1, "T": 1, "P": 0, **(defaults or {})}, self.live.choices)

    @property
    def cost_names(self) -> list[str]:
        """The costs that there are: those of every graph, and learned ones."""
        return [*COSTS, *self.learned]

    def cost_expression(self, kind: str, scope: str) -> Expr:
        """A cost of every graph as an expression of choices and free dimensions."""
        return cost_expression(self.graph, self.live, kind, scope)

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
        try:
            data = json.loads(text)
            if data.get("schema") != SCHEMA:
                raise SpaceError(f"space of schema {data.get('schema')!r}; this version reads {SCHEMA}")
            space = cls(restored_graph(data, allowed_packages), data["version"], data["defaults"])
            space.closed.update(data.get("closed", {}))
            if data.get("base") is not None:
                space.base = cls.from_json(json.dumps(data["base"]), allowed_packages)
            for name, item in data.get("points", {}).items():
                space.points[name] = space.validate(Architecture.from_json(json.dumps(item)))
            return space
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise SpaceError(f"not a space in JSON: {type(error).__name__}: {error}") from None
