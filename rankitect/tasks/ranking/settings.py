"""How rankers are trained, as a configuration says it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from rankitect.config.bindings import ByArchitecture
from rankitect.data.ranking.schema import DataSettings
from rankitect.training.settings import Betas, Clip, LearningRate, OptimizerConfig, Schedule, WeightDecay

if TYPE_CHECKING:
    from rankitect.training.embeddings import TableConfig

__all__ = ["OptimizerSettings", "RankingConfig", "TableSettings"]


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


class RankingConfig(BaseModel):
    """The click log, how rankers are trained on it, and the known ones that candidates are compared with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: DataSettings = Field(DataSettings(), description="what is read, and how")
    batch: Annotated[int, ByArchitecture()] = Field(1024, ge=1, le=2**24, description="rows of a training step")
    epochs: Annotated[float, ByArchitecture()] = Field(15.0, gt=0, description="passes over the training rows, at most")
    one_pass: bool = Field(
        False, description="one pass in the rows' own order with progressive validation, as in online training"
    )
    refit: bool = Field(
        True,
        description="before the test, train once more on training and validation rows, as long as was best "
        "(not with one_pass)",
    )
    evaluate_every: Annotated[float, ByArchitecture()] = Field(
        0.5, gt=0, description="epochs between looks at the validation split"
    )
    patience: Annotated[int, ByArchitecture()] = Field(
        3, ge=1, le=10**6, description="looks in a row without improvement before training stops"
    )
    optimizer: Annotated[OptimizerSettings, ByArchitecture()] = Field(
        OptimizerSettings(), description="of all weights but tables"
    )
    tables: Annotated[TableSettings, ByArchitecture()] = Field(
        TableSettings(), description="how embedding tables are held and trained"
    )
    shared_epochs: float = Field(10.0, gt=0, description="length of the training of shared weights in a search")
    shared_batch: int = Field(512, ge=1, le=2**24, description="rows of a step of it")
    shared_lr: float = Field(3e-3, gt=0, description="its peak learning rate")
    # At the rate of a single model shared tables hardly move: every step is for another architecture.
    shared_table_lr: float = Field(0.2, gt=0, description="its peak learning rate of embedding tables")
    # Inherited weights tell architectures apart the better, the more often each operator was trained and the less
    # the tables know by heart: τ with training in full is 0.25, and -0.11 at 512 and 0.2 as above (40 rankers of
    # ranking_blocks; rankitect.compare --correlation).
    screened_batch: int = Field(
        128, ge=1, le=2**24, description="rows of a step where the weights then screen candidates"
    )
    screened_table_lr: float = Field(0.05, gt=0, description="peak learning rate of embedding tables there")
    search_rows: int | None = Field(
        None, ge=1, le=10**12, description="validation rows for screening, a fixed sample; null for all"
    )
    short_epochs: float = Field(
        1.0, gt=0, description="epochs by which candidates are screened where no search has trained shared weights"
    )
    zoo: str | None = Field(
        None, description="dotted path of a function (name, features, **sizes) that makes known rankers"
    )
    models: dict[str, dict[str, Any]] = Field(
        default={name: {} for name in ("lr", "wide_deep", "deepfm", "dlrm", "dcnv2", "autoint", "finalmlp")},
        description="known rankers with their sizes and, under `optimizer` and `tables`, their own training",
    )
    model: str | None = Field(
        None, description="the one whose settings are searched where the space has no graph of its own"
    )
    baselines: list[str] | None = Field(None, description="which of them to compare with; null for all")
    reference: str | None = Field(
        "dlrm",
        description="the one that constraints are relative to where no production model is named or registered; null: "
        "the space's largest architecture",
    )
