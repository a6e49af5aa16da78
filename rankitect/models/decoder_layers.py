"""An architecture of `mobile_llm` as a row of layers: what each computes, and in what they differ.

This is what every format needs to know that other tools read (`huggingface_layout`, `gguf_layout`). A dropped layer is
not there, and a layer that runs twice is there twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch

from rankitect.blocks import GQA, Embed, Head, Rope, SwiGLU, TiedHead
from rankitect.graph import Architecture, Block, SearchSpace
from rankitect.models.families import PLAIN, DecoderBlocks, DecoderConfig, LayerSizes, Weight, axes, family_of
from rankitect.models.families.blocks import Rotation
from rankitect.models.families.family import Key
from rankitect.models.plan import Plan, Step, make_plan
from rankitect.space.repeats import AGAIN

__all__ = ["DecoderLayer", "DecoderLayers", "decoder_layers", "layers_of", "online_rotation"]


@dataclass(frozen=True)
class DecoderLayer:
    """One run of a layer: where it is, and what it computes.

    Attributes:
        scope: Where its weights are.
        kv_heads: Key/value heads; 0 where it has no attention.
        group: Query heads of each key/value head.
        head: Size of a head.
        window: How many tokens back it sees; None for all.
        rotation: How its heads are turned by positions; None where they are not.
        ffn: Width of its feed-forward; 0 where it has none.
    """

    scope: str
    kv_heads: int
    group: int
    head: int
    window: int | None
    rotation: Rotation | None
    ffn: int

    @property
    def heads(self) -> int:
        """Query heads; 0 where it has no attention."""
        return self.kv_heads * self.group

    @property
    def attention(self) -> str:
        """Its attention in words."""
        if not self.kv_heads:
            return "no attention"
        return f"attention with {self.kv_heads} key/value heads of {self.group} query heads"

    @property
    def seen(self) -> str:
        """What it sees, in words."""
        return "every earlier token" if self.window is None else f"the last {self.window} tokens"


@dataclass(frozen=True)
class DecoderLayers:
    """An architecture as a row of layers.

    Attributes:
        config: Sizes and blocks of the model, by layer where its layers differ.
        layers: In the order in which they run; empty where the architecture is no decoder.
        difference: How the sizes of layers differ, or why they cannot be a model's at all; None where all are alike.
        shapes: Of the weights in the space, by owner and name.
    """

    config: DecoderConfig
    layers: tuple[DecoderLayer, ...] = ()
    difference: str | None = None
    shapes: Mapping[Key, tuple[int, ...]] = field(default_factory=dict)

    @property
    def scopes(self) -> tuple[str, ...]:
        """Where the weights of each layer are."""
        return tuple(layer.scope for layer in self.layers)

    def weights(self) -> Iterator[tuple[int | None, Weight, Key]]:
        """Every weight with the number of its layer (None outside of them) and its key in the space.

        A layer without attention has none of those that belong to it; the weights of one that runs twice come twice.
        """
        for number, weight in family_of(self.config).weights(self.config):
            owner = weight.owner if number is None else f"{self.layers[number].scope}.{weight.owner}"
            if (owner, weight.name) in self.shapes:
                yield number, weight, (owner, weight.name)

    def beyond_deci(self, called: str, *, offset: bool = False) -> str | None:
        """What of the layers NVIDIA's format of pruned Llamas has no place for, whoever reads it; None where all fits.

        Heads and widths may differ by layer, biases may be there, and positions may be scaled.

        Args:
            called: What a reader calls the format.
            offset: Whether the offset of norms is added to their weights when they are written.
        """
        blocks = replace(self.config.blocks, norm_offset=0.0) if offset else self.config.blocks
        same = replace(blocks, bias=False, windows=(), rotary=(), rope_scaling=(), local_rope_base=None)
        if same != PLAIN:
            return f"its blocks are not those of {called}, which are a Llama's: {same.to_json()}"
        windowed = next((layer for layer in self.layers if layer.window is not None), None)
        if windowed is not None:
            return (
                f"{windowed.scope} sees {windowed.seen}, and layers of {called} see every earlier token (search with "
                "space.patterns=[full,skip])"
            )
        rotation = Rotation(self.config.rope_base, blocks.rope_scaling)
        turned = next((layer for layer in self.layers if layer.kv_heads and layer.rotation != rotation), None)
        if turned is not None:
            return f"{turned.scope} is turned by other positions than the rest, and layers of {called} are not"
        return None

    def silent(self, number: int, kv_heads: int, group: int) -> Iterator[tuple[Weight, torch.Tensor]]:
        """The weights of heads that add nothing, for a layer without attention that is written with some.

        Args:
            number: Of the layer.
            kv_heads: Key/value heads that it is written with.
            group: Query heads of each.
        """
        sizes = {**self.config.sizes(number), axes.KV_HEADS: kv_heads, axes.QUERY_HEADS: group}
        for weight in family_of(self.config).layer:
            if weight.attends:
                shape = weight.merged([sizes[dim] for dim in weight.dims])
                yield weight, torch.full(shape, float(weight.kind == "gain"))


def decoder_layers(space: SearchSpace, architecture: Architecture, config: DecoderConfig) -> DecoderLayers:
    """An architecture of `mobile_llm` as layers.

    Args:
        space: The search space.
        architecture: The closed choices.
        config: The backbone's sizes; those that the architecture decides are replaced.
    """
    return layers_of(space.name, make_plan(space, architecture), config)


def layers_of(name: str, plan: Plan, config: DecoderConfig) -> DecoderLayers:
    """The same from the plan of the architecture.

    Args:
        name: Of the space.
        plan: Of the architecture.
        config: The backbone's sizes; those that the architecture decides are replaced.
    """
    family, steps = family_of(config), plan.steps
    kinds = {"embedding": Embed, "head": Head}
    absent = [name for name, kind in kinds.items() if not any(isinstance(s.block, kind) for s in steps)]
    if absent:
        return DecoderLayers(
            config, difference=f"space {name!r} is not a {family.title}: it has no {' and no '.join(absent)}"
        )
    outside = [s.path for s in steps if isinstance(s.block, SwiGLU) and axes.number_of(s.weights) is None]
    if outside:
        return DecoderLayers(config, difference=f"space {name!r} is not a {family.title}: {outside[0]} is in no layer")
    turned = online_rotation((step.path, step.block) for step in steps)
    if turned is not None:
        return DecoderLayers(config, difference=turned)
    cut = next((s for s in steps if isinstance(s.block, Head) and s.block.tokens), None)
    if cut is not None:
        return DecoderLayers(
            config,
            difference=f"{cut.path} scores some tokens only, and no {family.title} does: leave prune_vocabulary out",
        )
    layers = _layers(steps, config.head_dim)
    if not layers:
        return DecoderLayers(config, difference="no layer is kept")
    width = next(s.shapes["weight"][1] for s in steps if isinstance(s.block, Embed))
    head = next((layer.head for layer in layers if layer.kv_heads), config.head_dim)
    tied = any(isinstance(s.block, TiedHead) for s in steps)
    sizes = replace(
        config, d_model=width, head_dim=head, n_layers=len(layers), layers=(), blocks=PLAIN, tied_embeddings=tied
    )
    sizes = sizes.with_layers([LayerSizes(layer.kv_heads, layer.group, layer.ffn) for layer in layers])
    sizes = replace(sizes, blocks=_blocks(config, layers))
    return DecoderLayers(sizes, tuple(layers), _difference(layers), plan.shapes())


def online_rotation(blocks: Iterable[tuple[str, Block]]) -> str | None:
    """Why a model is one of no other tool, if a block of it holds a rotation that is not merged into weights.

    Args:
        blocks: The model's, with their paths.
    """
    for path, block in blocks:
        if (isinstance(block, GQA | SwiGLU) and block.hadamard) or (isinstance(block, TiedHead) and block.mix):
            return (
                f"{path} multiplies by a rotation while it runs, which other tools have no place for: rotate with "
                "r3=false, r4=false and head=untied for such a file"
            )
    return None


def _layers(steps: tuple[Step, ...], head: int) -> list[DecoderLayer]:
    """The runs of layers that have attention, a feed-forward, or both; in their order."""
    ropes = {step.path: step.block for step in steps if isinstance(step.block, Rope)}
    runs: dict[str, DecoderLayer] = {}  # by the place of the run: that of the second one is inside of its layer
    for step in steps:
        number = axes.number_of(step.weights)
        if number is None or not isinstance(step.block, GQA | SwiGLU):
            continue
        scope = axes.layer(number)
        inside = step.path.removeprefix(f"{scope}.").partition(".")[0]
        run = f"{scope}.{inside}" if inside.startswith(AGAIN) else scope
        layer = runs.get(run, DecoderLayer(scope, 0, 0, head, None, None, 0))
        if isinstance(step.block, SwiGLU):
            runs[run] = replace(layer, ffn=step.shapes["gate"][0])
            continue
        kv, group, size, _ = step.shapes["q"]
        rope = ropes[step.edges[1].source] if step.block.rotary else None
        rotation = Rotation(rope.base, rope.scaling) if rope is not None else None
        runs[run] = replace(layer, kv_heads=kv, group=group, head=size, window=step.block.window, rotation=rotation)
    return list(runs.values())


def _blocks(config: DecoderConfig, layers: list[DecoderLayer]) -> DecoderBlocks:
    """The blocks of a backbone, with what the layers of an architecture see and whether they are turned.

    A layer without attention counts as turned, unless none has attention.
    """
    attends = any(layer.kv_heads for layer in layers)
    windows = tuple(layer.window for layer in layers)
    rotary = tuple(layer.rotation is not None or (attends and not layer.kv_heads) for layer in layers)
    windows, rotary = windows if any(windows) else (), () if all(rotary) else rotary
    return replace(config.blocks, windows=windows, rotary=rotary, local=())


def _difference(layers: list[DecoderLayer]) -> str | None:
    """The first way in which the sizes of layers differ, in words; None where all are alike."""
    first = layers[0]
    for layer in layers[1:]:
        if layer.attention != first.attention:
            return f"layers differ: {first.scope} has {first.attention}, {layer.scope} has {layer.attention}"
        if layer.ffn != first.ffn:
            return (
                f"layers differ: the feed-forward width of {first.scope} is {first.ffn}, of {layer.scope} {layer.ffn}"
            )
    return None
