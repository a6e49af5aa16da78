"""Batches: a function of (split, seed, epoch, step), so that training goes on where it was."""

from __future__ import annotations

import threading
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rankitect.data.ranking import CategoricalFeature, Features, RankingBatch, RankingSplit
from rankitect.errors import DataError


def split(rows: int = 103) -> RankingSplit:
    rng = np.random.default_rng(0)
    return RankingSplit(
        "train",
        rng.normal(size=(rows, 2)).astype(np.float32),
        np.stack([np.arange(rows), rng.integers(-1, 5, rows)], axis=1).astype(np.int32),
        (np.arange(rows) % 3 == 0).astype(np.float32),
        None,
        np.arange(rows, dtype=np.int64) // 4,
    )


def equal(one: RankingBatch, other: RankingBatch) -> bool:
    assert one.group is not None
    assert other.group is not None
    pairs = ((one.numeric, other.numeric), (one.ids, other.ids), (one.label, other.label), (one.group, other.group))
    return one.row == other.row and all(torch.equal(a, b) for a, b in pairs)


@given(rows=st.integers(1, 300), batch=st.integers(1, 64), seed=st.none() | st.integers(0, 2**32 - 1))
def test_an_epoch_has_each_row_once(rows: int, batch: int, seed: int | None) -> None:
    part = split(rows)
    found = list(part.batches(batch, seed, epoch=3))
    assert [len(each) for each in found[:-1]] == [batch] * (part.steps(batch) - 1)
    order = torch.cat([each.ids[:, 0] for each in found])
    assert sorted(order.tolist()) == list(range(rows))
    assert torch.equal(torch.cat([each.label for each in found]), (order % 3 == 0).float())
    if seed is None:
        assert order.tolist() == list(range(rows))


@given(start=st.integers(0, 11), seed=st.none() | st.integers(0, 9), epoch=st.integers(0, 3))
def test_a_later_start_gives_the_same_batches(start: int, seed: int | None, epoch: int) -> None:
    whole = list(split().batches(10, seed, epoch))
    later = list(split().batches(10, seed, epoch, start_step=start))
    assert len(later) == len(whole) - start
    assert all(equal(a, b) for a, b in zip(whole[start:], later, strict=True))
    assert all(equal(split().batch(start + i, 10, seed, epoch), each) for i, each in enumerate(later))


def test_seeds_and_epochs_differ() -> None:
    part = split()
    orders = {tuple(part.batch(0, 50, seed, epoch).ids[:, 0].tolist()) for seed in (1, 2) for epoch in (0, 1)}
    assert len(orders) == 4


def test_types_and_own_memory() -> None:
    part = split()
    for seed in (None, 1):
        batch = part.batch(0, 7, seed)
        kinds = [batch.numeric.dtype, batch.ids.dtype, batch.label.dtype, batch.group.dtype]  # type: ignore[union-attr]
        assert kinds == [torch.float32, torch.int64, torch.float32, torch.int64]
        assert batch.inputs == (batch.numeric, batch.ids)
        batch.numeric.zero_()
    assert part.numeric.any(axis=1).all()


def test_a_reader_that_is_left_ends_its_thread() -> None:
    before = threading.active_count()
    batches = split(1000).batches(2)
    assert len(list(islice(batches, 3))) == 3
    batches.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_an_error_of_the_reading_thread_is_raised() -> None:
    part = split()
    part.ids = part.ids[:50]  # as if the file had been cut
    with pytest.raises(IndexError, match="out of bounds for axis 0 with size 50"):
        list(part.batches(10, seed=1))


def test_no_such_batch() -> None:
    with pytest.raises(DataError, match="11 batches of 10; there is no step 11"):
        split().batch(11, 10)
    with pytest.raises(DataError, match="at least one row"):
        split().steps(0)


def test_features_survive_json(tmp_path: Path) -> None:
    features = Features(("a",), (CategoricalFeature("b", 5), CategoricalFeature("c", 7, 3)))
    assert Features.from_json(features.to_json()) == features
    assert (features.rows, features.slots) == ((5, 7), (1, 3))
    with pytest.raises(DataError, match="found twice: b"):
        Features((), (CategoricalFeature("b", 5), CategoricalFeature("b", 7)))
    with pytest.raises(DataError, match="not a description"):
        Features.from_json({"numeric": []})
