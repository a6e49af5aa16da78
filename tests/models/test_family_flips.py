"""No flag is ignored: whatever stands in a field of a family's config.json, it is computed as by `transformers`, or
refused."""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from typing import Any

import pytest
import torch

from rankitect.errors import AssetError
from rankitect.models.backbone import Backbone
from rankitect.models.checkpoints import DecoderCheckpoint, DecoderConfig
from rankitect.models.checkpoints.checkpoint import check_tensors
from rankitect.models.checkpoints.fused import fused
from rankitect.models.checkpoints.huggingface_config import read_config
from rankitect.models.families import FAMILIES
from rankitect.models.families.keys import HUGGINGFACE_IGNORED
from rankitect.search_spaces.mobile_llm import from_backbone
from tests.models.checkpoint_files import lively, some_ids
from tests.models.family_models import LLAMA3, SIZES, YARN

SMALL = {**SIZES, "num_hidden_layers": 2, "hidden_size": 16, "intermediate_size": 16, "head_dim": 8}
SMALL |= {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 16}
STATED: dict[str, dict[str, Any]] = {
    "llama": {},
    "smollm3": {"no_rope_layers": [0, 1], "use_sliding_window": True, "sliding_window": 5},
    "mistral": {"sliding_window": 6},
    "qwen2": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    "qwen3": {},
    "gemma3": {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 5},
    "olmo2": {},
    "phi3": {"sliding_window": 7, "original_max_position_embeddings": 16, "num_attention_heads": 2},
}
"""What a family's configuration states beside sizes."""
OLDER = {"rope_theta": 10_000.0, "rope_scaling": None, "torch_dtype": "float32", "partial_rotary_factor": 1.0}
MAPPINGS = [
    {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4},
    {"type": "dynamic", "factor": 2.0},
    LLAMA3,
    {**LLAMA3, "low_freq_factor": 4.0},
    {**LLAMA3, "rope_type": "dynamic"},
    YARN,
    {**YARN, "mscale": 0.7, "mscale_all_dim": 1.2},
    {**YARN, "attention_factor": 0.9, "truncate": False, "beta_fast": 4},
    {**YARN, "beta_slow": 0},
    {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "factor": 2.0},
    {"rope_type": "default", "factor": 2},
    {"full_attention": {"rope_type": "linear", "factor": 2.0}, "sliding_attention": None},
    {"full_attention": {"rope_theta": 77.0}, "sliding_attention": {"rope_theta": 7.0}},
    {"full_attention": None, "sliding_attention": {"rope_type": "linear", "factor": 2.0}},
]
ANY = [None, True, False, 0, 1, 2, 5, 0.5, -1, 10**30, 1e39, "x", "", [], [1], {}]
"""What a field may hold by mistake."""
FITTING = {
    "rope_parameters": MAPPINGS,
    "rope_scaling": MAPPINGS,
    "layer_types": [["full_attention"] * 2, ["sliding_attention"] * 2, ["full_attention", "x"]],
    "no_rope_layers": [[1, 1], [0, 0], [1, 0, 1], [2, 0], [True, False]],
    "query_pre_attn_scalar": [64],
    "hidden_activation": ["gelu", "silu"],
    "hidden_act": ["gelu", "swish", "gelu_pytorch_tanh"],
}
"""More values for some fields, which a model may well have."""


def whole_config(family: str) -> dict[str, Any]:
    """All fields of a family's configuration, as `transformers` writes them."""
    transformers = pytest.importorskip("transformers")
    model_type = FAMILIES[family].huggingface.model_type
    sizes = {key: value for key, value in SMALL.items() if key != "head_dim" or family in ("qwen3", "gemma3")}
    config = transformers.AutoConfig.for_model(model_type, **{**sizes, **STATED[family]})
    config.architectures = [FAMILIES[family].huggingface.architecture]
    return dict(json.loads(config.to_json_string(use_diff=False)))


def theirs(config: dict[str, Any], checkpoint: DecoderCheckpoint, ids: torch.Tensor) -> torch.Tensor:
    """What `transformers` computes with our weights and a config."""
    import transformers

    stated = {key: value for key, value in config.items() if key != "model_type"}
    made = transformers.AutoConfig.for_model(config["model_type"], **json.loads(json.dumps(stated)))
    model = transformers.AutoModelForCausalLM.from_config(made).float().eval()
    model.load_state_dict(fused(checkpoint.tensors, checkpoint.config), strict=False)
    model.tie_weights()
    with torch.no_grad():
        return model(ids).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_every_field_is_computed_as_transformers_does_or_refused(family: str) -> None:
    whole = whole_config(family)
    base = read_config(whole, "config.json")
    checkpoint, ids = lively(base), some_ids(base, 1, 24)

    @cache
    def ours(sizes: DecoderConfig) -> torch.Tensor:
        backbone = Backbone(dataclasses.replace(checkpoint, config=sizes), from_backbone(sizes))
        with torch.no_grad():
            return backbone.inherit(backbone.largest)(ids)

    before = {**{key: value for key, value in whole.items() if key != "rope_parameters"}, **OLDER}
    before |= {"rope_theta": base.rope_base}
    before |= {"rope_local_base_freq": 1e4} if family == "gemma3" else {}
    of_layers = FAMILIES[family].huggingface.of_layers
    refused, computed = set(), set()
    for config, keys in ((whole, whole), (before, {*OLDER, *(before.keys() - whole.keys())})):
        assert read_config(config, "config.json") == base
        for key in sorted(keys):
            own = family == "llama" or key in of_layers or key in FITTING
            some = 1 if own else 3 if key not in HUGGINGFACE_IGNORED else len(ANY)  # other values fare as in a Llama
            values = [*ANY[len(key) % some :: some], *FITTING.get(key, ())]
            flips = [{**config, key: value} for value in values]
            for flipped in [*flips, {k: v for k, v in config.items() if k != key}]:
                try:
                    sizes = read_config(flipped, "config.json")
                    check_tensors(sizes, checkpoint.tensors, "folder")
                except AssetError:
                    refused.add(key)
                    continue
                try:
                    expected = theirs(flipped, checkpoint, ids)
                except Exception:  # transformers refuses it: then it must state nothing here, or change nothing
                    unstated = read_config({k: v for k, v in config.items() if k != key}, "config.json")
                    assert sizes == (unstated if flipped.get(key) is None else base), (key, flipped.get(key))
                    continue
                torch.testing.assert_close(ours(sizes), expected, atol=1e-4, rtol=0, msg=f"{key}: {flipped.get(key)!r}")
                computed.add(key)
    stated = of_layers & whole.keys()
    assert {"rope_parameters", "rope_scaling", "rope_theta", "tie_word_embeddings", *stated} <= refused
    assert {"rope_theta", "use_cache", "initializer_range", "attention_dropout", *stated} <= computed
