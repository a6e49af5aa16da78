"""Text files with a delimiter, read in blocks of whole rows; compressed ones (gz, bz2, zst) are read as they are."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rankitect.data.ranking.lines import (
    CheckedRows,
    Dialect,
    count_rows,
    is_plain,
    last_row_end,
    sort_out,
    without_ragged,
)
from rankitect.data.ranking.schema import TableSchema
from rankitect.data.ranking.sources import BadRow, Piece, check_columns
from rankitect.data.ranking.utf8 import without_other_bytes
from rankitect.data.storage import DataFile
from rankitect.data.streams import TextStream, likely_encoding, open_text_stream
from rankitect.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["BLOCK_BYTES", "DelimitedSource", "parse", "read_blocks", "read_header"]

BLOCK_BYTES = 32 << 20  # of text at a time; part of what cached tables are named by
_CACHED_BYTES = 2 << 20  # that Arrow takes apart at a time: twice as fast as all at once, as the cache holds them
_LONGEST_ROW = 64 << 20  # bytes; what goes on for longer is no row of a table, or a quote that is never closed
_BOM = b"\xef\xbb\xbf"


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
            for first, block in read_blocks(file, self.block_bytes, self.dialect.mark, skip=skip):
                yield lambda first=first, block=block, names=names, wanted=wanted, file=file: parse(  # type: ignore[misc]
                    block, names, wanted, self.dialect, str(file), first
                )


def read_header(file: DataFile, dialect: Dialect) -> tuple[str, ...]:
    """The names in a file's first row.

    Raises:
        DataError: If there is none, or a name is there twice.
    """
    with open_text_stream(file) as stream:
        start = _read(stream, 1 << 20, file, 1).removeprefix(_BOM)
        while b"\n" not in start and len(start) < _LONGEST_ROW and (more := _read(stream, 1 << 20, file, 1)):
            start += more
    line, end, _ = start.partition(b"\n")
    line = line.rstrip(b"\r")
    if b"\r" in line:
        raise DataError(
            f"{file}, row 1: rows end with a carriage return alone, as on old Macintosh computers. Convert the file: "
            "tr '\\r' '\\n' < old > new."
        )
    if not end and len(start) >= _LONGEST_ROW:
        raise DataError(f"{file}, row 1 has {len(start):,} bytes and no end: this is no table with names of columns.")
    names = [name.strip() for name in _taken_apart(_decoded(line, file), dialect, file)]
    if not any(names):
        raise DataError(f"{file} is empty, or its first row does not name the columns.")
    if dialect.quote is None and all(len(name) > 1 and name[0] == name[-1] == '"' for name in names):
        return tuple(name[1:-1] for name in names)  # some writers quote names only
    return tuple(names)


def _taken_apart(line: str, dialect: Dialect, file: DataFile) -> list[str]:
    """The values of a line that is not too long for Arrow's reader to be worth while."""
    if dialect.quote is None or dialect.quote not in line:
        return line.split(dialect.delimiter)
    rows = sort_out(line.encode(), 1, Dialect(dialect.delimiter, dialect.quote), str(file))
    if rows.bad:
        raise DataError(f"{file}, row 1: found {rows.bad[0].trouble}.")
    try:
        return next(csv.reader([line], delimiter=dialect.delimiter, quotechar=dialect.quote))
    except csv.Error as error:
        raise DataError(f"{file}, row 1: the column names cannot be read ({error}).") from error


def read_blocks(file: DataFile, size: int, mark: bytes | None, *, skip: bool) -> Iterator[tuple[int, bytes]]:
    """Blocks of whole rows with the number of the first, from 1.

    Args:
        file: The file.
        size: Bytes of a block, about; a longer row makes a longer one.
        mark: A line end between two of these belongs to a value, and each block starts outside; None where every line
            end ends a row.
        skip: True leaves the first line out, a header.

    Raises:
        DataError: If the file cannot be read to its end, or a row of it has none.
    """
    line, rest, begun = 1, b"", False
    with open_text_stream(file) as stream:
        while True:
            read = _read(stream, size, file, line)
            if not begun:
                read, begun = read.removeprefix(_BOM), True
            if not read and not rest:
                return
            # After an odd number of quotes a piece begins inside a quoted value, whose line ends do not end rows.
            odd = mark is not None and rest.count(mark) % 2 == 1
            stop = last_row_end(read, mark, odd) if read else 0
            if read and not stop:  # a row that is longer than what was read
                rest += read
                if len(rest) > max(_LONGEST_ROW, size):
                    raise DataError(f"{file}, row {line} goes on for more than {len(rest):,} bytes: is a quote open?")
                continue
            block = b"".join((rest, memoryview(read)[:stop])) if read else rest.rstrip(b"\r\n")
            rest = read[stop:]
            if skip and block:
                head = block.find(b"\n") + 1 or len(block)
                block, line, skip = block[head:], line + 1, False
            if block:
                yield line, block
                line += count_rows(block, mark)
            if not read:
                return


