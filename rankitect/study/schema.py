"""The tables of a study's file, as they are made and as they are read."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import fields

from rankitect.contracts import Spent

__all__ = ["COLUMNS", "EARLIER", "SCHEMA", "SPENDING"]

SCHEMA = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    """CREATE TABLE batches (
    batch INTEGER PRIMARY KEY,
    asked INTEGER NOT NULL,
    standing TEXT NOT NULL DEFAULT 'own' CHECK (standing IN ('own', 'earlier', 'apart')),
    checksum TEXT
)""",
    """CREATE TABLE trials (
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
    traceback TEXT,
    checksum TEXT
)""",
    """CREATE UNIQUE INDEX measured_once ON trials (fingerprint, evaluator, seed)
    WHERE state IN ('DONE', 'FAILED') AND duplicate_of IS NULL""",
    """CREATE TABLE charges (
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
    train_flops INTEGER NOT NULL DEFAULT 0,
    checksum TEXT
)""",
    """CREATE TABLE sessions (
    id INTEGER PRIMARY KEY,
    pid INTEGER,
    host TEXT,
    started REAL,
    seconds REAL NOT NULL,
    checksum TEXT
)""",
)
"""The statements that make a new file."""
SPENDING = tuple(field.name for field in fields(Spent))
"""The columns of the table of charges that make a `Spent`, in the order of its fields."""


def _columns() -> dict[str, tuple[str, ...]]:
    with closing(sqlite3.connect(":memory:")) as connection:
        for statement in SCHEMA:
            connection.execute(statement)
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY rowid").fetchall()
        columns = {
            table: tuple(row[1] for row in connection.execute(f"PRAGMA table_info({table})") if row[1] != "checksum")
            for (table,) in tables
            if table != "meta"
        }
    return columns | {"charges": ("key", "stage", *SPENDING)}  # checksums were always made in this order


COLUMNS = _columns()
"""The columns of each table, its key first, but for the checksum; checksums are of the values in this order."""


def _earlier() -> dict[str, dict[str, frozenset[str]]]:
    second = {table: frozenset(columns) - {"standing"} for table, columns in COLUMNS.items()}
    spending = {"train_tokens", "eval_tokens", "latency_measurements", "seconds"}
    return {"1": second | {"charges": frozenset({"key", "stage"} | spending)}, "2": second}


EARLIER = _earlier()
"""The columns of each table in earlier formats, by the format's number; these had no checksums. They are read as they
are, and brought up to date where a study goes on in them."""
