"""Which split a row belongs to, and its place there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankitect.data.ranking.keys import mix, uniform
from rankitect.data.ranking.raw import RawShard
from rankitect.data.ranking.schema import SPLITS, DataSettings, TableSchema
from rankitect.errors import DataError

__all__ = ["Assignment", "assign", "first_backward", "refuse_disorder", "split_kind"]


@dataclass(frozen=True, eq=False)
class Assignment:
    """The rows of all shards, divided.

    Attributes:
        starts: The first row of each shard, and the end, [shards + 1].
        sizes: Rows of each split.
        cuts: Where train and validation end, if rows are divided by their numbers; `codes` is None then.
        codes: The split of each row, [rows] uint8.
        places: The place of each row in its split, [rows]; None where rows keep their order.
        before: Rows of each split before each shard, [shards + 1, 3].
    """

    starts: NDArray[np.int64]
    sizes: tuple[int, int, int]
    cuts: tuple[int, int] | None
    codes: NDArray[np.uint8] | None
    places: NDArray[np.int64] | None
    before: NDArray[np.int64]

    def of(self, shard: int) -> NDArray[np.uint8]:
        """The split of each row of a shard, as its place in `SPLITS`."""
        start, stop = int(self.starts[shard]), int(self.starts[shard + 1])
        return _by_row(start, stop, self.cuts) if self.cuts is not None else self._codes()[start:stop]

    def target(self, shard: int, split: int, rows: NDArray[np.int64]) -> slice | NDArray[np.int64]:
        """Where rows of a shard go in their split."""
        if self.places is None:
            first = int(self.before[shard, split])
            return slice(first, first + len(rows))
        return self.places[int(self.starts[shard]) + rows]

    def _codes(self) -> NDArray[np.uint8]:
        assert self.codes is not None
        return self.codes


def split_kind(settings: DataSettings, schema: TableSchema) -> str:
    """The division that `auto` stands for."""
    if settings.split != "auto":
        return settings.split
    if settings.format in ("movielens", "criteo"):
        return {"movielens": "user_time", "criteo": "file"}[settings.format]
    return "hash" if schema.timestamp is None else "time"


def assign(
    settings: DataSettings, schema: TableSchema, shards: Sequence[Path], outlines: Sequence[Mapping[str, Any]]
) -> Assignment:
    """Divides the rows.

    File order takes no memory; by user or by chance it takes a byte a row; time that is out of order, and time within
    users, take 25 to 40 bytes a row.

    Raises:
        DataError: If a column is missing for the division, or a split is empty.
    """
    kind = split_kind(settings, schema)
    starts = np.concatenate([[0], np.cumsum([facts["rows"] for facts in outlines])]).astype(np.int64)
    total = int(starts[-1])
    if kind in ("time", "user_time") and schema.timestamp is None:
        raise DataError(f"Split {kind} needs timestamps, and this data has none: choose another task.data.split.")
    if kind in ("user", "user_time") and schema.group is None:
        raise DataError(f"Split {kind} needs a user column, and this data has none: choose another task.data.split.")
    sort = first_backward(outlines) is not None
    # The usual case needs no array of a code a row: two row numbers say where the splits end.
    if kind in ("file", "time") and not sort:
        return _in_order(starts, _cuts(total, settings))
    times = np.concatenate([RawShard.field(path, "times") for path in shards]) if sort or kind == "user_time" else None
    order = np.argsort(times, kind="stable") if sort and times is not None else np.arange(total)
    codes = np.empty(total, dtype=np.uint8)
    if kind == "file":  # divided as the file goes, read in the order of time
        codes = _by_row(0, total, _cuts(total, settings))
    elif kind == "time":
        codes[order] = _by_row(0, total, _cuts(total, settings))
    elif kind == "hash":
        codes = _by_share(uniform(np.arange(total, dtype=np.uint64), settings.split_seed), settings)
    else:
        groups = np.concatenate([RawShard.field(path, "groups") for path in shards])
        if kind == "user":
            # A row without a user is alone: all of them together would be one user, larger than all others.
            groups = np.where(groups == 0, mix(~np.arange(total, dtype=np.uint64)), groups)
            codes = _by_share(uniform(groups, settings.split_seed), settings)
        else:
            # Within users, rows without one are divided by time among themselves, so that each split has its share.
            codes = _within(groups, order, settings)
    return _divided(starts, codes, order if sort else None)


def refuse_disorder(settings: DataSettings, schema: TableSchema, outlines: Sequence[Mapping[str, Any]]) -> None:
    """Raise where rows are out of order and may not be.

    Raises:
        DataError: They are; names the first row.
    """
    backward = first_backward(outlines)
    if backward is not None and settings.out_of_order == "error":
        assert schema.timestamp is not None
        raise DataError(
            f"{backward[0]}, row {backward[1]}, column {schema.timestamp.name!r}: earlier than the row before it. Sort "
            "the file by time, or let it be done: task.data.out_of_order=sort."
        )


def first_backward(outlines: Sequence[Mapping[str, Any]]) -> tuple[str, int] | None:
    """File and row of the first timestamp that is earlier than the one before it; None without."""
    last: int | None = None
    for facts in outlines:
        if facts["times"] is None:
            continue
        first, end = facts["times"]
        if last is not None and first < last:
            return facts["file"], facts["lines"][0]
        if facts["backward"] is not None:
            return facts["file"], facts["backward"]
        last = end
    return None


def _cuts(rows: int, settings: DataSettings) -> tuple[int, int]:
    shares = np.cumsum(settings.shares) / sum(settings.shares)
    return round(rows * shares[0]), round(rows * shares[1])


def _by_row(start: int, stop: int, cuts: tuple[int, int]) -> NDArray[np.uint8]:
    rows = np.arange(start, stop)
    return ((rows >= cuts[0]).astype(np.uint8) + (rows >= cuts[1])).astype(np.uint8)


def _by_share(chance: NDArray[np.float64], settings: DataSettings) -> NDArray[np.uint8]:
    shares = np.cumsum(settings.shares) / sum(settings.shares)
    return ((chance >= shares[0]).astype(np.uint8) + (chance >= shares[1])).astype(np.uint8)


def _within(groups: NDArray[np.uint64], order: NDArray[np.int64], settings: DataSettings) -> NDArray[np.uint8]:
    """Divide rows by their place among the rows of the same user, in the order of time."""
    by_user = order[np.argsort(groups[order], kind="stable")]  # stable: within a user the order of time stays
    sorted_groups = groups[by_user]
    first = np.flatnonzero(np.concatenate([[True], sorted_groups[1:] != sorted_groups[:-1]]))
    counts = np.diff(np.concatenate([first, [len(groups)]]))
    place = np.arange(len(groups)) - np.repeat(first, counts)
    codes = np.empty(len(groups), dtype=np.uint8)
    codes[by_user] = _by_share((place + 0.5) / np.repeat(counts, counts), settings)
    return codes


def _in_order(starts: NDArray[np.int64], cuts: tuple[int, int]) -> Assignment:
    edges = np.array([0, cuts[0], cuts[1], starts[-1]])
    before = np.clip(starts[:, None] - edges[None, :3], 0, np.diff(edges)[None, :])
    return Assignment(starts, _checked(np.diff(edges), starts[-1]), cuts, None, None, before)


def _divided(starts: NDArray[np.int64], codes: NDArray[np.uint8], order: NDArray[np.int64] | None) -> Assignment:
    sizes = np.bincount(codes, minlength=3)
    places = None
    if order is not None:
        places = np.empty(len(codes), dtype=np.int64)
        sorted_codes = codes[order]
        for split in range(3):
            places[order[sorted_codes == split]] = np.arange(sizes[split])
    counts = [np.bincount(codes[a:b], minlength=3) for a, b in pairwise(starts.tolist())]
    before = np.concatenate([np.zeros((1, 3), np.int64), np.cumsum(np.array(counts).reshape(-1, 3), axis=0)])
    return Assignment(starts, _checked(sizes, len(codes)), None, codes, places, before)


def _checked(sizes: NDArray[np.int64], rows: int) -> tuple[int, int, int]:
    for name, size in zip(SPLITS, sizes, strict=True):
        if not size:
            raise DataError(
                f"Split {name} is empty: the data has {rows:,} usable rows. Give more rows, other task.data.shares, or "
                "another task.data.split (with few users, the split by user may give one split none)."
            )
    return int(sizes[0]), int(sizes[1]), int(sizes[2])
