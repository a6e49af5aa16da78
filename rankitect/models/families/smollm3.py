"""SmolLM3: a Llama in which every fourth layer is not turned by positions (arXiv 2501.18795)."""

from __future__ import annotations

from dataclasses import replace

from rankitect.models.families.family import GGUFFormat, as_itself
from rankitect.models.families.keys import HUGGINGFACE_IGNORED
from rankitect.models.families.layer_keys import RotaryKeys, WindowKeys
from rankitect.models.families.llama import LLAMA

__all__ = ["SMOLLM3"]

SMOLLM3 = replace(
    LLAMA,
    name="smollm3",
    title="SmolLM3",
    huggingface=replace(
        LLAMA.huggingface,
        divides_width=False,
        model_type="smollm3",
        architecture="SmolLM3ForCausalLM",
        explicit=frozenset({"num_key_value_heads"}),
        defaults={"rope_base": 2_000_000.0, "norm_eps": 1e-6, "tied_embeddings": True, "context": 32_768},
        ignored=HUGGINGFACE_IGNORED | {"max_window_layers"},
        windows=WindowKeys(switch="use_sliding_window", by_layer=True, rule=lambda layer, number, rotary: not rotary),
        rotary=RotaryKeys("no_rope_layers", "no_rope_layer_interval", 4),
    ),
    gguf=GGUFFormat(architecture="smollm3", rotates_neighbours=True, unturned=4),
    written_as=as_itself,
)
