"""The registry of production models: what candidates have to beat, which changes while searches run.

A folder with one file for each version of each model. Nothing is deleted: a retired model stays readable, so that an
old report can be understood.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rankitect.data.files import file_sha256, write_atomically
from rankitect.errors import ConfigError, RunFolderError

__all__ = ["Entry", "Registry"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


class Entry(BaseModel):
    """One version of a production model.

    An architecture of a space, trained exactly as candidates are; or a module that a function of yours makes, measured
    as it is where it comes with weights, else trained like the others.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=_NAME.pattern)
    version: int = Field(ge=1)
    task: str = Field(description="name of the task that it is for")
    added: str = Field(description="when, UTC")
    retired: str | None = None
    note: str = ""
    architecture: dict[str, Any] | None = Field(None, description="an architecture, as plain data")
    space: str | None = Field(None, description="file with its space, where that is not the searched one")
    features: dict[str, Any] | None = Field(None, description="of a ranker: the features that it takes")
    module: str | None = Field(None, description="dotted path of a function (features) -> module")
    weights: str | None = Field(None, description="safetensors file with the module's weights")
    weights_sha256: str | None = None

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


class Registry:
    """Production models in a folder.

    Args:
        folder: The folder; it need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def entries(self) -> list[Entry]:
        """All versions of all models, in the order in which they were added.

        Raises:
            RunFolderError: A file is damaged.
        """
        found = []
        for path in self.folder.glob("*/v*.json"):
            if not re.fullmatch(r"v\d+\.json", path.name):
                continue
            try:
                found.append(Entry.model_validate_json(path.read_text(encoding="utf-8")))
            except (OSError, ValidationError, UnicodeDecodeError) as error:
                first = str(error).splitlines()[0]
                raise RunFolderError(f"{path} is not a registered baseline ({first}). Mend it or delete it.") from error
        return sorted(found, key=lambda e: (e.added, e.name, e.version))

    def live(self, task: str) -> list[Entry]:
        """The newest version of each model of a task that is not retired, in the order in which they were added."""
        newest = {entry.name: entry for entry in self.entries() if entry.task == task}
        return [entry for entry in self.entries() if newest.get(entry.name) == entry and entry.retired is None]

    def path(self, entry: Entry, file: str) -> Path:
        """One of a model's files."""
        return self.folder / entry.name / file

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
            features: Of a ranker.
            module: Dotted path of a function that makes it.
            weights: Safetensors file; it is copied.
            note: For people.

        Raises:
            ConfigError: The name is none, or there is neither an architecture nor a module.
            OSError: The folder cannot be written.
        """
        if not _NAME.fullmatch(name):
            raise ConfigError(f"'{name}' is no name of a baseline: use letters, digits, - and _.")
        if (architecture is None) == (module is None):
            raise ConfigError("Give a baseline as an architecture (run=, or architecture=) or as module=, not both.")
        version = 1 + max((e.version for e in self.entries() if e.name == name), default=0)
        place, stem = self.folder / name, f"v{version:03d}"
        place.mkdir(parents=True, exist_ok=True)
        if space is not None:
            shutil.copyfile(space, place / f"{stem}.space.json")
        if weights is not None:
            shutil.copyfile(weights, place / f"{stem}.safetensors")
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
        """
        known = [e for e in self.entries() if e.name == name]
        if not known:
            names = ", ".join(sorted({e.name for e in self.entries()})) or "none"
            raise ConfigError(f"There is no baseline '{name}' in {self.folder}: {names}.")
        newest = max(known, key=lambda e: e.version)
        if newest.retired is not None:
            raise ConfigError(f"{newest.label} was retired at {newest.retired}.")
        retired = newest.model_copy(update={"retired": _now()})
        self._write(retired)
        return retired

    def _write(self, entry: Entry) -> None:
        text = json.dumps(entry.model_dump(mode="json"), indent=1) + "\n"
        write_atomically(
            self.folder / entry.name / f"v{entry.version:03d}.json", lambda p: p.write_text(text, encoding="utf-8")
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
