"""Choices: named sets of values, each an expression that can stand where a number can."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from itertools import combinations
from typing import Any, TypeAlias

import numpy as np

from rankitect.errors import SpaceError
from rankitect.space.atoms import Has, Is, Value, Var
from rankitect.space.expr import Expr, ExprLike, Monomial, as_expr
from rankitect.space.names import check_name, shown
from rankitect.space.values import HOLDS, MAX_VALUES, Kind, check_value, kind_of, largest, listed_values
from rankitect.space.whole import check_whole

__all__ = ["Choice", "ChoiceValue", "Kind"]

ChoiceValue: TypeAlias = Value | tuple[int, ...]

_NO_NUMBER: dict[str, str] = {
    "real": "no whole number: it can decide a setting, but no size; compare it with `le(value)` or `ge(value)`",
    "simplex": "no number: ask `part(member)`",
}


class Choice(Expr):
    """A named set of values, of which an architecture has one.

    Whole numbers make an ordinal choice, which can be used in arithmetic and as a size; strings and booleans a
    categorical one, which can be asked with `is_`; a subset choice (made by `subset` and `pick`) has tuples of member
    indices as its values and can be asked with `has`. For real numbers and mixtures see `Real` and `Simplex`.

    Args:
        path: The name, unique in a space: the scope and the given name, joined with dots.
        values: What may be chosen, in order. The first value is the one that a choice without effect counts as.
        kind: Derived from the values where not given.

    Raises:
        SpaceError: There is no value, a value appears twice or is no number, string or boolean (or not finite, or too
            large), values of different kinds are mixed, or the values are not of the given kind.
    """

    def __init__(self, path: str, values: Sequence[ChoiceValue], kind: Kind | None = None) -> None:
        check_name("a choice", path)
        self.path = path
        self.values: tuple[ChoiceValue, ...] = listed_values(path, values)
        if not self.values:
            raise SpaceError(f"choice {path!r} has no values to choose from")
        for value in self.values:
            check_value(path, value)
        if len(set(self.values)) != len(self.values):
            raise SpaceError(f"choice {path!r} lists a value twice: {shown(list(self.values))}")
        own = kind_of(path, self.values)
        if kind is not None and kind not in HOLDS[own]:
            raise SpaceError(f"choice {path!r} cannot be of kind {shown(kind)} with the values {shown(self.values)}")
        self.kind: Kind = kind or own
        if self.kind == "subset" and any(tuple(sorted(set(v))) != v for v in self.values if isinstance(v, tuple)):
            raise SpaceError(f"choice {path!r}: a subset lists its members once and in order: {shown(self.values)}")
        terms: dict[Monomial, Any] = {((Var(path), 1),): 1}
        if len(self.values) == 1 and self.kind == "ordinal":
            terms = {(): self.values[0]}
        super().__init__(terms)

    @classmethod
    def subset(cls, path: str, members: int, least: int = 1, most: int | None = None) -> Choice:
        """A choice of `least` to `most` of `members` things, its values in order of size.

        Raises:
            SpaceError: The bounds are impossible, or there are more than 4,096 subsets.
        """
        check_whole(f"choice {path!r}: the number of members", members, 1, MAX_VALUES)
        check_whole(f"choice {path!r}: `least`", least, 0)
        if most is not None:
            check_whole(f"choice {path!r}: `most`", most, 0)
        most = members if most is None else min(most, members)  # a pool that grows starts small
        if not least <= most:
            raise SpaceError(f"choice {path!r}: cannot pick {least} to {most} of {members}")
        count = sum(math.comb(members, k) for k in range(least, most + 1))
        if count > MAX_VALUES:
            many = f"{count:,}" if count < 10**12 else f"over {10**12:,}"
            raise SpaceError(
                f"choice {path!r} would have {many} subsets of {members}, more than {MAX_VALUES:,}: give `most`"
            )
        sizes = range(least, most + 1)
        return cls(path, [c for k in sizes for c in combinations(range(members), k)], kind="subset")

    @cached_property
    def index(self) -> dict[ChoiceValue, int]:
        """The position of each value."""
        return {v: i for i, v in enumerate(self.values)}

    def position(self, value: Any) -> int:
        """The position of a value among the allowed ones (JSON lists count as tuples).

        Raises:
            SpaceError: The value is not allowed.
        """
        value = tuple(value) if isinstance(value, list) else value
        value = value.item() if isinstance(value, np.generic) else value
        try:
            position = self.index.get(value)
        except TypeError:  # not hashable, so none of the values
            position = None
        if position is not None and isinstance(value, bool) != isinstance(self.values[position], bool):
            position = None
        if position is None:
            raise SpaceError(f"choice {self.path!r} cannot be {shown(value)}; allowed: {self.allowed}")
        return position

    @property
    def allowed(self) -> str:
        """The values, for a message."""
        first = ", ".join(shown(value, 40) for value in self.values[:12])
        return f"{first}, '...'" if len(self.values) > 12 else first

    def positions(self, values: Sequence[ChoiceValue | None]) -> np.ndarray:
        """The positions of many values, int64; 0 for None (a choice without effect).

        Raises:
            SpaceError: A value is not allowed.
        """
        places = dict[object, int](self.index.items()) | {None: 0}
        try:
            return np.fromiter([places[v] for v in values], np.int64, len(values))
        except (KeyError, TypeError):  # not allowed, or in another spelling: `position` says which
            return np.asarray([0 if v is None else self.position(v) for v in values], dtype=np.int64)

    def is_(self, value: ChoiceValue) -> Expr:
        """1 where this choice has `value`, otherwise 0.

        The last value is written as what remains of the others, so that all indicators together are exactly 1.
        """
        position = self.position(value)
        if self.kind == "subset":
            raise SpaceError(f"choice {self.path!r} is a subset: ask `has(member)`, not `is_`")
        if position < len(self.values) - 1:
            return Expr({((Is(self.path, value), 1),): 1})  # type: ignore[arg-type]
        return as_expr(1) - sum((self.is_(v) for v in self.values[:-1]), start=as_expr(0))

    def has(self, member: int) -> Expr:
        """1 where this subset holds `member`, otherwise 0.

        Raises:
            SpaceError: The choice is no subset, or no subset holds it.
        """
        if self.kind != "subset":
            raise SpaceError(f"choice {self.path!r} is not a subset: ask `is_(value)`")
        if not any(member in v for v in self.values if isinstance(v, tuple)):
            raise SpaceError(f"choice {self.path!r}: none of its subsets holds {shown(member)}")
        always = all(member in v for v in self.values if isinstance(v, tuple))
        return as_expr(1) if always else Expr({((Has(self.path, member), 1),): 1})

    @property
    def numeric(self) -> bool:
        """Whether it may be used in arithmetic."""
        return self.kind == "ordinal"

    @property
    def ordered(self) -> bool:
        """Whether its values are numbers, of which some are nearer to each other than others."""
        return self.kind in ("ordinal", "real")

    @cached_property
    def largest(self) -> float:
        """The largest magnitude of its numbers, or of the parts of a mixture."""
        return largest(self.values)

    @cached_property
    def scaled(self) -> tuple[float, ...]:
        """Where each value of an ordered choice lies between the least (0) and the largest (1)."""
        numbers = [float(v) for v in self.values]  # type: ignore[arg-type]
        low, high = min(numbers), max(numbers)
        return tuple((number - low) / max(high - low, 1.0) for number in numbers)

    @property
    def nearness(self) -> np.ndarray | None:
        """How alike two values are in what they do, [values, values], 1 on the diagonal; None where no two are alike.

        How alike whole numbers are (widths, numbers of heads), the costs and the features of a graph tell.
        """
        return None

    def neighbours(self, value: ChoiceValue) -> list[ChoiceValue]:
        """The values that one change of this choice leads to from `value`: all others."""
        return [other for other in self.values if other != value]

    def changed(self, value: ChoiceValue, rng: np.random.Generator) -> ChoiceValue:
        """One of the neighbours of `value`, each with equal chance."""
        others = self.neighbours(value)
        return others[rng.integers(len(others))]

    def setting(self, value: ChoiceValue) -> Any:
        """A value as the setting that it decides holds it."""
        return list(value) if isinstance(value, tuple) else value

    def as_number(self) -> Expr:
        """The choice as a dimension.

        Raises:
            SpaceError: Its values are no numbers.
        """
        if not self.numeric:
            raise SpaceError(
                f"choice {self.path!r} is {self.kind} ({', '.join(shown(v, 30) for v in self.values[:6])}) and is "
                + _NO_NUMBER.get(self.kind, "no number: ask `is_(value)` or `has(member)`")
            )
        return Expr(self.terms)

    def __mul__(self, other: ExprLike) -> Expr:
        return self.as_number() * other

    def __add__(self, other: ExprLike) -> Expr:
        return self.as_number() + other

    __rmul__ = __mul__
    __radd__ = __add__
    __eq__ = Expr.__eq__
    __hash__ = Expr.__hash__

    def declaration(self) -> dict[str, Any]:
        """Plain JSON data from which the choice can be made again."""
        values = [list(v) if isinstance(v, tuple) else v for v in self.values]
        return {"path": self.path, "values": values, "kind": self.kind}
