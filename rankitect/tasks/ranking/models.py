"""Rankers with names, rankers on disk, and the losses that they are compared by, row by row."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankitect.data.files import write_atomically
from rankitect.documents import read_json
from rankitect.errors import AssetError, ConfigError, RunFolderError, SpaceError
from rankitect.production.evidence import LOSSES, read_losses

if TYPE_CHECKING:
    from rankitect.data.ranking.batches import RankingBatches
    from rankitect.data.ranking.features import Features
    from rankitect.graph import Architecture, SearchSpace
    from rankitect.metrics.ranking import RankingQuality
    from rankitect.models.supernet import Standalone

__all__ = [
    "NamedModel",
    "load_ranker",
    "mend_losses",
    "production_models",
    "save_losses",
    "save_ranker",
]

TRAINING = ("optimizer", "tables")
_MODEL = "model.json"
_FILES = {"weights": "weights.safetensors", "space": "space.json", "features": "features.json"}


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


def save_ranker(
    folder: Path,
    space: SearchSpace,
    architecture: Architecture,
    model: Standalone,
    features: Features,
    searched: Architecture | None = None,
) -> dict[str, str]:
    """Write a trained ranker: weights, its space, the data's features, and architecture.json; no pickles.

    Args:
        folder: The folder.
        space: The space of the graph.
        architecture: Closes its choices.
        model: Trained.
        features: What the data give to it.
        searched: What was searched, where that is no architecture of the graph but settings: it is then
            architecture.json, and the graph's choices are model.json.

    Returns:
        For each artifact its path relative to `folder`.

    Raises:
        OSError: The disk is full.
    """
    from safetensors.torch import save_file

    tensors = {name: t.detach().to("cpu").contiguous() for name, t in model.state_dict().items()}
    texts = {
        "architecture.json": (searched or architecture).to_json(),
        _FILES["space"]: space.to_json(),
        _FILES["features"]: json.dumps(features.to_json(), indent=1),
    }
    files = dict(_FILES)
    if searched is not None and searched != architecture:
        files["model"] = _MODEL
        texts[_MODEL] = architecture.to_json()
    for name, text in texts.items():
        _write(folder / name, text)
    write_atomically(folder / _FILES["weights"], lambda part: save_file(tensors, part, metadata={"format": "pt"}))
    return files


def load_ranker(folder: str | Path, allowed_packages: Sequence[str] = ("rankitect",)) -> tuple[Standalone, Features]:
    """A ranker that `save_ranker` wrote, such as one in a run folder's candidates/, and the features it takes.

    Args:
        folder: The folder.
        allowed_packages: Where the space's blocks may come from.

    Raises:
        AssetError: A file is missing or damaged, or the files do not belong together.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from rankitect.data.ranking.features import Features
    from rankitect.graph import Architecture, SearchSpace
    from rankitect.models.plan import make_plan
    from rankitect.models.supernet import Standalone

    folder = Path(folder)
    closed = _MODEL if (folder / _MODEL).exists() else "architecture.json"
    try:
        space = SearchSpace.from_json((folder / _FILES["space"]).read_text(), allowed_packages)
        architecture = space.validate(Architecture.from_json((folder / closed).read_text()))
        features = Features.from_json(read_json(folder / _FILES["features"], dict[str, Any]))
        tensors = load_file(folder / _FILES["weights"])
        plan = make_plan(space, architecture)
        shapes = plan.shapes()
        if {".".join(k): shape for k, shape in shapes.items()} != {n: tuple(t.shape) for n, t in tensors.items()}:
            raise SpaceError("weights.safetensors is not of architecture.json")
        # Copies lie in memory as a built model's do: kernels then give the same last bits.
        return Standalone(plan, {key: tensors[".".join(key)].clone() for key in shapes}), features
    except (OSError, ValueError, SafetensorError) as error:
        raise AssetError(f"{folder} holds no whole ranker ({error}). Copy the candidate's folder again.") from error


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

    for file in sorted((run / "trials").glob(f"*/{LOSSES}")):
        try:
            read_losses(file)
        except RunFolderError as error:
            damage = str(error.__cause__)
        else:
            continue
        try:
            ranker, _ = load_ranker(file.parent, allowed)
            save_losses(file.parent, ranking_quality(ranker, data, "test"))
            done = "the rows were measured again with the trial's weights."
        except AssetError:
            os.replace(file, file.with_name(f"{LOSSES}.damaged"))
            done = "the trial keeps no weights to measure the rows again, so comparisons go on without them."
        sentence = f"{file} was damaged ({damage}): {done}"
        logging.getLogger("rankitect").warning("%s", sentence)
        say(sentence)


def _write(file: Path, text: str) -> None:
    write_atomically(file, lambda part: part.write_text(text + "\n", encoding="utf-8"))
