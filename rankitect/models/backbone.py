"""A pretrained model as a supernet: weights sorted by importance, so that any architecture is the pruned model.

Where calibration statistics are given, the weights that read a layer's hidden units are also refitted for what is kept
(`refit`).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from math import prod

import torch

from rankitect.graph import Architecture, SearchSpace
from rankitect.graph.cost import FLOAT_BYTES
from rankitect.models.checkpoints import DecoderCheckpoint, DecoderConfig
from rankitect.models.families import Weight, axes, family_of
from rankitect.models.families.family import Key
from rankitect.models.importance import Statistics, unit_scores
from rankitect.models.pretrained import Orders, space_tensors
from rankitect.models.refit import Refit
from rankitect.models.supernet import Standalone, Supernet

__all__ = ["MOMENTS", "REFITS", "Backbone", "largest", "rank", "refit_memory"]

MOMENTS, REFITS = "moments of hidden units", "refits of every size"


def largest(space: SearchSpace) -> Architecture:
    """The architecture that keeps everything: the backbone itself in a space made from one.

    Settings of its training, which shape nothing, have their usual values.
    """
    whole = {path: axes.whole(path, choice) for path, choice in space.choices.items()}
    return space.architecture({**whole, **space.usual})


def rank(config: DecoderConfig, plain: Supernet, statistics: Statistics, criterion: str = "energy") -> Orders:
    """Orders of all axes from calibration statistics of the unsorted backbone.

    A key/value head counts as much as all its query heads together.

    Args:
        config: The backbone's sizes.
        plain: The backbone with weights as they are.
        statistics: Gathered on `plain` at its largest architecture.
        criterion: For hidden units and heads; a key of `importance.CRITERIA`.
    """
    family = family_of(config)

    def scores(axis: str, layer: int) -> torch.Tensor:
        owner, name = family.key(family.reader(axis), layer)
        readout = plain.weights.owner(owner).get_parameter(name)
        return unit_scores(statistics, (owner, name), readout, criterion)

    kv, group, ffn = {}, {}, {}
    for i in range(config.n_layers):
        if config.layer(i).kv_heads:
            # Scores of a head are summed over its elements, those of a key/value head over its query heads.
            heads = scores(axes.KV_HEADS, i).sum(-1)  # [K, G]
            kv[i] = heads.sum(1).argsort(descending=True, stable=True)
            group[i] = heads[kv[i]].argsort(dim=1, descending=True, stable=True)
        if config.layer(i).ffn:
            ffn[i] = scores(axes.FFN, i).argsort(descending=True, stable=True)
    return Orders(statistics.residual.argsort(descending=True, stable=True), kv, group, ffn)


def _options(space: SearchSpace, config: DecoderConfig, weight: Weight, layer: int) -> list[tuple[int, ...]]:
    """Every joint size of the hidden units that a weight reads."""
    sizes = []
    for dim, whole in zip(weight.dims[1:], weight.shape(config, layer)[1:], strict=True):
        choice = space.choices.get(axes.deciding(space.choices, dim, layer))
        sizes.append([whole] if choice is None else [int(v) for v in choice.values])  # type: ignore[arg-type]
    return list(product(*sizes))


def refit_memory(config: DecoderConfig, space: SearchSpace) -> dict[str, int]:
    """Bytes that refits of a backbone take, by what they are for, before there is one.

    A search by activated architectures holds the moments, and refits as it meets their sizes; one on the relaxed
    supernet those of every size, and no moments any more.

    Args:
        config: The backbone's sizes.
        space: Made from it.
    """
    family, needed = family_of(config), dict.fromkeys((MOMENTS, REFITS), 0)
    for layer, weight in family.weights(config):
        if layer is None or not weight.reads_units:
            continue
        outputs, *units = weight.shape(config, layer)
        whole = prod(units)
        options = [prod(option) for option in _options(space, config, weight, layer)]
        needed[MOMENTS] += FLOAT_BYTES * whole**2
        needed[REFITS] += FLOAT_BYTES * outputs * (sum(options) - max(options))
    return needed


class Backbone:
    """A pretrained model in a space: sorted weights, and refits for every size where statistics are given.

    Args:
        checkpoint: The pretrained model.
        space: Made from it (`from_backbone`).
        orders: Of all axes.
        gram: Second moments of hidden units in the *unsorted* order, by (owner, name) of the weight that reads them;
            with them, pruned weights are refitted.
        influence: Block influence of each layer, by scope.
        device: Where the supernet is.
    """

    def __init__(
        self,
        checkpoint: DecoderCheckpoint,
        space: SearchSpace,
        orders: Orders | None = None,
        gram: Mapping[Key, torch.Tensor] | None = None,
        influence: Mapping[str, float] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.checkpoint, self.space, self.orders = checkpoint, space, orders or Orders()
        self.family = family_of(checkpoint.config)
        self.supernet = Supernet(space, tensors=space_tensors(checkpoint, self.orders)).to(device)
        self.largest = largest(space)
        self.influence = dict(influence or {})
        for layer in range(checkpoint.config.n_layers):
            for weight in self.family.layer:
                if (key := self.family.key(weight, layer)) in (gram or {}):
                    self._refit(weight, layer, gram[key])  # type: ignore[index]

    def _refit(self, weight: Weight, layer: int, gram: torch.Tensor) -> None:
        """Let a weight be refitted for every size, given the second moments of the units that it reads, unsorted."""
        owner, name = self.family.key(weight, layer)
        order = self.orders.units(self.checkpoint.config, layer, weight)
        module = self.supernet.weights.owner(owner)
        full = module.get_parameter(name).detach()
        options = _options(self.space, self.checkpoint.config, weight, layer)
        module.variants[name] = Refit(full, gram[order][:, order], options)

    def inherit(self, architecture: Architecture) -> Standalone:
        """The pruned backbone as a model of its own."""
        return self.supernet.extract(architecture)
