"""Candidates that are rankers: what turns rows into their inputs comes with them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rankitect.blocks import Tables
from rankitect.data.files import write_whole
from rankitect.data.members import place_of
from rankitect.data.ranking.encoder import FILES, RowEncoder
from rankitect.data.ranking.features import Features
from rankitect.documents import read_json, read_text
from rankitect.errors import AssetError, DataError, SpaceError
from rankitect.graph import Architecture, SearchSpace
from rankitect.models.candidate.base import REQUIRED, Candidate
from rankitect.models.candidate.folder import (
    ARCHITECTURE,
    CARD,
    MODEL,
    SPACE,
    WEIGHTS,
    CandidateFolder,
    brief,
    card_of,
    model_of,
    read_model,
    read_weights,
    write_card,
    write_model,
)
from rankitect.models.plan import Plan, make_plan
from rankitect.models.supernet import Standalone, device_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rankitect.data.ranking.new_rows import Rows

__all__ = ["ENCODER", "FEATURES", "RankingCandidate", "read_old_ranker", "read_ranker", "save_ranker"]

FEATURES, ENCODER = "features.json", "encoder"
_ROWS = 8192
"""Rows of one forward."""


@dataclass(frozen=True, eq=False)
class RankingCandidate(Candidate):
    """A ranker: numbers [B, N] and ids [B, S] to logits of a click [B, 1].

    Attributes:
        features: What the model takes.
        encoder: Makes that of rows; None in candidates of older versions, which came without.
    """

    features: Features
    encoder: RowEncoder | None

    def encode(self, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        """The model's inputs for rows as they come, where the model is and in its precision.

        Unknown, rare and missing values are treated as in training.

        Args:
            rows: A frame of pandas, a table of Arrow, or a mapping of column to value for each row, with the columns of
                the training data. Those that are no features (label, user, weight) need not be there.

        Raises:
            DataError: A column is missing, or a value cannot be used: names the row, from 0, and the column.
            AssetError: The candidate came without an encoder.
        """
        if self.encoder is None:
            raise AssetError(
                "This candidate was written by a version of Rankitect that kept vocabularies and scaling in the cache "
                "of the machine that trained it. Repeat its search in a new folder to get a whole one."
            )
        numeric, ids = self.encoder.encode(rows)
        weight = next(self.model.parameters())
        device = device_of(self.model)
        return torch.from_numpy(numeric).to(device, weight.dtype), torch.from_numpy(ids).to(device)

    @torch.inference_mode()
    def score(self, inputs: Rows) -> NDArray[np.float32]:
        """The probability of a click for each row, [rows] float32.

        Args:
            inputs: Rows, as `encode` takes them.

        Raises:
            DataError: A column is missing, or a value cannot be used.
            AssetError: The candidate came without an encoder.
        """
        numeric, ids = self.encode(inputs)
        parts = zip(numeric.split(_ROWS), ids.split(_ROWS), strict=True)
        logits = [self.model(n, i).reshape(-1).float() for n, i in parts]
        probabilities: NDArray[np.float32] = torch.cat(logits).sigmoid().cpu().numpy()
        return probabilities


def save_ranker(
    folder: str | Path,
    space: SearchSpace,
    architecture: Architecture,
    model: Standalone,
    features: Features,
    searched: Architecture | None = None,
    *,
    encoder: RowEncoder | None = None,
    notes: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Write a ranker. Each file appears whole or not at all, candidate.json last: where it is, all is there.

    Args:
        folder: Created if it does not exist.
        space: The space of the graph.
        architecture: Closes its choices.
        model: Made from both, trained.
        features: What the data give to it.
        searched: What was searched, where that is no architecture of the graph but settings: it is then
            architecture.json, and the graph's choices are model.json.
        encoder: Makes a model's inputs of rows. Without it the candidate cannot score rows.
        notes: Plain data on where the weights come from; kept in the card.

    Returns:
        For each artifact its path relative to `folder`.

    Raises:
        SpaceError: The model is of another architecture.
        DataError: The encoder gives other features.
        OSError: The disk is full or cannot be written.
    """
    folder = Path(folder)
    if encoder is not None and encoder.features != features:
        raise DataError("The encoder gives other features than the model takes.")
    card = card_of("ranking", space, architecture, searched, notes or {})
    written = write_model(folder, space, architecture, model, searched)
    write_whole(folder / FEATURES, json.dumps(features.to_json(), indent=1) + "\n")
    written["features"] = FEATURES
    files = list(written.values())
    if encoder is not None:
        encoder.save(folder / ENCODER)
        files += [f"{ENCODER}/{name}" for name in FILES]
        written["encoder"] = ENCODER
    write_card(folder, card, files)
    return {"card": CARD, **written}


