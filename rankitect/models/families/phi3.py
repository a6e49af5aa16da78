"""Phi-3 (arXiv 2404.14219): a Llama with a window, whose files hold queries, keys and values in one matrix.

Gate and up are in another. Its models for long texts (`longrope`) are refused.
"""

from __future__ import annotations

from dataclasses import replace

from rankitect.models.families.family import GGUFFormat, as_itself
from rankitect.models.families.layer_keys import WindowKeys
from rankitect.models.families.llama import LLAMA

__all__ = ["PHI3"]

PHI3 = replace(
    LLAMA,
    name="phi3",
    title="Phi-3",
    huggingface=replace(
        LLAMA.huggingface,
        divides_width=False,
        model_type="phi3",
        architecture="Phi3ForCausalLM",
        required={"hidden_act": ("silu", "swish")},
        defaults={"rope_base": 10_000.0, "norm_eps": 1e-5, "tied_embeddings": False, "context": 4096},
        neutral={**LLAMA.huggingface.neutral, "attention_bias": (False,)},
        windows=WindowKeys(),
        scalings=frozenset(),
        fused={
            "self_attn.qkv_proj.weight": tuple(f"self_attn.{name}_proj.weight" for name in "qkv"),
            "mlp.gate_up_proj.weight": ("mlp.gate_proj.weight", "mlp.up_proj.weight"),
        },
    ),
    gguf=GGUFFormat(
        architecture="phi3",
        rotates_neighbours=False,
        windows=0,
        fused={
            "attn_qkv.weight": ("attn_q.weight", "attn_k.weight", "attn_v.weight"),
            "ffn_up.weight": ("ffn_gate.weight", "ffn_up.weight"),
        },
    ),
    written_as=as_itself,
)
