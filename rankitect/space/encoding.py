"""Architectures as index columns and back, and which of them meet the rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from rankitect.errors import SpaceError
from rankitect.space.architecture import Architecture
from rankitect.space.choices import Choice
from rankitect.space.declaring import Rule
from rankitect.space.expr import Expr
from rankitect.space.names import nearest
from rankitect.space.tables import Assignments, TabulatedExpr, tabulate

__all__ = ["Encoding", "rows"]


def rows(columns: Mapping[str, np.ndarray]) -> int:
    """How many architectures index columns hold."""
    return len(next(iter(columns.values()))) if columns else 1


class Encoding:
    """The architectures of some choices: many at once as index columns, int64 [n] for each path.

    Args:
        name: Part of every architecture's identity.
        version: Likewise.
        choices: The choices by path, in order of declaration.
        rules: What every architecture must meet.
        live: When each choice has an effect, by path.
        defaults: Values of free dimensions.

    Attributes:
        closed: Choices that an author closed, with their values. Architectures may name them.
    """

    def __init__(
        self,
        name: str,
        version: str,
        choices: Mapping[str, Choice],
        rules: Sequence[Rule],
        live: Mapping[str, Expr],
        defaults: Mapping[str, int],
    ) -> None:
        self.name, self.version = name, version
        self.choices: Mapping[str, Choice] = choices
        self.rules: Sequence[Rule] = rules
        self.live_choices: Mapping[str, Expr] = live
        self.defaults = dict(defaults)
        self.closed: dict[str, Any] = {}
        # Architectures that it made itself, by fingerprint: they need no check, and have their choices in its order.
        self._valid: WeakValueDictionary[str, Architecture] = WeakValueDictionary()
        self._compiled: dict[Any, TabulatedExpr] = {}

    # --- one architecture -------------------------------------------------------------------------------------------
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
        architecture = self._from_row(row, live, 0)
        if (broken := self._broken(row, live)) is not None:
            raise SpaceError(broken)
        self._valid[architecture.fingerprint] = architecture
        return architecture

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

    # --- many at once -----------------------------------------------------------------------------------------------
    def encode(self, architectures: Iterable[Architecture]) -> dict[str, np.ndarray]:
        """Indices of chosen values, int64 [n] for each path; 0 for choices without effect."""
        chosen = [a.choices for a in architectures]
        return {p: c.positions([values.get(p) for values in chosen]) for p, c in self.choices.items()}

    def decode(self, columns: Mapping[str, np.ndarray]) -> list[Architecture]:
        """The architectures of index columns (rules are not checked)."""
        n = rows(columns)
        live = self._live(columns, n)
        return [self._from_row(columns, live, i) for i in range(n)]

    def canonical(self, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Index columns with every choice without effect set to its first value."""
        live = self._live(columns, rows(columns))
        return {p: np.where(live[p], columns[p], 0) for p in columns}

    def feasible(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Which rows of canonical index columns meet every rule; bool [n]."""
        n = rows(columns)
        live = self._live(columns, n)
        ok = np.ones(n, dtype=bool)
        for rule in self.rules:
            ok &= self.holds(rule.condition, columns, live, n)
        return ok

    def holds(
        self, rule: Expr, columns: Mapping[str, np.ndarray], live: Mapping[str, np.ndarray], n: int
    ) -> np.ndarray:
        """Where a rule holds, bool [n]; vacuously where none of its choices is live.

        Args:
            rule: The condition.
            columns: Index columns of the choices that it asks for.
            live: Which of these are live, bool [n] each.
            n: Architectures.
        """
        columns = {p: np.where(live[p], columns[p], 0) for p in rule.paths}
        in_force = np.any([live[p] for p in rule.paths], axis=0) if rule.paths else np.ones(n, dtype=bool)
        met = np.broadcast_to(np.asarray(rule.evaluate(Assignments(self.choices, columns, self.defaults))) != 0, n)
        result: np.ndarray = met | ~in_force
        return result

    def gate(self, path: str) -> TabulatedExpr:
        """When a choice has an effect, compiled."""
        return self._kept(("live", path), lambda: tabulate(self.live_choices[path], self.choices, self.defaults))

    def _kept(self, key: Any, make: Callable[[], TabulatedExpr]) -> TabulatedExpr:
        if key not in self._compiled:
            self._compiled[key] = make()
        return self._compiled[key]

    def _live(self, columns: Mapping[str, np.ndarray], n: int) -> dict[str, np.ndarray]:
        shared = Assignments.of(self.choices, columns, n, self.defaults)
        return {p: self.gate(p).evaluate(self.choices, columns, n, shared) != 0 for p in self.choices}

    def _from_row(self, columns: Mapping[str, np.ndarray], live: Mapping[str, np.ndarray], i: int) -> Architecture:
        values = {p: c.values[columns[p][i]] for p, c in self.choices.items() if live[p][i]}
        return Architecture(self.name, self.version, values)

    def _broken(self, columns: Mapping[str, np.ndarray], live: Mapping[str, np.ndarray]) -> str | None:
        """What to say of the first rule that the one architecture of some columns breaks; None where it breaks none."""
        for rule in self.rules:
            if not self.holds(rule.condition, columns, live, 1)[0]:
                values = ", ".join(
                    f"{p}={self.choices[p].values[columns[p][0]]!r}"
                    for p in sorted(rule.condition.paths)
                    if live[p][0] or len(self.choices[p].values) == 1
                )
                return f"space {self.name!r}: rule {rule.text!r} does not hold for {values}"
        return None
