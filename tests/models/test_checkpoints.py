"""Checkpoints: what is loaded computes what the original computes, and what cannot be loaded says why."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import pydoc_data.topics
import re
import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from rankitect.data.tokenizer import ByteTokenizer
from rankitect.errors import AssetError
from rankitect.models.checkpoints import (
    DecoderConfig,
    load_checkpoint,
    random_checkpoint,
    save_huggingface,
    tensor_shapes,
)
from tests.models.checkpoint_files import TINY, UNTIED, lively, some_ids, write_gguf
from tests.models.reference import ReferenceLlama, perplexity


def logits_of_transformers(folder: Path, ids: torch.Tensor) -> torch.Tensor:
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
    assert model.dtype == torch.float32
    with torch.no_grad():
        return model(ids).logits


# What is loaded is what was saved


@pytest.mark.parametrize("config", [TINY, UNTIED], ids=["tied", "untied"])
def test_saved_folder_has_the_same_logits_in_transformers(tmp_path: Path, config: DecoderConfig) -> None:
    checkpoint = lively(config)
    save_huggingface(tmp_path, config, checkpoint.tensors, checkpoint.tokenizer)
    ids = some_ids(config)
    with torch.no_grad():
        ours = ReferenceLlama.load(checkpoint)(ids)
    theirs = logits_of_transformers(tmp_path, ids)
    assert ours.std() > 0.1
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_saved_folder_is_read_back_bit_for_bit(tmp_path: Path) -> None:
    checkpoint = lively(UNTIED)
    save_huggingface(tmp_path / "new" / "folder", UNTIED, checkpoint.tensors, checkpoint.tokenizer)
    again = load_checkpoint(tmp_path / "new" / "folder")
    assert again.config == UNTIED
    assert list(again.tensors) == list(tensor_shapes(UNTIED)) or set(again.tensors) == set(tensor_shapes(UNTIED))
    assert all(torch.equal(again.tensors[name], checkpoint.tensors[name]) for name in checkpoint.tensors)
    assert again.tokenizer.fingerprint == checkpoint.tokenizer.fingerprint
    assert again.source == str(tmp_path / "new" / "folder")
    assert sorted(file.name for file in (tmp_path / "new" / "folder").iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_saving_slices_of_a_larger_tensor_stores_only_the_slices(tmp_path: Path) -> None:
    large = lively(dataclasses.replace(TINY, ffn=96))
    small = dataclasses.replace(TINY, ffn=32)
    slices = {name: t[tuple(slice(n) for n in tensor_shapes(small)[name])] for name, t in large.tensors.items()}
    save_huggingface(tmp_path, small, slices, large.tokenizer)
    stored = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(stored[name], slices[name]) for name in slices)
    assert (tmp_path / "model.safetensors").stat().st_size < 4 * sum(t.numel() for t in slices.values()) + 8192


def test_transformers_reads_the_saved_tokenizer(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    checkpoint = load_checkpoint(write_gguf(tmp_path / "tiny.gguf", lively(TINY)))
    save_huggingface(tmp_path / "folder", checkpoint.config, checkpoint.tensors, checkpoint.tokenizer)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "folder", local_files_only=True)
    text = "to tea: 42 naïve\n  tt"
    assert theirs(text).input_ids == checkpoint.tokenizer.encode(text).tolist()
    assert theirs.eos_token_id == 257
    assert theirs.decode(theirs(text).input_ids) == text


@pytest.mark.parametrize("config", [TINY, UNTIED], ids=["tied", "untied"])
def test_gguf_in_float32_is_read_bit_for_bit(tmp_path: Path, config: DecoderConfig) -> None:
    checkpoint = lively(config)
    again = load_checkpoint(write_gguf(tmp_path / "tiny.gguf", checkpoint))
    assert again.config == config
    assert set(again.tensors) == set(checkpoint.tensors)
    assert all(torch.equal(again.tensors[name], checkpoint.tensors[name]) for name in checkpoint.tensors)
    assert again.tokenizer.encode("a t").tolist() == [97, 256]
    assert again.tokenizer.special_ids["eos"] == 257


@pytest.mark.parametrize(("kind", "tolerance"), [("F16", 1e-3), ("BF16", 8e-3), ("Q8_0", 1.5e-2), ("Q4_1", 0.3)])
def test_quantized_gguf_is_read_close_to_the_original(tmp_path: Path, kind: str, tolerance: float) -> None:
    checkpoint = lively(TINY)
    path = write_gguf(tmp_path / "tiny.gguf", checkpoint, gguf.GGMLQuantizationType[kind])
    again = load_checkpoint(path)
    assert again.config == TINY
    for name, tensor in checkpoint.tensors.items():
        assert again.tensors[name].dtype == torch.float32
        assert (again.tensors[name] - tensor).abs().max() <= tolerance * tensor.abs().max(), name
    ids = some_ids(TINY)
    with torch.no_grad():
        full, quantized = ReferenceLlama.load(checkpoint)(ids), ReferenceLlama.load(again)(ids)
    assert (full - quantized).std() <= tolerance * 4 * full.std()


def test_gguf_agrees_with_the_gguf_package(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", lively(TINY), gguf.GGMLQuantizationType.Q8_0)
    theirs = {t.name: gguf.dequantize(t.data, t.tensor_type) for t in gguf.GGUFReader(path).tensors}
    ours = load_checkpoint(path).tensors
    np.testing.assert_array_equal(ours["model.embed_tokens.weight"].numpy(), theirs["token_embd.weight"])
    down = "model.layers.1.mlp.down_proj.weight"
    np.testing.assert_array_equal(ours[down].numpy(), theirs["blk.1.ffn_down.weight"])


def test_random_checkpoint_is_the_same_for_the_same_seed_and_sensible() -> None:
    first, same, other = random_checkpoint(TINY, 3), random_checkpoint(TINY, 3), random_checkpoint(TINY, 4)
    assert all(torch.equal(first.tensors[name], same.tensors[name]) for name in first.tensors)
    assert not torch.equal(first.tensors["model.embed_tokens.weight"], other.tensors["model.embed_tokens.weight"])
    assert {name: tuple(t.shape) for name, t in first.tensors.items()} == tensor_shapes(TINY)
    model = ReferenceLlama.load(first)
    assert sum(p.numel() for p in model.parameters()) == first.n_params
    assert perplexity(model, some_ids(TINY, 4)) == pytest.approx(TINY.vocab, rel=0.2)  # it knows nothing yet


def test_sharded_and_half_precision_folders_are_read(tmp_path: Path) -> None:
    checkpoint = lively(TINY)
    save_huggingface(tmp_path, TINY, checkpoint.tensors, checkpoint.tokenizer)
    (tmp_path / "model.safetensors").unlink()
    names = list(checkpoint.tensors)
    parts = {"a.safetensors": names[:7], "b.safetensors": names[7:]}
    for file, members in parts.items():
        save_file({name: checkpoint.tensors[name].to(torch.bfloat16) for name in members}, tmp_path / file)
    weight_map = {name: file for file, members in parts.items() for name in members}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    again = load_checkpoint(str(tmp_path))
    assert all(torch.equal(again.tensors[n], checkpoint.tensors[n].to(torch.bfloat16).float()) for n in names)
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(AssetError, match=re.escape("has no b.safetensors, which model.safetensors.index.json names")):
        load_checkpoint(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "../b.safetensors"}}))
    with pytest.raises(AssetError, match=r"must be a \.safetensors file in the same folder"):
        load_checkpoint(tmp_path)


def test_folder_of_transformers_is_read(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=256, hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=64
    )
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).eval()
    model.save_pretrained(tmp_path)
    ByteTokenizer().save(tmp_path)
    checkpoint = load_checkpoint(tmp_path)
    assert (checkpoint.config.n_kv_heads, checkpoint.config.head_dim) == (3, 16)
    ids = some_ids(checkpoint.config)
    with torch.no_grad():
        torch.testing.assert_close(ReferenceLlama.load(checkpoint)(ids), model(ids).logits, atol=1e-4, rtol=0)


# What cannot be loaded says why


def test_unknown_name_lists_what_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(AssetError, match=r"There is no checkpoint 'smollm3'.*smollm2-135m.*\.gguf file.*config\.json"):
        load_checkpoint("smollm3")
    stray = tmp_path / "model.bin"
    stray.write_bytes(b"x")
    with pytest.raises(AssetError, match="is not a checkpoint that can be loaded"):
        load_checkpoint(stray)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "bert"}, "holds a model of architecture 'bert'. Supported: "),
        ({"architecture": "qwen2moe"}, "architecture 'qwen2moe', a mixture of experts, which is not supported."),
        ({"leave_out": ("model.layers.1.mlp.up_proj.weight",)}, "1 tensor of 20 missing: model.layers.1.mlp.up_proj"),
        ({"extra": {"blk.0.attn_q.bias": np.ones(128, np.float32)}}, "does not have: blk.0.attn_q.bias. Adapters"),
        (
            {"extra": {"rope_freqs.weight": np.full(16, 2, np.float32)}},
            "(the tensor rope_freqs.weight) by other",
        ),
        ({"keys": {"llama.rope.scaling.type": "su"}}, "llama.rope.scaling.type is 'su'. Supported: 'none' or"),
        ({"keys": {"llama.expert_count": 8}}, "llama.expert_count is 8. Supported: 0."),
        ({"keys": {"llama.feed_forward_length": 64}}, "has shape (96, 64), but its configuration asks for (64, 64)"),
        ({"keys": {"llama.attention.head_count": 3}}, "n_heads is 3, it must be a multiple of n_kv_heads, 2"),
        ({"keys": {"llama.block_count": 2_000_000_000}}, "announces 2000000000 layers, it holds 20 tensors"),
        ({"keys": {"llama.attention.head_count": "4"}}, "llama.attention.head_count is '4'; it must be an integer"),
        ({"keys": {"tokenizer.ggml.model": "bert"}}, "tokenizer is of kind 'bert'. Supported: 'gpt2'"),
        ({"keys": {"tokenizer.ggml.model": "llama"}}, "the GGUF metadata holds no tokenizer.ggml.scores"),
        ({"keys": {"tokenizer.ggml.pre": "bloom"}}, "pre-tokenizer 'bloom' is not supported. Supported: gpt-2, "),
    ],
)
def test_unsupported_gguf_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", lively(TINY), **change)  # type: ignore[arg-type]
    with pytest.raises(AssetError, match=re.escape(message)) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)


@pytest.fixture(scope="module")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", lively(TINY), gguf.GGMLQuantizationType.Q8_0)


@settings(max_examples=40, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True))
def test_truncated_gguf_is_refused_wherever_it_is_cut(tiny_gguf: Path, share: float) -> None:
    whole = tiny_gguf.read_bytes()
    cut = tiny_gguf.with_name("cut.gguf")
    cut.write_bytes(whole[: int(share * (len(whole) - 64))])
    with pytest.raises(AssetError, match=r"truncated or damaged|is not a GGUF file|cannot be read"):
        load_checkpoint(cut)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_altered_gguf_table_is_read_or_refused_but_never_crashes(tiny_gguf: Path, data: st.DataObject) -> None:
    whole = bytearray(tiny_gguf.read_bytes())
    for _ in range(3):
        whole[data.draw(st.integers(0, 6000))] = data.draw(st.integers(0, 255))
    altered = tiny_gguf.with_name("altered.gguf")
    altered.write_bytes(whole)
    with contextlib.suppress(AssetError):
        load_checkpoint(altered)


def test_gguf_of_another_version_or_kind_is_refused(tiny_gguf: Path, tmp_path: Path) -> None:
    whole = tiny_gguf.read_bytes()
    (tmp_path / "old.gguf").write_bytes(whole[:4] + struct.pack("<I", 1) + whole[8:])
    with pytest.raises(AssetError, match=r"is of GGUF version 1\. Supported: 2 and 3, little-endian"):
        load_checkpoint(tmp_path / "old.gguf")
    (tmp_path / "big.gguf").write_bytes(whole[:4] + struct.pack(">I", 3) + whole[8:])
    with pytest.raises(AssetError, match="written for big-endian machines"):
        load_checkpoint(tmp_path / "big.gguf")
    (tmp_path / "page.gguf").write_bytes(b"<html>Not found</html>")
    with pytest.raises(AssetError, match="is not a GGUF file: it begins with b'<htm'"):
        load_checkpoint(tmp_path / "page.gguf")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gemma2"}, "The nearest to it is 'gemma3'."),
        ({"model_type": "gpt2"}, "model_type is 'gpt2'. Supported: 'llama', "),
        ({"model_type": "qwen3_moe"}, "model_type is 'qwen3_moe', a mixture of experts, which is not supported."),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5}}, "rope_parameters.factor is missing"),
        (
            {"rope_scaling": {"type": "longrope", "factor": 2.0}},
            "rope_scaling.type is 'longrope'. Supported: 'default'",
        ),
        ({"attention_bias": True}, "attention_bias is True. Supported: False."),
        ({"mlp_bias": True}, "mlp_bias is True. Supported: False."),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'. Supported: 'silu' or 'swish'."),
        (
            {"quantization_config": {"bits": 4}},
            "'quantization_config' is {'bits': 4}, and no Llama that is",
        ),
        ({"intermediate_size": [32, 96]}, "intermediate_size is [32, 96]; it must be an integer"),
        ({"hidden_size": 0}, "hidden_size is 0; it must be an integer from 1 to"),
        ({"num_hidden_layers": 3}, "9 tensors of 29 missing: model.layers.2.input_layernorm.weight"),
        ({"tie_word_embeddings": False}, "1 tensor of 21 missing: lm_head.weight"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps is 'small'; it must be a number from"),
    ],
)
def test_unsupported_folder_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    checkpoint = lively(TINY)
    save_huggingface(tmp_path, TINY, checkpoint.tensors, checkpoint.tokenizer)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(AssetError, match=re.escape(message)) as caught:
        load_checkpoint(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_damaged_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssetError, match=r"has no config\.json, so it is not a Hugging Face model folder"):
        load_checkpoint(tmp_path)
    checkpoint = lively(TINY)
    save_huggingface(tmp_path, TINY, checkpoint.tensors, checkpoint.tokenizer)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.raises(AssetError, match="is truncated or damaged"):
        load_checkpoint(tmp_path)
    save_file({"x": torch.zeros(2, dtype=torch.int8)}, weights)
    with pytest.raises(AssetError, match=r"'x' is stored as torch\.int8\. Supported: float32"):
        load_checkpoint(tmp_path)
    weights.unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(AssetError, match=r"Pickled weights .* are not read"):
        load_checkpoint(tmp_path)
    weights.write_bytes(whole)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(AssetError, match=r"tokenizer\.json is no JSON"):
        load_checkpoint(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(AssetError, match=r"has no tokenizer\.json"):
        load_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(AssetError, match=r"config\.json is no JSON"):
        load_checkpoint(tmp_path)


def test_wrong_tensors_are_not_saved(tmp_path: Path) -> None:
    tensors = dict(lively(TINY).tensors)
    tensors["model.norm.weight"] = torch.full((64,), math.nan)
    with pytest.raises(AssetError, match=r"model\.norm\.weight holds values that are not finite numbers"):
        save_huggingface(tmp_path / "out", TINY, tensors)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_kv_heads": 3}, "n_heads is 4"),
        ({"head_dim": 15}, "head_dim is 15, it must be even"),
        ({"vocab": 0}, "vocab"),
    ],
)
def test_impossible_config_is_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(AssetError, match=message):
        dataclasses.replace(TINY, **change)


def test_random_checkpoint_needs_room_for_bytes() -> None:
    with pytest.raises(AssetError, match="vocab is 255, a random checkpoint needs at least 256"):
        random_checkpoint(dataclasses.replace(TINY, vocab=255), 0)


# The real model


@pytest.mark.slow
def test_smollm2_equals_transformers_and_knows_english(tmp_path: Path) -> None:
    checkpoint = load_checkpoint("smollm2-135m")
    assert checkpoint.config == DecoderConfig(
        49152, 576, 30, 9, 3, 64, 1536, rope_base=100_000.0, norm_eps=1e-5, tied_embeddings=True, context=8192
    )
    assert checkpoint.n_params == 134_515_008
    tokens = checkpoint.tokenizer.encode("\n\n".join(pydoc_data.topics.topics.values())[:10_000])
    ids = torch.from_numpy(tokens[: 6 * 128].astype(np.int64)).view(6, 128)
    model = ReferenceLlama.load(checkpoint)
    assert 10 < perplexity(model, ids) < 30  # a wrong rotation or tokenizer gives hundreds
    save_huggingface(tmp_path, checkpoint.config, checkpoint.tensors, checkpoint.tokenizer)
    with torch.no_grad():
        ours = model(ids[:2])
    torch.testing.assert_close(ours, logits_of_transformers(tmp_path, ids[:2]), atol=1e-3, rtol=0)
