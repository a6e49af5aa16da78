"""Rankers with names, and the losses that rankers are compared by, row by row."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankitect.data.files import write_atomically
from rankitect.errors import AssetError, ConfigError, RunFolderError
from rankitect.production.evidence import LOSSES, read_losses

if TYPE_CHECKING:
    from rankitect.data.ranking.batches import RankingBatches
    from rankitect.data.ranking.features import Features
    from rankitect.graph import Architecture, SearchSpace
    from rankitect.metrics.ranking import RankingQuality

__all__ = [
    "NamedModel",
    "mend_losses",
    "production_models",
    "save_losses",
]

TRAINING = ("optimizer", "tables")


@dataclass(frozen=True)
class NamedModel:
    """A model that is known by name.

    Attributes:
        space: The space that it is an architecture of, its own.
        architecture: The architecture.
        training: Settings that differ from the task's, where it was tuned on its own, by section (`TRAINING`).
    """

    space: SearchSpace
    architecture: Architecture
    training: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def production_models(
    target: str, wanted: Mapping[str, Mapping[str, Any]], features: Features, allowed: Sequence[str]
) -> dict[str, NamedModel]:
    """Known rankers, each at its sizes.

    Args:
        target: Dotted path of a function (name, features, **sizes) -> (space, architecture).
        wanted: Sizes by name; the keys of `TRAINING` hold settings of its training instead of the task's.
        features: The data's.
        allowed: Packages that the function may come from.

    Raises:
        ConfigError: There is no such function, or it takes no such size.
        SpaceError: It knows no such name, or a size is impossible.
    """
    from rankitect.config.plugins import load_target

    make, models = load_target(target, allowed, "task.zoo", ()), {}
    for name, keys in wanted.items():
        training = {key: dict(keys[key]) for key in TRAINING if keys.get(key)}
        try:
            space, architecture = make(name, features, **{k: v for k, v in keys.items() if k not in TRAINING})
            models[name] = NamedModel(space, architecture, training)
        except TypeError as error:
            raise ConfigError(f"task.models.{name}: {target} does not take these sizes: {error}.") from error
    return models


# --- row by row -----------------------------------------------------------------------------------------------------
def save_losses(folder: Path, quality: RankingQuality) -> str:
    """Keep a model's loss on each row, for paired intervals; the file's name."""
    from safetensors.numpy import save_file

    arrays = {"losses": quality.losses}
    if ((quality.labels != 0) & (quality.labels != 1)).any():  # a loss alone does not give the prediction back
        arrays["predictions"] = quality.predictions
    write_atomically(folder / LOSSES, lambda part: save_file(arrays, part))
    return LOSSES


def mend_losses(run: Path, data: RankingBatches, allowed: Sequence[str], say: Callable[[str], None]) -> None:
    """Measure damaged losses of trials again, with the weights that the trials kept; without these, put them aside.

    Args:
        run: The run folder.
        data: Whose test rows they are of.
        allowed: Packages that blocks may come from.
        say: Shows a sentence to the user.
    """
    from rankitect.metrics.ranking import ranking_quality
    from rankitect.models.candidate import load_ranker

    for file in sorted((run / "trials").glob(f"*/{LOSSES}")):
        try:
            read_losses(file)
        except RunFolderError as error:
            damage = str(error.__cause__)
        else:
            continue
        try:
            ranker = load_ranker(file.parent, allowed_packages=allowed).model
            save_losses(file.parent, ranking_quality(ranker, data, "test"))
            done = "the rows were measured again with the trial's weights."
        except AssetError:
            os.replace(file, file.with_name(f"{LOSSES}.damaged"))
            done = "the trial keeps no weights to measure the rows again, so comparisons go on without them."
        sentence = f"{file} was damaged ({damage}): {done}"
        logging.getLogger("rankitect").warning("%s", sentence)
        say(sentence)
