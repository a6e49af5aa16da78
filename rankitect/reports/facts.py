"""Facts as plain data: what report.json keeps of a section, and all that its sentences are rendered from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from enum import Enum

import numpy as np
from pydantic import BaseModel

from rankitect.reports.cards import JSON, finite

__all__ = ["plain"]


def plain(value: object) -> JSON:
    """A value as JSON has it; a record becomes a mapping of its fields and its properties.

    What is not finite becomes null, as in `rankitect.reports.cards.finite`.

    Args:
        value: A number, a text, a record (dataclass or pydantic model), or a collection of these.

    Raises:
        TypeError: It is none of these.
    """
    if value is None or (isinstance(value, bool | int | str) and not isinstance(value, Enum)):
        return value
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, float):
        return finite(value)
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    if isinstance(value, Set):
        return [plain(item) for item in sorted(value, key=str)]
    if is_dataclass(value) and not isinstance(value, type):
        return _record(value, [each.name for each in fields(value)])
    if isinstance(value, BaseModel):
        return _record(value, list(type(value).model_fields))
    raise TypeError(f"{type(value).__name__} is no fact of a report: give numbers, texts, records or lists of these")


def _record(value: object, names: Sequence[str]) -> dict[str, JSON]:
    """The fields of a record, and the properties that its class and its bases declare."""
    known = {name: vars(value)[name] for name in names}
    for kind in type(value).__mro__:
        if kind in (object, BaseModel):
            continue
        for name, member in vars(kind).items():
            if isinstance(member, property) and member.fget is not None and not name.startswith("_"):
                known.setdefault(name, member.fget(value))
    return {name: plain(item) for name, item in known.items()}
