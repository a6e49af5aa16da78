"""Numbers that cannot stand beside the others in float32, though each can alone.

Two kinds of them are told only once the training rows are known, and then such a row is bad as any other. One is so far
from the mean that float32 does not hold it, in standard deviations. The other is part of the mean and the deviation
itself, and so large that all other numbers, divided by them, become one. Whether numbers stay apart is judged by a
sample of the training rows: two of them that differ must differ in float32 too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankitect.data.ranking.encoding import EncodingPlan
from rankitect.data.ranking.raw import RawShard
from rankitect.data.ranking.schema import DataSettings
from rankitect.errors import DataError, safe, short

__all__ = ["FAR", "leave_out_far", "too_far"]

FAR = "a number so far from the mean of the training rows, in their standard deviations, that float32 does not hold it"
_LONE = "a number so far from the others that float32 does not hold the differences between these"
_APART = 0.99
"""Of the pairs of different numbers in a sample, how many must be different in float32."""
_REACH = 2.0**16
"""How far from the median, in ranges of the middle nine tenths, a number may be where others are lost beside it."""
_ROUNDS = 4  # of pairs


def too_far(numeric: NDArray[np.float64], plan: EncodingPlan) -> NDArray[np.bool_]:
    """Which numbers float32 does not hold once they are standardised.

    Args:
        numeric: As `RawShard.numeric`, [N, rows].
        plan: With the mean and deviation of each feature.

    Returns:
        [N, rows].
    """
    with np.errstate(over="ignore"):
        return np.isinf(((numeric - plan.centre[:, None]) / plan.scale[:, None]).astype(np.float32))


def leave_out_far(
    shards: Sequence[Path], outlines: list[dict[str, Any]], plan: EncodingPlan, settings: DataSettings
) -> bool:
    """Leave rows with such a number out of their shards, and count them as bad.

    Args:
        shards: The raw shards.
        outlines: The facts of each, which are updated.
        plan: What the training rows gave.
        settings: Say whether bad rows may be left out.

    Returns:
        Whether there was one: then what training rows give must be counted anew.

    Raises:
        DataError: There is one, and bad rows are not to be skipped; or the numbers of a feature do not stay apart,
            and no single ones are the reason.
    """
    low, high = _bounds(plan)
    changed = np.zeros(len(low), dtype=np.bool_)
    with np.errstate(over="ignore"):
        reach = float(np.finfo(np.float32).max) * plan.scale - np.abs(plan.centre)
    for number, path in enumerate(shards):
        if not (np.asarray(outlines[number]["largest"]) > np.minimum(reach, np.minimum(-low, high))).any():
            continue
        shard = RawShard.load(path)
        lone = (shard.numeric < low[:, None]) | (shard.numeric > high[:, None])
        far = lone | too_far(shard.numeric, plan)
        rows: NDArray[np.bool_] = np.logical_or.reduce(far, axis=0)
        if not rows.any():
            continue
        columns = far[:, rows].argmax(axis=0)
        if settings.bad_rows == "error":
            row, column = int(rows.argmax()), int(columns[0])
            raise DataError(
                f"{_place(shard, row)}, column {short(repr(plan.features.numeric[column]), 60)}: found "
                f"{_LONE if lone[column, row] else FAR}. Mend the file, give the column transform: log, or let such "
                "rows be left out: task.data.bad_rows=skip."
            )
        names = [plan.features.numeric[place] for place in columns]
        bad = Counter(shard.facts["bad"]) + Counter(f"{name}: too far from the mean" for name in names)
        shard = shard.keep(~rows, bad=dict(bad), **_lines(shard, ~rows))
        shard.save(path)
        outlines[number] = {**shard.facts, "rows": shard.rows}
        changed |= far.any(axis=1)
    lost = np.isfinite(high) & ~changed
    if lost.any():
        name = plan.features.numeric[int(lost.argmax())]
        raise DataError(
            f"Column {short(repr(name), 60)}: float32 does not hold the differences between its numbers, so "
            "that a model would see many of them as one. Give the column transform: standard (the default) or log, or "
            "subtract in the file what all of them have in common."
        )
    return bool(changed.any())


def _bounds(plan: EncodingPlan) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The least and the largest number that may stand beside the others, [N] each; infinite where all stay apart."""
    count = len(plan.features.numeric)
    low, high = np.full(count, -np.inf), np.full(count, np.inf)
    for place, sample in enumerate(plan.sample):
        known = sample[~np.isnan(sample)]
        if not _stay_apart(known, plan.centre[place], plan.scale[place]):
            least, middle, most = np.quantile(known, [0.05, 0.5, 0.95])
            spread = most - least or np.abs(known[known != middle] - middle).min()
            low[place], high[place] = middle - _REACH * spread, middle + _REACH * spread
    return low, high


def _stay_apart(known: NDArray[np.float64], centre: float, scale: float) -> bool:
    """Whether numbers that differ do so once they are standardised and in float32."""
    with np.errstate(over="ignore"):
        seen = ((known - centre) / scale).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(known))
    different = kept = 0
    for step in range(1, _ROUNDS + 1):
        other = np.roll(order, step)
        differ = known[order] != known[other]
        different += int(differ.sum())
        kept += int((differ & (seen[order] != seen[other])).sum())
    return kept >= _APART * different


def _lines(shard: RawShard, kept: NDArray[np.bool_]) -> dict[str, Any]:
    """What a shard's facts say of lines, of some of its rows; near them where lines between are no rows of it."""
    rows = np.flatnonzero(kept)
    if not len(rows):
        return {"backward": None}
    first = shard.facts["lines"][0]
    backward = None
    if shard.times is not None and len(back := np.flatnonzero(np.diff(shard.times[rows]) < 0)):
        backward = first + int(rows[back[0] + 1])
    return {"lines": [first + int(rows[0]), first + int(rows[-1])], "backward": backward}


def _place(shard: RawShard, row: int) -> str:
    """Where a row of a shard stands; near it where the file has rows between that are not in the shard."""
    first, last = shard.facts["lines"]
    exactly = last - first + 1 == shard.rows
    return f"{short(safe(shard.facts['file']), 120)}, {'row' if exactly else 'near row'} {first + row}"
