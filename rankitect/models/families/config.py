"""The sizes of a decoder whose layers are all of one size, whatever its family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rankitect.errors import AssetError, shown
from rankitect.models.families import axes
from rankitect.models.families.blocks import PLAIN, DecoderBlocks
from rankitect.models.families.values import LIMITS

__all__ = ["HEAD", "VOCAB", "DecoderConfig"]

HEAD = "head"
"""The elements of a head, a dimension that is never pruned."""
VOCAB = "vocab"
"""The tokens of the vocabulary, a dimension that is never pruned."""

_DEFAULT_FAMILY = "llama"


@dataclass(frozen=True)
class DecoderConfig:
    """The sizes and constants of a decoder-only language model with layers of equal sizes.

    Attributes:
        vocab: Rows of the token embedding.
        d_model: Width of the residual stream.
        n_layers: Transformer layers.
        n_heads: Query heads of a layer.
        n_kv_heads: Key/value heads of a layer; divides `n_heads`.
        head_dim: Width of a head; even, because RoPE rotates pairs.
        ffn: Width of the gated feed-forward.
        rope_base: RoPE's base (theta).
        norm_eps: RMSNorm's epsilon.
        tied_embeddings: True if the output projection is the token embedding.
        context: Longest sequence the model was made for, tokens.
        family: Name of the model's family, a key of `families.FAMILIES`.
        blocks: What its blocks compute, where they are not those of a plain Llama.
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
        kind = self.blocks.rope_scaling[:1]
        if (kind == ("dynamic",) and self.head_dim < 4) or (kind == ("yarn",) and self.rope_base <= 1):
            raise AssetError(
                f"model config: head_dim is {self.head_dim} and rope_base is {self.rope_base:g}, for which the scaling "
                f"{kind[0]!r} means nothing."
            )

    @property
    def query_heads(self) -> int:
        """Query heads of each key/value head."""
        return self.n_heads // self.n_kv_heads

    @property
    def sizes(self) -> dict[str, int]:
        """The size of every dimension that a weight can have, by axis."""
        return {
            VOCAB: self.vocab,
            axes.CHANNELS: self.d_model,
            axes.KV_HEADS: self.n_kv_heads,
            axes.QUERY_HEADS: self.query_heads,
            HEAD: self.head_dim,
            axes.FFN: self.ffn,
        }

    def to_json(self) -> dict[str, Any]:
        """Plain data. The default family and blocks are left out: candidates were written before there were others."""
        data = {**asdict(self), "blocks": self.blocks.to_json()}
        if self.family == _DEFAULT_FAMILY:
            del data["family"]
        if not data["blocks"]:
            del data["blocks"]
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> DecoderConfig:
        """Read what `to_json` wrote.

        Raises:
            AssetError: A key is missing or unknown, or a value is not allowed.
        """
        blocks = {"blocks": DecoderBlocks.from_json(data["blocks"])} if "blocks" in data else {}
        try:
            return cls(**{**data, **blocks})
        except TypeError as error:
            raise AssetError(f"these are not the sizes of a decoder ({shown(str(error))[1:-1]})") from error
