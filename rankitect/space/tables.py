"""Expressions compiled to tables: a sum of small arrays, each over the joint values of a few choices.

A cost of a space is a polynomial whose monomials touch few choices each. Grouping them by those choices turns it into a
handful of look-ups an architecture, vectorised over architectures, and makes its expectation under independent choices
exact: an inner product of each table with the outer product of the choices' probabilities. The same tables are the
factors of a counting problem, from which distinct architectures are counted and sampled uniformly (`counting`).

A condition over very many choices (whether any of a long chain of blocks uses an output) fits into no table. Its
expectation is that of independent conditions, "any" being 1 - prod(1 - p): exact wherever the choices are certain.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rankitect.errors import SpaceError
from rankitect.space.atoms import Is, MemberParts, Number, Sym, Var
from rankitect.space.choices import Choice
from rankitect.space.expr import Atom, Expr, Monomial, Op, as_expr
from rankitect.space.names import shown

__all__ = ["Assignments", "JointTable", "TabulatedExpr", "joint_grid", "joint_values", "tabulate", "upper_bound"]

MAX_TABLE = 1 << 17
"""Entries of one table; a term over more joint values stays an expression."""


class Assignments:
    """Values of atoms for many architectures at once.

    Args:
        choices: The space's choices.
        columns: For each path, the index of the chosen value: int arrays of one shape, or plain numbers for one
            architecture, whose values are then plain numbers too.
        symbols: Values of free dimensions.
    """

    def __init__(
        self, choices: Mapping[str, Choice], columns: Mapping[str, np.ndarray | int], symbols: Mapping[str, int]
    ) -> None:
        self.choices, self.columns, self.symbols = choices, columns, symbols
        self.known: dict[Atom, Any] = {}

    @classmethod
    def of(
        cls, choices: Mapping[str, Choice], columns: Mapping[str, np.ndarray], n: int, symbols: Mapping[str, int]
    ) -> Assignments:
        """Of `n` architectures; a single one's values are plain numbers, which are many times as fast."""
        single = {p: c.item() for p, c in columns.items()} if n == 1 else None
        return cls(choices, columns if single is None else single, symbols)

    def value(self, atom: Atom) -> Any:
        """The value of an atom: a number, or an array with an entry for each architecture."""
        if atom not in self.known:
            self.known[atom] = self._value(atom)
        return self.known[atom]

    def _value(self, atom: Atom) -> Any:
        if isinstance(atom, Sym):
            if atom.name not in self.symbols:
                raise SpaceError(f"dimension {atom.name} has no value here: give {atom.name}=<number>")
            return self.symbols[atom.name]
        if isinstance(atom, Op):
            raise TypeError("functions are evaluated by their expression")
        choice, column = self.choices[atom.path], self.columns[atom.path]
        if isinstance(column, int):
            chosen = choice.values[column]
            if isinstance(atom, Var):
                return chosen
            if isinstance(atom, Is):
                return int(column == choice.position(atom.value))
            if isinstance(atom, MemberParts):
                return chosen[atom.member] if isinstance(chosen, tuple) else 0
            return int(isinstance(chosen, tuple) and atom.member in chosen)
        if isinstance(atom, Var):
            return np.asarray(choice.values, dtype=np.int64)[column]
        if isinstance(atom, Is):
            return (column == choice.position(atom.value)).astype(np.int64)
        if isinstance(atom, MemberParts):
            return np.asarray([v[atom.member] for v in choice.values if isinstance(v, tuple)], dtype=np.int64)[column]
        member = np.asarray([isinstance(v, tuple) and atom.member in v for v in choice.values], dtype=np.int64)
        return member[column]


def joint_grid(choices: Mapping[str, Choice], paths: Sequence[str]) -> dict[str, np.ndarray]:
    """Index columns that enumerate the joint values of some choices, one axis each."""
    sizes = [len(choices[p].values) for p in paths]
    return {
        p: np.arange(n).reshape([-1 if k == i else 1 for k in range(len(sizes))])
        for i, (p, n) in enumerate(zip(paths, sizes, strict=True))
    }


def _domain(choices: Mapping[str, Choice], paths: frozenset[str] | Sequence[str]) -> int:
    total = 1
    for p in paths:
        total *= len(choices[p].values)
    return total


@dataclass(frozen=True)
class JointTable:
    """Values over the joint choices `paths`, one axis each."""

    paths: tuple[str, ...]
    values: np.ndarray


