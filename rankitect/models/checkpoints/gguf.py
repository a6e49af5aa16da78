"""Pretrained models in GGUF files (llama.cpp's format), weights of any quantization read back as float32."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rankitect.data.tokenizer import BPETokenizer, byte_level_bpe
from rankitect.errors import AssetError
from rankitect.models.checkpoints.checkpoint import DecoderCheckpoint, check_tensors
from rankitect.models.checkpoints.gguf_file import GGUFFile, TensorEntry
from rankitect.models.families import FAMILIES, HEAD, DecoderConfig, Family

if TYPE_CHECKING:
    import torch

__all__ = ["load_gguf"]

_CONTROL = 3
"""The token type of special tokens."""


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
    file = GGUFFile(path)
    metadata = _Metadata(file)
    family = _family(metadata)
    config = _config(family, metadata, file.tensors)
    tensors = dict(_tensor(file, entry, family, config) for entry in file.tensors.values())
    check_tensors(config, tensors, str(path))
    tokenizer = _tokenizer(metadata, config.vocab)
    return DecoderCheckpoint(config, tensors, tokenizer, source or str(path))


class _Metadata:
    """Typed access to a file's keys, with errors that name file, key and what was found."""

    def __init__(self, file: GGUFFile) -> None:
        self.path = file.path
        self.values = file.metadata

    def get(self, key: str, kind: type, default: Any = None) -> Any:
        """The value of a key.

        Raises:
            AssetError: The key is missing and has no default, or its value is of another type.
        """
        value = self.values.get(key, default)
        if value is None:
            raise AssetError(f"{self.path}: the key {key!r} is missing from the GGUF metadata.")
        if not isinstance(value, kind):
            held = "a list" if isinstance(value, list) else repr(value)
            raise AssetError(
                f"{self.path}: the key {key!r} holds {held}; supported is one value of type {kind.__name__}."
            )
        return value


def _family(metadata: _Metadata) -> Family:
    architecture = metadata.get("general.architecture", str)
    by_architecture = {family.gguf.architecture: family for family in FAMILIES.values()}
    if architecture not in by_architecture:
        supported = ", ".join(map(repr, by_architecture))
        raise AssetError(f"{metadata.path} holds a model of architecture {architecture!r}. Supported: {supported}.")
    return by_architecture[architecture]


def _config(family: Family, metadata: _Metadata, tensors: dict[str, TensorEntry]) -> DecoderConfig:
    path, prefix = metadata.path, family.gguf.architecture

    def get(key: str, kind: type, default: Any = None) -> Any:
        return metadata.get(f"{prefix}.{key}", kind, default)

    _refuse_variants(family, metadata, tensors)
    if family.embedding.gguf not in tensors:
        raise AssetError(f"{path}: the tensor {family.embedding.gguf!r} is missing.")
    width, heads = get("embedding_length", int), get("attention.head_count", int)
    head_dim = get("attention.key_length", int, width // max(heads, 1))
    if get("attention.value_length", int, head_dim) != head_dim:
        raise AssetError(f"{path}: keys and values of different width are not supported.")
    if get("rope.dimension_count", int, head_dim) != head_dim:
        raise AssetError(f"{path}: RoPE on a part of the head is not supported, only on all {head_dim} dimensions.")
    return _checked(
        path,
        vocab=tensors[family.embedding.gguf].shape[0],
        d_model=width,
        n_layers=get("block_count", int),
        n_heads=heads,
        n_kv_heads=get("attention.head_count_kv", int, heads),
        head_dim=head_dim,
        ffn=get("feed_forward_length", int),
        rope_base=_shortest(get("rope.freq_base", float, 10_000.0)),
        norm_eps=_shortest(get("attention.layer_norm_rms_epsilon", float)),
        tied_embeddings=family.head.gguf not in tensors,
        context=get("context_length", int),
        family=family.name,
    )


def _refuse_variants(family: Family, metadata: _Metadata, tensors: dict[str, TensorEntry]) -> None:
    """Refuse what would compute something else than the family's blocks do."""
    path, prefix = metadata.path, family.gguf.architecture
    if metadata.get(f"{prefix}.expert_count", int, 0):
        raise AssetError(f"{path}: mixtures of experts are not supported, only dense {family.title} models.")
    scaling = metadata.get(f"{prefix}.rope.scaling.type", str, "none")
    if scaling != "none" or "rope_freqs.weight" in tensors:
        raise AssetError(
            f"{path}: scaled RoPE ({scaling if scaling != 'none' else 'rope_freqs'}) is not supported, only plain RoPE."
        )
    if metadata.get(f"{prefix}.attention.sliding_window", int, 0):
        raise AssetError(f"{path}: a backbone with sliding-window attention is not supported, only full attention.")


def _checked(path: Path, **sizes: Any) -> DecoderConfig:
    """The config of these sizes; what is wrong with them is said with the file's name."""
    try:
        return DecoderConfig(**sizes)
    except AssetError as error:
        raise AssetError(f"{path}: {error}") from error


def _shortest(value: float) -> float:
    """The decimal number that was meant by a value stored as float32 (1e-05, not 9.99999974e-06)."""
    return float(str(np.float32(value)))


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


def _tokenizer(metadata: _Metadata, vocab: int) -> BPETokenizer:
    path = metadata.path
    kind = metadata.get("tokenizer.ggml.model", str)
    if kind != "gpt2":
        raise AssetError(
            f"{path}: its tokenizer is of kind {kind!r}. Supported: 'gpt2' (byte-level BPE). Use the model's Hugging "
            "Face folder, whose tokenizer.json may be of any kind."
        )
    tokens = metadata.get("tokenizer.ggml.tokens", list)
    if len(tokens) > vocab:
        raise AssetError(f"{path}: the tokenizer has {len(tokens)} tokens, but the embedding has only {vocab} rows.")
    types = metadata.get("tokenizer.ggml.token_type", list, [1] * len(tokens))
    roles = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    special = {
        role: metadata.get(f"tokenizer.ggml.{key}_token_id", int)
        for role, key in roles.items()
        if f"tokenizer.ggml.{key}_token_id" in metadata.values
    }
    return byte_level_bpe(
        tokens,
        metadata.get("tokenizer.ggml.merges", list),
        pre=metadata.get("tokenizer.ggml.pre", str, "gpt-2"),
        source=str(path),
        control_ids=[i for i, token_type in enumerate(types) if token_type == _CONTROL],
        special_ids=special,
        chat_template=metadata.get("tokenizer.chat_template", str, "") or None,
    )
