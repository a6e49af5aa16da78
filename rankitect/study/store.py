"""Trials in one SQLite file, written so that killing the process at any instant loses no finished trial.

A trial is recorded as WAITING with its whole batch before anything runs, as RUNNING when it starts, and as DONE or
FAILED in the same transaction that charges the ledger for it. Each transaction is flushed to the disk (write-ahead log,
`synchronous=FULL`), and a unique index forbids a second measurement of one (architecture, evaluator, seed).
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from rankitect.contracts import ArchitectureLike, Measurement, Proposal, Spent, Trial, TrialState
from rankitect.study.charges import Charges
from rankitect.study.checksums import count, sign
from rankitect.study.confirming import CONFIRM
from rankitect.study.database import connect, reading
from rankitect.study.rows import Contents, Standing, read

__all__ = ["Store"]


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
        decode: Makes an architecture from its JSON; None, for a reader without its space: each is a `Recorded`.
        readonly: Open for reading only, as reports do.
        before_writing: Given what the file holds, once that is found in order; what it raises leaves the file as it is.

    Raises:
        RunFolderError: The file is no study, is damaged, or was written by another version of the format; or trials are
            of another space.

    Attributes:
        connection: The open file.
        charges: What was spent.
        counts: How many trials are "FAILED", and how many are "measured" and count against the budget.
        standings: What each batch is to the configuration of now, by its number.
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
        if readonly:
            self.connection = self._stack.enter_context(reading(path))
            try:
                contents = read(path, self.connection, decode)
            except BaseException:
                self._stack.close()
                raise
        else:
            contents = self._before(decode)
            before_writing(list(contents.trials.values()))
            self.connection = connect(path)
            self._stack.callback(self.connection.close)
        self._trials, self.standings = contents.trials, contents.standings
        self.charges = Charges(self.connection, contents.totals)
        # Counted as trials come and end. Going through thousands of trials for each new one would take longer than the
        # measurement of a cheap one.
        self.counts = Counter(kind for trial in self._trials.values() for kind in _kinds(trial))
        self._baselines = [n for n, t in self._trials.items() if t.baseline is not None and t.batch != CONFIRM]
        self._results = {
            (trial.architecture.fingerprint, trial.evaluator, trial.seed): trial.number
            for trial in self._trials.values()
            if trial.finished and trial.duplicate_of is None
        }

    def _before(self, decode: Callable[[str], Any] | None) -> Contents:
        """What an existing file holds; nothing where there is none."""
        if not self.path.exists() or self.path.stat().st_size == 0:
            return Contents({}, {}, {})
        with reading(self.path, alone=True) as connection:
            return read(self.path, connection, decode)

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
        with self.charges.transaction():
            if batch not in self.standings:
                self.connection.execute("INSERT INTO batches (batch, asked) VALUES (?, ?)", (batch, asked))
                sign(self.connection, "batches", batch)
                count(self.connection, "batches", 1)
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
        self.standings.setdefault(batch, "own")
        self._trials.update((trial.number, trial) for trial in added)
        self._baselines += [t.number for t in added if t.baseline is not None and t.batch != CONFIRM]
        return added

    def start(self, number: int) -> Trial:
        """Record that a trial is about to run, by this process."""
        with self.charges.transaction():
            self.connection.execute(
                "UPDATE trials SET state = 'RUNNING', attempts = attempts + 1, pid = ?, started = ? WHERE number = ?",
                (os.getpid(), time.time(), number),
            )
            sign(self.connection, "trials", number)
        return self._update(number, state="RUNNING", attempts=self._trials[number].attempts + 1)

    def wait(self, number: int, *, count_attempt: bool) -> Trial:
        """Put a trial that did not finish back in the queue."""
        attempts = self._trials[number].attempts - (0 if count_attempt else 1)
        with self.charges.transaction():
            self.connection.execute(
                "UPDATE trials SET state = 'WAITING', attempts = ? WHERE number = ?", (attempts, number)
            )
            sign(self.connection, "trials", number)
        return self._update(number, state="WAITING", attempts=attempts)

    def finish(self, number: int, measurement: Measurement, spent: Spent, stage: str) -> Trial:
        """Record a result and charge what it cost."""
        text = _dumps(measurement.to_dict())
        with self.charges.transaction():
            self._end(number, "DONE", measurement=text)
            self.charges.record(f"trial:{number}", stage, spent)
        return self._update(
            number, state="DONE", measurement=Measurement.from_dict(json.loads(text)), spent=spent, result=True
        )

    def fail(self, number: int, cause: str, traceback: str, spent: Spent, stage: str) -> Trial:
        """Record a failure with its cause and the tail of its traceback, and charge what it cost."""
        with self.charges.transaction():
            self._end(number, "FAILED", cause=cause, traceback=traceback)
            self.charges.record(f"trial:{number}", stage, spent)
        return self._update(number, state="FAILED", cause=cause, spent=spent, result=True)

    def reuse(self, number: int, earlier: Trial) -> Trial:
        """Give a trial the outcome of an earlier one that measured the same; it costs nothing."""
        text = None if earlier.measurement is None else _dumps(earlier.measurement.to_dict())
        with self.charges.transaction():
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
        sign(self.connection, "trials", number)

    def _update(self, number: int, *, result: bool = False, **changes: Any) -> Trial:
        before = self._trials[number]
        trial = self._trials[number] = replace(before, **changes)
        self.counts.subtract(_kinds(before))
        self.counts.update(_kinds(trial))
        if result:
            self._results[trial.architecture.fingerprint, trial.evaluator, trial.seed] = number
        return trial

    # --- another configuration, by `resume=force` ---------------------------------------------------------------------
    def question(self) -> None:
        """Note that no batch is known to be of the configuration of now."""
        self._stand([n for n, standing in self.standings.items() if n > 0 and standing == "own"], "earlier")

    def own(self, batch: int) -> None:
        """Note that the configuration of now has asked for this batch as well."""
        self._stand([batch], "own")

    def set_apart(self, batches: Collection[int]) -> list[Trial]:
        """Note that the configuration of now does not ask for these batches; gives what was not finished in them.

        That is deleted: it was wanted by the earlier configuration alone, and nothing of it was charged.
        """
        dropped = [t for t in self._trials.values() if t.batch in batches and not t.finished]
        with self.charges.transaction():
            for trial in dropped:
                self.connection.execute("DELETE FROM trials WHERE number = ?", (trial.number,))
            count(self.connection, "trials", -len(dropped))
        for trial in dropped:
            del self._trials[trial.number]
        self._stand(batches, "apart")
        return dropped

    def _stand(self, batches: Iterable[int], standing: Standing) -> None:
        with self.charges.transaction():
            for batch in batches:
                self.connection.execute("UPDATE batches SET standing = ? WHERE batch = ?", (standing, batch))
                sign(self.connection, "batches", batch)
                self.standings[batch] = standing

    def times(self) -> dict[int, tuple[float | None, float | None]]:
        """Start and end of every trial, in seconds since 1970."""
        rows = self.connection.execute("SELECT number, started, ended FROM trials")
        return {number: (started, ended) for number, started, ended in rows}

    def traceback(self, number: int) -> str | None:
        """Tail of the traceback of a failed trial."""
        row = self.connection.execute("SELECT traceback FROM trials WHERE number = ?", (number,)).fetchone()
        return None if row is None else row[0]
