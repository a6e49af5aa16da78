"""Real numbers to choose among, in order and evenly spaced on a linear or a logarithmic scale."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from rankitect.errors import SpaceError
from rankitect.space.names import shown
from rankitect.space.values import MAX_VALUES
from rankitect.space.whole import check_whole

__all__ = ["NumberScale", "linear_range", "log_range"]

DIGITS = 6
"""Significant digits of a value between the ends: powers differ between machines in their last digit, these do not."""


@dataclass(frozen=True)
class NumberScale:
    """Values for `choice`.

    Attributes:
        values: The numbers, from the lowest to the highest.
        log: Whether their logarithms are evenly spaced, and say how near two values are.
    """

    values: tuple[float, ...]
    log: bool = False


def linear_range(low: float, high: float, count: int) -> NumberScale:
    """`count` values from `low` to `high`, evenly spaced.

    Raises:
        SpaceError: The ends are no range, or there are fewer than two values or too many to tell apart.

    >>> linear_range(0, 0.5, 3).values
    (0.0, 0.25, 0.5)
    """
    return NumberScale(_between(low, high, count, lambda share: low + share * (high - low)))


def log_range(low: float, high: float, count: int) -> NumberScale:
    """`count` values from `low` to `high` in equal ratios, as for a learning rate.

    Raises:
        SpaceError: The ends are no range of positive numbers, or there are fewer than two values or too many to tell
            apart.

    >>> log_range(1e-4, 1e-2, 5).values
    (0.0001, 0.000316228, 0.001, 0.00316228, 0.01)
    """
    _check_ends(low, high)
    if not low > 0:
        raise SpaceError(f"a logarithmic range needs low > 0, not {low!r}")
    ratio = high / low
    if not math.isfinite(ratio):  # ends so far apart that their ratio is no number
        start, end = math.log(low), math.log(high)
        return NumberScale(_between(low, high, count, lambda share: math.exp(start + share * (end - start))), log=True)
    return NumberScale(_between(low, high, count, lambda share: low * ratio**share), log=True)


def _between(low: float, high: float, count: int, at: Callable[[float], float]) -> tuple[float, ...]:
    _check_ends(low, high)
    check_whole("the number of values in a range", count, 2, MAX_VALUES)
    inner = [float(f"{at(i / (count - 1)):.{DIGITS}g}") for i in range(1, count - 1)]
    values = (float(low), *inner, float(high))
    if any(a >= b for a, b in pairwise(values)):
        raise SpaceError(f"{count} values from {low!r} to {high!r} cannot be told apart in {DIGITS} digits")
    return values


def _check_ends(low: Any, high: Any) -> None:
    numbers = all(isinstance(end, int | float) and not isinstance(end, bool) for end in (low, high))
    if not numbers or not abs(low) <= sys.float_info.max or not abs(high) <= sys.float_info.max or not low < high:
        raise SpaceError(f"a range needs finite numbers low < high, not {shown(low)} and {shown(high)}")
