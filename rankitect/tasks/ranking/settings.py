"""How rankers are trained, as a configuration says it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from rankitect.training.embeddings import TableConfig
    from rankitect.training.optimizer import OptimizerConfig

__all__ = ["OptimizerSettings", "TableSettings"]


class OptimizerSettings(BaseModel):
    """Keys of `task.optimizer`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["adamw", "adagrad", "sgd"] = Field(default="adamw", description="the optimiser")
    lr: float = Field(default=1e-3, gt=0, description="peak learning rate")
    schedule: Literal["linear", "cosine", "constant"] = Field(default="constant", description="after warm-up")
    warmup: int = Field(default=0, ge=0, description="steps over which the learning rate rises")
    final_lr: float = Field(
        default=0.0, ge=0, le=1, description="share of the learning rate at the end of the schedule"
    )
    betas: tuple[float, float] = Field(default=(0.9, 0.999), description="AdamW's averaging")
    eps: float = Field(default=1e-8, gt=0, description="denominator floor of AdamW and Adagrad")
    weight_decay: float = Field(default=0.0, ge=0, description="of matrices and tables")
    clip: float | None = Field(default=10.0, gt=0, description="largest gradient norm; null does not clip")

    def settings(self) -> OptimizerConfig:
        """The same for `rankitect.training` (which imports torch)."""
        from rankitect.training.optimizer import OptimizerConfig

        return OptimizerConfig(**self.model_dump())


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
