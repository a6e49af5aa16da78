"""A search space: a graph with its choices, and everything that can be asked of the pair without building a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import numpy as np

from rankitect.errors import SpaceError
from rankitect.graph.cost import COSTS, cost_expression
from rankitect.graph.graph import Graph
from rankitect.graph.liveness import Liveness, liveness
from rankitect.space.architecture import Architecture
from rankitect.space.choices import Choice
from rankitect.space.counting import Elimination, eliminate
from rankitect.space.expr import Expr
from rankitect.space.names import nearest
from rankitect.space.tables import Assignments, Table, Tables, tabulate

__all__ = ["SearchSpace", "Size"]

MANY = 10**15
"""Counts above this are approximate (they are computed in float64)."""


class Size(NamedTuple):
    """How many architectures there are.

    Attributes:
        raw: Combinations of all choices.
        distinct: Different models that meet the rules; None where the rules tie too many choices together to count.
    """

    raw: int
    distinct: int | None


def _rows(columns: Mapping[str, np.ndarray]) -> int:
    return len(next(iter(columns.values()))) if columns else 1


class SearchSpace:
    """A graph with open choices.

    Args:
        graph: The graph.
        version: Part of every architecture's identity; change it when the graph changes.
        defaults: Values of free dimensions for costs, for example `{"B": 1, "T": 256, "P": 0}`.

    Attributes:
        points: Known architectures by name, for its author to fill: a search may begin with them.
        base: The same space with some choices closed (its `closed`), for its author to set: choices that multiply the
            whole model, say, which shared weights cannot rank. A search with shared weights moves in it, and decides
            these choices by full measurements.
        closed: Choices that an author closed when the graph was built, with their values. Architectures may name them.
        learned: Costs beyond the graph's readings (a measured latency), by name; compiled when first asked for.

    Raises:
        SpaceError: The graph has no output, a choice decides nothing, or no architecture is feasible.
    """

    def __init__(self, graph: Graph, version: str = "1", defaults: Mapping[str, int] | None = None) -> None:
        self.graph = graph
        self.version = version
        self.defaults = {"B": 1, "T": 1, "P": 0, **(defaults or {})}
        self.points: dict[str, Architecture] = {}
        self.base: SearchSpace | None = None
        self.closed: dict[str, Any] = {}
        # Architectures that it made itself, by fingerprint: they need no check, and have their choices in its order.
        self._valid: WeakValueDictionary[str, Architecture] = WeakValueDictionary()
        self.live: Liveness = liveness(graph)
        self._compiled: dict[Any, Tables] = {}
        self.learned: dict[str, Callable[[], Tables]] = {}
        self._recent: tuple[Any, dict[str, np.ndarray], Assignments] | None = None
        if self._uniform is not None and self._uniform.log_total == -math.inf:
            rules = "; ".join(r.text for r in graph.rules)
            raise SpaceError(
                f"space {graph.name!r} has no feasible architecture: its rules exclude each other: {rules}"
            )

    @property
    def name(self) -> str:
        """The graph's name."""
        return self.graph.name

    @property
    def choices(self) -> Mapping[str, Choice]:
        """The choices by path, in order of declaration."""
        return self.graph.choices

    def __repr__(self) -> str:
        return f"SearchSpace({self.name!r}, {len(self.choices)} choices)"

    # --- architectures ----------------------------------------------------------------------------------------------
    def architecture(self, choices: Mapping[str, Any] | None = None, **by_name: Any) -> Architecture:
        """Close every choice. Choices without effect may be given or left out.

        Args:
            choices: Values by path.
            by_name: Further values, for paths that are plain names.

        Raises:
            SpaceError: A path is unknown, a value is not allowed, a live choice is missing, or a rule is broken.
        """
        given = {**(choices or {}), **by_name}
        for path, value in self.closed.items():
            if given.pop(path, value) != value:
                raise SpaceError(f"space {self.name!r}: choice {path!r} is closed at {value!r} here")
        for path in given:
            if path not in self.choices:
                raise SpaceError(f"space {self.name!r} has no choice {path!r}{nearest(path, self.choices)}")
        row = {p: np.asarray([c.position(given[p]) if p in given else 0]) for p, c in self.choices.items()}
        live = self._live(row, 1)
        missing = [p for p in self.choices if live[p][0] and p not in given and len(self.choices[p].values) > 1]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise SpaceError(f"space {self.name!r}: choice {missing[0]!r}{more} has an effect here and needs a value")
        made = self._from_row(row, live, 0)
        broken = self._broken(row, live, 0)
        if broken is not None:
            raise SpaceError(broken)
        self._valid[made.fingerprint] = made
        return made

    def validate(self, architecture: Architecture) -> Architecture:
        """Check an architecture (from a file, say) against this space and give its canonical form.

        Raises:
            SpaceError: It belongs to another space or version, or breaks this one's rules.
        """
        if (architecture.space, architecture.version) != (self.name, self.version):
            raise SpaceError(
                f"architecture of space {architecture.space!r} version {architecture.version} given to "
                f"{self.name!r} version {self.version}"
            )
        return self._valid.get(architecture.fingerprint) or self.architecture(architecture.choices)

    def encode(self, architectures: Iterable[Architecture]) -> dict[str, np.ndarray]:
        """Indices of chosen values, int64 [n] for each path; 0 for choices without effect."""
        chosen = [a.choices for a in architectures]
        return {p: c.positions([values.get(p) for values in chosen]) for p, c in self.choices.items()}

    def decode(self, columns: Mapping[str, np.ndarray]) -> list[Architecture]:
        """The architectures of index columns (rules are not checked)."""
        n = _rows(columns)
        live = self._live(columns, n)
        return [self._from_row(columns, live, i) for i in range(n)]

    def _from_row(self, columns: Mapping[str, np.ndarray], live: Mapping[str, np.ndarray], i: int) -> Architecture:
        values = {p: c.values[columns[p][i]] for p, c in self.choices.items() if live[p][i]}
        return Architecture(self.name, self.version, values)

    def _live(self, columns: Mapping[str, np.ndarray], n: int) -> dict[str, np.ndarray]:
        shared = Assignments.of(self.choices, columns, n, self.defaults)
        return {p: self._gate(p).evaluate(self.choices, columns, n, shared) != 0 for p in self.choices}

    def canonical(self, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Index columns with every choice without effect set to its first value."""
        live = self._live(columns, _rows(columns))
        return {p: np.where(live[p], columns[p], 0) for p in columns}

    def feasible(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Which rows of canonical index columns meet every rule; bool [n]."""
        n = _rows(columns)
        live = self._live(columns, n)
        ok = np.ones(n, dtype=bool)
        for rule in self.graph.rules:
            ok &= self._holds(rule.condition, columns, live, n)
        return ok

    def _holds(
        self, rule: Expr, columns: Mapping[str, np.ndarray], live: Mapping[str, np.ndarray], n: int
    ) -> np.ndarray:
        columns = {p: np.where(live[p], columns[p], 0) for p in rule.paths}
        in_force = np.any([live[p] for p in rule.paths], axis=0) if rule.paths else np.ones(n, dtype=bool)
        met = np.broadcast_to(np.asarray(rule.evaluate(Assignments(self.choices, columns, self.defaults))) != 0, n)
        result: np.ndarray = met | ~in_force
        return result

    def _broken(self, columns: Mapping[str, np.ndarray], live: Mapping[str, np.ndarray], i: int) -> str | None:
        for rule in self.graph.rules:
            if not self._holds(rule.condition, columns, live, 1)[i]:
                values = ", ".join(
                    f"{p}={self.choices[p].values[columns[p][i]]!r}"
                    for p in sorted(rule.condition.paths)
                    if live[p][i] or len(self.choices[p].values) == 1
                )
                return f"space {self.name!r}: rule {rule.text!r} does not hold for {values}"
        return None

    # --- size and distribution --------------------------------------------------------------------------------------
    @cached_property
    def factors(self) -> list[Table] | None:
        """Log-factors whose product allows each distinct model exactly once; None where a gate is too large a table.

        Rules that tie too many choices together are left to rejection.
        """
        found: list[Table] = []
        for path, choice in self.choices.items():
            tables = self._gate(path)
            if tables.rest.terms:
                return None
            paths = tuple(sorted(tables.scope() | {path}, key=list(self.choices).index))
            if math.prod(len(self.choices[p].values) for p in paths) > 1 << 20:
                return None
            live = self._on_grid(self.live.choices[path], paths) != 0
            shape = [len(choice.values) if p == path else 1 for p in paths]
            first = (np.arange(len(choice.values)) == 0).reshape(shape)
            with np.errstate(divide="ignore"):
                found.append(Table(paths, np.log((live | first).astype(float))))
        found.extend(self._rule_factor(r.condition) for r in self._tabulated_rules)
        return found

    @cached_property
    def _tabulated_rules(self) -> list[Any]:
        return [r for r in self.graph.rules if self._rule_scope(r.condition) is not None]

    def _rule_scope(self, rule: Expr) -> tuple[str, ...] | None:
        paths = set(rule.paths)
        for p in rule.paths:
            paths |= self.live.choices[p].paths
        if math.prod(len(self.choices[p].values) for p in paths) > 1 << 18:
            return None
        return tuple(sorted(paths, key=list(self.choices).index))

    def _rule_factor(self, rule: Expr) -> Table:
        paths = self._rule_scope(rule) or ()
        shape = [len(self.choices[p].values) for p in paths]
        grid = dict(zip(paths, (g.reshape(-1) for g in np.indices(shape)), strict=True))
        n = math.prod(shape)
        live = {p: np.broadcast_to(self._on_columns(self.live.choices[p], grid) != 0, n) for p in rule.paths}
        with np.errstate(divide="ignore"):
            return Table(paths, np.log(self._holds(rule, grid, live, n).astype(float)).reshape(shape))

    def _on_columns(self, expr: Expr, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.asarray(expr.evaluate(Assignments(self.choices, columns, self.defaults)))

    def _on_grid(self, expr: Expr, paths: Sequence[str]) -> np.ndarray:
        shape = [len(self.choices[p].values) for p in paths]
        grid = dict(zip(paths, np.indices(shape), strict=True))
        return np.broadcast_to(self._on_columns(expr, grid), shape)

    @cached_property
    def _uniform(self) -> Elimination | None:
        if self.factors is None:
            return None
        try:
            return eliminate(self.choices, self.factors)
        except SpaceError:
            return None

    def size(self) -> Size:
        """How many architectures there are, raw and distinct."""
        raw = math.prod(len(c.values) for c in self.choices.values())
        counted = self._uniform is not None and len(self._tabulated_rules) == len(self.graph.rules)
        if not counted or self._uniform is None:
            return Size(raw, None)
        exact = self._uniform.log_total
        return Size(
            raw, round(math.exp(exact)) if exact < math.log(MANY) else int(float(f"{math.exp(min(exact, 700)):.6g}"))
        )

    # --- cost -------------------------------------------------------------------------------------------------------
    def cost_tables(self, kind: str, scope: str = "", **symbols: int) -> Tables:
        """One cost, compiled. See `cost` for the arguments.

        Raises:
            SpaceError: The cost is unknown.
        """
        if kind in self.learned and not scope:
            return self._kept(("learned", kind), self.learned[kind])
        if kind not in COSTS:
            raise SpaceError(f"unknown cost {kind!r}{nearest(kind, [*COSTS, *self.learned])}")
        values = {**self.defaults, **symbols}
        key = ("cost", kind, scope, tuple(sorted(values.items())))
        return self._kept(
            key, lambda: tabulate(cost_expression(self.graph, self.live, kind, scope), self.choices, values)
        )

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
            kind: A key of `graph.cost.COSTS`, for example "params" or "flops", or of `learned`.
            scope: Count only this part of the graph, for example "layers".
            symbols: Free dimensions, for example `T=256`; the space's defaults where not given.
        """
        tables = self.cost_tables(kind, scope, **symbols)
        if isinstance(architectures, Architecture):
            columns, shared = self._one(architectures, tables.symbols)
            return float(tables.evaluate(self.choices, columns, 1, shared)[0])
        if isinstance(architectures, Mapping):
            return tables.evaluate(self.choices, architectures, _rows(architectures))
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

    def _kept(self, key: Any, make: Callable[[], Tables]) -> Tables:
        if key not in self._compiled:
            self._compiled[key] = make()
        return self._compiled[key]

    def _gate(self, path: str) -> Tables:
        """Whether a choice has an effect."""
        return self._kept(("live", path), lambda: tabulate(self.live.choices[path], self.choices, self.defaults))

    # --- moves ------------------------------------------------------------------------------------------------------
    def sample(self, rng: np.random.Generator | int | None = None, **ranges: Any) -> Architecture:
        """One architecture, uniformly among the distinct ones.

        Args:
            rng: A generator or a seed.
            ranges: Bounds on costs, for example `params=(1e6, 2e6), flops=(lo, hi)`; `scope=` and free dimensions apply
                to all of them, and a key such as "layers:flops" bounds a part of the graph.

        Raises:
            SpaceError: Nothing in the range was found: says what the space offers.
        """
        return self.sample_many(1, rng, **ranges)[0]

    def sample_many(self, n: int, rng: np.random.Generator | int | None = None, **ranges: Any) -> list[Architecture]:
        """`n` architectures, drawn independently; see `sample`."""
        from rankitect.graph.sampling import sample_columns

        made = self.decode(sample_columns(self, n, np.random.default_rng(rng), **ranges))
        self._valid.update({a.fingerprint: a for a in made})
        return made if self.choices else made * n

    def mutate(
        self, architecture: Architecture, rng: np.random.Generator | int | None = None, tries: int = 1000
    ) -> Architecture:
        """A feasible architecture that differs in one live choice (and in what that switches on).

        Raises:
            SpaceError: None was found.
        """
        from rankitect.graph.sampling import mutate

        return mutate(self, architecture, np.random.default_rng(rng), tries)

    def crossover(
        self, mother: Architecture, father: Architecture, rng: np.random.Generator | int | None = None
    ) -> Architecture:
        """A feasible architecture that takes each choice from one of two; the mother if none is feasible."""
        from rankitect.graph.sampling import crossover

        return crossover(self, mother, father, np.random.default_rng(rng))

    def neighbours(self, architecture: Architecture) -> Iterator[Architecture]:
        """All feasible architectures that differ in the value of one live choice."""
        from rankitect.graph.sampling import neighbours

        return neighbours(self, architecture)

    # --- other readings ---------------------------------------------------------------------------------------------
    @cached_property
    def feature_names(self) -> list[str]:
        """Names of the entries of `features`."""
        from rankitect.graph.features import feature_names

        return feature_names(self)

    def features(self, architectures: Iterable[Architecture]) -> np.ndarray:
        """A fixed-length numeric encoding, float64 [n, len(feature_names)]."""
        from rankitect.graph.features import features

        return features(self, architectures)

    def to_json(self) -> str:
        """The space as data, without tensors."""
        from rankitect.graph.serialize import space_to_json

        return space_to_json(self)

    @classmethod
    def from_json(cls, text: str, allowed_packages: Sequence[str] = ("rankitect",)) -> SearchSpace:
        """The inverse of `to_json`. Blocks are taken only from `allowed_packages`.

        Raises:
            SpaceError: The text is no space, or names a block from elsewhere.
        """
        from rankitect.graph.serialize import space_from_json

        return space_from_json(text, allowed_packages)
