"""The functions that expressions may hold beside sums and products, on arrays and on plain numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rankitect.errors import SpaceError
from rankitect.space.names import shown

__all__ = ["applied", "check_function"]

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "floordiv": lambda a, b: np.where(b == 0, 0, a // np.where(b == 0, 1, b)),  # by a choice of 0: nothing
    "mod": lambda a, b: np.where(b == 0, 0, a % np.where(b == 0, 1, b)),
    "min": np.minimum,
    "max": np.maximum,
    "eq": lambda a, b: (a == b) * 1,
    "le": lambda a, b: (a <= b) * 1,
    "any": lambda *args: np.any(np.stack(np.broadcast_arrays(*args)) != 0, axis=0) * 1,
}
# The same for plain numbers, of one architecture: many times as fast as on arrays without axes.
_PLAIN: dict[str, Callable[..., int]] = {
    "floordiv": lambda a, b: a // b if b else 0,
    "mod": lambda a, b: a % b if b else 0,
    "min": min,
    "max": max,
    "eq": lambda a, b: int(a == b),
    "le": lambda a, b: int(a <= b),
    "any": lambda *args: int(any(args)),
}


def applied(function: str, values: Sequence[Any]) -> Any:
    """The value of a function: an int where all arguments are such, else an array or, without axes, a number."""
    if all(isinstance(value, int) for value in values):
        return _PLAIN[function](*values)
    result = _FUNCTIONS[function](*values)
    return result.item() if isinstance(result, np.generic | np.ndarray) and result.ndim == 0 else result


def check_function(name: Any, arguments: int) -> None:
    """Refuse a function that is none, in a file for example.

    Raises:
        SpaceError: There is no such function, or it takes another number of arguments.
    """
    if not isinstance(name, str) or name not in _FUNCTIONS:
        raise SpaceError(f"unknown function {shown(name)} in a stored expression; known: {sorted(_FUNCTIONS)}")
    if arguments < 1 or (name != "any" and arguments != 2):
        raise SpaceError(f"function {name!r} in a stored expression has {arguments} arguments")
