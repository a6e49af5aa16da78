"""Where rows come from: a source gives pieces of a table, and each row's place in its file for messages."""

from __future__ import annotations

import difflib
import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from rankitect.data.files import file_sha256, write_atomically
from rankitect.data.ranking.schema import TableSchema
from rankitect.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["BadRow", "Piece", "Source", "check_columns", "content_hash", "list_files"]


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used.

    Attributes:
        line: Its row in the file, counted from 1, with a header where there is one.
        column: Where the trouble is; empty for the whole row.
        trouble: What is wrong with it, for a message.
        kind: The same without the row's own values, to count by.
    """

    line: int
    column: str
    trouble: str
    kind: str


@dataclass(frozen=True)
class Piece:
    """Consecutive rows of one file.

    Attributes:
        columns: Columns by name, each of the same length.
        file: Name of the file, for messages.
        lines: The row in the file of each row.
        bad: Rows that are not in `columns`, as they could not be taken apart.
        truth: The probability of label 1 by which data were generated, [rows] float32; None for real data.
    """

    columns: Mapping[str, pa.Array]
    file: str
    lines: NDArray[np.int64]
    bad: Sequence[BadRow] = field(default=())
    truth: NDArray[np.float32] | None = None


class Source(Protocol):
    """A table that can be read piece by piece."""

    @property
    def name(self) -> str:
        """Name for reports."""

    @property
    def schema(self) -> TableSchema:
        """What its columns are for."""

    @property
    def files(self) -> Sequence[Path]:
        """The files that decide its content."""

    def pieces(self) -> Iterator[Callable[[], Piece]]:
        """Reads of the pieces, in order: always cut the same way. A read may be run in any thread, or never."""


def list_files(path: str, endings: Sequence[str]) -> list[Path]:
    """The file itself, or the files of a folder with one of the endings, in the order of their names.

    Raises:
        DataError: If there is none.
    """
    place = Path(path).expanduser()
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise DataError(f"There is no file or folder {place}: give the data's place with task.data.path.")
    files = sorted(file for file in place.iterdir() if file.is_file() and file.name.lower().endswith(tuple(endings)))
    if not files:
        raise DataError(f"The folder {place} has no file that ends with {', '.join(endings)}.")
    return files


def check_columns(schema: TableSchema, present: Sequence[str], file: str) -> list[str]:
    """The columns that the schema needs, each once.

    Raises:
        DataError: If the file lacks one.
    """
    wanted = [c.source for c in (*schema.numeric, *schema.categorical, *schema.multi_hot)]
    wanted += [column.name for column in (schema.label, schema.timestamp) if column is not None]
    wanted += [name for name in (schema.group, schema.weight) if name is not None]
    for name in wanted:
        if name not in present:
            like = difflib.get_close_matches(name, present, n=1)
            hint = f" Did you mean {like[0]!r}?" if like else ""
            names = (name if name.isprintable() else repr(name) for name in present[:60])  # it may be no text at all
            shown = ", ".join(names) + (", …" if len(present) > 60 else "")
            raise DataError(f"{file} has no column {name!r}.{hint} Its columns: {shown}.")
    return list(dict.fromkeys(wanted))


def content_hash(files: Iterable[Path], memory: Path) -> str:
    """SHA-256 over the files' names and contents. A file is read again only when its size or time has changed.

    Args:
        files: The files, in their order.
        memory: A folder where the hashes are kept.
    """
    total = hashlib.sha256()
    for file in files:
        state = file.stat()
        path = str(file.resolve())
        known = {"path": path, "size": state.st_size, "time": state.st_mtime_ns}
        note = memory / f"{hashlib.sha256(path.encode()).hexdigest()[:24]}.json"
        noted: dict[str, object] = {}
        if note.is_file():
            try:
                noted = json.loads(note.read_text(encoding="utf-8"))
            except ValueError:
                noted = {}
        digest = noted.pop("sha256", None)
        if noted != known or not isinstance(digest, str):
            digest = file_sha256(file)
            memory.mkdir(parents=True, exist_ok=True)
            text = json.dumps({**known, "sha256": digest})
            write_atomically(note, functools.partial(_write, text=text))
        total.update(f"{file.name}\n{digest}\n".encode())
    return total.hexdigest()


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
