"""Files that a reader never sees half of, files that are no links, their hashes, and a lock for a folder."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from rankitect.documents import AT_ONCE

__all__ = [
    "TEMPORARY",
    "file_sha256",
    "folder_bytes",
    "folder_lock",
    "open_plain",
    "what_kind",
    "write_atomically",
    "write_whole",
]


TEMPORARY = ".part"
"""How the name of a file ends that is still being written; it begins with a dot."""
_DEVICES = "/dev"
_LONGEST = 200
"""Characters of a file's name that the temporary name keeps: a name may be 255 bytes long, and this one adds some."""


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, lower-case hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file so that a reader sees the old content or the whole new one, never a part.

    The file gets the rights that the process's umask leaves to new files, whoever writes it.

    Args:
        path: The file to create or replace. Its folder must exist.
        write: Called with a temporary path in the same folder, an empty file; it must write or replace that file.

    Raises:
        OSError: The disk is full or cannot be written, or the path leads to a device or a pipe; nothing is left behind.
    """
    _refuse_device(path)
    part = path.with_name(f".{path.name[:_LONGEST]}.{uuid.uuid4().hex[:12]}{TEMPORARY}")
    try:
        # The mode that the user's umask gives; safetensors, for one, makes files that only their owner can read.
        descriptor = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        os.close(descriptor)
        _written(part, write)
        part.chmod(mode)
        with part.open("rb+") as file:
            os.fsync(file.fileno())  # a rename may reach the disk before the bytes do
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _refuse_device(path: Path) -> None:
    """Refuse to replace what is no plain file. Where root writes to `/dev/null`, it would be a file from then on."""
    kind = ""
    with contextlib.suppress(OSError):  # there is nothing yet, or nothing that can be reached
        kind = what_kind(path.stat())
    # /dev/stdout is a link, to a file where output goes into one.
    if not kind and os.path.realpath(path.parent) == _DEVICES:
        kind = "a device"
    if kind:
        raise OSError(errno.EINVAL, f"{path.name} is {kind}, not a file", str(path))


def _written(part: Path, write: Callable[[Path], object]) -> None:
    """Call a writer. An error of the system that a library in Rust knows only as a text becomes an `OSError` again."""
    try:
        write(part)
    except Exception as error:
        number = None if isinstance(error, OSError) else re.search(r"\(os error (\d{1,3})\)", str(error))
        if number is None:
            raise
        code = int(number[1])
        raise OSError(code, os.strerror(code), str(part)) from error


def write_whole(path: Path, content: str | bytes) -> None:
    """Write bytes, or text in UTF-8, so that a reader sees the old content or the whole new one."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    write_atomically(path, lambda part: part.write_bytes(data))


def what_kind(status: os.stat_result) -> str:
    """What an entry of a folder is, in words, where it is neither a folder nor a plain file; "" where it is."""
    if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
        return ""
    kinds = {stat.S_IFLNK: "a symbolic link", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(status.st_mode), "a device")


def open_plain(path: Path, flags: int) -> int:
    """Open a file that has one name and is no link, no pipe and no device; made where `flags` say so.

    What is written in place could otherwise go into a file elsewhere, and opening a pipe could wait for ever.

    Args:
        path: The file. Links in the path of its folder are followed.
        flags: As for `os.open`.

    Returns:
        A file descriptor.

    Raises:
        OSError: It is something else, or cannot be opened.
    """
    flags |= getattr(os, "O_NOFOLLOW", 0) | AT_ONCE
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise
        kind = "a folder" if path.is_dir() else what_kind(path.lstat())
        raise OSError(error.errno, f"{path.name} is {kind}, not a file", str(path)) from error
    status = os.fstat(descriptor)
    kind = "a folder" if stat.S_ISDIR(status.st_mode) else what_kind(status)
    if kind or status.st_nlink > 1:
        os.close(descriptor)
        problem = f"is {kind}, not a file" if kind else "has another name elsewhere (it is a hard link)"
        raise OSError(errno.ELOOP, f"{path.name} {problem}", str(path))
    return descriptor


def folder_bytes(folder: Path) -> int:
    """Size of all files below a folder, bytes; files that vanish meanwhile are not counted."""
    total = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += file.stat().st_size if file.is_file() else 0
    return total


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[bool]:
    """Let one process at a time work in a folder; gives True if that is certain.

    Where the system has no such lock, the atomic rename still keeps files whole.
    """
    try:
        import fcntl
    except ImportError:
        yield False
        return
    with os.fdopen(open_plain(folder / ".lock", os.O_CREAT | os.O_RDWR), "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield True  # closing the file releases the lock, also when the process is killed
