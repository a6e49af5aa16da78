"""Candidates as GGUF files: read back as they were, backbones where layers are alike, and what no file can say."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch

from rankitect.data.pre_tokenizers import spelled
from rankitect.data.tokenizer import BPETokenizer, byte_level_bpe
from rankitect.errors import AssetError, SpaceError
from rankitect.graph import Architecture
from rankitect.models.backbone import Backbone, largest
from rankitect.models.candidate.gguf import load_gguf_candidate, save_gguf
from rankitect.models.checkpoints import DecoderCheckpoint, DecoderConfig, load_checkpoint
from rankitect.models.checkpoints.gguf_file import GGUFFile
from rankitect.models.checkpoints.usage import Usage
from rankitect.models.families.blocks import PLAIN
from rankitect.models.gguf_layout import gguf_layout
from rankitect.search_spaces.mobile_llm import from_backbone
from tests.models.checkpoint_files import lively

TINY = DecoderConfig(
    vocab=320, d_model=64, n_layers=3, n_heads=4, n_kv_heads=2, head_dim=32, ffn=96, rope_base=5000.0, context=64
)
IDS = torch.randint(0, 256, (2, 24), generator=torch.Generator().manual_seed(3))
LLAMA3 = ("llama3", 8.0, 1.0, 4.0, 32)


def tokenizer() -> BPETokenizer:
    """A small byte-level tokenizer with merges, special tokens and a chat template."""
    tokens = [*(spelled()[byte] for byte in range(256)), "Ġt", "he", "Ġthe", "<|end|>", "<|turn|>"]
    return byte_level_bpe(
        tokens, ["Ġ t", "h e", "Ġt he"], pre="smollm", source="test", control_ids=[259, 260],
        special_ids={"eos": 259}, chat_template="{{ messages[0].content }}",
    )  # fmt: skip


USAGE = Usage(
    {"eos_token_id": [259, 260], "do_sample": True, "temperature": 0.5, "top_k": 20},
    {"model_max_length": 64},
    {"default": "{{ messages[0].content }}", "tools": "{{ tools }}"},
)


def backbone(**changes: Any) -> Backbone:
    checkpoint = lively(dataclasses.replace(TINY, **changes))
    config = checkpoint.config
    whole = DecoderCheckpoint(config, checkpoint.tensors, tokenizer(), "test", USAGE)
    return Backbone(whole, from_backbone(config, context=32, widths=(48,), ffn_step=32, window=8, sharing=True))


BACKBONE = backbone()


def variant(of: Backbone = BACKBONE, **changes: Any) -> Architecture:
    """The backbone with choices changed: `width=48`, or for all layers `ffn=32`, or for one `ffn_1=32`."""
    values = dict(largest(of.space).choices)
    for path in of.space.choices:
        kind = path.split(".")[-1]
        if path.startswith("layers.") and (one := f"{kind}_{path.split('.')[1]}") in changes:
            values[path] = changes[one]
        elif kind in changes:
            values[path] = changes[kind]
        elif path not in values:
            values[path] = of.space.choices[path].values[0]
    return of.space.architecture(values)


DIFFERENT = variant(ffn_0=32, attn_1="skip", group_2=1, kv_heads_2=1, runs_2=2, width=48)
FIRST_SKIPS = variant(attn_0="skip", ffn_1=32)
UNIFORM = variant(width=48, group=1, ffn=64, runs_0=0, runs_2=2)


def saved(path: Path, architecture: Architecture, of: Backbone = BACKBONE, **options: Any) -> torch.nn.Module:
    model = of.inherit(architecture)
    config = of.checkpoint.config
    save_gguf(path, of.space, architecture, model, tokenizer(), config=config, usage=USAGE, **options)
    return model


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS)


@pytest.mark.parametrize("architecture", [DIFFERENT, FIRST_SKIPS, UNIFORM], ids=["different", "first skips", "uniform"])
def test_what_is_read_is_what_was_written(tmp_path: Path, architecture: Architecture) -> None:
    model = saved(tmp_path / "m.gguf", architecture, precision="float32")
    again = load_gguf_candidate(tmp_path / "m.gguf")
    assert again.architecture == architecture
    assert torch.equal(logits(again.model), logits(model))
    assert again.tokenizer.fingerprint == tokenizer().fingerprint
    assert again.usage.templates == USAGE.templates
    assert again.usage.generation == USAGE.generation
    assert again.usage.stop_ids == (259, 260)


def test_layers_that_differ_are_stated_one_by_one(tmp_path: Path) -> None:
    saved(tmp_path / "m.gguf", DIFFERENT)
    keys = GGUFFile(tmp_path / "m.gguf").metadata
    assert keys["general.architecture"] == "deci"
    assert keys["deci.attention.head_count"] == [4, 0, 1, 1]
    assert keys["deci.attention.head_count_kv"] == [2, 0, 1, 1]
    assert keys["deci.feed_forward_length"] == [32, 96, 96, 96]
    assert "blk.1.attn_q.weight" not in GGUFFile(tmp_path / "m.gguf").tensors


def test_a_file_of_equal_layers_is_a_backbone(tmp_path: Path) -> None:
    model = saved(tmp_path / "m.gguf", UNIFORM, precision="float32")
    checkpoint = load_checkpoint(tmp_path / "m.gguf")
    config = checkpoint.config
    assert (config.family, config.d_model, config.n_layers, config.n_heads, config.ffn) == ("llama", 48, 3, 2, 64)
    again = Backbone(checkpoint, from_backbone(config, context=32, ffn_step=32))
    torch.testing.assert_close(logits(again.inherit(again.largest)), logits(model), rtol=1e-5, atol=1e-5)
    assert checkpoint.usage.chat_template == USAGE.chat_template


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_is_close(tmp_path: Path, precision: str) -> None:
    model = saved(tmp_path / "m.gguf", DIFFERENT, precision=precision)
    again = load_gguf_candidate(tmp_path / "m.gguf")
    assert 0 < float((logits(again.model) - logits(model)).abs().max()) < 0.2


@pytest.mark.parametrize(
    "scaling",
    [LLAMA3, ("linear", 4.0), ("yarn", 4.0, 16, 32.0, 1.0, 1.2, True)],
    ids=["llama3", "linear", "yarn"],
)
def test_scaled_positions_come_back(tmp_path: Path, scaling: tuple[str | float, ...]) -> None:
    scaled = backbone(blocks=dataclasses.replace(PLAIN, rope_scaling=scaling))
    for number, architecture in enumerate([variant(scaled, ffn=32), variant(scaled, ffn_0=32)]):
        model = saved(tmp_path / f"{number}.gguf", architecture, scaled, precision="float32")
        assert torch.equal(logits(load_gguf_candidate(tmp_path / f"{number}.gguf").model), logits(model))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"attn_1": "swa"}, r"its layers see windows, and those of the llama of llama\.cpp do not"),
        (
            {"attn_1": "swa", "ffn_0": 32},
            r"layers\.1 sees the last 8 tokens, and layers of deci see every earlier token",
        ),
        ({"runs": 0}, "no layer is kept"),
    ],
)
def test_what_llama_cpp_does_not_have_is_refused(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(SpaceError, match=reason):
        saved(tmp_path / "m.gguf", variant(**changes))
    assert not (tmp_path / "m.gguf").exists()


GEMMA3: dict[str, Any] = {
    "qk_norm": "head", "score_scale": 32**-0.5, "norm_offset": 1.0, "norms": "both", "act": "gelu_tanh",
    "embed_scale": 8.0, "local_rope_base": 300.0,
}  # fmt: skip


def test_which_layers_see_windows_is_stated_only_where_llama_cpp_would_take_others(tmp_path: Path) -> None:
    blocks = dataclasses.replace(PLAIN, **GEMMA3, windows=(8,) * 5 + (None, 8))
    of = backbone(family="gemma3", n_layers=7, blocks=blocks)
    key, fewer = "gemma3.attention.sliding_window_pattern", variant(of, ffn=64, runs_0=0)
    whole = gguf_layout(of.space, variant(of, ffn=64), of.checkpoint.config)
    assert (whole.architecture, whole.notes) == ("gemma3", ())
    assert key not in dict(whole.stated())
    model = saved(tmp_path / "m.gguf", fewer, of, precision="float32")
    assert GGUFFile(tmp_path / "m.gguf").metadata[key] == [True] * 4 + [False, True]
    (note,) = gguf_layout(of.space, fewer, of.checkpoint.config).notes
    assert "llama-cpp-python 0.3.36" in note
    assert torch.equal(logits(load_gguf_candidate(tmp_path / "m.gguf").model), logits(model))


def test_a_window_as_long_as_the_context_is_none() -> None:
    short = dataclasses.replace(TINY, context=8)
    assert gguf_layout(BACKBONE.space, variant(attn_1="swa", ffn_0=32), short).architecture == "deci"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("deci.rope.freq_base", 10_000.0, r"deci\.rope\.freq_base is 10000\.0, but its own architecture asks for 5000"),
        ("deci.attention.sliding_window", 8, r"sliding_window. is 8, which its own architecture does not state"),
        ("deci.attention.head_count", [4, 0, 2, 1], r"deci\.attention\.head_count is \[4, 0, 2, 1\]"),
        ("rankitect.space", "{}", "make no model"),
        ("rankitect.architecture", None, "does not say which candidate it is"),
        ("rankitect.config", "[]", r"m\.gguf"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(tmp_path: Path, key: str, value: Any, message: str) -> None:
    from rankitect.models.checkpoints import gguf_writing

    saved(tmp_path / "whole.gguf", DIFFERENT)
    file = GGUFFile(tmp_path / "whole.gguf")
    keys = {
        name: one for name, one in file.metadata.items() if name not in ("general.architecture", "general.file_type")
    }
    keys = {name: one for name, one in {**keys, key: value}.items() if one is not None}
    tensors = {name: torch.from_numpy(file.values(entry)) for name, entry in file.tensors.items()}
    gguf_writing.write_gguf(tmp_path / "m.gguf", "deci", keys.items(), tensors, "float32")
    with pytest.raises(AssetError, match=message):
        load_gguf_candidate(tmp_path / "m.gguf")


def test_tensors_of_another_architecture_are_refused(tmp_path: Path) -> None:
    saved(tmp_path / "m.gguf", DIFFERENT, precision="float32")
    data = (tmp_path / "m.gguf").read_bytes()
    (tmp_path / "m.gguf").write_bytes(data.replace(b"blk.0.attn_q.weight", b"blk.1.attn_q.weight"))
    with pytest.raises(AssetError, match=r"the tensor 'blk\.0\.attn_q\.weight' is not of its architecture|'blk"):
        load_gguf_candidate(tmp_path / "m.gguf")


def test_the_package_gguf_reads_what_was_written(tmp_path: Path) -> None:
    saved(tmp_path / "m.gguf", UNIFORM)
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    assert reader.fields["tokenizer.ggml.pre"].contents() == "smollm"
    assert {str(tensor.tensor_type.name) for tensor in reader.tensors} == {"F16", "F32"}
