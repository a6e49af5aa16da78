"""Files that a reader never sees half of, their hashes, and a lock for a folder."""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["TEMPORARY", "file_sha256", "folder_bytes", "folder_lock", "write_atomically", "write_whole"]


TEMPORARY = ".part"
"""How the name of a file ends that is still being written; it begins with a dot."""


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, lower-case hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file so that a reader sees the old content or the whole new one, never a part.

    Args:
        path: The file to create or replace. Its folder must exist.
        write: Called with a temporary path in the same folder; it must create that file.
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}{TEMPORARY}")
    try:
        write(part)
        part.chmod(0o644)  # safetensors makes files that only their owner can read
        with part.open("rb+") as file:
            os.fsync(file.fileno())  # a rename may reach the disk before the bytes do
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write bytes, or text in UTF-8, so that a reader sees the old content or the whole new one."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    write_atomically(path, lambda part: part.write_bytes(data))


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
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield True  # closing the file releases the lock, also when the process is killed
