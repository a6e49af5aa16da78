"""Parquet columns of every type, in every role: read, or refused with the column and its type."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rankitect.errors import DataError
from tests.data.ranking.written import ROWS, START, TABLE, joined, read, read_typed, rows, text, texts

BITS = [i % 2 for i in range(ROWS)]
TIMES = [START + i for i in range(ROWS)]
ROLES: dict[str, dict[str, Any]] = {
    "label": {"label": "c", "numeric": ["x"]},
    "numeric": {"label": "y", "numeric": ["c"]},
    "categorical": {"label": "y", "categorical": ["c"]},
    "multi_hot": {"label": "y", "multi_hot": ["c"]},
    "timestamp": {**TABLE, "timestamp": "c"},
    "group": {**TABLE, "group": "c"},
    "weight": {**TABLE, "weight": "c"},
}
NUMBERS = {
    "int8": pa.array(BITS, pa.int8()),
    "uint64": pa.array(BITS, pa.uint64()),
    "halffloat": pa.array(np.array(BITS, np.float16)),
    "float": pa.array(BITS, pa.float32()),
    "double": pa.array(BITS, pa.float64()),
    "decimal": pa.array(BITS, pa.decimal128(10, 2)),
    "decimal256": pa.array(BITS, pa.decimal256(40, 2)),
    "string": pa.array(map(str, BITS)),
    "large_string": pa.array(map(str, BITS), pa.large_string()),
    "binary": pa.array([b"%d" % i for i in BITS]),
    "large_binary": pa.array([b"%d" % i for i in BITS], pa.large_binary()),
    "fixed_size_binary": pa.array([b"%d" % i for i in BITS], pa.binary(1)),
    "dictionary of text": pa.array(map(str, BITS)).dictionary_encode(),
    "dictionary of numbers": pa.array(BITS).dictionary_encode(),
    "bool": pa.array(BITS).cast(pa.bool_()),
}
MOMENTS = {
    "timestamp ns": pa.array([t * 10**9 + 1 for t in TIMES], pa.timestamp("ns")),
    "timestamp s of a zone": pa.array(TIMES, pa.timestamp("s", "Asia/Tokyo")),
    "date": pa.array([19_000 + i for i in range(ROWS)], pa.date32()),
}
CLOCK = {"time": pa.array(range(ROWS), pa.time32("s"))}
LISTS = {
    "list": pa.array([["a", "b"]] * ROWS),
    "large_list": pa.array([["a", "b"]] * ROWS, pa.large_list(pa.string())),
    "fixed_size_list": pa.array([[1, 2]] * ROWS, pa.list_(pa.int64(), 2)),
}
REFUSED = {
    "duration": pa.array(TIMES, pa.duration("s")),
    "list of durations": pa.array([[i] for i in TIMES], pa.list_(pa.duration("ms"))),
    "struct": pa.array([{"a": 1}] * ROWS),
    "map": pa.array([[("a", 1)]] * ROWS, pa.map_(pa.string(), pa.int64())),
    "list of lists": pa.array([[["a"]]] * ROWS),
    "list of structs": pa.array([[{"a": 1}]] * ROWS),
}
EVERY = {**NUMBERS, **MOMENTS, **CLOCK, **LISTS, **REFUSED}
READ = {
    "label": NUMBERS,
    "numeric": NUMBERS,
    "weight": NUMBERS,
    "timestamp": MOMENTS,
    "categorical": {**NUMBERS, **MOMENTS, **CLOCK},
    "group": {**NUMBERS, **MOMENTS, **CLOCK},
    "multi_hot": {**NUMBERS, **MOMENTS, **CLOCK, **LISTS},
}


@pytest.mark.parametrize("role", ROLES)
def test_every_type_in_every_role(role: str, tmp_path: Path) -> None:
    for name, values in EVERY.items():
        if name in READ[role]:
            assert read_typed(tmp_path, {"c": values}, table=ROLES[role]).facts["bad_rows"] == {}, name
            continue
        with pytest.raises(DataError, match=r"log.parquet.* column 'c'") as error:
            read_typed(tmp_path, {"c": values}, table=ROLES[role])
        assert len(str(error.value)) <= 500


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_is_the_same_in_every_type(name: str, tmp_path: Path) -> None:
    data = read_typed(tmp_path, {"c": NUMBERS[name]}, table={**TABLE, "label": "c", "weight": "c"})
    assert joined(data, "labels").tolist() == joined(data, "weights").tolist() == BITS


def test_a_column_of_nothing(tmp_path: Path) -> None:
    nothing = pa.nulls(ROWS)
    for role in ("label", "timestamp", "weight"):
        with pytest.raises(DataError, match="row 1, column 'c': found missing"):
            read_typed(tmp_path, {"c": nothing}, table=ROLES[role])
    assert (joined(read_typed(tmp_path, {"c": nothing}, table=ROLES["numeric"]), "numeric") == 0).all()
    for role in ("categorical", "multi_hot"):
        assert set(joined(read_typed(tmp_path, {"c": nothing}, table=ROLES[role]), "ids").ravel().tolist()) == {1}
    groups = joined(read_typed(tmp_path, {"c": nothing}, table=ROLES["group"]), "groups")
    assert len(set(groups.tolist())) == ROWS


def test_whole_numbers_are_the_same_text_in_every_piece(tmp_path: Path) -> None:
    """A float column is often whole numbers with missing ones; whether others are whole must not matter."""
    numbers = [1.0, 2.5, float("nan"), None, -0.0, 1e20] * 10
    data = read_typed(tmp_path, {"c": pa.array(numbers, pa.float64())}, table=ROLES["categorical"])
    assert texts(data)[:6] == [["1"], ["2.5"], [""], [""], ["0"], ["1e+20"]]


def test_missing_texts_are_missing_in_every_type_of_text(tmp_path: Path) -> None:
    for kind in (pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int8(), pa.string())):
        values = pa.array(["a", "null", "", "\\N", None, "NA"] * 10).cast(kind)
        data = read_typed(tmp_path, {"c": values}, table=ROLES["categorical"])
        assert texts(data)[:6] == [["a"], [""], [""], [""], [""], ["NA"]]


def test_an_extension_is_what_it_is_stored_as(tmp_path: Path) -> None:
    ids = [uuid.UUID(int=i % 3).bytes for i in range(ROWS)]
    values = pa.ExtensionArray.from_storage(pa.uuid(), pa.array(ids, pa.binary(16)))
    assert read_typed(tmp_path, {"c": values}, table=ROLES["categorical"]).features.rows == (5,)


def test_names_that_are_odd(tmp_path: Path) -> None:
    table = [[*row, "a", "", "b"] for row in rows()]
    # Columns without a name or with the name of another may stand there, as long as they are not to be read.
    content = text(table, ["y", "1", "nan", "t", "z", "", "z"])
    given = {"label": "y", "numeric": [1], "categorical": [float("nan")], "timestamp": "t"}
    data = read(tmp_path, content, table=given)
    assert data.features.numeric == ("1",)
    assert texts(data)[:2] == [["u0"], ["u1"]]
    with pytest.raises(DataError, match="column 'z' is named twice"):
        read(tmp_path, content, table={**given, "categorical": ["z"]})


def test_many_columns_take_no_longer_than_they_must(tmp_path: Path) -> None:
    names = ["y", "x", "u", "t", *(f"c{i}" for i in range(100_000))]
    table = [[*row, *["1"] * 100_000] for row in rows()[:20]]
    assert joined(read(tmp_path, text(table, names)), "labels").tolist() == [i % 2 for i in range(20)]


def test_a_first_row_without_end(tmp_path: Path) -> None:
    for content in (b"y" * 3_000_000, b"y," * 1_500_000, b'"' * 200_000, b"\xff" * 3_000_000):
        with pytest.raises(DataError):
            read(tmp_path, content)
