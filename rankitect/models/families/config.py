"""The sizes of a decoder, whatever its family; by layer where its layers differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rankitect.errors import AssetError, shown
from rankitect.models.families import axes
from rankitect.models.families.blocks import PLAIN, DecoderBlocks
from rankitect.models.families.layer_sizes import LayerSizes, first_sizes, layers_from_json
from rankitect.models.families.values import LIMITS

__all__ = ["HEAD", "VOCAB", "DecoderConfig"]

HEAD = "head"
"""The elements of a head, a dimension that is never pruned."""
VOCAB = "vocab"
"""The tokens of the vocabulary, a dimension that is never pruned."""

_DEFAULT_FAMILY = "llama"


@dataclass(frozen=True)
class DecoderConfig:
    """The sizes and constants of a decoder-only language model.

    Attributes:
        vocab: Rows of the token embedding.
        d_model: Width of the residual stream.
        n_layers: Transformer layers.
        n_heads: Query heads of a layer; where layers differ, of the first that has some.
        n_kv_heads: Key/value heads of a layer; divides `n_heads`. Where layers differ, as of `n_heads`.
        head_dim: Width of a head; even, because RoPE rotates pairs.
        ffn: Width of the gated feed-forward; where layers differ, of the same layer if it has one.
        rope_base: RoPE's base (theta).
        norm_eps: RMSNorm's epsilon.
        tied_embeddings: True if the output projection is the token embedding.
        context: Longest sequence the model was made for, tokens.
        family: Name of the model's family, a key of `families.FAMILIES`.
        blocks: What its blocks compute, where they are not those of a plain Llama.
        layers: The sizes of each layer where they differ; empty where all are alike. `with_layers` makes such a config.
    """

    vocab: int
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    ffn: int
    rope_base: float = 10_000.0
    norm_eps: float = 1e-5
    tied_embeddings: bool = True
    context: int = 2048
    family: str = _DEFAULT_FAMILY
    blocks: DecoderBlocks = PLAIN
    layers: tuple[LayerSizes, ...] = ()

    def __post_init__(self) -> None:
        """Check that the numbers can be a model.

        Raises:
            AssetError: A number is not allowed; the sentence names it.
        """
        given = vars(self)
        for name, limit in LIMITS.items():
            limit.check(given[name], f"model config: {name}")
        if not isinstance(self.family, str):
            raise AssetError(f"model config: family is {shown(self.family)}; it must be a name.")
        if self.n_heads % self.n_kv_heads:
            raise AssetError(
                f"model config: n_heads is {self.n_heads}, it must be a multiple of n_kv_heads, {self.n_kv_heads}."
            )
        if self.head_dim % 2:
            raise AssetError(f"model config: head_dim is {self.head_dim}, it must be even (RoPE rotates pairs).")
        if not isinstance(self.blocks, DecoderBlocks):
            raise AssetError(f"model config: blocks is {shown(self.blocks)}; it must be a mapping.")
        self.blocks.check_layers(self.n_layers)
        self._check_layers()
        kind = self.blocks.rope_scaling[:1]
        if (kind == ("dynamic",) and self.head_dim < 4) or (kind == ("yarn",) and self.rope_base <= 1):
            raise AssetError(
                f"model config: head_dim is {self.head_dim} and rope_base is {self.rope_base:g}, for which the scaling "
                f"{kind[0]!r} means nothing."
            )

    def _check_layers(self) -> None:
        """Check that sizes by layer, where they are given, are of all layers, which differ.

        Raises:
            AssetError: They are not.
        """
        if not self.layers:
            return
        if not isinstance(self.layers, tuple) or not all(isinstance(layer, LayerSizes) for layer in self.layers):
            raise AssetError(f"model config: layers is {shown(self.layers)}; it must be a list of sizes.")
        if len(self.layers) != self.n_layers:
            raise AssetError(
                f"model config: layers is stated for {len(self.layers)} layers, the model has {self.n_layers}."
            )
        if len(set(self.layers)) == 1 and self.layers[0].whole:
            raise AssetError("model config: layers states sizes by layer, but all of them are alike.")
        for name, value in first_sizes(self.layers).items():
            if vars(self)[name] != value:
                raise AssetError(f"model config: {name} is {vars(self)[name]}, that of its layers is {value}.")

    def with_layers(self, layers: Sequence[LayerSizes]) -> DecoderConfig:
        """The same model with other layers.

        Args:
            layers: The sizes of each; what its blocks state by layer must be for as many.

        Raises:
            AssetError: They cannot be a model's.
        """
        alike = len(set(layers)) == 1 and layers[0].whole
        numbers: dict[str, Any] = {"n_layers": len(layers), **first_sizes(layers)}
        return replace(self, **numbers, layers=() if alike else tuple(layers))

    def layer(self, number: int) -> LayerSizes:
        """The sizes of a layer."""
        return self.layers[number] if self.layers else LayerSizes(self.n_kv_heads, self.query_heads, self.ffn)

    @property
    def twice(self) -> list[int]:
        """The numbers of the layers that run twice."""
        return [number for number, layer in enumerate(self.layers) if layer.runs == axes.TWICE]

    @property
    def query_heads(self) -> int:
        """Query heads of each key/value head."""
        return self.n_heads // self.n_kv_heads

    def sizes(self, layer: int | None) -> dict[str, int]:
        """The size of every dimension that a weight can have, by axis.

        Args:
            layer: The number of the weight's layer; None outside of the layers.
        """
        sizes = {VOCAB: self.vocab, axes.CHANNELS: self.d_model, HEAD: self.head_dim}
        if layer is None:
            return sizes
        own = self.layer(layer)
        return sizes | {axes.KV_HEADS: own.kv_heads, axes.QUERY_HEADS: own.group, axes.FFN: own.ffn}

    def to_json(self) -> dict[str, Any]:
        """Plain data. What is usual is left out: candidates were written before there was anything else."""
        data = {**asdict(self), "blocks": self.blocks.to_json(), "layers": list(map(asdict, self.layers))}
        if self.family == _DEFAULT_FAMILY:
            del data["family"]
        return {name: value for name, value in data.items() if name not in ("blocks", "layers") or value}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> DecoderConfig:
        """Read what `to_json` wrote.

        Raises:
            AssetError: A key is missing or unknown, or a value is not allowed.
        """
        more: dict[str, Any] = {}
        if "blocks" in data:
            more["blocks"] = DecoderBlocks.from_json(data["blocks"])
        if "layers" in data:
            more["layers"] = layers_from_json(data["layers"])
        try:
            return cls(**{**data, **more})
        except TypeError as error:
            raise AssetError(f"these are not the sizes of a decoder ({shown(str(error))[1:-1]})") from error
