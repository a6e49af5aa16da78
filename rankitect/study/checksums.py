"""What shows damage in a study's file: a checksum in every row, and how many rows each table has.

SQLite notices a page that is no page; it does not notice that a digit in a row became another. Every row therefore
carries a hash of its values, made in the transaction that writes them, and the table `meta` knows how many rows there
are, so that rows that vanished are noticed as well. This protects from accidents. It does not protect from a person who
computes the hashes anew.
"""

from __future__ import annotations

import hashlib
import sqlite3

from rankitect.study.schema import COLUMNS

__all__ = ["attach", "count", "count_all", "damage", "sign", "sign_all"]

_FUNCTION = "row_checksum"
_ROWS = "rows of "
_CALL = {table: f"{_FUNCTION}('{table}', {', '.join(columns)})" for table, columns in COLUMNS.items()}
_SIGN = {t: f"UPDATE {t} SET checksum = {_CALL[t]} WHERE {columns[0]} = ?" for t, columns in COLUMNS.items()}


def _checksum(*values: object) -> str:
    """64 bits over a table's name and a row's values. `repr` tells 1 from 1.0 from "1", and keeps every digit."""
    return hashlib.blake2b(repr(values).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def attach(connection: sqlite3.Connection) -> None:
    """Let SQL statements of this connection compute checksums."""
    connection.create_function(_FUNCTION, -1, _checksum, deterministic=True)


def sign(connection: sqlite3.Connection, table: str, key: object) -> None:
    """Compute the checksum of a row that was written, in the same transaction."""
    connection.execute(_SIGN[table], (key,))


def sign_all(connection: sqlite3.Connection, table: str) -> None:
    """Compute the checksum of every row of a table."""
    connection.execute(f"UPDATE {table} SET checksum = {_CALL[table]}")


def count_all(connection: sqlite3.Connection) -> None:
    """Keep in `meta` how many rows each table has, from counting them."""
    for table in COLUMNS:
        number = connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]
        connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (f"{_ROWS}{table}", str(number)))


def count(connection: sqlite3.Connection, table: str, added: int) -> None:
    """Keep in `meta` that a table has more rows now, or fewer, in the transaction that changes it."""
    connection.execute("UPDATE meta SET value = value + ? WHERE key = ?", (added, f"{_ROWS}{table}"))


def damage(connection: sqlite3.Connection) -> str:
    """The first row that is not what was written, or that rows are missing, in words; empty where nothing is wrong."""
    for table, columns in COLUMNS.items():
        query = f"SELECT {columns[0]} FROM {table} WHERE checksum IS NOT {_CALL[table]} LIMIT 1"
        if (row := connection.execute(query).fetchone()) is not None:
            return f"the row {str(row[0])[:60]!r} of its table {table} is not what was written"
        kept = connection.execute("SELECT value FROM meta WHERE key = ?", (f"{_ROWS}{table}",)).fetchone()
        number = connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]
        if kept is None or kept[0] != str(number):
            return f"its table {table} has {number} rows and not {str(kept and kept[0])[:60]!r}"
    return ""
