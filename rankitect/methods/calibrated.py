"""Running statistics of an architecture with inherited weights, taken before it is measured.

Shared weights are trained in many architectures, whose running statistics are a mixture that is right for none
(`rankitect.models.statistics`). Where a space has no such weights, nothing is done and nothing is charged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rankitect.contracts import Calibrates, Spent, require

if TYPE_CHECKING:
    from rankitect.contracts import Unit
    from rankitect.models.supernet import PlannedModel

__all__ = ["EXAMPLES", "calibrated", "require_calibration"]

EXAMPLES = 1024
"""From how many examples statistics are taken where nobody says."""


def require_calibration(task: object, space: object, who: str) -> None:
    """Refuse a task that gives no examples for statistics which the models of a space need.

    Args:
        task: The task.
        space: What is searched.
        who: Who needs them, for the message.

    Raises:
        ConfigError: It gives none, and the space has running statistics.
    """
    from rankitect.graph import SearchSpace
    from rankitect.models.statistics import has_statistics

    if isinstance(space, SearchSpace) and has_statistics(space):
        require(task, Calibrates, f"{who}, as the space has running statistics (batch normalisation),")


def calibrated(
    model: PlannedModel, task: object, unit: Unit, examples: int, check: Callable[[], None] | None = None
) -> Spent:
    """Give a model statistics of its own, where it has any.

    Args:
        model: Of shared weights, which stay as they are, or a model of its own.
        task: Gives the examples (`Calibrates`).
        unit: What its data are counted in.
        examples: How many at least; 0 leaves the model as it is.
        check: Called before every batch; may raise, to stop.

    Returns:
        What the forward passes cost.

    Raises:
        ConfigError: The task gives no examples.
    """
    if not examples or not model.plan.untrained():
        return Spent()
    from rankitect.models.statistics import recalibrate
    from rankitect.training.placement import placement

    batches = require(task, Calibrates, "statistics of an architecture").calibration_batches(examples)
    with placement().computing():
        return Spent.evaluation(recalibrate(model, batches, check), unit)
