"""What the architectures of a space cost, without building a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from rankitect.errors import SpaceError
from rankitect.space.architecture import Architecture
from rankitect.space.encoding import Encoding, rows
from rankitect.space.expr import Expr
from rankitect.space.names import nearest, shown
from rankitect.space.tables import Assignments, TabulatedExpr, tabulate
from rankitect.space.whole import check_whole

__all__ = ["Costed"]

MAX_DIMENSION = 1 << 40
"""The largest value of a free dimension, such as a batch or a number of tokens."""


class Costed(Encoding):
    """Choices whose architectures have costs.

    Attributes:
        learned: Costs by name that no graph states (a measured latency, those of a model that the choices do not
            change), compiled when first asked for.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.learned: dict[str, Callable[[], TabulatedExpr]] = {}
        self._recent: tuple[Any, dict[str, np.ndarray], Assignments] | None = None

    @property
    def cost_names(self) -> list[str]:
        """The costs that there are."""
        return list(self.learned)

    def cost_expression(self, kind: str, scope: str) -> Expr:
        """A cost of `cost_names` that is not learned, as an expression of choices and free dimensions."""
        raise KeyError(kind)

    def cost_tables(self, kind: str, scope: str = "", **symbols: int) -> TabulatedExpr:
        """One cost, compiled. See `cost` for the arguments.

        Raises:
            SpaceError: The cost or a dimension is unknown, or a dimension is no whole number from 0.
        """
        if kind in self.learned and not scope:
            return self._kept(("learned", kind), self.learned[kind])
        if kind not in self.cost_names or kind in self.learned:
            raise SpaceError(f"unknown cost {kind!r}{nearest(kind, self.cost_names)}")
        for name, value in symbols.items():
            if type(value) is not int:
                check_whole(f"dimension {shown(name)}", value, 0, MAX_DIMENSION)
        values = {**self.defaults, **symbols}
        key = ("cost", kind, scope, tuple(sorted(values.items())))
        return self._kept(key, lambda: self._tabulated_cost(kind, scope, values))

    def _tabulated_cost(self, kind: str, scope: str, symbols: Mapping[str, int]) -> TabulatedExpr:
        expression = self.cost_expression(kind, scope)
        for name, value in symbols.items():
            if name not in self.defaults and name not in expression.symbols:
                raise SpaceError(f"unknown dimension {shown(name)}{nearest(name, self.defaults)}")
            check_whole(f"dimension {name!r}", value, 0, MAX_DIMENSION)
        return tabulate(expression, self.choices, symbols)

    def cost(
        self,
        architectures: Architecture | Iterable[Architecture] | Mapping[str, np.ndarray],
        kind: str,
        scope: str = "",
        **symbols: int,
    ) -> Any:
        """A cost of one architecture (a float) or of many (float64 [n]), without building a model.

        Args:
            architectures: One, many, or index columns as `encode` gives.
            kind: One of `cost_names`, for example "params" or "flops".
            scope: Count only this part of the graph, for example "layers".
            symbols: Free dimensions, for example `T=256`; the space's defaults where not given.
        """
        tables = self.cost_tables(kind, scope, **symbols)
        if isinstance(architectures, Architecture):
            columns, shared = self._one(architectures, tables.symbols)
            return float(tables.evaluate(self.choices, columns, 1, shared)[0])
        if isinstance(architectures, Mapping):
            return tables.evaluate(self.choices, architectures, rows(architectures))
        many = list(architectures)
        return tables.evaluate(self.choices, self.encode(many), len(many))

    def _one(self, architecture: Architecture, symbols: Mapping[str, int]) -> tuple[dict[str, np.ndarray], Assignments]:
        """The columns of an architecture and what is known of it, kept: one cost is seldom asked for alone."""
        key = (architecture.fingerprint, tuple(sorted(symbols.items())))
        if self._recent is None or self._recent[0] != key:
            columns = self.encode([architecture])
            self._recent = key, columns, Assignments.of(self.choices, columns, 1, symbols)
        _, columns, shared = self._recent
        return columns, shared
