"""Pretrained models in GGUF files (llama.cpp's format), weights of any quantization read back as float32."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from rankitect.errors import AssetError
from rankitect.models.checkpoints.checkpoint import DecoderCheckpoint, check_fits, check_layers, check_tensors
from rankitect.models.checkpoints.gguf_config import Metadata, family_in, read_sizes
from rankitect.models.checkpoints.gguf_file import GGUFFile, TensorEntry
from rankitect.models.checkpoints.gguf_parts import open_parts, tensors_of
from rankitect.models.checkpoints.gguf_tokenizer import read_tokenizer
from rankitect.models.checkpoints.usage_sources import usage_of_gguf
from rankitect.models.families import HEAD, DecoderConfig, Family

if TYPE_CHECKING:
    import torch

__all__ = ["load_gguf"]

_FACTORS = "rope_freqs.weight"
"""The tensor by which llama.cpp divides RoPE's frequencies."""


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
    parts = open_parts(path)
    metadata, stored = Metadata(parts[0].path, parts[0].metadata), tensors_of(parts)
    family = family_in(metadata)
    embedding, head = family.embedding.gguf, family.head.gguf
    if embedding not in stored:
        raise AssetError(f"{path}: the tensor {embedding!r} is missing.")
    config = read_sizes(family, metadata, stored[embedding][1].shape[0], tied=head not in stored)
    if _FACTORS in stored:
        _check_factors(*stored.pop(_FACTORS))
    check_layers(config, len(stored), str(path))
    check_fits(sum(prod(entry.shape) for _, entry in stored.values()), str(path))
    tensors = dict(_tensor(file, entry, family, config) for file, entry in stored.values())
    check_tensors(config, tensors, str(path))
    tokenizer = read_tokenizer(metadata, config.vocab)
    usage = usage_of_gguf(parts[0].metadata, config.vocab, config.context, path)
    return DecoderCheckpoint(config, tensors, tokenizer, source or str(path), usage)


def _check_factors(file: GGUFFile, entry: TensorEntry) -> None:
    """Refuse factors that change RoPE's frequencies; those of 1 change nothing."""
    if not (file.values(entry) == 1).all():
        raise AssetError(f"{file.path}: scaled RoPE (the tensor {_FACTORS}) is not supported, only plain RoPE.")


def _tensor(file: GGUFFile, entry: TensorEntry, family: Family, config: DecoderConfig) -> tuple[str, torch.Tensor]:
    """A tensor's name and values as Hugging Face has them; its own name if the family has no such weight.

    Such a tensor is reported as unexpected later, by `check_tensors`.
    """
    import torch

    values, shape = torch.from_numpy(file.values(entry)), entry.shape
    known = family.of_gguf(entry.name)
    if known is None:
        return entry.name, values
    number, weight = known
    if weight.rotated and family.gguf.rotates_neighbours and shape == weight.stored_shape(config):
        # llama.cpp's RoPE rotates neighbouring rows of a head, Hugging Face's the two halves: for the former, the
        # halves are stored interleaved. A tensor of another shape is left alone: `check_tensors` reports it.
        heads = prod(config.sizes[dim] for dim in weight.dims[: weight.dims.index(HEAD)])
        values = values.view(heads, config.head_dim // 2, 2, -1).transpose(1, 2).reshape(shape)
    return family.huggingface_name(weight, number), values
