"""Whatever way a table comes, the same rows give the same data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pyarrow import fs

from rankitect.data.ranking import RankingData
from rankitect.errors import DataError
from tests.data.ranking.own import NAMES, PACKS, ROWS, as_csv, as_jsonl, as_parquet, assert_same, opened, put, zipped

INSIDE = tuple(name for name in NAMES if name != "day")
WRITERS = {"csv": as_csv, "jsonl": as_jsonl, "parquet": as_parquet}


@pytest.fixture
def plain(tmp_path: Path) -> RankingData:
    return opened(tmp_path / "cache", put(tmp_path / "plain.csv", as_csv()))


def by_day(folder: Path, format: str) -> Path:
    for day in range(4):
        rows = [row for row in ROWS if row["day"] == f"d{day}"]
        put(folder / f"day=d{day}" / f"part.{format}", WRITERS[format](INSIDE, rows))
    return folder


@pytest.mark.parametrize("suffix", PACKS)
def test_a_packed_table_is_known_by_its_bytes_and_read_as_it_is(
    suffix: str, plain: RankingData, tmp_path: Path
) -> None:
    packed = PACKS[suffix](as_csv())
    assert_same(opened(tmp_path / "cache", put(tmp_path / "named.csv", packed)), plain)
    assert_same(opened(tmp_path / "cache", put(tmp_path / f"log.csv{suffix}", packed)), plain)
    with pytest.raises(DataError, match=r"cut\.csv.*(unpacked|truncated)"):
        opened(tmp_path / "cache", put(tmp_path / f"cut.csv{suffix}", packed[: len(packed) * 2 // 3]))


def test_every_format_gives_the_same_arrays(plain: RankingData, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert_same(opened(cache, put(tmp_path / "a.tsv", as_csv(between="\t")), "tsv"), plain)
    assert_same(opened(cache, put(tmp_path / "a.jsonl", as_jsonl()), "jsonl"), plain)
    assert_same(opened(cache, put(tmp_path / "a.jsonl.gz", PACKS[".gz"](as_jsonl())), "jsonl"), plain)
    texts = [{**row, "tags": "|".join(row["tags"])} for row in ROWS]
    assert_same(opened(cache, put(tmp_path / "text.jsonl", as_jsonl(rows=texts)), "jsonl"), plain)
    assert_same(opened(cache, put(tmp_path / "a.parquet", as_parquet()), "parquet"), plain)
    body = as_csv().split(b"\n", 1)[1]
    for file in (put(tmp_path / "body.csv", body), put(tmp_path / "body.csv.zip", zipped(("b.csv", body)))):
        assert_same(opened(cache, file, table={"columns": NAMES}), plain)


def test_rows_that_name_their_fields_are_the_rows_of_a_table(tmp_path: Path) -> None:
    """libsvm and libffm hold numbers, from which the same table is written as CSV."""
    fields, sparse, table, numbers = [], [], ["label,0,1,2"], ["label,1,2,qid"]
    for i, row in enumerate(ROWS):
        label, user, tags = row["click"], i % 5, [20 + k for k in range(len(row["tags"]))]
        given = [f"0:{user}:1"] * bool(row["user"]) + [f"1:0:{row['rate']}"] + [f"2:{tag}:1" for tag in tags]
        fields.append(" ".join([str(label), *given]))
        table.append(f"{label},{user if row['user'] else ''},{row['rate']},{'|'.join(map(str, tags))}")
        price = row["price"] or 0
        sparse.append(f"{label} qid:{i // 4} " + " ".join([f"1:{price}"] * bool(price) + [f"2:{row['rate']:e}"]))
        numbers.append(f"{label},{price},{row['rate']},{i // 4}")
    by_field = {"label": "label", "categorical": ["0"], "numeric": ["1"], "multi_hot": ["2"]}
    by_index = {"label": "label", "categorical": ["1"], "numeric": ["1", "2"], "multi_hot": [], "group": "qid"}
    plain = {"timestamp": None, "calendar": (), "weight": None, "group": None}
    cache = tmp_path / "cache"
    for format, lines, csv, schema in (("libffm", fields, table, by_field), ("libsvm", sparse, numbers, by_index)):
        one = opened(cache, put(tmp_path / f"a.{format}", "\n".join(lines).encode()), format, table=plain | schema)
        other = opened(cache, put(tmp_path / f"{format}.csv", "\n".join(csv).encode()), table=plain | schema)
        assert_same(one, other)


@pytest.mark.parametrize("format", WRITERS)
def test_folders_that_name_a_column_and_globs(format: str, plain: RankingData, tmp_path: Path) -> None:
    folder, cache = by_day(tmp_path / "log", format), tmp_path / "cache"
    local = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    data = opened(cache, folder, format)
    assert_same(data, plain)
    assert data.name == "log"
    uri = folder.as_uri()
    for path in (f"{folder}/*/part.{format}", f"{folder}/**", f"{folder}/day=*", uri, f"{uri}/day=*?use_mmap=true"):
        assert_same(opened(cache, path, format), plain)
    for path in ("log", f"log/day=d[0-9]/*.{format}"):
        assert_same(opened(cache, path, format, local), plain)


@pytest.mark.parametrize("format", WRITERS)
def test_folders_that_the_path_itself_names_give_columns_too(format: str, tmp_path: Path) -> None:
    folder, cache = by_day(tmp_path / "log", format), tmp_path / "cache"
    rows = [row for row in ROWS if row["day"] == "d1"]
    expected = opened(cache, put(tmp_path / "d1.csv", as_csv(rows=rows)))
    local = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    day = folder / "day=d1"
    for path in (f"{day}/*.{format}", day, day / f"part.{format}", day.as_uri(), f"{day.as_uri()}/p*?use_mmap=true"):
        assert_same(opened(cache, path, format), expected)
    for path in ("log/day=d1", f"log/day=d1/*.{format}", f"log/day=d1/part.{format}"):
        assert_same(opened(cache, path, format, local), expected)
    other = [{**row, "day": "another"} for row in rows]  # as everywhere, the folder counts
    put(day / f"part.{format}", WRITERS[format](NAMES, other))
    for path in (folder / "*" / f"part.{format}", f"{day}/*.{format}", day):
        assert "d1" in opened(cache, path, format).values["day"]
        assert "another" not in opened(cache, path, format).values["day"]


def test_the_name_of_a_folder_is_a_part_of_the_content(tmp_path: Path) -> None:
    folder, cache = by_day(tmp_path / "log", "csv"), tmp_path / "cache"
    opened(cache, folder)
    (folder / "day=d3").rename(folder / "day=x%2Fy")
    assert opened(cache, folder).values["day"] == ["d0", "d1", "d2", "x/y"]
    (folder / "day=x%2Fy").rename(folder / "day=__HIVE_DEFAULT_PARTITION__")
    days = np.concatenate([split.ids[:, 1] for split in opened(cache, folder).splits.values()])
    assert (days == 1).sum() == 50, "a missing value has row 1"


def test_a_label_may_be_the_name_of_a_folder(tmp_path: Path) -> None:
    names = tuple(name for name in NAMES if name != "click")
    for click in (0, 1):
        rows = [row for row in ROWS if row["click"] == click]
        put(tmp_path / "log" / f"click={click}" / "part.csv", as_csv(names, rows))
    data = opened(tmp_path / "cache", tmp_path / "log", split="hash")
    assert sum(float(split.labels.sum()) for split in data.splits.values()) == sum(row["click"] for row in ROWS)


def test_the_same_file_read_as_another_format_is_not_taken_from_the_cache(plain: RankingData, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"plain\.csv is no Parquet file: check task\.data\.format"):
        opened(tmp_path / "cache", tmp_path / "plain.csv", "parquet")
    with pytest.raises(DataError, match=r"has no column 'price'"):
        opened(tmp_path / "cache", tmp_path / "plain.csv", "tsv")


def test_names_of_columns_for_a_file_without_a_header(tmp_path: Path) -> None:
    body = put(tmp_path / "body.csv", as_csv().split(b"\n", 1)[1])
    with pytest.raises(DataError, match=r"If it has no header, name all its columns in table\.columns"):
        opened(tmp_path / "cache", body)
    whole = put(tmp_path / "whole.csv", as_csv())
    with pytest.raises(DataError, match=r"its first row names the columns, so leave table\.columns out"):
        opened(tmp_path / "cache", whole, table={"columns": NAMES})
    with pytest.raises(DataError, match="row 1: found 7 columns, 6 expected"):
        opened(tmp_path / "cache", body, table={"columns": NAMES[:6], "categorical": ["user"]})


def test_the_first_rows_only(plain: RankingData, tmp_path: Path) -> None:
    for format, write in WRITERS.items():
        data = opened(tmp_path / "cache", put(tmp_path / f"a.{format}", write()), format, limit=60)
        assert {name: split.rows for name, split in data.splits.items()} == {"train": 48, "validation": 6, "test": 6}
        assert np.array_equal(data.split("train").labels, plain.split("train").labels[:48])
    # Bad rows count as rows: what is read does not depend on what is in it.
    lines = as_csv().split(b"\n")
    lines[10] = b"1,2"
    data = opened(
        tmp_path / "cache", put(tmp_path / "b.csv", b"\n".join(lines)), limit=60, bad_rows="skip", bad_share=0.1
    )
    assert sum(split.rows for split in data.splits.values()) == 59
