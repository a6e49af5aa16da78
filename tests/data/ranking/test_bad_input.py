"""Bad input gets a message that names file, row and column, or is skipped and counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from rankitect.data.ranking import DataSettings, RankingData, open_ranking
from rankitect.errors import DataError
from tests.data.ranking.written import joined, read

GOOD = [f"{i % 2},{i},u{i % 5},{1_700_000_000 + i}" for i in range(100)]
TABLE: dict[str, Any] = {"label": "y", "numeric": ["x"], "categorical": ["u"], "timestamp": "t", "group": "u"}


def opened(tmp_path: Path, lines: list[str], header: str = "y,x,u,t", **more: Any) -> RankingData:
    file = tmp_path / "log.csv"
    file.write_text("\n".join([header, *lines]) + "\n")
    given = {"format": "csv", "path": str(file), "table": TABLE, "split": "file", "workers": 1, **more}
    return open_ranking(DataSettings.model_validate(given), cache=tmp_path / "cache")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1,2,u1", r"log.csv, row 42: found 3 columns, 4 expected: '1,2,u1'"),
        ("1,2,u1,3,4", r"log.csv, row 42: found 5 columns, 4 expected"),
        ("1,two,u1,3", r"log.csv, row 42, column 'x': found 'two', a number expected"),
        ("1,1_000,u1,3", r"row 42, column 'x': found '1_000', a number expected"),
        ("1,inf,u1,3", r"row 42, column 'x': found 'inf', a finite number that float32 holds"),
        ("2,2,u1,3", r"row 42, column 'y': found '2', 0 or 1 .*at_least"),
        ("0.5,2,u1,3", r"row 42, column 'y': found '0.5', 0 or 1"),
        (",2,u1,3", r"row 42, column 'y': found missing, a number expected"),
        ("1,2,u1,", r"row 42, column 't': found missing, seconds since 1970 or ISO 8601"),
        ("1,2,u1,yesterday", r"row 42, column 't': found 'yesterday', seconds since 1970"),
        ("1,\udcff,u1,3", r"row 42, column 'x': found '\\\\xff', text in UTF-8"),
    ],
)
def test_a_bad_row_is_named_or_skipped(row: str, message: str, tmp_path: Path) -> None:
    lines = [*GOOD[:40], row, *GOOD[40:]]
    header = "y,x,u,t"
    file = tmp_path / "log.csv"
    file.write_bytes("\n".join([header, *lines]).encode("utf-8", "surrogateescape"))
    given = {"format": "csv", "path": str(file), "table": TABLE, "split": "file", "workers": 1}
    with pytest.raises(DataError, match=message):
        open_ranking(DataSettings.model_validate(given), cache=tmp_path / "cache")
    skipping = DataSettings.model_validate({**given, "bad_rows": "skip", "bad_share": 0.02})
    data = open_ranking(skipping, cache=tmp_path / "cache")
    assert sum(split.rows for split in data.splits.values()) == 100
    assert sum(data.facts["bad_rows"].values()) == 1


def test_the_first_bad_row_counts(tmp_path: Path) -> None:
    lines = [*GOOD[:10], "1,2", *GOOD[10:20], "1,x,u,3", *GOOD[20:]]
    with pytest.raises(DataError, match="row 12: found 2 columns"):
        opened(tmp_path, lines)
    lines = [*GOOD[:10], "1,x,u,3", *GOOD[10:20], "1,2", *GOOD[20:]]
    with pytest.raises(DataError, match="row 12, column 'x'"):
        opened(tmp_path, lines)


def test_too_many_bad_rows_end_the_run(tmp_path: Path) -> None:
    lines = [*GOOD, "3,1,u,1", "4,1,u,1", "1,?,u,1"]
    with pytest.raises(DataError, match=r"3 of 103 rows are bad, 2.91%, more than the 1.00% .*label not 0 or 1: 2"):
        opened(tmp_path, lines, bad_rows="skip", bad_share=0.01)


def test_an_unknown_column_suggests_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no column 'x'. Did you mean 'xx'\? Its columns: y, xx, u, t"):
        opened(tmp_path, GOOD, header="y,xx,u,t")


def test_a_column_named_twice(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="column 'u' is named twice"):
        opened(tmp_path, GOOD, header="y,x,u,u", table={"label": "y", "categorical": ["u"]})


def test_empty_splits_and_labels_of_one_kind(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Split test is empty: the data has 3 usable rows"):
        opened(tmp_path, GOOD[:3])
    with pytest.raises(DataError, match="no usable row"):
        opened(tmp_path, [])
    ordered = [f"{int(i < 80)},1,u,{1_700_000_000 + i}" for i in range(100)]
    with pytest.raises(DataError, match=r"Split train: all 80 labels \(column 'y'\) are 1.*split=hash"):
        opened(tmp_path, ordered)
    assert opened(tmp_path, ordered * 5, split="hash").split("train").rows > 300


def test_a_vocabulary_overflows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Feature 'u': the vocabulary overflows its 3 rows: 5 values .*encoding=hash"):
        opened(tmp_path, GOOD, max_rows=5)
    table = {**TABLE, "categorical": [{"name": "u", "rows": 7}]}
    assert opened(tmp_path, GOOD, table=table).features.rows == (7,)


def test_an_index_out_of_range(tmp_path: Path) -> None:
    table = {**TABLE, "categorical": [{"name": "x", "encoding": "index", "rows": 52}], "numeric": []}
    with pytest.raises(DataError, match="row 52, column 'x': found '50', a whole number from 0 to 49 expected"):
        opened(tmp_path, GOOD, table=table)


def test_ratings_become_labels(tmp_path: Path) -> None:
    table = {"label": {"name": "x", "at_least": 50}, "categorical": ["u"]}
    data = opened(tmp_path, GOOD, table=table, split="hash")
    assert sum(float(split.labels.sum()) for split in data.splits.values()) == 50


def test_a_truncated_file(tmp_path: Path) -> None:
    import gzip

    whole = gzip.compress(("y,x,u,t\n" + "\n".join(GOOD * 50)).encode())
    file = tmp_path / "log.csv.gz"
    file.write_bytes(whole[: len(whole) // 2])
    given = {"format": "csv", "path": str(file), "table": TABLE}
    with pytest.raises(DataError, match=r"log.csv.gz cannot be unpacked .*truncated"):
        open_ranking(DataSettings.model_validate(given), cache=tmp_path / "cache")


def test_what_is_not_there(tmp_path: Path) -> None:
    given = {"format": "csv", "path": str(tmp_path / "nowhere.csv"), "table": TABLE}
    with pytest.raises(DataError, match=r"no file or folder .*nowhere.csv"):
        open_ranking(DataSettings.model_validate(given), cache=tmp_path / "cache")
    with pytest.raises(DataError, match="no MovieLens folder"):
        open_ranking(DataSettings(path=str(tmp_path)), cache=tmp_path / "cache")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"format": "csv", "path": "x"}, "needs table.label"),
        ({"format": "csv", "path": "x", "table": {"label": "y"}}, "needs features"),
        ({"format": "criteo"}, "needs a path"),
        ({"format": "criteo", "path": "x", "table": TABLE}, "columns of format criteo are known"),
        ({"format": "csv", "path": "x", "table": {**TABLE, "group": None}, "split": "user"}, "needs table.group"),
        ({"format": "csv", "path": "x", "table": {**TABLE, "timestamp": None}, "split": "time"}, "table.timestamp"),
        ({"format": "csv", "path": "x", "table": {**TABLE, "numeric": ["y"]}}, "label 'y' is also a feature"),
        ({"format": "csv", "path": "x", "table": {**TABLE, "numeric": ["x", "x"]}}, "'x' is named twice"),
        ({"shares": [0.5, 0.5, 0]}, "above 0"),
        ({"table": {"label": "y", "categorical": [{"name": "u", "encoding": "hash"}]}}, "needs `rows`"),
    ],
)
def test_settings_that_do_not_fit(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DataSettings.model_validate(given)


def test_rows_are_numbered_through_blocks_and_quotes(tmp_path: Path) -> None:
    row = "1,2," + "u" * 1000 + ",1700000000"
    # Arrow takes two megabytes at a time.
    lines = [*GOOD, *[row] * 5000, '0,1,"a, b\nand ""c""",1700000001', "1,2,3", row]
    allowed = {"newlines_in_values": True}
    with pytest.raises(DataError, match="row 5103: found 3 columns"):
        opened(tmp_path, lines, **allowed)
    lines[-2] = "1,x,u,1700000000"
    with pytest.raises(DataError, match="row 5103, column 'x'"):
        opened(tmp_path, lines, **allowed)
    with pytest.raises(DataError, match="row 5102: found a quote that is not closed"):
        opened(tmp_path, lines)
    long = "1,2," + "u" * 3_000_000 + ",1700000000"
    assert opened(tmp_path, [*GOOD, long, *GOOD], split="hash").facts["bad_rows"] == {}


