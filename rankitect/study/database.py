"""The SQLite file of a study: its tables, opening and checking it, and bringing earlier formats up to date.

Each transaction is flushed to the disk (write-ahead log, `synchronous=FULL`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

from rankitect.contracts import Spent
from rankitect.errors import RunFolderError
from rankitect.study.earlier import counted_rows

__all__ = ["SPENDING", "connect", "explain_damage", "spending_columns", "transaction"]

_VERSION = 2
_READABLE = ("1", "2")
"""Formats that are read. Format 1 has fewer columns of spending; these are added when it is opened to write."""

SPENDING = tuple(field.name for field in fields(Spent))
"""The columns of the table of charges that make a `Spent`, in the order of its fields."""

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE batches (batch INTEGER PRIMARY KEY, asked INTEGER NOT NULL);
CREATE TABLE trials (
    number INTEGER PRIMARY KEY,
    batch INTEGER NOT NULL REFERENCES batches (batch),
    baseline TEXT,
    fingerprint TEXT NOT NULL,
    evaluator TEXT NOT NULL,
    seed INTEGER NOT NULL,
    architecture TEXT NOT NULL,
    tags TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('WAITING', 'RUNNING', 'DONE', 'FAILED')),
    attempts INTEGER NOT NULL DEFAULT 0,
    pid INTEGER,
    started REAL,
    ended REAL,
    duplicate_of INTEGER REFERENCES trials (number),
    measurement TEXT,
    cause TEXT,
    traceback TEXT
);
CREATE UNIQUE INDEX measured_once ON trials (fingerprint, evaluator, seed)
    WHERE state IN ('DONE', 'FAILED') AND duplicate_of IS NULL;
CREATE TABLE charges (
    key TEXT PRIMARY KEY,
    stage TEXT NOT NULL,
    train_tokens INTEGER NOT NULL,
    eval_tokens INTEGER NOT NULL,
    latency_measurements INTEGER NOT NULL,
    seconds REAL NOT NULL,
    train_examples INTEGER NOT NULL DEFAULT 0,
    eval_examples INTEGER NOT NULL DEFAULT 0,
    teacher_tokens INTEGER NOT NULL DEFAULT 0,
    generated_tokens INTEGER NOT NULL DEFAULT 0,
    train_flops INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE sessions (id INTEGER PRIMARY KEY, pid INTEGER, host TEXT, started REAL, seconds REAL NOT NULL);
"""


def connect(path: Path, *, readonly: bool) -> sqlite3.Connection:
    """Open a study's file, with its tables made or brought up to date where it is opened to write.

    Args:
        path: The file; created if missing, unless read-only.
        readonly: Open for reading only.

    Raises:
        RunFolderError: The file is no study, is damaged, or was written by another version of the format.
        sqlite3.OperationalError: The disk is full, or another process has locked the file.
    """
    fresh = not path.exists() or path.stat().st_size == 0
    if readonly and fresh:
        raise RunFolderError(f"{path} does not exist, so there is no study to read in {path.parent}.")
    target = f"{path.resolve().as_uri()}?mode=ro" if readonly else str(path)
    connection = sqlite3.connect(target, uri=readonly, isolation_level=None, timeout=10.0)
    with explain_damage(path, connection):
        if not readonly:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
        _ensure_schema(path, connection, readonly)
    return connection


@contextmanager
def explain_damage(path: Path, connection: sqlite3.Connection) -> Iterator[None]:
    """Close the connection where reading fails, and say so in words where the file is to blame.

    Raises:
        RunFolderError: The file is damaged, or is no database.
    """
    try:
        yield
    except sqlite3.DatabaseError as error:
        connection.close()
        if isinstance(error, sqlite3.OperationalError):  # full disk, locked: not the file's fault
            raise
        raise RunFolderError(
            f"{path} is not a readable study ({error}). Restore it from a copy, or choose another output_dir=."
        ) from error
    except BaseException:
        connection.close()
        raise


def _ensure_schema(path: Path, connection: sqlite3.Connection, readonly: bool) -> None:
    has_meta = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone()
    if has_meta is None and not readonly:
        # One transaction, so that a process killed here leaves an empty file and not half a schema.
        script = f"BEGIN IMMEDIATE;{_SCHEMA}INSERT INTO meta VALUES ('schema', '{_VERSION}');COMMIT;"
        connection.executescript(script)
        return
    if has_meta is None:
        raise RunFolderError(f"{path} holds nothing yet: its search ended before the first trial. Start it again.")
    row = connection.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
    if row is None or row[0] not in _READABLE:
        raise RunFolderError(
            f"{path} has study format {row[0] if row else 'unknown'}, this version reads the formats "
            f"{' and '.join(_READABLE)}. Use the version that wrote it, or choose another output_dir=."
        )
    if not readonly:
        _add_columns(path, connection)


def _add_columns(path: Path, connection: sqlite3.Connection) -> None:
    """Bring the table of charges of an earlier format up to date."""
    present = spending_columns(connection)
    missing = [name for name in SPENDING if name not in present]
    if missing:
        with transaction(connection):
            for name in missing:
                connection.execute(f"ALTER TABLE charges ADD COLUMN {name} INTEGER NOT NULL DEFAULT 0")
            if counted_rows(path.parent):
                connection.execute(
                    "UPDATE charges SET train_examples = train_tokens, eval_examples = eval_tokens, train_tokens = 0, "
                    "eval_tokens = 0"
                )
            connection.execute("UPDATE meta SET value = ? WHERE key = 'schema'", (str(_VERSION),))


def spending_columns(connection: sqlite3.Connection) -> list[str]:
    """The columns of the table of charges; a file of an earlier format, opened to read, has fewer."""
    return [row[1] for row in connection.execute("PRAGMA table_info(charges)")]


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All statements inside, or none of them."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk rolls back by itself
            connection.execute("ROLLBACK")
        raise
