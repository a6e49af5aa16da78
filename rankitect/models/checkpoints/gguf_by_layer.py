"""Models in GGUF files whose layers differ: llama.cpp's architecture `deci`, which states heads and widths by layer.

It was made for NVIDIA's pruned Llamas (arXiv 2411.19146). Its blocks are a Llama's; queries, keys and values may have
biases. A layer of no heads has no attention, and one without a feed-forward is left out by llama.cpp.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from rankitect.errors import AssetError, shown
from rankitect.models.checkpoints.gguf_metadata import Metadata
from rankitect.models.families import FAMILIES, LLAMA, Family, LayerSizes
from rankitect.models.families.gguf_keys import DECI
from rankitect.models.families.layer_sizes import first_sizes

__all__ = ["LayersInFile", "deci_family", "layers_in"]

_HEADS, _KV_HEADS, _FFN = "attention.head_count", "attention.head_count_kv", "feed_forward_length"
_BIAS = "attn_q.bias"
_MOST = 10_000


def deci_family(names: Collection[str]) -> Family:
    """The family of a model of `deci`, as its files have it.

    Args:
        names: Of the tensors of its file, by which it has biases or none.
    """
    family = FAMILIES["qwen2"] if any(name.endswith(f".{_BIAS}") for name in names) else LLAMA
    return replace(family, gguf=replace(LLAMA.gguf, architecture=DECI))


@dataclass(frozen=True)
class LayersInFile:
    """The layers of a file.

    Attributes:
        sizes: Of each layer that computes something.
        numbers: Of these layers, in the file.
        metadata: What the file states, with one number in place of those by layer.
    """

    sizes: tuple[LayerSizes, ...]
    numbers: tuple[int, ...]
    metadata: Metadata


def layers_in(metadata: Metadata) -> LayersInFile:
    """The layers of a file of `deci`.

    Raises:
        AssetError: What is stated of a layer is missing, or cannot be one, or is not understood.
    """
    count = metadata.get(f"{DECI}.block_count", int)
    if not 0 < count <= _MOST:
        raise AssetError(f"{metadata.path}: {DECI}.block_count is {count}; it must be from 1 to {_MOST:,}.")
    heads, kv_heads, ffn = (_by_layer(metadata, f"{DECI}.{key}", count) for key in (_HEADS, _KV_HEADS, _FFN))
    sizes: dict[int, LayerSizes] = {}
    for number, (of_layer, kv, width) in enumerate(zip(heads, kv_heads, ffn, strict=True)):
        where = f"{metadata.path}: layer {number}"
        if of_layer and not kv:
            raise AssetError(f"{where} has query heads and no key/value heads: a linear attention is not supported.")
        if kv > of_layer or (kv and of_layer % kv):
            raise AssetError(
                f"{where} has {shown(of_layer)} query heads ({_HEADS}) and {shown(kv)} key/value heads ({_KV_HEADS})."
            )
        if of_layer and not width:
            raise AssetError(f"{where} has attention and no feed-forward ({_FFN}), which llama.cpp leaves out.")
        if width:
            try:
                sizes[number] = LayerSizes(kv, of_layer // kv if kv else 0, width)
            except AssetError as error:
                raise AssetError(f"{where}: {error}") from error
    if not sizes:
        raise AssetError(f"{metadata.path}: no layer has a feed-forward ({DECI}.{_FFN}).")
    stated = zip((_HEADS, _KV_HEADS, _FFN), first_sizes(list(sizes.values())).values(), strict=True)
    alike = {**metadata.values, **{f"{DECI}.{key}": value for key, value in stated}}
    return LayersInFile(tuple(sizes.values()), tuple(sizes), Metadata(metadata.path, alike))


def _by_layer(metadata: Metadata, key: str, count: int) -> list[int]:
    """A number for each layer; one number is that of all."""
    if isinstance(metadata.values.get(key), list):
        numbers = metadata.all(key, int) or []
        if len(numbers) != count or any(number < 0 for number in numbers):
            raise AssetError(
                f"{metadata.path}: {key} is {shown(numbers)}; it must be a list of {count} numbers from 0, one a layer."
            )
        return numbers
    return [metadata.get(key, int)] * count
