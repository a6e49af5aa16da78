"""OLMo 2 (arXiv 2501.00656): norms stand behind each part of a layer, and normalise all query or key heads at once."""

from __future__ import annotations

from dataclasses import replace

from rankitect.models.families.axes import CHANNELS, KV_HEADS, QUERY_HEADS
from rankitect.models.families.blocks import PLAIN
from rankitect.models.families.config import HEAD
from rankitect.models.families.family import GGUFFormat, Weight, as_itself
from rankitect.models.families.llama import ATTENTION, LLAMA

__all__ = ["OLMO2"]

_NORMS = (
    Weight(
        ATTENTION,
        "q_norm",
        (KV_HEADS, QUERY_HEADS, HEAD),
        "self_attn.q_norm.weight",
        "attn_q_norm.weight",
        kind="gain",
    ),
    Weight(ATTENTION, "k_norm", (KV_HEADS, HEAD), "self_attn.k_norm.weight", "attn_k_norm.weight", kind="gain"),
    Weight(
        "behind1", "weight", (CHANNELS,), "post_attention_layernorm.weight", "post_attention_norm.weight", kind="gain"
    ),
    Weight("behind2", "weight", (CHANNELS,), "post_feedforward_layernorm.weight", "post_ffw_norm.weight", kind="gain"),
)

OLMO2 = replace(
    LLAMA,
    name="olmo2",
    title="OLMo 2",
    huggingface=replace(
        LLAMA.huggingface,
        divides_width=False,
        model_type="olmo2",
        architecture="Olmo2ForCausalLM",
        required={"hidden_act": ("silu", "swish"), "attention_bias": (False,)},
        defaults={"rope_base": 10_000.0, "norm_eps": 1e-5, "tied_embeddings": False, "context": 2048},
    ),
    gguf=GGUFFormat(architecture="olmo2", rotates_neighbours=False),
    layer=(*(weight for weight in LLAMA.layer if weight.kind == "matrix"), *_NORMS),
    blocks=replace(PLAIN, qk_norm="all", norms="post"),
    written_as=as_itself,
)
