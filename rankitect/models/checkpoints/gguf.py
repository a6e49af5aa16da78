"""Llama models in GGUF files (llama.cpp's format), weights of any quantization read back as float32."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rankitect.data.tokenizer import BPETokenizer, byte_level_bpe
from rankitect.errors import AssetError
from rankitect.models.checkpoints.gguf_file import GGUFFile, TensorEntry
from rankitect.models.checkpoints.llama import LlamaCheckpoint, LlamaConfig, check_tensors

if TYPE_CHECKING:
    import torch

__all__ = ["load_gguf"]

_CONTROL = 3
"""The token type of special tokens."""

_GLOBAL = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def load_gguf(path: Path, source: str | None = None) -> LlamaCheckpoint:
    """Load a Llama model from a GGUF file.

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
    config = _config(metadata, file.tensors)
    tensors = {_huggingface_name(name): _tensor(file, entry, config) for name, entry in file.tensors.items()}
    check_tensors(config, tensors, str(path))
    tokenizer = _tokenizer(metadata, config.vocab)
    return LlamaCheckpoint(config, tensors, tokenizer, source or str(path))


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
            found = "a list" if isinstance(value, list) else repr(value)
            raise AssetError(
                f"{self.path}: the key {key!r} holds {found}; supported is one value of type {kind.__name__}."
            )
        return value


def _config(metadata: _Metadata, tensors: dict[str, TensorEntry]) -> LlamaConfig:
    path = metadata.path
    architecture = metadata.get("general.architecture", str)
    if architecture != "llama":
        raise AssetError(f"{path} holds a model of architecture {architecture!r}. Supported: 'llama'.")
    if metadata.get("llama.expert_count", int, 0):
        raise AssetError(f"{path}: mixtures of experts are not supported, only dense Llama models.")
    scaling = metadata.get("llama.rope.scaling.type", str, "none")
    if scaling != "none" or "rope_freqs.weight" in tensors:
        raise AssetError(
            f"{path}: scaled RoPE ({scaling if scaling != 'none' else 'rope_freqs'}) is not supported, only plain RoPE."
        )
    if metadata.get("llama.attention.sliding_window", int, 0):
        raise AssetError(f"{path}: a backbone with sliding-window attention is not supported, only full attention.")
    if "token_embd.weight" not in tensors:
        raise AssetError(f"{path}: the tensor 'token_embd.weight' is missing.")
    width, heads = metadata.get("llama.embedding_length", int), metadata.get("llama.attention.head_count", int)
    head_dim = metadata.get("llama.attention.key_length", int, width // max(heads, 1))
    if metadata.get("llama.attention.value_length", int, head_dim) != head_dim:
        raise AssetError(f"{path}: keys and values of different width are not supported.")
    if metadata.get("llama.rope.dimension_count", int, head_dim) != head_dim:
        raise AssetError(f"{path}: RoPE on a part of the head is not supported, only on all {head_dim} dimensions.")
    numbers: dict[str, Any] = {
        "vocab": tensors["token_embd.weight"].shape[0],
        "d_model": width,
        "n_layers": metadata.get("llama.block_count", int),
        "n_heads": heads,
        "n_kv_heads": metadata.get("llama.attention.head_count_kv", int, heads),
        "head_dim": head_dim,
        "ffn": metadata.get("llama.feed_forward_length", int),
        "rope_base": _shortest(metadata.get("llama.rope.freq_base", float, 10_000.0)),
        "norm_eps": _shortest(metadata.get("llama.attention.layer_norm_rms_epsilon", float)),
        "tied_embeddings": "output.weight" not in tensors,
        "context": metadata.get("llama.context_length", int),
    }
    try:
        return LlamaConfig(**numbers)
    except AssetError as error:
        raise AssetError(f"{path}: {error}") from error


def _shortest(value: float) -> float:
    """The decimal number that was meant by a value stored as float32 (1e-05, not 9.99999974e-06)."""
    return float(str(np.float32(value)))


def _huggingface_name(name: str) -> str:
    """The Hugging Face name of a GGUF tensor, or its own name if there is none (it is then reported as unexpected)."""
    parts = name.split(".")
    if len(parts) == 2 and parts[0] in _GLOBAL and parts[1] == "weight":
        return f"{_GLOBAL[parts[0]]}.weight"
    if len(parts) == 4 and parts[0] == "blk" and parts[2] in _LAYER and parts[3] == "weight":
        return f"model.layers.{parts[1]}.{_LAYER[parts[2]]}.weight"
    return name


def _tensor(file: GGUFFile, entry: TensorEntry, config: LlamaConfig) -> torch.Tensor:
    import torch

    weight, shape = torch.from_numpy(file.values(entry)), entry.shape
    heads = config.n_heads if entry.name.endswith("attn_q.weight") else config.n_kv_heads
    rotated = entry.name.endswith(("attn_q.weight", "attn_k.weight"))
    if rotated and len(shape) == 2 and shape[0] == heads * config.head_dim:  # check_tensors reports any other shape
        # llama.cpp interleaves the two halves of each head's rows, because its RoPE rotates neighbours, not halves
        weight = weight.view(heads, config.head_dim // 2, 2, shape[1]).transpose(1, 2).reshape(shape)
    return weight


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
