"""Symbolic integers over choices: the one language in which shapes, gates, FLOPs and rules are written.

An `Expr` is a polynomial with rational coefficients over *atoms*, kept in normal form at all times, so that equal
expressions are equal objects (`h * 64 == 64 * h`) and equality of two tensor types is a dictionary comparison. Truth is
the number 1 and falsehood 0: `a & b` is a product, `~a` is `1 - a`; a gate is therefore an ordinary expression, and a
gated cost an ordinary product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from functools import cached_property
from typing import Any, Protocol, TypeAlias

import numpy as np

from rankitect.errors import SpaceError
from rankitect.space.atoms import Atom, Has, Is, Monomial, Number, Op, Part, Sym, Var, is_boolean, times
from rankitect.space.products import Products

__all__ = [
    "Atom",
    "Env",
    "Expr",
    "ExprLike",
    "Has",
    "Is",
    "Op",
    "Part",
    "Sym",
    "Var",
    "all_of",
    "any_of",
    "as_expr",
    "minimum",
    "sym",
]

MAX_EXPANDED_TERMS = 32
"""A disjunction with more terms than this stays an opaque atom: expanding it further costs exponential space."""

MANY_TERMS = 8
"""Terms from which on an expression is evaluated as arrays."""


class Env(Protocol):
    """Where atoms get their values: one architecture, many at once (arrays), or probabilities."""

    known: dict[Atom, Any]
    """Values that have been found; an empty dictionary at first."""

    def value(self, atom: Atom) -> Any:
        """The value of an atom that is no function: a number or an array."""


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "floordiv": lambda a, b: np.where(b == 0, 0, a // np.where(b == 0, 1, b)),  # by a choice of 0: nothing
    "mod": lambda a, b: np.where(b == 0, 0, a % np.where(b == 0, 1, b)),
    "min": np.minimum,
    "max": np.maximum,
    "eq": lambda a, b: (a == b) * 1,
    "le": lambda a, b: (a <= b) * 1,
    "any": lambda *args: np.any(np.stack(np.broadcast_arrays(*args)) != 0, axis=0) * 1,
}
_PLAIN: dict[str, Callable[..., int]] = {
    "floordiv": lambda a, b: a // b if b else 0,
    "mod": lambda a, b: a % b if b else 0,
    "min": min,
    "max": max,
    "eq": lambda a, b: int(a == b),
    "le": lambda a, b: int(a <= b),
    "any": lambda *args: int(any(args)),
}
"""The same for plain numbers, of one architecture: many times as fast as on arrays without axes."""


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
    def _products(self) -> Products:
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
        return frozenset(a.path for a in self.atoms if isinstance(a, Var | Is | Has | Part))

    @cached_property
    def symbols(self) -> frozenset[str]:
        """The free dimensions it depends on."""
        return frozenset(a.name for a in self.atoms if isinstance(a, Sym))

    def __str__(self) -> str:
        if not self.terms:
            return "0"
        shown = []
        for monomial, coefficient in sorted(self.terms.items(), key=lambda t: (-len(t[0]), [a.key for a, _ in t[0]])):
            factors = [a.key if n == 1 else f"{a.key}**{n}" for a, n in monomial]
            if coefficient != 1 or not factors:
                factors.insert(0, str(coefficient))
            shown.append("*".join(factors))
        return " + ".join(shown).replace("+ -1*", "- ").replace("+ -", "- ")

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
            args = [arg.evaluate(env) for arg in atom.args]
            plain = all(isinstance(arg, int) for arg in args)
            result = (_PLAIN if plain else _FUNCTIONS)[atom.fn](*args)
            env.known[atom] = (
                result.item() if isinstance(result, np.generic | np.ndarray) and result.ndim == 0 else result
            )
        return env.known[atom]

    # --- data -------------------------------------------------------------------------------------------------------
    def to_data(self) -> Any:
        """Plain JSON data: a number, or a list of [coefficient, [[atom, power], ...]]."""
        if self.constant is not None:
            c = self.constant
            return c if isinstance(c, int) else str(c)
        terms = sorted(self.terms.items(), key=lambda t: [a.key for a, _ in t[0]])
        return [[c if isinstance(c, int) else str(c), [[_atom_data(a), n] for a, n in m]] for m, c in terms]

    @staticmethod
    def from_data(data: Any) -> Expr:
        """The inverse of `to_data`."""
        if not isinstance(data, list):
            return as_expr(_number(data))
        return Expr(
            {tuple(sorted(((_atom_from(a), n) for a, n in m), key=lambda i: i[0].key)): _number(c) for c, m in data}
        )


ExprLike: TypeAlias = "Expr | int"


def _number(data: int | str) -> Number:
    return data if isinstance(data, int) else Fraction(data)


def _atom_data(atom: Atom) -> list[Any]:
    if isinstance(atom, Sym):
        return ["sym", atom.name]
    if isinstance(atom, Var):
        return ["var", atom.path]
    if isinstance(atom, Is):
        return ["is", atom.path, atom.value]
    if isinstance(atom, Has):
        return ["has", atom.path, atom.member]
    if isinstance(atom, Part):
        return ["part", atom.path, atom.member]
    return ["op", atom.fn, *(a.to_data() for a in atom.args)]


def _atom_from(data: Sequence[Any]) -> Atom:
    kind, *rest = data
    if kind == "op":
        if rest[0] not in _FUNCTIONS:
            raise SpaceError(f"unknown function {rest[0]!r} in a stored expression; known: {sorted(_FUNCTIONS)}")
        return Op.of(rest[0], tuple(Expr.from_data(a) for a in rest[1:]))
    kinds: dict[str, Callable[..., Atom]] = {"sym": Sym, "var": Var, "is": Is, "has": Has, "part": Part}
    if kind not in kinds:
        raise SpaceError(f"unknown atom {kind!r} in a stored expression; known: {sorted(kinds)} and 'op'")
    return kinds[kind](*rest)


def _op(fn: str, *args: Expr) -> Expr:
    args = tuple(as_expr(a) for a in args)
    constants = [a.constant for a in args]
    if None not in constants:
        return as_expr(int(_FUNCTIONS[fn](*(int(c) for c in constants if c is not None))))
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
    raise SpaceError(f"{value!r} is not a whole number, a choice or an expression of them")


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
    result = as_expr(0)
    for condition in unique:
        result = result + condition - result * condition
        if len(result.terms) > MAX_EXPANDED_TERMS:
            return Expr({((Op.of("any", tuple(unique)), 1),): 1})
    return result
