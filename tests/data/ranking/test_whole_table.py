"""What few rows cannot tell is told from the whole table, and a row is read the same whatever stands beside it."""

from __future__ import annotations

import datetime
import functools
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankitect.data.ranking import RankingData
from rankitect.data.ranking.columns import Problems
from rankitect.data.ranking.encoder import RowEncoder
from rankitect.data.ranking.features import FIRST_ID, MISSING_ID, PADDING, UNKNOWN_ID
from rankitect.data.ranking.lists import split_values
from rankitect.data.ranking.schema import MultiHot, Timestamp
from rankitect.data.ranking.store import stored_encoder
from rankitect.data.ranking.together import Together
from rankitect.errors import DataError
from tests.data.ranking.written import ROWS, TABLE, joined, opened, read, read_typed, rows, text, texts

LATEST = 1_410_212_201
"""A second of 8 September 2014 that, as %y%m%d%H%M, is 21 October 2014 at 22:01."""
CALENDAR = {**TABLE, "calendar": ["hour"]}
TAGS: dict[str, Any] = {"label": "y", "multi_hot": ["u"]}


def in_parts(folder: Path, *tables: list[list[str]], **more: Any) -> RankingData:
    """A table in several files, each of which is a piece of its own."""
    parts = folder / "parts"
    parts.mkdir(exist_ok=True)
    for number, table in enumerate(tables):
        (parts / f"{number}.csv").write_text(text(table))
    return opened(folder, parts, "csv", **more)


