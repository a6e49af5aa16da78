"""Llama (arXiv 2302.13971) and what is built like it, such as SmolLM2: the example to follow for another family."""

from __future__ import annotations

from rankitect.models.families.axes import CHANNELS, FFN, KV_HEADS, PATTERN, QUERY_HEADS
from rankitect.models.families.config import HEAD, VOCAB, DecoderConfig
from rankitect.models.families.family import Family, GGUFFormat, HuggingFaceFormat, Weight

__all__ = ["ATTENTION", "LLAMA"]

ATTENTION = f"{PATTERN}.shared"  # the patterns of a layer share one set of weights
MLP = "mlp"


def _class_of(config: DecoderConfig) -> str:
    """The Mistral of `transformers` for what its Llama cannot be.

    Both compute the same, save that a Mistral may have a sliding window, and a width that is no multiple of its heads,
    which transformers 5 refuses in a Llama.
    """
    return "mistral" if config.blocks.windows or config.d_model % config.n_heads else config.family


LLAMA = Family(
    name="llama",
    title="Llama",
    huggingface=HuggingFaceFormat(
        model_type="llama",
        architecture="LlamaForCausalLM",
        required={"hidden_act": ("silu", "swish"), "attention_bias": (False,), "mlp_bias": (False,)},
        defaults={"rope_base": 10_000.0, "norm_eps": 1e-6, "tied_embeddings": False, "context": 2048},
        written={"attention_dropout": 0.0},
        divides_width=True,
    ),
    gguf=GGUFFormat(architecture="llama", rotates_neighbours=True),
    embedding=Weight("embed", "weight", (VOCAB, CHANNELS), "model.embed_tokens.weight", "token_embd.weight"),
    layer=(
        Weight("norm1", "weight", (CHANNELS,), "input_layernorm.weight", "attn_norm.weight", kind="gain"),
        Weight(
            ATTENTION,
            "q",
            (KV_HEADS, QUERY_HEADS, HEAD, CHANNELS),
            "self_attn.q_proj.weight",
            "attn_q.weight",
            rotated=True,
        ),
        Weight(ATTENTION, "k", (KV_HEADS, HEAD, CHANNELS), "self_attn.k_proj.weight", "attn_k.weight", rotated=True),
        Weight(ATTENTION, "v", (KV_HEADS, HEAD, CHANNELS), "self_attn.v_proj.weight", "attn_v.weight"),
        Weight(
            ATTENTION, "o", (CHANNELS, KV_HEADS, QUERY_HEADS, HEAD), "self_attn.o_proj.weight", "attn_output.weight"
        ),
        Weight("norm2", "weight", (CHANNELS,), "post_attention_layernorm.weight", "ffn_norm.weight", kind="gain"),
        Weight(MLP, "gate", (FFN, CHANNELS), "mlp.gate_proj.weight", "ffn_gate.weight"),
        Weight(MLP, "up", (FFN, CHANNELS), "mlp.up_proj.weight", "ffn_up.weight"),
        Weight(MLP, "down", (CHANNELS, FFN), "mlp.down_proj.weight", "ffn_down.weight"),
    ),
    norm=Weight("norm", "weight", (CHANNELS,), "model.norm.weight", "output_norm.weight", kind="gain"),
    head=Weight("head", "weight", (VOCAB, CHANNELS), "lm_head.weight", "output.weight"),
    written_as=_class_of,
)
"""RMSNorm before each part of a layer, grouped-query attention with RoPE on whole heads, SwiGLU, no biases."""
