"""The stage `qat`: quantization-aware training. The model is trained as it is rounded, and learns from its own self
before it was (self-distillation, arXiv 2511.06719)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from rankitect.recipes.distil import Distil
from rankitect.training.settings import DistilConfig, LearningRate

if TYPE_CHECKING:
    from torch import nn

    from rankitect.contracts.stage import StageContext
    from rankitect.graph import SearchSpace

__all__ = ["Qat", "QatConfig"]


class QatConfig(DistilConfig):
    """Quantization-aware training.

    Attributes:
        teacher: "float" for the model before it was quantized, "backbone", or a stage of the recipe.
        ranges: Of weights: "minmax" follow the weights as they are trained; "fixed" stay as the stage found them;
            "learned" are trained, too (LSQ).
        range_lr: Learning rate of ranges, as a share of a scale's own size a step.
        lr: Learning rate of weights. A quarter of what healing takes: a quantized model is near to its teacher, and
            steps as large as those of healing lose more than there is to win back.
    """

    teacher: str = Field(default="float", description="whose distributions: float, backbone, or a stage before")
    ranges: Literal["minmax", "fixed", "learned"] = Field(default="learned", description="of weights, while training")
    range_lr: float = Field(default=0.0005, gt=0, le=1, description="of learned ranges, a share of each a step")
    lr: Annotated[LearningRate, Field(le=1)] = 5e-5


class Qat(Distil):
    """Trains a model that computes in few bits; a stage before it (`quantize`) says in how many."""

    Config = QatConfig
    config: QatConfig

    def space_after(self, space: SearchSpace) -> SearchSpace:
        """The space with the ranges that are trained.

        Raises:
            ConfigError: Nothing in it is quantized, or its head does not score what the loss asks for.
        """
        from rankitect.quantization.spaces import with_ranges

        self._require_scores(space)
        return with_ranges(space, "minmax" if self.config.ranges == "minmax" else "stored")

    def run(self, model: Any, context: StageContext) -> nn.Module:
        """Give a trained model, whose ranges are as the configuration says."""
        from rankitect.quantization.weights import scales_of, with_numerics_of

        space = self.space_after(context.require_space("trained in few bits"))
        model = with_numerics_of(space, context.architecture, model)
        scales = scales_of(model)
        for scale in scales.values():
            scale.requires_grad_(self.config.ranges == "learned")
        # A scale moves by a share of itself, however large weights are.
        rates = {
            name: self.config.range_lr / self.config.lr * float(scale.detach().mean()) for name, scale in scales.items()
        }
        context.space = space
        self._train(model, context, self._lesson(context), rates)
        return model.requires_grad_(True)
