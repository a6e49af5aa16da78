"""From images as they come to what a model reads, as in training: what a candidate takes along."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from rankitect.data.images.dataset import ImageData
from rankitect.data.images.decode import Form, check_bytes, decoded
from rankitect.errors import DataError, short

__all__ = ["ImageEncoder"]

_Side = Annotated[int, Field(ge=1, le=2**16)]
_Name = Annotated[str, Field(min_length=1, max_length=200)]


class ImageEncoder(BaseModel):
    """How images become inputs, and what the outputs mean.

    Attributes:
        shape: Channels, height and width of an input.
        mean: Of each channel, as a share of white.
        deviation: Of each channel, as a share of white.
        resize: As the task's key: the shorter side becomes so long, and the middle is cut out.
        classes: Names of the classes, in the order of a model's logits.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    shape: tuple[Annotated[int, Field(ge=1, le=3)], _Side, _Side]
    mean: tuple[Annotated[float, Field(ge=0, le=1)], ...]
    deviation: tuple[Annotated[float, Field(gt=0, le=1)], ...]
    resize: int | None = Field(ge=1, le=2**16)
    classes: tuple[_Name, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not len(self.mean) == len(self.deviation) == self.shape[0] != 2:
            raise ValueError("mean and deviation have a value for each of 1 or 3 channels")
        if self.resize is not None and self.shape[1:] != (self.resize, self.resize):
            raise ValueError("images are resized to another size than the shape's")
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("two classes have one name")
        return self

    @classmethod
    def of(cls, data: ImageData, resize: int | None) -> ImageEncoder:
        """That of a set of images.

        Args:
            data: The set.
            resize: The task's key.
        """
        known = data.normalisation
        return cls(shape=data.shape, mean=known.mean, deviation=known.deviation, resize=resize, classes=data.classes)

    def encode(self, images: Iterable[Any]) -> NDArray[np.float32]:
        """Inputs [B, C, H, W].

        Args:
            images: Paths of image files, the bytes of such files, or pixels: arrays of uint8 [H, W] or [H, W, 3], and
                what NumPy makes into such, as images of Pillow. Grey is brought to colour and colour to grey, where the
                model was trained on the other.

        Raises:
            DataError: One cannot be decoded, or has another size than the model reads; names its number, from 0.
        """
        mean, deviation = (np.asarray(v, np.float32)[:, None, None] for v in (self.mean, self.deviation))
        form = Form(self.resize, self.shape[0], convert=True)
        inputs = []
        for number, image in enumerate(images):
            place = f"image {number}"
            pixels = decoded(_content(image, place), place, form)
            if pixels.shape != self.shape:
                raise DataError(
                    f"{place} is {pixels.shape[1]} x {pixels.shape[2]}, and the model reads {self.shape[1]} x "
                    f"{self.shape[2]}: bring it to that size."
                )
            inputs.append((pixels.astype(np.float32) / np.float32(255) - mean) / deviation)
        if not inputs:
            return np.empty((0, *self.shape), np.float32)
        return np.stack(inputs)


def _content(image: Any, place: str) -> bytes | NDArray[np.uint8]:
    """The bytes of an encoded image, or its pixels."""
    if isinstance(image, bytes):
        return image
    if isinstance(image, str | Path):
        try:
            check_bytes(Path(image).stat().st_size, place)
            return Path(image).read_bytes()
        except (OSError, ValueError) as error:
            raise DataError(f"{place} cannot be read: {short(str(error), 200)}.") from error
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise DataError(
            f"{place} is an array of {pixels.dtype} {list(pixels.shape)}; pixels are uint8, [height, width] or "
            "[height, width, 3]."
        )
    return pixels
