"""Text as documents, from what a user has: files of text, JSON lines or Parquet, or Python's own manual.

A source is anything iterable, more than once, over `Document`; it reads lazily, so a corpus never has to fit in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rankitect.data.chat import PLAIN, ChatFormat
from rankitect.data.document import Document, TextSource
from rankitect.data.storage import Listed, list_files, size_of
from rankitect.data.text_files import JsonLines, ParquetColumn, TextFile, open_file, supported_endings
from rankitect.errors import DataError, safe, short

__all__ = [
    "DEFAULT_TEXT",
    "Document",
    "FirstBytes",
    "JsonLines",
    "ParquetColumn",
    "PydocTopics",
    "TextFile",
    "TextFiles",
    "TextSource",
    "open_text",
]

DEFAULT_TEXT = "pydoc-topics"
_LONG = 1 << 15
"""Bytes from which a file may be cut into pieces where it is one among several."""
_DOMINATES = 10
"""A file with more than this part (a tenth) of a folder's bytes is cut: as one document it would be a split alone."""


def open_text(
    source: str | Path,
    *,
    field: str = "text",
    chat: ChatFormat | None = None,
    limit: int | None = None,
    filesystem: Any = None,
) -> TextSource:
    """Opens a text source by what it is.

    Args:
        source: `pydoc-topics`; a file of text (.txt, .text, .md, .rst), JSON lines (.jsonl, .ndjson) or Parquet
            (.parquet, .pq), where text may be packed (.gz, .bz2, .xz, .zst, .zip, .lz4 after the name); a folder
            holding any of these (read recursively, in the order of their paths); a glob; or the URI of any of these.
        field: the field of a JSON line, or the parquet column, that holds the text or the messages of a chat.
        chat: how messages become text; by default plainly, see `PlainChat`.
        limit: bytes of text to read, the first documents; None for all.
        filesystem: a `pyarrow.fs.FileSystem` in which `source` lies; None for this machine or a URI.

    Raises:
        DataError: when there is no such file or its kind is not supported.

    >>> open_text("pydoc-topics").name
    'pydoc-topics'
    """
    opened = PydocTopics() if str(source) == DEFAULT_TEXT else _open_files(str(source), field, chat, filesystem)
    return opened if limit is None else FirstBytes(opened, limit)


def _open_files(source: str, records: str, chat: ChatFormat | None, filesystem: Any) -> TextSource:
    advice = f"give an existing one with task.text, or {DEFAULT_TEXT!r} for the text that ships with Python"
    listed = list_files(source, supported_endings(), "task.text", filesystem, advice=advice, deep=True)
    for each in listed:
        if open_file(each.file, records, PLAIN) is None:
            suffix = Path(each.file.name).suffix
            kind = f"{short(safe(suffix), 20)} file" if suffix else "file without suffix"
            supported = ", ".join(supported_endings()[:8])
            raise DataError(
                f"{short(safe(str(each.file)), 160)}: cannot read text from a {kind}; supported are {supported}, and "
                "packed text as .txt.gz."
            )
    return TextFiles(tuple(listed), records, chat or PLAIN)


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
class TextFiles:
    """Files in the order of their paths, each text file a document of its own.

    A file that is given alone, or with which a document would be large among the others, is cut into pieces: splits
    are made of whole documents.

    Attributes:
        files: the files.
        field: the JSON field or parquet column of the files that have one.
        chat: how messages become text.
    """

    files: Sequence[Listed]
    field: str = "text"
    chat: ChatFormat = PLAIN

    @property
    def name(self) -> str:
        """The name of the one file, or of the folder."""
        first = self.files[0]
        if len(self.files) == 1:
            return first.file.name
        return str(first.file).removesuffix(first.inside).rstrip("/").rpartition("/")[2]

    def __iter__(self) -> Iterator[Document]:
        total = sum(size_of(each.file) for each in self.files)
        for each in self.files:
            source: TextSource | None = open_file(each.file, self.field, self.chat)
            assert source is not None  # checked when it was opened
            if isinstance(source, TextFile):
                source = TextFile(each.file, whole=not self._is_cut(source, total))
            folder = each.inside.removesuffix(each.file.name)
            for document in source:
                yield replace(document, id=f"{folder}{document.id}") if folder else document

    def _is_cut(self, file: TextFile, total: int) -> bool:
        if len(self.files) == 1:
            return True
        return size_of(file.path) * _DOMINATES > total and file.size(_LONG) >= _LONG


@dataclass(frozen=True)
class FirstBytes:
    """The first documents of a source; no more of it is read than they need.

    Attributes:
        source: the whole.
        most: bytes of text. A document that would pass them is left out, and all after it; the first one never is.
    """

    source: TextSource
    most: int

    @property
    def name(self) -> str:
        """The source's name."""
        return self.source.name

    def __iter__(self) -> Iterator[Document]:
        total = 0
        for document in self.source:
            size = len(document.text.encode())
            if total and total + size > self.most:
                return
            total += size
            yield document
