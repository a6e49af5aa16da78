"""The stage `train`: next-token prediction on the task's text (cross-entropy), from whatever weights it is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rankitect.recipes.text import TextStage
from rankitect.training.settings import Betas, LearningRate, Schedule, TextTraining, Warmup, WeightDecay

if TYPE_CHECKING:
    from rankitect.training.text import TextObjective

__all__ = ["Train"]


class Train(TextStage):
    """Training with cross-entropy."""

    class Config(TextTraining):
        """Keys of a stage `train`."""

        lr: LearningRate = 1e-3
        schedule: Schedule = "cosine"
        warmup: Warmup = 20
        betas: Betas = (0.9, 0.95)
        weight_decay: WeightDecay = 0.1

    def _objective(self, split: str) -> TextObjective[Any]:
        return self._task.next_token(self.config, split)
