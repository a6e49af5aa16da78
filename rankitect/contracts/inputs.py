"""What a task tells of what its models read: capabilities, as those of `rankitect.contracts.task`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Calibrates", "HasImages"]


class HasImages(Protocol):
    """A task whose models read images, [B, C, H, W] float32, and give the logits of classes, [B, K]."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image that a model reads."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of a model's logits."""
        ...


class Calibrates(Protocol):
    """A task that gives inputs without labels, for statistics of what passes through a model."""

    def calibration_batches(self, examples: int) -> Iterator[tuple[Tensor, ...]]:
        """The inputs of a model: data that it may be trained on, prepared as for an evaluation (without augmentation),
        in batches of one size, the same each time.

        Args:
            examples: How many at least, where there are so many.
        """
        ...
