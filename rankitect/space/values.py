"""What may be chosen: the values of a choice as authors and files give them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, Literal, TypeAlias

import numpy as np

from rankitect.errors import SpaceError
from rankitect.space.names import shown
from rankitect.space.whole import MAX_WHOLE

__all__ = ["HOLDS", "MAX_VALUES", "Kind", "check_value", "kind_of", "largest", "listed_values"]

Kind: TypeAlias = Literal["categorical", "ordinal", "real", "subset", "simplex"]

HOLDS: Mapping[Kind, tuple[Kind, ...]] = {
    "ordinal": ("ordinal",),
    "categorical": ("categorical", "real"),
    "subset": ("subset", "simplex"),
}
"""The kinds of choice that values of a kind may stand for."""

MAX_VALUES = 4096
"""A choice lists its values up to this many; a subset of more must bound the number of members."""

MAX_TEXT = 1000
"""Letters of a value that is a text."""


def listed_values(path: str, values: Iterable[Any]) -> tuple[Any, ...]:
    """The values of a choice as a tuple, numbers of numpy as those of Python.

    Raises:
        SpaceError: They are no list: one text, a mapping, a set (which has no order), or more than 4,096.
    """
    if isinstance(values, str | bytes | Mapping | Set) or not isinstance(values, Iterable):
        raise SpaceError(f"choice {path!r} needs a list of values to choose from, not {shown(values)}")
    if isinstance(values, Sequence) and len(values) > MAX_VALUES:
        raise SpaceError(f"choice {path!r} has {len(values):,} values, more than {MAX_VALUES:,}")
    return tuple(v.item() if isinstance(v, np.generic) else v for v in values)


def check_value(path: str, value: Any) -> None:
    """Refuse what is no value of a choice.

    Raises:
        SpaceError: It is of another kind, not finite, or too large.
    """
    if not isinstance(value, int | float | str | tuple):
        raise SpaceError(f"choice {path!r} must choose among numbers, strings and booleans, not {shown(value)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise SpaceError(f"choice {path!r} must choose among finite numbers, not {value}")
    if isinstance(value, int) and abs(value) > MAX_WHOLE:
        raise SpaceError(f"choice {path!r} must choose among numbers up to {MAX_WHOLE:,}, not {shown(value)}")
    if isinstance(value, tuple) and not all(type(member) is int and member >= 0 for member in value):
        raise SpaceError(f"choice {path!r}: members are whole numbers from 0, not {shown(value)}")
    if isinstance(value, str) and len(value) > MAX_TEXT:
        raise SpaceError(
            f"choice {path!r} has a value of {len(value):,} letters, more than {MAX_TEXT:,}: {shown(value)}"
        )


def kind_of(path: str, values: Sequence[Any]) -> Kind:
    """Which kind of choice some values make where none is given.

    Raises:
        SpaceError: Values of different kinds are mixed.
    """
    if all(isinstance(v, tuple) for v in values):
        return "subset"
    numbers = [isinstance(v, int | float) and not isinstance(v, bool) for v in values]
    if (any(numbers) and not all(numbers)) or any(isinstance(v, tuple) for v in values):
        raise SpaceError(f"choice {path!r} mixes numbers with other values: {shown(list(values))}")
    return "ordinal" if all(isinstance(v, int) for v in values) and all(numbers) else "categorical"


def largest(values: Sequence[Any]) -> float:
    """The largest magnitude of whole numbers among values, or of their members; 1 where there is none."""
    numbers = (n for v in values for n in (v if isinstance(v, tuple) else (v,)) if isinstance(n, int))
    return max((abs(float(n)) for n in numbers), default=1.0)
