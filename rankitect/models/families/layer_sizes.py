"""The sizes of a decoder's layers where they differ, as in a pruned model that is a backbone again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rankitect.errors import AssetError, shown
from rankitect.models.families import axes
from rankitect.models.families.values import Number

__all__ = ["LayerSizes", "first_sizes", "layers_from_json"]

_SIZE = Number(0, 2**31 - 1)
_RUNS = Number(axes.ONCE, axes.TWICE)
_MOST = 10_000
"""Layers whose sizes are stated one by one."""


@dataclass(frozen=True)
class LayerSizes:
    """The sizes of one layer.

    Attributes:
        kv_heads: Key/value heads; 0 for a layer without attention.
        group: Query heads of each key/value head; 0 for a layer without attention.
        ffn: Width of the gated feed-forward; 0 for a layer without one.
        runs: How often the layer runs in a row, with one set of weights.
    """

    kv_heads: int
    group: int
    ffn: int
    runs: int = axes.ONCE

    def __post_init__(self) -> None:
        """Check that the numbers can be a layer.

        Raises:
            AssetError: A number is not allowed; the sentence names it.
        """
        for name, value in (("kv_heads", self.kv_heads), ("group", self.group), ("ffn", self.ffn)):
            _SIZE.check(value, f"model config: {name} of a layer")
        _RUNS.check(self.runs, "model config: runs of a layer")
        if bool(self.kv_heads) != bool(self.group):
            raise AssetError(
                f"model config: a layer has {self.kv_heads} key/value heads of {self.group} query heads; "
                "both are 0 for a layer without attention, and neither is for another."
            )
        if not self.kv_heads and not self.ffn:
            raise AssetError("model config: a layer has neither attention nor a feed-forward.")

    @property
    def heads(self) -> int:
        """Query heads; 0 for a layer without attention."""
        return self.kv_heads * self.group

    @property
    def whole(self) -> bool:
        """Whether it has both of its parts and runs once, as each layer of a model whose layers are alike."""
        return self.kv_heads > 0 and self.ffn > 0 and self.runs == axes.ONCE


def first_sizes(layers: Sequence[LayerSizes]) -> dict[str, int]:
    """What a config says of heads and widths in one number: those of the first layer that has any, or else 1."""
    attending = next((layer for layer in layers if layer.kv_heads), None)
    heads, kv_heads = (1, 1) if attending is None else (attending.heads, attending.kv_heads)
    own = attending.ffn if attending is not None else 0
    ffn = own or next((layer.ffn for layer in layers if layer.ffn), 1)
    return {"n_heads": heads, "n_kv_heads": kv_heads, "ffn": ffn}


def layers_from_json(data: object) -> tuple[LayerSizes, ...]:
    """Read the sizes of layers from plain data.

    Raises:
        AssetError: It is no list of such sizes.
    """
    if not isinstance(data, list) or len(data) > _MOST or not all(isinstance(one, dict) for one in data):
        raise AssetError(f"model config: layers is {shown(data)}; it must be a list with the sizes of each layer.")
    try:
        return tuple(LayerSizes(**one) for one in data)
    except TypeError as error:
        raise AssetError(f"model config: these are not the sizes of a layer ({shown(str(error))[1:-1]}).") from error
