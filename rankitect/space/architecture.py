"""An architecture: a frozen value that closes every choice that has an effect."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

from rankitect.documents import as_kind, parse_json
from rankitect.errors import SpaceError
from rankitect.space.choices import ChoiceValue
from rankitect.space.stored import StoredArchitecture

__all__ = ["Architecture"]

FORM = "an architecture in JSON (space, version, choices)"


@dataclass(frozen=True, eq=False)
class Architecture:
    """The live choices of one model of a space, in canonical form. Made by `SearchSpace.architecture`.

    Two spellings of one model (which differ only in choices without effect) are equal and have one fingerprint.

    Attributes:
        space: The space's name.
        version: The space's version.
        choices: Value of each live choice by path, in the space's order.
    """

    space: str
    version: str
    choices: Mapping[str, ChoiceValue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "choices", MappingProxyType(dict(self.choices)))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON, 64 hexadecimal digits."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no blanks."""
        return json.dumps(self.to_data(), sort_keys=True, separators=(",", ":"))

    def to_data(self) -> dict[str, Any]:
        """Plain data for JSON."""
        values = {p: list(v) if isinstance(v, tuple) else v for p, v in self.choices.items()}
        return {"space": self.space, "version": self.version, "choices": values}

    @classmethod
    def from_json(cls, text: str) -> Architecture:
        """The inverse of `to_json`; `SearchSpace.validate` checks it against a space.

        Raises:
            SpaceError: The text is no architecture.
        """
        return cls._restored(parse_json(text, StoredArchitecture, FORM, SpaceError))

    @classmethod
    def from_data(cls, data: Any) -> Architecture:
        """The inverse of `to_data`.

        Raises:
            SpaceError: The data is no architecture.
        """
        return cls._restored(as_kind(data, StoredArchitecture, FORM, SpaceError))

    @classmethod
    def _restored(cls, stored: StoredArchitecture) -> Architecture:
        values = {p: tuple(v) if isinstance(v, list) else v for p, v in stored.choices.items()}
        return cls(stored.space, stored.version, values)

    def __getitem__(self, path: str) -> ChoiceValue:
        return self.choices[path]

    def get(self, path: str, default: ChoiceValue | None = None) -> ChoiceValue | None:
        """The value of a choice, or `default` where it has no effect."""
        return self.choices.get(path, default)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Architecture) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __getstate__(self) -> dict[str, Any]:
        return self.to_data()

    def __setstate__(self, state: dict[str, Any]) -> None:
        restored = Architecture.from_data(state)
        self.__dict__.update(restored.__dict__)

    def __repr__(self) -> str:
        return f"Architecture({self.space}:{self.fingerprint[:8]})"
