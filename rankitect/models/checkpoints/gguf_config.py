"""Reading the metadata of GGUF files: typed values, and the sizes of a model.

As in config.json, every key under the architecture's name is understood, or known to change nothing, or refused. Which
is which is stated by the family's `GGUFFormat`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from rankitect.errors import AssetError, shown
from rankitect.models.families import FAMILIES, DecoderConfig, Family
from rankitect.models.families.values import LIMITS, among

__all__ = ["Metadata", "family_in", "read_sizes"]

T = TypeVar("T", bool, int, float, str)

_MODEL = "model"
"""The value of `general.type` of a whole model; there are also adapters, vocabularies and projectors."""


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


def family_in(metadata: Metadata) -> Family:
    """The family of the model that a file holds.

    Raises:
        AssetError: It is not supported, or the file holds no whole model.
    """
    kind = metadata.get("general.type", str, _MODEL)
    if kind != _MODEL:
        raise AssetError(f"{metadata.path} holds no model: its general.type is {shown(kind)}.")
    architecture = metadata.get("general.architecture", str)
    # The first family of an architecture: Mistral's files say that they are of Llama's.
    by_architecture = {family.gguf.architecture: family for family in reversed(FAMILIES.values())}
    if architecture not in by_architecture:
        supported = ", ".join(map(repr, by_architecture))
        raise AssetError(
            f"{metadata.path} holds a model of architecture {shown(architecture)}. Supported: {supported}."
        )
    return by_architecture[architecture]


def read_sizes(family: Family, metadata: Metadata, vocab: int, *, tied: bool) -> DecoderConfig:
    """The sizes of a model.

    Args:
        family: Its family.
        metadata: What its file states.
        vocab: Rows of its embedding.
        tied: Whether it has no output table of its own.

    Raises:
        AssetError: A number is missing or cannot be one, or a key would change what the model computes.
    """
    layout, path = family.gguf, metadata.path
    numbers: dict[str, Any] = {}
    for name, suffix in layout.sizes.items():
        key = f"{layout.architecture}.{suffix}"
        numbers[name] = metadata.values.get(key, layout.defaults.get(name))
        if numbers[name] is not None:
            LIMITS[name].check(numbers[name], f"{path}: {key}")
        elif name not in ("n_kv_heads", "head_dim"):  # these two follow from others
            raise AssetError(f"{path}: the key {key!r} is missing from the GGUF metadata.")
    if numbers["n_kv_heads"] is None:
        numbers["n_kv_heads"] = numbers["n_heads"]
    if numbers["head_dim"] is None:
        numbers["head_dim"] = numbers["d_model"] // numbers["n_heads"]
    for name in ("rope_base", "norm_eps"):
        numbers[name] = _shortest(numbers[name])
    try:
        config = DecoderConfig(vocab=vocab, tied_embeddings=tied, family=family.name, **numbers)
    except AssetError as error:
        raise AssetError(f"{path}: {error}") from error
    _check_keys(family, metadata, config)
    return config


def _check_keys(family: Family, metadata: Metadata, config: DecoderConfig) -> None:
    """Refuse what would compute something else than the family's blocks do, or might."""
    layout, prefix = family.gguf, f"{family.gguf.architecture}."
    repeated = {  # what says again, in other words, what another key has said
        "vocab_size": (config.vocab,),
        "attention.value_length": (config.head_dim,),
        "rope.dimension_count": (config.head_dim,),
        "rope.scaling.original_context_length": (config.context,),
    }
    for key, value in metadata.values.items():
        suffix = key.removeprefix(prefix)
        if suffix == key or suffix in layout.sizes.values():
            continue
        supported = repeated.get(suffix) or layout.neutral.get(suffix)
        if supported is None:
            raise AssetError(
                f"{metadata.path}: {shown(key)} is {shown(value)}, and no {family.title} that is understood has it."
            )
        if not among(value, supported):
            raise AssetError(
                f"{metadata.path}: {key} is {shown(value)}. Supported: {' or '.join(map(repr, supported))}."
            )


def _shortest(value: float) -> float:
    """The decimal number that was meant by a value stored as float32 (1e-05, not 9.99999974e-06)."""
    return float(str(np.float32(value)))
