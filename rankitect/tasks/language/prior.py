"""What calibration statistics foretell of each choice of a pruned language model, before any search."""

from __future__ import annotations

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
    head = backbone.checkpoint.config.head_dim

    def sizes(axis: str, scope: str) -> list[int]:
        return [int(v) for v in choices[axes.deciding(choices, axis, scope)].values]  # type: ignore[arg-type]

    for scope in backbone.influence:
        number = axes.number_of(scope)
        heads_key, units_key = (family.key(family.reader(axis), number) for axis in (axes.KV_HEADS, axes.FFN))
        refits: list[Refit] = []
        for key in (heads_key, units_key):
            refit = weights.owner(key[0]).variants.get(key[1])
            if refit is None or key not in statistics.slopes:
                return {}
            refits.append(refit)  # type: ignore[arg-type]
        heads, units = refits
        head_slopes, unit_slopes = statistics.slopes[heads_key], statistics.slopes[units_key]
        kv, group = sizes(axes.KV_HEADS, scope), sizes(axes.QUERY_HEADS, scope)
        by_axis = {
            axes.KV_HEADS: [heads.error((k, max(group), head), head_slopes) for k in kv],
            axes.QUERY_HEADS: [heads.error((max(kv), g, head), head_slopes) for g in group],
            axes.FFN: [units.error((f,), unit_slopes) for f in sizes(axes.FFN, scope)],
        }
        no_heads, no_units = heads.error(None, head_slopes), units.error(None, unit_slopes)
        if (pattern := choices.get(axes.path(axes.PATTERN, scope))) is not None:
            losses = {axes.FULL: 0.0, axes.WINDOW: WINDOW_LOSS, axes.SKIP: no_heads}
            by_axis[axes.PATTERN] = [losses[v] for v in pattern.values]  # type: ignore[index]
        if axes.path(axes.RUNS, scope) in choices:
            # A second run changes the layer's output by about as much as its absence does.
            changed = no_heads + no_units
            runs = {axes.DROPPED: changed, axes.ONCE: 0.0, axes.TWICE: changed}
            by_axis[axes.RUNS] = [runs[n] for n in sizes(axes.RUNS, scope)]
        for axis, values in by_axis.items():
            path = axes.deciding(choices, axis, scope)
            rises[path] = rises.get(path, torch.zeros(len(values))) + torch.tensor(values)
    return rises