@dataclass(frozen=True)
class TabulatedExpr:
    """An expression as a constant, tables, and what was too large to tabulate."""

    constant: float
    tables: tuple[JointTable, ...]
    rest: Expr
    symbols: Mapping[str, int]
    loose: Callable[[], tuple[_Loose, ...]] = tuple

    def evaluate(
        self,
        choices: Mapping[str, Choice],
        columns: Mapping[str, np.ndarray],
        n: int,
        shared: Assignments | None = None,
    ) -> np.ndarray:
        """Values for `n` architectures whose chosen indices are `columns`; float64 [n].

        Args:
            choices: By path.
            columns: Indices by path.
            n: Architectures.
            shared: Their values, where many expressions are evaluated on the same architectures: parts that they have
                in common are evaluated once.
        """
        total = np.full(n, float(self.constant))
        for table in self.tables:
            # One look-up in the flattened table, at the row-major index of the chosen values.
            flat: np.ndarray | int = 0
            for path, size in zip(table.paths, table.values.shape, strict=True):
                flat = flat * size + columns[path]
            total += table.values.reshape(-1)[flat]
        if self.rest.terms:
            total = total + self.rest.evaluate(shared or Assignments.of(choices, columns, n, self.symbols))
        return total

    def expectation(self, weights: Callable[[str], Any], zero: Any) -> Any:
        """The expectation under independent choices, differentiable in their probabilities.

        Exact, but for conditions over too many choices to tabulate; see the module.

        Args:
            weights: For each path, the probabilities of its values: a torch vector, or an array.
            zero: A torch scalar zero, which carries dtype and device; 0.0 with arrays.
        """
        return self._expectation(weights, zero, {})

    def _expectation(self, weights: Callable[[str], Any], zero: Any, known: dict[int, Any]) -> Any:
        total = zero + self.constant
        arrays = not hasattr(zero, "new_tensor")
        for table in self.tables:
            # As matrix times vector, one axis after the other: far faster than over the axes as they are.
            value = table.values if arrays else zero.new_tensor(table.values)
            for path in reversed(table.paths):
                chances = weights(path) if arrays else weights(path).to(value.dtype)
                flat = value.reshape(-1, chances.shape[0])
                value = flat.dot(chances) if arrays else flat @ chances
            value = value.reshape(())
            total = total + value
        for term in self.loose() if self.rest.terms else ():
            part = zero + 1.0
            for factor in term.factors:
                part = part * factor._expectation(weights, zero, known)
            for conditions in term.conditions:
                if id(conditions) not in known:
                    none = zero + 1.0
                    for condition in conditions:
                        none = none * (1.0 - condition._expectation(weights, zero, known))
                    known[id(conditions)] = 1.0 - none
                part = part * known[id(conditions)]
            total = total + part
        return total

    def scope(self) -> frozenset[str]:
        """All choices that it depends on."""
        return frozenset(p for t in self.tables for p in t.paths) | self.rest.paths


@dataclass(frozen=True)
class _Loose:
    """A term over too many choices: factors without a choice in common, and conditions, each the "any" of others."""

    factors: tuple[TabulatedExpr, ...]
    conditions: tuple[tuple[TabulatedExpr, ...], ...]


class _Loosen:
    """Takes the rest of a tabulated expression apart, when it is first asked for; equal conditions once."""

    def __init__(self, rest: Expr, choices: Mapping[str, Choice], symbols: Mapping[str, int]) -> None:
        self.rest, self.choices, self.symbols = rest, choices, symbols
        self.terms: tuple[_Loose, ...] | None = None
        self.known: dict[Op, tuple[TabulatedExpr, ...]] = {}

    def __call__(self) -> tuple[_Loose, ...]:
        if self.terms is None:
            self.terms = tuple(self._term(m, c) for m, c in self.rest.terms.items())
        return self.terms

    def _term(self, monomial: Monomial, coefficient: Number) -> _Loose:
        # Factors without a choice in common are independent: the expectation of their product is that of each,
        # multiplied. Those that share a choice are multiplied out first, and tabulated as one.
        wide = [(a, n) for a, n in monomial if isinstance(a, Op) and a.fn == "any"]
        groups: list[tuple[frozenset[str], Expr]] = [(frozenset(), Expr({(): coefficient}))]
        for item in monomial:
            if item in wide:
                continue
            single = Expr({(item,): 1})
            paths = single.paths
            for other in [g for g in groups if g[0] & paths]:
                groups.remove(other)
                paths, single = paths | other[0], single * other[1]
            groups.append((paths, single))
        factors = tuple(self._tabulate(expr) for _, expr in groups)
        if large := [f for f in factors if f.rest.terms]:
            raise SpaceError(
                f"the expectation of a term over too many choices is not available: {str(large[0].rest)[:200]}"
            )
        return _Loose(factors, tuple(self._conditions(a) for a, _ in wide if isinstance(a, Op)))

    def _conditions(self, any_: Op) -> tuple[TabulatedExpr, ...]:
        if any_ not in self.known:
            self.known[any_] = tuple(self._tabulate(arg) for arg in any_.args)
        return self.known[any_]

    def _tabulate(self, expr: Expr) -> TabulatedExpr:
        tables = tabulate(expr, self.choices, self.symbols)
        if isinstance(tables.loose, _Loosen):
            tables.loose.known = self.known
        return tables


