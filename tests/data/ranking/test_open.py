"""Tables of one's own, opened: what is read, how it is encoded and divided, and that it is kept."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from rankitect.data.ranking import DataSettings, RankingData, delimited, open_ranking, prepare
from rankitect.data.ranking.lines import Dialect
from rankitect.data.ranking.store import verify
from rankitect.errors import DataError

TABLE: dict[str, Any] = {
    "label": "click",
    "numeric": ["price", {"name": "views", "transform": "log"}],
    "categorical": ["user", {"name": "site", "min_count": 2}],
    "multi_hot": ["tags"],
    "timestamp": "time",
    "calendar": ["hour", "weekday"],
    "group": "user",
    "weight": "w",
}
ROWS = 200


def rows() -> list[dict[str, Any]]:
    """Rows in the order of time, an hour apart from a Monday's midnight on."""
    rng = np.random.default_rng(0)
    found = []
    for i in range(ROWS):
        tags = "|".join(f"t{k}" for k in rng.choice(6, rng.integers(0, 4), replace=False))
        found.append(
            {
                "click": int(rng.random() < 0.4),
                "price": "" if i % 17 == 3 else round(float(rng.normal(5, 2)), 3),
                "views": int(rng.integers(0, 1000)),
                "user": f"u{rng.integers(0, 12)}",
                "site": "rare" if i == 50 else "" if i % 10 == 7 else f"s{rng.integers(0, 5)}",
                "tags": tags,
                "time": 1_700_438_400 + 3600 * i,
                "w": 1 + i % 3,
            }
        )
    return found


def write(path: Path, table: list[dict[str, Any]]) -> Path:
    lines = [",".join(table[0])] + [",".join(str(value) for value in row.values()) for row in table]
    path.write_text("\n".join(lines) + "\n")
    return path


def settings(path: Path, **more: Any) -> DataSettings:
    given: dict[str, Any] = {"format": "csv", "path": str(path), "table": TABLE, "workers": 2, **more}
    return DataSettings.model_validate(given)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return write(tmp_path / "log.csv", rows())


def same(one: RankingData, other: RankingData) -> bool:
    if one.features != other.features:
        return False
    return all(
        np.array_equal(getattr(one.split(name), kind), getattr(other.split(name), kind))
        for name in one.splits
        for kind in ("numeric", "ids", "labels", "groups", "weights")
    )