def test_the_guide_agrees_with_the_settings() -> None:
    """What docs/your_data.md shows is allowed, and it names every key."""
    import yaml

    from rankitect.data.ranking import TableSchema

    text = (Path(__file__).parents[3] / "docs" / "your_data.md").read_text()
    shown = [yaml.safe_load(block.split("```")[0]) for block in text.split("```yaml\n")[1:]]
    for block in shown:
        DataSettings.model_validate(block["task"]["data"] if "task" in block else block)
    for key in (*TableSchema.model_fields, *DataSettings.model_fields):
        if key not in ("table", "split_seed", "workers", "synthetic"):
            assert f"`{key}`" in text, key


OTHER = [
    "caf\xe9".encode("latin-1"),
    b"\x93x\x94",
    b"\xed\xa0\x80",
    b"\xc0\xaf",
    "\xfc".encode("utf-16"),
]


@pytest.mark.parametrize("kind", ["csv", "tsv"])
@pytest.mark.parametrize("value", OTHER)
def test_text_that_is_not_utf_8_is_a_bad_row(value: bytes, kind: str, tmp_path: Path) -> None:
    lines = [b"y,x,u,t", *(line.encode() for line in GOOD)]
    lines[7] = b"1,2," + value + b",3"
    content = b"\n".join(lines).replace(b",", {"csv": b",", "tsv": b"\t"}[kind])
    with pytest.raises(DataError, match=r"row 8, column 'u': found '.*, text in UTF-8 expected") as error:
        read(tmp_path, content, kind, table={"label": "y", "categorical": ["u"]})
    assert str(error.value).isprintable()
    data = read(tmp_path, content, kind, table={"label": "y", "categorical": ["u"]}, bad_rows="skip", bad_share=0.1)
    assert data.facts["bad_rows"] == {"u: not UTF-8": 1}
    assert len(joined(data, "labels")) == len(GOOD) - 1
    assert read(tmp_path, content, kind, table={"label": "y", "numeric": ["x"]}).facts["bad_rows"] == {}  # not read


@pytest.mark.parametrize("first", ["y,x,u,t", "u,y,x,t", "T,U,X,Y", '"x","y","t","u"', " t, x, u, y"])
def test_a_first_row_with_the_names_that_were_given_is_a_header(first: str, tmp_path: Path) -> None:
    table = {"label": "y", "categorical": ["u"], "columns": ["y", "x", "u", "t"]}
    with pytest.raises(DataError, match=r"its first row names the columns, so leave table.columns out"):
        read(tmp_path, "\n".join([first, *GOOD]), table=table, bad_rows="skip", bad_share=0.1)
