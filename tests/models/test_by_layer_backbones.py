"""Models whose layers differ as backbones: read back from every format, pruned again, and equal again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from rankitect.data.tokenizer import ByteTokenizer
from rankitect.errors import AssetError, SpaceError
from rankitect.graph import Architecture, SearchSpace
from rankitect.models.backbone import Backbone, largest
from rankitect.models.candidate import load_backbone, save_candidate
from rankitect.models.candidate.gguf import save_gguf
from rankitect.models.candidate.huggingface import WholeModel, save_decilm
from rankitect.models.checkpoints import (
    DecoderCheckpoint,
    DecoderConfig,
    gguf_writing,
    load_checkpoint,
    random_checkpoint,
)
from rankitect.models.checkpoints.gguf_file import GGUFFile
from rankitect.models.checkpoints.huggingface_config import read_config
from rankitect.models.checkpoints.usage import Usage
from rankitect.models.families import FAMILIES, LayerSizes, axes, family_of
from rankitect.models.importance import gather
from rankitect.models.supernet import Standalone, Supernet
from rankitect.search_spaces.mobile_llm import from_backbone
from tests.models.checkpoint_files import lively

TINY = DecoderConfig(
    vocab=256, d_model=32, n_layers=4, n_heads=4, n_kv_heads=2, head_dim=8, ffn=48, rope_base=5000.0, context=64
)
IDS = torch.randint(0, 256, (2, 20), generator=torch.Generator().manual_seed(3))
MIXED = tuple(LayerSizes(*one) for one in [(2, 2, 48), (0, 0, 32), (1, 2, 16, 2), (2, 1, 48)])


def space_of(config: DecoderConfig, patterns: tuple[str, ...] = ("full", "swa", "skip")) -> SearchSpace:
    return from_backbone(config, context=16, widths=(24,), ffn_step=16, window=6, sharing=True, patterns=patterns)


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return torch.as_tensor(model(IDS))


def rebuilt(checkpoint: DecoderCheckpoint, **more: Any) -> tuple[Backbone, torch.Tensor]:
    """A backbone, and what its largest architecture gives."""
    backbone = Backbone(checkpoint, space_of(checkpoint.config, **more))
    return backbone, logits(backbone.inherit(backbone.largest))


def written(
    folder: Path, space: SearchSpace, a: Architecture, model: Standalone, config: DecoderConfig
) -> Iterator[Path]:
    """The candidate in every format that can hold it."""
    save_candidate(folder / "own", space, a, model, ByteTokenizer(), config=config)
    yield from (folder / "own", folder / "own" / "hf")
    try:
        save_decilm(folder / "deci", WholeModel(space, a, model, ByteTokenizer(), config, Usage()))
        yield folder / "deci"
        save_gguf(folder / "m.gguf", space, a, model, ByteTokenizer(), config=config, precision="float32")
        yield folder / "m.gguf"
    except SpaceError as error:
        assert "sees the last" in str(error) or "is turned" in str(error) or "blocks are not" in str(error)  # noqa: PT017


def check_again(backbone: Backbone, seed: int, patterns: tuple[str, ...], depth: int) -> None:
    """Prune, write in every format, read back; and the same with what was read."""
    architecture = backbone.space.sample(seed)
    model = backbone.inherit(architecture)
    expected = logits(model)
    with TemporaryDirectory() as folder:
        for place in written(Path(folder), backbone.space, architecture, model, backbone.checkpoint.config):
            again, got = rebuilt(load_backbone(place), patterns=patterns)
            torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
            assert again.space.cost(again.largest, "flops") <= backbone.space.cost(architecture, "flops") * 1.0001
            if depth:
                check_again(again, seed + 1, patterns, depth - 1)


@settings(max_examples=2, deadline=None)
@given(st.integers(0, 10_000))
def test_a_candidate_is_a_backbone_in_every_format_and_so_is_what_is_pruned_from_it(seed: int) -> None:
    check_again(Backbone(lively(TINY), space_of(TINY, ("full", "skip"))), seed, ("full", "skip"), depth=1)


@pytest.mark.parametrize("family", FAMILIES)
def test_candidates_of_every_family_are_backbones_again(family: str) -> None:
    blocks = FAMILIES[family].blocks
    changes: dict[str, Any] = {"family": family, "tied_embeddings": False}
    if family == "gemma3":
        blocks = dataclasses.replace(blocks, windows=(8, 8, None, 8), local_rope_base=100.0, embed_scale=32**0.5)
    if family == "smollm3":
        blocks = dataclasses.replace(blocks, rotary=(True, True, False, True), rope_scaling=("dynamic", 2.0, 64))
    config = dataclasses.replace(TINY, blocks=blocks, **changes)
    check_again(Backbone(lively(config), space_of(config)), 5, ("full", "swa", "skip"), depth=int(family == "gemma3"))


def test_a_space_of_different_layers_opens_each_up_to_its_own_sizes() -> None:
    config = TINY.with_layers(MIXED)
    space = space_of(config)
    assert (config.n_heads, config.n_kv_heads, config.ffn) == (4, 2, 48)
    assert space.choices["layers.0.ffn"].values == (48, 32, 16)
    assert space.choices["layers.2.ffn"].values == (16,)
    assert space.choices["layers.3.group"].values == (1,)
    assert space.choices["layers.2.runs"].values == (2, 1, 0)
    assert {p for p in space.choices if p.startswith("layers.1.")} == {"layers.1.ffn", "layers.1.runs"}
    checkpoint = lively(config)
    whole = largest(space)
    assert space.cost(whole, "params") == checkpoint.n_params
    assert whole.choices["layers.2.runs"] == 2
    assert not any(axes.skips(whole.choices))
    with pytest.raises(SpaceError, match="alike: the backbone's layers differ"):
        from_backbone(config, alike=True)
    assert TINY.with_layers([LayerSizes(2, 2, 48)] * 4) == TINY
    assert DecoderConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_a_layer_that_runs_twice_is_ranked_by_both_of_its_runs() -> None:
    config = TINY.with_layers(MIXED)
    checkpoint = lively(config)
    backbone, expected = rebuilt(checkpoint)
    supernet = backbone.supernet
    statistics = gather(supernet, backbone.largest, [torch.randint(0, 256, (2, 17))], lambda x, y: x.square().mean())
    # once through both runs is as often as two layers of equal weights are run through, one after the other
    unrolled = dataclasses.replace(config, layers=(), n_layers=4).with_layers(
        [*MIXED[:2], LayerSizes(1, 2, 16), LayerSizes(1, 2, 16), MIXED[3]]
    )
    names = {f"model.layers.{i}": f"model.layers.{i if i < 3 else i - 1}" for i in range(5)}
    tensors = {
        name: checkpoint.tensors[name.replace(layer, of)]
        for name in family_of(unrolled).tensor_shapes(unrolled)
        for layer, of in [next(((k, v) for k, v in names.items() if name.startswith(f"{k}.")), (name, name))]
    }
    other, got = rebuilt(DecoderCheckpoint(unrolled, tensors, ByteTokenizer(), "test"))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    torch.manual_seed(0)
    ids = torch.randint(0, 256, (2, 17))
    both = [gather(one.supernet, one.largest, [ids], lambda x, y: x.square().mean()) for one in (backbone, other)]
    key, second = ("layers.2.mlp", "down"), ("layers.3.mlp", "down")
    twice, apart = both
    torch.testing.assert_close(twice.gram[key], (apart.gram[key] + apart.gram[second]) / 2)
    torch.testing.assert_close(twice.slopes[key], (apart.slopes[key] + apart.slopes[second]) / 2)
    assert statistics.influence.keys() == {f"layers.{i}" for i in range(4)}
    assert isinstance(supernet, Supernet)


NEMOTRON: dict[str, Any] = {
    "architectures": ["DeciLMForCausalLM"],
    "auto_map": {
        "AutoConfig": "configuration_decilm.DeciLMConfig",
        "AutoModelForCausalLM": "modeling_decilm.DeciLMForCausalLM",
    },
    "attention_bias": False, "attention_dropout": 0.0, "hidden_act": "silu", "hidden_size": 96,
    "initializer_range": 0.02, "intermediate_size": None, "max_position_embeddings": 1024, "mlp_bias": False,
    "model_type": "nemotron-nas", "num_attention_heads": 6, "num_hidden_layers": 4, "num_key_value_heads": None,
    "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_theta": 500000.0,
    "rope_scaling": {
        "factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 256,
        "rope_type": "llama3",
    },
    "tie_word_embeddings": False, "torch_dtype": "bfloat16", "use_cache": True, "vocab_size": 256,
}  # fmt: skip
"""The keys of Llama-3_1-Nemotron-51B's config.json, sizes shrunk; layers beside it."""
_ATTENTION = {
    "no_op": False, "replace_with_linear": False, "sparsify": None, "n_heads_in_group": 3, "num_sink_tokens": None,
    "unshifted_sink": False, "use_prefill_window_in_sink_attention": False, "window_length": None,
}  # fmt: skip
_FFN = {"no_op": False, "replace_with_linear": False, "sparsify": None, "ffn_mult": 3.5}
_GONE = {"no_op": True, "n_heads_in_group": None}
BLOCKS = [
    {"attention": _ATTENTION, "ffn": _FFN},
    {"attention": {**_ATTENTION, **_GONE}, "ffn": {**_FFN, "ffn_mult": 7.0}},
    {"attention": {**_ATTENTION, **_GONE}, "ffn": {**_FFN, "no_op": True, "ffn_mult": None}},
    {"attention": {**_ATTENTION, "n_heads_in_group": 2}, "ffn": {**_FFN, "no_op": True, "ffn_mult": None}},
]


