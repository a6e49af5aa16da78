"""Random changes of training images: crops of a padded image, mirroring, and a square that is cut out.

These are the changes that small images are usually trained with (He et al., arXiv 1512.03385, section 4.2; cutout:
DeVries & Taylor, arXiv 1708.04552).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Augmentation", "augmented", "cut_out"]


class Augmentation(BaseModel):
    """Keys of `task.augment`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    crop: int | None = Field(
        default=None,
        ge=0,
        le=512,
        description="black pixels put around an image before a part of its own size is cut out; null: an eighth of the "
        "height",
    )
    flip: bool = Field(default=True, description="mirror every second image; not for digits and letters")
    cutout: int = Field(default=0, ge=0, le=4096, description="side of a square that gets the mean colour; 0: none")


def augmented(pixels: NDArray[np.uint8], settings: Augmentation, random: np.random.Generator) -> NDArray[np.uint8]:
    """Images cut out of padded ones, and mirrored.

    Args:
        pixels: [B, C, H, W].
        settings: Which changes.
        random: Decides them.

    Returns:
        Of the same shape.
    """
    count, channels, height, width = pixels.shape
    around = height // 8 if settings.crop is None else settings.crop
    tops, lefts = random.integers(0, 2 * around + 1, (2, count)).tolist()
    mirrored = [bool(drawn < 0.5) and settings.flip for drawn in random.random((count,))]
    padded = np.zeros((count, channels, height + 2 * around, width + 2 * around), np.uint8)
    padded[:, :, around : around + height, around : around + width] = pixels
    images = np.empty_like(pixels)
    # A copy for each image is faster than one gather of them all.
    for number, (top, left, mirror) in enumerate(zip(tops, lefts, mirrored, strict=True)):
        part = padded[number, :, top : top + height, left : left + width]
        images[number] = part[:, :, ::-1] if mirror else part
    return images


def cut_out(images: NDArray[np.float32], side: int, random: np.random.Generator) -> None:
    """Set a square of each image to 0, its middle anywhere in the image; in place.

    Args:
        images: [B, C, H, W].
        side: Of the square.
        random: Decides the places.
    """
    count, _, height, width = images.shape
    places = [(random.integers(0, size, (count,)) - side // 2).tolist() for size in (height, width)]
    for image, row, column in zip(images, *places, strict=True):
        image[:, max(row, 0) : max(row + side, 0), max(column, 0) : max(column + side, 0)] = 0.0
