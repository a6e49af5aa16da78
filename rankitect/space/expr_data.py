"""Expressions as plain JSON data and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from rankitect.errors import SpaceError
from rankitect.space.atoms import Has, Is, MemberParts, Number, Sym, Var
from rankitect.space.choices import Choice
from rankitect.space.expr import MAX_POWER, Atom, Expr, Monomial, Op, is_boolean
from rankitect.space.functions import check_function
from rankitect.space.names import check_name, shown
from rankitect.space.simplex import Simplex
from rankitect.space.whole import check_whole

__all__ = ["data_of", "expr_of"]

MAX_DEPTH, MAX_FACTORS = 24, 1 << 15
"""Functions within functions, and factors, of a stored expression; the spaces here have 3 and some hundreds."""

MAX_COEFFICIENT = 1 << 62
MAX_DIGITS = 42
_FRACTION = re.compile(r"(-?[0-9]+)(?:/([0-9]+))?", re.ASCII)


def data_of(expr: Expr) -> Any:
    """A number (a fraction as text), or a list of [coefficient, [[atom, power], ...]]."""
    expr = expr.as_number()
    if expr.constant is not None:
        return _number_data(expr.constant)
    # In order of what is shown: the same expression is the same text, in whatever order it was built.
    terms = sorted(expr.terms.items(), key=lambda t: [a.key for a, _ in t[0]])
    return [[_number_data(c), [[_atom_data(a), n] for a, n in m]] for m, c in terms]


def expr_of(data: Any, choices: Mapping[str, Choice]) -> Expr:
    """The inverse of `data_of`.

    Args:
        data: From a file, so that anything may be in it.
        choices: Those that the expression may depend on, by path.

    Raises:
        SpaceError: It is no expression over these choices, or one so large or deep that nobody has written it.
    """
    return _Reader(choices).expression(data, 0)


class _Reader:
    """Reads one expression, and counts what it reads."""

    def __init__(self, choices: Mapping[str, Choice]) -> None:
        self._choices = choices
        self._factors = 0

    def expression(self, data: Any, depth: int) -> Expr:
        """A number or a sum of products."""
        if not isinstance(data, list):
            return Expr({(): _number_of(data)})
        if depth > MAX_DEPTH:
            raise SpaceError(f"a stored expression is nested more than {MAX_DEPTH} deep")
        terms: dict[Monomial, Number] = {}
        for coefficient, factors in (_several(term, 2, "a term") for term in data):
            monomial = self._monomial(factors, depth)
            terms_before, terms[monomial] = len(terms), _number_of(coefficient)
            if len(terms) == terms_before or not terms[monomial]:
                raise SpaceError(f"a stored expression has a term twice, or with the coefficient 0: {shown(factors)}")
        expr = Expr(terms)
        if expr.constant is not None:
            raise SpaceError(f"a stored expression writes a number as a sum: {shown(data)}")
        return expr

    def _monomial(self, data: Any, depth: int) -> Monomial:
        if not isinstance(data, list):
            raise SpaceError(f"a stored expression has {shown(data)} in the place of factors")
        self._factors += len(data) + 1
        if self._factors > MAX_FACTORS:
            raise SpaceError(f"a stored expression has more than {MAX_FACTORS:,} factors")
        powers: dict[Atom, int] = {}
        for atom_data, power in (_several(factor, 2, "a factor") for factor in data):
            atom = self._atom(atom_data, depth)
            check_whole("a power in a stored expression", power, 1, 1 if is_boolean(atom) else MAX_POWER)
            if atom in powers:
                raise SpaceError(f"a stored expression has a factor twice: {shown(atom.key)}")
            powers[atom] = power
        return tuple(sorted(powers.items(), key=lambda factor: factor[0].key))

    def _atom(self, data: Any, depth: int) -> Atom:
        if not isinstance(data, list) or not data:
            raise SpaceError(f"a stored expression has {shown(data)} in the place of an atom")
        kind, *rest = data
        if kind == "op":
            function, *args = rest or [None]
            check_function(function, len(args))
            return Op.of(function, tuple(self.expression(arg, depth + 1) for arg in args))
        if kind == "sym":
            (name,) = _several(rest, 1, "a free dimension")
            check_name("a free dimension", name)
            return Sym(name)
        return self._of_choice(kind, rest)

    def _of_choice(self, kind: Any, rest: list[Any]) -> Atom:
        path, *value = rest or [None]
        if not isinstance(path, str) or path not in self._choices:
            raise SpaceError(f"a stored expression depends on the choice {shown(path)}, which is not declared")
        choice = self._choices[path]
        if kind == "var" and not value:
            choice.as_number()
            return Var(path)
        (asked,) = _several(value, 1, f"a condition on choice {path!r}")
        if kind == "is":
            value_asked = choice.values[choice.position(asked)]  # JSON has no tuples, and the value of a simplex is one
            choice.is_(value_asked)
            return Is(path, value_asked)  # type: ignore[arg-type]
        check_whole(f"a member of choice {path!r}", asked, 0)
        if kind == "has":
            choice.has(asked)
            return Has(path, asked)
        if kind == "part" and isinstance(choice, Simplex):
            choice.part(asked)
            return MemberParts(path, asked)
        raise SpaceError(
            f"unknown atom {shown(kind)} on choice {path!r} ({choice.kind}) in a stored expression; known: has, is, "
            "op, part, sym, var"
        )


def _several(data: Any, count: int, what: str) -> list[Any]:
    """A list of so many things."""
    if not isinstance(data, list) or len(data) != count:
        raise SpaceError(f"{what} in a stored expression must be a list of {count}, not {shown(data)}")
    return data


def _number_data(number: Number) -> int | str:
    return number if isinstance(number, int) else str(number)


def _number_of(data: Any) -> Number:
    """A whole number, or a fraction as text: never a decimal, whose exponent could make it as long as a book."""
    if isinstance(data, int) and not isinstance(data, bool) and abs(data) <= MAX_COEFFICIENT:
        return data
    parts = _FRACTION.fullmatch(data) if isinstance(data, str) and len(data) <= MAX_DIGITS else None
    if parts is None or not int(parts[2] or 1):
        raise SpaceError(
            f"a number in a stored expression must be a whole number up to 2**{MAX_COEFFICIENT.bit_length() - 1} or a "
            f"fraction such as '1/2', not {shown(data)}"
        )
    return Fraction(int(parts[1]), int(parts[2] or 1))


def _atom_data(atom: Atom) -> list[Any]:
    if isinstance(atom, Sym):
        return ["sym", atom.name]
    if isinstance(atom, Var):
        return ["var", atom.path]
    if isinstance(atom, Is):
        return ["is", atom.path, atom.value]
    if isinstance(atom, Has):
        return ["has", atom.path, atom.member]
    if isinstance(atom, MemberParts):
        return ["part", atom.path, atom.member]
    return ["op", atom.fn, *(data_of(arg) for arg in atom.args)]
