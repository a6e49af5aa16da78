"""Text files with a delimiter, read in blocks of whole rows; compressed ones (gz, bz2, zst) are read as they are."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rankitect.data.ranking.schema import TableSchema
from rankitect.data.ranking.sources import BadRow, Piece, check_columns
from rankitect.data.storage import DataFile
from rankitect.data.streams import TextStream, open_text_stream
from rankitect.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["BLOCK_BYTES", "DelimitedSource", "Dialect", "parse", "read_blocks", "read_header"]

BLOCK_BYTES = 32 << 20  # of text at a time; part of what cached tables are named by
_CACHED_BYTES = 2 << 20  # that Arrow takes apart at a time: twice as fast as all at once, as the cache holds them
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Dialect:
    """How a text file is written.

    Attributes:
        delimiter: Between columns, one character.
        quote: Around values with delimiters or line ends in them; None where quotes mean nothing.
        missing: Texts that stand for a missing value.
        join: Longer delimiter of the file that is read as `delimiter`, such as `::`.
    """

    delimiter: str = ","
    quote: str | None = '"'
    missing: tuple[str, ...] = ("",)
    join: str | None = None


@dataclass(frozen=True)
class DelimitedSource:
    """CSV or TSV files, one after the other.

    Attributes:
        name: Name for reports.
        schema: What the columns are for.
        files: The files.
        dialect: How they are written.
        header: Names of the columns of files without a header; None where the first row names them.
        skip_first: True if the files have a first row of names all the same.
        block_bytes: Text read at a time.
    """

    name: str
    schema: TableSchema
    files: Sequence[DataFile]
    dialect: Dialect
    header: tuple[str, ...] | None = None
    skip_first: bool = False
    block_bytes: int = BLOCK_BYTES

    def pieces(self) -> Iterator[Callable[[], Piece]]:
        """See `Source`."""
        for file in self.files:
            names = self.header or read_header(file, self.dialect)
            wanted = check_columns(self.schema, names, str(file))
            skip = self.header is None or self.skip_first
            for first, block in read_blocks(file, self.block_bytes, self.dialect.quote, skip=skip):
                yield lambda first=first, block=block, names=names, wanted=wanted, file=file: parse(  # type: ignore[misc]
                    block, names, wanted, self.dialect, str(file), first
                )


def read_header(file: DataFile, dialect: Dialect) -> tuple[str, ...]:
    """The names in a file's first row.

    Raises:
        DataError: If there is none, or a name is there twice.
    """
    with open_text_stream(file) as stream:
        start = _read(stream, 1 << 20, file, 1)
    line = _decoded(start.removeprefix(_BOM).split(b"\n", 1)[0].rstrip(b"\r"), file)
    names = next(csv.reader([line], delimiter=dialect.delimiter), [])
    names = [name.strip() for name in names]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not any(names):
        raise DataError(f"{file} is empty, or its first row does not name the columns.")
    if twice:
        raise DataError(f"{file}, row 1: column {twice[0]!r} is named twice.")
    return tuple(names)


def read_blocks(file: DataFile, size: int, quote: str | None, *, skip: bool) -> Iterator[tuple[int, bytes]]:
    """Blocks of whole rows with the number of the first, from 1.

    Args:
        file: The file.
        size: Bytes of a block, about; a longer row makes a longer one.
        quote: A line end between two of these belongs to a value; each block starts outside.
        skip: True leaves the first row out, a header.

    Raises:
        DataError: If the file cannot be read to its end.
    """
    line, rest, begun, mark = 1, b"", False, b'"' if quote is None else quote.encode()
    with open_text_stream(file) as stream:
        while True:
            read = _read(stream, size, file, line)
            if not begun:
                read, begun = read.removeprefix(_BOM), True
            if not read and not rest:
                return
            # After an odd number of quotes a piece begins inside a quoted value, whose line ends do not end rows.
            odd = quote is not None and rest.count(mark) % 2 == 1
            stop = _row_end(read, mark if quote is not None else None, odd) if read else 0
            if read and not stop:  # a row that is longer than what was read
                rest += read
                continue
            block = b"".join((rest, memoryview(read)[:stop])) if read else rest.rstrip(b"\r\n")
            rest = read[stop:]
            if skip and block:
                head = block.find(b"\n") + 1 or len(block)
                block, line, skip = block[head:], line + 1, False
            if block:
                yield line, block
                line += _rows_in(block, quote)
            if not read:
                return


def parse(block: bytes, names: Sequence[str], wanted: Sequence[str], dialect: Dialect, file: str, first: int) -> Piece:
    """A block's columns as binary arrays.

    Args:
        block: Whole rows.
        names: Names of all columns.
        wanted: Names of the columns to read.
        dialect: How the block is written.
        file: Name of the file, for messages.
        first: Number of the block's first row.
    """
    import pyarrow as pa
    from pyarrow import csv as arrow

    if dialect.join:
        block = block.replace(dialect.join.encode(), dialect.delimiter.encode())
    odd: list[tuple[int, int, str]] = []

    def refuse(row: Any) -> str:
        odd.append((row.number, row.actual_columns, row.text))
        return "skip"

    quoted = dialect.quote is not None and dialect.quote.encode() in block

    def read(step: int) -> Any:
        odd.clear()
        return arrow.read_csv(
            pa.BufferReader(block),
            # One block, one thread: pieces are read side by side, and only so does Arrow number the rows.
            read_options=arrow.ReadOptions(column_names=list(names), use_threads=False, block_size=step),
            parse_options=arrow.ParseOptions(
                delimiter=dialect.delimiter,
                quote_char=dialect.quote if quoted else False,
                newlines_in_values=quoted,
                ignore_empty_lines=False,
                invalid_row_handler=refuse,
            ),
            convert_options=arrow.ConvertOptions(
                column_types=dict.fromkeys(names, pa.binary()),
                include_columns=list(wanted),
                null_values=list(dialect.missing),
                strings_can_be_null=True,
                quoted_strings_can_be_null=True,
            ),
        )

    try:
        table = read(_CACHED_BYTES)  # in steps that stay in the processor's cache
    except pa.ArrowInvalid:  # a row that is longer
        table = read(len(block) + 1)
    # Arrow leaves bad rows out. Their numbers are taken out here too, so that every row keeps its number in the file.
    lines = np.arange(first, first + table.num_rows + len(odd), dtype=np.int64)
    lines = np.delete(lines, [number - 1 for number, _, _ in odd]) if odd else lines
    bad = [
        BadRow(first + number - 1, "", f"{count} columns, {len(names)} expected: {text[:80]!r}", "column count")
        for number, count, text in odd
    ]
    return Piece({name: _whole(table.column(name)) for name in wanted}, file, lines, bad)


def _whole(column: Any) -> pa.Array:
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def _read(stream: TextStream, size: int, file: DataFile, line: int) -> bytes:
    try:
        return stream.read(size)
    except OSError as error:
        raise DataError(
            f"{file} cannot be read beyond row {line}: {error}. The file may be truncated; fetch or pack it again."
        ) from error


def _decoded(line: bytes, file: DataFile) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}, row 1: the column names are not UTF-8 ({error}).") from error


def _row_end(data: bytes, mark: bytes | None, inside: bool) -> int:
    """Where the last whole row of `data` ends, which may begin `inside` quotes; 0 if it has none."""
    stop = data.rfind(b"\n") + 1
    if mark is None or not stop:
        return stop
    odd = (data.count(mark, 0, stop) + inside) % 2
    while stop and odd:  # this line end is inside quotes: try the one before
        before = data.rfind(b"\n", 0, stop - 1) + 1
        odd ^= data.count(mark, before, stop) % 2
        stop = before
    return stop


def _rows_in(block: bytes, quote: str | None) -> int:
    """Rows of a block: line ends outside quotes, and a last row without one."""
    open_end = not block.endswith(b"\n")
    if quote is None or quote.encode() not in block:
        return block.count(b"\n") + open_end
    data = np.frombuffer(block, dtype=np.uint8)
    places: NDArray[np.int64] = np.flatnonzero((data == 10) | (data == ord(quote)))
    marks = data[places] == ord(quote)
    # A line end counts where an even number of quotes comes before it; a doubled quote inside a value adds two.
    return int((~marks & (np.cumsum(marks) % 2 == 0)).sum()) + open_end
