"""What this process may use of the machine it runs on, and what its disk says."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

__all__ = ["SMALLEST_USEFUL", "causes_of", "is_disk_full", "usable_cores"]

_FULL_ERRNO = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# Writers in other languages (safetensors, torch, SQLite) keep only the text of the operating system's error.
_FULL_TEXT = ("no space left on device", "database or disk is full", "disk quota exceeded", "file too large")
_FULL_SQLITE = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC}
SMALLEST_USEFUL = 64 * 1024  # bytes free below which an unexplained write error is put down to the disk


def usable_cores() -> int:
    """Processors that this process may run on: fewer than the machine has, where a container or `taskset` says so."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS has no such call
        return os.cpu_count() or 1


def is_disk_full(error: BaseException, folder: Path | None = None) -> bool:
    """Whether an exception, or what caused it, says that no space is left.

    Args:
        error: Any exception.
        folder: Where the writing went; with it, a write error of unknown kind on a full disk counts as well.
    """
    for seen in causes_of(error):
        if isinstance(seen, OSError) and seen.errno in _FULL_ERRNO:
            return True
        if isinstance(seen, sqlite3.Error) and getattr(seen, "sqlite_errorcode", None) in _FULL_SQLITE:
            return True
        if any(text in str(seen).lower() for text in _FULL_TEXT):
            return True
    if folder is None or not isinstance(error, (OSError, sqlite3.Error, RuntimeError)):
        return False
    try:
        return shutil.disk_usage(folder).free < SMALLEST_USEFUL
    except OSError:
        return False


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """An exception and what caused it."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__
