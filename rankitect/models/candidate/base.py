"""What every candidate is once it is read: an architecture of a space as a module of torch, and its card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rankitect.graph import Architecture, SearchSpace
from rankitect.models.candidate.folder import CandidateFolder, card_of, read_model, write_card, write_model
from rankitect.models.supernet import Standalone, device_of

__all__ = ["REQUIRED", "Candidate", "read_candidate", "save_model"]

REQUIRED = ("architecture.json", "space.json", "weights.safetensors")
"""Files that every candidate has."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A candidate read back from its folder.

    Attributes:
        space: The search space of the graph.
        architecture: What was searched: the closed choices, as architecture.json has them.
        model: A plain module of torch in evaluation mode, to be moved, compiled, exported or trained like any other.
        card: The content of candidate.json: sizes, costs, provenance.
    """

    space: SearchSpace
    architecture: Architecture
    model: Standalone
    card: Mapping[str, Any]

    @property
    def closed(self) -> Architecture:
        """What the model is made from: it closes the choices of the graph. Not what was searched where this is settings
        of a known graph, or where stages of a recipe have made a model of another architecture."""
        return self.model.plan.architecture or self.architecture

    @torch.inference_mode()
    def score(self, inputs: Any) -> Any:
        """What the model gives for inputs of its task.

        Args:
            inputs: One tensor for each input of the graph, in a sequence; a tensor where there is only one.
        """
        given = [inputs] if isinstance(inputs, torch.Tensor) else list(inputs)
        return self.model(*(x.to(device_of(self.model)) for x in given))


def save_model(
    folder: str | Path,
    space: SearchSpace,
    architecture: Architecture,
    model: Standalone,
    notes: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Write a candidate of a task of one's own: architecture, space, weights and card.

    Args:
        folder: Created if it does not exist.
        space: The search space.
        architecture: The closed choices.
        model: Made from both.
        notes: Plain data on where the weights come from; kept in the card.

    Returns:
        Paths relative to the folder, by artifact.

    Raises:
        SpaceError: The architecture is not of the space, or the model is of another architecture.
        AssetError: The notes are no plain data.
        OSError: The disk is full or cannot be written.
    """
    folder, architecture = Path(folder), space.validate(architecture)
    card = card_of("other", space, architecture, None, notes or {})
    written = write_model(folder, space, architecture, model)
    write_card(folder, card, list(written.values()))
    return {"card": "candidate.json", **written}


def read_candidate(folder: CandidateFolder, verify: bool, allowed_packages: Sequence[str]) -> Candidate:
    """A candidate of a task of one's own.

    Raises:
        AssetError: A file is missing, altered or damaged.
    """
    folder.check(REQUIRED, verify)
    space, architecture, model = read_model(folder, allowed_packages)
    return Candidate(space, architecture, model.eval(), folder.card)
