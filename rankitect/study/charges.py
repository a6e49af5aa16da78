"""What a study has spent, in its SQLite file: charges by stage, and the sessions that worked on it."""

from __future__ import annotations

import os
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple

from rankitect.contracts import Spent
from rankitect.study.database import SPENDING, spending_columns, transaction

__all__ = ["Charges"]


class Charges:
    """The tables `charges` and `sessions`.

    Args:
        connection: The connection to the study's file.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        # Added up once and then kept up to date, because the sum is asked for several times a trial.
        self._totals: dict[str, Spent] | None = None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """A transaction of the study's file in which `record` may be called."""
        try:
            with transaction(self._connection):
                yield
        except BaseException:
            self._totals = None  # may hold what was rolled back
            raise

    def record(self, key: str, stage: str, spent: Spent) -> None:
        """Charge a stage, inside a transaction; a later charge of the same key replaces the earlier."""
        columns = ", ".join(SPENDING)  # names from this program only
        if self._totals is not None:
            row = f"SELECT stage, {columns} FROM charges WHERE key = ?"
            earlier = self._connection.execute(row, (key,)).fetchone()
            if earlier is not None:
                self._totals[earlier[0]] += -Spent(*earlier[1:])
            self._totals[stage] = self._totals.get(stage, Spent()) + spent
        self._connection.execute(
            f"INSERT OR REPLACE INTO charges (key, stage, {columns}) VALUES (?, ?{', ?' * len(SPENDING)})",
            (key, stage, *astuple(spent)),
        )

    def charge(self, key: str, stage: str, spent: Spent) -> None:
        """Charge a stage in a transaction of its own; a later charge of the same key replaces the earlier."""
        with self.transaction():
            self.record(key, stage, spent)

    def totals(self) -> dict[str, Spent]:
        """What was spent, by stage."""
        if self._totals is None:
            present = spending_columns(self._connection)
            sums = ", ".join(f"SUM({name})" if name in present else "0" for name in SPENDING)
            rows = self._connection.execute(f"SELECT stage, {sums} FROM charges GROUP BY stage")
            self._totals = {row[0]: Spent(*row[1:]) for row in rows}
        return dict(sorted(self._totals.items()))

    def open_session(self) -> int:
        """Record that a process begins to work on the study; returns the session's number."""
        with self.transaction():
            cursor = self._connection.execute(
                "INSERT INTO sessions (pid, host, started, seconds) VALUES (?, ?, ?, 0)",
                (os.getpid(), socket.gethostname(), time.time()),
            )
        return int(cursor.lastrowid or 0)

    def keep_session(self, session: int, seconds: float) -> None:
        """Record how long a session has worked so far."""
        with self.transaction():
            self._connection.execute("UPDATE sessions SET seconds = ? WHERE id = ?", (seconds, session))

    def worked(self) -> float:
        """Wall-clock seconds that all sessions recorded."""
        return float(self._connection.execute("SELECT COALESCE(SUM(seconds), 0) FROM sessions").fetchone()[0])
