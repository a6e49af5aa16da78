"""Small checkpoints, and GGUF files of them as llama.cpp's converter writes them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import gguf
import numpy as np
import torch

from rankitect.data.tokenizer import ByteTokenizer
from rankitect.models.checkpoints import DecoderCheckpoint, DecoderConfig, random_checkpoint

TINY = DecoderConfig(
    vocab=300, d_model=64, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=32, ffn=96, rope_base=5000.0, context=128
)
UNTIED = dataclasses.replace(TINY, tied_embeddings=False, n_kv_heads=1, norm_eps=1e-6)


def lively(config: DecoderConfig, seed: int = 0) -> DecoderCheckpoint:
    """A random checkpoint with weights large enough that a wrong rotation or norm shows in the logits."""
    checkpoint = random_checkpoint(config, seed)
    noise = torch.Generator().manual_seed(seed + 1)
    tensors = {
        name: tensor * 4 if tensor.ndim == 2 else tensor + 0.3 * torch.randn(tensor.shape, generator=noise)
        for name, tensor in checkpoint.tensors.items()
    }
    return dataclasses.replace(checkpoint, tensors=tensors)


def some_ids(config: DecoderConfig, rows: int = 2, length: int = 48) -> torch.Tensor:
    return torch.randint(0, config.vocab, (rows, length), generator=torch.Generator().manual_seed(7))


def interleaved(weight: torch.Tensor, heads: int) -> np.ndarray:
    """The rows of q or k as llama.cpp keeps them: neighbours are rotated together."""
    rows, width = weight.shape
    return weight.view(heads, 2, rows // heads // 2, width).transpose(1, 2).reshape(rows, width).numpy()


GGUF_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def gguf_name(name: str) -> str:
    name = name.replace("model.embed_tokens", "token_embd").replace("model.norm", "output_norm")
    name = name.replace("lm_head", "output").replace("model.layers", "blk")
    for theirs, ours in GGUF_NAMES.items():
        name = name.replace(theirs, ours)
    return name


def write_tokenizer(writer: gguf.GGUFWriter, folder: Path) -> None:
    """The keys of a byte-level tokenizer of 258 tokens; its files are made in a folder."""
    folder = folder / "byte-tokenizer"
    folder.mkdir(exist_ok=True)
    ByteTokenizer().save(folder)
    vocab = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    writer.add_token_list([*sorted(vocab, key=vocab.get), "Ġt", "<|end|>"])
    writer.add_token_types([1] * 257 + [3])
    writer.add_token_merges(["Ġ t"])
    writer.add_eos_token_id(257)


def write_gguf(
    path: Path,
    checkpoint: DecoderCheckpoint,
    kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    *,
    architecture: str = "llama",
    leave_out: tuple[str, ...] = (),
    extra: dict[str, np.ndarray] | None = None,
    keys: dict[str, object] | None = None,
) -> Path:
    """Write a checkpoint as GGUF. `keys` replaces or adds keys: booleans, uint32 and text."""
    config = checkpoint.config
    writer = gguf.GGUFWriter(str(path), architecture)
    values: dict[str, object] = {
        "llama.block_count": config.n_layers,
        "llama.context_length": config.context,
        "llama.embedding_length": config.d_model,
        "llama.feed_forward_length": config.ffn,
        "llama.attention.head_count": config.n_heads,
        "llama.attention.head_count_kv": config.n_kv_heads,
        "llama.attention.key_length": config.head_dim,
        "llama.attention.value_length": config.head_dim,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        **(keys or {}),
    }
    for key, value in values.items():
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        else:
            writer.add_string(key, str(value))
    writer.add_rope_freq_base(config.rope_base)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    write_tokenizer(writer, path.parent)
    for name, tensor in checkpoint.tensors.items():
        if name in leave_out:
            continue
        stored = tensor.numpy()
        if "q_proj" in name or "k_proj" in name:
            stored = interleaved(tensor, config.n_heads if "q_proj" in name else config.n_kv_heads)
        if stored.ndim == 2 and kind != gguf.GGMLQuantizationType.F32:
            writer.add_tensor(gguf_name(name), gguf.quantize(stored, kind), raw_dtype=kind)
        else:
            writer.add_tensor(gguf_name(name), stored)
    for name, array in (extra or {}).items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
