"""Families of pretrained decoders, one object each, and what all of them share.

A family says once what its models are called and how they are laid out: the table of its weights with their names in a
space, in Hugging Face folders and in GGUF files, the axis that each of their dimensions counts, what RoPE permutes, and
the class of `transformers` that a pruned model is written as. What its layers compute is not said here but by the
fields of `rankitect.blocks`; reading and writing files is the work of `rankitect.models.checkpoints`.

Enter through `llama.py`. To add a family, write a file like it and list its object in `FAMILIES`. Nothing here imports
torch.
"""

from rankitect.errors import AssetError
from rankitect.models.families.blocks import PLAIN, DecoderBlocks
from rankitect.models.families.config import HEAD, VOCAB, DecoderConfig
from rankitect.models.families.family import Family, GGUFFormat, HuggingFaceFormat, Weight
from rankitect.models.families.gemma3 import GEMMA3
from rankitect.models.families.layer_sizes import LayerSizes
from rankitect.models.families.llama import LLAMA
from rankitect.models.families.mistral import MISTRAL
from rankitect.models.families.olmo2 import OLMO2
from rankitect.models.families.phi3 import PHI3
from rankitect.models.families.qwen import QWEN2, QWEN3
from rankitect.models.families.smollm3 import SMOLLM3

__all__ = [
    "FAMILIES",
    "HEAD",
    "LLAMA",
    "PLAIN",
    "VOCAB",
    "DecoderBlocks",
    "DecoderConfig",
    "Family",
    "GGUFFormat",
    "HuggingFaceFormat",
    "LayerSizes",
    "Weight",
    "family_of",
]

FAMILIES: dict[str, Family] = {
    family.name: family for family in (LLAMA, SMOLLM3, MISTRAL, QWEN2, QWEN3, GEMMA3, OLMO2, PHI3)
}
"""The families that are supported, by name."""


def family_of(config: DecoderConfig) -> Family:
    """The family of a model.

    Raises:
        AssetError: It is not supported; names those that are.
    """
    if config.family not in FAMILIES:
        raise AssetError(f"family is {config.family!r}. Supported: {', '.join(map(repr, FAMILIES))}.")
    return FAMILIES[config.family]
