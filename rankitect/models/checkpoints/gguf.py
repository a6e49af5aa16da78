"""Pretrained models in GGUF files (llama.cpp's format), weights of any quantization read back as float32."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from rankitect.data.tokenizer import BPETokenizer, byte_level_bpe
from rankitect.errors import AssetError, shown
from rankitect.models.checkpoints.checkpoint import DecoderCheckpoint, check_fits, check_layers, check_tensors
from rankitect.models.checkpoints.gguf_config import Metadata, family_in, read_sizes
from rankitect.models.checkpoints.gguf_file import GGUFFile, TensorEntry
from rankitect.models.checkpoints.gguf_parts import open_parts, tensors_of
from rankitect.models.checkpoints.usage_sources import usage_of_gguf
from rankitect.models.families import HEAD, DecoderConfig, Family

if TYPE_CHECKING:
    import torch

__all__ = ["load_gguf"]

_FACTORS = "rope_freqs.weight"
"""The tensor by which llama.cpp divides RoPE's frequencies."""
_CONTROL, _USER_DEFINED, _TOKEN_TYPES = 3, 4, range(1, 7)
"""The token types of special tokens, and of tokens that text is searched for before it is cut; all there are."""


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
    tokenizer = _tokenizer(metadata, config.vocab)
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


def _tokenizer(metadata: Metadata, vocab: int) -> BPETokenizer:
    path = metadata.path
    kind = metadata.get("tokenizer.ggml.model", str)
    if kind != "gpt2":
        raise AssetError(
            f"{path}: its tokenizer is of kind {shown(kind)}. Supported: 'gpt2' (byte-level BPE). Use the model's "
            "Hugging Face folder, whose tokenizer.json may be of any kind."
        )
    tokens, merges = (metadata.all(f"tokenizer.ggml.{key}", str) for key in ("tokens", "merges"))
    if not tokens or merges is None:
        raise AssetError(f"{path}: the GGUF metadata holds no tokenizer.ggml.tokens, or no tokenizer.ggml.merges.")
    if len(tokens) > vocab:
        raise AssetError(f"{path}: the tokenizer has {len(tokens)} tokens, but the embedding has only {vocab} rows.")
    types = metadata.all("tokenizer.ggml.token_type", int) or [1] * len(tokens)
    if len(types) != len(tokens) or not set(types) <= set(_TOKEN_TYPES):
        raise AssetError(f"{path}: tokenizer.ggml.token_type must hold a type from 1 to 6 for each token.")
    roles = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    special = {
        role: metadata.get(f"tokenizer.ggml.{key}_token_id", int)
        for role, key in roles.items()
        if f"tokenizer.ggml.{key}_token_id" in metadata.values
    }
    return byte_level_bpe(
        tokens,
        merges,
        pre=metadata.get("tokenizer.ggml.pre", str),  # files that do not say it were made before it was known
        source=str(path),
        control_ids=[i for i, token_type in enumerate(types) if token_type == _CONTROL],
        added_ids=[i for i, token_type in enumerate(types) if token_type == _USER_DEFINED],
        special_ids=special,
        chat_template=metadata.get("tokenizer.chat_template", str, "") or None,
    )
