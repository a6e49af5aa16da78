"""The stage `distil`: the model learns a teacher's next-token distributions, the backbone's by default (healing)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rankitect.recipes.earlier import FLOAT
from rankitect.recipes.text import TextStage
from rankitect.training.placement import placement
from rankitect.training.settings import DistilConfig

if TYPE_CHECKING:
    from torch import nn

    from rankitect.contracts.stage import StageContext
    from rankitect.recipes.text import TextTask
    from rankitect.training.text import TextObjective

__all__ = ["Distil"]


class Distil(TextStage):
    """Logit distillation: from the backbone, the same for every candidate, or from the model as it was earlier."""

    Config = DistilConfig
    has_teacher = True
    config: DistilConfig

    def __init__(self, config: DistilConfig, task: TextTask) -> None:
        super().__init__(config, task)
        self.needs_backbone = config.teacher == "backbone"

    @property
    def earlier(self) -> str | None:
        """The stage whose model is the teacher."""
        return None if self.needs_backbone else self.config.teacher

    @property
    def targets_are_of_all_tokens(self) -> bool:
        """As for all, unless only the model itself is the teacher, whose head is cut as well."""
        return self.needs_backbone or self.config.teacher != FLOAT or self.config.ce_weight > 0

    def _objective(self, split: str) -> TextObjective[Any]:
        return self._task.distillation(self.config, split)

    def run(self, model: nn.Module, context: StageContext) -> nn.Module:
        """Train the model in place. The backbone itself, as a recipe begins with it, is what others aim at."""
        if self.needs_backbone and context.position == 0 and context.architecture == self._task.reference:
            return model
        return self._train(model, context, self._lesson(context))

    def _lesson(self, context: StageContext) -> TextObjective[Any]:
        """Batches and loss, from the teacher that the recipe has for this stage."""
        if context.earlier is None:
            return self.objective()
        return self._task.distillation(self.config, teacher=placement().place(context.earlier))
