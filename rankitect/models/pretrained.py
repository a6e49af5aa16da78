"""Weights of a pretrained model under a space's names, sorted by importance; and back under the names of its files.

Both directions follow the table of the model's family (`families.Weight`): nothing here knows any weight by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from rankitect.models.checkpoints import DecoderCheckpoint
from rankitect.models.families import DecoderConfig, Family, Weight, axes, family_of
from rankitect.models.families.family import Key
from rankitect.models.supernet import Standalone

__all__ = ["Orders", "file_tensors", "space_tensors"]


@dataclass(frozen=True)
class Orders:
    """Positions in order of importance, best first. Empty means: as they are.

    Attributes:
        channels: Of the residual stream, [D].
        kv: Of the key/value heads of each layer, [K].
        group: Of the query heads of each (sorted) key/value head, [K, G].
        ffn: Of the feed-forward units of each layer, [F].
    """

    channels: torch.Tensor | None = None
    kv: Mapping[int, torch.Tensor] = field(default_factory=dict)
    group: Mapping[int, torch.Tensor] = field(default_factory=dict)
    ffn: Mapping[int, torch.Tensor] = field(default_factory=dict)

    def heads(self, config: DecoderConfig, layer: int) -> torch.Tensor:
        """The query heads of a layer in their new order, as positions in the unsorted layer, [K, G]."""
        kv, group = config.layer(layer).kv_heads, config.layer(layer).group
        k_order = self.kv.get(layer, torch.arange(kv))
        g_order = self.group.get(layer, torch.arange(group).expand(kv, group))
        return k_order[:, None] * group + g_order

    def units(self, config: DecoderConfig, layer: int, weight: Weight) -> torch.Tensor:
        """The hidden units that a weight reads in their new order, as positions among the unsorted units, flattened.

        Args:
            config: The model's sizes.
            layer: The number of the layer.
            weight: One for which `reads_units` holds.
        """
        shape = weight.shape(config, layer)[1:]
        positions = torch.arange(int(torch.Size(shape).numel())).view(shape)
        return self.sort(positions, weight.dims[1:], config, layer).flatten()

    def sort(self, tensor: torch.Tensor, dims: Sequence[str], config: DecoderConfig, layer: int | None) -> torch.Tensor:
        """A tensor with every dimension in its order: a copy, or the same memory where all are in it already.

        Args:
            tensor: Of any shape whose dimensions are counted by `dims`.
            dims: What each dimension counts.
            config: The model's sizes.
            layer: The number of the weight's layer; None outside of the layers.
        """
        sizes = config.sizes(layer)
        for dim, axis in enumerate(dims):
            order = self._order(axis, config, layer)
            if axis == axes.QUERY_HEADS and order is not None:
                # The order of query heads differs between key/value heads, so both dimensions are sorted as one.
                assert dims[dim - 1] == axes.KV_HEADS
                both = tensor.flatten(dim - 1, dim).index_select(dim - 1, order)
                tensor = both.unflatten(dim - 1, (sizes[axes.KV_HEADS], sizes[axes.QUERY_HEADS]))
            elif order is not None and (axis != axes.KV_HEADS or axes.QUERY_HEADS not in dims):
                tensor = tensor.index_select(dim, order)
        return tensor.contiguous()

    def _order(self, axis: str, config: DecoderConfig, layer: int | None) -> torch.Tensor | None:
        """The order along one axis, for query heads that of all heads of the layer; None to leave it as it is."""
        if axis == axes.CHANNELS:
            return self.channels
        if layer is None:
            return None
        if axis == axes.QUERY_HEADS:
            return self.heads(config, layer).flatten() if layer in self.kv or layer in self.group else None
        by_layer = {axes.FFN: self.ffn, axes.KV_HEADS: self.kv}.get(axis, {})
        return by_layer.get(layer)


def space_tensors(
    checkpoint: DecoderCheckpoint, orders: Orders | None = None, *, share: bool = False
) -> dict[Key, torch.Tensor]:
    """A checkpoint's weights under the names and shapes of a space made from it, sorted.

    Args:
        checkpoint: The pretrained model.
        orders: Of its units, heads and channels; None to leave everything where it is. None where it shares.
        share: Whether the checkpoint keeps no copy of its own: its tensors become views of those given back.
    """
    config, orders = checkpoint.config, orders or Orders()
    family = family_of(config)
    tensors: dict[Key, torch.Tensor] = {}
    for number, weight in _in_order_of_registration(family, config):
        name = family.huggingface_name(weight, number)
        stored = checkpoint.tensors[name]
        own = orders.sort(stored.view(weight.shape(config, number)), weight.dims, config, number)
        # A clone even where it is shared: memory of a file is mapped as the file has it, and not aligned.
        own = own.clone() if own.data_ptr() == stored.data_ptr() else own
        tensors[family.key(weight, number)] = own
        if share:
            checkpoint.tensors[name] = own.view(stored.shape)
    return tensors


def _in_order_of_registration(family: Family, config: DecoderConfig) -> list[tuple[int | None, Weight]]:
    """The weights in the order in which a supernet registers them: outer ones, then each layer's, vectors first.

    Optimizers and sums over gradients go through parameters in this order, so that another one would change results in
    their last digits.
    """
    return sorted(
        family.weights(config),
        key=lambda place: (-1, 0) if place[0] is None else (place[0], place[1].kind == "matrix"),
    )


def file_tensors(model: Standalone, config: DecoderConfig, layers: Sequence[str]) -> dict[str, torch.Tensor]:
    """A model's weights under Hugging Face's names and in its layout, copied: the inverse of `space_tensors`.

    Args:
        model: Of a space made from a pretrained model.
        config: Its sizes and family.
        layers: The scope of each layer, in the order in which they run; the weights of one that runs twice are written
            twice.
    """
    family = family_of(config)
    tensors: dict[str, torch.Tensor] = {}
    for number, weight in family.weights(config):
        owner = weight.owner if number is None else f"{layers[number]}.{weight.owner}"
        parameter = model.owner(owner).get_parameter(weight.name)
        name = family.huggingface_name(weight, number)
        tensors[name] = parameter.detach().clone().reshape(weight.stored_shape(config, number)).contiguous()
    return tensors
