"""Trials in one SQLite file, written so that killing the process at any instant loses no finished trial.

A trial is recorded as WAITING with its whole batch before anything runs, as RUNNING when it starts, and as DONE or
FAILED in the same transaction that charges the ledger for it. Each transaction is flushed to the disk (write-ahead log,
`synchronous=FULL`), and a unique index forbids a second measurement of one (architecture, evaluator, seed).
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from rankitect.contracts import ArchitectureLike, Measurement, Proposal, Spent, Trial, TrialState
from rankitect.errors import RunFolderError, brief
from rankitect.study.batches import Batches
from rankitect.study.charges import Charges, trial_key
from rankitect.study.checksums import count, sign
from rankitect.study.database import connect, is_blank, reading
from rankitect.study.index import TrialIndex
from rankitect.study.rows import Contents, read

__all__ = ["Store"]


_LEFT = ("summary.json", "trials.csv", "trials", "state")
"""What is beside a study's file only once that was made."""


def _dumps(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _read(path: Path, decode: Callable[[str], Any] | None, stack: ExitStack) -> tuple[sqlite3.Connection, Contents]:
    """A file that is opened to read, until the stack is closed, and what it holds."""
    connection = stack.enter_context(reading(path))
    try:
        return connection, read(path, connection, decode)
    except BaseException:
        stack.close()
        raise


def _open(
    path: Path,
    decode: Callable[[str], Any] | None,
    before_writing: Callable[[Sequence[Trial]], None],
    stack: ExitStack,
) -> tuple[sqlite3.Connection, Contents]:
    """A file that is opened to write, until the stack is closed, and what it held; nothing where there was none."""
    contents = Contents({}, {}, {})
    if is_blank(path):
        _refuse_lost(path)
    else:
        with reading(path, alone=True) as connection:
            contents = read(path, connection, decode)
    before_writing(list(contents.trials.values()))
    connection = connect(path)
    stack.callback(connection.close)
    return connection, contents


def _refuse_lost(path: Path) -> None:
    """Refuse to begin a study where one was: what it measured would be measured again, over its results."""
    if (left := next((name for name in _LEFT if (path.parent / name).exists()), None)) is not None:
        state = "holds nothing" if path.exists() else "is gone"
        raise RunFolderError(
            f"{brief(path)} {state}, and the {left} beside it is of a search that has begun: what it measured would be "
            "measured again. Restore the file from a copy, or start again with another output_dir=."
        )


class Store:
    """The study's SQLite file. One process writes; others may open it read-only.

    Args:
        path: The file; created if missing, unless read-only.
        decode: Makes an architecture from its JSON; None, for a reader without its space: each is a `Recorded`.
        readonly: Open for reading only, as reports do.
        before_writing: Given what the file holds, once that is found in order; what it raises leaves the file as it is.

    Raises:
        RunFolderError: The file is no study, is damaged, or was written by another version of the format; trials are
            of another space; or the file is empty or gone, and its folder is of a search that has begun.

    Attributes:
        connection: The open file.
        charges: What was spent.
        counts: How many trials are "FAILED", and how many are "measured" and count against the budget.
        batches: What was asked for.
    """

    def __init__(
        self,
        path: Path,
        decode: Callable[[str], Any] | None,
        *,
        readonly: bool = False,
        before_writing: Callable[[Sequence[Trial]], None] = lambda trials: None,
    ) -> None:
        self.path = path
        self._stack = ExitStack()
        self.connection, contents = (
            _read(path, decode, self._stack) if readonly else _open(path, decode, before_writing, self._stack)
        )
        self._index = TrialIndex(contents.trials)
        self.batches = Batches(self.connection, contents.standings)
        self.charges = Charges(self.connection, contents.totals)
        self.counts = self._index.counts

    def close(self) -> None:
        """Close the file."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def trials(self) -> list[Trial]:
        """All trials in the order of their numbers."""
        return list(self._index.trials.values())

    def trial(self, number: int) -> Trial:
        """The trial of that number."""
        return self._index.trials[number]

    @property
    def baselines(self) -> list[Trial]:
        """The trials of baselines, their confirmation apart."""
        return self._index.baselines()

    def result_of(self, fingerprint: str, evaluator: str, seed: int) -> Trial | None:
        """The finished trial (done or failed) that measured this, if there is one."""
        return self._index.result_of(fingerprint, evaluator, seed)

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
        number = max(self._index.trials, default=0)
        added = []
        with self.charges.transaction():
            self.batches.record(batch, asked)
            count(self.connection, "trials", len(proposals))
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
                sign(self.connection, "trials", number)
                added.append(trial)
        self._index.add(added)
        return added

    def start(self, number: int) -> Trial:
        """Record that a trial is about to run, by this process."""
        with self.charges.transaction():
            self.connection.execute(
                "UPDATE trials SET state = 'RUNNING', attempts = attempts + 1, pid = ?, started = ? WHERE number = ?",
                (os.getpid(), time.time(), number),
            )
            sign(self.connection, "trials", number)
        return self._index.update(number, state="RUNNING", attempts=self._index.trials[number].attempts + 1)

    def wait(self, number: int, *, count_attempt: bool) -> Trial:
        """Put a trial that did not finish back in the queue."""
        attempts = self._index.trials[number].attempts - (0 if count_attempt else 1)
        with self.charges.transaction():
            self.connection.execute(
                "UPDATE trials SET state = 'WAITING', attempts = ? WHERE number = ?", (attempts, number)
            )
            sign(self.connection, "trials", number)
        return self._index.update(number, state="WAITING", attempts=attempts)

    def retry(self, number: int) -> list[Trial]:
        """Put a failed trial back in the queue, as if it had not been tried, with those that took its result over.

        What the failure cost stays charged.
        """
        again = [t.number for t in self._index.trials.values() if number in (t.number, t.duplicate_of)]
        with self.charges.transaction():
            for each in again:
                self.connection.execute(
                    "UPDATE trials SET state = 'WAITING', attempts = 0, duplicate_of = NULL, cause = NULL, "
                    "traceback = NULL, ended = NULL WHERE number = ?",
                    (each,),
                )
                sign(self.connection, "trials", each)
            self.charges.set_aside(trial_key(number))
        reset: dict[str, Any] = {"attempts": 0, "duplicate_of": None, "cause": None, "spent": Spent()}
        return [self._index.update(each, state="WAITING", **reset) for each in again]

    def withdraw(self, batches: Collection[int]) -> list[Trial]:
        """Note that the configuration of now does not ask for these batches; gives what was not finished in them.

        That is deleted: it was wanted by the earlier configuration alone, and nothing of it was charged.
        """
        dropped = [t for t in self._index.trials.values() if t.batch in batches and not t.finished]
        with self.charges.transaction():
            for trial in dropped:
                self.connection.execute("DELETE FROM trials WHERE number = ?", (trial.number,))
            count(self.connection, "trials", -len(dropped))
            self.batches.stand(batches, "apart")
        self._index.drop(dropped)
        return dropped

    def finish(self, number: int, measurement: Measurement, spent: Spent, stage: str) -> Trial:
        """Record a result and charge what it cost."""
        text = _dumps(measurement.to_dict())
        with self.charges.transaction():
            self._end(number, "DONE", measurement=text)
            self.charges.record(trial_key(number), stage, spent)
        return self._index.update(
            number, state="DONE", measurement=Measurement.from_dict(json.loads(text)), spent=spent
        )

    def fail(self, number: int, cause: str, traceback: str, spent: Spent, stage: str) -> Trial:
        """Record a failure with its cause and the tail of its traceback, and charge what it cost."""
        with self.charges.transaction():
            self._end(number, "FAILED", cause=cause, traceback=traceback)
            self.charges.record(trial_key(number), stage, spent)
        return self._index.update(number, state="FAILED", cause=cause, spent=spent)

    def reuse(self, number: int, earlier: Trial) -> Trial:
        """Give a trial the outcome of an earlier one that measured the same; it costs nothing."""
        text = None if earlier.measurement is None else _dumps(earlier.measurement.to_dict())
        with self.charges.transaction():
            self._end(number, earlier.state, measurement=text, cause=earlier.cause, duplicate_of=earlier.number)
        return self._index.update(
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
        sign(self.connection, "trials", number)

    def times(self) -> dict[int, tuple[float | None, float | None]]:
        """Start and end of every trial, in seconds since 1970."""
        rows = self.connection.execute("SELECT number, started, ended FROM trials")
        return {number: (started, ended) for number, started, ended in rows}
