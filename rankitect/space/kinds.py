"""Which kind of choice some values make, and a choice from its stored declaration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rankitect.errors import SpaceError
from rankitect.space.choices import Choice, ChoiceValue
from rankitect.space.names import shown
from rankitect.space.real import Real
from rankitect.space.scales import NumberScale
from rankitect.space.simplex import Simplex
from rankitect.space.values import listed_values

__all__ = ["choice_of", "restored_choice"]


def choice_of(path: str, values: Sequence[ChoiceValue] | NumberScale) -> Choice:
    """A choice among values: real where one of them is a real number, and all are numbers.

    Raises:
        SpaceError: There is no value, a value appears twice, or values of different kinds are mixed.
    """
    if isinstance(values, NumberScale):
        return Real(path, values)
    values = listed_values(path, values)
    numbers = [isinstance(v, int | float) and not isinstance(v, bool) for v in values]
    if all(numbers) and any(isinstance(v, float) for v in values):
        return Real(path, values)
    return Choice(path, values)


def restored_choice(data: Mapping[str, Any]) -> Choice:
    """A choice from its `declaration`.

    Raises:
        SpaceError: Something is missing, or its values make no such choice.
    """
    path, kind = data["path"], data["kind"]
    needed = (
        ("members", "total", "least") if kind == "simplex" else ("values", "log") if kind == "real" else ("values",)
    )
    if missing := [key for key in needed if data.get(key) is None]:
        raise SpaceError(f"choice {shown(path)} of kind {shown(kind)} lacks {missing[0]!r}")
    if kind == "simplex":
        return Simplex(path, data["members"], data["total"], data["least"])
    values = listed_values(path, data["values"])
    if kind == "real":
        return Real(path, NumberScale(values, data["log"]))
    return Choice(path, [tuple(v) if isinstance(v, list) else v for v in values], kind)
