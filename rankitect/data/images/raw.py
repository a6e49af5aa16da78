"""What the formats have alike: an image before it is decoded, and a source that gives images one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rankitect.data.storage import DataFile

__all__ = ["ImageSource", "RawImage"]


@dataclass(frozen=True)
class RawImage:
    """An image as its source gives it.

    Attributes:
        place: Where it is, for messages.
        label: The class, as the source names or numbers it.
        split: The split that the source puts it in, of `settings.SPLITS`; None where it names none.
        content: An encoded file (PNG, JPEG …), or pixels, [H, W] or [H, W, 3].
    """

    place: str
    label: str | int
    split: str | None
    content: bytes | NDArray[np.uint8]


class ImageSource(Protocol):
    """A set of labelled images that can be read once from its beginning, and again."""

    @property
    def name(self) -> str:
        """Name for reports."""

    @property
    def files(self) -> Sequence[DataFile]:
        """The files that decide its content."""

    @property
    def class_names(self) -> Mapping[str | int, str]:
        """What labels are called, where that is not what they are."""

    def images(self) -> Iterator[RawImage]:
        """Every image, in an order that only the files decide."""
