"""What a schema leaves open is assumed, and refused where the whole table speaks against it.

Numbers without a unit are seconds, and `|` stands between values that are no list. A few rows cannot tell whether this
is right: seconds may look like dates by chance. So each piece of a table says what its values show, the table is judged
by all of them together, and rows that come later, one by one, are read as the table was.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankitect.data.ranking.columns import as_values
from rankitect.data.ranking.lists import DEFAULT_SEPARATOR, separators_in, wrong_separator
from rankitect.data.ranking.schema import TableSchema
from rankitect.data.ranking.together import Together
from rankitect.errors import DataError, safe, short

__all__ = ["Assumptions", "shown_by"]


_KEPT = 0.9
"""Of the pairs of different numbers, how many must be different in double precision."""
_MANY_DIGITS = {"log": math.log1p(2.0**46)}
"""Numbers from which on whole ones may be lost in double precision, after a transform; without one, 2**53."""
_SAMPLE = 512


def shown_by(columns: Mapping[str, Any], schema: TableSchema, numeric: NDArray[np.float64]) -> dict[str, Any]:
    """What a piece's values show of what is assumed, as plain data.

    Args:
        columns: Arrow columns by name, of the types that `typed.plain` gives; good rows only.
        schema: What they are for.
        numeric: The numbers of these rows, as `RawShard.numeric`.
    """
    separators = {column.name: separators_in(columns[column.source], column) for column in schema.multi_hot}
    shown: dict[str, Any] = {"separators": {name: counts for name, counts in separators.items() if counts is not None}}
    shown["digits"] = {}
    for column, numbers in zip(schema.numeric, numeric, strict=True):
        large = np.flatnonzero(np.abs(numbers) >= _MANY_DIGITS.get(column.transform, 2.0**53))
        if len(large) > 1:
            shown["digits"][column.name] = _told_apart(columns[column.source], numbers, large)
    if schema.timestamp is not None:
        together = Together.of(columns[schema.timestamp.name], schema.timestamp)
        shown["together"] = None if together is None else [together.count, together.dates]
    return shown


def _told_apart(values: Any, numbers: NDArray[np.float64], rows: NDArray[np.int64]) -> list[int]:
    """Of neighbours in a sample of rows, how many pairs differ, and how many of these do as double precision."""
    rows = rows[:: -(-len(rows) // _SAMPLE)]
    written = np.array(as_values(values.take(rows)).to_pylist(), dtype=object)
    differ = written[1:] != written[:-1]
    return [int(differ.sum()), int((differ & (np.diff(numbers[rows]) != 0)).sum())]


class Assumptions:
    """What is assumed of a table.

    Args:
        schema: What its columns are for.
    """

    def __init__(self, schema: TableSchema) -> None:
        self._schema = schema
        self._separators: dict[str, Counter[str]] = {}
        self._digits: dict[str, Counter[str]] = {}
        self._together: Together | None = None

    def add(self, shown: Mapping[str, Any]) -> None:
        """Add what a piece showed."""
        for name, counts in shown["separators"].items():
            self._separators.setdefault(name, Counter()).update(counts)
        for name, (different, kept) in shown["digits"].items():
            self._digits.setdefault(name, Counter()).update(different=different, kept=kept)
        if shown.get("together") is not None:
            together = Together(*shown["together"])
            self._together = together if self._together is None else self._together.joined(together)

    def check(self, table: str) -> None:
        """Refuse what is assumed where all pieces so far speak against it.

        Args:
            table: Name of the table, for messages.

        Raises:
            DataError: They do; names the column, and the key that says what is meant.
        """
        for name, counts in self._separators.items():
            other = wrong_separator(counts)
            if other is not None:
                few = f"{counts[DEFAULT_SEPARATOR]:,} values hold" if counts[DEFAULT_SEPARATOR] else "no value holds"
                raise DataError(
                    f"{_place(table, name)}: {few} the separator {DEFAULT_SEPARATOR!r}, but {counts[other]:,} of "
                    f"{counts['']:,} hold {other!r}. Say in table.multi_hot what is between values: separator: "
                    f"{json.dumps(other)}, or separator: {json.dumps(DEFAULT_SEPARATOR)} if all is well as it is."
                )
        for name, pairs in self._digits.items():
            if pairs["kept"] < _KEPT * pairs["different"]:
                raise DataError(
                    f"{_place(table, name)}: its numbers differ in digits that double precision does not hold. "
                    "Subtract in the file what all of them have in common, or make it a categorical column."
                )
        if self._together is not None and (suspicion := self._together.suspicion):
            assert self._schema.timestamp is not None
            raise DataError(f"{_place(table, self._schema.timestamp.name)}: {suspicion}. Say which.")


def _place(table: str, column: str) -> str:
    return f"{short(safe(table), 100)}, column {short(repr(column), 60)}"
