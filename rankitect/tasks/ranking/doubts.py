"""What about a click log a reader must know before any number: leaks, unknown ids, copies, times, too few clicks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rankitect.data.ranking.features import MISSING_ID, PADDING, UNKNOWN_ID
from rankitect.data.ranking.times import END, FIRST
from rankitect.production.doubts import FEW_CLICKS, Doubt

if TYPE_CHECKING:
    from rankitect.data.ranking.dataset import RankingData, RankingSplit

__all__ = ["doubts_of_rows", "impossible"]

SAMPLE = 200_000
"""Rows of a split that are looked at, evenly spread."""
COPIED_ROWS = 10_000_000
"""Training rows up to which copies are looked for."""
LEAK, SUSPECT = 0.98, 0.95
"""AUC of a single feature from which on it gives the label away, and from which on it is worth a look."""
SHARES = {"unknown": (0.3, 0.1), "missing": (0.5, 0.2), "beyond": (0.5, 0.05), "copies": (0.1, 0.02)}
"""Shares of rows from which on a doubt is severe, and from which on it is raised."""
CLOCK = 0.99
"""Rank correlation of a feature with the rows' time from which on it is a clock."""
_PRIOR = 10.0
"""Rows of the average label that the rate of each value is smoothed by."""
_BINS = 64


def doubts_of_rows(data: RankingData, timestamp: str = "the timestamp") -> list[Doubt]:
    """Everything doubtful about a table's rows and splits; deterministic.

    Args:
        data: The table.
        timestamp: Name of the column of times.
    """
    train, test = data.split("train"), data.split("test")
    return [
        *_clicks(data),
        *_windows(data, timestamp),
        *_label_shift(train, test),
        *_columns(data, _Sampled(train), _Sampled(test)),
        *_unknown(data),
        *_copies(train, test),
    ]


def impossible(low: int, high: int) -> bool:
    """Whether times are outside of the years that a log can be of.

    Args:
        low: The earliest, microseconds since 1970.
        high: The latest.
    """
    return low < FIRST or high >= END


def _graded(kind: str, feature: str, amount: float, **values: float) -> Iterator[Doubt]:
    """A doubt that depends on a share of rows."""
    severe, raised = SHARES[kind]
    if amount >= raised:
        yield Doubt(kind, feature, amount >= severe, {k: round(float(v), 6) for k, v in values.items()})


# --- labels and times -------------------------------------------------------------------------------------------------
def _clicks(data: RankingData) -> Iterator[Doubt]:
    for name in ("validation", "test"):
        labels = np.asarray(data.split(name).labels)
        clicks = round(float(labels.sum()))  # labels may be probabilities
        rarer = min(clicks, len(labels) - clicks)
        if rarer < FEW_CLICKS:
            yield Doubt("few_clicks", f"the {name} split", name == "test", {
                "split": name, "clicks": rarer, "rows": len(labels),
            })  # fmt: skip


def _windows(data: RankingData, timestamp: str) -> Iterator[Doubt]:
    for name, split in data.splits.items():
        if split.times is None or not split.rows:
            continue
        low, high = int(np.min(split.times)), int(np.max(split.times))
        if impossible(low, high):
            ends = " to ".join(
                str(np.int64(end).astype("datetime64[us]"))[:16].replace("T", " ") for end in (low, high)
            )
            yield Doubt("window", timestamp, True, {"window": f"the {name} split is of {ends}"})


def _label_shift(train: RankingSplit, test: RankingSplit) -> Iterator[Doubt]:
    rates = [float(np.mean(split.labels)) for split in (train, test)]
    pooled = float(np.average(rates, weights=[train.rows, test.rows]))
    error = (pooled * (1 - pooled) * (1 / train.rows + 1 / test.rows)) ** 0.5
    ratio = rates[1] / rates[0] if rates[0] else 1.0
    apart = max(ratio, 1 / ratio if ratio else np.inf)
    if error and abs(rates[1] - rates[0]) > 4 * error and apart > 1.25:
        values = {"train": round(rates[0], 6), "test": round(rates[1], 6)}
        yield Doubt("label_shift", "the label", apart > 2, values)


