"""Which architectures are a model class of `transformers`, and under which configuration and tensor names.

The layers of its decoders are of one size, which is the one real limit. Which class a model is written as follows from
the family of its backbone (`Family.written_as`), and what that class cannot be is said by `families.writing`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from rankitect.blocks import GQA, Embed, Head, Rope, SwiGLU
from rankitect.errors import SpaceError
from rankitect.graph import Architecture, SearchSpace
from rankitect.models.families import FAMILIES, DecoderBlocks, DecoderConfig, axes, family_of
from rankitect.models.families.blocks import Rotation
from rankitect.models.families.writing import unwritable
from rankitect.models.plan import Step, make_plan
from rankitect.models.pretrained import file_tensors
from rankitect.models.supernet import Standalone

__all__ = ["HuggingFaceLayout", "huggingface_layout"]


@dataclass(frozen=True)
class HuggingFaceLayout:
    """How an architecture is written for `transformers`, or why it cannot be.

    Attributes:
        config: The model's sizes, and the family as which it is written; None where there is no such model.
        layers: Scope of each layer, in the order in which they run; one that runs twice is there twice.
        reason: Why there is no such model; None where there is one.
    """

    config: DecoderConfig | None
    layers: tuple[str, ...] = ()
    reason: str | None = None

    def tensors(self, model: Standalone) -> dict[str, torch.Tensor]:
        """The model's weights under Hugging Face's names, copied.

        Raises:
            SpaceError: There is no such model of `transformers`.
        """
        if self.config is None:
            raise SpaceError(f"this architecture is no model class of transformers: {self.reason}")
        return file_tensors(model, self.config, self.layers)


@dataclass(frozen=True)
class _Layer:
    """One run of a layer: where it is, and what it computes."""

    scope: str
    attention: tuple[int, int, int] | None  # key/value heads, query heads of each, size of a head
    window: int | None
    rotation: Rotation | None
    ffn: int


def _layers(steps: tuple[Step, ...]) -> list[_Layer]:
    layers: list[_Layer] = []
    ropes = {step.path: step.block for step in steps if isinstance(step.block, Rope)}
    heads: tuple[int, int, int] | None = None
    window: int | None = None
    rotation: Rotation | None = None
    for step in steps:
        if isinstance(step.block, GQA):
            kv, group, head, _ = step.shapes["q"]
            heads, window = (kv, group, head), step.block.window
            rope = ropes[step.edges[1].source] if step.block.rotary else None
            rotation = Rotation(rope.base, rope.scaling) if rope is not None else None
        elif isinstance(step.block, SwiGLU):  # the last block of a layer, with or without attention before it
            number = axes.number_of(step.weights)
            assert number is not None, "huggingface_layout has checked that every feed-forward is in a layer"
            layers.append(_Layer(axes.layer(number), heads, window, rotation, step.shapes["gate"][0]))
            heads = window = rotation = None
    return layers


def huggingface_layout(space: SearchSpace, architecture: Architecture, config: DecoderConfig) -> HuggingFaceLayout:
    """Find the model class of `transformers` that an architecture of `mobile_llm` is, if there is one.

    Args:
        space: The search space.
        architecture: The closed choices.
        config: The backbone's sizes; those that the architecture decides are replaced.

    Returns:
        The layout; its `reason` says why where there is none.
    """
    steps, family = make_plan(space, architecture).steps, family_of(config)
    kinds = {"embedding": Embed, "head": Head}
    absent = [name for name, kind in kinds.items() if not any(isinstance(s.block, kind) for s in steps)]
    if absent:
        return _none(f"space {space.name!r} is not a {family.title}: it has no {' and no '.join(absent)}")
    outside = [s.path for s in steps if isinstance(s.block, SwiGLU) and axes.number_of(s.weights) is None]
    if outside:
        return _none(f"space {space.name!r} is not a {family.title}: {outside[0]} is in no layer")
    layers = _layers(steps)
    if not layers:
        return _none("no layer is kept")
    different = _difference(layers)
    if different is not None:
        return _none(different)
    first = layers[0]
    if first.attention is None:
        return _none(f"attention is skipped in every layer; the {family.title} of transformers always has it")
    kv, group, head = first.attention
    width = next(s.shapes["weight"][1] for s in steps if isinstance(s.block, Embed))
    sizes = replace(
        config, d_model=width, n_layers=len(layers), n_heads=kv * group, n_kv_heads=kv, head_dim=head, ffn=first.ffn,
        blocks=_blocks(config, layers),
    )  # fmt: skip
    turned = [sizes.blocks.rotation(i, sizes.rope_base) for i in range(len(layers))]
    for layer, rotation in zip(layers, turned, strict=True):
        if layer.rotation != rotation:
            return _none(
                f"{layer.scope} sees {_seen(layer)} and is turned by other positions than layers of the {family.title} "
                "of transformers that see as much"
            )
    sizes = replace(sizes, family=family.written_as(sizes))
    reason = unwritable(FAMILIES[sizes.family], sizes)
    if reason is not None:
        return _none(reason)
    return HuggingFaceLayout(sizes, tuple(layer.scope for layer in layers))


def _blocks(config: DecoderConfig, layers: list[_Layer]) -> DecoderBlocks:
    """The blocks of a backbone, with what the layers of an architecture see and whether they are turned."""
    windows, rotary = tuple(layer.window for layer in layers), tuple(layer.rotation is not None for layer in layers)
    return replace(config.blocks, windows=windows if any(windows) else (), rotary=() if all(rotary) else rotary)


def _seen(layer: _Layer) -> str:
    return "every earlier token" if layer.window is None else f"the last {layer.window} tokens"


def _difference(layers: list[_Layer]) -> str | None:
    """The first way in which the sizes of layers differ, in words; None where all are alike."""

    def attention(layer: _Layer) -> str:
        if layer.attention is None:
            return "no attention"
        return f"attention with {layer.attention[0]} key/value heads of {layer.attention[1]} query heads"

    first = layers[0]
    for layer in layers[1:]:
        if attention(layer) != attention(first):
            return f"layers differ: {first.scope} has {attention(first)}, {layer.scope} has {attention(layer)}"
        if layer.ffn != first.ffn:
            return (
                f"layers differ: the feed-forward width of {first.scope} is {first.ffn}, of {layer.scope} {layer.ffn}"
            )
    return None


def _none(reason: str) -> HuggingFaceLayout:
    return HuggingFaceLayout(None, reason=reason)
