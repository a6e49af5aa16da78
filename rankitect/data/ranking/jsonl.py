"""JSON lines: an object a line. Numbers stay the text that stands in the file, as they are in a CSV file."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rankitect.data.ranking.delimited import BLOCK_BYTES, read_blocks
from rankitect.data.ranking.schema import TableSchema
from rankitect.data.ranking.sources import BadRow, Piece, UnreadableRow, check_columns, needed
from rankitect.data.ranking.typed import plain
from rankitect.data.storage import DataFile
from rankitect.errors import DataError, short

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Fields", "JsonLinesSource"]

_SHOWN = 2_000
"""Names of fields that are kept for a message."""


@dataclass(frozen=True)
class JsonLinesSource:
    """Files of JSON lines, one after the other. Blank lines are no rows; a field that an object lacks is missing.

    A field that no row of the table has is a mistake.

    Attributes:
        name: Name for reports.
        schema: What the fields are for.
        files: The files.
        block_bytes: Text read at a time.
        fields: The fields of the whole table, of which these may be some files; by default those of these files.
    """

    name: str
    schema: TableSchema
    files: Sequence[DataFile]
    block_bytes: int = BLOCK_BYTES
    fields: Fields | None = None

    def pieces(self) -> Iterator[Callable[[], Piece]]:
        """See `Source`."""
        wanted = (self.fields or Fields(self.files, self.schema, self.block_bytes)).wanted(self.schema)
        for file in self.files:
            for first, block in _blocks(file, self.block_bytes):
                yield lambda first=first, block=block, file=file: self._parse(  # type: ignore[misc]
                    block, wanted, str(file), first
                )

    def _parse(self, block: bytes, wanted: Sequence[str], file: str, first: int) -> Piece:
        several = {column.source for column in self.schema.multi_hot}
        columns: dict[str, list[Any]] = {name: [] for name in wanted}
        lines: list[int] = []
        bad: list[BadRow] = []
        for number, line in enumerate(block.split(b"\n"), first):
            if not line.strip():
                continue
            try:
                row = _object(line)
                values = [_value(row.get(name), name, name in several) for name in wanted]
            except UnreadableRow as error:
                bad.append(error.bad_row(number))
                continue
            lines.append(number)
            for column, value in zip(columns.values(), values, strict=True):
                column.append(value)
        arrays = {name: plain(_array(values), name, file, self.schema.missing) for name, values in columns.items()}
        return Piece(arrays, file, np.asarray(lines, dtype=np.int64), bad)


class Fields:
    """The fields of a table, looked for from its first row on, as far as is needed to know that each is there.

    Args:
        files: All files of the table.
        schema: What is read of it.
        block_bytes: Text read at a time.
        rows: Rows beyond which no field is looked for; None for all.
    """

    def __init__(
        self, files: Sequence[DataFile], schema: TableSchema, block_bytes: int = BLOCK_BYTES, rows: int | None = None
    ) -> None:
        self._files, self._needed = files, frozenset(needed(schema))
        self._seen: dict[str, None] = {}
        self._rows = itertools.islice(self._read(block_bytes), rows)

    def wanted(self, schema: TableSchema) -> list[str]:
        """The fields that a schema needs, which may be a part of the whole one, each once.

        Raises:
            DataError: No row has one of them.
        """
        every = needed(schema)
        while not all(name in self._seen for name in every):
            row = next(self._rows, None)
            if row is None:
                break
            # Others are kept for a message: rows may hold any number of names.
            self._seen |= dict.fromkeys(name for name in row if name in self._needed or len(self._seen) < _SHOWN)
        # Where no line is an object, each is a bad row, which says more than that there is no such field.
        return check_columns(schema, list(self._seen), str(self._files[0])) if self._seen else every

    def _read(self, block_bytes: int) -> Iterator[Mapping[str, Any]]:
        for file in self._files:
            for _, block in _blocks(file, block_bytes):
                for line in block.split(b"\n"):
                    with contextlib.suppress(UnreadableRow):
                        yield _object(line)


def _blocks(file: DataFile, size: int) -> Iterator[tuple[int, bytes]]:
    """Blocks of whole lines with the number of the first.

    Raises:
        DataError: The file holds one array, or cannot be read.
    """
    for first, block in read_blocks(file, size, None, skip=False):
        if first == 1 and block.lstrip()[:1] == b"[":
            raise DataError(f"{file} is one JSON array and no JSON lines, an object each: convert it (jq -c '.[]').")
        yield first, block


def _object(line: bytes) -> Mapping[str, Any]:
    """A line's object, its numbers as text.

    Raises:
        UnreadableRow: It is none.
    """
    try:
        value = json.loads(line, parse_int=str, parse_float=str, parse_constant=_constant, object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        raise UnreadableRow("", f"a byte that is not UTF-8: {_shown(line)}", "not UTF-8") from error
    except (ValueError, RecursionError) as error:
        said = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise UnreadableRow("", f"no JSON object ({said}): {_shown(line)}", "no JSON object") from error
    if not isinstance(value, dict):
        raise UnreadableRow("", f"no JSON object: {_shown(line)}", "no JSON object")
    return value


def _constant(name: str) -> str | None:
    """NaN, which Python and others write for a missing number, and the infinities, which are no numbers."""
    return None if name == "NaN" else name


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        raise ValueError("a key is there twice")
    return row


def _value(value: Any, column: str, several: bool) -> Any:
    """A value of a row: text as bytes, a truth value, a list of bytes in a column with several values, or None.

    Raises:
        UnreadableRow: It is of another kind.
    """
    if isinstance(value, list) and several:
        return [_scalar(each, column) for each in value if each is not None]
    return _scalar(value, column)


def _scalar(value: Any, column: str) -> bytes | bool | None:
    if value is None or isinstance(value, bool):
        return value
    if not isinstance(value, str):
        kind = "a list" if isinstance(value, list) else "an object"
        raise UnreadableRow(column, f"{kind}, a single value expected", "no single value")
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise UnreadableRow(column, f"half of a surrogate pair: {short(repr(value), 80)}", "not UTF-8") from error


def _array(values: list[Any]) -> pa.Array:
    """A column: of truth values, of lists, or of text, among which lists are text as JSON writes them."""
    import pyarrow as pa

    kinds = {type(value) for value in values} - {type(None)}
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    if kinds == {list}:
        lists = [None if value is None else [_text(each) for each in value] for value in values]
        return pa.array(lists, pa.list_(pa.binary()))
    return pa.array([_text(value) for value in values], pa.binary())


def _shown(line: bytes) -> str:
    return short(repr(line[:80].decode("utf-8", "backslashreplace")), 80)


def _text(value: Any) -> bytes | None:
    if isinstance(value, list):
        return json.dumps([(_text(each) or b"").decode() for each in value], ensure_ascii=False).encode()
    return (b"true" if value else b"false") if isinstance(value, bool) else value
