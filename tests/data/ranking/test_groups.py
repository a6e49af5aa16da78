"""Rows without a user are alone: in splits, in intervals, and in what the report says of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from rankitect.data.ranking import RankingData
from rankitect.metrics.intervals import mean_estimate
from rankitect.production.evidence import Evidence, load_evidence
from rankitect.tasks.ranking.rows import record_rows
from tests.data.ranking.written import joined, opened, read

COUNT = 3000
TABLE = {"label": "y", "numeric": ["x"], "group": "u", "timestamp": "t"}


def recorded(data: RankingData, folder: Path) -> Evidence:
    """What a report reads of the rows of a run without models."""
    record_rows(data, folder, None, "y")
    (folder / "summary.json").write_text('{"pareto": [], "baselines": []}')
    evidence = load_evidence(folder)
    assert evidence is not None
    return evidence


def log(folder: Path, split: str, missing: str = "") -> RankingData:
    """A log in which 60% of the rows have no user, the others one of 300."""
    rng = np.random.default_rng(0)
    lines = ["y,x,u,t"]
    for i in range(COUNT):
        user = missing if rng.random() < 0.6 else f"u{rng.integers(300)}"
        lines.append(f"{int(rng.random() < 0.4)},{i},{user},{1_700_000_000 + 60 * i}")
    return read(folder, "\n".join(lines) + "\n", table=TABLE, split=split)


@pytest.mark.parametrize("missing", ["", "null", "\\N"])
def test_a_split_by_user_divides_the_rows_without_one(missing: str, tmp_path: Path) -> None:
    data = log(tmp_path, "user", missing)
    sizes = {name: split.rows for name, split in data.splits.items()}
    for name, share in (("train", 0.8), ("validation", 0.1), ("test", 0.1)):
        assert sizes[name] / COUNT == pytest.approx(share, abs=0.03)
        groups = data.split(name).groups
        assert groups is not None
        alone = groups < 0
        assert alone.mean() == pytest.approx(0.6, abs=0.06)
        assert len(np.unique(groups[alone])) == alone.sum() == data.split(name).facts["without_group"]
    users = [set(np.asarray(s.groups)[np.asarray(s.groups) >= 0].tolist()) for s in data.splits.values()]
    assert len(set.union(*users)) == sum(map(len, users))


def test_within_users_the_rows_without_one_are_divided_by_time(tmp_path: Path) -> None:
    data = log(tmp_path, "user_time")
    times = [np.asarray(s.times)[np.asarray(s.groups) < 0] for s in data.splits.values()]
    assert [len(t) / sum(map(len, times)) for t in times] == pytest.approx([0.8, 0.1, 0.1], abs=0.01)
    assert times[0].max() < times[1].min() <= times[1].max() < times[2].min()


def test_intervals_count_each_row_without_a_user(tmp_path: Path) -> None:
    data = log(tmp_path, "file")
    groups = joined(data, "groups")
    values = np.random.default_rng(1).standard_normal(COUNT)
    clustered, plain = mean_estimate(values, clusters=groups), mean_estimate(values)
    assert clustered.freedom == len(np.unique(groups)) - 1
    assert clustered.freedom > 0.6 * COUNT - 60
    assert clustered.error == pytest.approx(plain.error, rel=0.1)  # the rows are independent


def test_the_report_counts_them(tmp_path: Path) -> None:
    data = log(tmp_path, "file")
    evidence = recorded(data, tmp_path)
    counts = [int((np.asarray(s.groups) < 0).sum()) for s in data.splits.values()]
    told = evidence.facts["rows_without_a_user"]
    assert told.startswith(f"{counts[0]:,} of 2,400 train, {counts[1]} of 300 validation, {counts[2]} of 300 test")
    (slicing,) = evidence.slicings
    assert slicing.parts[-1] == "without a user"
    assert (slicing.codes == len(slicing.parts) - 1).sum() == counts[2]
    assert evidence.before is not None
    assert evidence.before[:, 0].sum() <= 2700 - counts[0] - counts[1]


def test_the_report_counts_rows_that_were_left_out(tmp_path: Path) -> None:
    lines = ["y,x,u,t", *(f"{i % 2},{'?' if i == 7 else i},u,{1_700_000_000 + i}" for i in range(100))]
    data = read(tmp_path, "\n".join(lines), table=TABLE, bad_rows="skip", bad_share=0.1)
    evidence = recorded(data, tmp_path)
    assert evidence.facts["left_out"] == "1 rows that cannot be read (x: no number: 1)"
    assert json.loads((data.folder / "manifest.json").read_text())["facts"]["bad_rows"] == {"x: no number": 1}


def test_missing_users_of_a_typed_column(tmp_path: Path) -> None:
    from pyarrow import parquet

    rng = np.random.default_rng(0)
    user = np.where(rng.random(COUNT) < 0.6, np.nan, rng.integers(0, 300, COUNT).astype(float))
    columns = {"y": rng.integers(0, 2, COUNT), "x": np.arange(COUNT), "t": 1_700_000_000 + np.arange(COUNT), "u": user}
    for null in (True, False):  # NaN as it is, and as a missing value
        parquet.write_table(pa.table({**columns, "u": pa.array(user, from_pandas=null)}), tmp_path / "log.parquet")
        data = opened(tmp_path, tmp_path / "log.parquet", "parquet", table=TABLE)
        groups = joined(data, "groups")
        assert ((groups < 0) == np.isnan(user)).all()
        assert len(np.unique(groups[groups >= 0])) == len(np.unique(user[~np.isnan(user)]))
