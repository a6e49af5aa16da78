"""One process at a time works on a run folder, and a second one is told who holds it."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import IO, Any, Self

from rankitect.errors import RunFolderError

__all__ = ["FolderLock"]

_FAR = 1 << 30  # Windows locks are mandatory: lock a byte beyond the text, so that others can still read who it is


def _try_lock(file: IO[str]) -> bool:
    """Take the operating system's lock, which ends with the process however it ends (kill -9 included)."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(_FAR)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


class FolderLock:
    """An exclusive lock on a folder, held until `release` or the end of the process.

    Args:
        folder: An existing folder; the file `study.lock` is put in it and stays there.

    Raises:
        RunFolderError: Another process holds it; the message says which.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "study.lock"
        self._file: IO[str] | None = self.path.open("a+", encoding="utf-8")
        if not _try_lock(self._file):
            holder = self._read()
            self._file.close()
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder.get("started", 0)))
            raise RunFolderError(
                f"The study in {folder} is in use by process {holder.get('pid', '?')} on host "
                f"{holder.get('host', '?')} since {since}. Wait for it, stop it with Ctrl-C, "
                "or choose another output_dir=."
            )
        self._file.seek(0)
        self._file.truncate()
        json.dump({"pid": os.getpid(), "host": socket.gethostname(), "started": time.time()}, self._file)
        self._file.flush()

    def _read(self) -> dict[str, Any]:
        try:
            holder = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # it was being written this moment
            return {}
        return holder if isinstance(holder, dict) else {}

    def release(self) -> None:
        """Give the lock back. Calling it twice does no harm."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()
