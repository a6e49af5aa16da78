"""The uniform distribution over the distinct architectures of a space, as factors over few choices each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from rankitect.errors import SpaceError
from rankitect.space.counting import Elimination, eliminate
from rankitect.space.declaring import Rule
from rankitect.space.encoding import Encoding
from rankitect.space.expr import Expr
from rankitect.space.tables import Assignments, JointTable

__all__ = ["Distribution", "Size"]

MANY = 10**12
"""Counts above this are approximate: they are the exponentials of float64 logarithms, which are off by one from about
10**13 on."""
MAX_GATE, MAX_RULE = 1 << 20, 1 << 18
"""Entries of the factor of a choice and of a rule; a rule over more joint values is left to rejection."""


class Size(NamedTuple):
    """How many architectures there are.

    Attributes:
        raw: Combinations of all choices.
        distinct: Different models that meet the rules; None where the rules tie too many choices together to count.
    """

    raw: int
    distinct: int | None


class Distribution:
    """Counts and weighs the distinct architectures of a space.

    Args:
        encoding: The space's choices, and when they have an effect.
    """

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding
        self._order = {path: i for i, path in enumerate(encoding.choices)}

    @cached_property
    def factors(self) -> list[JointTable] | None:
        """Log-factors whose product allows each distinct model exactly once; None where a gate is too large a table.

        Rules that tie too many choices together are left to rejection.
        """
        encoding, factors = self._encoding, []
        for path, choice in encoding.choices.items():
            tables = encoding.gate(path)
            if tables.rest.terms:
                return None
            paths = self._sorted(tables.scope() | {path})
            if self._domain(paths) > MAX_GATE:
                return None
            # All values where the choice has an effect, and only the first where it has none: each model once.
            live = self._on_grid(encoding.live_choices[path], paths) != 0
            shape = [len(choice.values) if p == path else 1 for p in paths]
            first = (np.arange(len(choice.values)) == 0).reshape(shape)
            with np.errstate(divide="ignore"):
                factors.append(JointTable(paths, np.log((live | first).astype(float))))
        factors.extend(self._rule_factor(rule.condition) for rule in self._tabulated_rules)
        return factors

    @cached_property
    def uniform(self) -> Elimination | None:
        """All choices summed out, to draw from; None where they are tied together too closely."""
        if self.factors is None:
            return None
        try:
            return eliminate(self._encoding.choices, self.factors)
        except SpaceError:
            return None

    def size(self) -> Size:
        """How many architectures there are, raw and distinct."""
        raw = self._domain(self._encoding.choices)
        counted = len(self._tabulated_rules) == len(self._encoding.rules)
        if self.uniform is None or not counted:
            return Size(raw, None)
        exact = self.uniform.log_total
        return Size(
            raw, round(math.exp(exact)) if exact < math.log(MANY) else int(float(f"{math.exp(min(exact, 700)):.6g}"))
        )

    @cached_property
    def _tabulated_rules(self) -> list[Rule]:
        return [r for r in self._encoding.rules if self._domain(self._rule_scope(r.condition)) <= MAX_RULE]

    def _rule_scope(self, rule: Expr) -> tuple[str, ...]:
        """The choices that a rule depends on: those that it asks for, and those that decide whether these are live."""
        return self._sorted(rule.paths.union(*(self._encoding.live_choices[p].paths for p in rule.paths)))

    def _rule_factor(self, rule: Expr) -> JointTable:
        encoding, paths = self._encoding, self._rule_scope(rule)
        shape = [len(encoding.choices[p].values) for p in paths]
        grid = dict(zip(paths, (g.reshape(-1) for g in np.indices(shape)), strict=True))
        n = math.prod(shape)
        live = {p: np.broadcast_to(self._evaluated(encoding.live_choices[p], grid) != 0, n) for p in rule.paths}
        with np.errstate(divide="ignore"):
            return JointTable(paths, np.log(encoding.holds(rule, grid, live, n).astype(float)).reshape(shape))

    def _evaluated(self, expr: Expr, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.asarray(expr.evaluate(Assignments(self._encoding.choices, columns, self._encoding.defaults)))

    def _on_grid(self, expr: Expr, paths: Sequence[str]) -> np.ndarray:
        shape = [len(self._encoding.choices[p].values) for p in paths]
        grid = dict(zip(paths, np.indices(shape), strict=True))
        return np.broadcast_to(self._evaluated(expr, grid), shape)

    def _sorted(self, paths: frozenset[str]) -> tuple[str, ...]:
        return tuple(sorted(paths, key=self._order.__getitem__))

    def _domain(self, paths: Mapping[str, object] | Sequence[str]) -> int:
        return math.prod(len(self._encoding.choices[p].values) for p in paths)
