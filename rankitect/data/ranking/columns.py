"""Columns of text or typed values as numbers, times and local codes, with the rows that cannot be."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from rankitect.data.ranking.keys import Keys, hash_values
from rankitect.data.ranking.schema import Timestamp

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "NAMED",
    "Codes",
    "Problems",
    "as_index",
    "as_numbers",
    "as_times",
    "as_values",
    "single_codes",
    "split_codes",
]

_UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1}
_LATEST = 9e18  # microseconds that 64 bits hold
_SHOWN = 60  # characters of a value in a message
NAMED = 64
"""Different values of a feature up to which their texts are kept, for reports."""


@dataclass
class Problems:
    """The bad rows of a piece: the first trouble of each.

    Attributes:
        rows: Number of rows.
        bad: True for bad rows, [rows].
        troubles: The column, what is wrong, and the kind of trouble to count by, for each bad row.
    """

    rows: int
    bad: NDArray[np.bool_] = field(init=False)
    troubles: dict[int, tuple[str, str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.bad = np.zeros(self.rows, dtype=np.bool_)

    def mark(self, where: NDArray[np.bool_], column: str, values: pa.Array, kind: str, wanted: str) -> None:
        """Notes rows as bad."""
        for row in np.flatnonzero(where & ~self.bad).tolist():
            value = values[row].as_py()
            if isinstance(value, bytes):
                value = value.decode("utf-8", "backslashreplace")
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
        if self.offsets is None:
            return Codes(self.codes[rows], self.keys, None, self.texts)
        lengths = np.diff(self.offsets)
        kept = np.concatenate([[0], np.cumsum(lengths[rows])])
        return Codes(self.codes[np.repeat(rows, lengths)], self.keys, kept, self.texts)


def as_numbers(values: pa.Array, column: str, problems: Problems, *, missing: bool = True) -> NDArray[np.float64]:
    """Numbers, [rows]; NaN where missing.

    Args:
        values: Text as binary, or a typed column.
        column: Name of the column, for messages.
        problems: Takes the rows that are no finite number.
        missing: False makes a missing value a bad row.
    """
    import pyarrow as pa

    try:
        numbers = _cast(values, pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        read = [_number(value) for value in values.to_pylist()]
        numbers = pa.array([np.nan if number is None else number for number in read], pa.float64())
        problems.mark(np.array([number is None for number in read]), column, values, "no number", "a number")
    result = cast("NDArray[np.float64]", numbers.to_numpy(zero_copy_only=False))
    infinite = np.isinf(result)
    if infinite.any():
        problems.mark(infinite, column, values, "infinite", "a finite number")
    if not missing:
        problems.mark(np.isnan(result), column, values, "missing", "a number")
    return result


def as_times(values: pa.Array, timestamp: Timestamp, problems: Problems) -> NDArray[np.int64]:
    """Microseconds since 1970, UTC, [rows]."""
    import pyarrow as pa
    import pyarrow.compute as pc

    wanted = "seconds since 1970 or ISO 8601 such as 2024-05-31 17:00:00"
    times: Any = None
    if pa.types.is_temporal(values.type):
        times = pc.cast(values, pa.timestamp("us"))
    elif timestamp.format is not None:
        wanted = f"a time as {timestamp.format}"
        text = pc.cast(values, pa.string())
        times = pc.strptime(text, format=timestamp.format, unit="us", error_is_null=True)
    else:
        try:
            numbers = _cast(values, pa.float64()).to_numpy(zero_copy_only=False)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            times = _from_text(values, _UNITS[timestamp.unit])
        else:
            micro = numbers * _UNITS[timestamp.unit]
            missing = ~(np.abs(micro) < _LATEST)
            problems.mark(missing, timestamp.name, values, "no time", wanted)
            return np.where(missing, 0, micro).astype(np.int64)
    problems.mark(np.asarray(pc.is_null(times)), timestamp.name, values, "no time", wanted)
    filled = pc.fill_null(pc.cast(times, pa.int64()), 0)
    return cast("NDArray[np.int64]", filled.to_numpy(zero_copy_only=False))


def as_values(values: pa.Array) -> pa.Array:
    """A column's values as binary: the text that stands in a CSV file."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_binary(values.type):
        return values
    if pa.types.is_floating(values.type):  # whole numbers with missing values often come as floats
        whole = pc.cast(values, pa.int64(), safe=False)
        if pc.all(pc.fill_null(pc.equal(pc.cast(whole, values.type), values), True)).as_py():
            values = whole
    return pc.cast(values if pa.types.is_string(values.type) else pc.cast(values, pa.string()), pa.binary())


def single_codes(values: pa.Array) -> Codes:
    """A column with one value a row."""
    return _codes(as_values(values), None)


def split_codes(values: pa.Array, separator: str) -> Codes:
    """A column with several values a row: text with a separator, or lists."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not (pa.types.is_list(values.type) or pa.types.is_large_list(values.type)):
        values = pc.split_pattern(as_values(values), separator)
    lengths = pc.fill_null(pc.list_value_length(values), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    flat = as_values(values.flatten())
    empty = np.asarray(pc.fill_null(pc.equal(pc.binary_length(flat), 0), True))
    rows = np.repeat(np.arange(len(lengths)), lengths)[~empty]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(lengths)))]).astype(np.int64)
    return _codes(flat.filter(pa.array(~empty)), offsets)


def as_index(codes: Codes, rows: int, column: str, values: pa.Array, problems: Problems) -> Codes:
    """Codes whose keys are the values themselves: whole numbers from 0 on, below `rows`."""
    import pyarrow.compute as pc

    keys = np.zeros(len(codes.keys), dtype=np.uint64)
    wrong = np.zeros(len(codes.keys) + 1, dtype=np.bool_)
    texts = pc.unique(as_values(values).drop_null()).to_pylist()  # in the order of `codes.keys`
    for place, text in enumerate(texts):
        number = int(text) if text.isdigit() and len(text) < 19 else -1
        wrong[place + 1] = not 0 <= number < rows
        keys[place] = max(number, 0)
    if wrong.any():
        kind, wanted = "not an index", f"a whole number from 0 to {rows - 1}"
        problems.mark(wrong[codes.codes], column, values, kind, wanted)
    return Codes(codes.codes, keys, None, codes.texts)


def _codes(values: pa.Array, offsets: NDArray[np.int64] | None) -> Codes:
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


def _cast(values: pa.Array, kind: pa.DataType) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
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
        return None if "_" in text else float(text)
    except ValueError:
        return None


def _from_text(values: pa.Array, unit: int) -> pa.Array:
    """Microseconds of a column that is not all numbers; null where a value is no time."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for kind in (pa.timestamp("us"), pa.timestamp("us", "UTC")):
        try:
            return pc.cast(pc.cast(values, pa.string()), kind)
        except pa.ArrowInvalid:
            continue
    return pa.array([_micros(value, unit) for value in values.to_pylist()], pa.int64())


def _micros(value: object, unit: int) -> int | None:
    number = _number(value)
    if number is not None:
        return int(number * unit) if abs(number * unit) < _LATEST else None
    try:
        text = value.decode("ascii") if isinstance(value, bytes) else str(value)
        time = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    time = time if time.tzinfo else time.replace(tzinfo=datetime.UTC)
    return (time - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)) // datetime.timedelta(microseconds=1)
