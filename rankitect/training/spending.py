"""What training costs, by one formula from the graph's cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rankitect.contracts import Spent, offers
from rankitect.contracts.task import ChargesTraining

if TYPE_CHECKING:
    from rankitect.contracts import Unit
    from rankitect.graph import Architecture, SearchSpace

__all__ = ["training_flops", "training_spent"]

BACKWARD = 2
"""FLOPs of a backward pass, in forward passes: one product for the inputs' gradient and one for the weights'."""


def training_flops(forward: float, amount: int, size: int = 1, teacher: float = 0.0) -> int:
    """FLOPs of training a model on an amount of data: (1 + 2) F(model) + F(teacher) for each forward pass.

    Args:
        forward: FLOPs F of a forward pass of the model.
        amount: Examples or tokens that it is trained on.
        size: Examples or tokens of one forward pass: 1, or the tokens of a window.
        teacher: FLOPs of a forward pass of a teacher that runs beside it; 0 where there is none.
    """
    return int(forward * (1 + BACKWARD) + teacher) * amount // size


def training_spent(task: object, unit: Unit, space: SearchSpace, architecture: Architecture, amount: int) -> Spent:
    """What training an architecture on an amount of a task's data costs: the data, a teacher's tokens, and FLOPs.

    Every training outside of a recipe's stages is charged through this function. A task that does not tell
    (`ChargesTraining`) is charged for the graph's FLOPs of one example.

    Args:
        task: The task.
        unit: What its data are counted in.
        space: The space of the architecture.
        architecture: What is trained.
        amount: Examples or tokens.
    """
    if offers(task, ChargesTraining):
        return task.training_spent(space, architecture, amount)
    flops = training_flops(space.cost(architecture, "flops"), amount)
    return Spent.training(amount, unit) + Spent(train_flops=flops)
