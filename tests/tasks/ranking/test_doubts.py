"""Doubts about a click log: each is raised where it should be, names its feature, and is not raised on clean rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rankitect.data.ranking.dataset import RankingData, RankingSplit
from rankitect.data.ranking.features import FIRST_ID, MISSING_ID, UNKNOWN_ID, CategoricalFeature, Features
from rankitect.production.doubts import KINDS, Doubt, doubts_from, ranked
from rankitect.tasks.ranking.doubts import doubts_of_rows
from tests.data.ranking.written import read, text
from tests.data.ranking.written import rows as sixty

SIZES = {"train": 4000, "validation": 1000, "test": 1000}
DAY = 86_400_000_000
START = int(np.datetime64("2024-01-01", "us").astype(np.int64))


def clean() -> RankingData:
    """A log with nothing wrong: two numbers, two ids, times, one click in four."""
    splits, start = {}, 0
    for seed, (name, rows) in enumerate(SIZES.items()):
        rng = np.random.default_rng(seed)
        numeric = rng.normal(size=(rows, 2)).astype(np.float32)
        ids = rng.integers(FIRST_ID, 50, (rows, 2)).astype(np.int32)
        chance = 1 / (1 + np.exp(1.3 - numeric[:, 0]))
        times = START + (start + np.arange(rows)) * (DAY // 500)
        splits[name] = RankingSplit(
            name, numeric, ids, (rng.random(rows) < chance).astype(np.float32), None, None, times=times
        )
        start += rows
    features = Features(("price", "age"), (CategoricalFeature("city", 50), CategoricalFeature("ad", 50)))
    return RankingData("log", "f" * 64, features, splits, {}, Path())


def changed(data: RankingData, split: str, **arrays: Any) -> RankingData:
    splits = {**data.splits, split: dataclasses.replace(data.split(split), **arrays)}
    return dataclasses.replace(data, splits=splits)


def with_column(data: RankingData, of: Callable[[RankingSplit], Any], kind: str, place: int) -> RankingData:
    """One column of every split replaced."""
    for name, split in data.splits.items():
        columns = np.array(getattr(split, kind))
        columns[:, place] = of(split)
        data = changed(data, name, **{kind: columns})
    return data


def leaked_number(data: RankingData) -> RankingData:
    rng = np.random.default_rng(9)
    return with_column(data, lambda s: s.labels + rng.normal(0, 0.01, s.rows), "numeric", 1)


def leaked_band(data: RankingData) -> RankingData:
    """Clicks lie in the middle of the range: no threshold tells them apart."""
    return with_column(data, lambda s: np.where(s.labels > 0, 0.0, np.resize([-1.0, 1.0], s.rows)), "numeric", 1)


def leaked_id(data: RankingData) -> RankingData:
    return with_column(data, lambda s: FIRST_ID + 2 * (np.arange(s.rows) % 20) + s.labels, "ids", 1)


def unknown(data: RankingData) -> RankingData:
    ids = np.array(data.split("test").ids)
    ids[:580, 1] = UNKNOWN_ID
    return changed(data, "test", ids=ids)


def few_clicks(data: RankingData) -> RankingData:
    labels = np.zeros(1000, np.float32)
    labels[:7] = 1
    return changed(data, "test", labels=labels)


def shifted(data: RankingData) -> RankingData:
    return changed(data, "test", labels=(np.arange(1000) % 10 > 3).astype(np.float32))


def copies(data: RankingData) -> RankingData:
    train = data.split("train")
    some = {name: getattr(train, name)[:1000] for name in ("numeric", "ids", "labels", "times")}
    return changed(data, "test", **some)


def clock(data: RankingData) -> RankingData:
    return with_column(data, lambda s: (s.times - START) / DAY, "numeric", 1)


def far_future(data: RankingData) -> RankingData:
    for name, split in data.splits.items():
        data = changed(data, name, times=split.times * 1000)  # microseconds read as milliseconds
    return data


def empty_number(data: RankingData) -> RankingData:
    return with_column(data, lambda s: 0.0, "numeric", 1)


def empty_ids(data: RankingData) -> RankingData:
    return with_column(data, lambda s: MISSING_ID, "ids", 1)


def gone(data: RankingData) -> RankingData:
    ids = np.array(data.split("test").ids)
    ids[:, 1] = MISSING_ID
    return changed(data, "test", ids=ids)


def gone_number(data: RankingData) -> RankingData:
    for name, share in (("train", 0.1), ("test", 0.8)):
        data = changed(data, name, facts={"missing_numbers": {"price": 0.0, "age": share}})
    return data


@pytest.mark.parametrize(
    ("spoil", "kind", "feature", "severe", "words"),
    [
        (leaked_number, "leak", "age", True, "AUC of 1.0000"),
        (leaked_band, "leak", "age", True, "AUC of 1.0000"),
        (leaked_id, "leak", "ad", True, "AUC of 1.0000"),
        (unknown, "unknown", "ad", True, "58% of the test rows"),
        (few_clicks, "few_clicks", "the test split", True, "7 of the rarer label among 1,000 rows"),
        (shifted, "label_shift", "the label", True, "60.00% of the test rows"),
        (copies, "copies", "whole rows", True, "100% of the test rows"),
        (clock, "clock", "age", True, "rank correlation 1.000"),
        (clock, "beyond", "age", True, "100% of the test rows"),
        (far_future, "window", "ts", True, "the train split is of 55"),
        (empty_number, "constant", "age", False, "the same value, or none"),
        (empty_ids, "constant", "ad", False, "the same value, or none"),
        (gone, "missing", "ad", True, "100% of the test rows"),
        (gone_number, "missing", "age", True, "missing in 10% of the training rows and 80% of the test rows"),
    ],
)
def test_what_is_wrong_with_a_log_is_named(
    spoil: Callable[[RankingData], RankingData], kind: str, feature: str, severe: bool, words: str
) -> None:
    doubts = [d for d in doubts_of_rows(spoil(clean()), "ts") if (d.kind, d.feature) == (kind, feature)]
    assert [d.severe for d in doubts[:1]] == [severe]
    assert words in doubts[0].found
    assert doubts_from([d.to_json() for d in doubts]) == doubts


def test_nothing_is_wrong_with_a_clean_log() -> None:
    assert doubts_of_rows(clean(), "ts") == []


def test_a_leak_among_few_clicks_is_named() -> None:
    data = clean()
    for name, split in data.splits.items():
        rows = 10 * split.rows
        more = {k: np.repeat(np.asarray(getattr(split, k)), 10, axis=0) for k in ("numeric", "ids", "times")}
        data = changed(data, name, labels=(np.arange(rows) % 100 == 0).astype(np.float32), **more)
    data = with_column(data, lambda s: np.where(s.labels > 0, 1.0 + np.arange(s.rows), 0.0), "numeric", 1)
    assert "age" in [d.feature for d in doubts_of_rows(data, "ts") if d.kind == "leak"]


def test_zeros_are_no_missing_numbers(tmp_path: Path) -> None:
    price = ["0" if i >= 48 else "" if i % 4 == 0 else "2" for i in range(60)]  # zeros in all later rows, gaps before
    table = {"label": "y", "numeric": [{"name": "x", "transform": "none"}], "categorical": ["u"]}
    data = read(tmp_path, text(sixty(x=price)), table=table)
    assert [data.split(name).facts["missing_numbers"] for name in SIZES] == [{"x": 0.25}, {"x": 0.0}, {"x": 0.0}]
    doubts = [d for d in doubts_of_rows(data) if d.kind == "missing"]
    assert [(d.feature, dict(d.values)) for d in doubts] == [("x", {"train": 0.25, "test": 0.0})]
    whole = read(tmp_path, text(sixty(x=[value or "1" for value in price])), table=table)
    assert "missing" not in [d.kind for d in doubts_of_rows(whole)]


def test_values_that_were_always_rare_are_nothing_new() -> None:
    data = with_column(clean(), lambda s: np.where(np.arange(s.rows) % 3 == 0, UNKNOWN_ID, FIRST_ID), "ids", 1)
    assert "unknown" not in [d.kind for d in doubts_of_rows(data, "ts")]


def test_rows_of_few_values_repeat_each_other_by_chance() -> None:
    data = clean()
    for name, split in data.splits.items():
        few = {"numeric": np.round(split.numeric / 2), "ids": split.ids % 3 + FIRST_ID, "times": None}
        data = changed(data, name, **few)
    assert "copies" not in [d.kind for d in doubts_of_rows(data, "ts")]


def test_doubts_of_another_version_are_left_out_and_severe_ones_come_first() -> None:
    good = Doubt("constant", "age", False, {}).to_json()
    worse = Doubt("leak", "ad", True, {"auc": 1.0}).to_json()
    damaged: list[Any] = [{}, None, {**good, "kind": "new"}, {**worse, "values": {}}, {**worse, "values": {"auc": "x"}}]
    assert [d.kind for d in ranked(doubts_from([good, *damaged, worse]))] == ["leak", "constant"]
    assert doubts_from("nothing") == []
    assert set(KINDS) > {"leak", "constant"}
