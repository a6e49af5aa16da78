"""Pretrained models in GGUF files (llama.cpp's format), weights of any quantization read back as float32."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from rankitect.errors import AssetError
from rankitect.models.checkpoints.checkpoint import DecoderCheckpoint, check_fits, check_layers, check_tensors
from rankitect.models.checkpoints.gguf_by_layer import layers_in
from rankitect.models.checkpoints.gguf_config import family_in, read_sizes
from rankitect.models.checkpoints.gguf_file import GGUFFile, TensorEntry
from rankitect.models.checkpoints.gguf_metadata import Metadata
from rankitect.models.checkpoints.gguf_parts import open_parts, tensors_of
from rankitect.models.checkpoints.gguf_tokenizer import read_tokenizer
from rankitect.models.checkpoints.renumbered import renumbered
from rankitect.models.checkpoints.silent_heads import without_silent_heads
from rankitect.models.checkpoints.usage_sources import usage_of_gguf
from rankitect.models.families import DecoderConfig, Family, Weight
from rankitect.models.families.gguf_keys import DECI, FACTORS, halves_apart

if TYPE_CHECKING:
    import torch

__all__ = ["load_gguf"]

_LONG = frozenset({"rope_factors_long.weight", "rope_factors_short.weight"})
_LLAMA3, _PUBLISHED = "llama3", (1.0, 4.0, 8192)
"""Llama 3's scaling, and all of its published numbers but the factor: low, high, and the context before it."""


def load_gguf(path: Path, source: str | None = None) -> DecoderCheckpoint:
    """Load a model of a supported family from a GGUF file.

    Args:
        path: The file.
        source: What to call it; by default its path.

    Returns:
        The checkpoint, tensors as float32 in Hugging Face's names and layout.

    Raises:
        AssetError: The file is no GGUF, is truncated, holds another architecture or an unsupported variant, or its
            tensors do not fit.
    """
    import torch

    parts = open_parts(path)
    metadata, stored = Metadata(parts[0].path, parts[0].metadata), tensors_of(parts)
    family = family_in(metadata, stored)
    layers = layers_in(metadata) if family.gguf.architecture == DECI else None
    embedding, head = family.embedding.gguf, family.head.gguf
    if embedding not in stored:
        raise AssetError(f"{path}: the tensor {embedding!r} is missing.")
    stated = metadata if layers is None else layers.metadata
    config = read_sizes(family, stated, stored[embedding][1].shape[0], tied=head not in stored)
    if layers is not None:
        config, names = config.with_layers(layers.sizes), renumbered(stored, layers.numbers, str(path))
        stored = {names[name]: (file, replace(entry, name=names[name])) for name, (file, entry) in stored.items()}
    if long := sorted(_LONG & stored.keys()):
        raise AssetError(f"{path}: RoPE for long texts (longrope, the tensor {long[0]}) is not supported.")
    if FACTORS in stored:
        config = _scaled(config, *stored.pop(FACTORS))
    check_layers(config, len(stored), str(path))
    check_fits(sum(prod(entry.shape) for _, entry in stored.values()), str(path))
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # numpy lets others run while it computes
        read = list(pool.map(lambda one: list(_tensors(one[0], one[1], family, config)), stored.values()))
    tensors = dict(one for weights in read for one in weights)
    check_tensors(config, tensors, str(path))
    if layers is not None:
        config, tensors = without_silent_heads(config, tensors)
    tokenizer = read_tokenizer(metadata, config.vocab)
    usage = usage_of_gguf(parts[0].metadata, tokenizer, config.vocab, config.context, path)
    return DecoderCheckpoint(config, tensors, tokenizer, source or str(path), usage)


def _scaled(config: DecoderConfig, file: GGUFFile, entry: TensorEntry) -> DecoderConfig:
    """A config with the scaling of RoPE that its frequencies are divided by; factors of 1 change nothing.

    Llama 3's files state the factors that follow from its scaling, and not the numbers which they follow from.

    Raises:
        AssetError: The factors are those of no published Llama 3.
    """
    import torch

    from rankitect.blocks.rotary import SCALINGS

    factors = torch.from_numpy(file.values(entry)).flatten()
    if bool((factors == 1).all()):
        return config
    scaling = (_LLAMA3, round(float(factors.max()), 4), *_PUBLISHED)
    half = config.head_dim // 2
    if factors.numel() == half and scaling[1] >= 1 and not config.blocks.rope_scaling:
        plain, scaled = (
            SCALINGS[kind](half, config.rope_base, 0, *numbers)[0] for kind, *numbers in (("linear", 1.0), scaling)
        )
        if torch.allclose(factors, plain / scaled, rtol=1e-3):
            return replace(config, blocks=replace(config.blocks, rope_scaling=scaling))
    raise AssetError(
        f"{file.path}: RoPE's frequencies are scaled (the tensor {FACTORS}) by other factors than those of Llama 3.1 "
        "and 3.2. Use the model's Hugging Face folder, which says how."
    )


def _tensors(
    file: GGUFFile, entry: TensorEntry, family: Family, config: DecoderConfig
) -> Iterator[tuple[str, torch.Tensor]]:
    """The names and values of a tensor's weights as Hugging Face has them.

    A tensor that is no weight of the family keeps its name: `check_tensors` reports it as unexpected.

    Raises:
        AssetError: It holds several weights, and has another number of rows than they.
    """
    import torch

    values = torch.from_numpy(file.values(entry))
    fused, known = family.fused_in_gguf(entry.name), family.of_gguf(entry.name)
    if fused is not None:
        number, weights = fused
        rows = [weight.stored_shape(config, number)[0] for weight in weights]
        if entry.shape[0] != sum(rows):
            raise AssetError(
                f"{file.path}: {entry.name} has {entry.shape[0]} rows, but its configuration asks for {sum(rows)}."
            )
        for weight, part in zip(weights, values.split(rows), strict=True):
            yield family.huggingface_name(weight, number), _as_huggingface(part, weight, number, family, config)
    elif known is not None:
        place, weight = known
        yield family.huggingface_name(weight, place), _as_huggingface(values, weight, place, family, config)
    else:
        yield entry.name, values


def _as_huggingface(
    values: torch.Tensor, weight: Weight, layer: int | None, family: Family, config: DecoderConfig
) -> torch.Tensor:
    """A weight's values in the order, and with the meaning, that they have in Hugging Face folders."""
    if weight.kind == "gain" and family.gguf.gains_with_offset:
        values = values - config.blocks.norm_offset
    known = layer is not None and layer < config.n_layers and tuple(values.shape) == weight.stored_shape(config, layer)
    if weight.rotated and family.gguf.rotates_neighbours and known:
        # A tensor of another shape, or of no layer, is left alone: `check_tensors` reports it.
        values = halves_apart(values, config.head_dim)
    return values.contiguous()
