"""Training of one architecture from scratch, on any task."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rankitect.contracts import Spent, Task, TrialContext
    from rankitect.graph import Architecture, SearchSpace
    from rankitect.models.supernet import Standalone
    from rankitect.training.settings import OptimizerConfig

__all__ = ["train_alone"]


def train_alone(
    task: Task,
    space: SearchSpace,
    architecture: Architecture,
    steps: int,
    optimizer: OptimizerConfig,
    context: TrialContext,
) -> tuple[Standalone, Spent]:
    """Train a fresh model on a task's training batches, for a number of steps.

    Args:
        task: Gives batches and loss.
        space: The space of the architecture.
        architecture: What is trained.
        steps: How long.
        optimizer: Learning rate, schedule, clipping.
        context: Of the measurement that it is for; its seed decides the initial weights.

    Returns:
        The model in evaluation mode, and what its training cost.

    Raises:
        StopRequested: The user asked to stop.
        TrainingError: The loss stays not finite.
    """
    from rankitect.models.supernet import build
    from rankitect.training.loop import TrainConfig, train
    from rankitect.training.spending import training_spent

    used = 0

    def size(batch: object) -> int:
        nonlocal used
        amount = len(batch)  # type: ignore[arg-type]  # what the contract of `Task.batch_at` promises
        used += amount
        context.spent = training_spent(task, task.unit, space, architecture, used)
        return amount

    model = build(space, architecture, context.seed)
    result = train(
        model,
        task.loss,
        lambda step: task.batch_at("train", step),
        TrainConfig(steps=steps, optimizer=optimizer, seed=context.seed),
        size=size,
        progress=lambda done, total, report: context.progress(done, total, f"loss {report.loss:.4f}"),
        should_stop=context.should_stop,
    )
    context.check()
    return model, training_spent(task, task.unit, space, architecture, result.tokens)
