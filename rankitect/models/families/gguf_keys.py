"""What a GGUF file says of a model's blocks: its keys, the factors of RoPE's frequencies, and what no file can say."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rankitect.models.families.config import DecoderConfig
from rankitect.models.families.family import Family

if TYPE_CHECKING:
    import torch

__all__ = [
    "DECI",
    "FACTORS",
    "WINDOW",
    "WINDOW_PATTERN",
    "block_keys",
    "frequency_factors",
    "halves_apart",
    "halves_interleaved",
    "unwritable_in_gguf",
    "windowed",
]

DECI = "deci"
"""llama.cpp's architecture of pruned models, which states heads and widths by layer."""
FACTORS = "rope_freqs.weight"
"""The tensor by which llama.cpp divides RoPE's frequencies."""
WINDOW, WINDOW_PATTERN = "attention.sliding_window", "attention.sliding_window_pattern"
"""The keys that say how many tokens back layers with a window see, and which layers those are."""

_LLAMA3, _YARN = "llama3", "yarn"
_YARN_BORDERS = (32.0, 1.0)
"""The rotations between which llama.cpp passes from one scaling to the other."""
_SQUARE = frozenset({"qwen2", "olmo2", "phi3"})
"""Architectures whose query heads are as wide together as the residual stream."""
_UNTIED = frozenset({"olmo2"})
"""Architectures that have an output table of their own."""


def block_keys(family: Family, config: DecoderConfig) -> dict[str, Any]:
    """The keys of blocks, without the architecture's name.

    Args:
        family: The model's.
        config: Of a model that a file can hold (`unwritable_in_gguf`).
    """
    keys, blocks, layout = dict[str, Any](), config.blocks, family.gguf
    windows = [window for window in blocks.windows if window is not None]
    if windows:
        keys[WINDOW] = windows[0]
        local = [window is not None for window in blocks.windows]
        if local != windowed(layout.windows or 0, len(local)):  # only a new llama.cpp reads it: see `gguf_layout`
            keys[WINDOW_PATTERN] = local
    if layout.local_base is not None and blocks.local_rope_base is not None:
        keys["rope.freq_base_swa"] = float(blocks.local_rope_base)
    kind, *numbers = blocks.rope_scaling or ("none",)
    if kind == "linear":
        keys |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(numbers[0])}
    if kind == _YARN:
        factor, original, _, _, attention, _ = map(float, numbers)
        keys |= {
            "rope.scaling.type": _YARN,
            "rope.scaling.factor": factor,
            "rope.scaling.original_context_length": int(original),
            "rope.scaling.attn_factor": attention / _length_factor(factor),
        }
    return keys


def windowed(period: int, layers: int) -> list[bool]:
    """Which layers see a window, where one of so many sees everything; all of them for a period of 0."""
    return [period == 0 or (layer + 1) % period != 0 for layer in range(layers)]


def _length_factor(factor: float) -> float:
    """The factor of heads that llama.cpp computes for YaRN by itself."""
    return 0.1 * math.log(factor) + 1.0


def frequency_factors(config: DecoderConfig) -> torch.Tensor | None:
    """By what RoPE's frequencies are divided, [head / 2] float32; None where no key but this says how it is scaled."""
    from rankitect.blocks.rotary import SCALINGS

    kind, *numbers = config.blocks.rope_scaling or ("none",)
    if kind != _LLAMA3:
        return None
    half = config.head_dim // 2
    plain, _ = SCALINGS["linear"](half, config.rope_base, 0, 1.0)
    scaled, _ = SCALINGS[_LLAMA3](half, config.rope_base, 0, *numbers)
    return plain / scaled


def halves_interleaved(rows: torch.Tensor, head: int) -> torch.Tensor:
    """Rows of heads in the order in which llama.cpp rotates neighbours, from the two halves of each head.

    Args:
        rows: A matrix or a bias, whose first dimension is that of all elements of all heads.
        head: Size of a head.
    """
    return rows.view(-1, 2, head // 2, rows[0].numel()).transpose(1, 2).reshape(rows.shape).contiguous()


def halves_apart(rows: torch.Tensor, head: int) -> torch.Tensor:
    """The inverse of `halves_interleaved`."""
    return rows.view(-1, head // 2, 2, rows[0].numel()).transpose(1, 2).reshape(rows.shape).contiguous()


def unwritable_in_gguf(family: Family | None, config: DecoderConfig) -> str | None:
    """Why no file of a family's architecture describes a model; None where one does.

    Args:
        family: As which the model would be written; None for `deci`, of which only scalings are looked at.
        config: Its sizes and blocks.
    """
    blocks = config.blocks
    kind, *numbers = blocks.rope_scaling or ("none",)
    if kind not in ("none", "linear", _LLAMA3, _YARN):
        return f"its rotary positions are scaled ({kind}) as llama.cpp does not know it"
    if kind == _YARN and (tuple(numbers[2:4]) != _YARN_BORDERS or not numbers[5]):
        return f"its rotary positions are scaled by YaRN with other numbers than {_YARN_BORDERS}, which no file can say"
    if family is None:
        return None
    name = f"the {family.gguf.architecture} of llama.cpp"
    if family.gguf.architecture in _SQUARE and config.n_heads * config.head_dim != config.d_model:
        return (
            f"its {config.n_heads} query heads of {config.head_dim} are not as wide as the model, those of {name} are"
        )
    seen = {window for window in blocks.windows if window is not None}
    if seen and not family.gguf.windows:
        return f"its layers see windows, and those of {name} do not"
    if len(seen) > 1:
        return (
            f"its layers see windows of {', '.join(map(str, sorted(seen)))} tokens, and those of {name} one of one size"
        )
    if config.tied_embeddings and family.gguf.architecture in _UNTIED:
        return f"its output table is the embedding, and that of {name} is its own"
    return None
