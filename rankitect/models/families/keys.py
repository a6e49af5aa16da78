"""The keys of a decoder's configuration that every family shares: those that state its sizes, and those that say
nothing about what it computes.

A key of config.json, or a key of a GGUF file under its architecture's name, is either *understood* (it states a size,
or its family requires a value), or *neutral* at some of its values, or it is *ignored* whatever its value, or null.
Whatever else stands in a file is refused by name: it might change what the model computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = [
    "BASE",
    "FULL",
    "GGUF_NEUTRAL",
    "GGUF_SIZES",
    "HUGGINGFACE_IGNORED",
    "HUGGINGFACE_NEUTRAL",
    "HUGGINGFACE_SIZES",
    "KIND",
    "LOCAL",
    "SCALING_KEYS",
    "is_mixture",
]

KIND, BASE = "rope_type", "rope_theta"
"""The keys of config.json of RoPE's kind and base."""
FULL, LOCAL = "full_attention", "sliding_attention"
"""What config.json calls layers that see everything, and layers that see a window."""
SCALING_KEYS: Mapping[str, tuple[str | None, ...]] = {
    "linear": ("factor",),
    "dynamic": ("factor", None),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": (
        *("factor", "original_max_position_embeddings", "beta_fast", "beta_slow", "attention_factor", "truncate"),
    ),
}
"""For each kind of scaled RoPE the keys of its numbers, in the order of `blocks.SCALINGS`. None: the longest sequence
that the model was made for, which has a key of its own."""

HUGGINGFACE_SIZES: Mapping[str, str] = {
    "vocab": "vocab_size",
    "d_model": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "ffn": "intermediate_size",
    "norm_eps": "rms_norm_eps",
    "tied_embeddings": "tie_word_embeddings",
    "context": "max_position_embeddings",
}
"""The key of config.json that states each number of a `DecoderConfig`, but RoPE's base, which has several."""

HUGGINGFACE_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "tie_encoder_decoder": (False,),
    "chunk_size_feed_forward": (0,),
    "pruned_heads": ({},),
    "per_layer_config": ({},),
    "use_sliding_window": (False,),
    "rope_interleaved": (False,),
}
"""Keys of config.json that change what some model computes, with the values that change nothing."""

_BOOKKEEPING = """
    model_type architectures transformers_version torch_dtype dtype _name_or_path name_or_path _commit_hash
    _attn_implementation _attn_implementation_autoset attn_implementation _flash_attn_2_enabled
    experts_implementation transformers.js_config unsloth_fixed unsloth_version is_llama_config
    use_cache pretraining_tp is_decoder torchscript use_bfloat16 tf_legacy_loss tie_last_hidden_states
    output_hidden_states output_attentions return_dict max_sequence_length
    model_max_length tokenizer_model_max_length tokenizer_padding_side gradient_checkpointing
    initializer_range attention_dropout hidden_dropout attn_pdrop resid_pdrop embd_pdrop
    finetuning_task task_specific_params id2label label2id num_labels problem_type
    tokenizer_class prefix bos_token_id eos_token_id pad_token_id sep_token_id unk_token_id decoder_start_token_id
"""
_GENERATION = """
    cache_implementation
    max_length max_new_tokens min_length do_sample early_stopping num_beams num_beam_groups diversity_penalty
    temperature top_k top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size
    encoder_no_repeat_ngram_size bad_words_ids num_return_sequences return_dict_in_generate
    output_scores forced_bos_token_id forced_eos_token_id
    remove_invalid_values exponential_decay_length_penalty suppress_tokens begin_suppress_tokens
"""
HUGGINGFACE_IGNORED = frozenset(f"{_BOOKKEEPING} {_GENERATION}".split())
"""Keys of config.json that change nothing a trained model computes: bookkeeping, how it is trained, how one samples."""

_UNSAID = """
    mixtral qwen3_next qwen3next deepseek_v2 deepseek_v3 deepseek2 gpt_oss llama4 llama4_text dbrx jamba arctic grok
    minimax minimax_m2
"""
_MIXTURES = frozenset(_UNSAID.split())
"""Mixtures of experts whose names do not say so: values of `model_type`, and architectures of GGUF files."""


def is_mixture(name: str) -> bool:
    """Whether a `model_type` or the architecture of a GGUF file is a mixture of experts, which are refused as such."""
    name = name.replace("-", "_")
    return "moe" in name or name in _MIXTURES


GGUF_SIZES: Mapping[str, str] = {
    "d_model": "embedding_length",
    "n_layers": "block_count",
    "n_heads": "attention.head_count",
    "n_kv_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "ffn": "feed_forward_length",
    "rope_base": "rope.freq_base",
    "norm_eps": "attention.layer_norm_rms_epsilon",
    "context": "context_length",
}
"""The key of a GGUF file, without its architecture, that states each number of a `DecoderConfig`. The rows of the
embedding are the vocabulary, and a file without an output table ties it."""

GGUF_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "tensor_data_layout": ("Meta AI original pth",),
    "use_parallel_residual": (False,),
    "expert_count": (0,),
    "expert_used_count": (0,),
    "logit_scale": (0.0, 1.0),
    "residual_scale": (0.0, 1.0),
    "embedding_scale": (0.0, 1.0),
    "attn_logit_softcapping": (0.0,),
    "final_logit_softcapping": (0.0,),
    "pooling_type": (0,),
    "attention.causal": (True,),
    "attention.clamp_kqv": (0.0,),
    "attention.max_alibi_bias": (0.0,),
    "attention.scale": (0.0,),
    "attention.sliding_window": (0,),
    "rope.scaling.attn_factor": (1.0,),
    "rope.scaling.finetuned": (False, True),
}
"""Keys of a GGUF file that change what some model computes, with the values that change nothing."""
