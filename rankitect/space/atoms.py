"""The simple atoms of expressions: free dimensions, values of choices, and conditions on choices.

The one other kind of atom, a function of expressions (`Op`), is in `rankitect.space.expr`.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import TypeAlias

__all__ = ["Has", "Is", "MemberParts", "Number", "Sym", "Value", "Var"]

Number: TypeAlias = int | Fraction
Value: TypeAlias = int | float | bool | str


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
class MemberParts:
    """How many parts of a simplex choice's total a member has."""

    path: str
    member: int

    @cached_property
    def key(self) -> str:
        """What it sorts by and is shown as."""
        return f"[{self.path}:{self.member}]"
