"""Work on a few threads with its results in order, and lines of progress. NumPy and Arrow leave Python's lock alone."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from rankitect.machine import usable_cores

__all__ = ["RowProgress", "in_order", "worker_count"]

T = TypeVar("T")
_SECONDS = 5.0  # between lines


def worker_count(given: int | None) -> int:
    """Threads to use: as given, else one a core that this process may use."""
    return usable_cores() if given is None else given


def in_order(tasks: Iterable[Callable[[], T]], workers: int) -> Iterator[T]:
    """Results of tasks in their order; a few are under way at a time, so that memory is bounded.

    The first error, in the order of the tasks, is raised.
    """
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[T]] = deque()
        try:
            for task in tasks:
                waiting.append(pool.submit(task))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


class RowProgress:
    """Tells how many rows are done, every few seconds.

    Args:
        what: What is done, for the beginning of a line.
        say: Receives the lines.
        unit: What is counted.
    """

    def __init__(self, what: str, say: Callable[[str], None], unit: str = "rows") -> None:
        self.rows = 0
        self._what, self._say, self._unit = what, say, unit
        self._begun = self._told = time.monotonic()

    def add(self, rows: int) -> None:
        """Counts rows that are done."""
        self.rows += rows
        if time.monotonic() - self._told > _SECONDS:
            self._tell()

    def end(self) -> None:
        """Says the total, if it took long enough for anything to be said."""
        if time.monotonic() - self._begun > _SECONDS:
            self._tell()

    def _tell(self) -> None:
        self._told = time.monotonic()
        rate = self.rows / max(self._told - self._begun, 1e-9)
        self._say(f"{self._what} {self.rows:,} {self._unit}, {rate:,.0f} a second")
