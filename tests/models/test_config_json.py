"""config.json: a field that is believed computes what `transformers` computes with it, and any other is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rankitect.errors import AssetError
from rankitect.models.checkpoints import DecoderConfig, load_checkpoint, save_huggingface
from rankitect.models.checkpoints.huggingface_config import read_config
from rankitect.models.families.values import LIMITS
from tests.models.checkpoint_files import lively, some_ids
from tests.models.reference import ReferenceLlama

CONFIG = DecoderConfig(vocab=256, d_model=32, n_layers=1, n_heads=4, n_kv_heads=2, head_dim=8, ffn=32, context=64)
CHECKPOINT = lively(CONFIG)
IDS = some_ids(CONFIG, 1, 24)
Folder = Callable[[dict[str, Any]], Path]


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ours")
    save_huggingface(folder, CONFIG, CHECKPOINT.tensors, CHECKPOINT.tokenizer)
    return folder


@pytest.fixture
def folder(ours: Path) -> Folder:
    """Gives the folder with a config.json."""

    def changed(config: dict[str, Any]) -> Path:
        (ours / "config.json").write_text(json.dumps(config))
        return ours

    return changed


def written_by_transformers(ours: Path) -> dict[str, Any]:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=256, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
        intermediate_size=32, max_position_embeddings=64, rms_norm_eps=1e-5, tie_word_embeddings=True,
        architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    return dict(json.loads(config.to_json_string(use_diff=False)))


def logits_of(config: dict[str, Any]) -> torch.Tensor:
    """What `transformers` computes with our weights and a config."""
    import transformers

    model = transformers.LlamaForCausalLM(transformers.LlamaConfig.from_dict(dict(config))).float().eval()
    model.load_state_dict(CHECKPOINT.tensors, strict=False)
    model.tie_weights()
    with torch.no_grad():
        return model(IDS).logits


@pytest.mark.parametrize(
    ("rope", "base"),
    [
        ({"rope_scaling": {"type": "linear", "factor": 1.0}, "rope_theta": 77.0}, 77.0),
        ({"rope_scaling": {"rope_type": "default", "rope_theta": 77.0}}, 77.0),
        ({"rope_parameters": {"rope_theta": 77}}, 77.0),
        ({"rope_parameters": {"rope_theta": 77.0, "rope_type": "default"}, "rope_theta": 77}, 77.0),
        ({"rope_parameters": None, "rope_scaling": {}, "partial_rotary_factor": 1.0}, 10_000.0),
        ({"rope_theta": 77.0, "original_max_position_embeddings": 64}, 77.0),
        ({"rope_parameters": {"rope_theta": 77}, "rope_scaling": {"type": "default", "rope_theta": 77.0}}, 77.0),
        ({"rope_theta": 77, "rope_scaling": {"type": "linear", "factor": 1}, "rope_parameters": {"factor": 1.0}}, 77.0),
        ({"rope_scaling": {"type": "linear", "factor": 1}, "rope_parameters": {"rope_theta": 1e4}}, 10_000.0),
    ],
)
def test_plain_rotary_positions_are_read_under_every_spelling(
    ours: Path, folder: Folder, rope: dict[str, Any], base: float
) -> None:
    config = {k: v for k, v in written_by_transformers(ours).items() if not k.startswith("rope")} | rope
    checkpoint = load_checkpoint(folder(config))
    assert checkpoint.config.rope_base == base
    with torch.no_grad():
        torch.testing.assert_close(ReferenceLlama.load(checkpoint)(IDS), logits_of(config), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("rope", "message"),
    [
        ({"rope_scaling": True}, "rope_scaling is True; it must be a mapping, or null"),
        ({"rope_scaling": {"rope_theta": 77.0, "factor": 8.0}}, "rope_scaling.factor is 8.0, which the RoPE of"),
        ({"rope_scaling": {"rope_type": "default", "factor": 8.0}}, "rope_scaling.factor is 8.0"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling.factor is missing"),
        ({"rope_scaling": {"type": "linear", "factor": True}}, "rope_scaling.factor is True"),
        ({"rope_scaling": {"kind": "yarn"}}, "rope_scaling.kind is 'yarn'"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 7.0}}}, "rope_parameters.full_attention is {"),
        ({"rope_parameters": {"rope_theta": 7.0}, "rope_theta": 8.0}, "RoPE's base is stated more than once"),
        (
            {"rope_parameters": {"rope_theta": 7.0}, "rope_scaling": {"type": "linear", "factor": 1}},
            "rope_scaling means 1",
        ),
        ({"partial_rotary_factor": "x"}, "partial_rotary_factor is 'x'"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"rope_theta": False}, "rope_theta is False; it must be a number from"),
        ({"rope_parameters": {"rope_theta": 7.0}, "rope_scaling": {"rope_theta": 8.0}}, "stated more than once"),
        ({"rope_scaling": {"type": "linear", "factor": None}}, "rope_scaling.factor is missing"),
        ({"rope_theta": 0}, "rope_theta is 0; it must be a number from"),
        ({"original_max_position_embeddings": 8}, "original_max_position_embeddings is 8"),
        ({"rope_local_base_freq": 1e4}, "'rope_local_base_freq' is 10000.0, and no Llama"),
    ],
)
def test_other_rotary_positions_are_refused_by_name(ours: Path, rope: dict[str, Any], message: str) -> None:
    config = {k: v for k, v in written_by_transformers(ours).items() if not k.startswith("rope")} | rope
    with pytest.raises(AssetError) as caught:
        read_config(config, "config.json")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "key",
    ["rope_theta", "rope_parameters", "max_position_embeddings", "tie_word_embeddings", "rms_norm_eps", "head_dim"],
)
def test_a_number_that_is_null_is_the_default_of_the_class(ours: Path, key: str) -> None:
    config = {k: v for k, v in written_by_transformers(ours).items() if k != key}
    assert read_config({**config, key: None}, "config.json") == read_config(config, "config.json")


def test_a_null_base_within_a_mapping_is_the_one_beside_it(ours: Path) -> None:
    config = {k: v for k, v in written_by_transformers(ours).items() if not k.startswith("rope")}
    for mapping in ({"rope_theta": None}, {"rope_type": "default", "rope_theta": None}):
        assert read_config({**config, "rope_scaling": mapping}, "config.json").rope_base == 10_000.0
        assert read_config({**config, "rope_scaling": mapping, "rope_theta": 77}, "config.json").rope_base == 77.0


def test_a_null_size_that_has_no_default_is_refused(ours: Path) -> None:
    with pytest.raises(AssetError, match="hidden_size is null; it must be stated"):
        read_config({**written_by_transformers(ours), "hidden_size": None}, "config.json")


def test_keys_that_nobody_knows_are_refused_unless_they_are_null(ours: Path) -> None:
    config = written_by_transformers(ours)
    assert read_config({**config, "logit_multiplier": None, "hidden_act": "swish"}, "config.json") == CONFIG
    with pytest.raises(AssetError, match=r"'logit_multiplier' is 8\.0, and no Llama that is understood has this key"):
        read_config({**config, "logit_multiplier": 8.0}, "config.json")


@pytest.mark.parametrize("name", LIMITS)
def test_numbers_of_a_model_are_numbers_in_range(name: str) -> None:
    wrong: list[Any] = ["4", None, [4], math.nan, math.inf, -math.inf, 10**30, -1, 10**5000]
    wrong += [1, 0, "x"] if name == "tied_embeddings" else [0, True, False]
    for value in wrong:
        with pytest.raises(AssetError, match=f"model config: {name} is") as caught:
            DecoderConfig(**{**vars(CONFIG), name: value})
        assert len(str(caught.value)) < 500
