"""Numbers that float32 does not hold once they are standardised: so far are they from the mean of the training rows.

Only after the mean and the deviation are known can such a row be told from others; then it is bad as any other.
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
        DataError: There is one, and bad rows are not to be skipped.
    """
    changed = False
    with np.errstate(over="ignore"):
        reach = float(np.finfo(np.float32).max) * plan.scale - np.abs(plan.centre)
    for number, path in enumerate(shards):
        if not (np.asarray(outlines[number]["largest"]) > reach).any():
            continue
        shard = RawShard.load(path)
        far = too_far(shard.numeric, plan)
        rows: NDArray[np.bool_] = np.logical_or.reduce(far, axis=0)
        if not rows.any():
            continue
        names = [plan.features.numeric[place] for place in far[:, rows].argmax(axis=0)]
        if settings.bad_rows == "error":
            raise DataError(
                f"{_place(shard, int(rows.argmax()))}, column {short(repr(names[0]), 60)}: found {FAR}. Mend the "
                "file, give the column transform: log, or let such rows be left out: task.data.bad_rows=skip."
            )
        bad = Counter(shard.facts["bad"]) + Counter(f"{name}: too far from the mean" for name in names)
        shard = shard.keep(~rows, bad=dict(bad))
        shard.save(path)
        outlines[number] = {**shard.facts, "rows": shard.rows}
        changed = True
    return changed


def _place(shard: RawShard, row: int) -> str:
    """Where a row of a shard stands; near it where the file has rows between that are not in the shard."""
    first, last = shard.facts["lines"]
    exactly = last - first + 1 == shard.rows
    return f"{short(safe(shard.facts['file']), 120)}, {'row' if exactly else 'near row'} {first + row}"
