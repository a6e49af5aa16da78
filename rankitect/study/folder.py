"""The run folder: whose it is, which configuration it belongs to, and where things are in it."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, Self

from rankitect.data.files import TEMPORARY, write_whole
from rankitect.errors import RunFolderError
from rankitect.production.settings import gates_header, gates_problem
from rankitect.study.files import is_disk_full
from rankitect.study.lock import FolderLock

__all__ = ["RunFolder", "config_hash", "difference"]

# What has no influence on the result may differ between the sessions of one run.
_WITHOUT_EFFECT = (
    "output_dir",
    "resume",
    "preset",
    "allowed_packages",
    "budget.minutes",
    "report",
    "runner.threads",
    "runner.progress",
    "runner.kind",
    "runner.workers",
    "runner.trial_minutes",
    "runner.trial_gib",
    "runner.address",
    "runner.cpus",
)


_BEGUN = ("study.db", "state")
"""What is in the folder of a search, and of a training, once results depend on its configuration."""


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted path; an empty mapping is a value."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat |= _flatten(value, f"{path}.")
        else:
            flat[path] = value
    return flat


def _effective(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        path: value
        for path, value in _flatten(config).items()
        if not any(path == name or path.startswith(f"{name}.") for name in _WITHOUT_EFFECT)
    }


def config_hash(config: Mapping[str, Any]) -> str:
    """SHA-256 of everything in a resolved configuration that can change a result, 64 hexadecimal digits."""
    text = json.dumps(_effective(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One line for every effective key that differs: "recipe.heal.tokens: 23040 -> 1000"."""
    before, after = _effective(old), _effective(new)
    lines = []
    for key in sorted(before.keys() | after.keys()):
        if key not in after:
            lines.append(f"{key}: {json.dumps(before[key])} -> (absent)")
        elif key not in before:
            lines.append(f"{key}: (absent) -> {json.dumps(after[key])}")
        elif before[key] != after[key]:
            lines.append(f"{key}: {json.dumps(before[key])} -> {json.dumps(after[key])}")
    return lines


def _raise_unwritable(path: Path, error: OSError) -> NoReturn:
    """Raise what says that a run folder cannot be taken: a full disk as it is, all else with what to do."""
    if is_disk_full(error, path if path.exists() else None):
        raise error
    raise RunFolderError(
        f"The run folder {path} cannot be written ({error.strerror or error}). Choose another output_dir=."
    ) from error


class RunFolder:
    """A run folder, locked for this process while it is open.

    Args:
        path: The folder; created if it does not exist.
        config: The resolved configuration as plain data.
        force: Go on in a folder of another configuration, which is kept as `config.previous.yaml`.

    Raises:
        RunFolderError: The folder is not a run folder, cannot be written, is in use by another process, or belongs to
            another configuration (the message has the difference).
    """

    def __init__(self, path: Path, config: Mapping[str, Any], *, force: bool = False) -> None:
        self.path, self.config = path, config
        self._handler: logging.Handler | None = None
        self.resumed = False
        try:
            if path.exists() and not path.is_dir():
                raise RunFolderError(f"{path} is a file, not a folder. Choose another output_dir=.")
            path.mkdir(parents=True, exist_ok=True)
            if not self.config_path.exists() and any(not _is_ours(entry) for entry in path.iterdir()):
                raise RunFolderError(
                    f"{path} is not a run folder: it is not empty and has no config.yaml. Nothing in it was touched. "
                    "Choose another output_dir=, or an empty folder."
                )
            self._lock = FolderLock(path)
        except OSError as error:
            _raise_unwritable(path, error)
        try:
            for left in path.glob(f".*{TEMPORARY}"):  # of a process that was killed while it wrote
                left.unlink(missing_ok=True)
            self._own(force)
        except BaseException as error:
            self._lock.release()
            if isinstance(error, OSError):
                _raise_unwritable(path, error)
            raise

    def _own(self, force: bool) -> None:
        # Before anything is measured or trained nothing depends on the configuration: a mistake in it may be corrected.
        if self.config_path.exists() and any((self.path / name).exists() for name in _BEGUN):
            old = self._read_config()
            lines = difference(old, self.config)
            self.resumed = True
            if not lines:
                self._update(old)
                return
            if not force:
                changes = "\n".join(f"  {line}" for line in lines)
                raise RunFolderError(
                    f"{self.path} belongs to another configuration:\n{changes}\nChoose another output_dir=, undo the "
                    "change, or go on in it all the same with resume=force (finished trials are then reused)."
                )
            write_whole(self.path / "config.previous.yaml", self.config_path.read_text(encoding="utf-8"))
        self._write_config(self.config)

    def _update(self, old: dict[str, Any]) -> None:
        """Take over keys without effect on results; but gates stay as they were registered."""
        new = json.loads(json.dumps(self.config))
        gates = old.get("report", {}).get("gates") if isinstance(old.get("report"), dict) else None
        if gates is not None and "report" in new and new["report"].get("gates") != gates:
            new["report"]["gates"] = gates
            logging.getLogger("rankitect").warning("report.gates stay as they were when the run began")
        self._write_config(new)

    def _write_config(self, config: Mapping[str, Any]) -> None:
        import yaml  # type: ignore[import-untyped]

        header = f"# The resolved configuration of this run. Hash: {config_hash(config)}\n"
        header += gates_header(config.get("report"))
        write_whole(self.config_path, header + yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))

    def _read_config(self) -> dict[str, Any]:
        import yaml

        try:
            text = self.config_path.read_text(encoding="utf-8")
            config = yaml.safe_load(text)
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise RunFolderError(f"{self.config_path} cannot be read ({error}). Choose another output_dir=.") from error
        if not isinstance(config, dict):
            raise RunFolderError(f"{self.config_path} is not a configuration. Choose another output_dir=.")
        if problem := gates_problem(text, config.get("report")):
            raise RunFolderError(f"{self.config_path}: {problem}")
        return config

    @property
    def config_path(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def store_path(self) -> Path:
        """The study's SQLite file."""
        return self.path / "study.db"

    @property
    def state_dir(self) -> Path:
        """The controller's checkpoints."""
        folder = self.path / "state"
        folder.mkdir(exist_ok=True)
        return folder

    def trial_folder(self, number: int, fingerprint: str) -> Path:
        """Folder for the artifacts of one trial."""
        return self.path / "trials" / f"{number:06d}-{fingerprint[:8]}"

    def fresh_trial_folder(self, number: int, fingerprint: str) -> Path:
        """The folder of a trial, emptied of what a killed attempt left."""
        folder = self.trial_folder(number, fingerprint)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def open_log(self, logger: logging.Logger) -> None:
        """Let a logger append to log.txt and nothing else: other packages set up handlers that spoil the progress."""
        self._handler = _LogFile(self.path / "log.txt", encoding="utf-8")
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(self._handler)
        logger.setLevel(logging.INFO)
        self._logger, self._propagate, logger.propagate = logger, logger.propagate, False

    def close(self) -> None:
        """Close log.txt and give the lock back."""
        if self._handler is not None:
            self._logger.removeHandler(self._handler)
            self._logger.propagate = self._propagate
            self._handler.close()
            self._handler = None
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class _LogFile(logging.FileHandler):
    """A log that a full disk silences, instead of printing a traceback for every line."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass


def _is_ours(entry: Path) -> bool:
    """What a process killed before it wrote config.yaml may leave."""
    return entry.name == "study.lock" or (entry.name.startswith(".") and entry.name.endswith(TEMPORARY))
