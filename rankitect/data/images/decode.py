"""From an encoded image, or plain pixels, to an array of one form; what cannot be trusted is refused by name.

Pillow decodes. The formats are listed, so that none of its rarer parsers sees a file of somebody else's, and the size
that a header claims is looked at before a pixel is decoded: a file of kilobytes can claim gigabytes.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rankitect.data.guard import guarded
from rankitect.errors import DataError, safe, short

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["ENDINGS", "CorruptImage", "Form", "decoded", "named"]

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".pgm")
"""How names of image files end."""
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "PPM")
_MOST_PIXELS = 50_000_000
_GREY, _COLOUR = {"1", "L", "LA", "La"}, {"P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"}
"""Pillow's modes of 8 bits. What has more bits would lose its values in silence."""


class CorruptImage(DataError):
    """An image that cannot be decoded."""


@dataclass(frozen=True)
class Form:
    """What every image is brought to.

    Attributes:
        resize: Height and width; None leaves the size.
        channels: 1 or 3; None leaves them.
        convert: Whether an image of another number of channels is converted, and not refused.
    """

    resize: int | None = None
    channels: int | None = None
    convert: bool = False


def named(place: str) -> str:
    """A place, or any name of somebody else's, for a message."""
    return short(safe(place), 120)


def decoded(content: bytes | NDArray[np.uint8], place: str, form: Form) -> NDArray[np.uint8]:
    """An image as [C, H, W].

    Args:
        content: An encoded file, or pixels, [H, W] or [H, W, 3].
        place: Where it is, for messages.
        form: What it is brought to.

    Raises:
        CorruptImage: It cannot be decoded.
        DataError: It has more bits a channel than 8, or another number of channels than asked for.
    """
    from PIL import Image

    if isinstance(content, bytes):
        with guarded(f"{named(place)} cannot be decoded as an image", CorruptImage):
            image = _opened(content, place)
    elif form.resize is None and (form.channels or _channels(content)) == _channels(content):
        return np.ascontiguousarray(content[None] if content.ndim == 2 else content.transpose(2, 0, 1))
    else:
        image = Image.fromarray(content)
    image = _sized(_in_channels(image, place, form), form.resize)
    pixels = np.asarray(image, np.uint8)
    return np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))


def _channels(pixels: NDArray[np.uint8]) -> int:
    return 1 if pixels.ndim == 2 else 3


def _opened(content: bytes, place: str) -> Image:
    """A decoded image, upright; grey or in colour."""
    from PIL import Image, ImageOps

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a claimed size that is refused below, and of odd metadata
        try:
            image = Image.open(io.BytesIO(content), formats=_FORMATS)
        except Image.DecompressionBombError as error:
            raise _too_large(place) from error
        if image.size[0] * image.size[1] > _MOST_PIXELS:
            raise _too_large(place)
        if image.mode not in _GREY | _COLOUR:
            raise DataError(
                f"{named(place)} has values of more than 8 bits (mode {image.mode}), which would be cut: save it with "
                "8 bits a channel."
            )
        image.load()
        return ImageOps.exif_transpose(image)


def _too_large(place: str) -> DataError:
    return DataError(f"{named(place)} claims to have more than {_MOST_PIXELS:,} pixels: make it smaller.")


def _in_channels(image: Image, place: str, form: Form) -> Image:
    has = 1 if image.mode in _GREY else 3
    wanted = form.channels or has
    if has != wanted and not form.convert:
        kind, expected = ("grey", "colour") if has == 1 else ("in colour", "grey")
        raise DataError(
            f"{named(place)} is {kind}, and task.channels={wanted} expects {expected} images. task.convert=true brings "
            "all images to that."
        )
    mode = "L" if wanted == 1 else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _sized(image: Image, size: int | None) -> Image:
    """The middle of an image whose shorter side has been brought to a size."""
    from PIL.Image import Resampling

    if size is None or image.size == (size, size):
        return image
    width, height = image.size
    scale = size / min(width, height)
    width, height = max(size, round(width * scale)), max(size, round(height * scale))
    if width * height > _MOST_PIXELS:  # a strip of one pixel's height would become as long as it is thin
        raise DataError(f"An image of {image.size[0]:,} x {image.size[1]:,} pixels is too thin for task.resize={size}.")
    image = image.resize((width, height), Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))
