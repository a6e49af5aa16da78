"""What calibration statistics foretell of each choice of a pruned language model, before any search."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from rankitect.models.backbone import Backbone
    from rankitect.models.importance import Statistics
    from rankitect.models.refit import Refit

__all__ = ["second_order"]

WINDOW_LOSS = 0.002
"""Nats a token that a sliding window is taken to cost (statistics of whole attention do not tell)."""


def second_order(backbone: Backbone, statistics: Statistics) -> dict[str, torch.Tensor]:
    """For each choice of a layer, the estimated rise of the loss at each value with all else kept, nats a token.

    Choices without an estimate (the residual width) are left out. Empty where there are no refits or slopes.
    """
    found: dict[str, torch.Tensor] = {}
    head = backbone.checkpoint.config.head_dim
    weights = backbone.supernet.weights
    for scope in backbone.influence:
        attention, mlp = (f"{scope}.attn.shared", "o"), (f"{scope}.mlp", "down")
        refits: list[Refit] = []
        for owner, name in (attention, mlp):
            refit = weights.owner(owner).variants.get(name)
            if refit is None or (owner, name) not in statistics.slopes:
                return {}
            refits.append(refit)  # type: ignore[arg-type]
        heads, units = refits
        head_slopes, unit_slopes = statistics.slopes[attention], statistics.slopes[mlp]
        choices = backbone.space.choices
        kv = [int(v) for v in choices[f"{scope}.kv_heads"].values]  # type: ignore[arg-type]
        group = [int(v) for v in choices[f"{scope}.group"].values]  # type: ignore[arg-type]
        ffn = [int(v) for v in choices[f"{scope}.ffn"].values]  # type: ignore[arg-type]
        found[f"{scope}.kv_heads"] = torch.tensor([heads.error((k, max(group), head), head_slopes) for k in kv])
        found[f"{scope}.group"] = torch.tensor([heads.error((max(kv), g, head), head_slopes) for g in group])
        found[f"{scope}.ffn"] = torch.tensor([units.error((f,), unit_slopes) for f in ffn])
        no_heads, no_units = heads.error(None, head_slopes), units.error(None, unit_slopes)
        if f"{scope}.attn" in choices:
            losses = {"full": 0.0, "swa": WINDOW_LOSS, "skip": no_heads}
            found[f"{scope}.attn"] = torch.tensor([losses[str(v)] for v in choices[f"{scope}.attn"].values])
        if f"{scope}.runs" in choices:
            runs = {0: no_heads + no_units, 1: 0.0, 2: no_heads + no_units}
            found[f"{scope}.runs"] = torch.tensor([runs[int(v)] for v in choices[f"{scope}.runs"].values])  # type: ignore[arg-type]
    return found