def test_every_kind_of_column(log: Path, tmp_path: Path) -> None:
    data = open_ranking(settings(log), cache=tmp_path / "cache")
    table = rows()
    train, test = data.split("train"), data.split("test")
    assert (train.rows, data.split("validation").rows, test.rows) == (160, 20, 20)
    assert data.features.numeric == ("price", "views")
    names = [feature.name for feature in data.features.categorical]
    assert names == ["user", "site", "tags", "hour", "weekday"]
    assert data.features.slots == (1, 1, 3, 1, 1)
    assert data.features.rows[1:] == (7, 8, 26, 9)  # five sites (the rare one has none), six tags, hours, weekdays
    assert train.labels.tolist() == [row["click"] for row in table[:160]]
    assert train.weights is not None
    assert train.weights.tolist() == [row["w"] for row in table[:160]]
    # What is missing has an id of its own, what is rare or new has the unknown one.
    sites = [row["site"] for row in table]
    assert [i for i in range(160) if train.ids[i, 1] == 1] == [i for i in range(160) if sites[i] == ""]
    assert [i for i in range(160) if train.ids[i, 1] == 0] == [50]
    ids = {site: int(row[1]) for site, row in zip(sites, train.ids, strict=False)}
    assert [ids[site] for site in sites[180:]] == test.ids[:, 1].tolist()
    assert sorted(set(ids.values())) == [0, 1, 2, 3, 4, 5, 6]
    counts = [sites[:160].count(site) for _, site in sorted((ids[site], site) for site in ids if ids[site] > 1)]
    assert counts == sorted(counts, reverse=True)  # the most frequent one comes first
    # Users are equal where their groups are.
    users = [row["user"] for row in table]
    assert train.groups is not None
    assert len(set(zip(users[:160], train.groups.tolist(), strict=True))) == len(set(users[:160]))
    # Hours and weekdays: the log begins on a Monday at midnight.
    assert train.ids[:50, 5].tolist() == [2 + i % 24 for i in range(50)]
    assert train.ids[:50, 6].tolist() == [2 + i // 24 for i in range(50)]


def test_many_values_fill_slots(log: Path, tmp_path: Path) -> None:
    data = open_ranking(settings(log), cache=tmp_path / "cache")
    ids: dict[str, int] = {}
    for row, found in zip(rows(), data.split("train").ids[:, 2:5].tolist(), strict=False):
        tags = [tag for tag in row["tags"].split("|") if tag]
        assert found[len(tags) :] == ([1, -1, -1] if not tags else [-1] * (3 - len(tags)))
        for tag, place in zip(tags, found, strict=False):
            assert ids.setdefault(tag, place) == place
    assert sorted(ids.values()) == [2, 3, 4, 5, 6, 7]


def test_numbers_are_normalised_by_the_training_rows(log: Path, tmp_path: Path) -> None:
    data = open_ranking(settings(log), cache=tmp_path / "cache")
    prices = np.array([float(row["price"] or "nan") for row in rows()])
    views = np.log1p([row["views"] for row in rows()])
    mean, deviation = np.nanmean(prices[:160]), np.nanstd(prices[:160])
    expected = np.nan_to_num((prices - mean) / deviation)
    read = np.concatenate([split.numeric for split in data.splits.values()])
    assert read[:, 0] == pytest.approx(expected, abs=1e-5)
    assert read[:, 1] == pytest.approx((views - views[:160].mean()) / views[:160].std(), abs=1e-5)


def test_small_blocks_and_gzip_and_parquet_give_the_same(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = open_ranking(settings(log), cache=tmp_path / "cache")
    with pa.CompressedOutputStream(tmp_path / "log.csv.gz", "gzip") as file:
        file.write(log.read_bytes())
    packed = open_ranking(settings(tmp_path / "log.csv.gz"), cache=tmp_path / "cache")
    assert same(data, packed)
    columns = {
        name: [None if row[name] == "" and name != "tags" else row[name] for row in rows()] for name in rows()[0]
    }
    columns["tags"] = [[tag for tag in row["tags"].split("|") if tag] for row in rows()]
    parquet.write_table(pa.table(columns), tmp_path / "log.parquet")
    typed = open_ranking(settings(tmp_path / "log.parquet", format="parquet"), cache=tmp_path / "cache")
    assert same(data, typed)
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(delimited.DelimitedSource, "pieces", small_pieces)
    assert same(data, open_ranking(settings(log), cache=tmp_path / "other"))
    assert packed.fingerprint != data.fingerprint


def small_pieces(source: delimited.DelimitedSource) -> Any:
    names = delimited.read_header(source.files[0], source.dialect)
    for first, block in delimited.read_blocks(source.files[0], 1000, None, skip=True):
        yield lambda first=first, block=block: delimited.parse(block, names, names, source.dialect, "log", first)


def test_rows_out_of_order_are_sorted_or_an_error(log: Path, tmp_path: Path) -> None:
    data = open_ranking(settings(log), cache=tmp_path / "cache")
    mixed = write(tmp_path / "mixed.csv", [rows()[i] for i in np.random.default_rng(1).permutation(ROWS)])
    assert same(data, open_ranking(settings(mixed), cache=tmp_path / "cache"))
    one = rows()
    one[100], one[101] = one[101], one[100]
    swapped = write(tmp_path / "swapped.csv", one)
    with pytest.raises(DataError, match=r"swapped.csv, row 103, column 'time': earlier than the row before"):
        open_ranking(settings(swapped, out_of_order="error"), cache=tmp_path / "cache")


@pytest.mark.parametrize("split", ["time", "user_time", "user", "hash", "file"])
def test_each_row_is_in_one_split(split: str, log: Path, tmp_path: Path) -> None:
    data = open_ranking(settings(log, split=split, shares=[0.6, 0.2, 0.2]), cache=tmp_path / "cache")
    assert sum(part.rows for part in data.splits.values()) == ROWS
    groups = {name: set(part.groups.tolist()) for name, part in data.splits.items() if part.groups is not None}
    if split == "user":
        assert not groups["train"] & groups["test"]
        assert not groups["train"] & groups["validation"]
    if split == "user_time":  # within each user the earliest rows train, and nobody is new
        assert groups["test"] <= groups["train"]
        users = [row["user"] for row in rows()]
        ranks = {u: [i for i in range(ROWS) if users[i] == u] for u in users}
        expected = sum(sum((k + 0.5) / len(own) < 0.6 for k in range(len(own))) for own in ranks.values())
        assert data.split("train").rows == expected
    if split in ("time", "file"):
        assert data.split("train").labels.tolist() == [row["click"] for row in rows()[:120]]


def test_the_default_split_is_by_time_or_by_chance(log: Path, tmp_path: Path) -> None:
    assert open_ranking(settings(log), cache=tmp_path / "cache").facts["split"] == "time"
    plain = {"label": "click", "categorical": ["user"]}
    data = open_ranking(settings(log, table=plain), cache=tmp_path / "cache")
    assert data.facts["split"] == "hash"
    assert data.split("train").numeric.shape == (data.split("train").rows, 0)
    assert next(data.split("train").batches(10)).numeric.shape == (10, 0)


def test_hashed_and_indexed_columns(log: Path, tmp_path: Path) -> None:
    table = {
        "label": "click",
        "categorical": [
            {"name": "user", "encoding": "hash", "rows": 6},
            {"name": "views", "encoding": "index", "rows": 1002},
            {"name": "site", "encoding": "hash", "rows": 20, "min_count": 2},
        ],
    }
    data = open_ranking(settings(log, table=table, split="file"), cache=tmp_path / "cache")
    assert data.features.rows == (6, 1002, 20)
    ids = np.concatenate([split.ids for split in data.splits.values()])
    assert set(ids[:, 0].tolist()) <= {2, 3, 4, 5}
    assert (ids[:, 1] - 2).tolist() == [row["views"] for row in rows()]
    assert ids[50, 2] == 0
    assert ids[7, 2] == 1


def test_kept_and_verified(log: Path, tmp_path: Path) -> None:
    first = open_ranking(settings(log), cache=tmp_path / "cache")
    stamp = (first.folder / "manifest.json").stat().st_mtime_ns
    again = open_ranking(settings(log, workers=1), cache=tmp_path / "cache")
    assert (again.folder, again.fingerprint) == (first.folder, first.fingerprint)
    assert (again.folder / "manifest.json").stat().st_mtime_ns == stamp
    assert not (again.folder / "raw").exists()
    verify(again)
    other = open_ranking(settings(log, min_count=3), cache=tmp_path / "cache")
    assert other.fingerprint != first.fingerprint
    damaged = first.folder / "train.labels.npy"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-4] + b"\0\0\0@")
    with pytest.raises(DataError, match="damaged"):
        verify(again)
    damaged.write_bytes(whole[:-4])  # a wrong size is seen when it is opened
    mended = open_ranking(settings(log), cache=tmp_path / "cache")
    verify(mended)
    assert (mended.folder / "train.labels.npy").read_bytes() == whole


