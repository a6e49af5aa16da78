"""Texts in files: whole files of text, records of JSON lines and Parquet; packed or not, on a disk or in a store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rankitect.data.chat import PLAIN, ChatFormat, messages_of
from rankitect.data.document import Document
from rankitect.data.storage import DataFile, open_raw, size_of
from rankitect.data.streams import PACKED, likely_encoding, open_text_stream, refuse_unless, unpacked_name
from rankitect.errors import DataError, safe, short

__all__ = ["JsonLines", "ParquetColumn", "TextFile", "open_file", "supported_endings", "utf8_lines"]

TEXT_SUFFIXES = (".txt", ".text", ".md", ".rst")
JSON_LINES_SUFFIXES = (".jsonl", ".ndjson")
PARQUET_SUFFIXES = (".parquet", ".pq")
_PIECES = 40
"""Into how many pieces a file of text is cut, about."""
_PIECE_BYTES = 8192
_BLOCK = 1 << 20
_ENDLESS = 16
"""Pieces that a line may be as long as without being cut itself."""
_LONGEST_LINE = 1 << 30


def supported_endings() -> tuple[str, ...]:
    """How the names of files end that `open_file` opens."""
    plain = TEXT_SUFFIXES + JSON_LINES_SUFFIXES
    return (*plain, *PARQUET_SUFFIXES, *(f"{suffix}{packed}" for suffix in plain for packed in PACKED))


def open_file(file: DataFile, records: str, chat: ChatFormat) -> TextFile | JsonLines | ParquetColumn | None:
    """A file as a source of texts, by how its name ends; None if it ends otherwise."""
    name = unpacked_name(file.name).lower()
    if name.endswith(TEXT_SUFFIXES):
        return TextFile(file)
    if name.endswith(JSON_LINES_SUFFIXES):
        return JsonLines(file, records, chat)
    if file.name.lower().endswith(PARQUET_SUFFIXES):
        return ParquetColumn(file, records, chat)
    return None


@dataclass(frozen=True)
class TextFile:
    """One UTF-8 file: one document, or cut into consecutive pieces, because a single document could not be split.

    Attributes:
        path: the file; one that is packed (gz, bz2, xz, zst, zip, lz4) is unpacked while it is read.
        whole: whether to keep it as one document.
        piece_bytes: the least size of a piece, in bytes, which ends at the next blank line (or, where none comes, at
            the end of the line with which it has twice the size; lines without end are cut between words). None makes
            about forty pieces, of 8 kB at most.
    """

    path: DataFile
    whole: bool = False
    piece_bytes: int | None = None

    @property
    def name(self) -> str:
        """The name of the file, or of what is packed in it."""
        return unpacked_name(self.path.name)

    def size(self, most: int | None = None) -> int:
        """Bytes of the text, unpacked; counted no further than `most`."""
        total = 0
        with open_text_stream(self.path) as stream:
            if not stream.packed:
                return size_of(self.path)
            while (most is None or total < most) and (block := _read(stream, self.path)):
                total += len(block)
        return total

    def __iter__(self) -> Iterator[Document]:
        if self.whole:
            text = "".join(line for _, line in utf8_lines(self.path))
            yield from [Document(self.name, text)] if text.strip() else []
            return
        wanted = self.piece_bytes or min(_PIECE_BYTES, self.size(_PIECES * _PIECE_BYTES) // _PIECES)
        lines: list[str] = []
        size = piece = 0
        for line in (part for _, whole in utf8_lines(self.path) for part in _cut(whole, wanted)):
            lines.append(line)
            size += len(line.encode())
            if size >= wanted and (not line.strip() or size >= 2 * wanted):
                piece += 1
                yield Document(f"{self.name}#{piece}", "".join(lines))
                lines, size = [], 0
        if "".join(lines).strip():
            yield Document(f"{self.name}#{piece + 1}", "".join(lines))


@dataclass(frozen=True)
class JsonLines:
    """One JSON object a line, with the text, or the messages of a chat, in a field.

    Attributes:
        path: the file, UTF-8, packed or not.
        field: the field that holds the text. Blank lines and empty texts are left out.
        chat: how messages become text.
    """

    path: DataFile
    field: str = "text"
    chat: ChatFormat = PLAIN

    @property
    def name(self) -> str:
        """The name of the file, or of what is packed in it."""
        return unpacked_name(self.path.name)

    def __iter__(self) -> Iterator[Document]:
        for row, line in utf8_lines(self.path):
            if not line.strip():
                continue
            where = f"{_shown(self.path)}, row {row}"
            try:
                value = json.loads(line, parse_int=_beginning)
            except json.JSONDecodeError as error:
                raise DataError(f"{where}, column {error.colno}: not valid JSON ({error.msg}).") from error
            except RecursionError as error:
                raise DataError(f"{where}: not valid JSON (brackets inside each other without end).") from error
            if not isinstance(value, dict):
                raise DataError(f"{where}: expected a JSON object, found a {type(value).__name__}.")
            if self.field not in value:
                raise DataError(
                    f"{where}: no field {short(repr(self.field), 60)}; its fields are {_names(value)}. Name the text's "
                    "field with task.field=."
                )
            place = f"{where}, field {short(repr(self.field), 60)}"
            document = _document(f"{self.name}#{row}", value[self.field], self.chat, place)
            if document.text.strip():
                yield document


@dataclass(frozen=True)
class ParquetColumn:
    """One column of texts, or of the messages of chats, in a Parquet file, read in batches.

    Attributes:
        path: the file.
        column: the column, of a string type or a list of messages, without nulls. Empty texts are left out.
        chat: how messages become text.
    """

    path: DataFile
    column: str = "text"
    chat: ChatFormat = PLAIN

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    def __iter__(self) -> Iterator[Document]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        shown = _shown(self.path)
        where = f"column {short(repr(self.column), 60)}"
        try:
            with open_raw(self.path) as raw:
                refuse_unless(b"PAR1", "Parquet", raw, self.path)
                table = pq.ParquetFile(raw, page_checksum_verification=True)
                schema = table.schema_arrow
                if self.column not in schema.names:
                    raise DataError(
                        f"{shown}: no {where}; its columns are {_names(schema.names)}. Name the text's column with "
                        "task.field=."
                    )
                kind = schema.field(self.column).type
                if not _is_text(kind) and not pa.types.is_list(kind) and not pa.types.is_large_list(kind):
                    raise DataError(f"{shown}, {where}: expected strings, found {short(str(kind), 100)}.")
                row = 0
                for batch in table.iter_batches(batch_size=1024, columns=[self.column]):
                    for value in batch.column(0).to_pylist():
                        row += 1
                        document = _document(f"{self.name}#{row}", value, self.chat, f"{shown}, row {row}, {where}")
                        if document.text.strip():
                            yield document
        except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
            said = short(safe(str(error)), 160)
            raise DataError(f"{shown}: cannot be read as parquet ({said}).") from error


def _beginning(digits: str) -> int:
    """An integer, of which only the kind matters; Python refuses those of thousands of digits."""
    return int(digits[:20])


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(plain) or pa.types.is_large_string(plain) or pa.types.is_string_view(plain))


def _document(name: str, value: object, chat: ChatFormat, where: str) -> Document:
    """The document of a record's text or messages.

    Raises:
        DataError: It is neither.
    """
    if isinstance(value, str):
        _check_encodable(value, where)
        return Document(name, value)
    if not isinstance(value, list):
        kind = "null" if value is None else type(value).__name__
        raise DataError(f"{where}: expected text, found {kind}.")
    try:
        messages = messages_of(value)
        text = chat.render(messages)
    except DataError as error:
        raise DataError(f"{where}: {error}.") from error
    _check_encodable(text, where)
    own = "\n\n".join(message.content for message in messages if message.role != "system")
    return Document(name, text, chat.markup, own)


def _names(values: object) -> str:
    names = sorted(map(str, values))  # type: ignore[call-overload]
    return short(safe(", ".join(names[:12]) + (", ..." if len(names) > 12 else "")), 200) if names else "none"


def _shown(file: DataFile) -> str:
    return short(safe(str(file)), 160)


def _read(stream: Any, file: DataFile) -> bytes:
    try:
        block: bytes = stream.read(_BLOCK)
    except OSError as error:
        said = short(safe(str(error)), 160)
        raise DataError(f"{_shown(file)}: cannot be read ({said}); it may be damaged or cut.") from error
    return block


def _lines(file: DataFile) -> Iterator[bytes]:
    """Lines with their ends."""
    with open_text_stream(file) as stream:
        rest: list[bytes] = []
        while block := _read(stream, file):
            *lines, tail = block.split(b"\n")
            for line in lines:
                yield b"".join([*rest, line, b"\n"])
                rest = []
            rest.append(tail)
            if sum(map(len, rest)) > _LONGEST_LINE:
                raise DataError(f"{_shown(file)}: a line goes on for more than {_LONGEST_LINE:,} bytes.")
        if last := b"".join(rest):
            yield last


def _cut(line: str, wanted: int) -> Iterator[str]:
    """A line that is as long as many pieces (some corpora are a single line) in parts of twice their size."""
    start, step = 0, 2 * wanted
    while step and len(line) > _ENDLESS * wanted and len(line) - start > 2 * step:
        stop = line.find(" ", start + step, start + 2 * step) + 1 or start + step
        yield line[start:stop]
        start = stop
    yield line[start:]


def utf8_lines(file: DataFile) -> Iterator[tuple[int, str]]:
    """Lines with their number from 1, ends kept as "\\n"; a byte that is not UTF-8 is an error with its place."""
    for row, raw in enumerate(_lines(file), start=1):
        try:
            line = raw.decode("utf-8-sig" if row == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{_shown(file)}, row {row}, byte {error.start + 1}: not UTF-8 text "
                f"(0x{error.object[error.start]:02x}); {likely_encoding(raw[:4096])}."
            ) from error
        yield row, line[:-2] + "\n" if line.endswith("\r\n") else line


def _check_encodable(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        place = f"{where}, character {error.start + 1}"
        raise DataError(f"{place}: half of a surrogate pair, which is not text.") from error