# --- columns ----------------------------------------------------------------------------------------------------------
class _Sampled:
    """Some rows of a split, evenly spread.

    Args:
        split: The split.
    """

    def __init__(self, split: RankingSplit) -> None:
        step = slice(None, None, max(1, -(-split.rows // SAMPLE)))
        self.numeric, self.ids = np.asarray(split.numeric[step]), np.asarray(split.ids[step])
        self.labels = np.asarray(split.labels[step]) > 0.5
        self.times = None if split.times is None else np.asarray(split.times[step])


def _columns(data: RankingData, train: _Sampled, test: _Sampled) -> Iterator[Doubt]:
    for place, name in enumerate(data.features.numeric):
        yield from _numeric(name, train.numeric[:, place], test.numeric[:, place], train, test)
        # A missing number is encoded as the mean, which others may have as well: only who read the rows can count it.
        gone = [data.split(split).facts.get("missing_numbers") for split in ("train", "test")]
        if gone[0] is not None and gone[1] is not None:
            yield from _missing(name, gone[0][name], gone[1][name])
    first = 0
    for feature in data.features.categorical:
        columns = slice(first, first + feature.slots)
        first += feature.slots
        yield from _categorical(feature.name, feature.rows, train.ids[:, columns], test.ids[:, columns], train, test)


def _numeric(
    name: str, values: NDArray[np.float32], tested: NDArray[np.float32], train: _Sampled, test: _Sampled
) -> Iterator[Doubt]:
    low, high = values.min(), values.max()
    if low == high:
        yield Doubt("constant", name, False)
        return
    edges = np.unique(np.quantile(values, np.linspace(0, 1, _BINS + 1)[1:-1]))
    # An edge is a code of its own: where few rows are clicks, one value may be every edge, and clicks lie beside it.
    codes, others = (
        (np.searchsorted(edges, x, side="left") + np.searchsorted(edges, x, side="right"))[:, None]
        for x in (values, tested)
    )
    yield from _leak(name, 2 * len(edges) + 1, codes, others, train, test)
    beyond = float(np.mean((tested < low) | (tested > high)))
    yield from _graded("beyond", name, beyond, share=beyond)
    if test.times is not None and len(np.unique(test.times)) > FEW_CLICKS:
        from scipy import stats

        correlation = float(stats.spearmanr(tested, test.times).statistic) if tested.min() < tested.max() else 0.0
        if abs(correlation) >= CLOCK:
            yield Doubt("clock", name, True, {"correlation": round(correlation, 6)})


def _categorical(
    name: str, rows: int, ids: NDArray[np.int32], tested: NDArray[np.int32], train: _Sampled, test: _Sampled
) -> Iterator[Doubt]:
    if ids.shape[1] == 1 and ids.min() == ids.max():
        yield Doubt("constant", name, False)
        return
    yield from _leak(name, rows, ids, tested, train, test)
    yield from _missing(name, *(float(np.mean(x[:, 0] == MISSING_ID)) for x in (ids, tested)))


def _missing(name: str, train: float, test: float) -> Iterator[Doubt]:
    """A doubt where the share of rows without a value changes."""
    yield from _graded("missing", name, abs(test - train), train=train, test=test)


def _leak(
    name: str, rows: int, codes: NDArray[np.integer], tested: NDArray[np.integer], train: _Sampled, test: _Sampled
) -> Iterator[Doubt]:
    """A doubt where the rate of each value among training rows tells the labels of the test rows apart."""
    from rankitect.metrics.ranking_metrics import roc_auc

    used = codes != PADDING
    repeated = np.repeat(train.labels[:, None], codes.shape[1], 1)
    counts = np.bincount(codes[used], minlength=rows)
    clicks = np.bincount(codes[used], weights=repeated[used], minlength=rows)
    rates = (clicks + _PRIOR * train.labels.mean()) / (counts + _PRIOR)
    there = tested != PADDING
    scores = np.where(there, rates[np.maximum(tested, 0)], 0.0).sum(1) / np.maximum(there.sum(1), 1)
    rarer = min(int(test.labels.sum()), int((~test.labels).sum()))
    if rarer < 2 or scores.min() == scores.max():
        return
    auc = roc_auc(scores, test.labels, ~test.labels)
    # Among few clicks a feature may order all rightly by luck: its error is about that of so many.
    sure = auc - 1.0 / rarer if rarer < FEW_CLICKS else auc
    if sure >= SUSPECT:
        yield Doubt("leak", name, sure >= LEAK, {"auc": round(auc, 6)})


def _unknown(data: RankingData) -> Iterator[Doubt]:
    """Shares of rows with a value that training rows do not have."""
    firsts = np.cumsum([0, *data.features.slots])[:-1]
    for feature, first in zip(data.features.categorical, firsts, strict=True):
        shares = {
            name: float(np.mean(np.asarray(data.split(name).ids[:, first]) == UNKNOWN_ID))
            for name in ("train", "validation", "test")
        }
        # Values that are too rare for an id of their own are unknown among training rows as well; that is no change.
        beyond = shares["test"] - shares["train"]
        yield from _graded("unknown", feature.name, beyond, share=shares["test"], **shares)


# --- copies -----------------------------------------------------------------------------------------------------------
def _copies(train: RankingSplit, test: RankingSplit) -> Iterator[Doubt]:
    if train.rows > COPIED_ROWS:
        return
    known = _hashes(train)
    share = float(np.isin(_hashes(test), known).mean())
    # Rows of few different values repeat each other by chance, training rows as often as others.
    _, counts = np.unique(known, return_counts=True)
    by_chance = float(counts[counts > 1].sum() / len(known))
    yield from _graded("copies", "whole rows", share - by_chance, share=share)


def _hashes(split: RankingSplit) -> NDArray[np.uint64]:
    """One number for each row's values, label, time and user; equal for equal rows, and for others by no chance."""
    columns = [*np.ascontiguousarray(split.numeric).view(np.uint32).T, *np.asarray(split.ids).astype(np.uint32).T]
    columns.append(np.asarray(split.labels, np.float32).view(np.uint32))
    groups = None if split.groups is None else np.maximum(split.groups, -1)  # rows without a user may be copies too
    columns += [np.asarray(x).view(np.uint64) for x in (split.times, groups) if x is not None]
    mixers = np.random.default_rng(0).integers(1, 1 << 63, len(columns), np.int64).astype(np.uint64) | np.uint64(1)
    total = np.zeros(split.rows, np.uint64)
    for column, mixer in zip(columns, mixers, strict=True):
        total = (total ^ column.astype(np.uint64)) * mixer  # wraps around, as is meant
        total ^= total >> np.uint64(29)
    return total
