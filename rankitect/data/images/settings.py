"""Which images are read, and how: keys of `task`. Imports nothing heavy."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rankitect.data.storage import problem_of_place

__all__ = ["EMBEDDED", "FASHION_MNIST", "GENERATED", "SPLITS", "GeneratedSettings", "ImageSettings"]

SPLITS = ("train", "validation", "test")
FASHION_MNIST, GENERATED = "fashion_mnist", "generated"
EMBEDDED = (FASHION_MNIST, GENERATED)
"""Sets of images that have a name."""

_Column = Annotated[str, Field(min_length=1, max_length=200)]
_Share = Annotated[float, Field(gt=0, lt=1)]


class GeneratedSettings(BaseModel):
    """Stripes whose angle is the class, in random colours; for tests and a first look, never for results."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    images: int = Field(default=2000, ge=30, le=10**7, description="how many images, over all splits")
    classes: int = Field(default=5, ge=2, le=100, description="angles of the stripes")
    size: int = Field(default=16, ge=4, le=512, description="height and width")
    channels: Literal[1, 3] = Field(default=3, description="1: grey, 3: colour")
    noise: float = Field(default=0.1, ge=0, le=1, description="deviation of the noise, as a share of white")
    seed: int = Field(default=0, ge=0, lt=2**32, description="of the generator")


class ImageSettings(BaseModel):
    """A set of labelled images and how it is divided."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    data: str = Field(
        default=FASHION_MNIST,
        min_length=1,
        description="fashion_mnist, generated, or a folder with a folder for each class, an archive (zip, tar, deb) of "
        "one, IDX files, Parquet files or CIFAR's binary files: a path, glob or URI",
    )
    test: str | None = Field(
        default=None, min_length=1, description="where the test images lie, if not in `data`; null: they are part of it"
    )
    resize: int | None = Field(
        default=None,
        ge=4,
        le=4096,
        description="height and width: the shorter side becomes so long, and the middle is cut out; null: as they are, "
        "which must be one size",
    )
    channels: Literal[1, 3] | None = Field(
        default=None, description="1: grey images, 3: images in colour; null: as the first one is"
    )
    convert: bool = Field(
        default=False, description="bring images of another number of channels to `channels`; false refuses them"
    )
    corrupt: Literal["refuse", "skip"] = Field(
        default="refuse", description="what to do with an image that cannot be decoded; those skipped are counted"
    )
    image_column: _Column | None = Field(
        default=None, description="of Parquet files, the encoded images; null: image, or img"
    )
    label_column: _Column | None = Field(default=None, description="of Parquet files, the classes; null: label")
    shares: tuple[_Share, _Share, _Share] = Field(
        default=(0.8, 0.1, 0.1),
        description="train, validation, test, of each class; a split that the data name themselves is taken as it is",
    )
    split_seed: int = Field(default=0, ge=0, lt=2**32, description="of the division")
    limit: int | None = Field(
        default=None, ge=1, le=10**9, description="training images to use, the same share of each class; null: all"
    )
    generated: GeneratedSettings = Field(default=GeneratedSettings(), description="with data=generated")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        # Here and not beside the field, as a message shows a field's value, which may hold a password.
        for key, place in (("data", self.data), ("test", self.test)):
            if place is not None and (problem := problem_of_place(place)) is not None:
                raise ValueError(f"{key}: {problem}")
        if self.test is not None and self.data in EMBEDDED:
            raise ValueError(f"test: {self.data} has a test split of its own, so leave `test` out")
        if self.convert and self.channels is None:
            raise ValueError("convert needs channels: 1 or 3")
        return self
