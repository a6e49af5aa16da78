"""Which values get a row of their own, and which row: counted on training rows only, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rankitect.data.ranking.features import FIRST_ID, MISSING_ID, UNKNOWN_ID
from rankitect.data.ranking.keys import Keys
from rankitect.errors import DataError

__all__ = ["KeyCounter", "Vocabulary"]

_PENDING = 1 << 20  # keys that wait at least before they are merged
_SPARE = 5  # times the limit: rare values, which may go later, are counted too


@dataclass
class KeyCounter:
    """How often each key occurs.

    Attributes:
        name: The feature's, for messages.
        limit: Largest vocabulary.
    """

    name: str
    limit: int
    _keys: Keys = field(default_factory=lambda: np.empty(0, np.uint64))
    _counts: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    _waiting: list[tuple[Keys, NDArray[np.int64]]] = field(default_factory=list)
    _size: int = 0

    def add(self, keys: Keys, counts: NDArray[np.int64]) -> None:
        """Adds counts of keys, each at most once; counts of 0 are left out.

        Raises:
            DataError: There are far more different keys than the limit.
        """
        seen = counts > 0
        if not seen.all():
            keys, counts = keys[seen], counts[seen]
        self._waiting.append((keys, counts))
        self._size += len(keys)
        if self._size > max(_PENDING, len(self._keys)):  # so that merging costs each key a few sorts in all
            self._merge()
            if len(self._keys) > _SPARE * self.limit:
                raise self._overflow(f"more than {_SPARE * self.limit:,} different values")

    def most_frequent(self, min_count: int) -> Keys:
        """Keys that occur at least `min_count` times, the most frequent first, equals by key.

        Raises:
            DataError: If there are more than the limit.
        """
        self._merge()
        kept = self._counts >= min_count
        keys, counts = self._keys[kept], self._counts[kept]
        if len(keys) > self.limit:
            raise self._overflow(f"{len(keys):,} values that training rows have {min_count} times or more")
        return keys[np.argsort(-counts, kind="stable")]

    def _merge(self) -> None:
        keys = np.concatenate([self._keys, *(keys for keys, _ in self._waiting)])
        counts = np.concatenate([self._counts, *(counts for _, counts in self._waiting)])
        self._waiting, self._size = [], 0
        order = np.argsort(keys, kind="stable")
        keys, counts = keys[order], counts[order]
        starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(keys) else np.empty(0, int)
        self._keys = keys[starts]
        self._counts = np.add.reduceat(counts, starts) if len(keys) else counts

    def _overflow(self, excess: str) -> DataError:
        return DataError(
            f"Feature {self.name!r}: the vocabulary overflows its {self.limit:,} rows: {excess}. Raise its min_count, "
            "give it encoding=hash with the rows to share, or raise its rows (or task.data.max_rows)."
        )


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Keys to rows of an embedding table.

    Attributes:
        rows: Rows of the table.
        keys: Keys of the values that have a row of their own, from row `FIRST_ID` on; None if all have (index, hash).
        hashed: True if values share rows by their key.
    """

    rows: int
    keys: Keys | None
    hashed: bool = False
    _sorted: tuple[Keys, NDArray[np.int64]] | None = field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        if self.keys is not None:
            order = np.argsort(self.keys)
            object.__setattr__(self, "_sorted", (self.keys[order], order))

    def ids(self, keys: Keys) -> NDArray[np.int32]:
        """The row of each key; `UNKNOWN_ID` for keys without one."""
        own = np.uint64(self.rows - FIRST_ID)
        if self._sorted is None:
            return ((keys % own if self.hashed else keys) + np.uint64(FIRST_ID)).astype(np.int32)
        known, places = self._sorted
        if not len(known):
            return np.full(len(keys), UNKNOWN_ID, dtype=np.int32)
        at = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        rows = (keys % own).astype(np.int64) if self.hashed else places[at]
        return np.where(known[at] == keys, rows + FIRST_ID, UNKNOWN_ID).astype(np.int32)

    def table(self, keys: Keys) -> NDArray[np.int32]:
        """The row of each local code: code 0 is a missing value, then the keys. [1 + len(keys)]."""
        return np.concatenate([np.array([MISSING_ID], dtype=np.int32), self.ids(keys)])
