"""Generated images: stripes whose angle is the class, in random colours and phases, with noise.

Their mean image is the same for every class, so that no linear model tells them apart, and a few convolutions do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rankitect.data.images.raw import RawImage
from rankitect.data.images.settings import GENERATED, GeneratedSettings
from rankitect.data.storage import DataFile

__all__ = ["GeneratedImages"]

_WAVES = 2.5
"""Stripes across an image."""


@dataclass(frozen=True)
class GeneratedImages:
    """A generated set of images; see `rankitect.data.images.raw.ImageSource`.

    Attributes:
        settings: How many, of what size.
    """

    settings: GeneratedSettings
    name: ClassVar[str] = GENERATED
    files: ClassVar[Sequence[DataFile]] = ()

    @property
    def class_names(self) -> Mapping[str | int, str]:
        """The angles, in degrees."""
        s = self.settings
        return {place: f"{180 * place / s.classes:.0f} degrees" for place in range(s.classes)}

    def images(self) -> Iterator[RawImage]:
        """The images, class after class in turn."""
        s = self.settings
        random = np.random.default_rng([s.seed, s.images, s.classes, s.size])
        rows, columns = np.meshgrid(*[np.linspace(-0.5, 0.5, s.size)] * 2, indexing="ij")
        for number in range(s.images):
            label = number % s.classes
            angle = np.pi * (label + random.uniform(-0.25, 0.25)) / s.classes
            across = rows * np.sin(angle) + columns * np.cos(angle)
            wave = 0.5 + 0.5 * np.sin(2 * np.pi * (_WAVES * across + random.uniform()))
            low, high = random.uniform(0, 1, (2, s.channels))
            image = low + wave[..., None] * (high - low) + random.normal(0, s.noise, (s.size, s.size, s.channels))
            pixels = np.round(image.clip(0, 1) * 255).astype(np.uint8)
            yield RawImage(f"generated image {number}", label, None, pixels[..., 0] if s.channels == 1 else pixels)
