"""Writing files so that a reader never sees half of one, and recognising a full disk whoever reports it."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rankitect.errors import DiskFullError

__all__ = ["copy_or_link", "explain_disk_full", "is_disk_full", "write_atomic"]

_FULL_ERRNO = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# Writers in other languages (safetensors, torch, SQLite) keep only the text of the operating system's error.
_FULL_TEXT = ("no space left on device", "database or disk is full", "disk quota exceeded", "file too large")
_FULL_SQLITE = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC}
_SMALLEST_USEFUL = 64 * 1024  # bytes free below which an unexplained write error is put down to the disk


def write_atomic(path: Path, text: str) -> None:
    """Write a UTF-8 text file through a temporary one beside it, flushed to the disk before it takes the name."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def copy_or_link(source: Path, target: Path) -> None:
    """Give a file a second name, as a hard link where the file system can (weights are large), else as a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def is_disk_full(error: BaseException, folder: Path | None = None) -> bool:
    """Whether an exception, or what caused it, says that no space is left.

    Args:
        error: Any exception.
        folder: Where the writing went; with it, a write error of unknown kind on a full disk counts as well.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, DiskFullError):
            return True
        if isinstance(seen, OSError) and seen.errno in _FULL_ERRNO:
            return True
        if isinstance(seen, sqlite3.Error) and getattr(seen, "sqlite_errorcode", None) in _FULL_SQLITE:
            return True
        if any(text in str(seen).lower() for text in _FULL_TEXT):
            return True
        seen = seen.__cause__ or seen.__context__
    if folder is None or not isinstance(error, (OSError, sqlite3.Error, RuntimeError)):
        return False
    try:
        return shutil.disk_usage(folder).free < _SMALLEST_USEFUL
    except OSError:
        return False


@contextmanager
def explain_disk_full(folder: Path, kept: object, resume: str) -> Iterator[None]:
    """Turn any sign of a full disk into one sentence for the user.

    Args:
        folder: The run folder.
        kept: What is safe ("7 finished trials"); made into text when it is needed.
        resume: The command to go on with.

    Raises:
        DiskFullError: In place of the exception that showed the disk to be full.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, DiskFullError) or not is_disk_full(error, folder):
            raise
        raise DiskFullError(
            f"No space is left on the disk of {folder} ({error}). Kept: {kept}. Free some space, or move the whole "
            f"folder to a larger disk and pass its new place as output_dir=, then go on with: {resume}"
        ) from error
