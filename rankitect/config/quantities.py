"""Types of settings that many plug-ins have, with the bounds within which they mean something."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

from pydantic import Field, PlainSerializer, PlainValidator

from rankitect.errors import short

__all__ = ["Amounts", "Bounds", "Size"]

Size = Annotated[int, Field(ge=1, le=2**16)]
"""A width, a depth or a number of heads, where a list of them is given."""

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_AMOUNTS = re.compile(rf"({_NUMBER})?\.\.({_NUMBER})?")


@dataclass(frozen=True)
class Amounts:
    """The least and the largest amount of a metric, in its own unit, ends included."""

    low: float = -math.inf
    high: float = math.inf

    @classmethod
    def parse(cls, text: str) -> Amounts:
        """Read "100..300", "..300" (at most) or "100.." (at least).

        Raises:
            ValueError: The text is no such range, or holds nothing.
        """
        match = _AMOUNTS.fullmatch(text)
        if match is None or text == "..":
            raise ValueError(f"{short(repr(text), 60)} is no range such as 100..300, ..300 or 100..")
        low, high = match.groups()
        amounts = cls(float(low) if low else -math.inf, float(high) if high else math.inf)
        if amounts.low > amounts.high or amounts.low == math.inf or amounts.high == -math.inf:
            raise ValueError(f"{short(repr(text), 60)} holds nothing: the second number is not above the first")
        return amounts

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        """As `parse` reads it.

        >>> str(Amounts(high=300.0)), str(Amounts(1.0, 2.5))
        ('..300', '1..2.5')
        """
        low, high = ("" if math.isinf(end) else repr(end).removesuffix(".0") for end in (self.low, self.high))
        return f"{low}..{high}"


def _bounds(given: Any) -> tuple[float, float] | Amounts:
    if isinstance(given, str):
        return Amounts.parse(given)
    if not isinstance(given, list | tuple) or len(given) != 2 or not all(_is_number(end) for end in given):
        raise ValueError("a range is written [low, high], in shares, or low..high, in the unit of the cost")
    low, high = map(float, given)
    if not 0 <= low < high < math.inf:
        raise ValueError(f"a range needs 0 <= low < high, not [{low:g}, {high:g}]")
    return low, high


def _plain(bounds: tuple[float, float] | Amounts) -> Any:
    """As a configuration writes it."""
    return str(bounds) if isinstance(bounds, Amounts) else list(bounds)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


Bounds: TypeAlias = Annotated[tuple[float, float] | Amounts, PlainValidator(_bounds), PlainSerializer(_plain)]
"""Of a cost: shares of a reference's, [low, high], or amounts, low..high."""
