"""Rotations that are learned on activations alone, in seconds: the ranges that are rounded become small.

The error of rounding a vector to b bits is about range^2 / (12 (2^b - 1)^2) in each of its numbers, in whatever basis.
The local objective is the sum of these, each times how much the loss depends on that vector's error, which is the same
in every basis and is gathered once (`activations`). No model is run while the rotation is learned.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from rankitect.quantization.activations import Rows
from rankitect.quantization.cayley import CayleySGD

__all__ = ["learn_local", "local_loss"]


def local_loss(rows: Rows, rotation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The weighted sum of squared ranges, and its gradient by the rotation [n, n].

    The gradient has two numbers of each vector only, the largest and the smallest, so that it costs next to nothing.
    """
    turned = (rows.vectors @ rotation).flatten(1)
    high, low = turned.max(-1), turned.min(-1)
    ranges = high.values.clamp_min(0) - low.values.clamp_max(0)  # zero is among the levels
    loss = (rows.weights * ranges.square()).sum()
    n, pull = rotation.shape[0], 2 * rows.weights * ranges
    slope, at = torch.zeros_like(rotation), torch.arange(len(turned))
    for extreme, sign in ((high, 1.0), (low, -1.0)):
        picked = rows.vectors[at, extreme.indices // n] * (sign * pull)[:, None]
        slope.index_add_(1, extreme.indices % n, picked.T.contiguous())
    return loss, slope


def learn_local(
    rows: Sequence[Rows],
    start: torch.Tensor,
    *,
    steps: int,
    seed: int,
    length: float = 0.15,
    batch: int = 5400,
    check: Callable[[], None] = lambda: None,
) -> torch.Tensor:
    """A rotation under which ranges are small.

    Args:
        rows: What is rounded in the basis.
        start: Where to begin, [n, n] float64.
        steps: Steps of descent, whose length falls to 0 (cosine).
        seed: Of the draw of vectors.
        length: Of the first step; see `CayleySGD`.
        batch: Vectors of a step.
        check: Called between steps; raises to stop.
    """
    generator, total = torch.Generator().manual_seed(seed), sum(len(r.weights) for r in rows)
    descent = CayleySGD(start.float())
    for step in range(steps):
        check()
        slope = torch.zeros_like(descent.rotation)
        for part in rows:
            count = max(1, round(batch * len(part.weights) / total))
            if count < len(part.weights):
                chosen = torch.randint(0, len(part.weights), (count,), generator=generator)
                part = Rows(part.vectors[chosen], part.weights[chosen] * (len(part.weights) / count))
            slope += local_loss(part, descent.rotation)[1]
        descent.step(slope, length * 0.5 * (1 + math.cos(math.pi * step / steps)))
    return descent.rotation.double()
