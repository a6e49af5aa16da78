"""Models whose layers differ as Hugging Face folders: transformers computes the same, vLLM finds what it looks for."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from rankitect.errors import AssetError, SpaceError
from rankitect.graph import Architecture
from rankitect.models.backbone import Backbone
from rankitect.models.candidate import LanguageCandidate, load_candidate
from rankitect.models.candidate.huggingface import WholeModel, save_decilm, save_folder
from rankitect.models.checkpoints import load_checkpoint
from rankitect.models.families.blocks import PLAIN
from tests.models.test_gguf_candidates import (
    BACKBONE,
    DIFFERENT,
    FIRST_SKIPS,
    IDS,
    LLAMA3,
    USAGE,
    backbone,
    logits,
    tokenizer,
    variant,
)

transformers = pytest.importorskip("transformers")
SAME_HEADS = variant(ffn_0=32, attn_1="skip", kv_heads_2=1, group_2=2, group_0=1, runs_0=2, width=48)
WINDOWED = variant(ffn_0=32, attn_1="swa", attn_2="skip", group_0=1)


def written(folder: Path, architecture: Architecture, of: Backbone = BACKBONE, deci: bool = False) -> Any:
    model = of.inherit(architecture)
    write = save_decilm if deci else save_folder
    said = write(folder, WholeModel(of.space, architecture, model, tokenizer(), of.checkpoint.config, USAGE))
    return model, said


def loaded(folder: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, local_files_only=True, trust_remote_code=True, dtype=torch.float32
    ).eval()


def theirs(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return torch.as_tensor(model(IDS).logits)


@pytest.mark.parametrize(
    ("architecture", "kind"),
    [
        (SAME_HEADS, "DeciLMForCausalLM"),
        (DIFFERENT, "RankitectForCausalLM"),
        (FIRST_SKIPS, "RankitectForCausalLM"),
        (WINDOWED, "RankitectForCausalLM"),
        (variant(attn="skip"), "RankitectForCausalLM"),
    ],
    ids=["same heads", "different", "first skips", "windowed", "no attention"],
)
def test_transformers_computes_the_same_with_the_folders_code(
    tmp_path: Path, architecture: Architecture, kind: str
) -> None:
    model, (said, reason) = written(tmp_path / "hf", architecture)
    assert said == kind
    assert reason
    again = loaded(tmp_path / "hf")
    assert type(again).__name__ == kind
    torch.testing.assert_close(theirs(again), logits(model), rtol=1e-4, atol=1e-4)
    back = load_candidate(tmp_path / "hf")
    assert torch.equal(logits(back.model), logits(model))
    assert back.architecture == architecture


def test_greedy_text_with_a_cache_is_that_of_the_candidate(tmp_path: Path) -> None:
    for number, architecture in enumerate([WINDOWED, SAME_HEADS]):
        folder = tmp_path / str(number)
        written(folder, architecture)
        own = load_candidate(folder)
        assert isinstance(own, LanguageCandidate)
        prompt = "the quick brown fox and the other the"
        ids = own.encode(prompt)
        more = loaded(folder).generate(ids, max_new_tokens=12, do_sample=False, pad_token_id=0)[0, ids.shape[1] :]
        stop = next((i for i, token in enumerate(more.tolist()) if token in (259, 260)), len(more))
        assert own.tokenizer.decode(more[:stop].tolist()) == own.generate(prompt, 12)


def test_padding_on_the_left_changes_nothing(tmp_path: Path) -> None:
    written(tmp_path / "hf", WINDOWED)
    model = loaded(tmp_path / "hf")
    padded = torch.cat([torch.zeros(2, 3, dtype=torch.int64), IDS], dim=1)
    mask = torch.ones_like(padded)
    mask[:, :3] = 0
    with torch.no_grad():
        got = model(padded, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0)).logits[:, 3:]
    torch.testing.assert_close(got, theirs(model), rtol=1e-4, atol=1e-4)


def test_masks_of_another_kind_are_refused(tmp_path: Path) -> None:
    written(tmp_path / "hf", WINDOWED)
    model = loaded(tmp_path / "hf")
    batch, tokens = IDS.shape
    pairs = torch.ones(batch, 1, tokens, tokens, dtype=torch.bool)
    for mask, shown in [
        (pairs, rf"a tensor of shape \({batch}, 1, {tokens}, {tokens}\)"),
        (torch.ones(batch, 1), rf"a tensor of shape \({batch}, 1\)"),
        ({"full_attention": pairs}, "dict"),
    ]:
        with pytest.raises(ValueError, match=f"attention_mask is {shown}; this model takes one of two dimensions"):
            model(IDS, attention_mask=mask)


@pytest.mark.parametrize("kept", [0, 1, 3, torch.tensor([0, 2])], ids=["all", "one", "three", "some"])
def test_the_loss_is_of_all_labels_whichever_logits_are_kept(tmp_path: Path, kept: int | torch.Tensor) -> None:
    written(tmp_path / "hf", SAME_HEADS)
    model = loaded(tmp_path / "hf")
    labels = IDS.clone()
    labels[0, :2] = -100
    with torch.no_grad():
        got = model(IDS, labels=labels, logits_to_keep=kept)
        whole, alone = model(IDS).logits, model(IDS, logits_to_keep=kept).logits
        shares = [
            model(one[None], labels=told[None], num_items_in_batch=20).loss
            for one, told in zip(IDS, labels, strict=True)
        ]
    expected = torch.nn.functional.cross_entropy(whole[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")
    torch.testing.assert_close(got.loss, expected / (labels[:, 1:] != -100).sum())
    torch.testing.assert_close(got.logits, whole[:, -kept:] if isinstance(kept, int) else whole[:, kept])
    torch.testing.assert_close(alone, got.logits)
    torch.testing.assert_close(
        sum(shares), expected / 20, msg="a trainer that accumulates says how many labels there are"
    )


@pytest.mark.parametrize(
    ("blocks", "family"),
    [
        ({"rope_scaling": LLAMA3}, "llama"),
        ({"rope_scaling": ("dynamic", 4.0, 16)}, "llama"),
        ({"bias": True}, "qwen2"),
        ({"qk_norm": "head"}, "qwen3"),
        ({"qk_norm": "all", "norms": "post"}, "olmo2"),
        (
            {"qk_norm": "head", "score_scale": 0.2, "norm_offset": 1.0, "norms": "both", "act": "gelu_tanh",
             "embed_scale": 8.0, "local_rope_base": 300.0, "windows": (8, None, 8)},
            "gemma3",
        ),
        ({"rotary": (True, False, True)}, "smollm3"),
    ],
    ids=["llama3", "dynamic", "bias", "head norms", "post norms", "gemma", "unturned"],
)  # fmt: skip
def test_the_blocks_of_every_family_are_computed(tmp_path: Path, blocks: dict[str, Any], family: str) -> None:
    of = backbone(blocks=dataclasses.replace(PLAIN, **blocks), family=family)
    architecture = variant(of, ffn_0=32, attn_2="skip", group_1=1)
    model, _ = written(tmp_path / "hf", architecture, of)
    torch.testing.assert_close(theirs(loaded(tmp_path / "hf")), logits(model), rtol=1e-4, atol=1e-4)
    assert torch.equal(logits(load_candidate(tmp_path / "hf").model), logits(model))
    file = tmp_path / "hf" / "config.json"
    stated = json.loads(file.read_text())
    assert stated["hidden_act"] == ("gelu_pytorch_tanh" if family == "gemma3" else "silu")
    file.write_text(json.dumps({**stated, "hidden_act": "silu"}))
    assert load_candidate(tmp_path / "hf"), "as earlier versions wrote it"
    assert load_checkpoint(tmp_path / "hf").config.blocks.act == of.checkpoint.config.blocks.act


def test_vllm_finds_what_it_looks_for(tmp_path: Path) -> None:
    """The attributes that its DeciLM reads, and shapes that follow from them."""
    written(tmp_path / "hf", SAME_HEADS)
    config = transformers.AutoConfig.from_pretrained(tmp_path / "hf", trust_remote_code=True)
    assert (config.architectures, config.model_type) == (["DeciLMForCausalLM"], "nemotron-nas")
    weights = loaded(tmp_path / "hf").state_dict()
    assert config.num_hidden_layers == len(config.block_configs) == 4
    for number, block in enumerate(config.block_configs):
        prefix = f"model.layers.{number}."
        assert not block.ffn.no_op
        assert "ffn_mult" not in block.ffn, "32 and 96 are no multiples of 256"
        assert weights[prefix + "mlp.gate_proj.weight"].shape == (block.ffn.intermediate_size, config.hidden_size)
        if block.attention.no_op:
            assert block.attention.n_heads_in_group is None
            assert not any(name.startswith(prefix + "self_attn") for name in weights)
            continue
        kv = config.num_attention_heads // block.attention.n_heads_in_group
        assert weights[prefix + "self_attn.k_proj.weight"].shape[0] == kv * config.head_dim
        assert weights[prefix + "self_attn.q_proj.weight"].shape[0] == config.num_attention_heads * config.head_dim
    assert (config.rope_parameters["rope_theta"], config.tie_word_embeddings) == (5000.0, True)


def test_widths_in_multiples_of_256_are_stated_for_tensorrt_llm(tmp_path: Path) -> None:
    of = backbone(ffn=768)
    written(tmp_path / "hf", variant(of, ffn=768, ffn_1=256), of)
    blocks = json.loads((tmp_path / "hf" / "config.json").read_text())["block_configs"]
    widths = [int(2 * block["ffn"]["ffn_mult"] * 64 / 3) for block in blocks]
    assert [-(-width // 256) * 256 for width in widths] == [768, 256, 768]


@pytest.mark.parametrize("architecture", [DIFFERENT, FIRST_SKIPS], ids=["different", "first skips"])
def test_heads_that_add_nothing_make_a_decilm(tmp_path: Path, architecture: Architecture) -> None:
    model, notes = written(tmp_path / "deci", architecture, deci=True)
    assert any("those that are more have weights of 0" in note for note in notes)
    again = loaded(tmp_path / "deci")
    assert type(again).__name__ == "DeciLMForCausalLM"
    torch.testing.assert_close(theirs(again), logits(model), rtol=1e-4, atol=1e-4)
    assert not any(block.attention.no_op for block in again.config.block_configs[:1]), "vLLM's first layer attends"
    assert torch.equal(logits(load_candidate(tmp_path / "deci").model), logits(model))


def test_what_decilm_cannot_be_is_said(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match=r"layers\.1 sees the last 8 tokens, and layers of DeciLM see every earlier"):
        written(tmp_path / "deci", WINDOWED, deci=True)


@pytest.mark.parametrize(
    ("key", "value"),
    [("rms_norm_eps", 1e-6), ("block_configs", []), ("num_attention_heads", 8), ("blocks", {"bias": True})],
)
def test_a_folder_that_contradicts_itself_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    written(tmp_path / "hf", DIFFERENT)
    file = tmp_path / "hf" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    with pytest.raises(AssetError, match=r"config\.json describes other layers than rankitect\.json"):
        load_candidate(tmp_path / "hf")


def test_chat_template_and_stop_tokens_go_along(tmp_path: Path) -> None:
    written(tmp_path / "hf", DIFFERENT)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf", local_files_only=True)
    assert theirs.apply_chat_template([{"role": "user", "content": "hey"}], tokenize=False) == "hey"
    assert transformers.GenerationConfig.from_pretrained(tmp_path / "hf").eos_token_id == [259, 260]
    back = load_candidate(tmp_path / "hf")
    assert isinstance(back, LanguageCandidate)
    assert back.usage.stop_ids == (259, 260)
