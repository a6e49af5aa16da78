"""Columns of text or typed values as numbers and local codes, with the rows that cannot be.

Times are in `times.py`, columns with several values a row in `lists.py`. All take columns as `typed.plain` gives them.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from rankitect.data.ranking.keys import Keys, hash_values

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "NAMED",
    "Codes",
    "Problems",
    "as_index",
    "as_numbers",
    "as_values",
    "codes_of",
    "floats",
    "value_at",
]

_LARGEST = float(np.finfo(np.float32).max)
_NO_NUMBER = (
    *("NA", "N/A", "n/a", "#N/A", "#N/A N/A", "#NA", "<NA>", "None", "null", "NULL"),
    *("-1.#IND", "1.#IND", "-1.#QNAN", "1.#QNAN"),
)
"""What pandas and Arrow both take for a missing number, beside the spellings of NaN. As a category, NA is Namibia."""
_SHOWN = 60  # characters of a value in a message
NAMED = 64
"""Different values of a feature up to which their texts are kept, for reports."""


@dataclass
class Problems:
    """The bad rows of a piece: the first trouble of each.

    Attributes:
        rows: Number of rows.
        file: Name of their file, for messages.
        bad: True for bad rows, [rows].
        troubles: The column, what is wrong, and the kind of trouble to count by, for each bad row.
    """

    rows: int
    file: str = ""
    bad: NDArray[np.bool_] = field(init=False)
    troubles: dict[int, tuple[str, str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.bad = np.zeros(self.rows, dtype=np.bool_)

    def mark(self, where: NDArray[np.bool_], column: str, values: pa.Array, kind: str, wanted: str) -> None:
        """Notes rows as bad."""
        for row in np.flatnonzero(where & ~self.bad).tolist():
            value = value_at(values, row)
            shown = "missing" if value is None else repr(value)[: _SHOWN + 2]
            self.troubles[row] = (column, f"{shown}, {wanted} expected", f"{column}: {kind}")
        self.bad |= where


@dataclass(frozen=True)
class Codes:
    """A categorical column of a piece, its values numbered within the piece.

    Attributes:
        codes: 0 for a missing value, else 1 + the place in `keys`; [rows], or all rows' values one after the other.
        keys: The key of each different value.
        offsets: Where each row's values start, [rows + 1]; None with one value a row.
        texts: The values as text, in the order of `keys`; None where they are more than `NAMED`.
    """

    codes: NDArray[Any]
    keys: Keys
    offsets: NDArray[np.int64] | None = None
    texts: tuple[str, ...] | None = None

    def keep(self, rows: NDArray[np.bool_]) -> Codes:
        """Only some rows."""
        if rows.all():
            return self
        if self.offsets is None:
            return Codes(self.codes[rows], self.keys, None, self.texts)
        lengths = np.diff(self.offsets)
        kept = np.concatenate([[0], np.cumsum(lengths[rows])])
        return Codes(self.codes[np.repeat(rows, lengths)], self.keys, kept, self.texts)

    def any_of(self, which: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Rows that have one of the codes that are true in `which`, [1 + len(keys)]."""
        each = which[self.codes]
        if self.offsets is None:
            return each
        rows = np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))
        return np.bincount(rows[each], minlength=len(self.offsets) - 1) > 0


def value_at(values: pa.Array, row: int) -> object:
    """A value for a message: bytes as text, times beyond the calendar as their count."""
    import pyarrow as pa

    try:
        value = values[row].as_py()
    except (OverflowError, ValueError):
        value = values[row].cast(pa.int64()).as_py()
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


def as_numbers(values: pa.Array, column: str, problems: Problems, *, missing: bool = True) -> NDArray[np.float64]:
    """Numbers, [rows]; NaN where missing.

    Args:
        values: Text as binary, or a typed column.
        column: Name of the column, for messages.
        problems: Takes the rows that are no finite number.
        missing: False makes a missing value a bad row.
    """

    result = floats(values)
    if result is None:
        read = [_number(value) for value in values.to_pylist()]
        result = np.array([np.nan if number is None else number for number in read], dtype=np.float64)
        problems.mark(np.array([number is None for number in read]), column, values, "no number", "a number")
    large = np.abs(result) > _LARGEST
    if large.any():
        problems.mark(large, column, values, "too large", "a finite number that float32 holds (up to 3.4e38)")
    if not missing:
        problems.mark(np.isnan(result), column, values, "missing", "a number")
    return result


