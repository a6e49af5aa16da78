"""GGUF files of every family, as llama.cpp's converter writes them: the weights and the configuration are those of the
Hugging Face folder. Names of tensors are looked up in the `gguf` package, which the converter uses too."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch

from rankitect.errors import AssetError
from rankitect.models.checkpoints import DecoderCheckpoint, DecoderConfig, load_checkpoint
from rankitect.models.checkpoints.fused import fused
from rankitect.models.families import FAMILIES, PLAIN
from tests.models.checkpoint_files import interleaved, lively, write_tokenizer

SIZES = DecoderConfig(vocab=300, d_model=32, n_layers=4, n_heads=4, n_kv_heads=2, head_dim=16, ffn=48, context=64)
LLAMA3 = ("llama3", 32.0, 1.0, 4.0, 8192)
YARN = ("yarn", 4.0, 16, 32.0, 1.0, 0.1 * math.log(4.0) + 1.0, True)


def model(family: str, **blocks: Any) -> DecoderCheckpoint:
    """A random model of a family."""
    own = FAMILIES[family].blocks
    stated: dict[str, Any] = {}
    if family == "gemma3":
        stated = {"windows": (8, 8, 8, 8), "local_rope_base": 1e4, "embed_scale": 32**0.5, "score_scale": 16**-0.5}
    if family == "smollm3":
        stated = {"rotary": (True, True, True, False)}
    if family == "phi3":
        stated = {"windows": (7,) * 4}
    config = dataclasses.replace(SIZES, family=family, blocks=dataclasses.replace(own, **{**stated, **blocks}))
    return lively(dataclasses.replace(config, tied_embeddings=family in ("gemma3", "qwen3", "smollm3")))


def write(path: Path, checkpoint: DecoderCheckpoint, keys: dict[str, Any], factors: torch.Tensor | None = None) -> Path:
    """A file as llama.cpp's convert_hf_to_gguf.py writes it."""
    config, layout = checkpoint.config, FAMILIES[checkpoint.config.family].gguf
    arch = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}[layout.architecture]
    names = gguf.get_tensor_name_map(arch, config.n_layers)
    writer = gguf.GGUFWriter(str(path), layout.architecture)
    writer.add_block_count(config.n_layers)
    writer.add_context_length(config.context)
    writer.add_embedding_length(config.d_model)
    writer.add_feed_forward_length(config.ffn)
    writer.add_head_count(config.n_heads)
    writer.add_head_count_kv(config.n_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_freq_base(config.rope_base)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    for key, value in keys.items():
        add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, list: writer.add_array}
        add.get(type(value), writer.add_string)(f"{layout.architecture}.{key}", value)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    write_tokenizer(writer, path.parent)
    for name, tensor in fused(checkpoint.tensors, config).items():
        stored = tensor.numpy()
        if layout.architecture in ("llama", "smollm3") and name.endswith(("q_proj.weight", "k_proj.weight")):
            stored = interleaved(tensor, config.n_heads if "q_proj" in name else config.n_kv_heads)
        if layout.architecture == "gemma3" and name.endswith("norm.weight"):
            stored = stored + 1
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), stored)
    if factors is not None:
        writer.add_tensor("rope_freqs.weight", factors.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


MODELS: dict[str, tuple[DecoderCheckpoint, dict[str, Any]]] = {
    "llama": (model("llama"), {"rope.dimension_count": 16, "vocab_size": 300}),
    "llama-linear": (
        model("llama", rope_scaling=("linear", 4.0)),
        {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0},
    ),
    "smollm3": (model("smollm3"), {}),
    "qwen2": (model("qwen2"), {}),
    "qwen2-yarn": (
        model("qwen2", rope_scaling=YARN),
        {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 16},
    ),
    "qwen3": (model("qwen3"), {}),
    "gemma3": (model("gemma3"), {"attention.sliding_window": 8}),
    "gemma3-scaled": (
        model("gemma3", rope_scaling=("linear", 8.0), windows=(8, None, 8, None), local_rope_base=5000.0),
        {
            "attention.sliding_window": 8,
            "attention.sliding_window_pattern": 2,
            "rope.freq_base_swa": 5000.0,
            "rope.scaling.type": "linear",
            "rope.scaling.factor": 8.0,
        },
    ),
    "gemma3-listed": (
        model("gemma3", windows=(None, 8, None, 8)),
        {"attention.sliding_window": 8, "attention.sliding_window_pattern": [False, True, False, True]},
    ),
    "olmo2": (model("olmo2"), {}),
    "phi3": (
        model("phi3"),
        {"attention.sliding_window": 7, "rope.scaling.original_context_length": 64, "rope.dimension_count": 16},
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_file_holds_what_the_folder_holds(name: str, tmp_path: Path) -> None:
    checkpoint, keys = MODELS[name]
    loaded = load_checkpoint(write(tmp_path / "model.gguf", checkpoint, keys))
    assert loaded.config == checkpoint.config
    assert loaded.tensors.keys() == checkpoint.tensors.keys()
    for tensor_name, tensor in checkpoint.tensors.items():
        torch.testing.assert_close(loaded.tensors[tensor_name], tensor, rtol=0, atol=1e-6)


def factors_of(checkpoint: DecoderCheckpoint, factor: float, low: float, high: float, original: float) -> torch.Tensor:
    """What llama.cpp's converter writes for a Llama 3."""
    factors = []
    for i in range(0, checkpoint.config.head_dim, 2):
        wave = 2 * math.pi * checkpoint.config.rope_base ** (i / checkpoint.config.head_dim)
        smooth = (original / wave - low) / (high - low)
        between = 1 / ((1 - smooth) / factor + smooth)
        factors.append(1.0 if wave < original / high else factor if wave > original / low else between)
    return torch.tensor(factors, dtype=torch.float32)


def test_the_scaling_of_a_llama_3_is_told_by_its_factors(tmp_path: Path) -> None:
    config = dataclasses.replace(SIZES, rope_base=500_000.0, blocks=dataclasses.replace(PLAIN, rope_scaling=LLAMA3))
    checkpoint = lively(config)
    factors = factors_of(checkpoint, 32.0, 1.0, 4.0, 8192)
    assert load_checkpoint(write(tmp_path / "model.gguf", checkpoint, {}, factors)).config == config
    others = factors_of(checkpoint, 32.0, 1.0, 2.0, 8192)
    with pytest.raises(AssetError, match="by other factors than those of Llama 3"):
        load_checkpoint(write(tmp_path / "other.gguf", checkpoint, {}, others))


@pytest.mark.parametrize(
    ("name", "key", "value", "message"),
    [
        ("llama", "attention.sliding_window", 8, "llama.attention.sliding_window is 8. Supported: 0."),
        ("olmo2", "attention.sliding_window", 8, "olmo2.attention.sliding_window is 8. Supported: 0."),
        ("gemma3", "attention.sliding_window_pattern", [True], "must be a number, or true or false for each of 4"),
        ("gemma3", "attn_logit_softcapping", 50.0, "gemma3.attn_logit_softcapping is 50.0"),
        ("gemma3", "attention.scale", 0.5, "gemma3.attention.scale is 0.5"),
        ("qwen2", "rope.scaling.type", "longrope", "rope.scaling.type is 'longrope'. Supported: 'none' or"),
        ("qwen2-yarn", "rope.scaling.factor", 0.5, "YaRN needs a factor of at least 1"),
        ("qwen2-yarn", "rope.scaling.yarn_beta_fast", 8.0, "rope.scaling.yarn_beta_fast' is 8.0"),
        ("phi3", "expert_count", 16, "phi3.expert_count is 16. Supported: 0."),
    ],
)
def test_what_a_family_does_not_compute_is_refused(
    name: str, key: str, value: Any, message: str, tmp_path: Path
) -> None:
    checkpoint, keys = MODELS[name]
    with pytest.raises(AssetError) as caught:
        load_checkpoint(write(tmp_path / "model.gguf", checkpoint, {**keys, key: value}))
    assert message in str(caught.value)
