"""Lines of delimited text before they are taken apart: where rows end, and which rows cannot be trusted.

A stray quote makes a reader of CSV swallow all up to the next one, and a carriage return makes it count rows that are
none. So every quote is checked first: it must enclose a whole value, as in RFC 4180. A row where one does not is bad.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankitect.data.ranking.sources import BadRow
from rankitect.errors import DataError

__all__ = ["CheckedRows", "Dialect", "count_rows", "is_plain", "last_row_end", "sort_out", "without_ragged"]

_LF, _CR = 10, 13
_SHOWN = 80  # bytes of a row in a message
_STRAY = "a quote that does not enclose its value (where quotes mean nothing, set task.data.quote=none) in"
_OPEN = (
    "a quote that is not closed in its row (where quotes mean nothing, set task.data.quote=none; where values have "
    "line ends, task.data.newlines_in_values=true):"
)
_RAGGED = "column count"
_RETURN = "a carriage return inside of a row (rows end with LF or CR LF):"


@dataclass(frozen=True)
class Dialect:
    """How a text file is written.

    Attributes:
        delimiter: Between columns, one character.
        quote: Around values with delimiters in them; None where quotes mean nothing.
        missing: Texts that stand for a missing value.
        join: Longer delimiter of the file that is read as `delimiter`, such as `::`.
        newlines: Whether a quoted value may hold line ends.
    """

    delimiter: str = ","
    quote: str | None = '"'
    missing: tuple[str, ...] = ("",)
    join: str | None = None
    newlines: bool = False

    @property
    def mark(self) -> bytes | None:
        """The quote between two of which a line end belongs to a value; None where every line end ends a row."""
        return self.quote.encode() if self.quote is not None and self.newlines else None


@dataclass(frozen=True)
class CheckedRows:
    """Rows that can be taken apart, and those that cannot.

    Attributes:
        block: The rows, one after the other.
        lines: The row in the file of each.
        bad: The others; blank lines are neither.
    """

    block: bytes
    lines: NDArray[np.int64]
    bad: tuple[BadRow, ...] = ()


def last_row_end(data: bytes, mark: bytes | None, inside: bool) -> int:
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


def count_rows(block: bytes, mark: bytes | None) -> int:
    """Rows of a block, blank ones too: line ends outside quotes, and a last row without one."""
    if mark is None or mark not in block:
        return block.count(b"\n") + (not block.endswith(b"\n"))
    return len(_Outline.of(block, mark, newlines=True).stops)


def sort_out(block: bytes, first: int, dialect: Dialect, file: str) -> CheckedRows:
    """The rows of a block without blank lines and without those that would be read wrongly.

    Where there is no quote and no stray carriage return, any reader finds the same rows, and `is_plain` says so faster.

    Args:
        block: Whole rows.
        first: Number of the first.
        dialect: How they are written.
        file: Name of the file, for messages.

    Raises:
        DataError: A quote does not enclose its value, in a file whose values may have line ends: where its row ends
            is not known then.
    """
    quote = None if dialect.quote is None else dialect.quote.encode()
    quoted, returns = quote is not None and quote in block, _has_returns(block)
    outline = _Outline.of(block, quote if quoted else None, newlines=dialect.newlines)
    stray, unclosed = outline.wrong_quotes(dialect.delimiter.encode()) if quoted else (_none(), _none())
    if dialect.newlines and len(stray) + len(unclosed):
        row = int(min([*stray, *unclosed]))
        raise DataError(
            f"{file}, row {first + row}: found {_STRAY} {outline.shown(row)}. Which rows follow cannot be told where "
            "values may have line ends (task.data.newlines_in_values): mend the file."
        )
    troubles = {int(row): (_RETURN, "carriage return") for row in outline.returns(dialect.newlines)} if returns else {}
    troubles |= {int(row): (_OPEN, "unclosed quote") for row in unclosed}
    troubles |= {int(row): (_STRAY, "stray quote") for row in stray}
    bad = tuple(BadRow(first + row, "", f"{told} {outline.shown(row)}", k) for row, (told, k) in troubles.items())
    return outline.without([*troubles, *outline.blank(dialect.delimiter.encode())], first, bad)


def without_ragged(rows: CheckedRows, columns: int, dialect: Dialect) -> CheckedRows:
    """The rows that have as many values as there are columns."""
    quote = None if dialect.quote is None else dialect.quote.encode()
    outline = _Outline.of(rows.block, quote, newlines=dialect.newlines)
    counts = outline.values(dialect.delimiter.encode())
    ragged, blank = np.flatnonzero(counts != columns), set(outline.blank(dialect.delimiter.encode()))
    bad = tuple(
        BadRow(int(rows.lines[row]), "", f"{counts[row]} columns, {columns} expected: {outline.shown(row)}", _RAGGED)
        for row in ragged.tolist()
        if row not in blank
    )
    left = outline.without(ragged, 0, ())
    return CheckedRows(left.block, rows.lines[left.lines], (*rows.bad, *bad))


def is_plain(block: bytes, dialect: Dialect) -> bool:
    """Whether a block has neither quotes that mean something nor carriage returns other than in line ends."""
    return (dialect.quote is None or dialect.quote.encode() not in block) and not _has_returns(block)


def _has_returns(block: bytes) -> bool:
    return b"\r" in block and block.count(b"\r") != block.count(b"\r\n")


def _none() -> NDArray[np.int64]:
    return np.empty(0, dtype=np.int64)


def _among(values: NDArray[np.uint8], wanted: tuple[int, ...]) -> NDArray[np.bool_]:
    table = np.zeros(256, dtype=np.bool_)
    table[list(wanted)] = True
    return table[values]


@dataclass(frozen=True, eq=False)
class _Outline:
    """Where the rows of a block are.

    Attributes:
        block: The block.
        data: Its bytes, [bytes] uint8.
        quotes: Places of quotes.
        starts: Where each row begins, [rows].
        stops: Where each row's line end is, or the end of the block, [rows].
    """

    block: bytes
    data: NDArray[np.uint8]
    quotes: NDArray[np.int64]
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]

    @classmethod
    def of(cls, block: bytes, quote: bytes | None, *, newlines: bool) -> _Outline:
        data = np.frombuffer(block, dtype=np.uint8)
        quotes = _none() if quote is None else np.flatnonzero(data == quote[0])
        stops = np.flatnonzero(data == _LF)
        if newlines and len(quotes):  # those after an odd number of quotes belong to a value
            stops = stops[np.searchsorted(quotes, stops) % 2 == 0]
        if len(data) and (not len(stops) or stops[-1] != len(data) - 1):
            stops = np.append(stops, len(data))
        return cls(block, data, quotes, np.concatenate([[0], stops[:-1] + 1])[: len(stops)], stops)

    def wrong_quotes(self, delimiter: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows with a quote that does not enclose its value, and the other rows with one that is not closed.

        In a row of RFC 4180 every other quote opens a value: at the row's begin, after a delimiter, or after the quote
        before, with which it is one that belongs to the value. The others close it: before a delimiter or the row's
        end, or before the next such quote.
        """
        padded = np.full(len(self.data) + 3, _LF, dtype=np.uint8)
        padded[1:-2] = self.data
        around = (_LF, delimiter[0], int(self.data[self.quotes[0]]))

        def begins(places: NDArray[np.int64]) -> NDArray[np.bool_]:
            return _among(padded[places], around)

        def ends(places: NDArray[np.int64]) -> NDArray[np.bool_]:
            after = padded[places + 2]
            fits = _among(after, around)
            returns = np.flatnonzero(after == _CR)
            fits[returns] = padded[places[returns] + 3] == _LF
            return fits

        firsts = np.searchsorted(self.quotes, self.starts)
        counts = np.diff(np.append(firsts, len(self.quotes)))
        odd = counts % 2 == 1
        # Mostly all is right, and then quotes open and close in turn through the whole block.
        if not odd.any() and begins(self.quotes[::2]).all() and ends(self.quotes[1::2]).all():
            return _none(), _none()
        opening = (np.arange(len(self.quotes)) - np.repeat(firsts, counts)) % 2 == 0
        rows = np.repeat(np.arange(len(counts)), counts)
        stray = np.unique(rows[np.where(opening, ~begins(self.quotes), ~ends(self.quotes))])
        return stray, np.setdiff1d(np.flatnonzero(odd), stray)

    def returns(self, newlines: bool) -> NDArray[np.int64]:
        """Rows with a carriage return that is part neither of their line end nor of a value that may have line ends."""
        places = np.flatnonzero(self.data == _CR)
        places = places[np.append(self.data, _LF)[places + 1] != _LF]
        if newlines:
            places = places[np.searchsorted(self.quotes, places) % 2 == 0]
        return np.unique(np.searchsorted(self.stops, places))

    def blank(self, delimiter: bytes) -> list[int]:
        """Rows that hold spaces at most."""
        spaces = b" \r".replace(delimiter, b"")
        begin = self.data[np.minimum(self.starts, len(self.data) - 1)]
        likely = np.flatnonzero((self.starts == self.stops) | _among(begin, tuple(spaces)))
        return [row for row in likely.tolist() if not self.row(row).strip(spaces)]

    def values(self, delimiter: bytes) -> NDArray[np.int64]:
        """Values of each row."""
        places = np.flatnonzero(self.data == delimiter[0])
        places = places[np.searchsorted(self.quotes, places) % 2 == 0]
        return np.bincount(np.searchsorted(self.stops, places), minlength=len(self.stops)) + 1

    def row(self, row: int) -> bytes:
        """A row without its line end."""
        return self.data[self.starts[row] : self.stops[row]].tobytes()

    def shown(self, row: int) -> str:
        """The beginning of a row, for a message."""
        start = int(self.starts[row])
        end = min(int(self.stops[row]), start + _SHOWN)
        return repr(self.data[start:end].tobytes().rstrip(b"\r").decode("utf-8", "backslashreplace"))

    def without(self, rows: Any, first: int, bad: tuple[BadRow, ...]) -> CheckedRows:
        """All rows but some."""
        kept = np.ones(len(self.stops), dtype=np.bool_)
        kept[np.asarray(rows, dtype=np.int64)] = False
        lengths = np.append(self.starts[1:], len(self.data)) - self.starts
        block = self.block if kept.all() else self.data[np.repeat(kept, lengths)].tobytes()
        return CheckedRows(block, first + np.flatnonzero(kept), bad)
