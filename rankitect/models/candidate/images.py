"""Candidates that classify images: what turns images into their inputs, and names of the classes, come with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rankitect.data.files import write_whole
from rankitect.data.images.encoder import ImageEncoder
from rankitect.data.members import place_of
from rankitect.documents import read_json
from rankitect.errors import AssetError, DataError
from rankitect.models.candidate.base import REQUIRED, Candidate
from rankitect.models.candidate.folder import (
    CARD,
    SPACE,
    CandidateFolder,
    brief,
    card_of,
    read_model,
    write_card,
    write_model,
)
from rankitect.models.supernet import Standalone, device_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rankitect.graph import Architecture, SearchSpace

__all__ = ["IMAGES", "ImageCandidate", "read_image_classifier", "save_image_classifier"]

IMAGES = "images.json"
_TOGETHER = 250
"""Images of one forward."""


@dataclass(frozen=True, eq=False)
class ImageCandidate(Candidate):
    """A classifier of images: [B, C, H, W] to logits [B, K].

    Attributes:
        encoder: Makes inputs of images, and names the classes.
    """

    encoder: ImageEncoder

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return self.encoder.classes

    def encode(self, images: Iterable[Any]) -> torch.Tensor:
        """The model's input for images as they come, [B, C, H, W], where the model is and in its precision.

        Args:
            images: Paths, bytes of image files, arrays of uint8, or images of Pillow; see `ImageEncoder.encode`.

        Raises:
            DataError: One cannot be used; names its number, from 0.
        """
        weight = next(self.model.parameters())
        return torch.from_numpy(self.encoder.encode(images)).to(device_of(self.model), weight.dtype)

    @torch.inference_mode()
    def score(self, inputs: Iterable[Any]) -> NDArray[np.float32]:
        """The probability of each class for each image, [B, K] float32.

        Args:
            inputs: Images, as `encode` takes them.

        Raises:
            DataError: One cannot be used.
        """
        parts = [self.model(part).float().softmax(1) for part in self.encode(inputs).split(_TOGETHER)]
        probabilities: NDArray[np.float32] = torch.cat(parts).cpu().numpy()
        return probabilities


def save_image_classifier(
    folder: str | Path,
    space: SearchSpace,
    architecture: Architecture,
    model: Standalone,
    encoder: ImageEncoder,
    notes: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Write a classifier of images. Each file appears whole or not at all, candidate.json last.

    Args:
        folder: Created if it does not exist.
        space: The search space.
        architecture: The closed choices.
        model: Made from both, trained.
        encoder: Makes its inputs.
        notes: Plain data on where the weights come from; kept in the card.

    Returns:
        Paths relative to the folder, by artifact.

    Raises:
        SpaceError: The architecture is not of the space, or the model is of another architecture.
        DataError: The model reads other images than the encoder makes, or gives another number of classes.
        AssetError: The notes are no plain data.
        OSError: The disk is full or cannot be written.
    """
    folder, architecture = Path(folder), space.validate(architecture)
    if (problem := _misfit(space, encoder)) is not None:
        raise DataError(problem)
    card = card_of("vision", space, architecture, None, notes or {})
    written = write_model(folder, space, architecture, model)
    write_whole(folder / IMAGES, encoder.model_dump_json(indent=1) + "\n")
    written["images"] = IMAGES
    write_card(folder, card, list(written.values()))
    return {"card": CARD, **written}


def read_image_classifier(folder: CandidateFolder, verify: bool, allowed_packages: Sequence[str]) -> ImageCandidate:
    """A classifier of images from its folder, equal to the bit.

    Raises:
        AssetError: A file is missing, truncated or altered, or the files contradict each other.
    """
    folder.check((*REQUIRED, IMAGES), verify)
    space, searched, model = read_model(folder, allowed_packages)
    file = place_of(folder.path, IMAGES)
    encoder = read_json(file, ImageEncoder, AssetError, advice="Copy the candidate again.")
    if (problem := _misfit(space, encoder)) is not None:
        raise AssetError(f"{brief(file, 200)} does not fit {SPACE}: {problem}")
    return ImageCandidate(space, searched, model.eval(), folder.card, encoder)


def _misfit(space: SearchSpace, encoder: ImageEncoder) -> str | None:
    """Why a space does not read what an encoder makes, or does not tell its classes apart; None if it does."""
    graph = space.graph
    inputs = [[dim.constant for dim in node.outputs[0].dims[1:]] for node in graph.inputs]
    fits = len(inputs) == 1 and len(inputs[0]) == len(encoder.shape)
    # A dimension without a constant is free, or a choice: it decides nothing.
    if not fits or any(has not in (None, size) for has, size in zip(inputs[0], encoder.shape, strict=True)):
        return f"images are {list(encoder.shape)}, and the inputs of the model {inputs}."
    outputs = [graph.node(edge.source).outputs[edge.index].dims[-1].constant for edge in graph.outputs]
    if outputs != [len(encoder.classes)]:
        return f"there are {len(encoder.classes)} classes, and the model gives {outputs} logits."
    return None
