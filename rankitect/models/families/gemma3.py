"""Gemma 3's text models (arXiv 2503.19786), alone or in the folders of those that also see images.

A GeGLU; norms before and behind each part and of each head, whose weights are stored less 1; a scaled embedding; and
five layers with a window, turned by a base of their own, for one that sees everything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rankitect.models.families.axes import CHANNELS
from rankitect.models.families.blocks import PLAIN
from rankitect.models.families.family import GGUFFormat, HuggingFaceFormat, TextPart, Weight, as_itself
from rankitect.models.families.keys import HUGGINGFACE_IGNORED
from rankitect.models.families.layer_keys import WindowKeys
from rankitect.models.families.llama import LLAMA
from rankitect.models.families.qwen import HEAD_NORMS
from rankitect.models.families.values import Number

__all__ = ["GEMMA3"]

_LAYERS_OF_27B = 62
_IMAGES = """
    vision_config mm_tokens_per_image boi_token_index eoi_token_index image_token_index boi_token_id eoi_token_id
    image_token_id
"""
_NORMS = (
    Weight("norm1", "weight", (CHANNELS,), "input_layernorm.weight", "attn_norm.weight", kind="gain"),
    Weight(
        "behind1", "weight", (CHANNELS,), "post_attention_layernorm.weight", "post_attention_norm.weight", kind="gain"
    ),
    Weight("norm2", "weight", (CHANNELS,), "pre_feedforward_layernorm.weight", "ffn_norm.weight", kind="gain"),
    Weight("behind2", "weight", (CHANNELS,), "post_feedforward_layernorm.weight", "post_ffw_norm.weight", kind="gain"),
)


def _scale(sizes: Mapping[str, Any]) -> Mapping[str, Any]:
    """The scale of products, which GGUF files do not state: llama.cpp knows the one model where it is another."""
    by_width = sizes["n_layers"] == _LAYERS_OF_27B
    return {"score_scale": (sizes["d_model"] / sizes["n_heads"] if by_width else sizes["head_dim"]) ** -0.5}


GEMMA3 = replace(
    LLAMA,
    name="gemma3",
    title="Gemma 3",
    huggingface=HuggingFaceFormat(
        model_type="gemma3_text",
        architecture="Gemma3ForCausalLM",
        required={
            "hidden_activation": ("gelu_pytorch_tanh",),
            "attention_bias": (False,),
            "attn_logit_softcapping": (None,),
            "final_logit_softcapping": (None,),
            "use_bidirectional_attention": (False, None),
        },
        defaults={
            "vocab": 262_208,
            "d_model": 2304,
            "n_layers": 26,
            "n_heads": 8,
            "n_kv_heads": 4,
            "ffn": 9216,
            "rope_base": 1_000_000.0,
            "local_rope_base": 10_000.0,
            "norm_eps": 1e-6,
            "tied_embeddings": True,
            "context": 131_072,
            "head_dim": 256,
        },
        ignored=HUGGINGFACE_IGNORED | {"_sliding_window_pattern"},  # what `layer_types` was made from
        windows=WindowKeys(
            default=4096,
            by_layer=True,
            rule=lambda layer, every, rotary: (layer + 1) % every != 0,
            number=("sliding_window_pattern", 6, Number(1, 2**31 - 1)),
        ),
        local_base="rope_local_base_freq",
        score_scale="query_pre_attn_scalar",
        divides_width=True,
        text_part=TextPart(
            model_type="gemma3",
            architecture="Gemma3ForConditionalGeneration",
            key="text_config",
            text_type="gemma3_text",
            ignored=HUGGINGFACE_IGNORED | set(_IMAGES.split()),
            prefixes={"model.language_model.": "model.", "language_model.": ""},
            others=("vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector."),
        ),
    ),
    gguf=GGUFFormat(
        architecture="gemma3",
        rotates_neighbours=False,
        windows=6,
        local_base=10_000.0,
        gains_with_offset=True,
        blocks=_scale,
    ),
    layer=(*_NORMS, *(weight for weight in LLAMA.layer if weight.kind == "matrix"), *HEAD_NORMS),
    blocks=replace(PLAIN, qk_norm="head", score_scale=256**-0.5, norm_offset=1.0, norms="both", act="gelu_tanh"),
    scales_embedding=True,
    written_as=as_itself,
)