def test_a_decilm_of_nvidia_is_read_without_the_layers_that_compute_nothing(tmp_path: Path) -> None:
    raw = {**NEMOTRON, "block_configs": BLOCKS}
    config = read_config(raw, "config.json")
    assert config.layers == (LayerSizes(2, 3, 256), LayerSizes(0, 0, 512), LayerSizes(3, 2, 0))
    assert config.blocks.rope_scaling == ("llama3", 8.0, 1.0, 4.0, 256)
    checkpoint = random_checkpoint(config, 0)
    tensors = {name.replace("layers.2.", "layers.3."): tensor for name, tensor in checkpoint.tensors.items()}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    save_file(tensors, tmp_path / "model.safetensors")
    ByteTokenizer().save(tmp_path)
    backbone, expected = rebuilt(load_checkpoint(tmp_path))
    assert backbone.checkpoint.tensors.keys() == checkpoint.tensors.keys()
    # a layer without a feed-forward is written by own code and as DeciLM, and llama.cpp has none
    a, model = backbone.largest, backbone.inherit(backbone.largest)
    save_candidate(tmp_path / "own", backbone.space, a, model, ByteTokenizer(), config=config)
    card = json.loads((tmp_path / "own" / "candidate.json").read_text())
    assert "has no feed-forward, and llama.cpp leaves such a layer out" in card["gguf"]["reason"]
    for place in (tmp_path / "own", tmp_path / "own" / "hf"):
        torch.testing.assert_close(rebuilt(load_backbone(place))[1], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("layer", "part", "change", "message"),
    [
        (0, "attention", {"replace_with_linear": True}, r"\[0\]\.attention\.replace_with_linear is True. Supported: F"),
        (3, "ffn", {"replace_with_linear": True}, r"\[3\]\.ffn\.replace_with_linear is True"),
        (0, "attention", {"window_length": 64}, "window_length is 64"),
        (
            0,
            "attention",
            {"n_heads_in_group": 4},
            r"of 4 query heads each \(n_heads_in_group\), but num_att",
        ),
        (0, "attention", {"n_heads_in_group": None}, "n_heads_in_group is None; it must be an integer"),
        (0, "attention", {"n_heads_in_group": 0}, "n_heads_in_group is 0"),
        (0, "attention", {"llama4": {}}, "llama4 is {}"),
        (0, "attention", {"no_op": 1}, "no_op is 1; it must be true or false"),
        (1, "ffn", {"ffn_mult": None}, "intermediate_size is None"),
        (1, "ffn", {"intermediate_size": 256}, "intermediate_size is 256, but ffn_mult means 512"),
        (1, "ffn", {"moe": {"experts": 4}}, "moe is"),
        (1, "ffn", {"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        (1, "ffn", {"depth": 2}, "'depth' is 2, which is not understood"),
    ],
)
def test_what_is_not_understood_of_a_layer_is_refused_by_name(
    layer: int, part: str, change: dict[str, Any], message: str
) -> None:
    blocks: list[dict[str, Any]] = json.loads(json.dumps(BLOCKS))
    blocks[layer][part] |= change
    with pytest.raises(AssetError, match=message):
        read_config({**NEMOTRON, "block_configs": blocks}, "config.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block_configs": None}, "block_configs is None"),
        ({"num_hidden_layers": 5}, "num_hidden_layers is 5, but block_configs has 4"),
        ({"auto_map": {"AutoModelForCausalLM": "other.Model"}}, "code of the model's own"),
        ({"num_key_value_heads": 2}, "num_key_value_heads is 2"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"blocks": {"norms": "post"}}, "contradict"),
        ({"rotary": [{"frequencies": [1.0], "scale": 1.0}]}, "rotary is"),
        ({"logit_scale": 2.0}, "'logit_scale' is 2.0"),
    ],
)
def test_what_is_not_understood_of_a_decilm_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(AssetError, match=message):
        read_config({**NEMOTRON, "block_configs": BLOCKS, **change}, "config.json")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("attention.head_count", [4, 0, 4], "it must be a list of 4 numbers"),
        ("attention.head_count_kv", [2, 0, 0, 2], "layer 2 has query heads and no key/value heads: a linear attention"),
        ("attention.head_count_kv", [2, 1, 1, 2], "layer 1 has 0 query heads"),
        ("feed_forward_length", [48, 32, 0, 48], "layer 2 has attention and no feed-forward"),
        ("feed_forward_length", [0, 0, 0, 0], "has attention and no feed-forward"),
        ("block_count", 5, "it must be a list of 5"),
        ("attention.sliding_window", 8, "sliding_window is 8"),
    ],
)
def test_what_is_not_understood_of_a_file_by_layer_is_refused(
    tmp_path: Path, key: str, value: Any, message: str
) -> None:
    config = dataclasses.replace(TINY).with_layers([*MIXED[:2], LayerSizes(1, 2, 16), MIXED[3]])
    backbone, _ = rebuilt(lively(config))
    a = backbone.largest
    save_gguf(tmp_path / "a.gguf", backbone.space, a, backbone.inherit(a), ByteTokenizer(), config=config)
    file = GGUFFile(tmp_path / "a.gguf")
    left = ("general.architecture", "general.file_type")
    keys = {**{name: one for name, one in file.metadata.items() if name not in left}, f"deci.{key}": value}
    tensors = {name: torch.from_numpy(file.values(entry)) for name, entry in file.tensors.items()}
    gguf_writing.write_gguf(tmp_path / "m.gguf", "deci", keys.items(), tensors, "float32")
    with pytest.raises(AssetError, match=message):
        load_checkpoint(tmp_path / "m.gguf")


