"""The run folder: whose it is, which configuration it belongs to, and where things are in it."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, Self

from rankitect.data.files import TEMPORARY, write_whole
from rankitect.documents import parse_yaml, read_text
from rankitect.errors import LONGEST_MESSAGE, RunFolderError, brief
from rankitect.production.settings import gates_header, gates_problem
from rankitect.study.entries import refuse_strange
from rankitect.study.files import is_disk_full
from rankitect.study.folder_log import FolderLog
from rankitect.study.lock import FolderLock
from rankitect.study.snapshot import LOG, Snapshot

__all__ = ["RunFolder", "config_hash", "difference", "effective"]

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
    "runner.gpus",
    "placement.device",
    "placement.checkpointing",
    "placement.accumulate",
    "placement.compile",
    "placement.shard",
)
_LATER = {"placement.precision": "float32", "momentum": 0.0, "nesterov": False}
"""Keys that are younger than some run folders, by their whole path or its last word, with what these did: it changes no
hash."""


_BEGUN = ("study.db", "state")
"""What is in the folder of a search, and of a training, once results depend on its configuration."""
CONFIG, PREVIOUS = "config.yaml", "config.previous.yaml"


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


def effective(config: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a resolved configuration that can change a result, by dotted path."""
    return {
        path: value
        for path, value in _flatten(config).items()
        if not any(path == name or path.startswith(f"{name}.") for name in _WITHOUT_EFFECT)
        and not any(name in _LATER and value == _LATER[name] for name in (path, path.rpartition(".")[2]))
    }


