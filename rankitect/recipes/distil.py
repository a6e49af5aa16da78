"""The stage `distil`: the model learns the backbone's next-token distributions. Healing is what its defaults do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rankitect.recipes.text import TextStage
from rankitect.training.settings import DistilConfig

if TYPE_CHECKING:
    from torch import nn

    from rankitect.contracts.stage import StageContext
    from rankitect.training.text import TextObjective

__all__ = ["Distil"]


class Distil(TextStage):
    """Logit distillation from the backbone, the same for every candidate."""

    Config = DistilConfig
    needs_backbone = True
    config: DistilConfig

    def _objective(self, split: str) -> TextObjective[Any]:
        return self._task.distillation(self.config, split)

    def run(self, model: nn.Module, context: StageContext) -> nn.Module:
        """Train the model in place. The backbone itself, as a recipe begins with it, is what others aim at."""
        if context.position == 0 and context.architecture == self._task.reference:
            return model
        return super().run(model, context)
