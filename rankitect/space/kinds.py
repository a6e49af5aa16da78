"""Which kind of choice some values make, and a choice from its stored declaration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rankitect.space.choices import Choice, ChoiceValue
from rankitect.space.real import Real
from rankitect.space.scales import Scale
from rankitect.space.simplex import Simplex

__all__ = ["choice_of", "restored_choice"]


def choice_of(path: str, values: Sequence[ChoiceValue] | Scale) -> Choice:
    """A choice among values: real where one of them is a real number, and all are numbers.

    Raises:
        SpaceError: There is no value, a value appears twice, or values of different kinds are mixed.
    """
    if isinstance(values, Scale):
        return Real(path, values)
    numbers = [isinstance(v, int | float) and not isinstance(v, bool) for v in values]
    if all(numbers) and any(isinstance(v, float) for v in values):
        return Real(path, values)
    return Choice(path, values)


def restored_choice(data: Mapping[str, Any]) -> Choice:
    """A choice from its `declaration`."""
    path, kind = data["path"], data["kind"]
    if kind == "simplex":
        return Simplex(path, data["members"], data["total"], data["least"])
    if kind == "real":
        return Real(path, Scale(tuple(data["values"]), data["log"]))
    return Choice(path, [tuple(v) if isinstance(v, list) else v for v in data["values"]], kind)
