"""Configurations of published models are read, and mean what `transformers` makes of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rankitect.models.checkpoints.huggingface_config import read_config
from rankitect.models.families import family_of
from rankitect.models.families.writing import huggingface_keys, unwritable
from tests.models.published_configs import PUBLISHED


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
