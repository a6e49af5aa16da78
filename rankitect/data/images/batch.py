"""A batch of images as a model reads them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["ImageBatch"]


@dataclass(frozen=True)
class ImageBatch:
    """Normalised images with their classes.

    Attributes:
        images: [B, C, H, W] float32.
        labels: Numbers of the classes, [B] int64.
        smoothing: How much of each target is shared among all classes in the loss: training batches have some.
    """

    images: Tensor
    labels: Tensor
    smoothing: float = 0.0

    def __len__(self) -> int:
        return len(self.labels)
