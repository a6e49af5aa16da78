"""Batches of a table of clicks, each order read ahead."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from types import EllipsisType
from typing import TYPE_CHECKING, cast

from rankitect.errors import DataError

if TYPE_CHECKING:
    from rankitect.data.ranking.batch import RankingBatch
    from rankitect.data.ranking.dataset import RankingData, RankingSplit

__all__ = ["RankingBatches", "read_ahead"]

_STREAMS = 6
"""Orders of batches that are kept open."""


class RankingBatches:
    """Batches of one table of clicks.

    Args:
        table: with the splits train, validation and test.
        batch: rows of a training batch.
        seed: of the order of training rows; None reads them in their own order (time, for online training).
    """

    def __init__(self, table: RankingData, *, batch: int = 1024, seed: int | None = 0) -> None:
        if batch < 1:
            raise DataError(f"task.batch must be at least 1 row, found {batch}.")
        self.table, self.batch, self.seed = table, batch, seed
        self._streams: dict[tuple[str, int, int | None], _Stream] = {}

    def steps(self, split: str, batch: int | None = None) -> int:
        """Batches of an epoch; the last may be smaller.

        Raises:
            DataError: when the split is empty.
        """
        chosen = self.table.split(split)
        if not chosen.rows:
            raise DataError(f"{self.table.name}: the {split} split has no rows. Choose another split, or more data.")
        return chosen.steps(batch or self.batch)

    def with_validation(self) -> RankingBatches:
        """These batches with the validation rows among the training rows, for a last training before the test."""
        from rankitect.data.ranking.dataset import JoinedSplit

        train, validation = self.table.split("train"), self.table.split("validation")
        splits = {**self.table.splits, "train": JoinedSplit("train", train, validation)}
        return RankingBatches(replace(self.table, splits=splits), batch=self.batch, seed=self.seed)

    def batch_at(
        self, split: str, step: int, *, batch: int | None = None, seed: int | EllipsisType | None = ...
    ) -> RankingBatch:
        """The batch of a step: every row once an epoch, each epoch in another order.

        A pure function of its arguments, so that training resumes at any step. Steps in a row are read ahead.

        Args:
            split: the split.
            step: from 0; epochs follow each other.
            batch: rows; by default `batch`.
            seed: of the order; None for the table's own; by default `seed`.
        """
        key = (split, batch or self.batch, self.seed if isinstance(seed, EllipsisType) else seed)
        stream = self._streams.pop(key, None)
        if stream is None:
            stream = _Stream(self.table, *key, steps=self.steps(split, batch))
        self._streams[key] = stream  # the last one used is the last one
        while len(self._streams) > _STREAMS:
            self._streams.pop(next(iter(self._streams))).close()
        return stream.at(step)

    def close(self) -> None:
        """Stop reading ahead."""
        while self._streams:
            self._streams.popitem()[1].close()


def read_ahead(
    split: RankingSplit, batch: int, seed: int | None, epoch: int = 0, start: int = 0
) -> Generator[RankingBatch]:
    """Batches that are read ahead until they are closed."""
    return cast("Generator[RankingBatch]", split.batches(batch, seed, epoch, start_step=start))


class _Stream:
    """One order of a split's batches, read ahead as long as the steps asked for follow each other."""

    def __init__(self, data: RankingData, split: str, batch: int, seed: int | None, *, steps: int) -> None:
        self._split, self._batch, self._seed, self._steps = data.split(split), batch, seed, steps
        self._batches: Generator[RankingBatch] | None = None
        self._next = 0
        self._last: RankingBatch | None = None

    def at(self, step: int) -> RankingBatch:
        if self._last is not None and step == self._next - 1:  # another model on the same batch
            return self._last
        if self._batches is None or step != self._next or step % self._steps == 0:
            self.close()
            epoch, start = divmod(step, self._steps)
            self._batches = read_ahead(self._split, self._batch, self._seed, epoch, start)
        self._last, self._next = next(self._batches), step + 1
        return self._last

    def close(self) -> None:
        if self._batches is not None:
            self._batches.close()
        self._batches = None
