"""Expressions as plain JSON data and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from rankitect.errors import SpaceError
from rankitect.space.atoms import Has, Is, Number, Part, Sym, Var
from rankitect.space.expr import Atom, Expr, Op, as_expr
from rankitect.space.functions import check_function

__all__ = ["data_of", "expr_of"]

_KINDS: dict[str, Callable[..., Atom]] = {"sym": Sym, "var": Var, "is": Is, "has": Has, "part": Part}


def data_of(expr: Expr) -> Any:
    """A number (a fraction as text), or a list of [coefficient, [[atom, power], ...]]."""
    expr = expr.as_number()
    if expr.constant is not None:
        return _number_data(expr.constant)
    # In order of what is shown: the same expression is the same text, in whatever order it was built.
    terms = sorted(expr.terms.items(), key=lambda t: [a.key for a, _ in t[0]])
    return [[_number_data(c), [[_atom_data(a), n] for a, n in m]] for m, c in terms]


def expr_of(data: Any) -> Expr:
    """The inverse of `data_of`.

    Raises:
        SpaceError: An atom or function is unknown.
    """
    if not isinstance(data, list):
        return as_expr(_number_of(data))
    terms = {}
    for coefficient, factors in data:
        monomial = sorted(((_atom_of(atom), power) for atom, power in factors), key=lambda factor: factor[0].key)
        terms[tuple(monomial)] = _number_of(coefficient)
    return Expr(terms)


def _number_data(number: Number) -> int | str:
    return number if isinstance(number, int) else str(number)


def _number_of(data: int | str) -> Number:
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
    return ["op", atom.fn, *(data_of(arg) for arg in atom.args)]


def _atom_of(data: Sequence[Any]) -> Atom:
    kind, *rest = data
    if kind == "op":
        function, *args = rest
        check_function(function)
        return Op.of(function, tuple(expr_of(arg) for arg in args))
    if kind not in _KINDS:
        raise SpaceError(f"unknown atom {kind!r} in a stored expression; known: {sorted(_KINDS)} and 'op'")
    # JSON has no tuples, and the value of a simplex is one.
    return _KINDS[kind](*(tuple(item) if isinstance(item, list) else item for item in rest))
