"""Symbolic integers over choices: the one language in which shapes, gates, FLOPs and rules are written.

An `Expr` is a polynomial with rational coefficients over *atoms*, kept in normal form at all times, so that equal
expressions are equal objects (`h * 64 == 64 * h`) and equality of two tensor types is a dictionary comparison. Truth is
the number 1 and falsehood 0: `a & b` is a product, `~a` is `1 - a`; a gate is therefore an ordinary expression, and a
gated cost an ordinary product.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, Protocol, TypeAlias
from weakref import WeakValueDictionary

import numpy as np

from rankitect.errors import SpaceError
from rankitect.space.atoms import Has, Is, MemberParts, Number, Sym, Var
from rankitect.space.functions import applied
from rankitect.space.names import shown
from rankitect.space.products import Products
from rankitect.space.whole import check_whole

__all__ = [
    "MAX_POWER",
    "Atom",
    "Env",
    "Expr",
    "ExprLike",
    "Monomial",
    "Op",
    "all_of",
    "any_of",
    "as_expr",
    "minimum",
    "sym",
]

MAX_EXPANDED_TERMS = 32
"""A disjunction with more terms than this stays an opaque atom: expanding it further costs exponential space."""

MAX_PRODUCT = 1 << 17
"""Terms that a product of two sums may have before equal ones are put together."""

MAX_POWER = 64
"""The highest power of an atom that an author or a file may write."""

MANY_TERMS = 8
"""Terms from which on an expression is evaluated as arrays."""


class Env(Protocol):
    """Where atoms get their values: one architecture, many at once (arrays), or probabilities."""

    known: dict[Atom, Any]
    """Values that have been found; an empty dictionary at first."""

    def value(self, atom: Atom) -> Any:
        """The value of an atom that is no function: a number or an array."""


MAX_KEY = 500
"""Letters of a function's name."""


@dataclass(frozen=True)
class Op:
    """A function of expressions that is no polynomial: floordiv, mod, min, max, eq, le, any."""

    fn: str
    args: tuple[Expr, ...]

    @classmethod
    def of(cls, fn: str, args: tuple[Expr, ...]) -> Op:
        """The one object of this function: equal ones are found equal without a walk through all that is in them."""
        return _KNOWN.setdefault((fn, args), cls(fn, args))

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """Made once: functions of functions would be walked through at every look into a table."""
        return hash((self.fn, self.args))

    @cached_property
    def key(self) -> str:
        """What it sorts by and is shown as."""
        infix = {"floordiv": "//", "mod": "%", "eq": "==", "le": "<="}
        if self.fn in infix:
            left, right = (f"({a})" if len(a.terms) > 1 else str(a) for a in self.args)
            return _short(f"({left} {infix[self.fn]} {right})")
        return _short(f"{self.fn}({', '.join(map(str, self.args))})")


_KNOWN: WeakValueDictionary[tuple[str, tuple[Expr, ...]], Op] = WeakValueDictionary()


def _short(text: str) -> str:
    """The text, or its start and a digest where it is long: functions of functions would grow without bound."""
    return text if len(text) <= MAX_KEY else f"{text[:40]}...#{hashlib.sha256(text.encode()).hexdigest()[:16]})"


Atom: TypeAlias = Sym | Var | Is | Has | MemberParts | Op
Monomial: TypeAlias = tuple[tuple[Atom, int], ...]

_BOOLEAN_OPS = {"eq", "le", "any"}


def is_boolean(atom: Atom) -> bool:
    """Whether it is a condition, 0 or 1."""
    return isinstance(atom, Is | Has) or (isinstance(atom, Op) and atom.fn in _BOOLEAN_OPS)


def times(left: Monomial, right: Monomial) -> tuple[Number, Monomial] | None:
    """The product of two monomials as (coefficient, monomial), or None where it is 0."""
    powers: dict[Atom, int] = dict(left)
    for atom, power in right:
        powers[atom] = 1 if is_boolean(atom) else powers.get(atom, 0) + power  # 0 and 1 are their own squares
    factor: Number = 1
    chosen = {a.path: a.value for a in powers if isinstance(a, Is)}
    if chosen:
        for atom in list(powers):
            if isinstance(atom, Is) and chosen[atom.path] != atom.value:
                return None  # one choice cannot have two values
            if isinstance(atom, Var) and atom.path in chosen:  # under this condition the choice is a known number
                value = chosen[atom.path]
                factor *= int(value) ** powers.pop(atom)
    if factor == 0:
        return None
    return factor, tuple(sorted(powers.items(), key=lambda item: item[0].key))


