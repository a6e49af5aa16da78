"""Choices of real numbers: learning rates, weights of a loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from rankitect.errors import SpaceError
from rankitect.space.choices import Choice, ChoiceValue
from rankitect.space.expr import Expr, ExprLike, as_expr
from rankitect.space.names import shown
from rankitect.space.scales import NumberScale
from rankitect.space.values import listed_values

__all__ = ["Real"]


class Real(Choice):
    """A choice among real numbers. They are ordered, and a change goes to a near one more often than to a far one.

    A real number is no size of a tensor: it decides settings, and can be compared in conditions (`lr.le(1e-3)`).

    Args:
        path: The name, unique in a space.
        values: The numbers, in any order, or a `NumberScale`.

    Attributes:
        log: Whether the distance of two values is that of their logarithms.

    Raises:
        SpaceError: A number is not finite or appears twice, or one on a logarithmic scale is not positive.
    """

    def __init__(self, path: str, values: Sequence[ChoiceValue] | NumberScale) -> None:
        self.log = isinstance(values, NumberScale) and values.log
        given = listed_values(path, values.values if isinstance(values, NumberScale) else values)
        super().__init__(path, [_real(path, v) for v in given], kind="real")
        if self.log and min(self._numbers) <= 0:
            raise SpaceError(f"choice {path!r}: a logarithmic scale has positive numbers, not {min(self._numbers)}")

    def le(self, other: ExprLike | float) -> Expr:
        """1 where this is at most a number."""
        return self._any_of([v for v in self._numbers if v <= self._bound(other)])

    def ge(self, other: ExprLike | float) -> Expr:
        """1 where this is at least a number."""
        return self._any_of([v for v in self._numbers if v >= self._bound(other)])

    def eq(self, other: ExprLike | float) -> Expr:
        """1 where this is a number."""
        return self._any_of([v for v in self._numbers if v == self._bound(other)])

    def _any_of(self, values: Sequence[float]) -> Expr:
        return sum((self.is_(v) for v in values), start=as_expr(0))

    def _bound(self, other: ExprLike | float) -> float:
        if isinstance(other, int | float):
            return other
        raise SpaceError(f"choice {self.path!r} is real and can be compared with a number, not with {other}")

    @property
    def _numbers(self) -> list[float]:
        return [v for v in self.values if isinstance(v, float)]

    @cached_property
    def scaled(self) -> tuple[float, ...]:
        """Where each value lies between the least (0) and the largest (1), on its own scale."""
        numbers = list(map(math.log, self._numbers)) if self.log else self._numbers
        low, span = min(numbers), max(numbers) - min(numbers)
        return tuple((number - low) / (span or 1.0) for number in numbers)

    @property
    def nearness(self) -> np.ndarray:
        """How alike two values are, [values, values]: 1 for the same, and half as much for each step in between."""
        rank = np.argsort(np.argsort(self._numbers))
        return np.asarray(0.5 ** np.abs(rank[:, None] - rank[None, :]))

    def changed(self, value: ChoiceValue, rng: np.random.Generator) -> ChoiceValue:
        """Another value, the more often the nearer it is."""
        weights = self.nearness[self.index[value]].copy()
        weights[self.index[value]] = 0.0
        return self.values[rng.choice(len(weights), p=weights / weights.sum())]

    def declaration(self) -> dict[str, Any]:
        """Plain JSON data from which the choice can be made again."""
        return {**super().declaration(), "log": self.log}


def _real(path: str, value: Any) -> float:
    """A number as a float; what is no number, or too large for one, is refused."""
    try:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise TypeError
        return float(value)
    except (TypeError, OverflowError):
        raise SpaceError(f"choice {path!r} must choose among finite numbers, not {shown(value)}") from None
