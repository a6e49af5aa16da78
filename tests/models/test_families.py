"""Families: what one states is enough to read, prune and write its models; and its axes are named nowhere else."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rankitect.data.tokenizer import ByteTokenizer
from rankitect.errors import AssetError
from rankitect.models.backbone import Backbone, largest
from rankitect.models.candidate import load_candidate, save_candidate
from rankitect.models.checkpoints import (
    DecoderCheckpoint,
    DecoderConfig,
    load_checkpoint,
    random_checkpoint,
    save_huggingface,
)
from rankitect.models.families import FAMILIES, LLAMA, Family, GGUFFormat, axes, family_of
from rankitect.models.pretrained import Orders, file_tensors, space_tensors
from rankitect.search_spaces.mobile_llm import from_backbone
from rankitect.space.declaring import Choices

ROOT = Path(__file__).resolve().parents[2]
CONFIG = DecoderConfig(vocab=256, d_model=32, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8, ffn=48, context=64)
IDS = torch.randint(0, CONFIG.vocab, (2, 12), generator=torch.Generator().manual_seed(0))


# Axes are named once

_ANYWHERE = re.compile(r"(^|\.)(kv_heads|ffn|attn|swa)($|\.)|\.(group|runs)$")
_AMONG_LANGUAGE_MODELS = re.compile(r"(^|\.)(skip|full|group|runs|width|layers)($|\.)")
_LANGUAGE_MODELS = (
    "rankitect/models",
    "rankitect/deploy",
    "rankitect/methods",
    "rankitect/tasks/language",
    "search_spaces/mobile_llm.py",
    "controllers",
)


def strings_of(path: Path) -> Iterator[tuple[int, str]]:
    """Every string of a module but its docstrings, with its line; the constant pieces of f-strings too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


# The families themselves, how words are spelled for people, and a key of DeciLM's configurations.
_EXEMPT = (
    "rankitect/models/families/", "rankitect/reports/numbers.py", "rankitect/models/huggingface_by_layer.py",
    "rankitect/models/checkpoints/huggingface_layers.py",
)  # fmt: skip


def test_nobody_outside_of_the_families_names_an_axis_by_a_string() -> None:
    named = []
    for room in ("rankitect", "search_spaces", "controllers", "evaluators"):
        for path in sorted((ROOT / room).rglob("*.py")):
            place = path.relative_to(ROOT).as_posix()
            if place.startswith(_EXEMPT) or path.resolve() != path:  # plug-in rooms are linked into the package
                continue
            of_language_models = place.startswith(_LANGUAGE_MODELS)
            for line, text in strings_of(path):
                if _ANYWHERE.search(text) or (of_language_models and _AMONG_LANGUAGE_MODELS.search(text)):
                    named.append(f"{place}:{line}: {text!r}")
    assert not named, "ask rankitect.models.families.axes instead:\n" + "\n".join(named)


AXES = (axes.KV_HEADS, axes.QUERY_HEADS, axes.FFN, axes.PATTERN, axes.RUNS)


@given(st.sampled_from(AXES), st.integers(0, 500))
def test_a_choice_tells_its_axis_and_its_layer(axis: str, number: int) -> None:
    path = axes.path(axis, number)
    assert (axes.axis_of(path), axes.number_of(path)) == (axis, number)
    assert axes.path(axis, axes.layer(number)) == path


@pytest.mark.parametrize("path", ["layers.ffn", "layers.x.ffn", "other.3.ffn", "layers.3.lr", "attn", "lr", ""])
def test_other_choices_decide_no_axis(path: str) -> None:
    assert axes.axis_of(path) is None


def test_every_choice_of_a_backbones_space_decides_an_axis() -> None:
    space = from_backbone(CONFIG, widths=(24,), ffn_step=16, sharing=True)
    decided = [axes.axis_of(path) for path in space.choices]
    assert set(decided) == {axes.CHANNELS, *AXES}
    assert axes.layers(space.choices) == [0, 1]
    assert axes.drops(space.choices)


