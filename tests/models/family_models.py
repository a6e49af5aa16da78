"""Tiny random models of `transformers`, one for each family and what its configurations may say, and how we load them.

Sizes are shrunk; every flag is that of published configurations.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from rankitect.data.tokenizer import ByteTokenizer

SIZES = {
    "vocab_size": 256, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.3,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0, "original_max_position_embeddings": 16}
TRUE_CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-2": ("llama", {"num_key_value_heads": 4, "rms_norm_eps": 1e-5}),
    "llama-3.2": ("llama", {"tie_word_embeddings": True, "rope_parameters": LLAMA3, "head_dim": 16}),
    "llama-linear": ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}}),
    "llama-dynamic": (
        "llama",
        {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}, "max_position_embeddings": 16},
    ),
    "mobilellm": ("llama", {"hidden_size": 36, "num_attention_heads": 9, "num_key_value_heads": 3}),
    "smollm2": ("llama", {"tie_word_embeddings": True, "rope_parameters": {"rope_theta": 1e5}}),
    "mistral": ("mistral", {"sliding_window": None, "head_dim": 16, "rope_parameters": {"rope_theta": 1e6}}),
    "mistral-window": ("mistral", {"sliding_window": 8}),
    "qwen2": (
        "qwen2",
        {
            "tie_word_embeddings": True,
            "rope_parameters": {"rope_theta": 1e6},
            "sliding_window": 32,
            "max_window_layers": 2,
        },
    ),
    "qwen2-window": ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2}),
    "qwen2.5-yarn": ("qwen2", {"rope_parameters": YARN}),
    "qwen3": ("qwen3", {"tie_word_embeddings": True, "head_dim": 16, "rope_parameters": {"rope_theta": 1e6}}),
    "smollm3": ("smollm3", {"rope_parameters": {"rope_theta": 5e6}}),
    "smollm3-window": (
        "smollm3",
        {"no_rope_layer_interval": 2, "use_sliding_window": True, "sliding_window": 8, "tie_word_embeddings": False},
    ),
    "gemma3": (
        "gemma3_text",
        {"head_dim": 16, "query_pre_attn_scalar": 24, "sliding_window": 8, "num_key_value_heads": 1},
    ),
    "gemma3-scaled": (
        "gemma3_text",
        {
            "head_dim": 16,
            "sliding_window": 4,
            "sliding_window_pattern": 2,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        },
    ),
    "olmo2": ("olmo2", {"num_key_value_heads": 4, "rope_parameters": {"rope_theta": 5e5}, "rms_norm_eps": 1e-6}),
    "olmo2-grouped": ("olmo2", {}),
    "phi3": (
        "phi3",
        {"num_key_value_heads": 4, "sliding_window": 7, "rms_norm_eps": 1e-5, "original_max_position_embeddings": 64},
    ),
}
"""For each model its type and what it states beside `SIZES`."""


def config_of(name: str) -> Any:
    """The configuration of a model."""
    transformers = pytest.importorskip("transformers")
    kind, stated = TRUE_CONFIGS[name]
    return transformers.AutoConfig.for_model(kind, **{**SIZES, **json.loads(json.dumps(stated))})


def model_of(config: Any, seed: int = 0) -> Any:
    """A random model, all of whose weights matter: norms and biases too."""
    import transformers

    torch.manual_seed(seed)
    return some_weights(
        transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    )


def some_weights(model: Any) -> Any:
    """A model whose norms and biases are none that change nothing."""
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=noise))
    return model


def write(folder: Path, model: Any) -> Path:
    """A folder as `transformers` writes it, with the tokenizer of bytes."""
    model.save_pretrained(folder)
    ByteTokenizer().save(folder)
    return folder
