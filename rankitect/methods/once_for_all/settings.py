"""Keys of once-for-all training."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from rankitect.config.quantities import Bounds
from rankitect.methods.calibrated import EXAMPLES
from rankitect.methods.supernet_search import SharedWeightsConfig
from rankitect.training.settings import (
    Betas,
    Momentum,
    Nesterov,
    OptimizerConfig,
    Schedule,
    Warmup,
    WeightDecay,
)

__all__ = ["Budgets", "Kind", "OnceForAllConfig", "SharedOptimizer"]

Kind: TypeAlias = Literal["deps", "sandwich", "progressive", "late"]
Budget = Annotated[dict[str, Bounds], Field(min_length=1)]
Budgets: TypeAlias = Annotated[int, Field(ge=1, le=100)] | Annotated[list[Budget], Field(min_length=1, max_length=1000)]


class SharedOptimizer(BaseModel):
    """How shared weights are trained; the peak rate is `controller.weight_lr`. What is null is the task's.

    Adding a weighted gradient of another architecture scales that architecture's learning rate exactly for SGD without
    clipping, and roughly for AdamW. The rate falls further than where networks are trained again once they are chosen:
    these are taken as they are.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: Literal["adamw", "sgd"] | None = Field(default=None, description="the optimiser; null: the task's")
    schedule: Schedule = "cosine"
    warmup: Warmup | None = Field(default=None, description="steps over which the learning rate rises; null: the usual")
    final_lr: float = Field(default=0.01, ge=0, le=1, description="share of the learning rate at the end")
    momentum: Momentum | None = Field(default=None, description="of SGD; null: the usual, 0.9")
    nesterov: Nesterov | None = Field(default=None, description="whether SGD looks ahead along its momentum; null: yes")
    betas: Betas | None = Field(default=None, description="AdamW's averaging; null: the usual")
    weight_decay: WeightDecay | None = Field(
        default=None, description="of matrices, never of norms and biases; null: 3e-5 for SGD, 0 for AdamW"
    )
    clip: Annotated[
        Annotated[float, Field(gt=0)] | Literal["usual"] | None,
        Field(description="largest gradient norm; usual: 1 for AdamW, none for SGD; null does not clip"),
    ] = "usual"

    def config(self, usual: OptimizerConfig, steps: int) -> OptimizerConfig:
        """The optimiser.

        Args:
            usual: What shared weights are trained with by this kind of optimiser (`usual_optimizer`).
            steps: Of the first segment of the schedule, which the warm-up must fit into.
        """
        own = self.model_dump(include={"betas", "weight_decay"}, exclude_none=True)
        if usual.kind == "sgd":
            own |= self.model_dump(include={"momentum", "nesterov"}, exclude_none=True)
        if self.clip != "usual":
            own["clip"] = self.clip
        warmup = min(usual.warmup if self.warmup is None else self.warmup, steps)
        fall = {"schedule": self.schedule, "final_lr": self.final_lr, "warmup": warmup}
        return usual.model_copy(update={**own, **fall})


class OnceForAllConfig(SharedWeightsConfig):
    """Keys of `controller`."""

    share: float = Field(0.8, gt=0, le=1, description="of a limited budget, what the training may use")
    schedule: Kind = Field(
        "deps",
        description="deps: the largest alone, then all with a rising rate; sandwich: all from the start; progressive: "
        "the largest alone, then one kind of choice after another; late: the largest to its end, then all",
    )
    delay: float | None = Field(
        None,
        ge=0,
        le=1,
        description="share of the steps that train the largest alone; null: 0.5, or 0 where weights are pretrained",
    )
    ramp: float = Field(
        0.02, ge=0, le=1, description="share of the steps over which the rate of the others rises (deps)"
    )
    weight: float = Field(1.0, ge=0, description="of the loss of each of the others after that")
    nets: int = Field(4, ge=2, le=1000, description="architectures of a step: largest, smallest, and random ones")
    distil: float | None = Field(
        None,
        ge=0,
        le=1,
        description="share of the loss by which the largest teaches the others; null: 1, 0.5 in progressive, 0 where a "
        "backbone teaches all",
    )
    temperature: float = Field(1.0, gt=0, le=1000, description="of the distributions that it teaches")
    restart: float = Field(
        0.3, gt=0, le=1, description="share of the peak rate at which later phases begin (progressive, late)"
    )
    phases: list[list[str]] | None = Field(
        None,
        description="choices by the last word of their names, in the order in which progressive opens them; null: what "
        "is inside of blocks, then depth, then width",
    )
    sort: bool = Field(True, description="order hidden units by importance before the others come in")
    optimizer: SharedOptimizer = Field(SharedOptimizer(), description="how shared weights are trained")
    spike: float | None = Field(
        0.5,
        gt=0,
        description="share of what the largest has learnt whose loss sends training back, at a lower rate; null: never",
    )
    setbacks: int = Field(3, ge=0, le=100, description="how often it may go back")
    budgets: Budgets = Field(
        5,
        description="what networks are specialised for: a list of bounds by cost, such as [{flops: 0..1e6}]; a number "
        "stands for so many bounds of the main cost, evenly apart",
    )

    statistics: int = Field(
        EXAMPLES,
        ge=1,
        le=10**9,
        description="examples that running statistics of a network are taken from, where it has any",
    )
    finetune: bool = Field(
        False, description="train each network further, as the recipe says, before it is measured in full"
    )
