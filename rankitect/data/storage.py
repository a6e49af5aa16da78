"""Where data lie: files of this machine or of an object store, named by a path, a glob, a folder or a URI.

Everything goes through pyarrow's file systems, so that S3, Google Cloud, Azure and HDFS are read as a disk is. Nothing
is copied to this machine: readers take as much of a file as they ask for.
"""

from __future__ import annotations

import fnmatch
import re
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from rankitect.errors import DataError, safe, short

__all__ = [
    "DataFile",
    "Listed",
    "StoredFile",
    "list_files",
    "local_path",
    "modified_ns",
    "open_raw",
    "problem_of_place",
    "size_of",
]

_URI = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]+)://")
_OPTIONS = re.compile(r"\?\w+=.*$", re.DOTALL)
"""Of the store, at the end of a URI: `?region=eu-central-1`."""
_SECRET = re.compile(r"(^|&)[^=]*(key|secret|token|password|sas|sig)[^=]*=", re.IGNORECASE)
_WILD = re.compile(r"[*?\[]")
_PARTITION = re.compile(r"^([^=]+)=(.*)$", re.DOTALL)
_NULL = "__HIVE_DEFAULT_PARTITION__"
"""What Hive and Spark call the folder of rows that have no value."""
MOST_FILES = 100_000
"""Files of one data set, beyond which something is wrong with the folder that was named."""
_DEEPEST = 32
"""Folders inside each other that `**` goes down, as links may lead in a circle."""


@dataclass(frozen=True)
class StoredFile:
    """A file of an object store, or of any file system that is not this machine's.

    Attributes:
        path: Its path in the file system.
        shown: How messages name it.
        size: Bytes.
        modified: When it was written, nanoseconds since 1970, or None where the store does not say.
        filesystem: The `pyarrow.fs.FileSystem`.
    """

    path: str
    shown: str
    size: int
    modified: int | None
    filesystem: Any = field(compare=False, repr=False)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return PurePosixPath(self.path).name

    def __str__(self) -> str:
        return self.shown


DataFile = Path | StoredFile


@dataclass(frozen=True)
class Listed:
    """A file of a data set.

    Attributes:
        file: The file.
        inside: Its path below the folder or the fixed part of the glob.
        partition: Columns that the names of its folders give, as `day=2024-05-31`, those of the path that was given
            included; None is a missing value.
    """

    file: DataFile
    inside: str
    partition: Mapping[str, str | None] = field(default_factory=dict)


def list_files(
    path: str,
    endings: Sequence[str],
    key: str,
    filesystem: Any = None,
    *,
    advice: str = "",
    deep: bool = False,
) -> list[Listed]:
    """The files that a path stands for, in the order of their paths.

    Args:
        path: A file; a folder, of which files with one of the endings count, and those in folders named
            `column=value` (as Hive writes them); a glob with `*`, `?`, `[…]` and `**`; or the URI of any of these.
        endings: Of the files of a folder, in lower case.
        key: The key of the configuration that has the path, for messages.
        filesystem: A `pyarrow.fs.FileSystem` in which the path lies; None for this machine or a URI.
        advice: What to do where there is nothing; by default to give the place with the key.
        deep: Whether files count in whatever folder below the one that is named.

    Raises:
        DataError: There is no such file, or it cannot be looked at.
    """
    place = _Place.of(path, key, filesystem, advice or f"give the data's place with {key}", deep)
    files = {listed.inside: listed for listed in place.files(tuple(endings))}
    if not files:
        what = f"The folder {place.name} has no file that ends with {', '.join(endings[:12])}"
        raise DataError(f"{f'Nothing matches {place.name}' if place.pattern else what} ({key}).")
    return sorted(files.values(), key=lambda listed: PurePosixPath(listed.inside).parts)


def problem_of_place(path: str) -> str | None:
    """What is wrong with a path or URI that can be seen without looking for it; None if nothing is."""
    if "\0" in path:
        return "a path cannot hold the character NUL"
    uri = _URI.match(path)
    if uri is None:
        return None
    place, _, query = path[uri.end() :].partition("?")
    user = place.split("/")[0].rpartition("@")[0]
    # A user alone is none: before the @ of an Azure URI stands a container, and HDFS has users without passwords.
    if ":" in user or (user and uri[1].lower().startswith("s3")) or _SECRET.search(query):
        return (
            "the URI holds credentials, which would be copied into logs and run folders: give them in the environment, "
            "as the store's own tools read them (AWS_PROFILE, GOOGLE_APPLICATION_CREDENTIALS, …)"
        )
    return None


