"""Text as documents, from what a user has: a text file, a folder, JSON lines, parquet, or Python's own manual.

A source is anything iterable, more than once, over `Document`; it reads lazily, so a corpus never has to fit in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from rankitect.errors import DataError

__all__ = [
    "DEFAULT_TEXT",
    "Document",
    "JsonLines",
    "ParquetColumn",
    "PydocTopics",
    "TextFile",
    "TextFolder",
    "TextSource",
    "open_text",
]

DEFAULT_TEXT = "pydoc-topics"
TEXT_SUFFIXES = (".txt", ".text", ".md", ".rst")
JSON_LINES_SUFFIXES = (".jsonl", ".ndjson")
PARQUET_SUFFIXES = (".parquet", ".pq")


@dataclass(frozen=True)
class Document:
    """One text that is kept whole: never cut across two splits.

    Attributes:
        id: name within its source, such as a topic, a relative path, or `file.jsonl#12` (rows count from 1).
        text: the text, without lone surrogates, so that it can be written as UTF-8.
    """

    id: str
    text: str


@runtime_checkable
class TextSource(Protocol):
    """A named collection of documents that can be iterated again and again, always in the same order."""

    @property
    def name(self) -> str:
        """How messages and reports call the source."""

    def __iter__(self) -> Iterator[Document]: ...


def open_text(source: str | Path, *, field: str = "text") -> TextSource:
    """Opens a text source by what it is.

    Args:
        source: `pydoc-topics`, a text file (.txt, .text, .md, .rst), a .jsonl/.ndjson file, a .parquet file, or a
            folder holding any of these (read recursively, in the order of their paths; each text file a document).
        field: the field of a JSON line, or the parquet column, that holds the text.

    Raises:
        DataError: when there is no such file or its kind is not supported.

    >>> open_text("pydoc-topics").name
    'pydoc-topics'
    """
    if str(source) == DEFAULT_TEXT:
        return PydocTopics()
    path = Path(source).expanduser()
    if path.is_dir():
        return TextFolder(path, field=field)
    if not path.exists():
        raise DataError(
            f"No text at {str(path)!r}: give an existing file or folder, or {DEFAULT_TEXT!r} for the text that ships "
            "with Python."
        )
    opened = _open_file(path, field)
    if opened is None:
        kind = f"{path.suffix} file" if path.suffix else "file without suffix"
        raise DataError(f"{path}: cannot read text from a {kind}; supported are {_supported()}.")
    return opened


def _supported() -> str:
    return ", ".join(TEXT_SUFFIXES + JSON_LINES_SUFFIXES + PARQUET_SUFFIXES)


def _open_file(path: Path, field: str) -> TextFile | JsonLines | ParquetColumn | None:
    suffix = path.suffix.lower()
    if suffix in TEXT_SUFFIXES:
        return TextFile(path)
    if suffix in JSON_LINES_SUFFIXES:
        return JsonLines(path, field=field)
    if suffix in PARQUET_SUFFIXES:
        return ParquetColumn(path, column=field)
    return None


@dataclass(frozen=True)
class PydocTopics:
    """The topics of Python's language reference (about 460 kB of English), which every Python installation carries."""

    name: str = DEFAULT_TEXT

    def __iter__(self) -> Iterator[Document]:
        try:
            from pydoc_data.topics import topics
        except ImportError as error:
            raise DataError(
                f"This Python has no pydoc_data.topics ({error}), so the default text is missing: give your own with "
                "task.text=."
            ) from error
        for topic in sorted(topics):
            yield Document(topic, topics[topic])