def test_skips_are_counted_among_the_layers_that_run() -> None:
    space = from_backbone(CONFIG)
    values = dict(largest(space).choices)
    one = space.architecture({**values, axes.path(axes.PATTERN, 1): axes.SKIP})
    assert axes.skips(one.choices) == [False, True]
    alone = space.architecture({**one.choices, axes.path(axes.RUNS, 0): axes.DROPPED})
    assert axes.skips(alone.choices) == [True]


# The table of a family's weights


@pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))
def test_every_weight_has_one_name_in_each_format(family: Family) -> None:
    config = dataclasses.replace(CONFIG, family=family.name, tied_embeddings=False)
    places = list(family.weights(config))
    assert len({family.key(weight, number) for number, weight in places}) == len(places)
    assert len(family.tensor_shapes(config)) == len(places)
    for number, weight in places:
        gguf = weight.gguf if number is None else family.gguf.layer.format(number) + weight.gguf
        assert family.of_gguf(gguf) == (number, weight)


@pytest.mark.parametrize(
    "name", ["blk.0.attn_q.bias", "blk.x.attn_q.weight", "blk.00.attn_q.weight", "blk.\u00b2.a", "x"]
)
def test_a_name_of_no_weight_is_known_as_such(name: str) -> None:
    assert LLAMA.of_gguf(name) is None


def permutation(*shape: int) -> st.SearchStrategy[torch.Tensor]:
    """Orders along the last dimension."""

    def drawn(seed: int) -> torch.Tensor:
        return torch.rand(shape, generator=torch.Generator().manual_seed(seed)).argsort(-1)

    return st.integers(0, 2**32 - 1).map(drawn)


orders = st.builds(
    Orders,
    channels=st.none() | permutation(CONFIG.d_model),
    kv=st.dictionaries(st.integers(0, 1), permutation(CONFIG.n_kv_heads)),
    group=st.dictionaries(st.integers(0, 1), permutation(CONFIG.n_kv_heads, CONFIG.query_heads)),
    ffn=st.dictionaries(st.integers(0, 1), permutation(CONFIG.ffn)),
)
CHECKPOINT = random_checkpoint(CONFIG, 0)
SPACE = from_backbone(CONFIG, ffn_step=16)
PLAIN = Backbone(CHECKPOINT, SPACE)


@given(orders)
def test_whatever_the_order_the_whole_model_computes_the_same(order: Orders) -> None:
    backbone = Backbone(CHECKPOINT, SPACE, order)
    with torch.no_grad():
        expected = PLAIN.inherit(PLAIN.largest)(IDS)
        torch.testing.assert_close(backbone.inherit(backbone.largest)(IDS), expected, rtol=1e-4, atol=1e-5)


def test_weights_come_back_from_a_space_to_the_bit() -> None:
    tensors = file_tensors(PLAIN.inherit(PLAIN.largest), CONFIG, [axes.layer(i) for i in range(CONFIG.n_layers)])
    assert tensors.keys() == CHECKPOINT.tensors.keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in CHECKPOINT.tensors.items())


def test_a_supernet_shares_no_memory_with_its_checkpoint() -> None:
    held = {tensor.untyped_storage().data_ptr() for tensor in CHECKPOINT.tensors.values()}
    own = {tensor.untyped_storage().data_ptr() for tensor in space_tensors(CHECKPOINT).values()}
    assert held.isdisjoint(own)


# Another family is one object

OTHER = dataclasses.replace(
    LLAMA,
    name="other",
    title="Other",
    huggingface=dataclasses.replace(
        LLAMA.huggingface,
        model_type="ministral",
        architecture="MinistralForCausalLM",
        required={"hidden_act": ("silu",), "sliding_window": (None,)},
        explicit=frozenset({"sliding_window"}),
    ),
    gguf=GGUFFormat(architecture="mistral3", rotates_neighbours=False),
)
"""A family that differs from Llama in its class and in its keys."""


