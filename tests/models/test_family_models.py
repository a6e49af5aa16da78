"""Every family against `transformers`: logits of the whole model, of pruned ones, and what each field of its
configuration does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from rankitect.data.continuations import Continuation
from rankitect.errors import AssetError
from rankitect.graph import SearchSpace
from rankitect.metrics.losses import cross_entropy
from rankitect.models.backbone import Backbone, largest, rank
from rankitect.models.candidate import load_candidate, save_candidate
from rankitect.models.checkpoints import DecoderCheckpoint, load_checkpoint, save_huggingface
from rankitect.models.checkpoints.huggingface_config import read_config
from rankitect.models.families import axes
from rankitect.models.greedy import greedy_continuations
from rankitect.models.huggingface_layout import huggingface_layout
from rankitect.models.importance import gather
from rankitect.models.packed import likelihoods, pack, plain_likelihoods, turned_by_length
from rankitect.models.relaxed import RelaxedSupernet, one_hot
from rankitect.search_spaces.mobile_llm import from_backbone
from tests.models.family_models import TRUE_CONFIGS, config_of, model_of, some_weights, write

IDS = torch.randint(0, 256, (2, 40), generator=torch.Generator().manual_seed(7))


@pytest.fixture(scope="module", params=list(TRUE_CONFIGS))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, DecoderCheckpoint]:
    """A model of transformers, and what is loaded from the folder that it writes."""
    model = model_of(config_of(request.param))
    return model, load_checkpoint(write(tmp_path_factory.mktemp("family"), model))


@torch.no_grad()
def test_a_model_computes_what_transformers_computes(pair: tuple[Any, DecoderCheckpoint], tmp_path: Path) -> None:
    theirs, checkpoint = pair
    expected = theirs(IDS).logits
    backbone = Backbone(checkpoint, from_backbone(checkpoint.config, ffn_step=16, window=6))
    torch.testing.assert_close(backbone.inherit(backbone.largest)(IDS), expected, atol=1e-4, rtol=0)
    save_huggingface(tmp_path, checkpoint.config, checkpoint.tensors, checkpoint.tokenizer)
    again = load_checkpoint(tmp_path)
    assert again.config == checkpoint.config
    assert all(torch.equal(again.tensors[name], tensor) for name, tensor in checkpoint.tensors.items())


def test_greedy_tokens_with_a_cache_are_those_without(pair: tuple[Any, DecoderCheckpoint]) -> None:
    checkpoint = pair[1]
    backbone = Backbone(checkpoint, from_backbone(checkpoint.config, ffn_step=16, window=6))
    model = backbone.inherit(backbone.largest)
    rows = IDS.tolist()
    prompts = [rows[0][:12], rows[0][:5], [*rows[0][:5], *rows[1][:9]], rows[0][:20]]
    texts, forwarded = greedy_continuations(model, prompts, 10)
    for prompt, text in zip(prompts, texts, strict=True):
        with torch.no_grad():
            ids = torch.tensor([[*prompt, *text]])
            each = [model(ids[:, :end])[0, -1] for end in range(len(prompt), ids.shape[1])]
            assert torch.stack(each).argmax(-1).tolist() == text
    assert turned_by_length(model) == (forwarded > sum(map(len, prompts)) + 4 * 9 - 3 * 4)


def test_packed_sequences_have_the_likelihoods_of_each_alone(pair: tuple[Any, DecoderCheckpoint]) -> None:
    checkpoint = pair[1]
    space = from_backbone(checkpoint.config, ffn_step=16, window=6)
    backbone = Backbone(checkpoint, space)
    rows = IDS.tolist()
    asked = [
        [Continuation((*row[:start], *row[end : end + 7]), start) for end in (start, 25, 31)]
        for row in rows
        for start in (9, 14, 20)
    ]
    flat = [one for group in asked for one in group]
    for architecture in (backbone.largest, space.sample(3)):
        model = backbone.supernet.activate(architecture)
        together, alone = likelihoods(model, pack(asked, row=48)), [plain_likelihoods(model, [one]) for one in flat]
        np.testing.assert_allclose(together.nats, [one.nats[0] for one in alone], atol=1e-4)
        every = sum(one.forwarded for one in alone)
        assert together.forwarded == every if turned_by_length(model) else together.forwarded < every


def smallest(space: SearchSpace) -> dict[str, Any]:
    """The smallest heads and feed-forwards, in all layers."""
    small = (axes.KV_HEADS, axes.QUERY_HEADS, axes.FFN)
    return {path: min(space.choices[path].values) for axis in small for path in axes.paths(space.choices, axis)}


@torch.no_grad()
def test_pruned_models_are_one_in_every_reading(pair: tuple[Any, DecoderCheckpoint], tmp_path: Path) -> None:
    import transformers

    checkpoint = pair[1]
    space = from_backbone(checkpoint.config, widths=(24,), ffn_step=16, window=6)
    plain = Backbone(checkpoint, space)
    statistics = gather(plain.supernet, plain.largest, [IDS])
    orders = rank(checkpoint.config, plain.supernet, statistics)
    backbone = Backbone(checkpoint, space, orders, statistics.gram)
    whole = plain.inherit(plain.largest)(IDS)
    torch.testing.assert_close(backbone.inherit(backbone.largest)(IDS), whole, atol=1e-4, rtol=0)
    relaxed = RelaxedSupernet(backbone.supernet)
    for seed in range(3):
        architecture = space.sample(seed)
        model = backbone.inherit(architecture)
        logits = model(IDS)
        torch.testing.assert_close(backbone.supernet.activate(architecture)(IDS), logits, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(relaxed(one_hot(space, architecture), IDS), logits, atol=1e-4, rtol=1e-4)
    fewer = {axes.path(axes.RUNS, 1): axes.DROPPED}  # what a layer sees, and whether it is turned, stays with it
    alike = space.architecture({**backbone.largest.choices, **smallest(space), **fewer})
    model = backbone.inherit(alike)
    save_candidate(tmp_path, space, alike, model, checkpoint.tokenizer, config=checkpoint.config)
    assert load_candidate(tmp_path).config == checkpoint.config
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf", local_files_only=True).eval()
    torch.testing.assert_close(theirs(IDS).logits, model(IDS), atol=1e-4, rtol=1e-4)
    windows = checkpoint.config.blocks.windows
    assert load_checkpoint(tmp_path / "hf").config.blocks.windows == windows[:1] + windows[2:]


def test_pruned_and_healed_models_are_those_of_transformers(
    pair: tuple[Any, DecoderCheckpoint], tmp_path: Path
) -> None:
    import transformers

    checkpoint = pair[1]
    space = from_backbone(checkpoint.config, ffn_step=16, window=6)
    changed = {
        axes.path(axes.RUNS, 2): axes.DROPPED,
        axes.path(axes.PATTERN, 1): axes.SKIP,
        axes.path(axes.KV_HEADS, 3): 1,
        axes.path(axes.FFN, 0): 16,
    }
    backbone = Backbone(checkpoint, space)
    architecture = space.architecture({**backbone.largest.choices, **changed})
    model = backbone.inherit(architecture)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(2):
        cross_entropy(model(IDS[:, :-1]), IDS[:, 1:]).backward()
        optimizer.step()
        optimizer.zero_grad()
    save_candidate(tmp_path, space, architecture, model, checkpoint.tokenizer, config=checkpoint.config)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "hf", local_files_only=True, trust_remote_code=True
    ).eval()
    with torch.no_grad():
        own = model(IDS)
        assert not torch.allclose(own, backbone.inherit(architecture)(IDS), atol=0.01), "healing has changed it"
        torch.testing.assert_close(theirs(IDS).logits, own, atol=1e-4, rtol=1e-4)


def test_what_a_class_of_transformers_cannot_be_is_said() -> None:
    gemma = read_config(json.loads(config_of("gemma3-scaled").to_json_string(use_diff=False)), "config.json")
    space = from_backbone(gemma, widths=(24,), ffn_step=16, window=3)
    whole = largest(space)

    def reason(**changed: Any) -> str:
        some = {path: value for axis, value in changed.items() for path in axes.paths(space.choices, axis)}
        return str(huggingface_layout(space, space.architecture({**whole.choices, **some}), gemma).reason)

    assert reason() == "None"
    assert "its embedding is multiplied by 5.65685, that of the Gemma 3 of transformers of this width by 4.8" in reason(
        width=24
    )
    one = space.architecture({**whole.choices, axes.path(axes.PATTERN, 1): axes.WINDOW})
    assert "layers.1 sees the last 3 tokens and is turned by other positions" in str(
        huggingface_layout(space, one, gemma).reason
    )


@pytest.mark.parametrize("prefix", ["model.language_model.", "language_model.model."])
@torch.no_grad()
def test_the_text_model_of_a_model_that_sees_images_is_read(prefix: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    text = {key: value for key, value in config_of("gemma3").to_dict().items() if key != "architectures"}
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 28, "patch_size": 14, "model_type": "siglip_vision_model"}
    config = transformers.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    model = some_weights(transformers.Gemma3ForConditionalGeneration(config).float().eval())
    write(tmp_path, model)
    file = tmp_path / "model.safetensors"
    save_file({k.replace("model.language_model.", prefix): v for k, v in load_file(file).items()}, file)
    checkpoint = load_checkpoint(tmp_path)
    backbone = Backbone(checkpoint, from_backbone(checkpoint.config))
    torch.testing.assert_close(backbone.inherit(backbone.largest)(IDS), model(IDS).logits, atol=1e-4, rtol=0)
    stated = json.loads((tmp_path / "config.json").read_text())
    for change, message in [
        ({"text_config": None}, "text_config is None; it must be the configuration of the text model"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings is False. Supported: True."),
        ({"logit_bias": 1.0}, "'logit_bias' is 1.0, which is not understood"),
        ({"text_config": {**stated["text_config"], "final_logit_softcapping": 30.0}}, "text_config: final_logit_softc"),
    ]:
        with pytest.raises(AssetError) as caught:
            read_config({**stated, **change}, "config.json")
        assert message in str(caught.value)
