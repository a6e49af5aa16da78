"""Outputs of stages on disk, each under the hash of everything that led to it, so that nobody pays for one twice.

The store lies in the cache (`stages` in `rankitect.data.assets.cache_root()`) and is shared by all runs of a user. It
holds at most `RANKITECT_STAGES_GIB` gibibytes (8 by default, 0 keeps nothing); beyond that the entries that were used
least recently go. A store that cannot be read or written costs only the reuse, never a run.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankitect.data.assets import cache_root
from rankitect.errors import ConfigError, TrainingError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LIMIT_VARIABLE", "StageStore"]

LIMIT_VARIABLE = "RANKITECT_STAGES_GIB"
_DEFAULT_GIB = 8.0
_ABANDONED_SECONDS = 24 * 3600.0
"""Age of a half-written file after which the process that wrote it is taken to be gone."""
_log = logging.getLogger(__name__)


class StageStore:
    """Tensors and plain data by key, in safetensors files that are written atomically.

    Args:
        root: The folder; by default `stages` in `cache_root()`.
        limit: Bytes that all files may take; by default `RANKITECT_STAGES_GIB`.

    Raises:
        ConfigError: `RANKITECT_STAGES_GIB` is no number of at least 0.
    """

    def __init__(self, root: Path | None = None, limit: int | None = None) -> None:
        self.root = cache_root() / "stages" if root is None else root
        self.limit = _limit() if limit is None else limit

    def load(self, key: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The entry of a key; None where there is none, or only a damaged one, which is then deleted."""
        from rankitect.training.checkpoint import load_state

        path = self._path(key)
        if not self.limit or not path.exists():
            return None
        try:
            entry = load_state(path)
            os.utime(path)  # the least recently used entries go first
        except (TrainingError, OSError) as error:
            self.reject(key, str(error))
            return None
        return entry

    def reject(self, key: str, reason: str) -> None:
        """Delete an entry that cannot be used, and say so."""
        _log.warning("The stored output of a stage cannot be used and is computed again: %s", reason)
        _delete(self._path(key))

    def save(self, key: str, tensors: Mapping[str, Tensor], info: Mapping[str, Any]) -> None:
        """Keep an entry, unless it alone is larger than the limit or the disk does not take it."""
        from safetensors import SafetensorError  # which is also what a full disk raises

        from rankitect.training.checkpoint import save_state

        size = _file_bytes(tensors, info)
        if size > self.limit:
            return
        try:
            self._make_room(size, spare=self.checkpoint(key))
            save_state(self._path(key), tensors, info)
        except (OSError, SafetensorError) as error:
            _log.warning("The output of a stage is not kept for reuse in %s: %s", self.root, error)

    def checkpoint(self, key: str) -> Path | None:
        """File for the state of the stage whose output this key is of; None where the store keeps nothing."""
        return self.root / key[:2] / f"{key}.state.safetensors" if self.limit else None

    def _path(self, key: str) -> Path:
        return self.root / key[:2] / f"{key}.safetensors"

    def forget_checkpoint(self, path: Path) -> None:
        """Delete the state of a finished stage."""
        _delete(path)

    def _make_room(self, size: int, spare: Path | None) -> None:
        """Delete what was used least recently until an entry of this size fits, and what killed processes left.

        Args:
            size: Of the entry, bytes.
            spare: The state that the entry replaces: it is deleted once the entry is there, and does not count.
        """
        files = []
        for path in self.root.glob("*/*"):
            try:
                stat = path.stat()
            except OSError:  # another process was faster
                continue
            if path.name.endswith(".part") and time.time() - stat.st_mtime > _ABANDONED_SECONDS:
                _delete(path)
            elif path.name.endswith(".safetensors") and path != spare:
                files.append((stat.st_mtime, stat.st_size, path))
        total = sum(size for _, size, _ in files)
        for _, freed, path in sorted(files):
            if total + size <= self.limit:
                return
            _delete(path)
            total -= freed


def _limit() -> int:
    text = os.environ.get(LIMIT_VARIABLE, "").strip()
    try:
        gib = float(text) if text else _DEFAULT_GIB
    except ValueError:
        gib = -1.0
    if not 0 <= gib < float("inf"):
        raise ConfigError(f"{LIMIT_VARIABLE} is {text!r}: it must be a number of gibibytes, at least 0.")
    return int(gib * 2**30)


def _file_bytes(tensors: Mapping[str, Tensor], info: Mapping[str, Any]) -> int:
    """About the size of a file of these tensors, its header included."""
    header = len(json.dumps(info)) + sum(len(name) + 100 for name in tensors)
    return header + sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _delete(path: Path) -> None:
    with suppress(OSError):  # another process was faster, or nothing could be written there in the first place
        path.unlink(missing_ok=True)
