"""What Arrow, pandas and polars agree on is what is read; where they differ, the row is refused (docs/your_data.md)."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import csv as arrow

from rankitect.data.ranking.columns import Problems, as_numbers, as_values
from rankitect.data.ranking.delimited import parse
from rankitect.data.ranking.lines import Dialect
from rankitect.data.ranking.schema import Timestamp
from rankitect.data.ranking.times import as_times
from rankitect.errors import DataError

NAMES = ("a", "b", "c")
Rows = list[tuple[str, ...]]


def by_arrow(text: str, quote: str | None, newlines: bool) -> Rows:
    table = arrow.read_csv(
        io.BytesIO(text.encode()),
        read_options=arrow.ReadOptions(column_names=NAMES, use_threads=False),
        parse_options=arrow.ParseOptions(quote_char=quote or False, newlines_in_values=newlines),
        convert_options=arrow.ConvertOptions(column_types=dict.fromkeys(NAMES, pa.string())),
    )
    return list(zip(*(table.column(name).to_pylist() for name in NAMES), strict=True))


def by_pandas(text: str, quote: str | None, newlines: bool) -> Rows:
    table = pd.read_csv(
        io.StringIO(text), names=NAMES, header=None, dtype=str, na_filter=False, index_col=False, engine="c",
        quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE, quotechar=quote or '"', on_bad_lines="error",
    )  # fmt: skip
    return [tuple(row) for row in table.itertuples(index=False)]


def by_polars(text: str, quote: str | None, newlines: bool) -> Rows:
    table = pl.read_csv(
        text.encode(), has_header=False, new_columns=list(NAMES), infer_schema=False, quote_char=quote,
        missing_utf8_is_empty_string=True,
    )  # fmt: skip
    if table.width != len(NAMES):
        raise ValueError("columns")
    return table.rows()


READERS: tuple[Callable[[str, str | None, bool], Rows], ...] = (by_arrow, by_pandas, by_polars)


def by_the_product(text: str, quote: str | None, newlines: bool) -> tuple[Rows, list[int]]:
    """Good rows, and the numbers of bad ones."""
    piece = parse(text.encode(), NAMES, NAMES, Dialect(",", quote, (), newlines=newlines), "log", 1)
    columns = ([value.decode() for value in piece.columns[name].to_pylist()] for name in NAMES)
    return list(zip(*columns, strict=True)), [row.line for row in piece.bad]


def check(text: str, quote: str | None, newlines: bool) -> None:
    """One table, read by all."""
    read: list[Rows | None] = []
    for reader in READERS:
        read.append(None)
        with suppress(Exception):
            read[-1] = reader(text, quote, newlines)
    try:
        rows, bad = by_the_product(text, quote, newlines)
    except DataError:  # refused as a whole, as only tables with quotes and line ends in values are
        assert newlines
        return
    if read[0] is not None and all(other == read[0] for other in read):
        assert rows == read[0] or bad, "all three agree"
    if not bad:  # what is read without complaint is what each of them reads, if it does not refuse
        assert all(other in (None, rows) for other in read), "they differ"
    assert len(rows) + len(bad) <= text.count("\n") + 1


CELLS = st.sampled_from(["", "1", "-2.5", "x", " y ", "red shoes", "NA", "null", "é", "it's"])
QUOTED = st.one_of(CELLS, st.text("a\",' ", max_size=5))
DAMAGE = st.lists(
    st.tuples(st.integers(0, 200), st.sampled_from(['"', ",", "\\", '""', " ", "\r", "\t", ""])), max_size=2
)


@given(
    table=st.lists(st.tuples(QUOTED, QUOTED, QUOTED), min_size=1, max_size=6),
    style=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    end=st.sampled_from(["\n", "\r\n"]),
    damage=DAMAGE,
    quote=st.sampled_from(['"', None]),
)
def test_tables_of_text(
    table: list[tuple[str, str, str]], style: int, end: str, damage: list[tuple[int, str]], quote: str | None
) -> None:
    written = io.StringIO()
    csv.writer(written, quoting=style, lineterminator=end).writerows(table)
    text = written.getvalue()
    for place, noise in damage:
        at = place % (len(text) + 1)
        text = text[:at] + noise + text[at + (noise == "") :]
    check(text, quote, newlines=False)


@given(table=st.lists(st.tuples(QUOTED, st.text('a"\n,', max_size=4), QUOTED), min_size=1, max_size=6))
def test_tables_with_line_ends_in_values(table: list[tuple[str, str, str]]) -> None:
    written = io.StringIO()
    csv.writer(written, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(table)
    check(written.getvalue(), '"', newlines=True)
    rows, bad = by_the_product(written.getvalue(), '"', newlines=True)
    assert (rows, bad) == (table, [])


NUMBERS = st.one_of(
    st.floats().map(repr),
    st.integers().map(str),
    st.decimals(allow_nan=False, allow_infinity=False, places=3).map(str),
    st.text("0123456789+-.eE_ ,naNxfi", max_size=8),
    st.sampled_from(
        ["", "NA", "N/A", "null", "None", "<NA>", "0x1F", "1,5", "1_000", "١", "1e5", " 1 ", "+1", "1.", ".5", "1d3"]
    ),
)


@given(texts=st.lists(NUMBERS, min_size=1, max_size=8))
def test_numbers(texts: list[str]) -> None:
    values = pa.array([text.encode() or None for text in texts], pa.binary())
    problems = Problems(len(texts))
    read = as_numbers(values, "x", problems)
    for text, number, bad in zip(texts, read.tolist(), problems.bad.tolist(), strict=True):
        told = {_arrow_number(text), _pandas_number(text), _polars_number(text)}
        if len(told) == 1 and (value := told.pop()) is not None:
            large = math.isinf(value) or abs(value) > 3.4028235e38
            assert bad == large, text
            assert large or number == value or (math.isnan(number) and math.isnan(value)), text
        elif not bad:  # one of them at least reads the same; what stands for a missing number is in the documentation
            assert number in told or math.isnan(number), text


def _arrow_number(text: str) -> float | None:
    try:
        return None if not text else float(pc.cast(pa.array([text]), pa.float64())[0].as_py())
    except pa.ArrowInvalid:
        return None


def _pandas_number(text: str) -> float | None:
    value = pd.to_numeric(pd.Series([text], dtype=object), errors="coerce")[0]
    return None if math.isnan(value) and text.strip("+-").lower() != "nan" else float(value)


def _polars_number(text: str) -> float | None:
    value = pl.Series([text]).cast(pl.Float64, strict=False)[0]
    return None if value is None else float(value)


ISO = st.datetimes(pd.Timestamp("1990-01-01").to_pydatetime(), pd.Timestamp("2099-12-31").to_pydatetime()).flatmap(
    lambda moment: st.sampled_from([
        moment.isoformat(), moment.isoformat(" "), f"{moment:%Y-%m-%d}", f"{moment:%Y-%m-%d %H:%M}",
        f"{moment.isoformat()}Z", f"{moment.isoformat(' ')}+02:00", f"{moment:%Y-%m-%d %H:%M:%S} UTC",
    ])
)  # fmt: skip


@given(texts=st.lists(st.one_of(ISO, st.text("0123456789-: TZ+", max_size=20)), min_size=1, max_size=6))
def test_times(texts: list[str]) -> None:
    values = pa.array([text.encode() for text in texts], pa.binary())
    problems = Problems(len(texts))
    read = as_times(values, Timestamp(name="t"), problems)
    for text, micro, bad in zip(texts, read.tolist(), problems.bad.tolist(), strict=True):
        number = _arrow_number(text)
        with suppress(ValueError, OverflowError):
            expected = pd.Timestamp(text).tz_localize("UTC") if pd.Timestamp(text).tz is None else pd.Timestamp(text)
            if bad or number is not None:
                continue
            assert micro == expected.value // 1000 or (
                expected.unit != "ns" and micro == int(expected.timestamp() * 1e6)
            ), text
            continue
        assert bad or number is not None, text
    for text, bad in zip(texts, problems.bad.tolist(), strict=True):
        if bad:
            assert len(text) < 10 or not _is_iso(text), text


def _is_iso(text: str) -> bool:
    try:
        moment = pd.Timestamp(np.datetime64(text.removesuffix("Z").strip()))
    except ValueError:
        return False
    return 1990 <= moment.year < 2100 and text[4:5] == "-" and text.isprintable() and "  " not in text


@given(values=st.lists(st.none() | st.integers(-(2**53), 2**53), min_size=1, max_size=8))
def test_whole_numbers_are_the_same_text_whatever_their_type(values: list[int | None]) -> None:
    expected = [None if value is None else str(value).encode() for value in values]
    for kind in (pa.int64(), pa.float64()):
        assert as_values(pa.array(values, pa.int64()).cast(kind)).to_pylist() == expected
