"""What calibration statistics foretell of each choice of a pruned language model, before any search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from rankitect.models.families import axes

if TYPE_CHECKING:
    from rankitect.models.backbone import Backbone
    from rankitect.models.importance import Statistics
    from rankitect.models.refit import Refit

__all__ = ["second_order"]

WINDOW_LOSS = 0.002
"""Nats a token that a sliding window is taken to cost (statistics of whole attention do not tell)."""


def second_order(backbone: Backbone, statistics: Statistics) -> dict[str, torch.Tensor]:
    """For each choice of a layer, the estimated rise of the loss at each value with all else kept, nats a token.

    One that decides for all layers has the sum over them. Choices without an estimate (the residual width) are left
    out. Empty where there are no refits or slopes.
    """
    rises: dict[str, torch.Tensor] = {}
    family, weights, choices = backbone.family, backbone.supernet.weights, backbone.space.choices
    config = backbone.checkpoint.config
    head = config.head_dim

    def sizes(axis: str, scope: str) -> list[int]:
        return [int(v) for v in choices[axes.deciding(choices, axis, scope)].values]  # type: ignore[arg-type]

    for scope in backbone.influence:
        number = axes.number_of(scope) or 0
        own, by_axis, without = config.layer(number), dict[str, list[float]](), 0.0
        parts = [axis for axis, size in ((axes.KV_HEADS, own.kv_heads), (axes.FFN, own.ffn)) if size]
        for axis in parts:
            key = family.key(family.reader(axis), number)
            refit = weights.owner(key[0]).variants.get(key[1])
            if refit is None or key not in statistics.slopes:
                return {}
            rise = _Rise(refit, statistics.slopes[key], own.runs)  # type: ignore[arg-type]
            gone = rise(None)
            without += gone
            if axis == axes.FFN:
                by_axis[axis] = [rise((f,)) for f in sizes(axis, scope)]
                continue
            by_axis[axes.KV_HEADS] = [rise((k, own.group, head)) for k in sizes(axes.KV_HEADS, scope)]
            by_axis[axes.QUERY_HEADS] = [rise((own.kv_heads, g, head)) for g in sizes(axes.QUERY_HEADS, scope)]
            if (pattern := choices.get(axes.path(axes.PATTERN, scope))) is not None:
                losses = {axes.FULL: 0.0, axes.WINDOW: WINDOW_LOSS, axes.SKIP: gone}
                by_axis[axes.PATTERN] = [losses[v] for v in pattern.values]  # type: ignore[index]
        if axes.path(axes.RUNS, scope) in choices:
            # A second run changes the layer's output by about as much as its absence does.
            by_axis[axes.RUNS] = [without / own.runs * abs(n - own.runs) for n in sizes(axes.RUNS, scope)]
        for axis, values in by_axis.items():
            path = axes.deciding(choices, axis, scope)
            rises[path] = rises.get(path, torch.zeros(len(values))) + torch.tensor(values)
    return rises


@dataclass(frozen=True)
class _Rise:
    """The estimated rise of the loss by the units that a weight is left with, for all runs of its layer, in nats."""

    refit: Refit
    slopes: torch.Tensor
    runs: int

    def __call__(self, units: tuple[int, ...] | None) -> float:
        return self.runs * self.refit.error(units, self.slopes)