@pytest.fixture
def another_family(monkeypatch: pytest.MonkeyPatch) -> DecoderCheckpoint:
    monkeypatch.setitem(FAMILIES, OTHER.name, OTHER)
    return random_checkpoint(dataclasses.replace(CONFIG, family=OTHER.name), 0)


def test_another_family_is_read_pruned_and_written(another_family: DecoderCheckpoint, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config, tokenizer = another_family.config, ByteTokenizer()
    save_huggingface(tmp_path / "whole", config, another_family.tensors, tokenizer)
    checkpoint = load_checkpoint(tmp_path / "whole")
    assert checkpoint.config == config
    space = from_backbone(checkpoint.config, ffn_step=16, window=8)
    backbone = Backbone(checkpoint, space)
    narrow = dict.fromkeys(axes.paths(space.choices, axes.FFN), 16)
    windows = dict.fromkeys(axes.paths(space.choices, axes.PATTERN), axes.WINDOW)
    architecture = space.architecture({**backbone.largest.choices, **narrow, **windows})
    model = backbone.inherit(architecture)
    save_candidate(tmp_path / "pruned", space, architecture, model, tokenizer, config=config)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "pruned" / "hf", local_files_only=True).eval()
    assert type(theirs).__name__ == "MistralForCausalLM"
    with torch.no_grad():
        torch.testing.assert_close(theirs(IDS).logits, model(IDS), rtol=1e-4, atol=1e-5)
    assert load_candidate(tmp_path / "pruned").config == config


def test_a_field_that_a_family_does_not_compute_is_refused(another_family: DecoderCheckpoint, tmp_path: Path) -> None:
    save_huggingface(tmp_path, another_family.config, another_family.tensors, ByteTokenizer())
    written = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**written, "sliding_window": 4096}))
    with pytest.raises(AssetError, match=r"sliding_window is 4096\. Supported: None\."):
        load_checkpoint(tmp_path)
    del written["sliding_window"]  # a Ministral of transformers has a window of 4096 then
    (tmp_path / "config.json").write_text(json.dumps(written))
    with pytest.raises(AssetError, match=r"sliding_window is missing; a Other must state it\. Supported: None\."):
        load_checkpoint(tmp_path)


def test_a_family_that_is_not_supported_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as with_it:
        with_it.setitem(FAMILIES, OTHER.name, OTHER)
        checkpoint = random_checkpoint(dataclasses.replace(CONFIG, family=OTHER.name), 0)
        backbone = Backbone(checkpoint, SPACE)
        model = backbone.inherit(backbone.largest)
        config = checkpoint.config
        save_candidate(tmp_path, SPACE, backbone.largest, model, ByteTokenizer(), config=config)
    with pytest.raises(AssetError, match=r"config: family is 'other'\. Supported: 'llama', "):
        load_candidate(tmp_path)
    with pytest.raises(AssetError, match=r"model_type is 'ministral'\. Supported: 'llama', "):
        load_checkpoint(tmp_path / "hf")
    with pytest.raises(AssetError, match=r"family is 'other'\. Supported: 'llama', "):
        family_of(config)


def test_cards_from_before_there_were_families_are_of_llamas() -> None:
    data = CONFIG.to_json()
    assert "family" not in data
    assert DecoderConfig.from_json(data) == CONFIG
    with pytest.raises(AssetError, match=r"not the sizes of a decoder .*layer_types"):
        DecoderConfig.from_json({**data, "layer_types": []})


def test_the_whole_model_keeps_the_usual_value_of_a_setting_that_shapes_nothing() -> None:
    declared = Choices("mobile_llm")
    declared.choice("lr", [1, 3, 9])
    space = SPACE.with_settings(declared, {"lr": 3})
    assert largest(space).choices == {**largest(SPACE).choices, "lr": 3}


def test_families_are_known_without_torch() -> None:
    code = "import sys, rankitect.models.families, rankitect.models.families.axes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
