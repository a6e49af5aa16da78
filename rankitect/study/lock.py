"""One process at a time works on a run folder, and a second one is told who holds it."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Self

from rankitect.data.files import open_plain
from rankitect.errors import RunFolderError, brief, safe

__all__ = ["FolderLock"]

_LONGEST = 1 << 20
"""Bytes of the file that are read; it holds about a hundred."""
_LAST = 2**34
"""Seconds since 1970 beyond which a time is nonsense."""
_FAR = 1 << 30  # Windows locks are mandatory: lock a byte beyond the text, so that others can still read who it is


def _try_lock(file: IO[bytes]) -> bool:
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
        OSError: The file cannot be written, or is a link, a pipe or a device.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "study.lock"
        self._fresh = not self.path.exists()
        self._file: IO[bytes] | None = self._locked(folder)
        self._before = self._file.read(_LONGEST)
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "started": time.time()}
        try:
            self._write(json.dumps(holder).encode())
        except OSError:
            self.undo()
            raise

    def _locked(self, folder: Path) -> IO[bytes]:
        """The file, once it is locked and still the one of that name: a refused command takes its new file away."""
        while True:
            descriptor = open_plain(self.path, os.O_RDWR | os.O_CREAT)
            file = os.fdopen(descriptor, "r+b")
            if not _try_lock(file):
                file.close()
                raise RunFolderError(self._holder(folder))
            try:
                if os.path.samestat(os.fstat(descriptor), self.path.lstat()):
                    file.seek(0)
                    return file
            except FileNotFoundError:
                pass
            file.close()

    def _holder(self, folder: Path) -> str:
        holder = self._read()
        started = holder.get("started")
        since = ""
        if isinstance(started, (int, float)) and 0 <= started < _LAST:
            since = time.strftime(" since %Y-%m-%d %H:%M:%S", time.localtime(started))
        pid, host = (str(holder.get(key, "?"))[:80] for key in ("pid", "host"))
        who = f"process {pid} on host {host}{since}"
        return (
            f"The study in {brief(folder)} is in use by {safe(who)}. Wait for it, stop it with Ctrl-C, or choose "
            "another output_dir=."
        )

    def _write(self, content: bytes) -> None:
        assert self._file is not None
        self._file.seek(0)
        self._file.truncate()
        self._file.write(content)
        self._file.flush()

    def _read(self) -> dict[str, Any]:
        try:
            with self.path.open("rb") as file:
                holder = json.loads(file.read(_LONGEST))
        except (OSError, ValueError, RecursionError):  # it was being written this moment
            return {}
        return holder if isinstance(holder, dict) else {}

    def undo(self) -> None:
        """Leave the file as it was before, and give the lock back."""
        if self._file is None:
            return
        with suppress(OSError):  # a full disk, perhaps
            if self._fresh:
                self.path.unlink()
            else:
                self._write(self._before)
        self.release()

    def release(self) -> None:
        """Give the lock back. Calling it twice does no harm."""
        if self._file is not None:
            with suppress(OSError):  # what a full disk did not take is written again on closing
                self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()
