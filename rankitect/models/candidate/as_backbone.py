"""A candidate as the backbone of another search; and the one loader of whatever may be a backbone.

What a candidate was exported to (a Hugging Face folder, a GGUF file) is read as any other such file is. Its own folder
says more: which of its layers run twice with one set of weights.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from pathlib import Path

from rankitect.errors import AssetError
from rankitect.models.candidate.folder import CARD, brief
from rankitect.models.candidate.load import load_language_model
from rankitect.models.candidate.scoring import LanguageCandidate
from rankitect.models.checkpoints import DecoderCheckpoint, DecoderConfig, load_checkpoint
from rankitect.models.checkpoints.checkpoint import check_tensors
from rankitect.models.decoder_layers import DecoderLayer, DecoderLayers, layers_of
from rankitect.models.families import LayerSizes
from rankitect.models.pretrained import file_tensors

__all__ = ["as_backbone", "load_backbone"]


def load_backbone(path_or_name: str | Path) -> DecoderCheckpoint:
    """Load whatever may be the backbone of a search.

    Args:
        path_or_name: What `load_checkpoint` loads, or the folder of a candidate.

    Raises:
        AssetError: There is no such model, or it is damaged or of an unsupported kind.
    """
    try:
        folder = Path(path_or_name).expanduser()
        own = (folder / CARD).is_file()
    except (OSError, RuntimeError, ValueError):  # no such user, or a name that no file can have
        own = False
    return as_backbone(load_language_model(folder), str(path_or_name)) if own else load_checkpoint(path_or_name)


def as_backbone(candidate: LanguageCandidate, source: str) -> DecoderCheckpoint:
    """A candidate of `mobile_llm` as a pretrained model.

    Args:
        candidate: As it was loaded.
        source: What to call it.

    Raises:
        AssetError: It is of another space, or no decoder.
    """
    space, plan = candidate.space.name, candidate.model.plan
    row = layers_of(space, plan, candidate.config)
    rounded = next((step.path for step in plan.steps if not step.is_float), None)
    reason = row.difference if not row.layers else None
    if rounded is not None:
        reason = f"{rounded} computes in fewer bits; take the candidate of before it was quantized"
    if space != "mobile_llm":
        reason = f"its space is {space!r}, and only candidates of 'mobile_llm' are backbones"
    if reason is not None:
        raise AssetError(f"{brief(source, 200)} is no backbone: {brief(reason, 200)}.")
    config = _config(row, candidate.config)
    scopes = list(dict.fromkeys(row.scopes))
    tensors = file_tensors(candidate.model, config, scopes)
    check_tensors(config, tensors, brief(source, 200))
    return DecoderCheckpoint(config, tensors, candidate.tokenizer, source, candidate.usage)


def _config(row: DecoderLayers, backbone: DecoderConfig) -> DecoderConfig:
    """The sizes of a row of layers in which runs of one layer are one."""
    layers, sizes = list[DecoderLayer](), list[LayerSizes]()
    for _, runs in groupby(row.layers, key=lambda layer: layer.scope):
        first, *others = runs
        layers.append(first)
        sizes.append(LayerSizes(first.kv_heads, first.group, first.ffn, 1 + len(others)))
    windows = tuple(layer.window for layer in layers)
    rotary = tuple(layer.rotation is not None or not layer.kv_heads for layer in layers)
    blocks = replace(
        backbone.blocks, windows=windows if any(windows) else (), rotary=() if all(rotary) else rotary, local=()
    )
    base, plain = row.config.rope_base, replace(blocks, local_rope_base=None)
    usual = all(blocks.rotation(i, base) == layer.rotation for i, layer in enumerate(layers) if layer.kv_heads)
    local = tuple(bool(one.kv_heads) and one.rotation != plain.rotation(i, base) for i, one in enumerate(layers))
    bare = replace(row.config, blocks=replace(backbone.blocks, windows=(), rotary=(), local=()), layers=())
    config = bare.with_layers(sizes)
    return replace(config, blocks=replace(blocks, local=() if usual else local))
