"""What the architectures of a step learn together: losses with weights, in-place distillation, whose update it is.

The sandwich rule with in-place distillation is that of Universally Slimmable Networks (Yu & Huang, arXiv 1903.05134);
a weight per architecture and step, and distillation alone for all but the largest, that of delayed epsilon-shrinking
(arXiv 2407.06167).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn

    from rankitect.graph import Architecture
    from rankitect.models.supernet import Supernet
    from rankitect.training.optimizer import GuardedOptimizer

__all__ = ["Learned", "Lesson", "likeness", "share_of_update", "taught"]

_SCALES = {"adamw": "exp_avg_sq", "adagrad": "sum"}
"""By optimiser, the moment whose root its steps are divided by."""


@dataclass(frozen=True)
class Lesson:
    """What the architectures of a step learn, all on the same batch.

    Attributes:
        architectures: The largest first, where it is to teach the others.
        weights: What their losses are multiplied with before they are added; None takes the mean.
        distil: Weight of the distance from the first's outputs in the loss of all others, in [0, 1]; the rest is the
            task's own loss.
        temperature: Of both distributions in that distance.
    """

    architectures: Sequence[Architecture]
    weights: Sequence[float] | None = None
    distil: float = 0.0
    temperature: float = 1.0


@dataclass(frozen=True)
class Learned:
    """The part of one architecture in a lesson.

    Attributes:
        loss: The task's own loss before the step.
        amount: How much data it is the mean of.
        term: What is added to the total that is minimised.
    """

    loss: float
    amount: int
    term: torch.Tensor


def taught(
    lesson: Lesson, supernet: Supernet, loss: Callable[[nn.Module, int], tuple[torch.Tensor, int]], step: int
) -> list[Learned]:
    """The losses of a lesson, with gradients.

    Args:
        lesson: Who learns what.
        supernet: Whose weights.
        loss: From a model and a step to the loss on the step's batch, and how much data that was.
        step: The step.
    """
    learned: list[Learned] = []
    teacher: torch.Tensor | None = None
    for place, architecture in enumerate(lesson.architectures):
        # The task's loss hides the outputs that distillation compares; a hook on the model records them.
        outputs: list[torch.Tensor] = []
        model = supernet.activate(architecture)
        model.register_forward_hook(lambda module, inputs, output, outputs=outputs: outputs.append(output))
        own, amount = loss(model, step)
        value, term = float(own.detach()), own
        if teacher is not None and lesson.distil:
            distance = likeness(outputs[-1], teacher, lesson.temperature)
            term = distance if lesson.distil == 1 else (1 - lesson.distil) * own + lesson.distil * distance
        elif lesson.distil:
            teacher = outputs[-1].detach()
        if lesson.weights is None:
            term = term / len(lesson.architectures)
        elif lesson.weights[place] != 1:
            term = lesson.weights[place] * term
        learned.append(Learned(value, amount, term))
    return learned


def likeness(logits: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """Cross-entropy of a model's outputs with those of a teacher, nats: of a click where there is one output a row,
    of the next token or the class where there are many.

    Both distributions are softened by a temperature T, and the result is multiplied by its square, so that gradients
    are as large as without (Hinton et al., arXiv 1503.02531).

    Args:
        logits: [..., 1] or [..., V].
        teacher: The same shape; no gradient goes to it.
        temperature: T.
    """
    import torch.nn.functional as F

    teacher = teacher.detach()
    if temperature != 1:
        logits, teacher = logits / temperature, teacher / temperature
    if logits.shape[-1] == 1:
        value = F.binary_cross_entropy_with_logits(logits, teacher.sigmoid())
    else:
        value = F.cross_entropy(logits.flatten(0, -2), teacher.flatten(0, -2).softmax(-1))
    return value if temperature == 1 else temperature**2 * value


def share_of_update(optimizer: GuardedOptimizer, first: Mapping[str, torch.Tensor]) -> float:
    """How much of what a step adds to an update comes from all architectures but the first, in [0, 1].

    It is |P g'| / (|P g| + |P g'|), where g is the gradient of the first architecture's term, g' that of the others'
    together, and P what the optimiser divides each parameter's gradient by: nothing for SGD, the root of the running
    second moment for AdamW and Adagrad. A weight of a loss scales g', which scales the update for SGD alone; this
    number says what they come to. Embedding tables with a storage of their own do not count.

    Args:
        optimizer: Before the step, with all gradients.
        first: Those of the first architecture, by parameter.

    Returns:
        The share; not a number where there is no gradient at all.
    """
    moment, state = _SCALES.get(optimizer.config.kind), optimizer.state()
    squares = [0.0, 0.0]
    for name, parameter in optimizer.parameters.items():
        if parameter.grad is None:
            continue
        own = first.get(name)
        scale = None if moment is None else state.get(f"{moment}/{name}")
        for place, grad in enumerate((own, parameter.grad if own is None else parameter.grad - own)):
            if grad is not None:
                scaled = grad if scale is None else grad / (scale.sqrt() + optimizer.config.eps)
                squares[place] += float(scaled.square().sum())
    norms = [math.sqrt(square) for square in squares]
    return norms[1] / sum(norms) if sum(norms) else math.nan
