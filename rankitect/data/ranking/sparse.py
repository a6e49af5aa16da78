"""Rows that name what is not zero: `label index:value …` (libsvm) and `label field:index:value …` (libffm).

Sources: Chang and Lin 2011, "LIBSVM: a library for support vector machines"; Juan, Zhuang, Chin and Lin 2016,
"Field-aware factorization machines for CTR prediction".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rankitect.data.ranking.delimited import BLOCK_BYTES, read_blocks
from rankitect.data.ranking.schema import TableSchema
from rankitect.data.ranking.sources import BadRow, Piece, UnreadableRow, check_columns, needed
from rankitect.data.storage import DataFile
from rankitect.errors import DataError, safe, short

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["INDICES", "LABEL", "QUERY", "SparseSource", "refuse_unnamed"]

LABEL, QUERY, INDICES = "label", "qid", "indices"
"""What the columns of a libsvm file are called that are no index."""
_DIGITS = 18
"""Of an index: what 64 bits hold."""


@dataclass(frozen=True)
class SparseSource:
    """Files in the form of libsvm or libffm, one after the other. Blank lines and comments (`#`) are no rows.

    The columns of libsvm are `label`, `qid`, each index as a number (0 where a row does not name it), and `indices`,
    all that a row names, where each has the value 1. The columns of libffm are `label` and each field: the field's
    index as a category (several of them in `multi_hot`) where its value is 1, or its value as a number.

    Attributes:
        name: Name for reports.
        schema: What the columns are for.
        files: The files.
        fields: True for libffm.
        block_bytes: Text read at a time.
    """

    name: str
    schema: TableSchema
    files: Sequence[DataFile]
    fields: bool = False
    block_bytes: int = BLOCK_BYTES

    def pieces(self) -> Iterator[Callable[[], Piece]]:
        """See `Source`."""
        named = [LABEL] if self.fields else [LABEL, QUERY, INDICES]
        numbered = [name for name in needed(self.schema) if _is_index(name)]
        for file in self.files:
            wanted = check_columns(self.schema, [*named, *numbered], str(file))
            for first, block in read_blocks(file, self.block_bytes, None, skip=False):
                yield lambda first=first, block=block, wanted=wanted, file=file: self._parse(  # type: ignore[misc]
                    block, wanted, str(file), first
                )

    def _parse(self, block: bytes, wanted: Sequence[str], file: str, first: int) -> Piece:
        columns: dict[str, list[Any]] = {name: [] for name in wanted}
        row_of = self._row_of_fields if self.fields else self._row
        lines: list[int] = []
        bad: list[BadRow] = []
        for number, line in enumerate(block.split(b"\n"), first):
            words = line.partition(b"#")[0].split()
            if not words:
                continue
            try:
                values = row_of(words, wanted)
            except UnreadableRow as error:
                bad.append(error.bad_row(number))
                continue
            lines.append(number)
            for column, value in zip(columns.values(), values, strict=True):
                column.append(value)
        arrays = {name: self._array(name, values) for name, values in columns.items()}
        return Piece(arrays, file, np.asarray(lines, dtype=np.int64), bad)

    def _array(self, name: str, values: list[Any]) -> pa.Array:
        import pyarrow as pa

        if name in (LABEL, QUERY):
            return pa.array(values, pa.binary())
        if name == INDICES or name in {column.source for column in self.schema.multi_hot}:
            return pa.array(values, pa.list_(pa.binary()))
        return pa.array(values, pa.float64() if not self.fields or name in self._numbers else pa.binary())

    @property
    def _numbers(self) -> frozenset[str]:
        """Columns of libffm that are read as numbers."""
        return frozenset(column.source for column in self.schema.numeric)

    def _row(self, words: Sequence[bytes], wanted: Sequence[str]) -> list[Any]:
        query: bytes | None = None
        pairs: dict[str, float] = {}
        for word in words[1:]:
            index, mark, text = word.partition(b":")
            if index == b"qid" and mark and query is None and not pairs:
                query = _index(text, word).encode()
                continue
            _put(pairs, _index(index if mark else b"", word), _number(text, word), word)
        given: Mapping[str, Any] = {LABEL: words[0], QUERY: query}
        return [given[n] if n in given else _ones(pairs) if n == INDICES else pairs.get(n, 0.0) for n in wanted]

    def _row_of_fields(self, words: Sequence[bytes], wanted: Sequence[str]) -> list[Any]:
        fields: dict[str, dict[str, float]] = {}
        for word in words[1:]:
            parts = word.split(b":")
            if len(parts) != 3:
                raise UnreadableRow("", f"{_shown(word)}, field:index:value expected", "no field:index:value")
            of_field = fields.setdefault(_index(parts[0], word), {})
            _put(of_field, _index(parts[1], word), _number(parts[2], word), word)
        several = {column.source for column in self.schema.multi_hot}
        row: list[Any] = []
        for name in wanted:
            pairs = fields.get(name, {})
            if name == LABEL:
                row.append(words[0])
            elif name in several:
                row.append(_ones(pairs, name))
            elif len(pairs) > 1:
                raise UnreadableRow(name, f"{len(pairs)} values, one expected (or multi_hot)", "several values")
            elif name in self._numbers:
                row.append(next(iter(pairs.values()), None))
            else:
                row.append(next(iter(_ones(pairs, name)), None))
        return row


def refuse_unnamed(schema: TableSchema, largest: Sequence[Sequence[float]], table: str) -> None:
    """Raise where an index is 0 in every row of a table: no row names it, which is a mistake of the schema.

    Args:
        schema: What the columns are for.
        largest: The largest size of the numbers of each feature, in each piece.
        table: Name of the table, for messages.

    Raises:
        DataError: There is such an index.
    """
    for column, sizes in zip(schema.numeric, zip(*largest, strict=True), strict=True):
        if _is_index(column.source) and not any(sizes):
            raise DataError(f"{short(safe(table), 100)}: no row has a value other than 0 at the index {column.source}.")


def _is_index(name: str) -> bool:
    return name.isascii() and name.isdigit() and len(name) <= _DIGITS and name == str(int(name))


def _index(text: bytes, word: bytes) -> str:
    """An index as it is named: without leading zeros.

    Raises:
        UnreadableRow: It is none.
    """
    if not text.isdigit() or len(text) > _DIGITS:
        raise UnreadableRow("", f"{_shown(word)}, index:value expected", "no index")
    return str(int(text))


def _number(text: bytes, word: bytes) -> float:
    try:
        value = float(text) if b"_" not in text else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UnreadableRow("", f"{_shown(word)}, a finite value expected", "no finite value")
    return value


def _put(pairs: dict[str, float], index: str, value: float, word: bytes) -> None:
    if index in pairs:
        raise UnreadableRow("", f"{_shown(word)}, an index that is there twice", "index twice")
    pairs[index] = value


def _ones(pairs: Mapping[str, float], column: str = INDICES) -> list[bytes]:
    """The indices whose value is 1; those with 0 do not count.

    Raises:
        UnreadableRow: One has another value, which as a category would be lost.
    """
    for index, value in pairs.items():
        if value not in (0.0, 1.0):
            raise UnreadableRow(column, f"{index}:{value:g}, the value 1 expected of a category", "value not 1")
    return [index.encode() for index, value in pairs.items() if value]


def _shown(word: bytes) -> str:
    return short(repr(word[:60].decode("utf-8", "backslashreplace")), 80)
