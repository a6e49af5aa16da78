"""Columns of times in microseconds; what no log can mean is refused, with what it probably means.

A number without its unit is believed too easily: milliseconds read as seconds are the year 55840, and the hour and the
weekday made of it look like any other. So times must lie in `YEARS`.
"""

from __future__ import annotations

import contextlib
import datetime
import re
from itertools import pairwise
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from rankitect.data.ranking.columns import Problems, as_values, floats, value_at
from rankitect.data.ranking.schema import Timestamp

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["END", "FIRST", "YEARS", "as_times"]

_UTC = datetime.UTC
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=_UTC)
_MICROSECOND = datetime.timedelta(microseconds=1)
YEARS = range(1990, 2100)
"""The years that a row of a log can be of."""
FIRST, END = (
    (datetime.datetime(year, 1, 1, tzinfo=_UTC) - _EPOCH) // _MICROSECOND for year in (YEARS.start, YEARS.stop)
)
"""Where they begin and end, microseconds since 1970."""
_WITHIN = f"from {YEARS[0]} to {YEARS[-1]}"
_NONE = -(1 << 62)  # what is no time at all
_UNITS = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}
_UNIT_NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_TOGETHER = (
    *("%Y%m%d%H%M%S", "%Y%m%d%H%M", "%Y%m%d%H", "%Y%m%d"),
    *("%y%m%d%H%M%S", "%y%m%d%H%M", "%y%m%d%H", "%y%m%d"),
)
"""Formats of dates written together, as one whole number."""
_WRITTEN = (
    *("%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%Y.%m.%d"),
    *("%d-%b-%Y", "%d %b %Y", "%b %d %Y", "%b %d, %Y", "%d %B %Y", "%B %d, %Y", "%a %d %b %Y", "%a, %d %b %Y"),
)
_HOURS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p", ":%H:%M:%S")
_ZONES = ("", " %z", " %Z")
_WHOLE = (*_TOGETHER, "%d/%b/%Y:%H:%M:%S %z", "%a %b %d %H:%M:%S %Y", "%a %b %d %H:%M:%S %Z %Y")
_OTHERS = " (for others give table.timestamp.format, as of strptime; of time zones, UTC and offsets such as +02:00)"
_DIGITS = {"%Y": 4, "%j": 3} | dict.fromkeys(("%y", "%m", "%d", "%H", "%I", "%M", "%S"), 2)


def as_times(values: pa.Array, timestamp: Timestamp, problems: Problems) -> NDArray[np.int64]:
    """Microseconds since 1970, UTC, [rows].

    Args:
        values: Text as binary, numbers, dates or times of a day.
        timestamp: How they are read.
        problems: Takes the rows without a time of those `YEARS`.
    """
    import pyarrow as pa

    wanted = "seconds since 1970 or ISO 8601 such as 2024-05-31 17:00:00"
    kind = values.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        micro = _from_typed(values)
    elif timestamp.format is not None:
        wanted = f"a time as {timestamp.format}"
        micro = _by_text(as_values(values), timestamp)
    elif (numbers := floats(values)) is None:
        micro = _by_text(as_values(values), timestamp)
    else:
        micro = _scaled(numbers, timestamp)
    no_time = micro == _NONE
    if no_time.any():
        told = _hint(values, no_time, timestamp)
        problems.mark(no_time, timestamp.name, values, "no time", f"{wanted}{told}")
    outside = ~no_time & ((micro < FIRST) | (micro >= END))
    if outside.any():
        told = _hint(values, outside, timestamp, read=True)
        problems.mark(outside, timestamp.name, values, f"not {_WITHIN}", f"a time {_WITHIN}{told}")
    return np.where(no_time | outside, 0, micro)


def _from_typed(values: pa.Array) -> NDArray[np.int64]:
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = values.type
    if pa.types.is_date32(kind):
        counts, unit = pc.cast(values, pa.int32()), 86_400e6
    else:
        counts, unit = pc.cast(values, pa.int64()), _UNITS["ms" if pa.types.is_date(kind) else kind.unit]
    whole = pc.fill_null(pc.cast(counts, pa.int64()), _NONE).to_numpy(zero_copy_only=False)
    about = whole * unit  # in floating point, which does not overflow
    whole = np.where((about >= FIRST) & (about < END), whole, 0)
    exact = whole * int(unit) if unit >= 1 else whole // round(1 / unit)
    return np.where(_missing(values), _NONE, exact)


def _missing(values: pa.Array) -> NDArray[np.bool_]:
    import pyarrow.compute as pc

    return cast("NDArray[np.bool_]", pc.is_null(values).to_numpy(zero_copy_only=False))


def _scaled(numbers: NDArray[np.float64], timestamp: Timestamp) -> NDArray[np.int64]:
    """Microseconds of numbers that count from the origin; what lies far outside as 0, which is outside too."""
    start = datetime.datetime.combine(timestamp.origin, datetime.time(), _UTC) - _EPOCH
    micro = numbers * _UNITS[timestamp.unit or "s"] + start // _MICROSECOND
    far = ~(np.abs(micro) < 2.0 * END)
    return np.where(np.isnan(numbers), _NONE, np.where(far, 0, micro)).astype(np.int64)


