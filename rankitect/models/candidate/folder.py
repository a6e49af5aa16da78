"""The files of a candidate's folder: written whole, listed in its card, and read back through checks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field

from rankitect.data.files import file_sha256, write_atomically, write_whole
from rankitect.data.members import place_of
from rankitect.data.tensors import read_tensors
from rankitect.documents import as_kind, read_json, read_text
from rankitect.errors import AssetError, SpaceError, safe, short
from rankitect.graph import Architecture, SearchSpace
from rankitect.graph.cost import COSTS
from rankitect.models.plan import Plan, make_plan
from rankitect.models.supernet import Standalone

__all__ = [
    "ARCHITECTURE",
    "CARD",
    "MODEL",
    "SCHEMA",
    "SPACE",
    "WEIGHTS",
    "CandidateFolder",
    "TaskName",
    "brief",
    "card_of",
    "guarded_model",
    "model_of",
    "read_model",
    "read_weights",
    "write_card",
    "write_model",
]

SCHEMA = 1
CARD = "candidate.json"
ARCHITECTURE, SPACE, WEIGHTS = "architecture.json", "space.json", "weights.safetensors"
MODEL = "model.json"
"""The graph's choices, where what was searched are settings, which are then architecture.json."""
TaskName = Literal["language", "ranking", "vision", "other"]

_T = TypeVar("_T")
_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_AGAIN = "Copy it again."


