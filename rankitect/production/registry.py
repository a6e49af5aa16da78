"""The registry of production models: what candidates have to beat, which changes while searches run.

A folder with one file for each version of each model. Nothing is deleted: a retired model stays readable, so that an
old report can be understood.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from rankitect.data.files import file_sha256, folder_lock, write_atomically
from rankitect.data.members import member
from rankitect.data.tensors import opened_tensors
from rankitect.documents import as_kind, read_json
from rankitect.errors import AssetError, BaselineError, ConfigError, RunFolderError, brief, short

__all__ = ["Damage", "Entry", "Registry", "check_weights"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_VERSION = re.compile(r"v(\d{1,9})\.json")


class Entry(BaseModel):
    """One version of a production model.

    An architecture of a space, trained exactly as candidates are; or a module that a function of yours makes, measured
    as it is where it comes with weights, else trained like the others.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=rf"^{_NAME.pattern}$")
    version: int = Field(ge=1)
    task: str = Field(max_length=200, description="name of the task that it is for")
    added: str = Field(max_length=40, description="when, UTC")
    retired: str | None = Field(default=None, max_length=40)
    note: str = Field(default="", max_length=10_000)
    architecture: dict[str, Any] | None = Field(None, description="an architecture, as plain data")
    space: str | None = Field(
        None, pattern=r"^v\d+\.space\.json$", description="file with its space, where that is not the searched one"
    )
    features: dict[str, Any] | None = Field(None, description="of a ranker: the features that it takes")
    module: str | None = Field(
        None,
        max_length=500,
        pattern=r"^[A-Za-z]\w*(\.[A-Za-z]\w*)+$",
        description="dotted path of a function (features) -> module",
    )
    weights: str | None = Field(
        None, pattern=r"^v\d+\.safetensors$", description="safetensors file with the module's weights"
    )
    weights_sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")

    @property
    def label(self) -> str:
        """Name and version, as reports show it."""
        return f"{self.name} v{self.version}"

    @property
    def identity(self) -> dict[str, Any]:
        """The architecture's data; of a module, data in the same form that tell it from others."""
        if self.architecture is not None:
            return self.architecture
        choices = {"name": self.name, "module": self.module, "weights": self.weights_sha256 or "trained"}
        return {"space": "module", "version": str(self.version), "choices": choices}


@dataclass(frozen=True)
class Damage:
    """A version that cannot be read.

    Attributes:
        name: Name of the model, which is that of its folder.
        version: Version of the model, which is in the file's name.
        path: The file.
        reason: What is wrong with it, and what to do.
    """

    name: str
    version: int
    path: Path
    reason: str


