"""Whole numbers within bounds: sizes, counts and seeds as authors and files give them."""

from __future__ import annotations

from typing import Any

import numpy as np

from rankitect.errors import SpaceError
from rankitect.space.names import shown

__all__ = ["MAX_WHOLE", "check_whole", "generator"]

MAX_WHOLE = 2**53
"""The largest whole number that may be given: beyond it, float64 cannot tell neighbours apart."""


def check_whole(what: str, value: Any, low: int = 0, high: int = MAX_WHOLE) -> None:
    """Refuse what is no whole number from `low` to `high`; booleans are none.

    Raises:
        SpaceError: Says what it is, and what is allowed.
    """
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or not low <= value <= high:
        bounds = f"from {low:,}" if high == MAX_WHOLE else f"from {low:,} to {high:,}"
        raise SpaceError(f"{what} must be a whole number {bounds}, not {shown(value)}")


def generator(rng: Any) -> np.random.Generator:
    """A generator of random numbers from a seed, or the generator itself.

    Args:
        rng: A generator, a whole number from 0 (or several), or None for one that nobody can repeat.

    Raises:
        SpaceError: It is neither.
    """
    try:
        if isinstance(rng, bool):
            raise TypeError
        return np.random.default_rng(rng)
    except (TypeError, ValueError):
        raise SpaceError(f"a seed must be a whole number from 0, or a numpy generator, not {shown(rng)}") from None
