"""Where rows come from: a source gives pieces of a table, and each row's place in its file for messages."""

from __future__ import annotations

import difflib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from rankitect.data.ranking.schema import TableSchema
from rankitect.data.storage import DataFile
from rankitect.errors import DataError, safe, short

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "BadRow",
    "Piece",
    "Source",
    "UnreadableRow",
    "check_columns",
    "needed",
]

_LIKE = 2_000
"""Names among which a similar one is looked for: it takes time for each."""


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


class UnreadableRow(Exception):
    """A row cannot be taken apart; raised and caught by readers that go row by row.

    Attributes:
        column: As in `BadRow`, as are `trouble` and `kind`.
    """

    def __init__(self, column: str, trouble: str, kind: str) -> None:
        super().__init__(trouble)
        self.column, self.trouble, self.kind = column, trouble, kind

    def bad_row(self, line: int) -> BadRow:
        """The row in a report of bad rows."""
        return BadRow(line, self.column, self.trouble, f"{self.column}: {self.kind}" if self.column else self.kind)


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
    def files(self) -> Sequence[DataFile]:
        """The files that decide its content."""

    def pieces(self) -> Iterator[Callable[[], Piece]]:
        """Reads of the pieces, in order: always cut the same way. A read may be run in any thread, or never."""


def needed(schema: TableSchema) -> list[str]:
    """The columns that a schema reads, each once."""
    names = [c.source for c in (*schema.numeric, *schema.categorical, *schema.multi_hot)]
    names += [column.name for column in (schema.label, schema.timestamp) if column is not None]
    score = None if schema.score is None else schema.score.name
    names += [name for name in (schema.group, schema.weight, score) if name is not None]
    return list(dict.fromkeys(names))


def check_columns(schema: TableSchema, present: Sequence[str], file: str) -> list[str]:
    """The columns that the schema needs, each once.

    Raises:
        DataError: If the file lacks one, or has two of that name.
    """
    wanted, known = needed(schema), frozenset(present)
    lacking = [name for name in wanted if name not in known]
    if lacking:
        name, few = lacking[0], list(itertools.islice(present, _LIKE))
        like = difflib.get_close_matches(name, few, n=1)
        hint = f" Did you mean {short(repr(like[0]), 60)}?" if like else ""
        if len(lacking) == len(wanted) > 1:
            hint = " If it has no header, name all its columns in table.columns."
        names = (name if name.isprintable() else repr(name) for name in few)  # it may be no text at all
        listed = ", ".join(names)
        raise DataError(
            f"{short(safe(file), 120)} has no column {short(repr(name), 60)}.{hint} Its columns: {short(listed, 150)}."
        )
    if len(known) < len(present):  # which does not matter for columns that are not read
        counts = Counter(present)
        twice = next((name for name in wanted if counts[name] > 1), None)
        if twice is not None:
            raise DataError(f"{short(safe(file), 120)}: column {short(repr(twice), 60)} is named twice.")
    return wanted
