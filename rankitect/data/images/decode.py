"""From an encoded image, or plain pixels, to an array of one form; what cannot be trusted is refused by name.

Pillow decodes. The formats are listed, so that none of its rarer parsers sees a file of somebody else's, and the size
that a header claims is looked at before a pixel is decoded: a file of kilobytes can claim gigabytes.
"""

from __future__ import annotations

import io
import threading
import zlib
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rankitect.data.guard import guarded
from rankitect.errors import DataError, safe, short

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["ENDINGS", "MOST_BYTES", "CorruptImage", "Form", "check_bytes", "decoded", "named"]

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".pgm")
"""How names of image files end."""
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "PPM")
_MOST_PIXELS = 50_000_000
_ALONE, _TURN = 25_000_000, threading.Lock()
"""Pixels beyond which images are decoded one at a time, however many threads there are: each needs several copies."""
MOST_BYTES = 1 << 28
"""Bytes of an encoded image: more than so many pixels need in any of the formats."""
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
        DataError: It is too large, has more bits a channel than 8, or another number of channels than asked for.
    """
    from PIL import Image, ImageOps

    if isinstance(content, bytes):
        check_bytes(len(content), place)
        with guarded(f"{named(place)} cannot be decoded as an image", CorruptImage):
            image = _opened(content, place)
            with _TURN if image.size[0] * image.size[1] > _ALONE else nullcontext():
                return _pixels(_in_channels(ImageOps.exif_transpose(image), place, form), place, form.resize)
    if content.shape[0] * content.shape[1] > _MOST_PIXELS:
        raise _too_large(place)
    if form.resize is None and (form.channels or _channels(content)) == _channels(content):
        return np.ascontiguousarray(content[None] if content.ndim == 2 else content.transpose(2, 0, 1))
    return _pixels(_in_channels(Image.fromarray(content), place, form), place, form.resize)


def _pixels(image: Image, place: str, size: int | None) -> NDArray[np.uint8]:
    """An image of Pillow as [C, H, W], brought to a size."""
    pixels = np.asarray(_sized(image, place, size), np.uint8)
    return np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))


def check_bytes(count: int, place: str) -> None:
    """Refuse an encoded image that is too large to be one, before it is read.

    Args:
        count: Its bytes.
        place: Where it is, for messages.

    Raises:
        DataError: It is.
    """
    if count > MOST_BYTES:
        raise DataError(f"{named(place)} has {count:,} bytes, and an image at most {MOST_BYTES:,}.")


def _channels(pixels: NDArray[np.uint8]) -> int:
    return 1 if pixels.ndim == 2 else 3


def _opened(content: bytes, place: str) -> Image:
    """An image whose header is read, and may be trusted; its pixels are decoded when they are asked for."""
    from PIL import Image

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
    if image.format == "PNG":
        _check_sums(content)
    return image


def _check_sums(content: bytes) -> None:
    """Refuse a PNG whose pixels were damaged: Pillow leaves the checksums of IDAT chunks alone (RFC 2083, section 3.2).

    Raises:
        ValueError: They were.
    """
    at, view = 8, memoryview(content)
    while at + 12 <= len(content):
        end = at + 8 + int.from_bytes(view[at : at + 4], "big")
        kept = int.from_bytes(view[end : end + 4], "big")
        if content[at + 4 : at + 8] == b"IDAT" and zlib.crc32(view[at + 4 : end]) != kept:
            raise ValueError("its pixels do not have their checksum")
        at = end + 4


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


def _sized(image: Image, place: str, size: int | None) -> Image:
    """The middle of an image whose shorter side has been brought to a size."""
    from PIL.Image import Resampling

    if size is None or image.size == (size, size):
        return image
    width, height = image.size
    scale = size / min(width, height)
    width, height = max(size, round(width * scale)), max(size, round(height * scale))
    if width * height > _MOST_PIXELS:  # a strip of one pixel's height would become as long as it is thin
        raise DataError(
            f"{named(place)} is too thin for task.resize={size}: it has {image.size[0]:,} x {image.size[1]:,} pixels."
        )
    image = image.resize((width, height), Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))