def local_path(path: str, key: str) -> Path:
    """A path of this machine, with `~` resolved, that can be looked at; there need be nothing.

    Raises:
        DataError: No file can have such a path, or it may not be looked at; names the key.
    """
    name = _named(path, key)
    try:
        place = Path(path).expanduser().absolute()
        place.stat()
    except (FileNotFoundError, NotADirectoryError):
        return place
    except (OSError, RuntimeError, ValueError) as error:  # too long, a circle of links, ~ of a user that there is not
        raise DataError(f"{key} is '{name}': {_said(error).rstrip('.')}.") from error
    return place


def open_raw(file: DataFile) -> Any:
    """A file's bytes as they lie there, as a seekable `pyarrow.NativeFile`.

    Raises:
        DataError: It cannot be opened.
    """
    import pyarrow as pa

    try:
        return file.filesystem.open_input_file(file.path) if isinstance(file, StoredFile) else pa.OSFile(str(file))
    except (OSError, ValueError) as error:
        raise DataError(f"{_short(str(file))} cannot be opened ({_said(error)}).") from error


def size_of(file: DataFile) -> int:
    """Bytes of a file."""
    return file.size if isinstance(file, StoredFile) else file.stat().st_size


def modified_ns(file: DataFile) -> int | None:
    """When a file was written, nanoseconds since 1970; None where its store does not say."""
    return file.modified if isinstance(file, StoredFile) else file.stat().st_mtime_ns


