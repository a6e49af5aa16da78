"""The SQLite file of a study: its tables, opening and checking it, and bringing earlier formats up to date.

Each transaction is flushed to the disk (write-ahead log, `synchronous=FULL`).
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from rankitect.errors import RunFolderError, brief
from rankitect.study.checksums import attach, count_all, damage, sign_all
from rankitect.study.earlier import counted_rows
from rankitect.study.files import can_write, disk_trouble
from rankitect.study.schema import COLUMNS, EARLIER, SCHEMA

__all__ = ["columns_of", "connect", "counts_rows", "damaged", "explain_damage", "is_blank", "reading", "transaction"]

_VERSION = "3"
_LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def connect(path: Path) -> sqlite3.Connection:
    """Open a study's file to write, with its tables made or brought up to date. One that exists was checked before.

    Args:
        path: The file; created if missing.

    Raises:
        RunFolderError: The file is damaged after all.
        sqlite3.OperationalError: The disk is full.
    """
    fresh = is_blank(path)
    connection = sqlite3.connect(path, isolation_level=None, timeout=10.0)
    try:
        with explain_damage(path):
            _secure(connection)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            if fresh:
                _create(connection)
            else:
                _bring_up_to_date(path, connection)
    except BaseException:
        connection.close()
        if fresh:  # a full disk, perhaps: an empty file would say that there is a study
            for name in ("", "-wal", "-shm"):
                path.with_name(path.name + name).unlink(missing_ok=True)
        raise
    return connection


@contextmanager
def reading(path: Path, *, alone: bool = False) -> Iterator[sqlite3.Connection]:
    """Open a study's file to read, and check it; nothing in its folder is changed where this process is `alone` there.

    Everything is read in one transaction: of a search that goes on meanwhile, all of it is of one moment.

    Args:
        path: The file.
        alone: Whether this process holds the folder's lock, so that nobody writes meanwhile.

    Raises:
        RunFolderError: The file is no study, is damaged, or was written by another version of the format.
    """
    if _empty(path):
        state = "is empty" if path.exists() else "does not exist"
        raise RunFolderError(f"{brief(path)} {state}, so there is no study to read in {brief(path.parent)}.")
    with _undisturbed(path) if alone else _named(path, "mode=ro") as target, explain_damage(path):
        connection = sqlite3.connect(target, uri=True, isolation_level=None, timeout=10.0)
        try:
            _secure(connection)
            connection.execute("BEGIN")
            _check(path, connection)
            yield connection
        finally:
            connection.close()


@contextmanager
def _named(path: Path, how: str) -> Iterator[str]:
    yield f"{Path(os.path.realpath(path)).as_uri()}?{how}"


@contextmanager
def _undisturbed(path: Path) -> Iterator[str]:
    """The address of a file that SQLite reads without touching it; of a copy where a log is still to be taken in."""
    log = path.with_name(f"{path.name}-wal")
    if _empty(log):
        with _named(path, "mode=ro&immutable=1") as target:
            yield target
        return
    with tempfile.TemporaryDirectory(prefix="rankitect-") as folder:
        for file in (path, log):
            shutil.copyfile(file, Path(folder) / file.name)
        with _named(Path(folder) / path.name, "mode=ro") as target:
            yield target


def _empty(path: Path) -> bool:
    return not path.exists() or path.stat().st_size == 0


def is_blank(path: Path) -> bool:
    """Whether a study's file is not there, or has no tables: a process that is killed before it makes them leaves that.

    Args:
        path: The file; the caller holds the folder's lock.

    Raises:
        RunFolderError: The file is no database.
    """
    if _empty(path):
        return True
    with _undisturbed(path) as target, explain_damage(path), closing(sqlite3.connect(target, uri=True)) as connection:
        return _has_no_tables(connection)


def _has_no_tables(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM sqlite_master").fetchone() is None


def _secure(connection: sqlite3.Connection) -> None:
    """What the file itself names is not run, and what does not fit into a page is damage, not a crash."""
    connection.execute("PRAGMA trusted_schema=OFF")
    connection.execute("PRAGMA cell_size_check=ON")
    attach(connection)


def damaged(path: Path, what: object) -> RunFolderError:
    """The error for a file that is not what was written.

    Args:
        path: The file.
        what: What is wrong with it.
    """
    return RunFolderError(
        f"{brief(path)} is not a readable study ({brief(what, 200)}). Restore it from a copy, or choose another "
        "output_dir=."
    )


@contextmanager
def explain_damage(path: Path) -> Iterator[None]:
    """Say in words where the file itself is to blame for what SQLite raises, and not the disk.

    SQLite calls a page number beyond the end of a file a full disk, and a torn header a failing one. Whether the disk
    can be written is therefore tried.

    Raises:
        RunFolderError: The file is damaged, is no database, or another process keeps it locked.
    """
    try:
        yield
    except UnicodeError as error:  # SQLite quotes what it found
        raise damaged(path, error) from error
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _LOCKED:  # Python's own have no code
            raise RunFolderError(f"{path} is locked by another process ({error}). Wait for it, or stop it.") from error
        if disk_trouble(error, path.parent) and not can_write(path.parent):
            raise
        raise damaged(path, error) from error


def _check(path: Path, connection: sqlite3.Connection) -> None:
    """Refuse a file whose pages, tables or rows are not those of a study."""
    objects = {row[0]: tuple(row) for row in connection.execute("SELECT name, type, tbl_name, sql FROM sqlite_master")}
    if not objects:
        raise RunFolderError(f"{path} holds nothing yet: its search ended before the first trial. Start it again.")
    if "meta" not in objects:
        raise damaged(path, "it has no table `meta`")
    version = connection.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
    if version is None or version[0] not in (_VERSION, *EARLIER):
        raise RunFolderError(
            f"{brief(path)} has study format {brief(version[0], 40)}, this version reads the formats "
            f"{', '.join(EARLIER)} and {_VERSION}. Use the version that wrote it, or choose another output_dir=."
            if version
            else f"{brief(path)} does not say its study format. Choose another output_dir=."
        )
    wrong = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if wrong != "ok":
        raise damaged(path, wrong)
    _check_tables(path, connection, objects, version[0])
    if version[0] == _VERSION and (wrong := damage(connection)):
        raise damaged(path, wrong)


def _check_tables(
    path: Path, connection: sqlite3.Connection, objects: dict[str, tuple[str, ...]], version: str
) -> None:
    """Refuse tables that this program did not make; a view or a trigger would be run."""
    expected = _objects()
    if other := sorted(objects.keys() ^ expected.keys()):
        raise damaged(path, f"{other[0][:60]!r} is not in both its tables and those of a study")
    for name, there in objects.items():
        # Tables of earlier formats had fewer columns, which says nothing bad about them.
        depth = 4 if version == _VERSION else 3
        if there[:depth] != expected[name][:depth]:
            raise damaged(path, f"its {there[1]} {name[:60]!r} is not that of a study")
    if version in EARLIER:
        _check_earlier(path, connection, version)


def _check_earlier(path: Path, connection: sqlite3.Connection, version: str) -> None:
    """Refuse what that format had not: a file that only says so would keep its checksums from being looked at."""
    for table, columns in EARLIER[version].items():
        if other := sorted(columns ^ set(columns_of(connection, table))):
            had = "no column" if other[0] in columns else "a column"
            raise damaged(path, f"it says format {version}, and its table {table} has {had} {brief(other[0], 60)!r}")
    if more := connection.execute("SELECT key FROM meta WHERE key <> 'schema'").fetchone():
        raise damaged(path, f"it says format {version}, which had no {brief(more[0], 60)!r}")


def _objects() -> dict[str, tuple[str, ...]]:
    """What a new file holds, by name: type, table and SQL."""
    connection = sqlite3.connect(":memory:")
    try:
        for statement in SCHEMA:
            connection.execute(statement)
        rows = connection.execute("SELECT name, type, tbl_name, sql FROM sqlite_master").fetchall()
    finally:
        connection.close()
    return {row[0]: tuple(row) for row in rows}


def _create(connection: sqlite3.Connection) -> None:
    with transaction(connection):  # so that a process killed here leaves an empty file and not half a schema
        _make_tables(connection)


def _make_tables(connection: sqlite3.Connection) -> None:
    for statement in SCHEMA:
        connection.execute(statement)
    connection.execute("INSERT INTO meta VALUES ('schema', ?)", (_VERSION,))
    count_all(connection)


def _bring_up_to_date(path: Path, connection: sqlite3.Connection) -> None:
    """Rewrite the tables of an earlier format as those of this one, with checksums, in one transaction."""
    if _version(connection) == _VERSION:
        return
    in_rows = counts_rows(path, connection)
    connection.execute("PRAGMA legacy_alter_table=ON")  # so that references keep the names of tables
    with transaction(connection):
        connection.execute("DROP INDEX measured_once")
        for table in ("meta", *COLUMNS):
            connection.execute(f"ALTER TABLE {table} RENAME TO earlier_{table}")
        _make_tables(connection)
        for table, columns in COLUMNS.items():
            present = columns_of(connection, f"earlier_{table}")
            names = ", ".join(name for name in columns if name in present)
            connection.execute(f"INSERT INTO {table} ({names}) SELECT {names} FROM earlier_{table}")
        if in_rows:
            connection.execute(
                "UPDATE charges SET train_examples = train_tokens, eval_examples = eval_tokens, train_tokens = 0, "
                "eval_tokens = 0"
            )
        for table in COLUMNS:
            sign_all(connection, table)
        for table in ("meta", *reversed(COLUMNS)):
            connection.execute(f"DROP TABLE earlier_{table}")
        count_all(connection)


def _version(connection: sqlite3.Connection) -> str:
    return str(connection.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()[0])


def counts_rows(path: Path, connection: sqlite3.Connection) -> bool:
    """Whether a file of the first format counts the examples of a ranker as tokens."""
    return _version(connection) == "1" and counted_rows(path.parent)


def columns_of(connection: sqlite3.Connection, table: str) -> list[str]:
    """The columns of a table; in a file of an earlier format, opened to read, it has fewer."""
    return [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All statements inside, or none of them."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # a full disk rolls back by itself
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        raise
