"""Configurations of published models are read, and mean what `transformers` makes of them."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any

import pytest

from rankitect.errors import AssetError
from rankitect.models.checkpoints.checkpoint import tensor_shapes
from rankitect.models.checkpoints.gguf_config import family_in
from rankitect.models.checkpoints.gguf_metadata import Metadata
from rankitect.models.checkpoints.huggingface_config import read_config
from rankitect.models.families import family_of
from rankitect.models.families.writing import huggingface_keys, unwritable
from tests.models.published_configs import MOBILELLM, PUBLISHED


def as_read_by_transformers(config: dict[str, Any]) -> dict[str, Any]:
    """Every field of a configuration as transformers 5 understands and writes it."""
    transformers = pytest.importorskip("transformers")
    stated = {key: value for key, value in config.items() if key != "model_type"}
    made = transformers.AutoConfig.for_model(config["model_type"], **json.loads(json.dumps(stated)))
    return dict(json.loads(made.to_json_string(use_diff=False)))


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_configuration_is_read_as_transformers_reads_it(name: str) -> None:
    config = read_config(PUBLISHED[name], name)
    assert read_config(as_read_by_transformers(PUBLISHED[name]), name) == config
    family = family_of(config)
    assert unwritable(family, config) is None
    assert read_config(json.loads(json.dumps(huggingface_keys(family, config))), name) == config


def test_what_published_models_are_known_for_is_read() -> None:
    configs = {name: read_config(config, name) for name, config in PUBLISHED.items()}
    assert configs["Llama-3.2-1B"].blocks.rope_scaling == ("llama3", 32.0, 1.0, 4.0, 8192)
    assert configs["SmolLM3-3B"].blocks.rotary == (True, True, True, False) * 9
    assert configs["Mistral-7B-v0.1"].blocks.windows == (4096,) * 32
    assert not configs["Qwen2-0.5B"].blocks.windows
    assert configs["Qwen3-0.6B"].head_dim * configs["Qwen3-0.6B"].n_heads == 2 * configs["Qwen3-0.6B"].d_model
    assert configs["gemma-3-1b-it"].blocks.windows == ((512,) * 5 + (None,)) * 4 + (512, 512)
    four = configs["gemma-3-4b-it"]
    assert (four.blocks.rope_scaling, four.blocks.local_rope_base, four.n_kv_heads) == (("linear", 8.0), 10_000.0, 4)
    assert configs["Phi-3-mini-4k"].blocks.windows == (2047,) * 32


def test_a_mobilellm_is_the_llama_whose_output_table_its_own_key_ties() -> None:
    config = read_config(MOBILELLM, "config.json")
    assert (config.family, config.tied_embeddings, config.head_dim, config.n_kv_heads) == ("llama", True, 64, 3)
    shapes = [prod(shape) for shape in tensor_shapes(config).values()]
    assert sum(shapes) == 124_635_456
    assert not read_config({**MOBILELLM, "share_embedding": False}, "config.json").tied_embeddings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer_sharing": True}, "layer_sharing is True. Supported: False"),
        ({"share_embedding": 1}, "share_embedding is 1; it must say by true or false"),
        ({"architectures": ["LlamaForCausalLM"]}, r"architectures is .*Supported: \['MobileLLMForCausalLM'\]"),
        ({"mlp_bias": True}, "mlp_bias is True"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings is 'yes'"),
        ({"auto_map": {"AutoModelForCausalLM": "modeling.Own"}}, "code of the model's own"),
    ],
)
def test_what_a_mobilellm_may_not_say_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(AssetError, match=message):
        read_config({**MOBILELLM, **changes}, "config.json")
    with pytest.raises(AssetError, match="share_embedding is missing"):
        read_config({key: value for key, value in MOBILELLM.items() if key != "share_embedding"}, "config.json")


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("Llama-3.2-1B", {"AutoModelForCausalLM": "modeling_own.OwnForCausalLM"}, "may compute something else"),
        ("Llama-3.2-1B", {"AutoModelForCausalLM": "modeling_flash.LlamaForCausalLM"}, "may compute something else"),
        (
            "Phi-3-mini-4k",
            {"AutoConfig": "owner/model--configuration_own.Phi3Config"},
            "Supported: 'configuration_phi3",
        ),
        ("Qwen2-0.5B", "modeling_qwen2.Qwen2ForCausalLM", "it must name a class"),
        ("Qwen2-0.5B", {"AutoModel": ["modeling_qwen2.Qwen2Model"]}, "may compute something else"),
    ],
)
def test_code_of_a_models_own_is_refused(name: str, code: Any, message: str) -> None:
    with pytest.raises(AssetError, match=message) as error:
        read_config({**PUBLISHED[name], "auto_map": code}, "config.json")
    assert len(str(error.value)) <= 500


def test_code_that_transformers_has_by_now_is_no_code_of_a_models_own() -> None:
    plain = read_config(PUBLISHED["Llama-3.2-1B"], "config.json")
    code = {
        "AutoConfig": "meta/llama--configuration_llama.LlamaConfig",
        "AutoModelForCausalLM": "modeling_llama.LlamaForCausalLM",
        "AutoTokenizer": ["tokenization.Own", None],
    }
    assert read_config({**PUBLISHED["Llama-3.2-1B"], "auto_map": code}, "config.json") == plain


@pytest.mark.parametrize("name", ["qwen3_5_moe", "qwen3_5_moe_text", "granitemoehybrid", "bailingmoe2", "gpt-oss"])
def test_mixtures_of_experts_are_called_so_in_either_format(name: str) -> None:
    with pytest.raises(AssetError, match=", a mixture of experts, which is not supported"):
        read_config({**PUBLISHED["Qwen2-0.5B"], "model_type": name}, "config.json")
    metadata = Metadata(Path("model.gguf"), {"general.architecture": name})
    with pytest.raises(AssetError, match=", a mixture of experts, which is not supported"):
        family_in(metadata)
