"""JSON lines, libsvm and libffm: values with their names in each row, and the rows that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rankitect.data.ranking import DataSettings, RankingData, open_ranking
from rankitect.data.ranking.features import MISSING_ID
from rankitect.errors import DataError

SPARSE: dict[str, Any] = {"label": "label", "numeric": [{"name": "3", "transform": "none"}]}
FIELDS: dict[str, Any] = {
    "label": "label",
    "categorical": ["0"],
    "numeric": [{"name": "1", "transform": "none"}],
    "multi_hot": ["2"],
}
OBJECTS: dict[str, Any] = {"label": "y", "categorical": ["u"], "numeric": [{"name": "x", "transform": "none"}]}


def read(folder: Path, text: str, format: str, table: dict[str, Any], **more: Any) -> RankingData:
    file = folder / f"log.{format}"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    given = {"format": format, "path": str(file), "table": table, "split": "file", "workers": 1, **more}
    return open_ranking(DataSettings.model_validate(given), cache=folder / "cache")


def whole(data: RankingData, kind: str) -> np.ndarray:
    return np.concatenate([np.asarray(getattr(data.splits[name], kind)) for name in ("train", "validation", "test")])


def skipped(folder: Path, good: list[str], bad: str, format: str, table: dict[str, Any], message: str) -> None:
    """The bad row is an error with its line, or is left out and counted."""
    text = "\n".join([*good[:40], bad, *good[40:]]) + "\n\n"
    with pytest.raises(DataError, match=message) as error:
        read(folder, text, format, table)
    assert "row 41" in str(error.value)
    assert len(str(error.value)) <= 500
    data = read(folder, text, format, table, bad_rows="skip", bad_share=0.02)
    assert len(whole(data, "labels")) == len(good)
    assert sum(data.facts["bad_rows"].values()) == 1


LINES = [json.dumps({"y": i % 2, "x": i / 4, "u": f"u{i % 3}", "more": {"a": [1]}}) for i in range(100)]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ('{"y": 1, "x": ', r"row 41: found no JSON object \(Expecting value\)"),
        ("[1, 2]", "found no JSON object"),
        ('{"y": 1, "y": 0, "x": 1}', "a key is there twice"),
        ('{"y": 1, "x": [2], "u": "a"}', "column 'x': found a list, a single value expected"),
        ('{"y": 1, "x": 2, "u": {"v": 1}}', "column 'u': found an object"),
        ('{"y": 1, "x": "two"}', "column 'x': found 'two', a number expected"),
        ('{"y": 1, "x": Infinity}', "column 'x': found 'Infinity', a finite number"),
        ('{"x": 1}', "column 'y': found missing"),
        ('{"y": 1, "u": "\\ud800"}', "column 'u': found half of a surrogate pair"),
        ('{"y": 1, "u": "\udcff"}', "found a byte that is not UTF-8"),
        ('{"y": ' + "[" * 100_000, "found no JSON object"),
        ('{"y": 1, "x": ' + "9" * 5000 + "}", "column 'x'"),
    ],
)
def test_a_bad_line_of_json_is_named_or_counted(bad: str, message: str, tmp_path: Path) -> None:
    skipped(tmp_path, LINES, bad, "jsonl", OBJECTS, message)


def test_values_of_json_are_what_stands_in_the_file(tmp_path: Path) -> None:
    rows = [
        '{"y": true, "x": 0.10, "u": 1.50}',
        '{"y": false, "x": "2", "u": "1.50"}',
        '{"y": 1, "x": null, "u": 12345678901234567890123}',
        '{"y": 0, "u": null}',
        '{"y": 0, "x": NaN, "u": true}',
    ]
    data = read(tmp_path, "\ufeff" + "\r\n".join(rows * 20), "jsonl", OBJECTS)
    assert data.values["u"] == ["1.50", "12345678901234567890123", "true"]
    assert whole(data, "labels")[:5].tolist() == [1, 0, 1, 0, 0]
    assert whole(data, "numeric")[:5, 0].tolist() == pytest.approx([0.1, 2, 0, 0, 0])
    ids = whole(data, "ids")[:5, 0].tolist()
    assert ids[0] == ids[1]
    assert ids[3] == 1, "a missing value"


def test_what_is_no_json_lines_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is one JSON array and no JSON lines"):
        read(tmp_path, "[" + ",\n".join(LINES) + "]", "jsonl", OBJECTS)
    with pytest.raises(DataError, match=r"no column 'z'.* Its columns: y, x, u, more"):
        read(tmp_path, "\n".join(LINES), "jsonl", {**OBJECTS, "categorical": ["u", "z"]})
    late = [*LINES, '{"y": 1, "z": "last"}', ""]
    assert read(tmp_path, "\n".join(late), "jsonl", {**OBJECTS, "categorical": ["u", "z"]}).features.categorical


@pytest.mark.parametrize("folders", [("", ""), ("day=1/", "day=2/"), ("", "day=2/")])
def test_a_field_may_be_absent_from_the_first_rows_and_files(folders: tuple[str, str], tmp_path: Path) -> None:
    early = [{"y": i % 2, "x": i, "day": 7} for i in range(40)]
    late = [{**row, "u": "v"} for row in early]
    for name, folder, objects in (("a", folders[0], early), ("b", folders[1], late)):
        file = tmp_path / "log" / folder / f"{name}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(map(json.dumps, objects)))
    table = {"label": "y", "numeric": ["x"], "categorical": [{"name": "u", "encoding": "hash", "rows": 50}, "day"]}
    given = {"format": "jsonl", "path": str(tmp_path / "log"), "split": "file", "workers": 1}

    def opened(**more: Any) -> RankingData:
        return open_ranking(DataSettings.model_validate({**given, "table": table, **more}), cache=tmp_path / "cache")

    ids = whole(opened(), "ids")[:, 0]
    assert (ids[:40] == MISSING_ID).all()
    assert len(set(ids[40:].tolist()) - {MISSING_ID}) == 1
    assert not (ids[40:] == MISSING_ID).any()
    with pytest.raises(DataError, match=r"a\.jsonl has no column 'z'\..* Its columns: y, x, day, u\."):
        opened(table={**table, "multi_hot": ["z"]})
    with pytest.raises(DataError, match=r"a\.jsonl has no column 'u'"):  # no further is looked than rows are read
        opened(limit=40)


SVM = [f"{i % 2} qid:{i // 10} 1:{i} 3:{i / 8} 7:1" for i in range(100)]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("1 3:x", "found '3:x', a finite value expected"),
        ("1 3:nan", "found '3:nan', a finite value"),
        ("1 3:1_0", "a finite value"),
        ("1 3", "found '3', index:value expected"),
        ("1 -3:1", "found '-3:1', index:value expected"),
        ("1 3:1 03:2", "found '03:2', an index that is there twice"),
        ("1 3:1 qid:4", "found 'qid:4', index:value expected"),
        ("-1 3:1", r"column 'label': found '-1', 0 or 1 .*positive and negative"),
        ("3:1 4:2", "column 'label': found '3:1', 0 or 1"),
    ],
)
def test_a_bad_line_of_libsvm_is_named_or_counted(bad: str, message: str, tmp_path: Path) -> None:
    skipped(tmp_path, SVM, bad, "libsvm", SPARSE, message)


def test_libsvm_is_read_as_scikit_learn_reads_it(tmp_path: Path) -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    rng = np.random.default_rng(0)
    lines = []
    for i in range(120):
        named = sorted(rng.choice(9, rng.integers(0, 6), replace=False) + 1)
        lines.append(" ".join([("+1", "-1")[i % 2], f"qid:{i // 4}", *(f"{k}:{rng.normal():.4g}" for k in named)]))
    lines[7] += " # a comment: 3:4"
    label = {"name": "label", "positive": ["+1"], "negative": ["-1"]}
    numeric = [{"name": str(k), "transform": "none"} for k in range(1, 10)]
    table = {"label": label, "numeric": numeric, "group": "qid"}
    data = read(tmp_path, "# header\n" + "\n".join(lines) + "\n", "libsvm", table)
    values, labels, queries = datasets.load_svmlight_file(str(tmp_path / "log.libsvm"), n_features=9, query_id=True)
    assert np.array_equal(whole(data, "numeric"), values.toarray().astype(np.float32))
    assert np.array_equal(whole(data, "labels"), labels > 0)
    assert len(np.unique(whole(data, "groups"))) == len(np.unique(queries))


def test_an_index_that_no_row_names_is_a_mistake(tmp_path: Path) -> None:
    table = {"label": "label", "numeric": ["3", "4"]}
    lines = [f"{i % 2} 3:{i}" for i in range(60)]
    with pytest.raises(DataError, match="no row has a value other than 0 at the index 4"):
        read(tmp_path, "\n".join(lines), "libsvm", table)
    lines[59] += " 4:1"
    assert np.unique(whole(read(tmp_path, "\n".join(lines), "libsvm", table), "numeric")[:, 1]).tolist() == [0, 1]


def test_all_that_a_row_of_libsvm_names_as_one_feature(tmp_path: Path) -> None:
    text = "\n".join(f"{i % 2} {i % 3 + 1}:1 {i % 5 + 10}:1 99:0" for i in range(100))
    table = {"label": "label", "multi_hot": ["indices"]}
    data = read(tmp_path, text, "libsvm", table)
    assert data.features.slots == (2,)
    assert set(data.values["indices"]) == {"1", "2", "3", *map(str, range(10, 15))}
    with pytest.raises(DataError, match=r"column 'indices': found 4:0.5, the value 1 expected of a category"):
        read(tmp_path, text + "\n1 4:0.5", "libsvm", table)
    with pytest.raises(DataError, match=r"no column 'price'.* Its columns: label, qid, indices"):
        read(tmp_path, text, "libsvm", {"label": "label", "numeric": ["price", "3"]})


FFM = [f"{i % 2} 0:{i % 5}:1 1:0:{i / 4} 2:{100 + i % 3}:1 2:{103 + i % 2}:1" for i in range(100)]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("1 0:1", "found '0:1', field:index:value expected"),
        ("1 0:a:1", "found '0:a:1', index:value expected"),
        ("1 0:1:x", "a finite value expected"),
        ("1 0:1:1 0:2:1", r"column '0': found 2 values, one expected \(or multi_hot\)"),
        ("1 0:1:0.5", "column '0': found 1:0.5, the value 1 expected of a category"),
        ("1 2:1:0.7 2:2:0.7", "column '2': found 1:0.7, the value 1 expected"),
        ("1 1:0:1 1:1:2", "column '1': found 2 values"),
        ("1 0:1:1 0:1:1", "an index that is there twice"),
    ],
)
def test_a_bad_line_of_libffm_is_named_or_counted(bad: str, message: str, tmp_path: Path) -> None:
    skipped(tmp_path, FFM, bad, "libffm", FIELDS, message)


def test_fields_of_libffm_are_columns(tmp_path: Path) -> None:
    data = read(tmp_path, "\n".join([*FFM[:99], "1 2:100:1"]), "libffm", FIELDS)
    assert [(f.name, f.slots) for f in data.features.categorical] == [("0", 1), ("2", 2)]
    assert sorted(data.values["2"]) == ["100", "101", "102", "103", "104"]
    assert whole(data, "numeric")[:, 0].tolist() == [*(i / 4 for i in range(99)), 0]
    assert whole(data, "ids")[99, 0] == 1, "the last row lacks the field"
    assert read(tmp_path, "\n".join(FFM), "libffm", FIELDS).fingerprint != data.fingerprint