def floats(values: pa.Array) -> NDArray[np.float64] | None:
    """Numbers, NaN where missing, [rows]; None if a text is no number."""
    import pyarrow as pa
    import pyarrow.compute as pc

    numbers = None
    with contextlib.suppress(pa.ArrowInvalid):
        numbers = _cast(values, pa.float64())
    if numbers is None and pa.types.is_binary(values.type):
        gone = pc.is_in(values, value_set=pa.array([word.encode() for word in _NO_NUMBER], pa.binary()))
        with contextlib.suppress(pa.ArrowInvalid):
            numbers = _cast(pc.if_else(gone, pa.scalar(None, pa.binary()), values), pa.float64())
    return None if numbers is None else cast("NDArray[np.float64]", numbers.to_numpy(zero_copy_only=False))


def as_values(values: pa.Array) -> pa.Array:
    """A column's values as binary: the text that stands in a CSV file."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_binary(values.type):
        return values
    if pa.types.is_floating(values.type):
        return pc.cast(_whole_as_integers(values), pa.binary())
    return pc.cast(pc.cast(values, pa.string()), pa.binary())


def as_index(codes: Codes, flat: pa.Array, rows: int, column: str, values: pa.Array, problems: Problems) -> Codes:
    """Codes whose keys are the values themselves: whole numbers from 0 on, below `rows`.

    Args:
        codes: As `codes_of` gives them.
        flat: The values that they number, as binary.
        rows: Number of values that are allowed.
        column: Name of the column, for messages.
        values: The column, an element a row, for messages.
        problems: Takes the rows with another value.
    """
    import pyarrow.compute as pc

    keys = np.zeros(len(codes.keys), dtype=np.uint64)
    wrong = np.zeros(len(codes.keys) + 1, dtype=np.bool_)
    texts = pc.unique(flat.drop_null()).to_pylist()  # in the order of `codes.keys`
    for place, text in enumerate(texts):
        number = int(text) if text.isdigit() and len(text) < 19 else -1
        wrong[place + 1] = not 0 <= number < rows
        keys[place] = max(number, 0)
    if wrong.any():
        kind, wanted = "not an index", f"a whole number from 0 to {rows - 1}"
        problems.mark(codes.any_of(wrong), column, values, kind, wanted)
    return Codes(codes.codes, keys, codes.offsets, codes.texts)


def codes_of(values: pa.Array, offsets: NDArray[np.int64] | None) -> Codes:
    """Values as binary, numbered; with offsets, those of all rows one after the other."""
    import pyarrow.compute as pc

    encoded = values.dictionary_encode()
    keys = hash_values(encoded.dictionary)
    indices = encoded.indices
    if indices.null_count:
        indices = pc.fill_null(indices, -1)
    codes = indices.to_numpy(zero_copy_only=False).astype(np.uint16 if len(keys) < 1 << 16 else np.uint32)
    codes += 1  # -1 comes to 0, as numbers without sign go round
    texts = None
    if len(keys) <= NAMED:
        texts = tuple(v.decode("utf-8", "backslashreplace")[:_SHOWN] for v in encoded.dictionary.to_pylist())
    return Codes(codes, keys, offsets, texts)


def _whole_as_integers(values: pa.Array) -> pa.Array:
    """Floating-point numbers as text, whole ones without a point: with missing values, whole numbers often come so."""
    import pyarrow as pa
    import pyarrow.compute as pc

    numbers = values.to_numpy(zero_copy_only=False)  # NaN where missing
    whole = (np.abs(numbers) < 2.0**63) & (numbers == np.floor(numbers))
    integers = pa.array(np.where(whole, numbers, 0).astype(np.int64), mask=~whole)
    texts = pc.cast(integers, pa.string())
    return texts if whole.sum() + values.null_count == len(values) else pc.coalesce(texts, pc.cast(values, pa.string()))


def _cast(values: pa.Array, kind: pa.DataType) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_binary(values.type):
        values = pc.cast(values, pa.string())
    return pc.cast(values, kind, safe=False)


def _number(value: object) -> float | None:
    """A number; NaN for a missing one, None for what is none."""
    if value is None:
        return float("nan")
    try:
        # Python alone would take 1_000 for a number.
        text = value.decode("ascii") if isinstance(value, bytes) else str(value)
        return None if "_" in text else float("nan" if text in _NO_NUMBER else text)
    except ValueError:
        return None
