"""Training FLOPs, by one formula from the graph's cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rankitect.graph import Architecture, SearchSpace

__all__ = ["training_flops"]

BACKWARD = 2
"""FLOPs of a backward pass, in forward passes: one product for the inputs' gradient and one for the weights'."""


def training_flops(
    space: SearchSpace, architecture: Architecture, tokens: int, context: int, teacher: Architecture | None = None
) -> int:
    """FLOPs of training an architecture on windows of text.

    (1 + 2) · F(architecture) · windows, and F(teacher) · windows more where a teacher runs beside it, where F is the
    cost `flops` of one window of `context` tokens, read from the graph.

    Args:
        space: Of the architectures.
        architecture: What is trained.
        tokens: Training tokens.
        context: Tokens of a window.
        teacher: What only runs forward.
    """
    flops = space.cost(architecture, "flops", B=1, T=context, P=0) * (1 + BACKWARD)
    if teacher is not None:
        flops += space.cost(teacher, "flops", B=1, T=context, P=0)
    return int(flops) * tokens // context