class _File(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class _Card(BaseModel):
    """What a reader relies on; the rest of a card is for people."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    fingerprint: str = Field(pattern="^[0-9a-f]{64}$")
    task: TaskName = "language"
    files: dict[str, _File]


class CandidateFolder:
    """A folder with a card.

    Args:
        path: The folder.

    Raises:
        AssetError: It has no card, or one that is damaged, of another schema, or a link out of the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.card = read_json(place_of(path, CARD), dict[str, Any], AssetError, advice=_AGAIN)
        if self.card.get("schema") != SCHEMA:
            raise AssetError(
                f"{self._shown(CARD)} has schema {brief(repr(self.card.get('schema')), 40)}; this version of Rankitect "
                f"reads {SCHEMA}. Read it with the version that wrote it (under `versions`)."
            )
        self._checked = as_kind(self.card, _Card, path / CARD, AssetError, advice=_AGAIN)
        for name in self._checked.files:
            _require_inside(name, self._shown(CARD))

    @property
    def task(self) -> TaskName:
        """What kind of task the model is of."""
        return self._checked.task

    @property
    def fingerprint(self) -> str:
        """Of the architecture, as the card says."""
        return self._checked.fingerprint

    def has(self, name: str) -> bool:
        """Whether the card lists a file."""
        return name in self._checked.files

    def check(self, required: Sequence[str], verify: bool) -> None:
        """Compare every file with what the card says of it.

        Args:
            required: Files without which there is no such candidate.
            verify: Compare hashes as well as sizes.

        Raises:
            AssetError: A file is missing, truncated, altered or a link out of the folder; names it.
        """
        for name in required:
            if not self.has(name):
                raise AssetError(f"{self._shown(CARD)} is damaged: it lists no {name}. Copy it again.")
        for name, expected in self._checked.files.items():
            self._check_file(name, expected, verify)

    def text(self, name: str) -> str:
        """The content of a text file in UTF-8.

        Raises:
            AssetError: It cannot be read.
        """
        return read_text(place_of(self.path, name), AssetError, advice=_AGAIN)

    def tensors(self, name: str) -> dict[str, torch.Tensor]:
        """The tensors of a safetensors file.

        Raises:
            AssetError: It is truncated or damaged.
        """
        return read_weights(place_of(self.path, name))

    def _check_file(self, name: str, expected: _File, verify: bool) -> None:
        file = place_of(self.path, name)
        try:
            if not file.is_file():
                raise AssetError(
                    f"{brief(file.parent)} has no {file.name}, which {CARD} lists. Copy the whole folder again."
                )
            size = file.stat().st_size
            if size != expected.bytes:
                raise AssetError(
                    f"{self._shown(name)} is truncated or altered: {size} bytes, but {CARD} says {expected.bytes}. "
                    "Copy it again."
                )
            if verify and (actual := file_sha256(file)) != expected.sha256:
                raise AssetError(
                    f"{self._shown(name)} was altered: its SHA-256 is {actual[:12]}…, but {CARD} says "
                    f"{expected.sha256[:12]}…. Copy it again; to use a file that was changed on purpose, save a new "
                    "candidate."
                )
        except OSError as error:
            raise AssetError(f"{self._shown(name)} cannot be read ({brief(error)}). {_AGAIN}") from error

    def _shown(self, name: str) -> str:
        return brief(self.path / name, 200)


def read_weights(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file.

    Raises:
        AssetError: It is truncated or damaged.
    """
    return read_tensors(file, f"{brief(file, 200)} is truncated or damaged. Copy it again")


def _require_inside(name: str, card: str) -> None:
    """Refuse a name that is no plain path below the folder: a card comes from others, and may not point elsewhere."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or not name.isprintable() or len(name) > 200:
        raise AssetError(f"{card} lists {brief(repr(name))}, which is no file of its folder.")


def brief(value: object, most: int = 150) -> str:
    """A value from outside for a message: on one line, without control characters, of a bounded length."""
    return short(safe(str(value)).replace("\n", " "), most)


# --- writing ----------------------------------------------------------------------------------------------------------
def write_model(
    folder: Path,
    space: SearchSpace,
    architecture: Architecture,
    model: Standalone,
    searched: Architecture | None = None,
) -> dict[str, str]:
    """Write what every candidate has: its architecture, its space and its weights.

    Args:
        folder: Created if it does not exist. A card in it is deleted first: it would belong to older files.
        space: The space of the graph.
        architecture: Closes its choices.
        model: Made from both, trained or not.
        searched: What was searched, where that is no architecture of the graph but settings.

    Returns:
        Paths relative to the folder, by artifact.

    Raises:
        SpaceError: The model is of another architecture.
        OSError: The disk is full or cannot be written.
    """
    from safetensors.torch import save_file

    tensors = {name: t.detach().to("cpu").contiguous() for name, t in model.state_dict().items()}
    if wrong := _difference(tensors, make_plan(space, architecture)):
        raise SpaceError(f"the model is not of architecture {architecture.fingerprint[:8]}: {wrong}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CARD).unlink(missing_ok=True)
    (folder / MODEL).unlink(missing_ok=True)
    written = {"architecture": ARCHITECTURE, "space": SPACE, "weights": WEIGHTS}
    write_whole(folder / ARCHITECTURE, (searched or architecture).to_json() + "\n")
    if searched is not None and searched != architecture:
        write_whole(folder / MODEL, architecture.to_json() + "\n")
        written["model"] = MODEL
    write_whole(folder / SPACE, space.to_json() + "\n")
    write_atomically(folder / WEIGHTS, lambda part: save_file(tensors, part, metadata={"format": "pt"}))
    return written


def card_of(
    task: TaskName,
    space: SearchSpace,
    architecture: Architecture,
    searched: Architecture | None,
    notes: Mapping[str, Any],
) -> dict[str, Any]:
    """A card without its files: what the model is, what it costs, where it comes from.

    Raises:
        AssetError: The notes are no plain data.
    """
    from rankitect import __version__

    try:
        plain = json.loads(json.dumps(dict(notes)))
    except (TypeError, ValueError) as error:
        raise AssetError(f"a candidate's notes must be plain data (text, numbers, lists, mappings): {error}") from error
    return {
        "schema": SCHEMA,
        "kind": "rankitect candidate",
        "task": task,
        "fingerprint": (searched or architecture).fingerprint,
        "space": {"name": space.name, "version": space.version},
        "costs": {kind: {"value": space.cost(architecture, kind), "unit": unit} for kind, unit in COSTS.items()},
        "costs_at": dict(space.defaults),
        "notes": plain,
        "versions": {"rankitect": __version__, "torch": str(torch.__version__)},
    }


def write_card(folder: Path, card: Mapping[str, Any], files: Sequence[str]) -> None:
    """Write the card, after all files that it lists: where it is, the candidate is whole.

    Raises:
        OSError: The disk is full or cannot be written.
    """
    listed = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": file_sha256(folder / name)} for name in sorted(files)
    }
    write_whole(folder / CARD, json.dumps({**card, "files": listed}, indent=2) + "\n")


# --- reading ----------------------------------------------------------------------------------------------------------
def read_model(
    folder: CandidateFolder, allowed_packages: Sequence[str]
) -> tuple[SearchSpace, Architecture, Standalone]:
    """The space, what was searched, and the model with its weights.

    Args:
        folder: Checked already.
        allowed_packages: Where the space's blocks may come from.

    Raises:
        AssetError: The files contradict each other or the card.
    """
    searched = guarded_model(folder.path, lambda: Architecture.from_json(folder.text(ARCHITECTURE)))
    closed = MODEL if folder.has(MODEL) else ARCHITECTURE

    def make() -> tuple[SearchSpace, Plan]:
        space = SearchSpace.from_json(folder.text(SPACE), allowed_packages)
        return space, make_plan(space, space.validate(Architecture.from_json(folder.text(closed))))

    space, plan = guarded_model(folder.path, make)
    if searched.fingerprint != folder.fingerprint:
        raise AssetError(
            f"{brief(folder.path, 200)}: {ARCHITECTURE} is {searched.fingerprint[:8]}, but {CARD} describes "
            f"{folder.fingerprint[:8]}. Files of two candidates are mixed; copy the whole folder again."
        )
    return space, searched, model_of(plan, folder.tensors(WEIGHTS), folder.path)


def model_of(plan: Plan, tensors: dict[str, torch.Tensor], folder: Path) -> Standalone:
    """A plan with weights from a file, which are taken out of `tensors`.

    Raises:
        AssetError: They are not the plan's, or hold a value that is no finite number.
    """
    if wrong := _difference(tensors, plan):
        raise AssetError(f"{brief(folder / WEIGHTS, 200)} does not fit {ARCHITECTURE}: {wrong}")
    # Copies lie in memory as a built model's do: kernels then give the same last bits.
    by_key = {key: tensors.pop(".".join(key)).clone() for key in plan.shapes()}
    for key, tensor in by_key.items():
        if not torch.isfinite(tensor.sum()) and not torch.isfinite(tensor).all():
            raise AssetError(
                f"{brief(folder / WEIGHTS, 200)}: {brief('.'.join(key), 60)} holds values that are not finite numbers "
                "(NaN or infinity)."
            )
    return Standalone(plan, by_key)


def guarded_model(place: Path, make: Callable[[], _T]) -> _T:
    """What is made of a space from others: its blocks, which a package of any author may hold, raise what they like.

    Args:
        place: Where the space comes from, for errors.
        make: Makes it.

    Raises:
        AssetError: It cannot be made.
    """
    try:
        return make()
    except AssetError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise AssetError(
            f"{brief(place, 200)}: its space and its architecture make no model: {brief(error, 250)}"
        ) from error


def _difference(tensors: Mapping[str, torch.Tensor], plan: Plan) -> str | None:
    """What is wrong with tensors that should be a plan's weights, or None."""
    shapes = {".".join(key): shape for key, shape in plan.shapes().items()}
    if missing := sorted(shapes.keys() - tensors.keys()):
        return f"{len(missing)} of {len(shapes)} weights are missing ({brief(', '.join(missing[:3]))})"
    if extra := sorted(tensors.keys() - shapes.keys()):
        return f"{len(extra)} weights do not belong to it ({brief(', '.join(extra[:3]))})"
    for name, shape in shapes.items():
        if tuple(tensors[name].shape) != shape:
            return f"{name} is {brief(list(tensors[name].shape))}, not {list(shape)}"
        if tensors[name].dtype not in _DTYPES:
            return f"{name} is stored as {tensors[name].dtype}; floating-point numbers are needed"
    return None
