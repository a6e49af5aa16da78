"""The losses that a search trains shared weights on and chooses architectures by: those of the recipe."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rankitect.contracts import offers
from rankitect.contracts.stage import HasObjective
from rankitect.training.placement import placement

if TYPE_CHECKING:
    import torch
    from torch import nn

    from rankitect.config.parts import Parts
    from rankitect.contracts import Spent
    from rankitect.graph import Architecture, SearchSpace
    from rankitect.recipes.text import TextTask
    from rankitect.tasks.language.pretrained import Pretrained
    from rankitect.training.text import TextObjective

__all__ = ["SEARCH_ORDER", "Searching", "expected_rises"]

SEARCH_ORDER = 1_000_003
"""Added to the seed for the order of training text during a search: the recipe sees it in another order."""


class Searching:
    """The objective of the recipe's first stage that has one, so that a search and the training of what it finds agree;
    that of healing where there is no such stage.

    Args:
        task: Gives the text and, for a distillation, the teacher.
        pretrained: The backbone.
        parts: The study's; the recipe is made after the task.
    """

    def __init__(self, task: TextTask, pretrained: Pretrained, parts: Parts) -> None:
        self._task, self._pretrained, self._parts = task, pretrained, parts

    @cached_property
    def _stage(self) -> HasObjective:
        from rankitect.recipes.distil import Distil

        with_objective = (stage for stage in self._parts.stages.values() if offers(stage, HasObjective))
        return next(with_objective, None) or Distil(Distil.Config(), self._task)

    def objective(self, split: str) -> TextObjective[Any]:
        """Batches and loss on a split."""
        objective: TextObjective[Any] = self._stage.objective(split)
        return objective

    def search_loss(self, forward: Callable[[torch.Tensor], torch.Tensor], step: int) -> tuple[torch.Tensor, int]:
        """The loss on the search split's batch of a step, and its tokens."""
        objective = self.objective("search")
        batch = objective.batch_at(step)
        return objective.loss(forward, batch), len(batch)

    def train_loss(self, model: nn.Module, step: int) -> tuple[torch.Tensor, int]:
        """The loss on the training batch of a step, and its tokens."""
        objective = self.objective("train")
        batch = objective.batch_at(step, self._parts.config.seed + SEARCH_ORDER)
        return objective.loss(model, batch), len(batch)

    def training_spent(self, space: SearchSpace, architecture: Architecture, amount: int) -> Spent:
        """What training an architecture on so many tokens costs, as the stage itself is charged for it."""
        return self._stage.training_spent(space, architecture, amount)

    def measured_loss(self, architecture: Architecture) -> float:
        """The loss of a pruned version of the backbone, nats a token, always on the same batch of training text."""
        import torch

        objective = self.objective("train")
        with torch.inference_mode(), placement().computing():
            model = self._pretrained.backbone.supernet.activate(architecture)
            return float(objective.loss(model, objective.batch_at(0)))


def expected_rises(
    pretrained: Pretrained,
    searching: Searching,
    space: SearchSpace,
    check: Callable[[], None],
    progress: Callable[[int, int, str], None],
) -> tuple[dict[str, torch.Tensor], Spent]:
    """How much the loss is expected to rise at each value of each choice of the backbone, with all else kept.

    Second-order estimates for the sizes of layers; for choices of bits the measured divergence from the backbone;
    measured on a batch of training text for the others.

    Args:
        pretrained: The backbone, and what was measured of it.
        searching: Measures losses.
        space: The space.
        check: Called between measurements; raises to stop.
        progress: Called with (done, total, note) as measurements end.

    Returns:
        Nats a token by choice, and what measuring cost.
    """
    import torch

    from rankitect.contracts import Spent
    from rankitect.models.backbone import largest
    from rankitect.tasks.language.bits_prior import bit_choices
    from rankitect.tasks.language.prior import second_order

    rises, spent = second_order(pretrained.backbone, pretrained.statistics), Spent()
    if bit_choices(space):
        divergences = pretrained.bit_divergences(check, progress)
        rises |= {path: torch.tensor(values) for path, values in divergences.items()}
        spent += pretrained.divergences_spent
    others = [path for path, choice in space.choices.items() if path not in rises and len(choice.values) > 1]
    if not rises or not others:
        return rises, spent
    backbone = largest(space)
    changed = {
        (path, value): space.architecture({**backbone.choices, path: value})
        for path in others
        for value in space.choices[path].values
        if value != backbone[path]
    }
    # In a distillation the backbone's own loss is 0 but for the sampled tail of the teacher's distribution.
    own, losses = searching.measured_loss(backbone), {}
    for done, (key, architecture) in enumerate(changed.items()):
        check()
        progress(done, len(changed), f"what {key[0]}={key[1]} costs")
        losses[key] = searching.measured_loss(architecture)
    for path in others:
        rises[path] = torch.tensor([losses.get((path, value), own) for value in space.choices[path].values]) - own
    # All see the same batch, which a teacher sees once. Nothing is trained: there are no such FLOPs.
    batch = len(searching.objective("train").batch_at(0))
    teacher = searching.training_spent(space, backbone, batch).teacher_tokens
    return rises, spent + Spent(eval_tokens=(1 + len(changed)) * batch, teacher_tokens=teacher)
