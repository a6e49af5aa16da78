"""The scales of a weight: those that follow from its largest values, or searched ones that cut off a little.

A smaller scale cuts off the largest weights and is finer for the others. What is best is found by trial: the scale with
the least squared error of the weights, or of the outputs on calibration text.
"""

from __future__ import annotations

import torch

from rankitect.models.numerics import Numerics, quantized_levels, weight_scales

__all__ = ["SHARES", "searched_scales"]

SHARES = tuple(1.0 - 0.04 * i for i in range(13))
"""The scales that are tried, as shares of the largest that is of use."""


@torch.no_grad()
def searched_scales(weight: torch.Tensor, numerics: Numerics, gram: torch.Tensor | None = None) -> torch.Tensor:
    """The best of several scales, for each scale apart.

    Args:
        weight: [outputs..., inputs...].
        numerics: How it is rounded.
        gram: Mean outer product of the inputs, [inputs, inputs]: the error of the outputs is then counted, the inputs
            of different scales taken as unrelated. None counts the error of the weights.

    Returns:
        [outputs..., groups].
    """
    largest = weight_scales(weight, numerics)
    groups = largest.shape[-1]
    rows = weight.detach().float().reshape(-1, groups, weight.numel() // largest.numel())
    blocks = None if gram is None else _blocks(gram, groups)
    best, least = largest, torch.full(rows.shape[:2], float("inf"), device=weight.device)
    for share in SHARES:
        levels, scale = quantized_levels(weight, numerics, largest * share)
        error = rows - levels.view(rows.shape) * scale.view(*rows.shape[:2], 1)
        if blocks is None:
            lost = error.square().sum(-1)
        else:
            turned = error.transpose(0, 1)  # [groups, outputs, inputs of a group]
            lost = (torch.bmm(turned, blocks) * turned).sum(-1).T
        better = lost < least
        least = torch.where(better, lost, least)
        best = torch.where(better.reshape(best.shape), scale, best)
    return best.contiguous()


def _blocks(gram: torch.Tensor, groups: int) -> torch.Tensor:
    """The blocks of a gram along its diagonal, [groups, inputs of a group, the same]."""
    size = gram.shape[0] // groups
    at = torch.arange(groups, device=gram.device)
    return gram.float().view(groups, size, groups, size)[at, :, at, :]