def test_a_changed_file_is_read_again(log: Path, tmp_path: Path) -> None:
    first = open_ranking(settings(log), cache=tmp_path / "cache")
    write(log, rows()[:150])
    assert open_ranking(settings(log), cache=tmp_path / "cache").fingerprint != first.fingerprint


def _killed_after_two(path: str, cache: str) -> None:
    import os

    built = prepare.build
    done = []

    def build(*args: Any) -> Any:
        if len(done) == 2:
            os._exit(9)
        done.append(1)
        return built(*args)

    prepare.build = build  # type: ignore[assignment]
    delimited.DelimitedSource.pieces = small_pieces  # type: ignore[method-assign]
    open_ranking(settings(Path(path), workers=1), cache=Path(cache))


def test_a_killed_run_goes_on_with_its_shards(log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = multiprocessing.get_context("fork").Process(target=_killed_after_two, args=(str(log), str(tmp_path / "c")))
    child.start()
    child.join(60)
    assert child.exitcode == 9
    shards = sorted((tmp_path / "c").glob("*/raw/*.safetensors"))
    assert len(shards) == 2
    (shards[1].parent / ".000002.safetensors.x.part").write_bytes(b"half")
    monkeypatch.setattr(delimited.DelimitedSource, "pieces", small_pieces)
    made: list[int] = []
    built = prepare.build

    def build(*args: Any) -> Any:
        made.append(1)
        return built(*args)

    monkeypatch.setattr(prepare, "build", build)
    data = open_ranking(settings(log), cache=tmp_path / "c")
    total = len(list(small_pieces(delimited.DelimitedSource("", settings(log).table, [log], Dialect()))))
    assert len(made) == total - 2
    assert same(data, open_ranking(settings(log), cache=tmp_path / "whole"))


def test_what_is_known_of_the_data(log: Path, tmp_path: Path) -> None:
    data = open_ranking(settings(log), cache=tmp_path / "cache")
    facts = json.loads((data.folder / "manifest.json").read_text())["facts"]
    test = data.split("test")
    assert facts["splits"]["test"]["base_rate"] == pytest.approx(float(test.labels.mean()))
    assert facts["splits"]["train"]["unknown"]["site"] == pytest.approx(1 / 160)
    with pytest.raises(DataError, match="no split 'dev'; it has train, validation, test"):
        data.split("dev")