def config_hash(config: Mapping[str, Any]) -> str:
    """SHA-256 of everything in a resolved configuration that can change a result, 64 hexadecimal digits."""
    text = json.dumps(effective(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One line for every effective key that differs: "recipe.heal.tokens: 23040 -> 1000"."""
    before, after = effective(old), effective(new)
    lines = []
    for key in sorted(before.keys() | after.keys()):
        if key not in after:
            lines.append(f"{key}: {json.dumps(before[key])} -> (absent)")
        elif key not in before:
            lines.append(f"{key}: (absent) -> {json.dumps(after[key])}")
        elif before[key] != after[key]:
            lines.append(f"{key}: {json.dumps(before[key])} -> {json.dumps(after[key])}")
    return lines


def _another(path: Path, changes: Sequence[str]) -> str:
    """The message for a folder of another configuration, with as many of the differences as it has room for."""
    head = f"{brief(path, 90)} belongs to another configuration:\n"
    tail = "Choose another output_dir=, undo the change, or go on with resume=force (finished trials are then reused)."
    told = ""
    for place, change in enumerate(changes):
        line, more = f"  {brief(change, 120)}\n", f"  and {len(changes) - place} more\n"
        if len(head + told + line + more + tail) > LONGEST_MESSAGE:
            return head + told + more + tail
        told += line
    return head + told + tail


def _raise_unwritable(path: Path, error: Exception) -> NoReturn:
    """Raise what says that a run folder cannot be taken: a full disk as it is, all else with what to do."""
    if isinstance(error, RunFolderError) or is_disk_full(error, path):
        raise error
    why = (isinstance(error, OSError) and error.strerror) or error  # the place is named already
    raise RunFolderError(
        f"The run folder {brief(path)} cannot be written ({brief(why)}). Choose another output_dir=."
    ) from error


class RunFolder:
    """A run folder, locked for this process while it is open.

    Nothing in it is changed before `accept` says that the command can be carried out: a command that is refused leaves
    the folder as it was.

    Args:
        path: The folder; created if it does not exist.
        config: The resolved configuration as plain data.
        force: Go on in a folder of another configuration, which is kept as `config.previous.yaml`.

    Raises:
        RunFolderError: The folder is not a run folder, cannot be written, is in use by another process, holds links
            that lead out of it, or belongs to another configuration (the message has the difference).

    Attributes:
        resumed: Whether results in it depend on its configuration already.
        changes: What differs from that configuration; only with `force` anything does.
        earlier: That configuration; this one, where nothing depends on one.
        then: Called once the command is accepted.
    """

    def __init__(self, path: Path, config: Mapping[str, Any], *, force: bool = False) -> None:
        self.path, self.config, self.force = path, config, force
        self.earlier = config
        self._log: FolderLog | None = None
        self._before: Snapshot | None = None
        self._accepted = False
        self.resumed = False
        self.changes: list[str] = []
        self.then: list[Callable[[], object]] = []
        self._new: list[Path] = []
        try:
            self._new = [folder for folder in (path, *path.parents) if not folder.exists()]
            if path.exists() and not path.is_dir():
                raise RunFolderError(f"{brief(path)} is a file, not a folder. Choose another output_dir=.")
            path.mkdir(parents=True, exist_ok=True)
            if not self.config_path.exists() and any(not _is_ours(entry) for entry in path.iterdir()):
                raise RunFolderError(
                    f"{brief(path)} is not a run folder: it is not empty and has no config.yaml. Nothing in it was "
                    "touched. Choose another output_dir=, or an empty folder."
                )
            self._lock = FolderLock(path)
        except (OSError, ValueError) as error:
            self._remove_new()
            _raise_unwritable(path, error)
        try:
            refuse_strange(path)
            self._next = self._compared(force)
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                _raise_unwritable(path, error)
            raise

    def _compared(self, force: bool) -> Mapping[str, Any]:
        """The configuration that is to be written, once it is compared with that of the folder."""
        # Before anything is measured or trained nothing depends on the configuration: a mistake in it may be corrected.
        if not self.config_path.exists() or not any((self.path / name).exists() for name in _BEGUN):
            return self.config
        self.earlier = old = self._read_config()
        self.changes = difference(old, self.config)
        self.resumed = True
        if not self.changes:
            return self._updated(old)
        if not force:
            raise RunFolderError(_another(self.path, self.changes))
        return self.config

    def _updated(self, old: dict[str, Any]) -> Mapping[str, Any]:
        """Take over keys without effect on results; but gates stay as they were registered."""
        new: dict[str, Any] = json.loads(json.dumps(self.config))
        gates = old.get("report", {}).get("gates") if isinstance(old.get("report"), dict) else None
        if gates is not None and "report" in new and new["report"].get("gates") != gates:
            new["report"]["gates"] = gates
            logging.getLogger("rankitect").warning("report.gates stay as they were when the run began")
        return new

    def remember(self) -> None:
        """Note how the folder is, for `revert`, before anything in it is changed. Twice does no harm."""
        if self._before is None:
            self._before = Snapshot(self.path, None if self.changes else (CONFIG, PREVIOUS))

    def accept(self) -> None:
        """Make the folder that of this command: its configuration and its log are written. Twice does no harm."""
        if self._accepted:
            return
        self.remember()
        self._accepted = True
        for left in self.path.glob(f".*{TEMPORARY}"):  # of a process that was killed while it wrote
            if not left.is_dir():
                left.unlink(missing_ok=True)
        if self.changes:
            write_whole(self.path / PREVIOUS, self.config_path.read_text(encoding="utf-8"))
        self._write_config(self._next)
        if self._log is not None:
            self._log.write_to(self.path / LOG)
        for work in self.then:
            work()

    def revert(self) -> None:
        """Give the folder back as it was before `accept`, for a command that is refused after all; nothing where the
        command has begun. What the command opened in the folder must be closed."""
        if self._before is not None:
            if self._log is not None:
                self._log.hold()
            self._before.restore()
            self._before, self._accepted = None, False

    def begin(self) -> None:
        """Note that the command is carried out: what happens to it from now on is no refusal. Twice does no harm."""
        if self._before is not None:
            self._before.discard()
            self._before = None

    def _write_config(self, config: Mapping[str, Any]) -> None:
        import yaml  # type: ignore[import-untyped]

        header = f"# The resolved configuration of this run. Hash: {config_hash(config)}\n"
        header += gates_header(config.get("report"))
        write_whole(self.config_path, header + yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))

    def _read_config(self) -> dict[str, Any]:
        advice = "Choose another output_dir=."
        text = read_text(self.config_path, RunFolderError, advice=advice)
        config = parse_yaml(text, dict[str, Any], self.config_path, RunFolderError, advice=advice)
        if problem := gates_problem(text, config.get("report")):
            raise RunFolderError(f"{brief(self.config_path)}: {problem}")
        return config

    @property
    def config_path(self) -> Path:
        """The resolved configuration."""
        return self.path / CONFIG

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
        """Let a logger append to log.txt and nothing else: other packages set up handlers that spoil the progress.

        What it says before `accept` is written then, or never.
        """
        self._log = FolderLog(logger)
        if self._accepted:
            self._log.write_to(self.path / LOG)

    def close(self) -> None:
        """Close log.txt and give the lock back; where the command was not accepted, the folder is as it was."""
        if self._log is not None:
            self._log.close()
            self._log = None
        self.begin()
        if self._accepted:
            self._lock.release()
        else:
            self._lock.undo()
            self._remove_new()

    def _remove_new(self) -> None:
        """Take away the folders that were made for this command, the innermost first, as far as they are empty."""
        for folder in self._new:
            try:
                folder.rmdir()
            except OSError:
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _is_ours(entry: Path) -> bool:
    """What a process killed before it wrote config.yaml may leave."""
    return entry.name == "study.lock" or (entry.name.startswith(".") and entry.name.endswith(TEMPORARY))
