"""Pruned models of structurally distinct families give the same text through the real runtime."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from rankitect.data.tokenizer import ByteTokenizer
from rankitect.deploy.artifact import CARD, calls, export, load
from rankitect.models.backbone import Backbone
from rankitect.models.checkpoints import load_checkpoint
from rankitect.models.families import DecoderBlocks, axes
from rankitect.models.supernet import Standalone, build
from rankitect.search_spaces.mobile_llm import from_backbone, mobile_llm
from tests.models.family_models import config_of, model_of, some_weights, write

IDS = torch.randint(0, 256, (3, 21), generator=torch.Generator().manual_seed(7))


def pruned(name: str, folder: Path) -> Standalone:
    """A model with one layer whole, one with a smaller window, one pruned, and one without attention."""
    checkpoint = load_checkpoint(write(folder, model_of(config_of(name))))
    space = from_backbone(checkpoint.config, context=16, ffn_step=16, window=3)
    backbone = Backbone(checkpoint, space)
    changed = {
        axes.path(axes.PATTERN, 1): axes.WINDOW,
        axes.path(axes.KV_HEADS, 2): 1,
        axes.path(axes.QUERY_HEADS, 2): 1,
        axes.path(axes.FFN, 2): 16,
        axes.path(axes.PATTERN, 3): axes.SKIP,
    }
    return backbone.inherit(space.architecture({**backbone.largest.choices, **changed}))


@pytest.mark.parametrize(
    "name",
    ["llama-3.2", "mistral-window", "qwen2-window", "qwen3", "smollm3", "gemma3-scaled", "olmo2-grouped", "phi3"],
)
@torch.no_grad()
def test_the_calls_of_a_program_give_what_the_model_gives(name: str, tmp_path: Path) -> None:
    model = pruned(name, tmp_path)
    call = calls(model, 12, 16)["prefill"]
    ids = IDS[:1, :12]
    outputs = call(ids, *call.example()[1:])
    torch.testing.assert_close(outputs[0][0, -1], model(ids)[0, -1], atol=1e-4, rtol=1e-4)


def every_field() -> Standalone:
    """A small model in which every field of the blocks is another than a plain Llama's."""
    blocks = DecoderBlocks(
        bias=True, qk_norm="all", score_scale=0.3, norm_offset=1.0, norms="both", act="gelu_tanh", embed_scale=2.0,
        rope_scaling=("llama3", 8.0, 1.0, 4.0, 16), local_rope_base=100.0, windows=(5, None, None),
        rotary=(True, True, False),
    )  # fmt: skip
    space = mobile_llm(256, 3, (32,), (2,), (2,), (32,), ("full",), (1,), head=8, tied=False, blocks=blocks)
    return some_weights(build(space, space.architecture({})))


@pytest.mark.slow
def test_an_exported_model_with_every_field_writes_the_same_text(tmp_path: Path) -> None:
    model = every_field()
    export(tmp_path, model, ByteTokenizer(), prompt=8, capacity=24, text=IDS)
    card = json.loads((tmp_path / CARD).read_text())
    assert set(card["delegated"]["portable"]) == {"aten_embedding_default"}
    assert max(card["checked"]["errors"].values()) < 1e-3
    prompt = IDS[0, :6].tolist()
    wanted = list(prompt)
    with torch.no_grad():
        for _ in range(12):
            wanted.append(int(model(torch.tensor([wanted]))[0, -1].argmax()))
    assert load(tmp_path).generator.greedy(prompt, 12) == wanted[6:]
