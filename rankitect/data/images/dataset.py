"""A divided set of images, with what its pixels are normalised by."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankitect.data.images.store import StoredImages
from rankitect.errors import DataError

__all__ = ["ImageData", "Normalisation"]

_CHUNK = 4096
"""Images whose pixels are counted at a time."""
_SMALLEST = 1.0
"""Deviation, in steps of 255: a set whose training images are all of one colour is not blown up."""


@dataclass(frozen=True)
class Normalisation:
    """Mean and deviation of each channel of the training images, as shares of white.

    Attributes:
        mean: [C].
        deviation: [C], above 0.
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @classmethod
    def of(cls, pixels: NDArray[np.uint8], places: NDArray[np.int64]) -> Normalisation:
        """That of some images: exact, from how often each value is there.

        Args:
            pixels: [N, C, H, W].
            places: Which of them.
        """
        channels = pixels.shape[1]
        counts = np.zeros((channels, 256), np.int64)
        for start in range(0, len(places), _CHUNK):
            part = pixels[places[start : start + _CHUNK]]
            for channel in range(channels):
                counts[channel] += np.bincount(part[:, channel].reshape(-1), minlength=256)
        values, total = np.arange(256, dtype=np.float64), counts.sum(1)
        mean = counts @ values / total
        variance = counts @ values**2 / total - mean**2
        deviation = np.sqrt(np.maximum(variance, _SMALLEST**2))
        return cls(tuple((mean / 255).tolist()), tuple((deviation / 255).tolist()))

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {"mean": list(self.mean), "deviation": list(self.deviation)}


@dataclass(frozen=True, eq=False)
class ImageData:
    """A set of images, divided.

    Attributes:
        name: For reports.
        stored: All its images.
        splits: Places of the images of each split.
        facts: What is to be known of the reading.
    """

    name: str
    stored: StoredImages
    splits: Mapping[str, NDArray[np.int64]]
    facts: Mapping[str, Any]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        channels, height, width = self.stored.pixels.shape[1:]
        return channels, height, width

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes by number."""
        return self.stored.classes

    def places(self, split: str) -> NDArray[np.int64]:
        """Places of the images of a split.

        Raises:
            DataError: There is no such split.
        """
        if split not in self.splits:
            raise DataError(f"Images have the splits {', '.join(self.splits)}, and no {split!r}.")
        return self.splits[split]

    def read(self, places: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Pixels [B, C, H, W] and labels [B] of the images at some places."""
        return self.stored.pixels[places], self.stored.labels[places]

    @cached_property
    def normalisation(self) -> Normalisation:
        """That of the training images."""
        return Normalisation.of(self.stored.pixels, self.places("train"))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over classes, labels, pixels (by their hashes) and the division: wherever the files lie."""
        digest = hashlib.sha256("\n".join(self.classes).encode())
        for split, places in self.splits.items():
            digest.update(f"\n{split} {self.shape}\n".encode())
            digest.update(self.stored.labels[places].tobytes() + self.stored.keys[places].tobytes())
        return digest.hexdigest()
