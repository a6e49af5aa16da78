"""GPTQ (arXiv 2210.17323): weights are rounded one input after the other, and those that are still free make up for it.

What counts is the error of the outputs on calibration text, which the inputs' second moments tell. Inputs are taken in
the order of their size ("act-order"), with scales that were fixed before ("static groups").
"""

from __future__ import annotations

import torch

from rankitect.errors import TrainingError
from rankitect.models.numerics import Numerics, levels_of, quantized_levels

__all__ = ["DAMPING", "gptq", "near_floats"]

DAMPING = 0.01
"""Added to the moments' diagonal, as a share of its mean."""
_REACH = 0.49
"""Of a step, how far from its level a weight may be: half a step, but for what floats round themselves."""
_BLOCK = 128
"""Inputs after which the rest of the weights is brought up to date."""


@torch.no_grad()
def gptq(
    weight: torch.Tensor, gram: torch.Tensor, numerics: Numerics, scale: torch.Tensor, damping: float = DAMPING
) -> torch.Tensor:
    """A weight on the grid of its scales, with little error of its outputs.

    Args:
        weight: [outputs..., inputs...].
        gram: Mean outer product of the inputs, [inputs, inputs].
        numerics: How it is rounded.
        scale: The scales, [outputs..., groups].
        damping: See `DAMPING`.

    Returns:
        Like `weight`; rounded with the same scales, it stays what it is.

    Raises:
        TrainingError: The moments are not finite.
    """
    _, held = quantized_levels(weight, numerics, scale)
    rows = weight.detach().float().reshape(held.shape[:-1].numel(), -1).clone()
    count = rows.shape[1]
    scales = held.reshape(len(rows), -1).repeat_interleave(count // held.shape[-1], dim=1)
    order = torch.argsort(gram.diagonal(), descending=True, stable=True)
    factor = _factor(gram[order][:, order], damping).to(rows)
    rows, scales = rows[:, order], scales[:, order]
    least, most = levels_of(numerics.bits)
    for start in range(0, count, _BLOCK):
        end = min(count, start + _BLOCK)
        errors = torch.empty_like(rows[:, start:end])
        for i in range(start, end):
            column, step = rows[:, i], scales[:, i]
            rounded = (column * step.reciprocal()).round_().clamp_(least, most).mul_(step)
            error = (column - rounded) / factor[i, i]
            rows[:, i:end] -= torch.outer(error, factor[i, i:end])
            rows[:, i] = rounded
            errors[:, i - start] = error
        rows[:, end:] -= errors @ factor[start:end, end:]
    back = torch.empty_like(order)
    back[order] = torch.arange(count, device=order.device)
    return rows[:, back].view(weight.shape).to(weight.dtype)


@torch.no_grad()
def near_floats(weight: torch.Tensor, rounded: torch.Tensor, numerics: Numerics, scale: torch.Tensor) -> torch.Tensor:
    """What rounds to given levels and is as near to a weight as that allows: where training in few bits begins.

    A weight that lies on its level is half a step from any other: training that moves weights by less changes nothing,
    and training that moves them by more forgets what was found. One that stays where it was in floats is near to the
    level on its other side, if that was nearly as good.

    Args:
        weight: In floats, [outputs..., inputs...].
        rounded: On the grid of its scales, of the same shape; see `gptq`.
        numerics: How it is rounded.
        scale: The scales, [outputs..., groups].

    Returns:
        Like `weight`; rounded with the same scales, it is `rounded`.
    """
    _, held = quantized_levels(rounded, numerics, scale)
    rows = rounded.float().reshape(held.numel(), -1)
    reach = held.reshape(-1, 1).float() * _REACH
    apart = (weight.detach().float().reshape(rows.shape) - rows).clamp_(-reach, reach)
    return (rows + apart).view(weight.shape).to(weight.dtype)


def _factor(gram: torch.Tensor, damping: float) -> torch.Tensor:
    """The upper Cholesky factor of the inverse of damped moments, float64."""
    square = gram.double().clone()
    square.diagonal().add_(damping * float(square.diagonal().mean()) + 1e-12)
    lower, failed = torch.linalg.cholesky_ex(square)
    if int(failed):
        raise TrainingError("GPTQ: the moments of calibration text are not finite, or of too few directions.")
    return torch.linalg.cholesky(torch.cholesky_inverse(lower), upper=True)
