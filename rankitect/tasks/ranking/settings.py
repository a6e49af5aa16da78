"""How rankers are trained, as a configuration says it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from rankitect.training.settings import Betas, Clip, LearningRate, OptimizerConfig, Schedule, WeightDecay

if TYPE_CHECKING:
    from rankitect.training.embeddings import TableConfig

__all__ = ["OptimizerSettings", "TableSettings"]


class OptimizerSettings(OptimizerConfig):
    """Keys of `task.optimizer`: those of every optimiser, with defaults for rankers."""

    lr: LearningRate = 1e-3
    schedule: Schedule = "constant"
    betas: Betas = (0.9, 0.999)
    weight_decay: WeightDecay = 0.0
    clip: Clip = 10.0


class TableSettings(BaseModel):
    """Keys of `task.tables`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backend: Literal["auto", "torchrec", "torch"] = Field(
        default="auto", description="who holds the tables; auto: torchrec where it is installed and can"
    )
    optimizer: Literal["sgd", "adagrad", "rowwise_adagrad", "adam", "dense"] = Field(
        default="adagrad", description="of the rows of a batch; dense: tables are trained as all other weights"
    )
    lr: float = Field(default=0.02, gt=0, description="peak learning rate; follows the schedule of task.optimizer")
    eps: float = Field(default=1e-8, gt=0, description="denominator floor")

    def settings(self) -> TableConfig | None:
        """The same for `rankitect.training` (which imports torch); None for dense."""
        from rankitect.training.embeddings import TableConfig

        if self.optimizer == "dense":
            return None
        return TableConfig(self.backend, self.optimizer, self.lr, self.eps)
