"""Qwen2 and Qwen2.5 (arXiv 2407.10671), whose queries, keys and values have biases, and Qwen3 (arXiv 2505.09388), which
has none but a norm of each query and key head. Their later layers may see a sliding window."""

from __future__ import annotations

from dataclasses import replace

from rankitect.models.families.axes import KV_HEADS, QUERY_HEADS
from rankitect.models.families.blocks import PLAIN
from rankitect.models.families.config import HEAD
from rankitect.models.families.family import GGUFFormat, Weight, as_itself
from rankitect.models.families.layer_keys import WindowKeys
from rankitect.models.families.llama import ATTENTION, LLAMA
from rankitect.models.families.values import Number

__all__ = ["HEAD_NORMS", "QWEN2", "QWEN3"]

_BIASES = (
    Weight(
        ATTENTION, "q_bias", (KV_HEADS, QUERY_HEADS, HEAD), "self_attn.q_proj.bias", "attn_q.bias", True, kind="bias"
    ),
    Weight(ATTENTION, "k_bias", (KV_HEADS, HEAD), "self_attn.k_proj.bias", "attn_k.bias", True, kind="bias"),
    Weight(ATTENTION, "v_bias", (KV_HEADS, HEAD), "self_attn.v_proj.bias", "attn_v.bias", kind="bias"),
)
HEAD_NORMS = (
    Weight(ATTENTION, "q_norm", (HEAD,), "self_attn.q_norm.weight", "attn_q_norm.weight", kind="gain"),
    Weight(ATTENTION, "k_norm", (HEAD,), "self_attn.k_norm.weight", "attn_k_norm.weight", kind="gain"),
)
"""Norms of each query and key head, with one weight for all heads of a layer."""

_HUGGINGFACE = replace(
    LLAMA.huggingface,
    divides_width=False,
    required={"hidden_act": ("silu", "swish")},
    explicit=frozenset({"num_key_value_heads"}),
    defaults={"rope_base": 10_000.0, "norm_eps": 1e-6, "tied_embeddings": False, "context": 32_768},
    neutral={**LLAMA.huggingface.neutral, "use_mrope": (False,)},
    windows=WindowKeys(
        default=4096,
        switch="use_sliding_window",
        by_layer=True,
        rule=lambda layer, first, rotary: layer >= first,
        number=("max_window_layers", 28, Number(0, 2**31 - 1)),
    ),
)

QWEN2 = replace(
    LLAMA,
    name="qwen2",
    title="Qwen2",
    huggingface=replace(_HUGGINGFACE, model_type="qwen2", architecture="Qwen2ForCausalLM"),
    gguf=GGUFFormat(architecture="qwen2", rotates_neighbours=False),
    layer=(*LLAMA.layer, *_BIASES),
    blocks=replace(PLAIN, bias=True),
    written_as=as_itself,
)

QWEN3 = replace(
    LLAMA,
    name="qwen3",
    title="Qwen3",
    huggingface=replace(
        _HUGGINGFACE,
        model_type="qwen3",
        architecture="Qwen3ForCausalLM",
        required={"hidden_act": ("silu", "swish"), "attention_bias": (False,)},
        defaults={**_HUGGINGFACE.defaults, "head_dim": 128},
    ),
    gguf=GGUFFormat(architecture="qwen3", rotates_neighbours=False),
    layer=(*LLAMA.layer, *HEAD_NORMS),
    blocks=replace(PLAIN, qk_norm="head"),
    written_as=as_itself,
)