class Expr:
    """A polynomial over atoms in normal form. Immutable; equality is structural."""

    __slots__ = ("__dict__", "terms")

    def __init__(self, terms: Mapping[Monomial, Number]) -> None:
        self.terms: dict[Monomial, Number] = {m: c for m, c in terms.items() if c != 0}

    @cached_property
    def _frozen(self) -> frozenset[tuple[Monomial, Number]]:
        return frozenset(self.terms.items())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, int):
            return self.constant == other
        return isinstance(other, Expr) and self.terms == other.terms

    def __hash__(self) -> int:
        return hash(self._frozen)

    @cached_property
    def constant(self) -> Number | None:
        """The value, if it depends on nothing; otherwise None."""
        if not self.terms:
            return 0
        return self.terms.get(()) if len(self.terms) == 1 else None

    @cached_property
    def _products(self) -> Products[Atom]:
        return Products(self.terms)

    @cached_property
    def atoms(self) -> frozenset[Atom]:
        """Every atom in it, those inside functions included."""
        atoms: set[Atom] = set()
        for monomial in self.terms:
            for atom, _ in monomial:
                atoms.add(atom)
                if isinstance(atom, Op):
                    for arg in atom.args:
                        atoms |= arg.atoms
        return frozenset(atoms)

    @cached_property
    def paths(self) -> frozenset[str]:
        """The choices it depends on."""
        return frozenset(a.path for a in self.atoms if isinstance(a, Var | Is | Has | MemberParts))

    @cached_property
    def symbols(self) -> frozenset[str]:
        """The free dimensions it depends on."""
        return frozenset(a.name for a in self.atoms if isinstance(a, Sym))

    def __str__(self) -> str:
        if not self.terms:
            return "0"
        parts = []
        for monomial, coefficient in sorted(self.terms.items(), key=lambda t: (-len(t[0]), [a.key for a, _ in t[0]])):
            factors = [a.key if n == 1 else f"{a.key}**{n}" for a, n in monomial]
            if coefficient != 1 or not factors:
                factors.insert(0, str(coefficient))
            parts.append("*".join(factors))
        return " + ".join(parts).replace("+ -1*", "- ").replace("+ -", "- ")

    __repr__ = __str__

    def as_number(self) -> Expr:
        """This, usable in arithmetic (a choice that is no number refuses)."""
        return self

    def conditional_terms(self) -> list[tuple[Expr, Expr]]:
        """Its terms, each split into what is summed and the product of conditions (0 or 1) under which it is."""
        split = []
        for monomial, coefficient in self.terms.items():
            gate = tuple(factor for factor in monomial if is_boolean(factor[0]))
            rest = tuple(factor for factor in monomial if not is_boolean(factor[0]))
            split.append((Expr({rest: coefficient}), Expr({gate: 1})))
        return split

    # --- arithmetic -------------------------------------------------------------------------------------------------
    def __add__(self, other: ExprLike) -> Expr:
        other = as_expr(other)
        terms = dict(self.terms)
        for monomial, coefficient in other.terms.items():
            terms[monomial] = terms.get(monomial, 0) + coefficient
        return Expr(terms)

    def __mul__(self, other: ExprLike) -> Expr:
        other = as_expr(other)
        if len(self.terms) * len(other.terms) > MAX_PRODUCT:
            raise SpaceError(f"a product of {len(self.terms):,} and {len(other.terms):,} terms is too large")
        terms: dict[Monomial, Number] = {}
        for m1, c1 in self.terms.items():
            for m2, c2 in other.terms.items():
                product = times(m1, m2)
                if product is not None:
                    factor, monomial = product
                    terms[monomial] = terms.get(monomial, 0) + c1 * c2 * factor
        return Expr(terms)

    __radd__ = __add__
    __rmul__ = __mul__

    def __neg__(self) -> Expr:
        return Expr({m: -c for m, c in self.as_number().terms.items()})

    def __sub__(self, other: ExprLike) -> Expr:
        return self + (-as_expr(other))

    def __rsub__(self, other: ExprLike) -> Expr:
        return as_expr(other) - self

    def __pow__(self, power: int) -> Expr:
        check_whole("a power", power, 0, MAX_POWER)
        result = as_expr(1)
        for _ in range(power):
            result = result * self
        return result

    def __floordiv__(self, other: ExprLike) -> Expr:
        self, other = self.as_number(), as_expr(other)
        divisor = other.constant
        if divisor == 0:
            raise SpaceError(f"{self} // 0: a dimension cannot be divided by zero")
        if divisor is not None and all(Fraction(c, divisor).denominator == 1 for c in self.terms.values()):
            return Expr({m: int(Fraction(c, divisor)) for m, c in self.terms.items()})
        if len(other.terms) == 1:  # (a*b) // b is a, as all dimensions are at least 1
            exact = self._divided(other)
            if exact is not None:
                return exact
        return _op("floordiv", self, other)

    def _divided(self, other: Expr) -> Expr | None:
        """The quotient by an expression of one term; None where a term is no multiple of it."""
        ((divisor, scale),) = other.terms.items()
        terms: dict[Monomial, Number] = {}
        for monomial, coefficient in self.terms.items():
            powers = dict(monomial)
            for atom, power in divisor:
                if powers.get(atom, 0) < power:
                    return None
                powers[atom] -= power
            quotient = Fraction(coefficient, scale)
            if quotient.denominator != 1:
                return None
            terms[tuple((a, n) for a, n in powers.items() if n)] = int(quotient)
        return Expr(terms)

    def __rfloordiv__(self, other: ExprLike) -> Expr:
        return as_expr(other) // self

    def __mod__(self, other: ExprLike) -> Expr:
        return _op("mod", self, as_expr(other))

    # --- truth: 1 and 0 ---------------------------------------------------------------------------------------------
    def eq(self, other: ExprLike) -> Expr:
        """1 where both are equal (`==` compares the expressions themselves)."""
        return _op("eq", self, as_expr(other))

    def le(self, other: ExprLike) -> Expr:
        """1 where this is at most `other`."""
        return _op("le", self, as_expr(other))

    def ge(self, other: ExprLike) -> Expr:
        """1 where this is at least `other`."""
        return _op("le", as_expr(other), self)

    def __and__(self, other: ExprLike) -> Expr:
        return self * other

    def __or__(self, other: ExprLike) -> Expr:
        return any_of([self, as_expr(other)])

    def __invert__(self) -> Expr:
        return 1 - self

    # --- value ------------------------------------------------------------------------------------------------------
    def evaluate(self, env: Env) -> Any:
        """Its value where atoms have the values that `env` gives: a number, or an array if they are arrays."""
        if len(self.terms) >= MANY_TERMS:
            total_at_once = self._products.evaluate([self._atom(atom, env) for atom in self._products.atoms])
            if total_at_once is not None:
                return total_at_once
        total: Any = 0
        for monomial, coefficient in self.terms.items():
            term: Any = int(coefficient) if coefficient == int(coefficient) else float(coefficient)
            for atom, power in monomial:
                value = self._atom(atom, env)
                term = term * (value if power == 1 else value**power)
            total = total + term
        return total

    @staticmethod
    def _atom(atom: Atom, env: Env) -> Any:
        if not isinstance(atom, Op):
            return env.value(atom)
        if atom not in env.known:  # functions of functions: each once, not once for each way to it
            env.known[atom] = applied(atom.fn, [arg.evaluate(env) for arg in atom.args])
        return env.known[atom]


