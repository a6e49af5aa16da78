"""The files that a path stands for, those inside of archives included, as names with bytes.

Nothing is unpacked to the disk, so that a name that leads out of an archive leads nowhere. What an archive claims is
checked before it is read: sizes, their sum against the archive's own, kinds of entries.
"""

from __future__ import annotations

import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rankitect.data.debian import data_archive, read_file, regular_files
from rankitect.data.guard import guarded
from rankitect.data.images.decode import named
from rankitect.data.storage import DataFile, list_files, open_raw, size_of
from rankitect.errors import DataError

__all__ = ["ARCHIVES", "Member", "Members"]

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".deb")
LARGEST = 1 << 31
"""Bytes of one member."""
_FREE, _RATIO = 1 << 30, 400
"""Bytes that may come out of an archive: so many for nothing, and so many for each of its own."""
_MOST = 5_000_000
"""Members of an archive."""


@dataclass(frozen=True)
class Member:
    """A file of a folder or an archive.

    Attributes:
        name: Its path below the folder, or inside the archive, with "/".
        size: Bytes.
        read: Its bytes.
        file: The file itself, where it lies in no archive.
    """

    name: str
    size: int
    read: Callable[[], bytes]
    file: DataFile | None = None

    @property
    def base(self) -> str:
        """The last part of its name."""
        return self.name.rpartition("/")[2]


class Members:
    """The files that a path stands for. A context manager, as archives stay open while their members are read.

    Args:
        path: A file, folder, glob or URI.
        key: The key of the configuration that has the path, for messages.

    Attributes:
        files: The files and archives themselves.
        folders: Folders without any file, of a folder of this machine or an archive that lists them.

    Raises:
        DataError: There is no such file, or an archive cannot be read.
    """

    def __init__(self, path: str, key: str) -> None:
        self._open = ExitStack()
        listed = list_files(path, ("",), key, deep=True)
        self.files: Sequence[DataFile] = [each.file for each in listed]
        self.folders: list[str] = _empty_folders(path)
        self._members: list[Member] = []
        with ExitStack() as stack:
            stack.callback(self.close)
            for each in listed:
                if each.file.name.lower().endswith(ARCHIVES):
                    self._members += self._inside(each.file)
                else:
                    size = size_of(each.file)
                    self._members.append(Member(each.inside, size, partial(_read_file, each.file, size), each.file))
            stack.pop_all()

    def __iter__(self) -> Iterator[Member]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __enter__(self) -> Members:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the archives."""
        self._open.close()

    def _inside(self, file: DataFile) -> list[Member]:
        """The members of an archive."""
        called = named(str(file))
        with guarded(f"{called} cannot be read as an archive", DataError):
            raw = self._open.enter_context(open_raw(file))
            opened = self._zipped(raw, file) if file.name.lower().endswith(".zip") else self._tarred(raw, file)
        if len(opened) > _MOST:
            raise DataError(f"{called} has more than {_MOST:,} files.")
        return opened

    def _zipped(self, raw: Any, file: DataFile) -> list[Member]:
        archive, called = self._open.enter_context(zipfile.ZipFile(raw)), named(str(file))
        infos = archive.infolist()
        _bounded([info.file_size for info in infos], file)
        self.folders += _childless([info.filename for info in infos])
        return [
            Member(info.filename, info.file_size, partial(_read_zipped, archive, info, called))
            for info in infos
            if not info.is_dir() and _wanted(info.filename)
        ]

    def _tarred(self, raw: Any, file: DataFile) -> list[Member]:
        called, size = named(str(file)), size_of(file)
        if file.name.lower().endswith(".deb"):
            if size > LARGEST:
                raise DataError(f"{called} has {size:,} bytes, of which at most {LARGEST:,} are read.")
            archive = data_archive(raw.read(), called)
        else:
            archive = tarfile.open(fileobj=raw, mode="r:*")  # noqa: SIM115 - entered in the next line
        self._open.enter_context(archive)
        infos = list(regular_files(archive, _most_of(size)))
        _bounded([info.size for info in infos], file)
        return [
            Member(info.name.removeprefix("./"), info.size, partial(_read_tarred, archive, info, called))
            for info in infos
            if _wanted(info.name)
        ]


def _most_of(packed: int) -> int:
    return max(_FREE, _RATIO * packed)


def _bounded(sizes: Sequence[int], file: DataFile) -> None:
    """Refuse an archive that is made to fill memory or a disk."""
    if max(sizes, default=0) > LARGEST or sum(sizes) > _most_of(size_of(file)):
        raise ValueError(
            f"it claims to hold {sum(sizes):,} bytes, the largest of its files {max(sizes):,}: more than "
            f"{_RATIO} times its size, or {LARGEST:,} for a file"
        )


def _wanted(name: str) -> bool:
    """Whether a name is no hidden file, as macOS adds to archives."""
    return not any((part.startswith(".") and part not in (".", "..")) or part == "__MACOSX" for part in name.split("/"))


def _read_file(file: DataFile, size: int) -> bytes:
    if size > LARGEST:
        raise DataError(f"{named(str(file))} has {size:,} bytes, of which at most {LARGEST:,} are read.")
    with guarded(f"{named(str(file))} cannot be read", DataError), open_raw(file) as stream:
        data: bytes = stream.read()
    return data


def _read_zipped(archive: zipfile.ZipFile, info: zipfile.ZipInfo, called: str) -> bytes:
    with guarded(f"{named(info.filename)} cannot be read from {called}", DataError), archive.open(info) as stream:
        data = stream.read(info.file_size + 1)
        if len(data) != info.file_size:
            raise ValueError(f"it has not the {info.file_size:,} bytes that are claimed")
    return data


def _read_tarred(archive: tarfile.TarFile, info: tarfile.TarInfo, called: str) -> bytes:
    with guarded(f"{named(info.name)} cannot be read from {called}", DataError):
        data = read_file(archive, info)
        if len(data) != info.size:
            raise ValueError("it ends too early")
    return data


def _childless(names: Sequence[str]) -> list[str]:
    """Folders of an archive's list that hold nothing."""
    above = {name.rstrip("/").rpartition("/")[0] for name in names}
    parents = {"/".join(parts[:end]) for name in above for parts in [name.split("/")] for end in range(len(parts) + 1)}
    return [name.rstrip("/") for name in names if name.endswith("/") and name.rstrip("/") not in parents]


def _empty_folders(path: str) -> list[str]:
    """Folders below a folder of this machine without a file in them or below; none where the path is none."""
    try:
        root = Path(path).expanduser()
        if not root.is_dir():
            return []
    except (OSError, RuntimeError, ValueError):
        return []
    empty: set[str] = set()
    for folder, below, files in os.walk(root, topdown=False):
        inside = Path(folder).relative_to(root).as_posix()
        children = [f"{inside}/{name}" if inside != "." else name for name in below if not name.startswith(".")]
        if not any(not name.startswith(".") for name in files) and all(child in empty for child in children):
            empty.add(inside)
    return sorted(empty - {"."})
