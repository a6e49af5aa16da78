"""Recognising a disk that cannot be written, whoever reports it, and explaining it to the user; files by hard links."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from rankitect.data.files import TEMPORARY
from rankitect.errors import DiskError, RunFolderError, brief
from rankitect.machine import SMALLEST_USEFUL, causes_of, is_disk_full

__all__ = [
    "can_write",
    "copy_or_link",
    "describe",
    "disk_trouble",
    "explain_disk_trouble",
    "inside",
    "is_disk_full",
    "is_inside",
    "is_within",
]

_BROKEN_ERRNO = {errno.EROFS, errno.EIO, errno.ESTALE, errno.ENODEV}
_BROKEN_SQLITE = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_PERM}
_DENIED_TEXT = ("permission denied", "read-only", "readonly", "unable to open database", "disk i/o error")


def copy_or_link(source: Path, target: Path) -> None:
    """Give a file a second name, as a hard link where the file system can (weights are large), else as a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def is_inside(path: str) -> bool:
    """Whether a path, as a run folder's own files name others, stays inside of it: relative, with "/", without ".."."""
    parts = PurePosixPath(path).parts
    return bool(parts) and parts[0] != "/" and ".." not in parts and not any(c in path for c in "\\:\0")


def is_within(place: Path, folder: Path) -> bool:
    """Whether a path, its links followed, leads to something in a folder, or to nothing that is there."""
    try:
        target = os.path.realpath(place, strict=os.path.lexists(place))
    except OSError:  # links in a circle, or to nothing
        return False
    return Path(target).is_relative_to(os.path.realpath(folder))


def inside(folder: Path, path: str) -> Path:
    """The file or folder that a path of a run folder's own files means.

    Args:
        folder: The run folder.
        path: As in `artifacts`.

    Raises:
        RunFolderError: It is outside of the run folder, perhaps by a link, or is a link that leads nowhere.
    """
    place = folder / path
    if not is_inside(path) or not is_within(place, folder):
        raise RunFolderError(f"{brief(folder)} names a file outside of itself, which is not used: {path[:100]!a}.")
    return place


def can_write(folder: Path) -> bool:
    """Whether a folder takes a small file, which is tried: where it does, the disk is not to blame for an error."""
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=".", suffix=TEMPORARY) as file:
            file.write(bytes(SMALLEST_USEFUL))
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        return False
    return True


def disk_trouble(error: BaseException, folder: Path | None = None) -> int:
    """The `errno` of what is wrong with the disk that results go to, if that is what an exception shows; else 0.

    A candidate is not to blame for a full disk, a folder that became read-only, or a file system that went away.

    Args:
        error: Any exception.
        folder: Where the writing went; without it, missing rights are not put down to the disk.
    """
    if is_disk_full(error, folder):
        return errno.ENOSPC
    for seen in causes_of(error):
        if isinstance(seen, DiskError):
            return errno.EIO
        if isinstance(seen, OSError) and seen.errno in _BROKEN_ERRNO:
            return seen.errno
        if isinstance(seen, sqlite3.Error) and getattr(seen, "sqlite_errorcode", 0) & 0xFF in _BROKEN_SQLITE:
            return errno.EIO if folder is None or os.access(folder, os.W_OK) else errno.EACCES
        denied = any(text in str(seen).lower() for text in _DENIED_TEXT)
        if folder is not None and denied and not _writable(folder, getattr(seen, "filename", None)):
            return errno.EACCES
    return 0


def _writable(folder: Path, file: object) -> bool:
    """Whether a folder, and the place of a file in it that could not be written, can be written."""
    place = Path(file).parent if isinstance(file, str) and Path(file).is_relative_to(folder) else folder
    return os.access(folder, os.W_OK) and os.access(place, os.W_OK)


def describe(trouble: int, folder: Path) -> tuple[str, str]:
    """What is wrong with the disk of a folder, and what to do about it, each without its full stop."""
    if trouble == errno.ENOSPC:
        return f"No space is left on the disk of {folder}", "Free some space"
    if trouble in (errno.EACCES, errno.EROFS):
        return f"{folder} cannot be written any more ({os.strerror(trouble)})", "Give the right to write in it back"
    return f"The disk of {folder} fails ({os.strerror(trouble)})", "Mend it"


@contextmanager
def explain_disk_trouble(folder: Path, kept: Callable[[], str], resume: str) -> Iterator[None]:
    """Turn any sign of a disk that cannot be written into one sentence for the user.

    Args:
        folder: The run folder.
        kept: Says what is safe at that moment ("7 finished trials").
        resume: The command to go on with.

    Raises:
        DiskError: In place of the exception that showed it.
    """
    try:
        yield
    except Exception as error:
        trouble = 0 if isinstance(error, DiskError) else disk_trouble(error, folder)
        if not trouble:
            raise
        what, remedy = describe(trouble, folder)
        raise DiskError(
            f"{what} ({error}). Kept: {kept()}. {remedy}, or move the whole folder to another disk and pass its new "
            f"place as output_dir=, then go on with: {resume}"
        ) from error
