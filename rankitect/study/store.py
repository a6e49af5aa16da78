"""Trials in one SQLite file, written so that killing the process at any instant loses no finished trial.

A trial is recorded as WAITING with its whole batch before anything runs, as RUNNING when it starts, and as DONE or
FAILED in the same transaction that charges the ledger for it. Each transaction is flushed to the disk (write-ahead log,
`synchronous=FULL`), and a unique index forbids a second measurement of one (architecture, evaluator, seed).
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, fields, replace
from pathlib import Path
from typing import Any, Self

from rankitect.contracts import ArchitectureLike, Measurement, Proposal, Spent, Trial, TrialState
from rankitect.errors import RunFolderError
from rankitect.study.confirming import CONFIRM

__all__ = ["SCHEMA_VERSION", "Store"]

SCHEMA_VERSION = 2
_READABLE = ("1", "2")
"""Formats that are read. Format 1 has fewer columns of spending; these are added when it is opened to write."""

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

_COLUMNS = (
    "number, t.batch, b.asked, architecture, evaluator, seed, tags, state, measurement, cause, duplicate_of, baseline, "
    "attempts"
)
_SPENT = tuple(field.name for field in fields(Spent))


def _dumps(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _kinds(trial: Trial) -> list[str]:
    """What a trial counts as: "FAILED", and "measured" where it is held against the budget."""
    measured = trial.finished and trial.duplicate_of is None and trial.baseline is None and trial.batch != CONFIRM
    return [*(["measured"] if measured else []), *(["FAILED"] if trial.state == "FAILED" else [])]


class Store:
    """The study's SQLite file. One process writes; others may open it read-only.

    Args:
        path: The file; created if missing, unless read-only.
        decode: Makes an architecture from its JSON.
        readonly: Open for reading only, as reports do.

    Raises:
        RunFolderError: The file is no study, is damaged, or was written by another version of the format.
    """

    def __init__(self, path: Path, decode: Callable[[str], Any], *, readonly: bool = False) -> None:
        self.path = path
        self._decode = decode
        fresh = not path.exists() or path.stat().st_size == 0
        if readonly and fresh:
            raise RunFolderError(f"{path} does not exist, so there is no study to read in {path.parent}.")
        target = f"{path.resolve().as_uri()}?mode=ro" if readonly else str(path)
        self.connection = sqlite3.connect(target, uri=readonly, isolation_level=None, timeout=10.0)
        try:
            if not readonly:
                self.connection.execute("PRAGMA journal_mode=WAL")
                self.connection.execute("PRAGMA synchronous=FULL")
            self._ensure_schema(readonly)
            self._trials = {trial.number: trial for trial in self._load()}
        except sqlite3.DatabaseError as error:
            self.connection.close()
            if isinstance(error, sqlite3.OperationalError):  # full disk, locked: not the file's fault
                raise
            raise RunFolderError(
                f"{path} is not a readable study ({error}). Restore it from a copy, or choose another output_dir=."
            ) from error
        except BaseException:
            self.connection.close()
            raise
        # Counted as trials come and end: going through thousands of them for each new one would take longer than some.
        self.counts = Counter(kind for trial in self._trials.values() for kind in _kinds(trial))
        self._totals: dict[str, Spent] | None = None
        self._baselines = [n for n, t in self._trials.items() if t.baseline is not None and t.batch != CONFIRM]
        self._results = {
            (trial.architecture.fingerprint, trial.evaluator, trial.seed): trial.number
            for trial in self._trials.values()
            if trial.finished and trial.duplicate_of is None
        }

    def _ensure_schema(self, readonly: bool) -> None:
        has_meta = self.connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone()
        if has_meta is None and not readonly:
            # One transaction, so that a process killed here leaves an empty file and not half a schema.
            script = f"BEGIN IMMEDIATE;{_SCHEMA}INSERT INTO meta VALUES ('schema', '{SCHEMA_VERSION}');COMMIT;"
            self.connection.executescript(script)
            return
        if has_meta is None:
            raise RunFolderError(
                f"{self.path} holds nothing yet: its search ended before the first trial. Start it again."
            )
        row = self.connection.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
        if row is None or row[0] not in _READABLE:
            raise RunFolderError(
                f"{self.path} has study format {row[0] if row else 'unknown'}, this version reads the formats "
                f"{' and '.join(_READABLE)}. Use the version that wrote it, or choose another output_dir=."
            )
        if not readonly:
            self._add_columns()

    def _add_columns(self) -> None:
        """Bring the table of charges of an earlier format up to date."""
        missing = [name for name in _SPENT if name not in self._charge_columns()]
        if missing:
            with self._transaction():
                for name in missing:
                    self.connection.execute(f"ALTER TABLE charges ADD COLUMN {name} INTEGER NOT NULL DEFAULT 0")
                self.connection.execute("UPDATE meta SET value = ? WHERE key = 'schema'", (str(SCHEMA_VERSION),))

    def _charge_columns(self) -> list[str]:
        """The columns of the table of charges; a file of an earlier format has fewer."""
        return [row[1] for row in self.connection.execute("PRAGMA table_info(charges)")]

    def _load(self) -> Iterator[Trial]:
        there = self._charge_columns()
        spending = [name if name in there else "0" for name in _SPENT]
        query = (
            f"SELECT {_COLUMNS}, {', '.join(spending)} FROM trials t JOIN batches b USING (batch) "  # no user input
            "LEFT JOIN charges c ON c.key = 'trial:' || t.number ORDER BY number"
        )
        for row in self.connection.execute(query):
            spent = Spent() if row[-1] is None else Spent(*row[13:])
            measurement = None if row[8] is None else Measurement.from_dict(json.loads(row[8]))
            yield Trial(
                number=row[0], batch=row[1], asked=row[2], architecture=self._decode(row[3]), evaluator=row[4],
                seed=row[5], tags=json.loads(row[6]), state=row[7], measurement=measurement, cause=row[9],
                duplicate_of=row[10], baseline=row[11], attempts=row[12], spent=spent,
            )  # fmt: skip

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.connection.execute("COMMIT")
        except BaseException:
            self._totals = None
            if self.connection.in_transaction:  # a full disk rolls back by itself
                self.connection.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # Trials ------------------------------------------------------------------------------------------------------

    @property
    def trials(self) -> list[Trial]:
        """All trials in the order of their numbers."""
        return list(self._trials.values())

    def trial(self, number: int) -> Trial:
        """The trial of that number."""
        return self._trials[number]

    @property
    def baselines(self) -> list[Trial]:
        """The trials of baselines, their confirmation apart."""
        return [self._trials[number] for number in self._baselines]

    def result_of(self, fingerprint: str, evaluator: str, seed: int) -> Trial | None:
        """The finished trial (done or failed) that measured this, if there is one."""
        number = self._results.get((fingerprint, evaluator, seed))
        return None if number is None else self._trials[number]

    def add_batch(
        self, batch: int, asked: int, proposals: Sequence[Proposal], seed: int, baselines: Sequence[str] | None = None
    ) -> list[Trial]:
        """Record all proposals of one `ask` as WAITING, in one transaction.

        Args:
            batch: Number of the batch; 0 for baselines, which may be added to.
            asked: The `n` of the `ask`.
            proposals: What the controller proposed.
            seed: Seed for proposals without one.
            baselines: A name for each proposal, if these are baselines.
        """
        number = max(self._trials, default=0)
        added = []
        with self._transaction():
            self.connection.execute("INSERT OR IGNORE INTO batches VALUES (?, ?)", (batch, asked))
            for index, proposal in enumerate(proposals):
                number += 1
                architecture: ArchitectureLike = proposal.architecture
                tags = _dumps(proposal.tags)
                trial = Trial(
                    number=number,
                    batch=batch,
                    asked=asked,
                    architecture=architecture,
                    evaluator=proposal.evaluator,
                    seed=seed if proposal.seed is None else proposal.seed,
                    tags=json.loads(tags),  # what a resumed run would read, so that both runs see the same
                    state="WAITING",
                    baseline=baselines[index] if baselines else None,
                )
                self.connection.execute(
                    "INSERT INTO trials (number, batch, baseline, fingerprint, evaluator, seed, architecture, tags, "
                    "state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'WAITING')",
                    (number, batch, trial.baseline, architecture.fingerprint, trial.evaluator, trial.seed,
                     architecture.to_json(), tags),
                )  # fmt: skip
                added.append(trial)
        self._trials.update((trial.number, trial) for trial in added)
        self._baselines += [t.number for t in added if t.baseline is not None and t.batch != CONFIRM]
        return added

    def start(self, number: int) -> Trial:
        """Record that a trial is about to run, by this process."""
        with self._transaction():
            self.connection.execute(
                "UPDATE trials SET state = 'RUNNING', attempts = attempts + 1, pid = ?, started = ? WHERE number = ?",
                (os.getpid(), time.time(), number),
            )
        return self._update(number, state="RUNNING", attempts=self._trials[number].attempts + 1)

    def wait(self, number: int, *, count_attempt: bool) -> Trial:
        """Put a trial that did not finish back in the queue."""
        attempts = self._trials[number].attempts - (0 if count_attempt else 1)
        with self._transaction():
            self.connection.execute(
                "UPDATE trials SET state = 'WAITING', attempts = ? WHERE number = ?", (attempts, number)
            )
        return self._update(number, state="WAITING", attempts=attempts)

    def finish(self, number: int, measurement: Measurement, spent: Spent, stage: str) -> Trial:
        """Record a result and charge what it cost."""
        text = _dumps(measurement.to_dict())
        with self._transaction():
            self._end(number, "DONE", measurement=text)
            self._charge(f"trial:{number}", stage, spent)
        return self._update(
            number, state="DONE", measurement=Measurement.from_dict(json.loads(text)), spent=spent, result=True
        )

    def fail(self, number: int, cause: str, traceback: str, spent: Spent, stage: str) -> Trial:
        """Record a failure with its cause and the tail of its traceback, and charge what it cost."""
        with self._transaction():
            self._end(number, "FAILED", cause=cause, traceback=traceback)
            self._charge(f"trial:{number}", stage, spent)
        return self._update(number, state="FAILED", cause=cause, spent=spent, result=True)

    def reuse(self, number: int, earlier: Trial) -> Trial:
        """Give a trial the outcome of an earlier one that measured the same; it costs nothing."""
        text = None if earlier.measurement is None else _dumps(earlier.measurement.to_dict())
        with self._transaction():
            self._end(number, earlier.state, measurement=text, cause=earlier.cause, duplicate_of=earlier.number)
        return self._update(
            number,
            state=earlier.state,
            measurement=earlier.measurement,
            cause=earlier.cause,
            duplicate_of=earlier.number,
        )

    def _end(self, number: int, state: TrialState, **columns: Any) -> None:
        columns |= {"state": state, "ended": time.time()}
        assignments = ", ".join(f"{name} = ?" for name in columns)  # names from this module only
        self.connection.execute(f"UPDATE trials SET {assignments} WHERE number = ?", (*columns.values(), number))

    def _update(self, number: int, *, result: bool = False, **changes: Any) -> Trial:
        before = self._trials[number]
        trial = self._trials[number] = replace(before, **changes)
        self.counts.subtract(_kinds(before))
        self.counts.update(_kinds(trial))
        if result:
            self._results[trial.architecture.fingerprint, trial.evaluator, trial.seed] = number
        return trial

    def times(self) -> dict[int, tuple[float | None, float | None]]:
        """Start and end of every trial, in seconds since 1970."""
        rows = self.connection.execute("SELECT number, started, ended FROM trials")
        return {number: (started, ended) for number, started, ended in rows}

    def traceback(self, number: int) -> str | None:
        """Tail of the traceback of a failed trial."""
        row = self.connection.execute("SELECT traceback FROM trials WHERE number = ?", (number,)).fetchone()
        return None if row is None else row[0]

    # Ledger and sessions -----------------------------------------------------------------------------------------

    def _charge(self, key: str, stage: str, spent: Spent) -> None:
        columns = ", ".join(_SPENT)  # names from this module only
        if self._totals is not None:
            old = self.connection.execute(f"SELECT stage, {columns} FROM charges WHERE key = ?", (key,)).fetchone()
            if old is not None:
                self._totals[old[0]] += -Spent(*old[1:])
            self._totals[stage] = self._totals.get(stage, Spent()) + spent
        self.connection.execute(
            f"INSERT OR REPLACE INTO charges (key, stage, {columns}) VALUES (?, ?{', ?' * len(_SPENT)})",
            (key, stage, *astuple(spent)),
        )

    def charge(self, key: str, stage: str, spent: Spent) -> None:
        """Charge the ledger; a later charge of the same key replaces the earlier."""
        with self._transaction():
            self._charge(key, stage, spent)

    def spent(self) -> dict[str, Spent]:
        """What was spent, by stage. Added up once, then kept up: it is asked for several times a trial."""
        if self._totals is None:
            there = self._charge_columns()
            sums = ", ".join(f"SUM({name})" if name in there else "0" for name in _SPENT)
            rows = self.connection.execute(f"SELECT stage, {sums} FROM charges GROUP BY stage")
            self._totals = {row[0]: Spent(*row[1:]) for row in rows}
        return dict(sorted(self._totals.items()))

    def open_session(self) -> int:
        """Record that a process begins to work on the study; returns the session's number."""
        with self._transaction():
            cursor = self.connection.execute(
                "INSERT INTO sessions (pid, host, started, seconds) VALUES (?, ?, ?, 0)",
                (os.getpid(), socket.gethostname(), time.time()),
            )
        return int(cursor.lastrowid or 0)

    def keep_session(self, session: int, seconds: float) -> None:
        """Record how long a session has worked so far."""
        with self._transaction():
            self.connection.execute("UPDATE sessions SET seconds = ? WHERE id = ?", (seconds, session))

    def worked(self) -> float:
        """Wall-clock seconds that all sessions recorded."""
        return float(self.connection.execute("SELECT COALESCE(SUM(seconds), 0) FROM sessions").fetchone()[0])
