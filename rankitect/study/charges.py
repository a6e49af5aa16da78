"""What a study has spent, in its SQLite file: charges by stage, and the sessions that worked on it."""

from __future__ import annotations

import os
import socket
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rankitect.contracts import Spent
from rankitect.study.checksums import count, sign
from rankitect.study.database import transaction
from rankitect.study.schema import SPENDING

__all__ = ["TRIAL", "Charges", "trial_key"]

_COLUMNS = ", ".join(SPENDING)  # names from this program only
_EARLIER = f"SELECT stage, {_COLUMNS} FROM charges WHERE key = ?"
_RECORD = f"INSERT OR REPLACE INTO charges (key, stage, {_COLUMNS}) VALUES (?, ?{', ?' * len(SPENDING)})"


TRIAL = "trial:"
"""How the key of a charge for a trial begins."""


def trial_key(number: int) -> str:
    """The key of the charge for a trial."""
    return f"{TRIAL}{number}"


class Charges:
    """The tables `charges` and `sessions`.

    Args:
        connection: The connection to the study's file.
        totals: What was spent so far, by stage.
    """

    def __init__(self, connection: sqlite3.Connection, totals: Mapping[str, Spent]) -> None:
        self._connection = connection
        # Kept up to date, because it is asked for several times a trial.
        self._totals = dict(totals)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """A transaction of the study's file in which `record` may be called."""
        before = dict(self._totals)
        try:
            with transaction(self._connection):
                yield
        except BaseException:
            self._totals = before
            raise

    def record(self, key: str, stage: str, spent: Spent) -> None:
        """Charge a stage, inside a transaction; a later charge of the same key replaces the earlier."""
        earlier = self._connection.execute(_EARLIER, (key,)).fetchone()
        if earlier is None:
            count(self._connection, "charges", 1)
        else:
            self._totals[earlier[0]] += -Spent(*earlier[1:])
        self._totals[stage] = self._totals.get(stage, Spent()) + spent
        self._connection.execute(_RECORD, (key, stage, *spent.amounts()))
        sign(self._connection, "charges", key)

    def charge(self, key: str, stage: str, spent: Spent) -> None:
        """Charge a stage in a transaction of its own; a later charge of the same key replaces the earlier."""
        with self.transaction():
            self.record(key, stage, spent)

    def set_aside(self, key: str) -> None:
        """Give a charge another key, inside a transaction: a later charge of this key is one more, in its place."""
        taken = self._connection.execute("SELECT COUNT(*) FROM charges WHERE key LIKE ?", (f"earlier % {key}",))
        aside = f"earlier {taken.fetchone()[0] + 1} {key}"
        self._connection.execute("UPDATE charges SET key = ? WHERE key = ?", (aside, key))
        sign(self._connection, "charges", aside)

    def totals(self) -> dict[str, Spent]:
        """What was spent, by stage."""
        return dict(sorted(self._totals.items()))

    def open_session(self) -> int:
        """Record that a process begins to work on the study; returns the session's number."""
        with self.transaction():
            cursor = self._connection.execute(
                "INSERT INTO sessions (pid, host, started, seconds) VALUES (?, ?, ?, 0)",
                (os.getpid(), socket.gethostname(), time.time()),
            )
            session = int(cursor.lastrowid or 0)
            sign(self._connection, "sessions", session)
            count(self._connection, "sessions", 1)
        return session

    def keep_session(self, session: int, seconds: float) -> None:
        """Record how long a session has worked so far."""
        with self.transaction():
            self._connection.execute("UPDATE sessions SET seconds = ? WHERE id = ?", (seconds, session))
            sign(self._connection, "sessions", session)

    def worked(self) -> float:
        """Wall-clock seconds that all sessions recorded."""
        return float(self._connection.execute("SELECT COALESCE(SUM(seconds), 0) FROM sessions").fetchone()[0])