def test_a_candidates_folder_is_read_by_the_loader_of_backbones_alone(tmp_path: Path) -> None:
    backbone, _ = rebuilt(lively(TINY))
    a = backbone.largest
    save_candidate(tmp_path, backbone.space, a, backbone.inherit(a), ByteTokenizer(), config=TINY, huggingface=False)
    assert load_backbone(tmp_path).config == TINY
    with pytest.raises(AssetError, match="load_backbone"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_layers": 3}, "layers is stated for 4 layers"),
        ({"n_heads": 2}, "n_heads is 2, that of its layers is 4"),
        ({"layers": [{"kv_heads": 2, "group": 2, "ffn": 48}] * 4}, "all of them are alike"),
        ({"layers": [{"kv_heads": 2, "group": 0, "ffn": 48}] * 4}, "both are 0"),
        ({"layers": [{"kv_heads": 0, "group": 0, "ffn": 0}] * 4}, "neither attention nor"),
        ({"layers": [{"kv_heads": 2}] * 4}, "not the sizes of a layer"),
        ({"layers": 4}, "layers is 4"),
        ({"layers": [{"kv_heads": True, "group": 2, "ffn": 48}] * 4}, "kv_heads of a layer is True"),
        ({"layers": [{"kv_heads": 2, "group": 2, "ffn": 48, "runs": 3}] * 4}, "runs of a layer is 3"),
    ],
)
def test_sizes_by_layer_that_cannot_be_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(AssetError, match=message):
        DecoderConfig.from_json({**TINY.with_layers(MIXED).to_json(), **change})