ExprLike: TypeAlias = "Expr | int"


def _op(fn: str, *args: Expr) -> Expr:
    args = tuple(as_expr(a) for a in args)
    constants = [a.constant for a in args]
    if None not in constants:
        return as_expr(applied(fn, [int(c) for c in constants if c is not None]))
    if fn == "eq" and args[0] == args[1]:
        return as_expr(1)
    return Expr({((Op.of(fn, args), 1),): 1})


def as_expr(value: ExprLike | Fraction | np.integer[Any]) -> Expr:
    """An expression from a whole number or an expression.

    Raises:
        SpaceError: `value` is neither.
    """
    if isinstance(value, Expr):
        return value.as_number()
    if isinstance(value, bool | int | Fraction | np.integer):
        return Expr({(): value if isinstance(value, Fraction) else int(value)})
    raise SpaceError(f"{shown(value)} is not a whole number, a choice or an expression of them")


def minimum(left: ExprLike, right: ExprLike) -> Expr:
    """The smaller of two expressions."""
    return _op("min", as_expr(left), as_expr(right))


def sym(name: str) -> Expr:
    """A free dimension, for example `B = sym("B")`."""
    return Expr({((Sym(name), 1),): 1})


def all_of(conditions: Iterable[Expr]) -> Expr:
    """1 where all conditions hold."""
    result = as_expr(1)
    for condition in conditions:
        result = result * condition
    return result


def any_of(conditions: Iterable[Expr]) -> Expr:
    """1 where at least one of the conditions (each 0 or 1) holds."""
    unique = [c for c in dict.fromkeys(conditions) if c != 0]
    if any(c == 1 for c in unique):
        return as_expr(1)
    # Inclusion and exclusion, one condition at a time: a or b is a + b - ab. Terms may double with each condition.
    result = as_expr(0)
    for condition in unique:
        result = result + condition - result * condition
        if len(result.terms) > MAX_EXPANDED_TERMS:
            return Expr({((Op.of("any", tuple(unique)), 1),): 1})
    return result
