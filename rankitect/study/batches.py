"""What a study's controller was asked for: the table of batches, and what each is to the configuration of now."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping

from rankitect.study.checksums import count, sign
from rankitect.study.database import transaction
from rankitect.study.rows import Standing

__all__ = ["Batches"]


class Batches:
    """The table `batches`.

    Args:
        connection: The connection to the study's file.
        standings: What each batch is to the configuration of now, by its number.

    Attributes:
        standings: The same, kept up to date.
    """

    def __init__(self, connection: sqlite3.Connection, standings: Mapping[int, Standing]) -> None:
        self._connection, self.standings = connection, dict(standings)

    def record(self, batch: int, asked: int) -> None:
        """Note a batch of this configuration, inside a transaction; one that is there stays as it is.

        Args:
            batch: Its number.
            asked: The `n` of the `ask`.
        """
        if batch not in self.standings:
            self._connection.execute("INSERT INTO batches (batch, asked) VALUES (?, ?)", (batch, asked))
            sign(self._connection, "batches", batch)
            count(self._connection, "batches", 1)
            self.standings[batch] = "own"

    def question(self) -> None:
        """Note that no batch is known to be of the configuration of now (`resume=force`)."""
        known = [number for number, standing in self.standings.items() if number > 0 and standing == "own"]
        with transaction(self._connection):
            self.stand(known, "earlier")

    def own(self, batch: int) -> None:
        """Note that the configuration of now has asked for this batch as well."""
        with transaction(self._connection):
            self.stand([batch], "own")

    def stand(self, batches: Iterable[int], standing: Standing) -> None:
        """Note what batches are to the configuration of now, inside a transaction."""
        for batch in batches:
            self._connection.execute("UPDATE batches SET standing = ? WHERE batch = ?", (standing, batch))
            sign(self._connection, "batches", batch)
            self.standings[batch] = standing
