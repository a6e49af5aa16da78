"""A run folder as it was before a command changed anything in it: for a command that is refused after all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from rankitect.data.files import TEMPORARY
from rankitect.study.entries import IN_PLACE
from rankitect.study.files import copy_or_link

__all__ = ["KEPT", "LOG", "Snapshot"]

LOG = "log.txt"
KEPT = f".before{TEMPORARY}"
"""Folder of a snapshot, in the run folder. One that is there when a command begins was left by a process that was
killed, and is of no use."""
_NOT_KEPT = (LOG, "study.lock", KEPT)
"""The log is cut off where it ended, and the lock is its holder's."""


class Snapshot:
    """The content of a run folder.

    Files that are replaced and never written in place get a second name, which takes no time and no space; others are
    copied.

    Args:
        folder: The run folder.
        only: Names of the files that the command may change; None: it may change all.
    """

    def __init__(self, folder: Path, only: tuple[str, ...] | None = None) -> None:
        self._folder, self._kept, self._only = folder, folder / KEPT, only
        self._folders: set[Path] = set()
        log = folder / LOG
        self._length = log.stat().st_size if log.exists() else None
        self.discard()
        self._kept.mkdir()
        try:
            for path in self._entries():
                self._keep(path)
        except BaseException:
            self.discard()
            raise

    def _keep(self, path: Path) -> None:
        kept = self._kept / path.relative_to(self._folder)
        if path.is_dir():
            self._folders.add(path)
        elif path.parent == self._folder and path.name in IN_PLACE:
            shutil.copy2(path, kept)
        else:
            copy_or_link(path, kept)

    def _entries(self) -> Iterator[Path]:
        """Everything that is kept, folders before what is in them."""
        for entry in sorted(self._folder.iterdir()):
            if entry.name not in _NOT_KEPT and (self._only is None or entry.name in self._only):
                yield entry
                if entry.is_dir():
                    yield from sorted(entry.rglob("*"))

    def restore(self) -> None:
        """Make the folder so again. Nothing may have a file of it open."""
        for path in [*self._entries()][::-1]:
            if path.is_dir():
                if path not in self._folders:
                    path.rmdir()
            elif not (self._kept / path.relative_to(self._folder)).exists():
                path.unlink()
        for path in sorted(self._folders):
            path.mkdir(exist_ok=True)
        for kept in [path for path in self._kept.rglob("*") if not path.is_dir()]:
            path = self._folder / kept.relative_to(self._kept)
            if not path.exists() or not os.path.samefile(kept, path):
                os.replace(kept, path)
        with suppress(OSError):
            if self._length is None:
                (self._folder / LOG).unlink(missing_ok=True)
            else:
                os.truncate(self._folder / LOG, self._length)
        self.discard()

    def discard(self) -> None:
        """Forget it: the command is carried out."""
        shutil.rmtree(self._kept, ignore_errors=True)
