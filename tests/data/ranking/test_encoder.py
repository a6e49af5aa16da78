"""New rows are encoded as training rows were, whatever they come in."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from rankitect.data.ranking import DataSettings, open_ranking
from rankitect.data.ranking.encoder import RowEncoder
from rankitect.data.ranking.features import FIRST_ID, MISSING_ID, PADDING, UNKNOWN_ID
from rankitect.data.ranking.store import stored_encoder
from rankitect.errors import AssetError, DataError

TABLE: dict[str, Any] = {
    "label": "click",
    "numeric": ["price", {"name": "visits", "transform": "log"}],
    "categorical": [
        "user", "new", "stars", {"name": "slot", "encoding": "index", "rows": 6},
        {"name": "city", "encoding": "hash", "rows": 7},
    ],
    "multi_hot": [{"name": "tags", "slots": 2}],
    "timestamp": {"name": "time"},
    "calendar": ["hour", "weekday"],
    "group": "user",
    "missing": ["", "?"],
}  # fmt: skip


def log(rows: int = 300, seed: int = 0) -> pd.DataFrame:
    """Rows as they stand in a file, all text."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "price": rng.gamma(2.0, 20.0, rows).round(2).astype(str),
            "visits": rng.integers(0, 1000, rows).astype(str),
            "user": [f"u{i:03}" for i in rng.integers(0, 60, rows)],
            "new": rng.choice(["True", "False"], rows),
            "stars": rng.choice(["1.0", "2.0", "3.5"], rows),
            "slot": rng.integers(0, 4, rows).astype(str),
            "city": rng.choice(["Ulm", "Köln", "?", "Oslo"], rows),
            "tags": rng.choice(["a|b|c", "b", "", "c|a"], rows),
            "time": [f"2024-03-{1 + i * 20 // rows:02} {i % (rows // 20):02}:30:00" for i in range(rows)],
            "click": rng.integers(0, 2, rows).astype(str),
        }
    )
    frame.loc[::7, "price"] = "?"
    frame.loc[::11, "user"] = ""
    return frame


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, Any, RowEncoder]:
    folder = tmp_path_factory.mktemp("log")
    frame = log()
    frame.to_csv(folder / "log.csv", index=False)
    settings = DataSettings(format="csv", path=str(folder / "log.csv"), table=TABLE, split="file", min_count=2)
    data = open_ranking(settings, cache=folder / "cache")
    return frame, data, stored_encoder(data.folder)


def typed(frame: pd.DataFrame) -> pd.DataFrame:
    """The same rows as a program holds them."""
    typed = frame.copy()
    for name in ("price", "visits", "stars", "slot"):
        typed[name] = pd.to_numeric(frame[name].replace("?", None))
    typed["new"] = frame["new"] == "True"
    typed["time"] = pd.to_datetime(frame["time"])
    typed["tags"] = [text.split("|") if text else [] for text in frame["tags"]]
    typed["user"] = frame["user"].replace("", None)
    return typed


