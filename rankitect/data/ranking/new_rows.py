"""Rows that come one by one or in a frame, as the columns that the readers of training files give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rankitect.data.ranking.columns import as_values
from rankitect.data.ranking.features import UNKNOWN_ID
from rankitect.data.ranking.keys import hash_values
from rankitect.data.ranking.typed import plain
from rankitect.data.ranking.vocabulary import Vocabulary
from rankitect.errors import DataError, safe, short

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["PLACE", "Rows", "as_spelt", "read_rows"]

Rows: TypeAlias = "pd.DataFrame | pa.Table | Sequence[Mapping[str, Any]]"
"""Rows of a table as they come: a frame of pandas, a table of Arrow, or a mapping of column to value for each row."""

PLACE = "The rows"
"""What messages call the place that rows come from."""
_BOOLEANS = (("False", "True"), ("FALSE", "TRUE"), ("0", "1"))
"""How text files spell truth values, where they do not spell them as Arrow does (false, true)."""


def read_rows(rows: Rows, wanted: Sequence[str], missing: Sequence[str]) -> dict[str, pa.Array]:
    """The wanted columns of rows.

    Args:
        rows: The rows. A key that some mappings lack is a missing value.
        wanted: Names of the columns; others are left alone.
        missing: Texts that stand for a missing value.

    Raises:
        DataError: A column is missing altogether, or its values are of different kinds.
    """
    given = _columns(rows, wanted)
    for name in wanted:
        if name not in given:
            shown = short(", ".join(map(str, list(given)[:20])), 150) or "none of those that it needs"
            raise DataError(
                f"The rows have no column {short(name, 60)!r}, which the model needs. Given: {safe(shown)}."
            )
    return {name: plain(_array(given[name], name, missing), name, PLACE, missing) for name in wanted}


def _columns(rows: Any, wanted: Sequence[str]) -> dict[str, Any]:
    import pandas as pd
    import pyarrow as pa

    if isinstance(rows, pa.Table):
        return {name: rows.column(name) for name in rows.column_names}
    if isinstance(rows, pd.DataFrame):
        twice = [str(name) for name in rows.columns[rows.columns.duplicated()] if str(name) in wanted]
        if twice:
            raise DataError(f"The rows have the column {short(twice[0], 60)!r} twice.")
        return {str(name): rows[name] for name in rows.columns}
    if not isinstance(rows, Sequence) or isinstance(rows, str | bytes):
        wish = "a frame of pandas, a table of Arrow or a list of mappings is needed"
        raise DataError(f"The rows are {type(rows).__name__}; {wish}.")
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise DataError(f"Row {number} is {type(row).__name__}; a mapping of column to value is needed.")
    names = dict.fromkeys(name for row in rows for name in row) if rows else wanted
    return {str(name): [row.get(name) for row in rows] for name in names}


def _array(values: Any, name: str, missing: Sequence[str]) -> pa.Array:
    """A column of whatever kind as one array."""
    import pyarrow as pa

    try:
        if not isinstance(values, pa.ChunkedArray):
            try:
                values = pa.array(values, from_pandas=True)
            except (pa.ArrowException, OverflowError):
                values = pa.array([_integer_as_text(value, missing) for value in values], from_pandas=True)
        return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    except (pa.ArrowException, TypeError, ValueError, OverflowError, NotImplementedError) as error:
        first = safe((str(error).splitlines() or [""])[0])
        raise DataError(f"Column {short(name, 60)!r} has values of different kinds: {short(first, 150)}.") from error


def _integer_as_text(value: Any, missing: Sequence[str]) -> Any:
    """An integer as files spell it, so that it may stand beside texts; anything else as it is.

    Only integers have one spelling, and none that would turn from a number into a missing value is changed: what a row
    comes to never depends on the rows beside it.
    """
    if not isinstance(value, int | np.integer) or isinstance(value, bool):
        return value
    text = str(int(value))
    return value if text in missing else text


def as_spelt(values: pa.Array, vocabulary: Vocabulary) -> pa.Array:
    """Truth values and floats as the training file spelt them.

    A frame holds True where its file had "True", "TRUE" or "1", and 3.0 where it may have had "3" or "3.0". Of the
    spellings that a value may have, the first that training knew is taken.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    others: list[Any] = []
    if pa.types.is_boolean(values.type):
        others = [pc.if_else(values, yes, no) for no, yes in _BOOLEANS]
    elif pa.types.is_floating(values.type):
        numbers = values.to_pylist()
        others = [pa.array([None if v is None else f"{v:.15g}" for v in numbers], pa.string())]
        others += [pa.array([None if v is None else repr(v) for v in numbers], pa.string())]
    if not others or vocabulary.keys is None or vocabulary.hashed:
        return values
    spelt = as_values(values)
    for other in others:
        text = as_values(other)
        better = ~_known(spelt, vocabulary) & _known(text, vocabulary)
        spelt = pc.if_else(pa.array(better), text, spelt)
    return spelt


def _known(values: pa.Array, vocabulary: Vocabulary) -> NDArray[np.bool_]:
    """Which values training knew."""
    import pyarrow.compute as pc

    ids = vocabulary.ids(hash_values(pc.fill_null(values, b"")))
    return (ids != UNKNOWN_ID) & np.asarray(pc.is_valid(values))
