"""Keys of `task` for images."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rankitect.data.images.augmentation import Augmentation
from rankitect.data.images.settings import ImageSettings

__all__ = ["VisionConfig"]


class VisionConfig(ImageSettings):
    """The images, and how models are trained on them and judged by them."""

    batch: int = Field(default=128, ge=1, le=2**20, description="images of a training step")
    augment: Augmentation | None = Field(
        default=Augmentation(), description="random changes of training images; null: none"
    )
    label_smoothing: float = Field(
        default=0.1, ge=0, lt=1, description="share of each training target that all classes get alike"
    )
    search_images: int | None = Field(
        default=None, ge=1, le=10**9, description="validation images for screening, a fixed sample; null: all"
    )
    test_images: int | None = Field(
        default=None, ge=1, le=10**9, description="images of the test split, a fixed sample; null: all"
    )
    uniform: list[Annotated[float, Field(gt=0, lt=1)]] = Field(
        default=[0.5],
        max_length=20,
        description="networks to compare with beside the largest: every size scaled alike, to shares of its FLOPs",
    )
    shared_epochs: float = Field(
        default=10.0, gt=0, le=10**6, description="length of the training of shared weights in a search"
    )
    shared_optimizer: Literal["sgd", "adamw"] = Field(
        default="sgd", description="its optimiser: SGD with Nesterov momentum, or AdamW"
    )
    shared_lr: float | None = Field(
        default=None, gt=0, le=10, description="its peak learning rate; null: 0.05 of SGD, 0.002 of AdamW"
    )
