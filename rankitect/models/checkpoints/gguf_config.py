"""Reading the sizes of a model from the metadata of GGUF files.

As in config.json, every key under the architecture's name is understood, or known to change nothing, or refused. Which
is which is stated by the family's `GGUFFormat`.
"""

from __future__ import annotations

from collections.abc import Collection, Container
from typing import Any

from rankitect.errors import AssetError, closest, shown
from rankitect.models.checkpoints.gguf_blocks import BlocksReader
from rankitect.models.checkpoints.gguf_by_layer import deci_family
from rankitect.models.checkpoints.gguf_metadata import Metadata, shortest
from rankitect.models.families import FAMILIES, DecoderConfig, Family
from rankitect.models.families.gguf_keys import DECI
from rankitect.models.families.keys import is_mixture
from rankitect.models.families.values import LIMITS, among

__all__ = ["family_in", "read_sizes"]

_MODEL = "model"
"""The value of `general.type` of a whole model; there are also adapters, vocabularies and projectors."""


def family_in(metadata: Metadata, tensors: Collection[str] = ()) -> Family:
    """The family of the model that a file holds.

    Args:
        metadata: What the file states.
        tensors: The names of its tensors, by which a model of `deci` has biases or none.

    Raises:
        AssetError: It is not supported, or the file holds no whole model.
    """
    kind = metadata.get("general.type", str, _MODEL)
    if kind != _MODEL:
        raise AssetError(f"{metadata.path} holds no model: its general.type is {shown(kind)}.")
    architecture = metadata.get("general.architecture", str)
    # The first family of an architecture: Mistral's files say that they are of Llama's.
    by_architecture = {family.gguf.architecture: family for family in reversed(FAMILIES.values())}
    if architecture == DECI:
        return deci_family(tensors)
    if architecture not in by_architecture:
        supported = ", ".join(map(repr, [*by_architecture, DECI]))
        mixture = ", a mixture of experts, which is not supported" if is_mixture(architecture) else ""
        near = closest(architecture, by_architecture)
        nearest = f" The nearest to it is {near!r}." if near is not None else ""
        raise AssetError(
            f"{metadata.path} holds a model of architecture {shown(architecture)}{mixture}. Supported: {supported}."
            f"{nearest}"
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
        numbers[name] = shortest(numbers[name])
    reader = BlocksReader(family, metadata, numbers)
    try:
        blocks = reader.read()
        config = DecoderConfig(vocab=vocab, tied_embeddings=tied, family=family.name, **numbers, blocks=blocks)
    except AssetError as error:
        raise error if str(error).startswith(str(path)) else AssetError(f"{path}: {error}") from error
    _check_keys(family, metadata, config, reader.read_keys)
    return config


def _check_keys(family: Family, metadata: Metadata, config: DecoderConfig, understood: Container[str]) -> None:
    """Refuse what would compute something else than the family's blocks do, or might.

    Args:
        family: The model's.
        metadata: What its file states.
        config: Read from it.
        understood: The keys that were read beside those of sizes.
    """
    layout, prefix = family.gguf, f"{family.gguf.architecture}."
    repeated = {  # what says again, in other words, what another key has said
        "vocab_size": (config.vocab,),
        "attention.value_length": (config.head_dim,),
        "rope.dimension_count": (config.head_dim,),
        "rope.scaling.original_context_length": (config.context,),
    }
    for key, value in metadata.values.items():
        suffix = key.removeprefix(prefix)
        if suffix == key or suffix in layout.sizes.values() or suffix in understood:
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
