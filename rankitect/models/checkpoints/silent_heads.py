"""Heads that add nothing, as files have them whose readers want a number of heads that the model has not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rankitect.models.families import DecoderConfig, LayerSizes, axes, family_of

if TYPE_CHECKING:
    import torch

__all__ = ["without_silent_heads"]


def without_silent_heads(
    config: DecoderConfig, tensors: dict[str, torch.Tensor]
) -> tuple[DecoderConfig, dict[str, torch.Tensor]]:
    """The same model without the last heads of a layer whose outputs are multiplied by zeros alone.

    What a model computes does not change; a layer without any other head has no attention.

    Args:
        config: Of a model whose heads are not normalised all at once.
        tensors: Its tensors.
    """
    family = family_of(config)
    reader, layers = family.reader(axes.KV_HEADS), list[LayerSizes]()
    for number in range(config.n_layers):
        sizes = config.layer(number)
        if sizes.kv_heads:
            read = tensors[family.huggingface_name(reader, number)].view(reader.shape(config, number))
            used = read.ne(0).any(-1).any(0)  # [K, G]
            kv, group = (int(one.nonzero().max()) + 1 if one.any() else 0 for one in (used.any(1), used.any(0)))
            if kv or sizes.ffn:
                sizes = replace(sizes, kv_heads=kv, group=group)
        layers.append(sizes)
    fewer = config.with_layers(layers)
    kept: dict[str, torch.Tensor] = {}
    for place, weight in family.weights(fewer):
        name = family.huggingface_name(weight, place)
        part = tensors[name].view(weight.shape(config, place))[tuple(map(slice, weight.shape(fewer, place)))]
        kept[name] = part.reshape(weight.stored_shape(fewer, place)).contiguous()
    return fewer, kept
