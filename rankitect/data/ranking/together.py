"""Dates that are written together, as one whole number of ten digits, look like seconds since 1970.

2023110114 is the first of November 2023 at 14:00, and as seconds it is a moment of 2034. Whether a column holds one or
the other is told from the share of its numbers that are such dates: of seconds, few are.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rankitect.data.ranking.columns import floats
from rankitect.data.ranking.schema import Timestamp
from rankitect.data.ranking.times import YEARS

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Together"]

_LAYOUTS = ("%Y%m%d%H", "%d%m%Y%H", "%m%d%Y%H", "%y%m%d%H%M", "%d%m%y%H%M", "%m%d%y%H%M")
"""Formats of dates that, read as seconds, may lie in the years of a log; the likelier ones first."""
_SHARE = 0.5
"""Of the numbers, that are dates by one format, from which on a column may hold dates. Of the seconds of a day one in
seven is a date by some format, if at all."""
_LARGEST = 10**10
_DAYS = np.array([0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], dtype=np.uint8)
"""Of each month; whether a year has the 29th of February is not asked."""


@dataclass(frozen=True)
class Together:
    """How many numbers may be dates written together, where a schema does not say that they are seconds.

    Attributes:
        count: How many numbers there are.
        dates: By format, how many are dates, the least and the largest of these.
    """

    count: int
    dates: Mapping[str, Sequence[int]]

    @classmethod
    def of(cls, values: pa.Array, timestamp: Timestamp) -> Together | None:
        """What the numbers of a column may be; None where nothing is left open, or there is no number.

        Args:
            values: The column's values in good rows.
            timestamp: What the schema says of them.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        typed = pa.types.is_timestamp(values.type) or pa.types.is_date(values.type)
        if typed or timestamp.format or timestamp.unit or timestamp.origin != datetime.date(1970, 1, 1):
            return None
        numbers = floats(values)
        if numbers is None:  # there are texts that are none
            written = pc.fill_null(pc.match_substring_regex(values, r"^\s*\d{9,10}(\.0*)?\s*$"), False)
            numbers = floats(pc.replace_substring_regex(values.filter(written), r"\s", ""))
            assert numbers is not None
        known = numbers[~np.isnan(numbers)]
        if not len(known):
            return None
        whole = known[(known > 0) & (known < _LARGEST) & (known == np.floor(known))].astype(np.int64)
        return cls(len(known), _dates(whole) if len(whole) else {})

    def joined(self, other: Together) -> Together:
        """Of the numbers of both."""
        dates: dict[str, Sequence[int]] = {**self.dates, **other.dates}
        for layout in self.dates.keys() & other.dates.keys():
            (count, least, largest), (more, lower, higher) = self.dates[layout], other.dates[layout]
            dates[layout] = (count + more, min(least, lower), max(largest, higher))
        return Together(self.count + other.count, dates)

    @property
    def suspicion(self) -> str:
        """What to say of a table whose numbers these are; empty where they can be believed to be seconds."""
        layout = max(_LAYOUTS, key=lambda each: self.dates.get(each, (0,))[0])  # the first of equal ones
        count, least, largest = self.dates.get(layout, (0, 0, 0))
        if count <= _SHARE * self.count or least == largest:
            return ""
        seen = _first_time([least], layout)
        many = "every number" if count == self.count else f"{count:,} of {self.count:,} numbers"
        return (
            f"{many}, such as {least:010d}, may be a date written together (as {layout}{seen}: "
            f"table.timestamp.format='{layout}'), or seconds since 1970 (table.timestamp.unit=s)"
        )


def _first_time(numbers: Sequence[int], layout: str) -> str:
    """What the first of some numbers is by a format, for a message; empty if there is no such day in its year."""
    for number in numbers:
        with contextlib.suppress(ValueError):
            time = datetime.datetime.strptime(f"{number:010d}", layout)
            return f" it is {time:%Y-%m-%d %H:%M}"
    return ""


def _dates(numbers: NDArray[np.int64]) -> dict[str, Sequence[int]]:
    """By format, how many numbers are dates, the least and the largest of them."""
    pairs: list[NDArray[np.uint8]] = []  # of digits, the last first
    rest = numbers
    for _ in range(4):
        before = rest // 100
        pairs.append((rest - before * 100).astype(np.uint8))
        rest = before
    pairs.append(rest.astype(np.uint8))
    pairs.reverse()
    dates: dict[str, Sequence[int]] = {}
    for layout in _LAYOUTS:
        good = _are_dates(pairs, layout)
        if good.any():
            chosen = numbers[good]
            dates[layout] = (len(chosen), int(chosen.min()), int(chosen.max()))
    return dates


def _are_dates(pairs: Sequence[NDArray[np.uint8]], layout: str) -> NDArray[np.bool_]:
    """Which numbers are dates by a format, [numbers].

    Args:
        pairs: Their five pairs of digits, the first ones first.
        layout: The format.
    """
    parts = dict(zip(layout.replace("%Y", "%C%y")[1::2], pairs, strict=True))
    month, day, hour, year = parts["m"], parts["d"], parts["H"], parts["y"]
    good = (month >= 1) & (month <= 12)
    if not good.any():  # mostly so, for seconds
        return good
    good &= (day >= 1) & (day <= _DAYS[np.minimum(month, 12)]) & (hour < 24)
    if "M" in parts:
        good &= parts["M"] < 60
    if "C" in parts:
        whole = parts["C"].astype(np.int16) * 100 + year
        return good & (whole >= YEARS.start) & (whole < YEARS.stop)
    return good & ((year < 69) | (year >= YEARS.start % 100))  # from 69 on they are of the last century