def parse(block: bytes, names: Sequence[str], wanted: Sequence[str], dialect: Dialect, file: str, first: int) -> Piece:
    """A block's columns as binary arrays.

    Args:
        block: Whole rows.
        names: Names of all columns.
        wanted: Names of the columns to read, each once.
        dialect: How the block is written.
        file: Name of the file, for messages.
        first: Number of the block's first row.

    Raises:
        DataError: If rows cannot be told apart.
    """
    import pyarrow as pa

    if dialect.join:
        block = block.replace(dialect.join.encode(), dialect.delimiter.encode())
    every = {name: place for place, name in enumerate(names)}
    places = [every[name] for name in wanted]
    table, lines = None, np.empty(0, np.int64)
    bad: tuple[BadRow, ...] = ()
    if is_plain(block, dialect):
        with contextlib.suppress(pa.ArrowInvalid):  # a row is longer than a step, or is ragged
            table = _read_columns(block, len(names), places, dialect, _CACHED_BYTES)
            lines = np.arange(first, first + table.num_rows)
    if table is None or _may_have_blank_lines(table, dialect):
        rows = sort_out(block, first, dialect, file)
        table, rows = _read_carefully(rows, len(names), places, dialect, file)
        lines, bad = rows.lines, rows.bad
    piece = Piece({name: _whole(table.column(i)) for i, name in enumerate(wanted)}, file, lines, bad)
    return piece if block.isascii() else without_other_bytes(piece)


def _may_have_blank_lines(table: pa.Table, dialect: Dialect) -> bool:
    """A blank line has no value in any column, so that one column without gaps is enough to know that there is none."""
    return "" not in dialect.missing or all(column.null_count for column in table.columns)


def _read_carefully(
    rows: CheckedRows, columns: int, places: Sequence[int], dialect: Dialect, file: str
) -> tuple[pa.Table, CheckedRows]:
    """The values of rows, of which some may be ragged, and the rows that they are of."""
    import pyarrow as pa

    table = None
    with contextlib.suppress(pa.ArrowInvalid):
        table = _read_columns(rows.block, columns, places, dialect, _CACHED_BYTES)
    if table is None:
        rows = without_ragged(rows, columns, dialect)
        try:
            table = _read_columns(rows.block, columns, places, dialect, len(rows.block) + 1)
        except pa.ArrowException as error:
            told = " ".join(str(error).split())[:120]
            raise DataError(f"{file}: the rows near row {rows.lines[0]} cannot be taken apart ({told}).") from error
    if table.num_rows != len(rows.lines):
        raise DataError(
            f"{file}: {table.num_rows:,} rows were read from {len(rows.lines):,} lines near row {rows.lines[0]}. Are "
            "the delimiter and the quote right (task.data.delimiter, task.data.quote)?"
        )
    return table, rows


def _read_columns(block: bytes, columns: int, places: Sequence[int], dialect: Dialect, step: int) -> pa.Table:
    """Some columns of a block, as binary; an empty table of a block without rows."""
    import pyarrow as pa
    from pyarrow import csv as arrow

    names = [str(place) for place in range(columns)]
    chosen = [names[place] for place in places]
    if not block:
        return pa.table({name: pa.array([], pa.binary()) for name in chosen})
    quoted = dialect.quote is not None and dialect.quote.encode() in block
    return arrow.read_csv(
        pa.BufferReader(block),
        # One block, one thread: pieces are read side by side.
        read_options=arrow.ReadOptions(column_names=names, use_threads=False, block_size=step),
        parse_options=arrow.ParseOptions(
            delimiter=dialect.delimiter,
            quote_char=dialect.quote if quoted else False,
            newlines_in_values=quoted and dialect.newlines,
            ignore_empty_lines=False,
        ),
        convert_options=arrow.ConvertOptions(
            column_types=dict.fromkeys(chosen, pa.binary()),
            include_columns=chosen,
            null_values=list(dialect.missing),
            strings_can_be_null=True,
            quoted_strings_can_be_null=True,
        ),
    )


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
        raise DataError(f"{file}, row 1: the column names are not UTF-8; {likely_encoding(line)}.") from error
