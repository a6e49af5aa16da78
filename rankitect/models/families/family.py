"""What a family of pretrained decoders is: the table of its weights, and how each file format writes it down."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from math import prod
from typing import Any, Literal

from rankitect.models.families import axes
from rankitect.models.families.blocks import PLAIN, SCALINGS, DecoderBlocks
from rankitect.models.families.config import HEAD, DecoderConfig
from rankitect.models.families.keys import (
    GGUF_NEUTRAL,
    GGUF_SIZES,
    HUGGINGFACE_IGNORED,
    HUGGINGFACE_NEUTRAL,
    HUGGINGFACE_SIZES,
)
from rankitect.models.families.layer_keys import RotaryKeys, WindowKeys

__all__ = ["Family", "GGUFFormat", "HuggingFaceFormat", "Key", "TextPart", "Weight", "as_itself"]

Key = tuple[str, str]
"""A weight of a space: the path of the node that owns it, and its name there."""

_HEADS = frozenset({axes.KV_HEADS, axes.QUERY_HEADS, HEAD})
"""Dimensions that files store as one: all elements of all heads."""
_AROUND_ATTENTION = ("norm1", "behind1")
"""The norms before and behind the attention of a layer."""


@dataclass(frozen=True)
class Weight:
    """One weight of a family under each of its names.

    Attributes:
        owner: The node of the space that owns it; within its layer, for a weight of a layer.
        name: Its name at that node.
        dims: What each dimension counts: an axis of `axes`, or `HEAD` or `VOCAB`. Outputs come first, as in torch.
        huggingface: Its name in Hugging Face folders, for a weight of a layer without the layer's prefix.
        gguf: Its name in GGUF files, likewise.
        rotated: Whether RoPE turns what this weight computes.
        kind: A "matrix", the "gain" of a norm, or a "bias".
    """

    owner: str
    name: str
    dims: tuple[str, ...]
    huggingface: str
    gguf: str
    rotated: bool = False
    kind: Literal["matrix", "gain", "bias"] = "matrix"

    @property
    def reads_units(self) -> bool:
        """Whether this is the weight through which hidden units (of heads, of a feed-forward) reach the stream."""
        return self.kind == "matrix" and self.dims[0] == axes.CHANNELS

    @property
    def attends(self) -> bool:
        """For a weight of a layer, whether it belongs to the attention, as the norms before and behind do."""
        return self.owner in _AROUND_ATTENTION or self.owner.startswith(f"{axes.PATTERN}.")

    def shape(self, config: DecoderConfig, layer: int | None) -> tuple[int, ...]:
        """Its shape in a space, one dimension for each of `dims`.

        Args:
            config: The model's sizes.
            layer: The number of its layer; None outside of the layers.
        """
        sizes = config.sizes(layer)
        return tuple(sizes[dim] for dim in self.dims)

    def stored_shape(self, config: DecoderConfig, layer: int | None) -> tuple[int, ...]:
        """Its shape in files. Arguments as of `shape`."""
        return self.merged(self.shape(config, layer))

    def merged(self, shape: Sequence[int]) -> tuple[int, ...]:
        """A shape in files, where the dimensions of heads are one, from one with a dimension for each of `dims`."""
        runs = groupby(zip(self.dims, shape, strict=True), key=lambda one: "heads" if one[0] in _HEADS else one[0])
        return tuple(prod(size for _, size in run) for _, run in runs)


@dataclass(frozen=True)
class TextPart:
    """How a family's text model stands in the folder of a model that also sees images.

    Attributes:
        model_type: The value of `model_type` in config.json.
        architecture: The class that loads it.
        key: The key of config.json whose value is the configuration of the text model.
        text_type: The value of `model_type` there, where none is stated.
        ignored: Keys beside it that change nothing where there is text alone.
        prefixes: What the names of the text model's weights begin with there, and what that stands for.
        others: What the names of all other weights begin with.
    """

    model_type: str
    architecture: str
    key: str
    text_type: str
    ignored: frozenset[str]
    prefixes: Mapping[str, str]
    others: tuple[str, ...]


@dataclass(frozen=True)
class HuggingFaceFormat:
    """How a family is written as a folder for `transformers`: what each key of config.json may be.

    Attributes:
        model_type: The value of `model_type` in config.json.
        architecture: The class that loads it.
        required: Keys of config.json that the class reads and that change what it computes, each with the values that
            mean what the family's blocks compute; the first is written, and any other is refused.
        explicit: Keys that config.json must state, because the class has another default than what is supported.
        defaults: By name in `DecoderConfig`, what holds where config.json states nothing: the class's own defaults.
        sizes: The key of config.json for each number of a `DecoderConfig`.
        neutral: Keys that the family does not know, with the values that change nothing.
        ignored: Keys that change nothing at any value.
        written: More keys to write, which do not change what a trained model computes.
        base: The prefix of all weights but the output table's; files of the model without its output leave it out.
        layer: The prefix of a layer's weights, with its number to be filled in.
        windows: The keys that say which layers see a window; None for a class in which none does.
        rotary: The keys that say which layers are turned by positions; None for a class in which all are.
        scalings: The kinds of scaled RoPE that the class computes.
        local_base: The key of RoPE's base in layers with a window, where the class has another one for them.
        score_scale: The key of the number whose inverse square root scales products of queries and keys, if any.
        fused: Matrices of a layer that hold several of its weights one below the other: their names, as those of the
            weights are given in the table.
        divides_width: Whether the class refuses a width that is no multiple of the query heads.
        text_part: How the text model stands in folders of models that also see images; None where there are none.
    """

    model_type: str
    architecture: str
    required: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    explicit: frozenset[str] = frozenset()
    defaults: Mapping[str, float | bool] = field(default_factory=dict)
    sizes: Mapping[str, str] = field(default_factory=lambda: HUGGINGFACE_SIZES)
    neutral: Mapping[str, tuple[Any, ...]] = field(default_factory=lambda: HUGGINGFACE_NEUTRAL)
    ignored: frozenset[str] = HUGGINGFACE_IGNORED
    written: Mapping[str, Any] = field(default_factory=dict)
    base: str = "model."
    layer: str = "model.layers.{}."
    windows: WindowKeys | None = None
    rotary: RotaryKeys | None = None
    scalings: frozenset[str] = frozenset(SCALINGS)
    local_base: str | None = None
    score_scale: str | None = None
    fused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    divides_width: bool = False
    text_part: TextPart | None = None

    @property
    def of_layers(self) -> frozenset[str]:
        """The keys of config.json that are understood beside those of sizes and of RoPE."""
        by_layer = [keys.keys for keys in (self.windows, self.rotary) if keys is not None]
        return frozenset().union(*by_layer, {key for key in (self.local_base, self.score_scale) if key is not None})


@dataclass(frozen=True)
class GGUFFormat:
    """How a family is written as a GGUF file.

    Attributes:
        architecture: The value of `general.architecture`, which is also the prefix of the keys of the sizes.
        rotates_neighbours: Whether RoPE pairs neighbouring rows of a head, as llama.cpp does for some families, and not
            element i with element i + head_dim / 2; the rows of rotated weights are then stored in another order.
        defaults: By name in `DecoderConfig`, what holds where the file states nothing.
        sizes: The key, without the architecture, for each number of a `DecoderConfig`.
        neutral: Other keys under the architecture's name, with the values that change nothing.
        layer: The prefix of a layer's weights, with its number to be filled in.
        windows: Where layers see a window (`attention.sliding_window`), one of how many sees everything; 0 where
            none does. None: no layer sees a window.
        local_base: RoPE's base in layers with a window, where it is another and the file does not state it.
        unturned: One layer of how many is not turned by positions; None: all are turned.
        gains_with_offset: Whether weights of norms are stored with what the blocks add to them.
        blocks: From the sizes to what the blocks compute and no key states.
        fused: Matrices of a layer that hold several of its weights, as in `HuggingFaceFormat`.
    """

    architecture: str
    rotates_neighbours: bool
    defaults: Mapping[str, float | bool] = field(default_factory=lambda: {"rope_base": 10_000.0})
    sizes: Mapping[str, str] = field(default_factory=lambda: GGUF_SIZES)
    neutral: Mapping[str, tuple[Any, ...]] = field(default_factory=lambda: GGUF_NEUTRAL)
    layer: str = "blk.{}."
    windows: int | None = None
    local_base: float | None = None
    unturned: int | None = None
    gains_with_offset: bool = False
    blocks: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda sizes: {}
    fused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def as_itself(config: DecoderConfig) -> str:
    """A model is written as a model of its own family."""
    return config.family


@dataclass(frozen=True)
class Family:
    """A family of pretrained decoders: all that distinguishes it from others, apart from what its blocks compute.

    Attributes:
        name: The key in `FAMILIES` and the value of `DecoderConfig.family`.
        title: The name for people.
        huggingface: Its folders.
        gguf: Its GGUF files.
        embedding: The weight before the layers.
        layer: The weights of every layer, in the order of the forward.
        norm: The weight after the layers.
        head: The output table, which models with tied embeddings do not have.
        blocks: What its blocks compute, where they are not those of a plain Llama; what a file states is added to it.
        scales_embedding: Whether rows of the embedding are multiplied by the square root of their width.
        written_as: From an architecture's sizes to the name of the family as which it is written for `transformers`:
            one of the same weights whose class can compute it.
    """

    name: str
    title: str
    huggingface: HuggingFaceFormat
    gguf: GGUFFormat
    embedding: Weight
    layer: tuple[Weight, ...]
    norm: Weight
    head: Weight
    blocks: DecoderBlocks = PLAIN
    scales_embedding: bool = False
    written_as: Callable[[DecoderConfig], str] = as_itself

    def weights(self, config: DecoderConfig) -> Iterator[tuple[int | None, Weight]]:
        """Every weight of a model with the number of its layer, None outside of them; in the order of the forward.

        A layer without attention, or without a feed-forward, has no weights of it.
        """
        yield None, self.embedding
        for number in range(config.n_layers):
            sizes = config.layer(number)
            for weight in self.layer:
                if sizes.kv_heads if weight.attends else sizes.ffn:
                    yield number, weight
        yield None, self.norm
        if not config.tied_embeddings:
            yield None, self.head

    def key(self, weight: Weight, number: int | None) -> Key:
        """A weight in a space.

        Args:
            weight: One of this family's.
            number: Of its layer; None outside of the layers.
        """
        owner = weight.owner if number is None else f"{axes.layer(number)}.{weight.owner}"
        return owner, weight.name

    def huggingface_name(self, weight: Weight, number: int | None) -> str:
        """A weight's whole name in Hugging Face folders. Arguments as for `key`."""
        return weight.huggingface if number is None else self.huggingface.layer.format(number) + weight.huggingface

    def of_gguf(self, name: str) -> tuple[int | None, Weight] | None:
        """The weight that has a name in GGUF files, with the number of its layer; None for a name of no weight."""
        for weight in (self.embedding, self.norm, self.head):
            if weight.gguf == name:
                return None, weight
        number, rest = self._in_layer(name)
        return next(((number, weight) for weight in self.layer if weight.gguf == rest), None) if rest else None

    def fused_in_gguf(self, name: str) -> tuple[int, tuple[Weight, ...]] | None:
        """The weights that a matrix of GGUF files holds, with the number of their layer; None for another name."""
        number, rest = self._in_layer(name)
        if rest not in self.gguf.fused:
            return None
        return number, tuple(w for part in self.gguf.fused[rest] for w in self.layer if w.gguf == part)

    def _in_layer(self, name: str) -> tuple[int, str]:
        """A name in GGUF files as the number of a layer and the name there, which is empty for one of no layer."""
        before, after = self.gguf.layer.split("{}")
        number, _, rest = name.removeprefix(before).partition(after)
        # A damaged file may hold any name; only a plain decimal number is one of a layer.
        if not name.startswith(before) or not number.isdecimal() or len(number) > 9 or str(int(number)) != number:
            return 0, ""
        return int(number), rest

    def tensor_shapes(self, config: DecoderConfig) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor of a model in Hugging Face's names and layout, in the order of the forward."""
        return {self.huggingface_name(w, number): w.stored_shape(config, number) for number, w in self.weights(config)}

    def reader(self, axis: str) -> Weight:
        """The weight of a layer that reads the hidden units which an axis counts.

        Args:
            axis: `axes.FFN`, or `axes.KV_HEADS` or `axes.QUERY_HEADS` for heads.
        """
        return next(weight for weight in self.layer if weight.reads_units and axis in weight.dims)
