"""What a report needs of the test rows: labels, users, days and slices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rankitect.data.ranking.features import UNKNOWN_ID
from rankitect.errors import ConfigError
from rankitect.production.change import slicing_of
from rankitect.production.evidence import ROWS, Slicing, save_rows
from rankitect.tasks.ranking.doubts import doubts_of_rows

if TYPE_CHECKING:
    from rankitect.data.ranking.dataset import RankingData, RankingSplit

__all__ = ["check_slices", "record_rows", "slicings_of"]

PARTS = 12
"""Parts of a division at most; the rarest are one."""
SEEN = ((1, "1 to 9 training rows"), (10, "10 to 99 training rows"), (100, "100 training rows or more"))
NEVER = "not in training rows"
ALONE = "without a user"
USERS = "user"


def record_rows(
    data: RankingData, folder: Path, slices: Sequence[str] | None, label: str, timestamp: str = "the timestamp"
) -> None:
    """Write `rows.safetensors` into a run folder.

    Args:
        data: The table.
        folder: The run folder.
        slices: Categorical features to divide the test rows by, and "user"; all when None.
        label: Name of what is predicted.
        timestamp: Name of the column of times.

    Raises:
        ConfigError: There is no such feature.
        OSError: The disk is full.
    """
    test, train = data.split("test"), data.split("train")
    facts: dict[str, Any] = {
        "data": data.name,
        "fingerprint": data.fingerprint,
        "label": label,
        "splits": {name: {"rows": s.rows, "base_rate": s.facts.get("base_rate")} for name, s in data.splits.items()},
        "division": data.facts.get("split"),
        "doubts": [doubt.to_json() for doubt in doubts_of_rows(data, timestamp)],
        **_odd_rows(data),
    }
    if test.times is not None and train.times is not None:
        facts["train_window"], facts["test_window"] = _window(train.times), _window(test.times)
    save_rows(
        folder / ROWS,
        test.labels,
        weights=test.weights,
        groups=test.groups,
        times=test.times,
        slicings=slicings_of(data, slices),
        facts=facts,
        before=_before(data) if test.groups is not None else None,
    )


def check_slices(data: RankingData, slices: Sequence[str] | None) -> list[str]:
    """What test rows can be divided by.

    Raises:
        ConfigError: Something else was asked for.
    """
    names = [f.name for f in data.features.categorical]
    known = [*([USERS] if data.split("test").groups is not None and USERS not in names else []), *names]
    for name in slices or ():
        if name not in known:
            raise ConfigError(f"report.slices: there is no categorical feature '{name}': {', '.join(known)}.")
    return known


def slicings_of(data: RankingData, slices: Sequence[str] | None = None) -> list[Slicing]:
    """Divisions of the test rows: by value where a feature has few, else by how often training rows have the value.

    Args:
        data: The table.
        slices: Features, and "user"; all when None.

    Raises:
        ConfigError: There is no such feature.
    """
    known = check_slices(data, slices)
    names = [f.name for f in data.features.categorical]
    firsts = np.cumsum([0, *data.features.slots])[:-1]
    train, test = data.split("train"), data.split("test")
    slicings = []
    if USERS in known and USERS not in names and (slices is None or USERS in slices):
        assert train.groups is not None
        assert test.groups is not None
        slicings.append(_by_users(train.groups, test.groups))
    for feature, first in zip(data.features.categorical, firsts, strict=True):
        if feature.slots > 1 or (slices is not None and feature.name not in slices):
            continue
        ids = np.asarray(test.ids[:, first], np.int64)
        texts = data.values.get(feature.name)
        if texts:
            parts = [NEVER, "missing", *(str(text) for text in texts)]
            slicings.append(slicing_of(feature.name, np.minimum(ids, len(parts) - 1), parts, PARTS))
        else:
            counts = np.bincount(np.asarray(train.ids[:, first]), minlength=feature.rows)
            counts[UNKNOWN_ID] = 0
            slicings.append(_by_counts(feature.name, counts[ids]))
    return [slicing for slicing in slicings if slicing is not None]


def _odd_rows(data: RankingData) -> dict[str, str]:
    """What a report says of rows that were left out, and of rows without a user."""
    told = {}
    if bad := data.facts.get("bad_rows"):
        kinds = "; ".join(f"{kind}: {count:,}" for kind, count in list(bad.items())[:3])
        told["left_out"] = f"{sum(bad.values()):,} rows that cannot be read ({kinds[:200]})"
    alone = {name: split.facts.get("without_group") for name, split in data.splits.items()}
    if any(alone.values()):
        counts = ", ".join(f"{alone[name]:,} of {split.rows:,} {name}" for name, split in data.splits.items())
        told["rows_without_a_user"] = f"{counts}; each counts as a unit of its own"
    return told


def _by_users(train: NDArray[np.int64], test: NDArray[np.int64]) -> Slicing | None:
    users, counts = np.unique(train, return_counts=True)
    at = np.minimum(np.searchsorted(users, test), len(users) - 1)
    return _by_counts(USERS, np.where(users[at] == test, counts[at], 0), alone=test < 0)


def _by_counts(name: str, counts: NDArray[np.int64], alone: NDArray[np.bool_] | None = None) -> Slicing | None:
    """By how many training rows have the value of each row; rows without a user are a part of their own."""
    codes = np.searchsorted([low for low, _ in SEEN], counts, side="right")
    parts = [NEVER, *(text for _, text in SEEN)]
    if alone is not None and alone.any():
        codes, parts = np.where(alone, len(parts), codes), [*parts, ALONE]
    return slicing_of(name, codes, parts, PARTS)


def _before(data: RankingData) -> dict[int, tuple[int, int]]:
    """Rows and clicks of each user before the test; a row without a user has none before it."""
    splits = [data.split(name) for name in ("train", "validation")]
    groups = np.concatenate([_groups(s) for s in splits])
    known = groups >= 0
    users, codes = np.unique(groups[known], return_inverse=True)
    labels = np.concatenate([np.asarray(s.labels) for s in splits])[known]
    counts = np.concatenate([np.ones(s.rows) if s.weights is None else np.asarray(s.weights) for s in splits])[known]
    rows, clicks = np.bincount(codes, weights=counts), np.bincount(codes, weights=labels * counts)
    return {int(u): (round(n), round(c)) for u, n, c in zip(users, rows, clicks, strict=True)}


def _groups(split: RankingSplit) -> NDArray[np.int64]:
    assert split.groups is not None
    return np.asarray(split.groups)


def _window(times: NDArray[np.int64]) -> list[str]:
    ends = np.asarray([times.min(), times.max()], np.int64).astype("datetime64[us]")
    return [str(end)[:16].replace("T", " ") for end in np.datetime_as_string(ends, unit="m")]