@dataclass(frozen=True)
class TextFile:
    """One UTF-8 file: one document, or cut into consecutive pieces, because a single document could not be split.

    Attributes:
        path: the file.
        whole: whether to keep it as one document.
        piece_bytes: the least size of a piece, in bytes, which ends at the next blank line (or, where none comes, at
            the end of the line with which it has twice the size). None makes about forty pieces, of 8 kB at most.
    """

    path: Path
    whole: bool = False
    piece_bytes: int | None = None

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    def __iter__(self) -> Iterator[Document]:
        if self.whole:
            text = "".join(line for _, line in _utf8_lines(self.path))
            yield from [Document(self.name, text)] if text.strip() else []
            return
        wanted = self.piece_bytes or min(8192, self.path.stat().st_size // 40)
        lines: list[str] = []
        size = piece = 0
        for _, line in _utf8_lines(self.path):
            lines.append(line)
            size += len(line.encode())
            if size >= wanted and (not line.strip() or size >= 2 * wanted):
                piece += 1
                yield Document(f"{self.name}#{piece}", "".join(lines))
                lines, size = [], 0
        if "".join(lines).strip():
            yield Document(f"{self.name}#{piece + 1}", "".join(lines))


@dataclass(frozen=True)
class TextFolder:
    """Every supported file below a folder, in the order of the relative paths; hidden files and folders are left out.

    Attributes:
        path: the folder.
        field: the JSON field or parquet column of the files that have one.
    """

    path: Path
    field: str = "text"

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    def __iter__(self) -> Iterator[Document]:
        any_text = False
        for file in sorted(self.path.rglob("*")):
            inside = file.relative_to(self.path)
            if not file.is_file() or any(part.startswith(".") for part in inside.parts):
                continue
            source: TextSource | None = _open_file(file, self.field)
            if source is None:
                continue
            any_text = True
            if isinstance(source, TextFile):
                source = TextFile(file, whole=True)
            for document in source:
                yield Document(document.id.replace(file.name, inside.as_posix(), 1), document.text)
        if not any_text:
            raise DataError(f"{self.path}: no text files in this folder; supported are {_supported()}.")


@dataclass(frozen=True)
class JsonLines:
    """One JSON object a line, with the text in a field.

    Attributes:
        path: the file, UTF-8.
        field: the field that holds the text, a string. Blank lines and empty texts are left out.
    """

    path: Path
    field: str = "text"

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    def __iter__(self) -> Iterator[Document]:
        for row, line in _utf8_lines(self.path):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except json.JSONDecodeError as error:
                where = f"{self.path}, row {row}, column {error.colno}"
                raise DataError(f"{where}: not valid JSON ({error.msg}).") from error
            if not isinstance(value, dict):
                raise DataError(f"{self.path}, row {row}: expected a JSON object, found a {type(value).__name__}.")
            if self.field not in value:
                raise DataError(
                    f"{self.path}, row {row}: no field {self.field!r}; its fields are {_names(value)}. Name the text's "
                    "field with task.field=."
                )
            text = value[self.field]
            if not isinstance(text, str):
                kind = "null" if text is None else type(text).__name__
                raise DataError(f"{self.path}, row {row}, field {self.field!r}: expected text, found {kind}.")
            _check_encodable(text, f"{self.path}, row {row}, field {self.field!r}")
            if text.strip():
                yield Document(f"{self.name}#{row}", text)


@dataclass(frozen=True)
class ParquetColumn:
    """One column of texts in a parquet file, read in batches.

    Attributes:
        path: the file.
        column: the column, of a string type and without nulls. Empty texts are left out.
    """

    path: Path
    column: str = "text"

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    def __iter__(self) -> Iterator[Document]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(self.path) as table:
                schema = table.schema_arrow
                if self.column not in schema.names:
                    raise DataError(
                        f"{self.path}: no column {self.column!r}; its columns are {_names(schema.names)}. Name the "
                        "text's column with task.field=."
                    )
                kind = schema.field(self.column).type
                plain = kind.value_type if pa.types.is_dictionary(kind) else kind
                if not (pa.types.is_string(plain) or pa.types.is_large_string(plain)):
                    raise DataError(f"{self.path}, column {self.column!r}: expected strings, found {kind}.")
                row = 0
                for batch in table.iter_batches(batch_size=1024, columns=[self.column]):
                    for text in batch.column(0).to_pylist():
                        row += 1
                        if text is None:
                            where = f"{self.path}, row {row}, column {self.column!r}"
                            raise DataError(f"{where}: expected text, found null.")
                        if text.strip():
                            yield Document(f"{self.name}#{row}", text)
        except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
            raise DataError(f"{self.path}: cannot be read as parquet ({error}).") from error


def _names(values: object) -> str:
    names = sorted(map(str, values))  # type: ignore[call-overload]
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "") if names else "none"


def _utf8_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines with their number from 1, ends kept as "\\n"; a byte that is not UTF-8 is an error with its place."""
    row = 0
    try:
        with path.open("rb") as file:
            for row, raw in enumerate(file, start=1):
                line = raw.decode("utf-8-sig" if row == 1 else "utf-8")
                yield row, line[:-2] + "\n" if line.endswith("\r\n") else line
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}, row {row}, byte {error.start + 1}: not UTF-8 text (0x{error.object[error.start]:02x}); "
            "convert the file to UTF-8."
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error


def _check_encodable(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        place = f"{where}, character {error.start + 1}"
        raise DataError(f"{place}: half of a surrogate pair, which is not text.") from error