@dataclass(frozen=True)
class _Place:
    """A path, taken apart.

    Attributes:
        name: As it was given, for messages.
        key: The key of the configuration that has it.
        filesystem: Where it lies.
        local: Whether that is this machine.
        base: The part without wildcards, as its file system names it.
        given: The same as it was given, for the folders that it names.
        pattern: The parts with wildcards, and those below them.
        advice: What to do where there is nothing.
        deep: Whether all folders are gone into, and not only partitions.
    """

    name: str
    key: str
    filesystem: Any
    local: bool
    base: str
    given: str
    pattern: tuple[str, ...]
    advice: str
    deep: bool

    @classmethod
    def of(cls, path: str, key: str, filesystem: Any, advice: str, deep: bool) -> _Place:
        from pyarrow import fs

        name = _named(path, key)
        uri = _URI.match(path)
        if filesystem is None and uri is None:
            base, pattern = _fixed(path)
            return cls(name, key, fs.LocalFileSystem(), True, str(local_path(base, key)), base, pattern, advice, deep)
        if filesystem is not None:
            base, pattern = _fixed(path)
            return cls(name, key, filesystem, False, base.rstrip("/"), base, pattern, advice, deep)
        options = _OPTIONS.search(path)  # the question mark before them is no wildcard
        base, pattern = _fixed(path[: options.start()] if options else path)
        try:
            opened, inside = fs.FileSystem.from_uri(base + (options[0] if options else ""))
        except (OSError, ValueError, ImportError, NotImplementedError) as error:
            raise DataError(
                f"{key}={name} cannot be opened: {_said(error)}. Supported are a path, and URIs that pyarrow opens: "
                "file://, s3://, gs://, abfs://, hdfs://."
            ) from error
        return cls(name, key, opened, isinstance(opened, fs.LocalFileSystem), inside, inside, pattern, advice, deep)

    def files(self, endings: tuple[str, ...]) -> Iterator[Listed]:
        from pyarrow.fs import FileType

        if self.pattern:
            yield from self._matching(self.base, "", self.pattern, endings, 0)
            return
        info = self._ask(self.base)[0]
        if info.type == FileType.File:
            yield Listed(self._file(info), info.base_name, _partition(self.given))
        elif info.type == FileType.Directory:
            yield from self._folder(info.path, "", endings, 0)
        elif info.type == FileType.NotFound:
            raise DataError(f"There is no file or folder {self.name}: {self.advice}.")
        else:
            raise DataError(f"{self.name} ({self.key}) is neither a file nor a folder, but a device or a pipe.")

    def _folder(self, path: str, inside: str, endings: tuple[str, ...], depth: int) -> Iterator[Listed]:
        """Files of a folder, and of the folders in it that are named as Hive names partitions."""
        from pyarrow.fs import FileType

        for info in self._entries(path, depth):
            below = f"{inside}{info.base_name}"
            if info.type == FileType.File and info.base_name.lower().endswith(endings):
                yield Listed(self._file(info), below, _partition(f"{self.given}/{below}"))
            elif self._is_entered(info):
                yield from self._folder(info.path, f"{below}/", endings, depth + 1)

    def _is_entered(self, info: Any) -> bool:
        from pyarrow.fs import FileType

        if info.type != FileType.Directory:
            return False
        return bool(_PARTITION.match(info.base_name)) or (self.deep and not self._is_link(info))

    def _is_link(self, info: Any) -> bool:
        """Whether a folder is a link, which may lead back to where it stands."""
        return self.local and Path(info.path).is_symlink()

    def _matching(
        self, path: str, inside: str, pattern: tuple[str, ...], endings: tuple[str, ...], depth: int
    ) -> Iterator[Listed]:
        from pyarrow.fs import FileType

        first, rest = pattern[0], pattern[1:]
        if first == "**":
            yield from self._matching(path, inside, rest or ("*",), endings, depth)
        for info in self._entries(path, depth):
            below = f"{inside}{info.base_name}"
            folder = info.type == FileType.Directory
            if first == "**":
                if folder and not self._is_link(info):
                    yield from self._matching(info.path, f"{below}/", pattern, endings, depth + 1)
            elif not fnmatch.fnmatchcase(info.base_name, first):
                continue
            elif rest and folder:
                yield from self._matching(info.path, f"{below}/", rest, endings, depth + 1)
            elif folder and not rest and first != "*":
                yield from self._folder(info.path, f"{below}/", endings, depth + 1)
            elif info.type == FileType.File and not rest and (first != "*" or below.lower().endswith(endings)):
                yield Listed(self._file(info), below, _partition(f"{self.given}/{below}"))

    def _entries(self, path: str, depth: int) -> list[Any]:
        """What lies in a folder, by name; what is hidden is left out."""
        from pyarrow.fs import FileSelector

        if depth > _DEEPEST:
            raise DataError(f"{self.name} ({self.key}): more than {_DEEPEST} folders inside each other.")
        infos = self._ask(FileSelector(path, allow_not_found=True))
        if len(infos) > MOST_FILES:
            raise DataError(f"{self.name} ({self.key}): a folder holds more than {MOST_FILES:,} files.")
        return sorted((i for i in infos if not i.base_name.startswith(".")), key=lambda info: info.base_name)

    def _ask(self, what: Any) -> list[Any]:
        try:
            infos = self.filesystem.get_file_info(what)
        except (OSError, ValueError) as error:
            raise DataError(f"{self.name} ({self.key}) cannot be looked at: {_said(error)}.") from error
        return infos if isinstance(infos, list) else [infos]

    def _file(self, info: Any) -> DataFile:
        if self.local:
            return Path(info.path)
        start = self.name.partition("://")[0] + "://" if _URI.match(self.name) else ""
        return StoredFile(info.path, f"{start}{info.path}", info.size or 0, info.mtime_ns, self.filesystem)


def _fixed(path: str) -> tuple[str, tuple[str, ...]]:
    """A path without its parts from the first wildcard on, and those. A file that is there needs no pattern."""
    if not _WILD.search(path) or (not _URI.match(path) and _is_there(path)):
        return path, ()
    parts = path.split("/")
    first = next(i for i, part in enumerate(parts) if _WILD.search(part))
    base = "/".join(parts[:first])
    return base or ("/" if path.startswith("/") else "."), tuple(part for part in parts[first:] if part)


def _is_there(path: str) -> bool:
    try:
        return Path(path).expanduser().exists()
    except (OSError, RuntimeError, ValueError):
        return False


def _partition(path: str) -> dict[str, str | None]:
    """Columns that the folders of a file's path name; values are escaped as in a URI."""
    matches = (_PARTITION.match(part) for part in path.split("/")[:-1])
    pairs = [(urllib.parse.unquote(m[1]), urllib.parse.unquote(m[2])) for m in matches if m]
    return {name: None if value == _NULL else value for name, value in pairs}


def _said(error: BaseException) -> str:
    """What a library said, in one short line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return _short(" ".join(text.split("Detail:")[0].split()))


def _named(path: str, key: str) -> str:
    """A path as messages show it.

    Raises:
        DataError: It cannot be one.
    """
    if (problem := problem_of_place(path)) is not None:
        raise DataError(f"{key}: {problem}.")
    return _short(path)


def _short(text: str) -> str:
    return short(safe(text), 160)
