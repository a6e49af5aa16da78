"""The metadata of GGUF files as typed values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from rankitect.errors import AssetError, shown

__all__ = ["Metadata", "shortest"]

T = TypeVar("T", bool, int, float, str)


class Metadata:
    """Typed access to a file's keys, with errors that name file, key and what it holds.

    Args:
        path: The file.
        values: Its values by key.
    """

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        self.path, self.values = path, values

    def get(self, key: str, kind: type[T], default: T | None = None) -> T:
        """The value of a key.

        Raises:
            AssetError: The key is missing and has no default, or its value is of another type.
        """
        value = self.values.get(key, default)
        if value is None:
            raise AssetError(f"{self.path}: the key {key!r} is missing from the GGUF metadata.")
        if type(value) is not kind:  # a bool is no int here
            raise self._wrong(key, f"one value of type {kind.__name__}")
        return value

    def all(self, key: str, kind: type[T]) -> list[T] | None:
        """The list that a key holds; None for a key that is missing.

        Raises:
            AssetError: Its value is no list, or holds values of another type.
        """
        values = self.values.get(key)
        if values is not None and not (isinstance(values, list) and all(type(value) is kind for value in values)):
            raise self._wrong(key, f"a list of values of type {kind.__name__}")
        return values

    def _wrong(self, key: str, supported: str) -> AssetError:
        return AssetError(f"{self.path}: the key {key!r} holds {shown(self.values[key])}; supported is {supported}.")


def shortest(value: float) -> float:
    """The decimal number that was meant by a value stored as float32 (1e-05, not 9.99999974e-06)."""
    return float(str(np.float32(value)))
