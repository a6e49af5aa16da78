"""`mobile_llm`: decoder-only language models for phones, from scratch or as pruned versions of a backbone.

Every layer chooses whether it runs (and, with sharing, whether it runs twice), its key/value heads and query heads of
each, its feed-forward width, and its attention pattern; the residual width is one choice for all. The family is that of
MobileLLM (arXiv 2402.14905); the patterns full / sliding window / skip are MobileLLM-Flash's (arXiv 2603.15954).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rankitect.config.quantities import Size
from rankitect.contracts.task import HasBackbone
from rankitect.errors import SpaceError
from rankitect.graph import Architecture, B, Block, Graph, SearchSpace, T, Wire, Zero
from rankitect.models.families import PLAIN, DecoderBlocks, DecoderConfig, LayerSizes, axes
from rankitect.models.families.blocks import Rotation
from rankitect.search_spaces.mobile_llm_bits import FLOATS, Bits, BitsConfig
from rankitect.space.choices import Choice, ChoiceValue
from rankitect.space.repeats import LAYERS

if TYPE_CHECKING:
    from rankitect.config.parts import Parts

__all__ = ["POINTS", "LayerChoices", "MobileLLM", "Point", "from_backbone", "mobile_llm", "point"]

PATTERNS: tuple[axes.AttentionPattern, ...] = (axes.FULL, axes.WINDOW, axes.SKIP)


@dataclass(frozen=True)
class Point:
    """A published model whose layers are all alike.

    Attributes:
        layers: How many layers have weights of their own.
        width: Residual width.
        kv_heads: Key/value heads of a layer.
        group: Query heads of each key/value head.
        ffn: Feed-forward width.
        runs: How often each layer runs in a row.
    """

    layers: int
    width: int
    kv_heads: int
    group: int
    ffn: int
    runs: int = axes.ONCE


@dataclass(frozen=True)
class LayerChoices:
    """What one layer may be, where layers differ.

    Attributes:
        kv_heads: Key/value heads; empty for a layer without attention.
        group: Query heads of each key/value head; empty for a layer without attention.
        ffn: Feed-forward widths; empty for a layer without a feed-forward.
        runs: How often it may run.
    """

    kv_heads: Sequence[int]
    group: Sequence[int]
    ffn: Sequence[int]
    runs: Sequence[int]


POINTS = {
    "mobilellm-125m": Point(30, 576, 3, 3, 1536),
    "mobilellm-125m-ls": Point(30, 576, 3, 3, 1536, axes.TWICE),
    "mobilellm-350m": Point(32, 960, 5, 3, 2560),
    "mobilellm-350m-ls": Point(32, 960, 5, 3, 2560, axes.TWICE),
}
"""The published models (arXiv 2402.14905, table of architectures), heads of 64 and a vocabulary of 32,000."""


def mobile_llm(
    vocab: int = 32000,
    layers: int = 32,
    widths: Sequence[int] = (576, 768, 960),
    kv_heads: Sequence[int] = (2, 3, 4, 5),
    group: Sequence[int] = (1, 2, 3),
    ffn: Sequence[int] = (1024, 1536, 2048, 2560),
    patterns: Sequence[str] = PATTERNS,
    runs: Sequence[int] = (axes.ONCE, axes.DROPPED, axes.TWICE),
    head: int = 64,
    window: int = 128,
    context: int = 256,
    rope_base: float = 10000.0,
    norm_eps: float = 1e-5,
    tied: bool = True,
    blocks: DecoderBlocks = PLAIN,
    alike: bool = False,
    by_layer: Sequence[LayerChoices] = (),
    bits: Bits = FLOATS,
) -> SearchSpace:
    """A space of decoders of up to `layers` layers.

    Its defaults hold MobileLLM-125M and 350M and their layer-sharing variants (`POINTS`).

    Args:
        vocab: Tokens.
        layers: The largest number of layers.
        widths: Residual widths.
        kv_heads: Key/value heads of a layer.
        group: Query heads of each key/value head.
        ffn: Feed-forward widths of a layer.
        patterns: Attention patterns of a layer: "full", "swa" (sliding window) and "skip".
        runs: How often a layer may run: 0 drops it, 2 runs it twice in a row with one set of weights.
        head: Size of a head.
        window: Tokens that the sliding window sees.
        context: Tokens of a prefill in costs, unless they are given.
        rope_base: Base of the rotary positions.
        norm_eps: Added to the mean square in norms.
        tied: Whether tokens are scored by the embedding's table; else by a table of the head's own.
        blocks: What the blocks compute, where they are not those of a plain Llama. A layer that has a window of its own
            keeps it: "full" is all that it saw before, and "swa" the smaller of the two windows, which is left out
            where it would be the same.
        alike: Whether one choice decides for all layers how many heads they have, and one how wide feed-forwards are.
        by_layer: What each layer may be, where layers differ; in place of `layers`, `kv_heads`, `group`, `ffn`, `runs`.
        bits: Of the weights; where they are not all floats, the space is called `mobile_llm_bits`.
    """
    from rankitect.blocks import Embed, Head, Norm, Rope, SwiGLU, TiedHead

    same, layers = LayerChoices(kv_heads, group, ffn, runs), len(by_layer) or layers
    blocks.check_layers(layers)
    g = Graph("mobile_llm" if bits == FLOATS else "mobile_llm_bits")
    ids = g.input("ids", B, T, dtype="int")
    width = g.choice(axes.CHANNELS, widths)
    norm = Norm(norm_eps, blocks.norm_offset)
    ropes: dict[Rotation, Wire] = {}

    def own_choices(i: int) -> LayerChoices:
        return by_layer[i] if by_layer else same

    for i in range(layers):
        turned = blocks.rotation(i, rope_base)
        if own_choices(i).kv_heads and turned is not None and turned not in ropes:
            name = f"rope{len(ropes) + 1}" if ropes else "rope"
            ropes[turned] = Rope(head // 2, turned.base, turned.scaling)(ids, name=name)

    def before(x: Wire, name: str) -> Wire:
        return x if blocks.norms == "post" else norm(x, name=name)

    def behind(y: Wire, name: str) -> Wire:
        if blocks.norms == "pre":
            return y
        normed = norm(y.always(), name=name)
        return normed.gated(y.edge.gate) if y.optional else normed

    def sizes(own: LayerChoices) -> dict[str, Choice]:
        values = {axes.KV_HEADS: own.kv_heads, axes.QUERY_HEADS: own.group, axes.FFN: own.ffn}
        return {axis: g.choice(axis, of_axis) for axis, of_axis in values.items() if of_axis or not by_layer}

    of_all = sizes(same) if alike else None

    def attention(i: int, x: Wire, k: Choice, q: Choice) -> Wire:
        turned = blocks.rotation(i, rope_base)
        inputs = [before(x, "norm1"), *([] if turned is None else [ropes[turned]])]
        gqa = partial(_gqa, blocks, norm_eps, k, q, head, turned is not None, bits.of_attention(g))
        kinds = _attention(gqa, i, patterns, window, blocks)
        return x + behind(g.oneof(axes.PATTERN, kinds, *inputs, share=True), "behind1")

    def layer(i: int, x: Wire) -> Wire:
        choices = of_all or sizes(own_choices(i))
        if axes.KV_HEADS in choices:
            x = attention(i, x, choices[axes.KV_HEADS], choices[axes.QUERY_HEADS])
        if axes.FFN not in choices:
            return x
        mlp = SwiGLU(choices[axes.FFN], blocks.act, **bits.fields(g, axes.FFN_BITS, bits.layers))
        return x + behind(mlp(before(x, "norm2"), name="mlp"), "behind2")

    embed = Embed(vocab, width, blocks.embed_scale, **bits.fields(g, axes.EMBED_BITS, bits.embedding, table=True))
    embedded = embed(ids, name="embed")
    x = g.repeat(LAYERS, layers, layer, embedded, runs=lambda i: own_choices(i).runs)
    x = norm(x, name="norm")
    few = bits.fields(g, axes.HEAD_BITS, bits.head)
    g.out = TiedHead(vocab, **few)(x, name="head", weights="embed") if tied else Head(vocab, **few)(x, name="head")
    return SearchSpace(g, version="1", defaults={"T": context})


def _gqa(
    blocks: DecoderBlocks,
    eps: float,
    kv: Choice,
    group: Choice,
    head: int,
    rotary: bool,
    few: Mapping[str, Any],
    window: int | None,
) -> Block:
    """The attention of a layer; `few` are its bits."""
    from rankitect.blocks import GQA

    plain = GQA(kv, group, head, window, blocks.bias, scale=blocks.score_scale, rotary=rotary, **few)
    if blocks.qk_norm == "none":
        return plain
    return replace(plain, qk_norm=blocks.qk_norm, eps=eps, offset=blocks.norm_offset)


def _attention(
    of_window: Callable[[int | None], Block], layer: int, patterns: Sequence[str], window: int, blocks: DecoderBlocks
) -> dict[str, Block]:
    """The candidates for the attention of a layer, by pattern.

    Args:
        of_window: Gives attention to a window, None for all tokens.
        layer: The number of the layer, which may have a window of its own.
        patterns: Those that were asked for.
        window: That of the pattern "swa".
        blocks: Of the decoder.
    """
    own = blocks.window(layer)
    known: dict[str, Callable[[], Block]] = {
        axes.FULL: lambda: of_window(own),
        axes.WINDOW: lambda: of_window(window if own is None else min(own, window)),
        axes.SKIP: Zero,
    }
    same = own is not None and own <= window and axes.FULL in patterns
    return {p: known[p]() for p in patterns if not (same and p == axes.WINDOW)}


def from_backbone(
    config: DecoderConfig,
    context: int = 256,
    widths: Sequence[int] = (),
    ffn_step: int = 128,
    patterns: Sequence[str] = PATTERNS,
    window: int = 128,
    sharing: bool = False,
    alike: bool = False,
    depth: bool = True,
    bits: Bits = FLOATS,
    pruned: bool = True,
) -> SearchSpace:
    """The space of a pretrained model's pruned versions; its largest architecture is the backbone itself.

    Where the backbone's layers differ, each has choices up to its own sizes: one without attention has none of
    attention, and one that runs twice may run once.

    Args:
        config: The backbone's sizes.
        context: Tokens of a prefill in costs.
        widths: Residual widths beside the backbone's own.
        ffn_step: Feed-forward widths are multiples of this, up to the backbone's.
        patterns: Attention patterns.
        window: Tokens that the sliding window sees.
        sharing: Whether a layer may run twice.
        alike: Whether all layers have the same heads and the same feed-forward width.
        depth: Whether layers may be dropped.
        bits: Of the weights.
        pruned: Whether the architecture is open; else it is the backbone's, and bits alone are.

    Raises:
        SpaceError: A width is larger than the backbone's, or its layers differ and all are to be alike.
    """
    too_wide = [w for w in widths if w > config.d_model]
    if too_wide:
        raise SpaceError(f"widths: {too_wide[0]} is more than the backbone's {config.d_model}")
    if alike and config.layers:
        raise SpaceError("alike: the backbone's layers differ, so that no choice can decide for all of them")
    runs = (axes.ONCE, *((axes.DROPPED,) if depth else ()), *((axes.TWICE,) if sharing else ()))
    of_layer = partial(_choices, ffn_step=ffn_step, runs=runs) if pruned else _kept
    same = of_layer(LayerSizes(config.n_kv_heads, config.query_heads, config.ffn))
    return mobile_llm(
        vocab=config.vocab,
        widths=sorted({config.d_model, *(widths if pruned else ())}, reverse=True),
        layers=config.n_layers,
        kv_heads=same.kv_heads,
        group=same.group,
        ffn=same.ffn,
        runs=same.runs,
        by_layer=[of_layer(sizes) for sizes in config.layers],
        patterns=patterns if pruned else [axes.FULL],
        head=config.head_dim,
        window=window,
        context=context,
        rope_base=config.rope_base,
        norm_eps=config.norm_eps,
        tied=config.tied_embeddings,
        blocks=config.blocks,
        alike=alike,
        bits=bits,
    )


def _kept(sizes: LayerSizes) -> LayerChoices:
    """A layer of a backbone as it is."""
    ffn = [sizes.ffn] if sizes.ffn else []
    return LayerChoices(
        [sizes.kv_heads] if sizes.kv_heads else [], [sizes.group] if sizes.group else [], ffn, [sizes.runs]
    )


def _choices(sizes: LayerSizes, ffn_step: int, runs: tuple[int, ...]) -> LayerChoices:
    """What a layer of a backbone may become; what it is comes first.

    Args:
        sizes: Of the layer.
        ffn_step: Feed-forward widths are multiples of this.
        runs: How often a layer may run that runs once in the backbone.
    """
    ffn = sorted({sizes.ffn, *range(ffn_step, sizes.ffn + 1, ffn_step)}, reverse=True) if sizes.ffn else []
    if sizes.runs == axes.TWICE:
        runs = (axes.TWICE, axes.ONCE, *(often for often in runs if often == axes.DROPPED))
    return LayerChoices(range(sizes.kv_heads, 0, -1), range(sizes.group, 0, -1), ffn, runs)


def point(space: SearchSpace, name: str) -> Architecture:
    """A published model as an architecture of a `mobile_llm` space.

    A space of a single residual width gives the model at that width.

    Raises:
        SpaceError: The name is unknown, or the space lacks one of its values or has fewer layers.
    """
    if name not in POINTS:
        raise SpaceError(f"unknown model {name!r}; known: {', '.join(POINTS)}")
    wanted = POINTS[name]
    widths, layers = space.choices[axes.CHANNELS].values, len(axes.paths(space.choices, axes.RUNS))
    if layers < wanted.layers:
        raise SpaceError(f"{name} has {wanted.layers} layers, the space at most {layers}")
    of_layer = {
        axes.KV_HEADS: wanted.kv_heads,
        axes.QUERY_HEADS: wanted.group,
        axes.FFN: wanted.ffn,
        axes.PATTERN: axes.FULL,
        axes.RUNS: wanted.runs,
    }
    values: dict[str, ChoiceValue] = {axes.CHANNELS: widths[0] if len(widths) == 1 else wanted.width}
    for axis, value in of_layer.items():
        for path in axes.paths(space.choices, axis):
            values[path] = value
    for path in axes.paths(space.choices, axes.RUNS):
        if (axes.number_of(path) or 0) >= wanted.layers:
            values[path] = axes.DROPPED
    return space.architecture(values)


class MobileLLM:
    """The space `mobile_llm` of the pruned versions of a task's backbone, as a configuration names it."""

    class Config(BaseModel):
        """Keys of `space`."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        widths: list[Size] = Field(default=[], description="residual widths beside the backbone's own")
        ffn_step: int = Field(128, ge=1, le=2**20, description="feed-forward widths are multiples of this")
        patterns: list[axes.AttentionPattern] = Field(
            default=list(PATTERNS), min_length=1, description="attention patterns of a layer"
        )
        window: int = Field(128, ge=2, le=2**20, description="tokens that a sliding window sees")
        sharing: bool = Field(False, description="whether a layer may run twice with one set of weights")
        alike: bool = Field(False, description="whether all layers have the same heads and the same feed-forward width")
        depth: bool = Field(True, description="whether layers may be dropped")
        bits: BitsConfig | None = Field(None, description="bits of weights; null: all are floats")
        pruned: bool = Field(True, description="whether the architecture is open; else bits alone are")

        @model_validator(mode="after")
        def _something_open(self) -> MobileLLM.Config:
            if not self.pruned and self.bits is None:
                raise ValueError("pruned=false leaves nothing open, as there are no bits: give space.bits")
            return self

    @classmethod
    def from_config(cls, config: Config, parts: Parts) -> SearchSpace:
        """The space for the task's backbone."""
        task = parts.require(HasBackbone, "space")
        return from_backbone(
            task.checkpoint.config,
            context=task.context,
            widths=config.widths,
            ffn_step=config.ffn_step,
            patterns=config.patterns,
            window=config.window,
            sharing=config.sharing,
            alike=config.alike,
            depth=config.depth,
            bits=FLOATS if config.bits is None else Bits(**config.bits.model_dump()),
            pruned=config.pruned,
        )

    @classmethod
    def named(cls, space: SearchSpace) -> dict[str, Architecture]:
        """The published models that the space holds."""
        held = {}
        for name in POINTS:
            with suppress(SpaceError):
                held[name] = point(space, name)
        return held
