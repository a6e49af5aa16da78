"""A model's config.json, from its sizes and blocks; and which models the class of a family cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rankitect.models.families.blocks import DecoderBlocks
from rankitect.models.families.config import DecoderConfig
from rankitect.models.families.family import Family
from rankitect.models.families.keys import BASE, FULL, KIND, LOCAL, SCALING_KEYS

__all__ = ["class_of", "huggingface_keys", "rope_keys", "unwritable"]


def huggingface_keys(family: Family, config: DecoderConfig) -> dict[str, Any]:
    """The keys of config.json that say what a model computes, those of its class included.

    Args:
        family: As which it is written.
        config: Of a model that its class can be (`unwritable`).
    """
    layout, blocks = family.huggingface, config.blocks
    keys: dict[str, Any] = class_of(family)
    keys |= {key: vars(config)[name] for name, key in layout.sizes.items()}
    keys |= rope_keys(layout.local_base, config)
    keys |= {key: values[0] for key, values in layout.required.items()}
    if layout.windows is not None:
        keys |= layout.windows.write(blocks.windows or (None,) * config.n_layers) or {}
    if layout.rotary is not None:
        keys |= layout.rotary.write(blocks.rotary or (True,) * config.n_layers)
    if layout.score_scale is not None and blocks.score_scale is not None:
        keys[layout.score_scale] = _scalar(blocks.score_scale)
    return {**keys, **layout.written}


def class_of(family: Family) -> dict[str, Any]:
    """The keys of config.json that name the class of a family."""
    return {"architectures": [family.huggingface.architecture], "model_type": family.huggingface.model_type}


def rope_keys(local_key: str | None, config: DecoderConfig) -> dict[str, Any]:
    """RoPE as both transformers 4 and 5 read it."""
    blocks, scaling = config.blocks, _scaling(config.blocks)
    plain = {KIND: "default", BASE: config.rope_base}
    keys: dict[str, Any] = {BASE: config.rope_base, "rope_scaling": scaling} if scaling else {BASE: config.rope_base}
    parameters = {**plain, **(scaling or {})}
    if local_key is None:
        return {**keys, "rope_parameters": parameters}
    local = {**plain, BASE: blocks.local_rope_base}
    return {**keys, local_key: blocks.local_rope_base, "rope_parameters": {FULL: parameters, LOCAL: local}}


def _scaling(blocks: DecoderBlocks) -> dict[str, Any] | None:
    if not blocks.rope_scaling:
        return None
    kind, *numbers = blocks.rope_scaling
    keys = SCALING_KEYS[str(kind)]
    return {KIND: kind, **{key: number for key, number in zip(keys, numbers, strict=True) if key is not None}}


def _scalar(scale: float) -> int:
    """The whole number whose inverse square root is a scale of products."""
    return round(scale**-2)


def unwritable(family: Family, config: DecoderConfig) -> str | None:
    """Why no config.json of a family's class describes a model; None where one does.

    Args:
        family: As which the model would be written.
        config: Its sizes and blocks.
    """
    layout, blocks = family.huggingface, config.blocks
    whose = f"the {family.title} of transformers"
    if config.layers:
        return f"its layers are of different sizes, and those of {whose} are not"
    if layout.divides_width and config.d_model % config.n_heads:
        return f"its width, {config.d_model}, is no multiple of its {config.n_heads} query heads, as {whose} wants it"
    if layout.windows is None:
        said: Mapping[str, Any] | None = None if blocks.windows else {}
    else:
        said = layout.windows.write(blocks.windows or (None,) * config.n_layers)
    if said is None:
        return f"its layers see different numbers of tokens, and those of {whose} do not"
    if blocks.rotary and layout.rotary is None:
        return f"some of its layers are not turned by positions, and all layers of {whose} are"
    if blocks.rope_scaling[:1] and blocks.rope_scaling[0] not in layout.scalings:
        return f"its rotary positions are scaled ({blocks.rope_scaling[0]}), and those of {whose} are not"
    if layout.score_scale is not None and blocks.score_scale is not None:
        if _scalar(blocks.score_scale) ** -0.5 != blocks.score_scale:
            return f"its products of queries and keys are scaled by {blocks.score_scale}, which {whose} cannot say"
        blocks = replace(blocks, score_scale=family.blocks.score_scale)
    scale = config.d_model**0.5 if family.scales_embedding else family.blocks.embed_scale
    if blocks.embed_scale != scale:
        return f"its embedding is multiplied by {blocks.embed_scale:g}, that of {whose} of this width by {scale:g}"
    if layout.local_base is not None and blocks.local_rope_base is None:
        return f"its layers with a window are turned as the others, and those of {whose} are not"
    if blocks.local:
        return f"which of its layers are turned by the other base does not follow from windows, as in {whose}"
    stated = replace(
        blocks, windows=(), rotary=(), rope_scaling=(), embed_scale=family.blocks.embed_scale,
        local_rope_base=blocks.local_rope_base if layout.local_base is None else None,
    )  # fmt: skip
    if stated != family.blocks:
        return f"its blocks are not those of {whose}: {stated.to_json()} and {family.blocks.to_json()}"
    return None