def _check_magnitude(expr: Expr, choices: Mapping[str, Choice], symbols: Mapping[str, int]) -> None:
    """Refuse an expression whose values int64, in which it is evaluated, might not hold."""
    try:
        most = _magnitude(expr, choices, symbols)
    except OverflowError:
        most = math.inf
    if most >= 2.0**62:
        raise SpaceError(f"a size or cost of these choices can be {most:.0e}, too large: {shown(str(expr)[:80])}")


def _magnitude(expr: Expr, choices: Mapping[str, Choice], symbols: Mapping[str, int]) -> float:
    """At least as large as the expression's terms are together, whatever is chosen."""

    def atom(a: Atom) -> float:
        if isinstance(a, Var | MemberParts):
            return choices[a.path].largest
        if isinstance(a, Sym):
            return abs(float(symbols.get(a.name, 1)))
        if isinstance(a, Op) and a.fn in ("floordiv", "mod", "min", "max"):
            return max(_magnitude(arg, choices, symbols) for arg in a.args)
        return 1.0

    total = 0.0
    for monomial, coefficient in expr.terms.items():
        term = abs(float(coefficient))
        for a, power in monomial:
            term *= atom(a) ** power if power != 1 else atom(a)
        total += term
    return total


def tabulate(expr: Expr, choices: Mapping[str, Choice], symbols: Mapping[str, int] | None = None) -> TabulatedExpr:
    """Compile an expression. Free dimensions get their values from `symbols`.

    Raises:
        SpaceError: A free dimension has no value, or the values can be too large for int64.
    """
    symbols = symbols or {}
    _check_magnitude(expr, choices, symbols)
    groups: dict[frozenset[str], dict[Any, Any]] = {}
    for monomial, coefficient in expr.terms.items():
        single = Expr({monomial: coefficient})
        groups.setdefault(single.paths, {})[monomial] = coefficient
    # From the largest group down, each goes into one that has all of its choices: few look-ups, and no larger tables.
    merged: dict[frozenset[str], dict[Any, Any]] = {}
    for paths in sorted(groups, key=len, reverse=True):
        host = next((p for p in merged if paths <= p), None)
        merged.setdefault(host if host is not None else paths, {}).update(groups[paths])
    constant, tables, rest = 0.0, [], as_expr(0)
    order = {p: i for i, p in enumerate(choices)}
    for paths, terms in merged.items():
        part = Expr(terms)
        if not paths:
            constant += float(part.evaluate(Assignments(choices, {}, symbols)))
        elif _domain(choices, paths) > MAX_TABLE:
            rest = rest + part
        else:
            names = tuple(sorted(paths, key=order.__getitem__))
            shape = [len(choices[p].values) for p in names]
            values = part.evaluate(Assignments(choices, joint_grid(choices, names), symbols))
            tables.append(JointTable(names, np.broadcast_to(np.asarray(values, dtype=np.float64), shape).copy()))
    return TabulatedExpr(constant, tuple(tables), rest, dict(symbols), _Loosen(rest, choices, symbols))


def joint_values(expr: Expr, choices: Mapping[str, Choice]) -> np.ndarray | None:
    """The values of an expression over the joint values of its choices, one axis each in order of their paths.

    None where these are too many to list, or a choice of the expression is not among `choices`.
    """
    names = sorted(expr.paths)
    if not expr.paths <= choices.keys() or _domain(choices, names) > MAX_TABLE:
        return None
    _check_magnitude(expr, choices, {})
    return np.asarray(expr.evaluate(Assignments(choices, joint_grid(choices, names), {})))


def upper_bound(expr: Expr, choices: Mapping[str, Choice], rules: Sequence[Expr] = ()) -> int:
    """The largest value of an expression over the joint values of its choices that break no rule about just those.

    Raises:
        SpaceError: It depends on a free dimension, or on more joint values than can be listed, or no value is feasible.
    """
    if expr.constant is not None:
        return int(expr.constant)
    if expr.symbols:
        raise SpaceError(f"{expr} depends on the free dimension {', '.join(expr.symbols)} and has no bound")
    if _domain(choices, expr.paths) > MAX_TABLE * 16:
        raise SpaceError(f"{expr} depends on too many joint values ({_domain(choices, expr.paths):,}) to be bounded")
    _check_magnitude(expr, choices, {})
    names = sorted(expr.paths)
    batch = Assignments(choices, joint_grid(choices, names), {})
    values = np.broadcast_to(np.asarray(expr.evaluate(batch)), [len(choices[p].values) for p in names])
    feasible = np.ones(values.shape, dtype=bool)
    # Rules about other choices as well may allow any of these values, so they bound nothing.
    for rule in rules:
        if rule.paths and rule.paths <= expr.paths:
            feasible = feasible & (np.asarray(rule.evaluate(batch)) != 0)
    if not feasible.any():
        raise SpaceError(f"no value of {expr} meets the rules")
    return int(values[feasible].max())