def read_ranker(folder: CandidateFolder, verify: bool, allowed_packages: Sequence[str]) -> RankingCandidate:
    """A ranker from its folder, equal to the bit.

    Raises:
        AssetError: A file is missing, truncated or altered, or the files contradict each other.
    """
    folder.check((*REQUIRED, FEATURES), verify)
    space, searched, model = read_model(folder, allowed_packages)
    features = _features(folder.path, model.plan, space)
    encoder = RowEncoder.load(folder.path / ENCODER) if folder.has(f"{ENCODER}/{FILES[0]}") else None
    if encoder is not None and encoder.features != features:
        raise AssetError(f"{brief(folder.path, 200)}: {ENCODER}/ gives other features than {FEATURES} says.")
    return RankingCandidate(space, searched, model.eval(), folder.card, features, encoder)


def read_old_ranker(folder: Path, allowed_packages: Sequence[str]) -> RankingCandidate:
    """A ranker of a version that wrote no card and no encoder.

    Raises:
        AssetError: A file is missing or damaged, or the files do not belong together.
    """
    advice = "Copy the candidate's folder again."
    closed = MODEL if (folder / MODEL).exists() else ARCHITECTURE
    texts = {
        name: read_text(place_of(folder, name), AssetError, advice=advice) for name in (ARCHITECTURE, closed, SPACE)
    }
    try:
        space = SearchSpace.from_json(texts[SPACE], allowed_packages)
        searched = Architecture.from_json(texts[ARCHITECTURE])
        plan = make_plan(space, space.validate(Architecture.from_json(texts[closed])))
    except SpaceError as error:
        raise AssetError(f"{brief(folder, 200)} holds no whole ranker ({brief(error, 200)}). {advice}") from error
    model = model_of(plan, read_weights(place_of(folder, WEIGHTS)), folder)
    return RankingCandidate(space, searched, model.eval(), {}, _features(folder, plan, space), None)


def _features(folder: Path, plan: Plan, space: SearchSpace) -> Features:
    """What the files say that the model takes, where that is what its graph takes.

    Raises:
        AssetError: It is not: ids would then read the rows of other features.
    """
    file = place_of(folder, FEATURES)
    try:
        features = Features.from_json(read_json(file, dict[str, Any], AssetError, advice="Copy the candidate again."))
    except (DataError, ValueError, OverflowError) as error:
        if isinstance(error, AssetError):
            raise
        raise AssetError(f"{brief(file, 200)} is damaged: {brief(error, 200)}") from error
    widths = {node.path: node.outputs[0].dims[-1].constant for node in space.graph.inputs}
    wanted = {"numeric": len(features.numeric), "ids": sum(features.slots)}
    if any(widths.get(name, size) != size for name, size in wanted.items()):
        raise AssetError(f"{brief(file, 200)} says {wanted}; the inputs of {SPACE} are {widths}.")
    firsts = {sum(features.slots[:i]): i for i in range(len(features.slots))}
    for block in (step.block for step in plan.steps if isinstance(step.block, Tables)):
        starts = [(block.columns or range(sum(block.slots)))[sum(block.slots[:i])] for i in range(len(block.slots))]
        for start, rows, slots in zip(starts, block.rows, block.slots, strict=True):
            feature = features.categorical[firsts[start]] if start in firsts else None
            if feature is None or feature.rows != rows or feature.slots != slots:
                raise AssetError(f"{brief(file, 200)} does not fit the embedding tables of {SPACE}.")
    return features