# --- times ------------------------------------------------------------------------------------------------------------
def test_a_small_last_piece_that_looks_like_dates_is_read_as_the_others_are(tmp_path: Path) -> None:
    seconds = [LATEST - 60 * (ROWS - i) for i in range(ROWS)]
    last = rows()[:2]
    last[0][3], last[1][3] = str(LATEST), str(LATEST + 1)
    data = in_parts(tmp_path, rows(t=[str(second) for second in seconds]), last, table=CALENDAR)
    assert (joined(data, "times") // 1_000_000).tolist() == [*seconds, LATEST, LATEST + 1]
    encoder = stored_encoder(data.folder)
    _, ids = encoder.encode([{"x": 1, "u": "u1", "t": LATEST}, {"x": 1, "u": "u1", "t": LATEST + 1}])
    assert ids[:, 1].tolist() == [FIRST_ID + LATEST // 3600 % 24] * 2


def test_dates_written_together_are_refused_in_pieces_of_a_row_each(tmp_path: Path) -> None:
    hours = [f"20231114{i % 24:02}" for i in range(ROWS)]
    pieces = [[row] for row in rows(t=hours)[:9]]
    for more in ({}, {"bad_rows": "skip", "bad_share": 0.9}):
        with pytest.raises(
            DataError, match=r"'t': every number, such as 2023111400.*table.timestamp.format='%Y%m%d%H'"
        ):
            in_parts(tmp_path, *pieces, **more)
    mixed = [["2023-11-14 05:00:00"], *([hour] for hour in hours[1:])]
    with pytest.raises(DataError, match=r"every number, such as 2023111400.*'%Y%m%d%H'"):
        in_parts(tmp_path, rows(t=[one[0] for one in mixed]))


HOURS = [2023110100 + i // 24 * 100 + i % 24 for i in range(ROWS)]
LATE = [hour + 1 for hour in HOURS]
MINUTES = [2311010000 + i // 24 * 10000 + (i % 24 + 1) * 100 + i % 60 for i in range(ROWS)]
EARLY = [f"09{number % 10**8:08}" for number in MINUTES]  # as seconds of the year 1998
GERMAN = [f"{14 + i // 24:02}112023{i % 24:02}" for i in range(ROWS)]


@pytest.mark.parametrize(
    ("times", "layout", "more"),
    [
        (LATE, "%Y%m%d%H", {}),
        (MINUTES, "%y%m%d%H%M", {}),
        (EARLY, "%y%m%d%H%M", {}),
        (GERMAN, "%d%m%Y%H", {}),
        ([*HOURS[:7], "2023110107.5", *HOURS[8:]], "%Y%m%d%H", {}),
        ([*HOURS[:7], 0, *HOURS[8:]], "%Y%m%d%H", {"bad_rows": "skip"}),
        ([*HOURS[:7], "junk", *HOURS[8:]], "%Y%m%d%H", {"bad_rows": "skip"}),
        ([*HOURS[:7], 1_700_000_000, *HOURS[8:]], "%Y%m%d%H", {}),
        ([*HOURS[:7], "2023-11-01 07:00:00", *HOURS[8:50], "2023110203.0", *HOURS[51:]], "%Y%m%d%H", {}),
    ],
)
def test_an_odd_value_does_not_make_seconds_of_dates(
    times: list[Any], layout: str, more: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=rf"may be a date written together .*table.timestamp.format='{layout}'"):
        read(tmp_path, text(rows(t=[str(time) for time in times])), bad_share=0.1, table=CALENDAR, **more)


@given(start=st.integers(1_000_000_000, 3_900_000_000), step=st.integers(300, 100_000))
def test_seconds_of_some_hours_are_believed(start: int, step: int) -> None:
    values = pa.array([start + step * i for i in range(200)])
    together = Together.of(values, Timestamp(name="t"))
    assert together is not None
    assert not together.suspicion
    parts = [Together.of(values[i : i + 50], Timestamp(name="t")) for i in range(0, 200, 50)]
    assert functools.reduce(lambda one, other: one.joined(other), parts) == together  # type: ignore[union-attr,arg-type]


@given(
    days=st.lists(st.datetimes(datetime.datetime(1990, 1, 1), datetime.datetime(2068, 12, 31)), min_size=2),
    layout=st.sampled_from(["%Y%m%d%H", "%y%m%d%H%M", "%d%m%Y%H", "%m%d%Y%H", "%d%m%y%H%M", "%m%d%y%H%M"]),
)
def test_every_date_written_together_counts_as_one(days: list[datetime.datetime], layout: str) -> None:
    together = Together.of(pa.array([int(day.strftime(layout)) for day in days]), Timestamp(name="t"))
    assert together is not None
    assert together.count == together.dates[layout][0] == len(days)


# --- separators -------------------------------------------------------------------------------------------------------
def test_a_separator_that_one_piece_has_holds_for_all(tmp_path: Path) -> None:
    data = in_parts(tmp_path, rows(u=["a|b"] * ROWS), rows(u=["x; y"] * ROWS), table=TAGS)
    assert texts(data)[0] == ["a", "b"]
    assert np.unique(joined(data, "ids")[ROWS:], axis=0).tolist() == [[data.values["u"].index("x; y") + 2, PADDING]]
    _, ids = stored_encoder(data.folder).encode([{"u": "x; y"}])
    assert ids.tolist() == [[data.values["u"].index("x; y") + 2, PADDING]]


def test_another_separator_is_counted_over_all_pieces(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'u': no value holds the separator '\|', but 60 of 120 hold ','"):
        in_parts(tmp_path, rows(u=["a"] * ROWS), rows(u=['"x, y"'] * ROWS), table=TAGS)


def test_a_candidate_takes_one_row_as_it_takes_many(tmp_path: Path) -> None:
    values = ["a", "b", "c; d", *["a"] * 17] * 3  # one in twenty holds a semicolon
    data = read(tmp_path, text(rows(u=values)), table=TAGS)
    data_encoder = stored_encoder(data.folder)
    data_encoder.save(tmp_path / "encoder")
    many = data_encoder.encode([{"u": value} for value in values])[1]
    for value, expected in zip(values[:3], many[:3].tolist(), strict=True):
        assert RowEncoder.load(tmp_path / "encoder").encode([{"u": value}])[1].tolist() == [expected]
    assert many[2, 0] == FIRST_ID + data.values["u"].index("c; d")


TEXT = st.text("ab|,;[](){}\"' ", max_size=8)


@given(values=st.lists(TEXT, min_size=1, max_size=5), separator=st.sampled_from([None, ",", ";", " "]))
def test_a_text_is_taken_apart_the_same_alone_and_beside_others(values: list[str], separator: str | None) -> None:
    column = MultiHot(name="u", separator=separator)

    def apart(chosen: list[str]) -> list[list[bytes] | None]:
        array, problems = pa.array([value.encode() for value in chosen], pa.binary()), Problems(len(chosen))
        flat, offsets = split_values(array, column, problems)
        each = [flat[int(a) : int(b)].to_pylist() for a, b in pairwise(offsets)]
        return [None if bad else items for items, bad in zip(each, problems.bad.tolist(), strict=True)]

    assert apart(values) == [apart([value])[0] for value in values]


# --- ids of a file of one's own ---------------------------------------------------------------------------------------
def test_several_indices_a_row_are_themselves(tmp_path: Path) -> None:
    table = {"label": "y", "multi_hot": [{"name": "u", "encoding": "index", "rows": 12}]}
    values = ["3|0", "9", "", "007|1", "[2, 5]"] * 12
    expected = [[3, 0], [9], None, [7, 1], [2, 5]] * 12
    wanted = [[MISSING_ID, PADDING] if v is None else [*(i + FIRST_ID for i in v), PADDING][:2] for v in expected]
    as_text = read(tmp_path, text(rows(u=[f'"{value}"' for value in values])), table=table)
    as_lists = read_typed(tmp_path, {"u": pa.array(expected, pa.list_(pa.int32()))}, table=table)
    for data in (as_text, as_lists):
        assert joined(data, "ids").tolist() == wanted
        assert data.features.categorical[0].rows == 12
        encoder = stored_encoder(data.folder)
        encoder.save(tmp_path / "encoder")
        for again in (encoder, RowEncoder.load(tmp_path / "encoder")):
            ids = again.encode([{"u": value} for value in values])[1]
            assert ids.tolist() == wanted
            assert again.encode([{"u": [3, 0]}, {"u": [9]}])[1].tolist() == wanted[:2]


@pytest.mark.parametrize("value", ["3|10", "-1", "a", "1.5|2", "99999999999999999999"])
def test_an_index_beyond_the_table_is_a_bad_row(value: str, tmp_path: Path) -> None:
    table = {"label": "y", "multi_hot": [{"name": "u", "encoding": "index", "rows": 12}]}
    content = text(rows(u=["1|2", "3", value, *["4"] * (ROWS - 3)]))
    with pytest.raises(DataError, match=r"row 4, column 'u': found .*, a whole number from 0 to 9 expected"):
        read(tmp_path, content, table=table)
    data = read(tmp_path, content, table=table, bad_rows="skip", bad_share=0.1)
    assert joined(data, "ids")[:3].tolist() == [[3, 4], [5, PADDING], [6, PADDING]]


# --- numbers that only the mean of all rows tells to be too large -----------------------------------------------------
def test_a_number_too_far_from_the_mean_is_a_bad_row_and_no_other(tmp_path: Path) -> None:
    values = [f"{i % 7}e-30" for i in range(ROWS)]
    values[50], values[57] = "1e30", "-1e30"
    with pytest.raises(DataError, match=r"log\.csv, row 52, column 'x': found a number so far from the mean") as error:
        read(tmp_path, text(rows(x=values)))
    assert len(str(error.value)) <= 500
    data = read(tmp_path, text(rows(x=values)), bad_rows="skip", bad_share=0.05)
    kept = np.array([float(value) for i, value in enumerate(values) if i not in (50, 57)])
    train = kept[: data.split("train").rows]
    assert joined(data, "numeric")[:, 0] == pytest.approx((kept - train.mean()) / train.std(), rel=1e-5)
    assert data.facts["bad_rows"] == {"x: too far from the mean": 2}
    with pytest.raises(DataError, match=r"2 of 60 rows are bad.*x: too far from the mean: 2"):
        read(tmp_path, text(rows(x=values)), bad_rows="skip", bad_share=0.01)


def test_a_candidate_names_the_row_whose_number_is_too_far(tmp_path: Path) -> None:
    data = read(tmp_path, text(rows(x=[f"{i % 7}e-30" for i in range(ROWS)])))
    encoder = stored_encoder(data.folder)
    with pytest.raises(DataError, match="Row 1, column 'x': found a number so far from the mean"):
        encoder.encode([{"x": 1e-30, "u": "u1"}, {"x": 1e30, "u": "u1"}])
    assert encoder.encode([{"x": 1e-30, "u": "nobody"}])[1].tolist() == [[UNKNOWN_ID]]
