"""Times lie in years that a log can be of, or are refused with what they probably mean."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rankitect.data.ranking import DataSettings
from rankitect.data.ranking.columns import Problems
from rankitect.data.ranking.schema import Timestamp
from rankitect.data.ranking.times import as_times
from rankitect.errors import DataError
from tests.data.ranking.written import ROWS, START, TABLE, joined, read, read_typed, rows, text

UTC = datetime.UTC
MOMENTS = [datetime.datetime.fromtimestamp(START + 60 * i, UTC) for i in range(ROWS)]
EXPECTED = [(START + 60 * i) * 1_000_000 for i in range(ROWS)]
CALENDAR = {**TABLE, "calendar": ["hour", "weekday"]}


def written(layout: str) -> str:
    return text(rows(t=[f'"{moment.strftime(layout)}"' for moment in MOMENTS]))


def timed(**more: Any) -> dict[str, Any]:
    return {**CALENDAR, "timestamp": {"name": "t", **more}}


@pytest.mark.parametrize(("unit", "size"), [("ms", 10**3), ("us", 10**6), ("ns", 10**9)])
def test_a_unit_that_is_not_said_is_named(unit: str, size: int, tmp_path: Path) -> None:
    content = text(rows(t=[str((START + 60 * i) * size) for i in range(ROWS)]))
    with pytest.raises(DataError, match=rf"row 2, column 't': .* 2023-11-14 22:13: table.timestamp.unit={unit}"):
        read(tmp_path, content, table=CALENDAR)
    data = read(tmp_path, content, table=timed(unit=unit))
    assert joined(data, "times").tolist() == EXPECTED
    assert joined(data, "ids")[0, 1:].tolist() == [2 + 22, 2 + 1]


@pytest.mark.parametrize(
    "layout",
    ["%Y%m%d", "%y%m%d%H", "%Y%m%d%H", "%y%m%d%H%M", "%Y%m%d%H%M", "%Y%m%d%H%M%S", "%y%m%d%H%M%S"],
)
def test_dates_written_together_are_no_seconds(layout: str, tmp_path: Path) -> None:
    # Those of %Y%m%d%H and %y%m%d%H%M, taken for seconds, are of the years 2034 and 2043.
    moments = [moment + datetime.timedelta(days=7 * i) for i, moment in enumerate(MOMENTS)]
    content = text(rows(t=[moment.strftime(layout) for moment in moments]))
    with pytest.raises(DataError, match=rf"column 't': .*table.timestamp.format='{layout}'"):
        read(tmp_path, content)
    data = read(tmp_path, content, table=timed(format=layout))
    expected = [datetime.datetime.strptime(m.strftime(layout), layout).replace(tzinfo=UTC) for m in moments]
    assert (joined(data, "times") / 1e6).tolist() == [moment.timestamp() for moment in expected]


def test_seconds_that_could_be_dates_are_believed_where_the_unit_is_said(tmp_path: Path) -> None:
    content = text(rows(t=[str(1_410_211_000 + i % 60) for i in range(ROWS)]))  # 2014, and 21 October 2014 10:00
    with pytest.raises(DataError, match=r"format='%y%m%d%H%M'\), or seconds since 1970 \(table.timestamp.unit=s"):
        read(tmp_path, content)
    assert joined(read(tmp_path, content, table=timed(unit="s")), "times")[0] == 1_410_211_000_000_000


@pytest.mark.parametrize(
    "layout",
    [
        *("%Y-%m-%d %H:%M:%S UTC", "%Y-%m-%d %H:%M:%S GMT", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M:%S+00:00"),
        *("%Y-%m-%d %H:%M:%S +0000", "%Y-%m-%dT%H:%M:%S.000000", "%Y-%m-%d %H:%M:%S.0000000 UTC"),
        *(" %Y-%m-%d %H:%M:%S", "%Y%m%dT%H%M%SZ"),
    ],
)
def test_iso_8601_and_its_relatives_are_read(layout: str, tmp_path: Path) -> None:
    assert joined(read(tmp_path, written(layout), table=CALENDAR), "times").tolist() == EXPECTED


@pytest.mark.parametrize(
    ("layout", "named"),
    [
        ("%d/%m/%Y %H:%M:%S", r"as %d/%m/%Y %H:%M:%S it is 2023-11-14 22:13"),
        ("%m/%d/%Y %I:%M %p", r"as %m/%d/%Y %I:%M %p it is"),
        ("%d.%m.%Y", r"as %d\.%m\.%Y it is"),
        ("%b %d, %Y", r"as %b %d, %Y it is"),
        ("%a, %d %b %Y %H:%M:%S GMT", r"as %a, %d %b %Y %H:%M:%S %Z it is"),
        ("%d/%b/%Y:%H:%M:%S +0000", r"as %d/%b/%Y:%H:%M:%S %z it is"),
        ("%Y-%m-%d %H:%M:%S PST", r"give table.timestamp.format.*of time zones, UTC and offsets"),
        ("week %W of %Y", r"give table.timestamp.format"),
    ],
)
def test_a_layout_that_is_not_supported_is_named(layout: str, named: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=named):
        read(tmp_path, written(layout))


def test_a_day_that_may_be_a_month_is_named_both_ways(tmp_path: Path) -> None:
    named = r"as %d/%m/%Y it is 2023-02-01 .*format='%d/%m/%Y' or as %m/%d/%Y it is 2023-01-02 .*format='%m/%d/%Y'"
    with pytest.raises(DataError, match=named) as error:
        read(tmp_path, text(rows(t=["01/02/2023"] * ROWS)))
    assert len(str(error.value)) <= 500 + len(str(tmp_path))


@pytest.mark.parametrize(
    "layout",
    [
        *("%d/%m/%Y %H:%M:%S", "%Y-%m-%d %H:%M:%S.%f", "%a, %d %b %Y %H:%M:%S GMT", "%Y-%m-%d %I:%M:%S %p"),
        *("%d/%b/%Y:%H:%M:%S %z", "%Y %j %T", "%F %T"),
    ],
)
def test_the_formats_of_strptime_are_read(layout: str, tmp_path: Path) -> None:
    data = read(tmp_path, written(layout), table=timed(format=layout.replace("GMT", "%Z")))
    assert joined(data, "times").tolist() == EXPECTED


@pytest.mark.parametrize("layout", ["%Q", "%s", "%H:%M", "day", "%", "%Y", "%Y-%m-%d %I:%M"])
def test_a_format_by_which_no_day_can_be_read_is_refused_at_once(layout: str) -> None:
    with pytest.raises(ValidationError, match="format"):
        DataSettings.model_validate({"format": "csv", "path": "x", "table": timed(format=layout)})


@pytest.mark.parametrize(
    ("value", "layout"),
    [
        *(
            ("20230231", "%Y%m%d"),
            ("202311", "%Y%m%d"),
            ("2023111", "%Y%m%d"),
            ("now", "%Y%m%d"),
            ("today", "%Y-%m-%d"),
        ),
        *(("14102124", "%y%m%d%H"), ("1410211", "%y%m%d%H"), ("\udcff", "%Y%m%d"), ("31/02/2023", "%d/%m/%Y")),
        *(("0", None), ("-1", None), ("9999-12-31", None), ("0001-01-01 00:00:00", None), ("2023-02-31", None)),
        *(("now", None), ("1e30", None), ("inf", None), ("nan", None), ("", None), ("2023-11-14 25:00:00", None)),
    ],
)
def test_one_impossible_time_is_a_bad_row(value: str, layout: str | None, tmp_path: Path) -> None:
    moments = [moment.strftime(layout or "%Y-%m-%d %H:%M:%S") for moment in MOMENTS]
    content = text(rows(t=[*moments[:9], value, *moments[10:]]))
    with pytest.raises(DataError, match="row 11, column 't'"):
        read(tmp_path, content, table=timed(format=layout))
    data = read(tmp_path, content, table=timed(format=layout), bad_rows="skip", bad_share=0.1)
    assert joined(data, "labels").tolist() == [i % 2 for i in range(ROWS) if i != 9]


def test_numbers_may_count_from_another_day(tmp_path: Path) -> None:
    content = text(rows(t=[str(3600 * i) for i in range(ROWS)]))
    with pytest.raises(DataError, match=r"found '0', a time from 1990 to 2099 .*table.timestamp.origin"):
        read(tmp_path, content)
    data = read(tmp_path, content, table=timed(origin="2016-06-14"))
    start = datetime.datetime(2016, 6, 14, tzinfo=UTC).timestamp()
    assert (joined(data, "times") / 1e6).tolist() == [start + 3600 * i for i in range(ROWS)]


@pytest.mark.parametrize(
    "kind",
    [
        pa.timestamp("s"),
        pa.timestamp("ms"),
        pa.timestamp("us"),
        pa.timestamp("ns"),
        pa.timestamp("ns", "Europe/Berlin"),
    ],
)
def test_typed_times_are_read_in_every_unit(kind: pa.DataType, tmp_path: Path) -> None:
    size = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[kind.unit]
    counts = pa.array([(START + 60 * i) * size + (123 if kind.unit == "ns" else 0) for i in range(ROWS)])
    data = read_typed(tmp_path, {"t": counts.cast(kind)})
    assert joined(data, "times").tolist() == EXPECTED
    far = 2**62 // (1000 if kind.unit == "s" else 1)  # a count beyond what microseconds hold must not come round
    with pytest.raises(DataError, match=r"row 1, column 't'.*1990 to 2099"):
        read_typed(tmp_path, {"t": pa.array([far] * ROWS).cast(kind)})


def test_typed_days_are_read(tmp_path: Path) -> None:
    for kind in (pa.date32(), pa.date64()):
        days = pa.array([moment.date() for moment in MOMENTS], kind)
        expected = np.array([moment.date() for moment in MOMENTS], "datetime64[us]").astype(np.int64)
        assert joined(read_typed(tmp_path, {"t": days}), "times").tolist() == expected.tolist()


MOMENT = st.datetimes(datetime.datetime(1990, 1, 1), datetime.datetime(2099, 12, 31), timezones=st.just(UTC))
LAYOUTS = ("%Y-%m-%d %H:%M:%S", "%Y%m%d%H%M%S", "%d.%m.%Y %H:%M", "%Y-%m-%dT%H:%M:%S.%f", "%j/%Y", "%b %d %Y %I %p")


@given(
    moments=st.lists(MOMENT, min_size=1, max_size=6),
    layout=st.sampled_from(LAYOUTS),
    noise=st.text("0123456789-: /", max_size=8),
)
def test_formats_agree_with_the_standard_library(moments: list[datetime.datetime], layout: str, noise: str) -> None:
    values = [*(moment.strftime(layout) for moment in moments), noise]
    problems = Problems(len(values))
    read = as_times(pa.array([v.encode() for v in values], pa.binary()), Timestamp(name="t", format=layout), problems)
    for value, micro, bad in zip(values, read.tolist(), problems.bad.tolist(), strict=True):
        try:
            expected = datetime.datetime.strptime(value, layout).replace(tzinfo=UTC)
        except ValueError:
            assert bad
            continue
        if not bad:
            assert datetime.datetime.fromtimestamp(micro / 1e6, UTC) == expected
        else:  # the standard library also takes fewer digits than the format writes
            assert value == noise
