"""Mistral (arXiv 2310.06825): a Llama that may see a sliding window in all of its layers."""

from __future__ import annotations

from dataclasses import replace

from rankitect.models.families.family import as_itself
from rankitect.models.families.layer_keys import WindowKeys
from rankitect.models.families.llama import LLAMA

__all__ = ["MISTRAL"]

MISTRAL = replace(
    LLAMA,
    name="mistral",
    title="Mistral",
    huggingface=replace(
        LLAMA.huggingface,
        divides_width=False,
        model_type="mistral",
        architecture="MistralForCausalLM",
        required={"hidden_act": ("silu", "swish")},
        explicit=frozenset({"num_key_value_heads"}),
        defaults={"rope_base": 10_000.0, "norm_eps": 1e-6, "tied_embeddings": False, "context": 131_072},
        windows=WindowKeys(default=4096),
    ),
    written_as=as_itself,
)
"""GGUF files of Mistral say that they are of the architecture `llama`."""
