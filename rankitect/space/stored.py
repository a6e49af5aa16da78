"""What a stored space or architecture must look like before anything is made of it.

These are files that others may have written. Their frame is checked by a model, so that a wrong type is named with the
place where it stands; expressions, which have a grammar of their own, are checked in `rankitect.space.expr_data`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from rankitect.space.names import MAX_NAME

__all__ = ["SCHEMA", "Name", "Stored", "StoredArchitecture", "StoredChoices", "Value"]

SCHEMA = 1
MAX_CHOICES, MAX_RULES = 4096, 4096

Name = Annotated[str, Field(max_length=MAX_NAME)]
Value = bool | int | float | str | list[int]


class Stored(BaseModel):
    """A part of a stored space: nothing is converted, and nothing may stand there that is not known."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class StoredArchitecture(Stored):
    """What `Architecture.to_json` writes."""

    space: Name
    version: Name
    choices: dict[Name, Value] = Field(max_length=MAX_CHOICES)


class StoredChoice(Stored):
    """The declaration of any kind of choice."""

    path: Name
    kind: Literal["categorical", "ordinal", "real", "subset", "simplex"]
    values: list[Value] | None = Field(None, max_length=4096)
    log: bool | None = None
    members: int | list[Name] | None = None
    total: int | None = None
    least: int | None = None


class StoredRule(Stored):
    """A rule: a condition, and how to say it."""

    condition: Any
    text: str = Field(min_length=1, max_length=100_000)


class StoredChoices(Stored):
    """What `ChoiceSpace.to_json` writes."""

    written_as: int = Field(alias="schema", ge=SCHEMA, le=SCHEMA)
    name: Name
    version: Name
    choices: list[StoredChoice] = Field(max_length=MAX_CHOICES)
    rules: list[StoredRule] = Field(max_length=MAX_RULES)
    settings: dict[Name, Any] = Field({}, max_length=MAX_CHOICES)
    points: dict[Name, StoredArchitecture] = {}
