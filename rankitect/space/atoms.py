"""What expressions are made of: free dimensions, values of choices, conditions on choices, and functions."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from rankitect.space.expr import Expr

__all__ = ["Atom", "Has", "Is", "Monomial", "Number", "Op", "Sym", "Value", "Var", "is_boolean", "times"]

Number: TypeAlias = int | Fraction
Value: TypeAlias = int | float | bool | str

MAX_KEY = 500
"""Letters of a function's name."""


@dataclass(frozen=True)
class Sym:
    """A free dimension such as batch or tokens, known only when a batch is."""

    name: str

    @cached_property
    def key(self) -> str:
        """What it sorts by and is shown as."""
        return self.name


@dataclass(frozen=True)
class Var:
    """The numeric value of a choice."""

    path: str

    @cached_property
    def key(self) -> str:
        """What it sorts by and is shown as."""
        return self.path


@dataclass(frozen=True)
class Is:
    """1 where the choice has this value, otherwise 0."""

    path: str
    value: Value

    @cached_property
    def key(self) -> str:
        """What it sorts by and is shown as."""
        return f"[{self.path}={self.value}]"


@dataclass(frozen=True)
class Has:
    """1 where a subset choice holds this member, otherwise 0."""

    path: str
    member: int

    @cached_property
    def key(self) -> str:
        """What it sorts by and is shown as."""
        return f"[{self.member} in {self.path}]"


@dataclass(frozen=True)
class Part:
    """How many parts of a simplex choice's total a member has."""

    path: str
    member: int

    @cached_property
    def key(self) -> str:
        """What it sorts by and is shown as."""
        return f"[{self.path}:{self.member}]"


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


Atom: TypeAlias = Sym | Var | Is | Has | Part | Op
Monomial: TypeAlias = tuple[tuple[Atom, int], ...]

_BOOLEAN_OPS = {"eq", "le", "any"}


def is_boolean(atom: Atom) -> bool:
    """Whether it is a condition, 0 or 1."""
    return isinstance(atom, Is | Has) or (isinstance(atom, Op) and atom.fn in _BOOLEAN_OPS)


def times(left: Monomial, right: Monomial) -> tuple[Number, Monomial] | None:
    """The product of two monomials as (coefficient, monomial), or None where it is 0."""
    powers: dict[Atom, int] = dict(left)
    for atom, power in right:
        powers[atom] = 1 if is_boolean(atom) else powers.get(atom, 0) + power
    factor: Number = 1
    chosen = {a.path: a.value for a in powers if isinstance(a, Is)}
    if chosen:
        for atom in list(powers):
            if isinstance(atom, Is) and chosen[atom.path] != atom.value:
                return None  # one choice cannot have two values
            if isinstance(atom, Var) and atom.path in chosen:
                value = chosen[atom.path]
                factor *= int(value) ** powers.pop(atom)
    if factor == 0:
        return None
    return factor, tuple(sorted(powers.items(), key=lambda item: item[0].key))