def _by_text(values: pa.Array, timestamp: Timestamp) -> NDArray[np.int64]:
    """Times of texts; each different text is read once."""
    import pyarrow as pa
    import pyarrow.compute as pc

    encoded = values.dictionary_encode()
    try:
        texts = pc.cast(encoded.dictionary, pa.string())
    except pa.ArrowInvalid:  # bytes that are no text are no time
        plain = [value.decode("utf-8", "replace") for value in encoded.dictionary.to_pylist()]
        texts = pa.array(plain, pa.string())
    times = _by_iso(texts, timestamp) if timestamp.format is None else _by_format(texts, timestamp.format)
    places = pc.fill_null(encoded.indices, len(texts)).to_numpy(zero_copy_only=False)
    return np.append(times, _NONE)[places]


def _by_format(texts: pa.Array, layout: str) -> NDArray[np.int64]:
    """Times by a format of strptime. Where its digits follow each other, there must be as many as it says: strptime
    itself takes "202311" for the first of January by %Y%m%d.
    """
    import pandas as pd

    given = texts.to_pylist()
    if not given:
        return np.empty(0, dtype=np.int64)
    width = _width(layout)
    # pandas takes "now" and "today" for the present moment, whatever the format.
    kept = [t if any(c.isdigit() for c in t) and width in (None, len(t)) else None for t in given]
    read = pd.to_datetime(pd.Series(kept, dtype=object), format=layout, errors="coerce", utc=True)
    counts = read.dt.as_unit("us").astype("int64").to_numpy()
    return np.where(read.isna().to_numpy(), _NONE, counts)


def _width(layout: str) -> int | None:
    """Characters of a time whose format has digits that follow each other; None where it has none."""
    directives = re.findall("%.|[^%]", layout)
    together = any(a in _DIGITS and b in _DIGITS for a, b in pairwise(directives))
    known = all(d in _DIGITS or len(d) == 1 for d in directives)
    return sum(_DIGITS.get(d, 1) for d in directives) if together and known else None


def _by_iso(texts: pa.Array, timestamp: Timestamp) -> NDArray[np.int64]:
    """Times of ISO 8601, which may end with UTC or GMT; a text that is a number counts from the origin."""
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = pc.replace_substring_regex(pc.utf8_trim_whitespace(texts), r" ?(UTC|GMT|Z)$", "Z")
    for kind in (pa.timestamp("us"), pa.timestamp("us", "UTC")):
        try:
            return cast("NDArray[np.int64]", pc.cast(pc.cast(texts, kind), pa.int64()).to_numpy(zero_copy_only=False))
        except pa.ArrowInvalid:
            continue
    numbers = np.array([_number(text) for text in texts.to_pylist()], dtype=np.float64)
    counted = _scaled(numbers, timestamp)
    for place in np.flatnonzero(np.isnan(numbers)).tolist():
        counted[place] = _iso(texts[place].as_py())
    return counted


def _number(text: str) -> float:
    try:
        return float(text) if text.isascii() and "_" not in text else float("nan")
    except ValueError:
        return float("nan")


def _iso(text: str) -> int:
    """Microseconds of one time; `_NONE` where it is none."""
    try:
        time = datetime.datetime.fromisoformat(re.sub(r" (?=[+-]\d\d:?\d\d$)", "", text))
        return ((time if time.tzinfo else time.replace(tzinfo=_UTC)) - _EPOCH) // _MICROSECOND
    except (ValueError, OverflowError):
        return _NONE


def _hint(values: pa.Array, where: NDArray[np.bool_], timestamp: Timestamp, *, read: bool = False) -> str:
    """What the first of some values probably is, in brackets; empty where nothing fits, or a text was `read`."""
    value = value_at(values, int(np.flatnonzero(where)[0]))
    text = str(value).strip().removesuffix(".0")
    if value is None or timestamp.format is not None or len(text) > 60:
        return ""
    number = _number(text)
    if (layout := _layout(text)) is not None:
        return f" ({' or '.join(_as_read(text, each) for each in (layout, *_swapped(text, layout)))})"
    if np.isnan(number):
        return "" if read else _OTHERS
    for unit, size in _UNITS.items():
        if FIRST <= number * size < END:
            time = _EPOCH + datetime.timedelta(microseconds=int(number * size))
            return f" (in {_UNIT_NAMES[unit]} it is {time:%Y-%m-%d %H:%M}: table.timestamp.unit={unit})"
    if 0 <= number < 1e9:
        return " (if numbers count from another day, say from which: table.timestamp.origin)"
    return ""


def _as_read(text: str, layout: str) -> str:
    time = datetime.datetime.strptime(text, layout)
    return f"as {layout} it is {time:%Y-%m-%d %H:%M}: table.timestamp.format='{layout}'"


def _swapped(text: str, layout: str) -> list[str]:
    """The layout with the month first instead of the day, where a text may be read by it as well."""
    other = re.sub("^%d([^%])%m", r"%m\1%d", layout)
    with contextlib.suppress(ValueError):
        if other != layout and datetime.datetime.strptime(text, other).year in YEARS:
            return [other]
    return []


def _layout(text: str) -> str | None:
    """The first format by which a text is a time of those years."""
    together = text.isdigit()
    layouts = _TOGETHER if together else (*_WHOLE, *(d + h + z for d in _WRITTEN for h in _HOURS for z in _ZONES))
    for layout in layouts:
        if together and _width(layout) != len(text):
            continue
        with contextlib.suppress(ValueError):
            if datetime.datetime.strptime(text, layout).year in YEARS:
                return layout
    return None