KINDS = {
    "text": lambda frame: frame,
    "typed": typed,
    "without label and index": lambda frame: typed(frame).drop(columns="click").set_index(frame.index[::-1]),
    "dictionaries": lambda frame: typed(frame).astype(object).where(typed(frame).notna(), None).to_dict("records"),
    "arrow": lambda frame: pa.Table.from_pandas(typed(frame)),
    "categories": lambda frame: frame.astype({"user": "category", "city": "category", "price": "category"}),
    "extension types": lambda frame: frame.convert_dtypes(dtype_backend="pyarrow"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_rows_come_to_what_they_were_in_training(kind: str, opened: Any) -> None:
    frame, data, encoder = opened
    numeric, ids = encoder.encode(KINDS[kind](frame))
    splits = [data.split(name) for name in ("train", "validation", "test")]
    np.testing.assert_array_equal(ids, np.concatenate([s.ids for s in splits]))
    np.testing.assert_array_equal(numeric, np.concatenate([s.numeric for s in splits]))
    assert (numeric.dtype, ids.dtype) == (np.float32, np.int64)


def test_an_encoder_survives_its_folder(tmp_path: Path, opened: Any) -> None:
    frame, _, encoder = opened
    encoder.save(tmp_path / "encoder")
    again = RowEncoder.load(tmp_path / "encoder")
    assert (again.table, again.features) == (encoder.table, encoder.features)
    for one, other in zip(again.encode(frame), encoder.encode(frame), strict=True):
        np.testing.assert_array_equal(one, other)
    assert {file.suffix for file in (tmp_path / "encoder").iterdir()} == {".json", ".safetensors"}


def row(**changes: Any) -> dict[str, Any]:
    return {"price": 10.0, "visits": 3, "user": "u001", "new": True, "stars": 3.5, "slot": 1, "city": "Ulm",
            "tags": "a|b", "time": "2024-03-05 17:00:00", **changes}  # fmt: skip


def test_unknown_and_missing_values_have_the_rows_they_had(opened: Any) -> None:
    encoder = opened[2]
    rows = [row(), row(user="nobody"), row(user=None), row(user=""), row(user="?"), row(price=None), row(tags=None)]
    del (rows[2]["user"], rows[5]["price"])
    numeric, ids = encoder.encode(rows)
    assert ids[0, 0] >= FIRST_ID
    assert ids[1:5, 0].tolist() == [UNKNOWN_ID, MISSING_ID, MISSING_ID, MISSING_ID]
    assert numeric[5, 0] == 0, "a missing number is the mean"
    assert numeric[0, 0] == pytest.approx((10.0 - encoder.plan.centre[0]) / encoder.plan.scale[0])
    assert numeric[0, 1] == pytest.approx((np.log1p(3) - encoder.plan.centre[1]) / encoder.plan.scale[1])
    assert ids[6, 5:7].tolist() == [MISSING_ID, PADDING]
    assert ids[0, 7:].tolist() == [17 + FIRST_ID, 1 + FIRST_ID]


INTEGERS: dict[str, list[Any]] = {
    "user": [17, "17", "nobody", None, 17, float("nan"), np.int64(17), 2**70],
    "slot": [3, "3", 2, None, "2", 0, np.int32(1), "1"],
    "price": [3, "3", "2.5", None, -4, "?", np.int64(7), 2**70],
    "time": [1_709_658_000, "1709658000", "2024-03-05 17:00:00", 1_709_654_400],
}


@pytest.mark.parametrize("column", INTEGERS)
@pytest.mark.parametrize("frame", [list, pd.DataFrame])
def test_integers_beside_texts_come_to_what_they_do_alone(column: str, frame: Any, opened: Any) -> None:
    encoder = opened[2]
    rows = [row(**{column: value}) for value in INTEGERS[column]]
    together, alone = encoder.encode(frame(rows)), [encoder.encode([one]) for one in rows]
    for place in (0, 1):
        np.testing.assert_array_equal(together[place], np.concatenate([one[place] for one in alone]))


def test_a_number_that_is_spelt_as_a_missing_value_is_not_made_one(tmp_path: Path) -> None:
    rows = {"user": ["17", "5", "-1", "5", "17", "x"] * 20, "click": ["0", "1", "1"] * 40}
    pd.DataFrame(rows).to_csv(tmp_path / "log.csv", index=False)
    table = {"label": "click", "categorical": ["user"], "missing": ["", "-1"]}
    settings = DataSettings(format="csv", path=str(tmp_path / "log.csv"), table=table, min_count=2)
    encoder = stored_encoder(open_ranking(settings, cache=tmp_path / "cache").folder)
    _, ids = encoder.encode([{"user": 17}, {"user": "x"}, {"user": 5}, {"user": "17"}, {"user": "nobody"}])
    assert len({*ids[:3, 0].tolist()}) == 3
    assert ids[:3, 0].min() >= FIRST_ID
    assert ids[3:, 0].tolist() == [ids[0, 0], UNKNOWN_ID]
    with pytest.raises(DataError, match="values of different kinds"):
        encoder.encode([{"user": -1}, {"user": "x"}])


def test_no_rows_and_a_column_of_nothing_are_encoded(opened: Any) -> None:
    encoder = opened[2]
    numeric, ids = encoder.encode([])
    assert (numeric.shape, ids.shape) == ((0, 2), (0, 9))
    assert encoder.encode([row(user=None), row(user=None)])[1][:, 0].tolist() == [MISSING_ID] * 2


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(), row(price="cheap")], r"kinds|Row 1, column 'price': found 'cheap', a number expected"),
        ([row(price="cheap")], r"Row 0, column 'price': found 'cheap', a number expected"),
        ([row(price=float("inf"))], r"Row 0, column 'price': found inf, a finite number"),
        ([row(slot=9)], r"Row 0, column 'slot': found .*9.*, a whole number from 0 to 3 expected"),
        ([row(time="yesterday")], r"Row 0, column 'time': found 'yesterday'"),
        ([row(time=None)], r"Row 0, column 'time': found missing"),
        ([{k: v for k, v in row().items() if k != "city"}], "The rows have no column 'city', which the model needs"),
        ([row(user=3.5), row(user="x")], "Column 'user' has values of different kinds"),
        ([row(user=True), row(user="x")], "Column 'user' has values of different kinds"),
        ([row(), 5], "Row 1 is int; a mapping of column to value is needed"),
        ("text", "The rows are str; a frame of pandas"),
        (pd.DataFrame([[1, 2]], columns=["user", "user"]), "The rows have the column 'user' twice"),
    ],
)
def test_what_cannot_be_encoded_is_named(rows: Any, message: str, opened: Any) -> None:
    with pytest.raises(DataError, match=message) as error:
        opened[2].encode(rows)
    assert len(str(error.value)) <= 500


def test_a_column_spelt_in_another_way_is_said(opened: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "rankitect"):
        opened[2].encode([row()] * 30)
        assert not caplog.messages
        opened[2].encode([row(user="U001")] * 30)
    assert caplog.messages == [
        "Column 'user': training knew no such value for 100% of the rows. Are values spelt as in the training data?"
    ]


def test_a_damaged_encoder_is_refused(tmp_path: Path, opened: Any) -> None:
    from safetensors.numpy import load_file, save_file

    opened[2].save(tmp_path)
    whole = load_file(tmp_path / "vocabularies.safetensors")
    changes: list[dict[str, Any]] = [
        {"keys0": whole["keys0"][:-1]},
        {"keys0": np.repeat(whole["keys0"][:1], len(whole["keys0"]))},
        {"scale": whole["scale"] * 0},
        {"centre": whole["centre"] * np.nan},
        {"scale": whole["scale"].astype(np.float32)},
    ]
    for change in changes:
        save_file({**whole, **change}, tmp_path / "vocabularies.safetensors")
        with pytest.raises(AssetError, match=r"does not fit encoder\.json"):
            RowEncoder.load(tmp_path)
    (tmp_path / "vocabularies.safetensors").write_bytes(b"nothing")
    with pytest.raises(AssetError, match="truncated or damaged"):
        RowEncoder.load(tmp_path)
    (tmp_path / "encoder.json").write_text("[]")
    with pytest.raises(AssetError, match=r"encoder\.json"):
        RowEncoder.load(tmp_path)
