"""The files inside a Debian package, read without installing it.

A package is an `ar` archive (deb(5)) of three members; `data.tar`, packed or not, holds the files. Everything is
bounded, and nothing is written to where its name says.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from typing import IO, Any

from rankitect.data.guard import guarded
from rankitect.errors import DataError

__all__ = ["data_archive", "is_package", "read_file", "regular_files"]

_MAGIC, _HEADER = b"!<arch>\n", 60
_CHUNK = 1 << 20
MOST_UNPACKED = 1 << 31
"""Bytes that a package's files may have together."""


def is_package(head: bytes) -> bool:
    """Whether a file begins as a package does."""
    return head.startswith(_MAGIC)


def data_archive(package: bytes, what: str) -> tarfile.TarFile:
    """The archive of a package's files.

    Args:
        package: The whole package.
        what: How messages name it.

    Raises:
        DataError: It is no package, or is damaged.
    """
    name, packed = _data_member(package, what)
    with guarded(f"{what} holds no archive of files", DataError):
        if name.endswith(".zst"):  # as Ubuntu packs them; the standard library cannot
            import pyarrow as pa

            with pa.CompressedInputStream(pa.BufferReader(packed), "zstd") as stream:
                packed = stream.read(MOST_UNPACKED + 1)
            if len(packed) > MOST_UNPACKED:
                raise DataError(f"{what} unpacks into more than {MOST_UNPACKED:,} bytes.")
        return tarfile.open(fileobj=io.BytesIO(packed), mode="r:*")


def regular_files(archive: tarfile.TarFile, most: int) -> Iterator[tarfile.TarInfo]:
    """The plain files of an archive, without links and devices.

    Args:
        archive: The archive.
        most: Bytes that all its members may have together. They are looked at as they come: to get to the next one, a
            packed one has to be unpacked.

    Raises:
        ValueError: They have more, or the archive ends too early or is damaged.
    """
    total = 0
    for info in archive:
        total += max(info.size, 0)
        if total > most:
            raise ValueError(f"its files have more than {most:,} bytes")
        if info.isreg():
            yield info
    # `tarfile` takes a header that is cut or damaged for the end of the archive, which is a block of zeros.
    stream: Any = archive.fileobj
    stream.seek(archive.offset)
    if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise ValueError(f"it is damaged, or ends too early, at byte {archive.offset:,} of what is packed in it")
    while more := stream.read(_CHUNK):  # what packed it keeps its checksum at the very end
        total += len(more)
        if total > most:
            raise ValueError(f"it has more than {most:,} bytes")


def read_file(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    """The bytes of a plain file of an archive."""
    stream: IO[bytes] | None = archive.extractfile(info)
    assert stream is not None, "a plain file has bytes"
    return stream.read()


def _data_member(package: bytes, what: str) -> tuple[str, bytes]:
    """Name and bytes of the member with the files."""
    place = len(_MAGIC)
    while is_package(package) and place + _HEADER <= len(package):
        header = package[place : place + _HEADER]
        name = header[:16].decode("ascii", "replace").strip().removesuffix("/")
        digits = header[48:58].strip()
        if header[58:] != b"`\n" or not digits.isdigit():
            break
        begin, size = place + _HEADER, int(digits)
        if begin + size > len(package):
            raise DataError(f"{what} is truncated.")
        if name.startswith("data.tar"):
            return name, package[begin : begin + size]
        place = begin + size + size % 2
    raise DataError(f"{what} is no Debian package, or is damaged.")