class Registry:
    """Production models in a folder.

    Args:
        folder: The folder; it need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self) -> tuple[list[Entry], list[Damage]]:
        """All versions of all models in the order in which they were added, and those that cannot be read."""
        entries: list[Entry] = []
        damaged: list[Damage] = []
        for path in sorted(self.folder.glob("*/v*.json")):
            if (number := _VERSION.fullmatch(path.name)) is None:
                continue
            name, version = path.parent.name, int(number[1])
            # One damaged file must not hide the other models: it is reported beside them.
            try:
                entry = read_json(path, Entry, RunFolderError)
                if (entry.name, entry.version) != (name, version):
                    raise ValueError(f"it says that it is {entry.label}")
                entries.append(entry)
            except ValueError as error:
                reason = f"{path} is not a registered baseline ({error}). Restore the file from a copy, or delete it."
                damaged.append(Damage(name, version, path, reason))
        return sorted(entries, key=lambda e: (e.added, e.name, e.version)), damaged

    def entries(self) -> list[Entry]:
        """All versions of all models that can be read, in the order in which they were added."""
        return self.read()[0]

    def live(self, task: str) -> list[Entry]:
        """The newest version of each model of a task that is not retired, in the order in which they were added.

        Where the newest version is damaged the model has none: an older one is not what is in production.
        """
        entries, damaged = self.read()
        newest = {entry.name: entry for entry in entries if entry.task == task}  # the last added of a name wins
        lost = {d.name for d in damaged if d.name in newest and d.version > newest[d.name].version}
        return [e for e in entries if newest.get(e.name) == e and e.retired is None and e.name not in lost]

    def file(self, entry: Entry) -> Path:
        """The file of a version."""
        return self.folder / entry.name / f"v{entry.version:03d}.json"

    def path(self, entry: Entry, file: str) -> Path:
        """One of a model's other files.

        Raises:
            BaselineError: A link leads out of the model's folder.
        """
        place = self.folder / entry.name
        try:
            if place.is_symlink():
                raise AssetError(f"{brief(place)} is a link, which is not followed.")
            return member(place, file) or place / file
        except AssetError as error:
            raise BaselineError(str(error)) from error

    def add(
        self,
        name: str,
        task: str,
        *,
        architecture: Mapping[str, Any] | None = None,
        space: Path | None = None,
        features: Mapping[str, Any] | None = None,
        module: str | None = None,
        weights: Path | None = None,
        note: str = "",
    ) -> Entry:
        """Register a model, or a new version of one.

        Args:
            name: Letters, digits, `-` and `_`.
            task: The task that it is for.
            architecture: Plain data of an architecture.
            space: File with its space.
            features: The features of a ranker.
            module: Dotted path of a function that makes it.
            weights: Safetensors file; it is copied.
            note: A note for people.

        Raises:
            ConfigError: The name or the module's path is none, there is neither an architecture nor a module, the
                weights are not of a module or are no safetensors file, or the model's folder is a link or a file.
            SpaceError: The architecture is none.
            OSError: The folder cannot be written.
        """
        from rankitect.graph import Architecture

        if not _NAME.fullmatch(name):
            raise ConfigError(f"{short(repr(name), 80)} is no name of a baseline: use letters, digits, - and _.")
        if (architecture is None) == (module is None):
            raise ConfigError("Give a baseline as an architecture (run=, or architecture=) or as module=, not both.")
        if architecture is not None:
            Architecture.from_json(json.dumps(architecture))
        if weights is not None:
            check_weights(weights, module)
        added = {"name": name, "task": task, "note": note, "module": module, "added": _now(), "version": 1}
        as_kind(added, Entry, f"The baseline {name}")
        place = self._folder_of(name)
        with folder_lock(self.folder):
            version = 1 + max(
                (int(match[1]) for p in place.iterdir() if (match := _VERSION.fullmatch(p.name))), default=0
            )
            stem = f"v{version:03d}"
            if space is not None:
                _copy(space, place / f"{stem}.space.json")
            if weights is not None:
                _copy(weights, place / f"{stem}.safetensors")
            entry = Entry(
                name=name,
                version=version,
                task=task,
                added=_now(),
                note=note,
                architecture=None if architecture is None else dict(architecture),
                space=None if space is None else f"{stem}.space.json",
                features=None if features is None else dict(features),
                module=module,
                weights=None if weights is None else f"{stem}.safetensors",
                weights_sha256=None if weights is None else file_sha256(weights),
            )
            self._write(entry)
        return entry

    def retire(self, name: str) -> Entry:
        """Take the newest version of a model out of comparisons.

        Raises:
            ConfigError: There is no such model, or it is retired already.
            RunFolderError: Its newest version is damaged.
        """
        if not self.folder.is_dir():
            raise ConfigError(f"There is no registry {self.folder}, so no baseline '{name}' to retire.")
        with folder_lock(self.folder):
            entries, damaged = self.read()
            versions: list[Entry | Damage] = [
                *(e for e in entries if e.name == name),
                *(d for d in damaged if d.name == name),
            ]
            if not versions:
                names = ", ".join(sorted({e.name for e in entries})) or "none"
                raise ConfigError(f"There is no baseline '{name}' in {self.folder}: {names}.")
            newest = max(versions, key=lambda v: v.version)
            if isinstance(newest, Damage):
                raise RunFolderError(newest.reason)
            if newest.retired is not None:
                raise ConfigError(f"{newest.label} was retired at {newest.retired}.")
            retired = newest.model_copy(update={"retired": _now()})
            self._write(retired)
        return retired

    def _folder_of(self, name: str) -> Path:
        """A model's folder, made where there is none. A registry may come from others: a link in it could lead what is
        written to anywhere.

        Raises:
            ConfigError: It is a link, or no folder.
        """
        place = self.folder / name
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            raise ConfigError(f"{brief(place)} is a link or a file, not a folder: nothing is written there. Delete it.")
        place.mkdir(parents=True, exist_ok=True)
        return place

    def _write(self, entry: Entry) -> None:
        self._folder_of(entry.name)
        text = json.dumps(entry.model_dump(mode="json"), indent=1) + "\n"
        write_atomically(self.file(entry), lambda part: part.write_text(text, encoding="utf-8"))


def _copy(source: Path, target: Path) -> None:
    """Copy a file. What has the target's name already, such as a link, is replaced and not followed."""
    write_atomically(target, lambda part: shutil.copyfile(source, part))


def check_weights(path: Path, module: str | None) -> None:
    """Refuse a file that cannot be the weights of a baseline.

    Args:
        path: The file.
        module: The function that makes the module.

    Raises:
        ConfigError: There is no module, or the file is no whole safetensors file or holds nothing.
    """
    if module is None:
        raise ConfigError(f"weights={brief(path)} needs a module=: an architecture is trained as candidates are.")
    wrong = f"{brief(path)} is no whole safetensors file. Write it with safetensors"
    with opened_tensors(path, "numpy", wrong, ConfigError) as file:
        names = list(file.keys())
    if not names:
        raise ConfigError(f"{brief(path)} holds no weights.")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
