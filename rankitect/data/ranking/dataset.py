"""An encoded table on disk, and its batches: memory-mapped, the same for the same (split, seed, epoch, step)."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rankitect.data.ranking.batch import RankingBatch
from rankitect.data.ranking.features import Features
from rankitect.errors import DataError

if TYPE_CHECKING:
    import torch

__all__ = ["RankingData", "RankingSplit"]

_AHEAD = 4  # batches that the reading thread is ahead


@dataclass(eq=False)
class RankingSplit:
    """The rows of one split, in the order of time or of the file.

    Attributes:
        name: `train`, `validation` or `test`.
        numeric: [rows, N] float32, memory-mapped and read-only, as all of these.
        ids: [rows, S] int32.
        labels: 0 or 1, [rows] float32.
        weights: [rows] float32, or None.
        groups: equal for the rows of one user, [rows] int64, or None; a row without a user has a negative number of
            its own.
        truth: Probability of label 1, [rows] float32; of generated data only.
        times: Microseconds since 1970, UTC, [rows] int64, or None.
        facts: `base_rate`, the share of `unknown` values by categorical feature and that of `missing_numbers` by
            numeric feature, the rows `without_group`, and of generated data `bayes_ne`.
        scores: What production answered for each row, [rows] float32, or None.
    """

    name: str
    numeric: NDArray[np.float32]
    ids: NDArray[np.int32]
    labels: NDArray[np.float32]
    weights: NDArray[np.float32] | None
    groups: NDArray[np.int64] | None
    truth: NDArray[np.float32] | None = None
    times: NDArray[np.int64] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    scores: NDArray[np.float32] | None = None
    _order: tuple[tuple[int, int], NDArray[Any]] | None = field(default=None, init=False, repr=False)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.labels.shape[0])

    def __len__(self) -> int:
        return self.rows

    def steps(self, batch: int) -> int:
        """Number of batches of an epoch; the last may be smaller.

        Raises:
            DataError: A batch would have no rows.
        """
        if batch < 1:
            raise DataError(f"A batch needs at least one row; found {batch}.")
        return -(-self.rows // batch)

    def batch(self, step: int, batch: int, seed: int | None = None, epoch: int = 0) -> RankingBatch:
        """One batch: a function of its arguments only.

        Args:
            step: 0 to `steps(batch)` - 1.
            batch: Rows of a batch; the last batch of an epoch may have fewer.
            seed: Seed of the order, which is new for every epoch; None reads in the order of the rows.
            epoch: Number of the pass.

        Raises:
            DataError: If there is no such step.
        """
        if not 0 <= step < self.steps(batch):
            raise DataError(f"Split {self.name!r} has {self.steps(batch)} batches of {batch}; there is no step {step}.")
        start, stop = step * batch, min((step + 1) * batch, self.rows)
        chosen: slice | NDArray[Any] = slice(start, stop)
        if seed is not None:
            chosen = self._permutation(seed, epoch)[start:stop]
        return RankingBatch(
            numeric=self._take("numeric", chosen, np.float32),
            ids=self._take("ids", chosen, np.int64),
            label=self._take("labels", chosen, np.float32),
            weight=None if self.weights is None else self._take("weights", chosen, np.float32),
            group=None if self.groups is None else self._take("groups", chosen, np.int64),
            row=start,
        )

    def _take(self, column: str, chosen: slice | NDArray[Any], dtype: type[np.generic]) -> torch.Tensor:
        """Rows of a column, as a tensor of its own memory."""
        return _tensor(getattr(self, column), chosen, dtype)

    def batches(
        self, batch: int, seed: int | None = None, epoch: int = 0, start_step: int = 0
    ) -> Iterator[RankingBatch]:
        """The batches of an epoch, read ahead by a thread.

        Args:
            batch: Rows of a batch.
            seed: Seed of the order; None reads in the order of the rows.
            epoch: Number of the pass.
            start_step: Where to begin, to go on after an interruption.

        Raises:
            DataError: A batch would have no rows.
            Exception: What reading raised in the thread.
        """
        steps = self.steps(batch)
        ready: queue.Queue[RankingBatch | BaseException | None] = queue.Queue(_AHEAD)
        stopped = threading.Event()

        def give(item: RankingBatch | BaseException | None) -> bool:
            while not stopped.is_set():
                try:
                    ready.put(item, timeout=0.1)
                    return True
                except queue.Full:
                    continue
            return False

        def read() -> None:
            try:
                for step in range(start_step, steps):
                    if not give(self.batch(step, batch, seed, epoch)):
                        return
                give(None)
            except BaseException as error:
                give(error)

        reader = threading.Thread(target=read, name=f"read-{self.name}", daemon=True)
        reader.start()
        try:
            while (item := ready.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stopped.set()
            reader.join()

    def _permutation(self, seed: int, epoch: int) -> NDArray[Any]:
        """The order of an epoch; the last one is kept."""
        kept = self._order
        if kept is None or kept[0] != (seed, epoch):
            order = np.random.default_rng([seed, epoch]).permutation(
                np.arange(self.rows, dtype=np.uint32 if self.rows < 1 << 32 else np.int64)
            )
            kept = self._order = ((seed, epoch), order)
        return kept[1]


class JoinedSplit(RankingSplit):
    """Two splits as one, the first one's rows before the other's; nothing is copied but the rows of a batch.

    Args:
        name: Name of the joined split.
        first: A split.
        second: Another of the same table.
    """

    def __init__(self, name: str, first: RankingSplit, second: RankingSplit) -> None:
        super().__init__(name, first.numeric, first.ids, first.labels, first.weights, first.groups)
        self._second = second

    @property
    def rows(self) -> int:
        """Number of rows of both."""
        return int(self.labels.shape[0]) + self._second.rows

    def _take(self, column: str, chosen: slice | NDArray[Any], dtype: type[np.generic]) -> torch.Tensor:
        import torch

        one, other = getattr(self, column), getattr(self._second, column)
        rows = np.arange(chosen.start, chosen.stop) if isinstance(chosen, slice) else chosen.astype(np.int64)
        late = rows >= len(one)
        values = np.empty((len(rows), *one.shape[1:]), dtype)
        values[~late], values[late] = one[rows[~late]], other[rows[late] - len(one)]
        return torch.from_numpy(values)


@dataclass(eq=False)
class RankingData:
    """An encoded table with its splits.

    Attributes:
        name: Name of the data for reports.
        fingerprint: SHA-256 of the source's bytes and everything that decides the encoding.
        features: What a model's inputs are.
        splits: The splits by name: train, validation, test.
        facts: What reports may want to know: rows, skipped rows, share of clicks, rows of users never trained on, …
        folder: Where it is kept.
        values: The texts of a categorical feature's values from `FIRST_ID` on, by feature, where they are few.
    """

    name: str
    fingerprint: str
    features: Features
    splits: Mapping[str, RankingSplit]
    facts: Mapping[str, Any]
    folder: Path
    values: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def split(self, name: str) -> RankingSplit:
        """The split of that name.

        Raises:
            DataError: If there is none.
        """
        if name not in self.splits:
            raise DataError(f"The data {self.name!r} has no split {name!r}; it has {', '.join(self.splits)}.")
        return self.splits[name]


def _tensor(source: NDArray[Any], chosen: slice | NDArray[Any], dtype: type[np.generic]) -> torch.Tensor:
    """Rows as a tensor of its own memory."""
    import torch

    rows = source[chosen]
    # A slice is a view of the read-only file: it must be copied; chosen rows are a copy already.
    return torch.from_numpy(
        np.array(rows, dtype=dtype) if isinstance(chosen, slice) else rows.astype(dtype, copy=False)
    )
