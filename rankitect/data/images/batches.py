"""Batches of a set of images: the same for the same (seed, split, step), whoever asks and however often."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rankitect.data.images.augmentation import Augmentation, augmented, cut_out
from rankitect.data.windows import epoch_order

if TYPE_CHECKING:
    from torch import Tensor

    from rankitect.data.images.batch import ImageBatch
    from rankitect.data.images.dataset import ImageData

__all__ = ["ImageBatches"]

_FIXED = 0
"""The seed of orders that do not depend on the run's: which images a sample of a split has."""


class ImageBatches:
    """Batches of a set of images.

    Args:
        data: The images.
        batch: Images of a training step.
        seed: Of order and augmentation.
        augment: How training images are changed; None leaves them.
        smoothing: Of the labels of training batches.
    """

    def __init__(
        self, data: ImageData, *, batch: int, seed: int, augment: Augmentation | None = None, smoothing: float = 0.0
    ) -> None:
        self.data, self.batch, self.seed = data, batch, seed
        self._augment, self._smoothing = augment, smoothing

    def batch_at(self, split: str, step: int, batch: int | None = None) -> ImageBatch:
        """The batch of a step: every image once an epoch, each epoch in another order. Only training images are
        changed.

        Args:
            split: The split.
            step: From 0.
            batch: How many images; None for the usual number.

        Raises:
            DataError: There is no such split.
        """
        from rankitect.data.images.batch import ImageBatch

        size, places = batch or self.batch, self.data.places(split)
        pixels, labels = self.data.read(places[_numbers(len(places), split, self.seed, step, size)])
        if split != "train":
            return ImageBatch(self._normalised(pixels), _tensor(labels))
        augment = self._augment
        if augment is None:
            return ImageBatch(self._normalised(pixels), _tensor(labels), self._smoothing)
        random = _generator(self.seed, split, step, size)
        images = self._normalised(augmented(pixels, augment, random))
        if augment.cutout:
            cut_out(images.numpy(), augment.cutout, random)
        return ImageBatch(images, _tensor(labels), self._smoothing)

    def sampled(self, split: str, most: int | None) -> NDArray[np.int64]:
        """Places of images of a split, always the same ones: all of them, in their order, or a sample.

        Raises:
            DataError: There is no such split.
        """
        places = self.data.places(split)
        return places if most is None or most >= len(places) else np.sort(self.shuffled(split)[:most])

    def shuffled(self, split: str) -> NDArray[np.int64]:
        """Places of all images of a split in an order that is always the same, and not that of the classes.

        Raises:
            DataError: There is no such split.
        """
        places = self.data.places(split)
        return places[epoch_order(len(places), split, _FIXED, 0)]

    def images_at(self, places: NDArray[np.int64], size: int) -> Iterator[tuple[Tensor, NDArray[np.int64]]]:
        """Images as they are, normalised, with their labels.

        Args:
            places: Which.
            size: How many at a time.
        """
        for start in range(0, len(places), size):
            pixels, labels = self.data.read(places[start : start + size])
            yield self._normalised(pixels), labels

    def _normalised(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Pixels [B, C, H, W] as float32 of mean 0 and deviation 1."""
        import torch

        known = self.data.normalisation
        mean, scale = np.asarray(known.mean), 1 / (255 * np.asarray(known.deviation))
        factor, offset = (
            torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1) for values in (scale, -mean * scale * 255)
        )
        return torch.from_numpy(np.ascontiguousarray(pixels)).float().mul_(factor).add_(offset)


def _numbers(count: int, split: str, seed: int, step: int, size: int) -> NDArray[np.int64]:
    """Which images of a split make the batch of a step, [B]."""
    begin, end = step * size, (step + 1) * size
    parts = []
    for epoch in range(begin // count, (end - 1) // count + 1):
        first = epoch * count
        parts.append(epoch_order(count, split, seed, epoch)[max(begin - first, 0) : end - first])
    return np.concatenate(parts)


def _generator(seed: int, split: str, step: int, size: int) -> np.random.Generator:
    digest = hashlib.blake2b(f"{seed}:{split}:{step}:{size}".encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def _tensor(labels: NDArray[np.int64]) -> Tensor:
    import torch

    return torch.from_numpy(np.ascontiguousarray(labels))
