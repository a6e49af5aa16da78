"""Hands trials to a runner and records what becomes of them."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from rankitect.contracts import Job, JobResult, Runner, StopRequested, Trial
from rankitect.study.checks import in_words
from rankitect.study.ledger import stage_of

if TYPE_CHECKING:
    from rankitect.study.folder import RunFolder
    from rankitect.study.store import Store

__all__ = ["Dispatch"]

_BACK_OFF = (0.0, 1.0, 4.0, 16.0)
"""Seconds before another attempt at a trial whose worker was lost, by attempt."""


class Dispatch:
    """Trials on their way through a runner. Each is recorded before it is run and after.

    Args:
        store: The study's store.
        folder: The run folder.
        runner: Measures.
        attempts: How often a trial may end with its process before it counts as failed.
        failures: Failed trials in a row after which the run is given up.
        over: The limit of the budget that is reached, or None.
        stop: Whether the user asked to stop.
        shown: Told every trial that was measured, and a sentence where it failed.

    Attributes:
        failed: Failures in a row.
        duplicates: Reused results in a row.
        ended: Why no more trials are begun, if so.
    """

    def __init__(
        self,
        store: Store,
        folder: RunFolder,
        runner: Runner,
        *,
        attempts: int,
        failures: int,
        over: Callable[[], str | None],
        stop: Callable[[], bool],
        shown: Callable[[Trial, str | None], None],
    ) -> None:
        self._store, self._folder, self._runner = store, folder, runner
        self._attempts, self._most, self._over, self._stop, self._shown = attempts, failures, over, stop, shown
        self._queue: deque[int] = deque()
        self._running: dict[int, Job] = {}
        self._not_before: dict[int, float] = {}
        self._met: set[int] = set()  # trials of an earlier configuration that were reused
        self._logger = logging.getLogger("rankitect")
        self.failed = self.duplicates = 0
        self.ended: str | None = None

    def add(self, trials: Sequence[Trial]) -> None:
        """Queue the trials that are not finished."""
        self._queue.extend(trial.number for trial in trials if not trial.finished)

    def forget(self, trials: Sequence[Trial]) -> None:
        """Take trials out of the queue, with what an earlier process left of them."""
        for trial in trials:
            with suppress(ValueError):
                self._queue.remove(trial.number)
            shutil.rmtree(self._folder.trial_folder(trial.number, trial.architecture.fingerprint), ignore_errors=True)

    def until(self, trials: Sequence[Trial], *, free: bool = False) -> str | None:
        """Measure until all of these trials are finished; others are measured beside them.

        Args:
            trials: Trials that were added.
            free: Neither the budget nor failures are a concern of theirs; no others are begun.

        Returns:
            Why the run ends before that, if it does; then nothing is running any more.

        Raises:
            StopRequested: The user asked to stop; nothing is running any more.
            OSError: The run folder cannot be written.
        """
        only = {trial.number for trial in trials} if free else None
        if free:
            self.ended = None
        try:
            while any(not self._store.trial(trial.number).finished for trial in trials):
                if self._stop():
                    raise StopRequested
                self._fill(only)
                if self._running:
                    self._collect(free)
                elif self.ended:
                    return self.ended
                elif self._queue:
                    time.sleep(0.05)  # all that is left waits for another attempt
            return self._drained() if self.ended else None
        except BaseException as error:
            self._runner.cancel()
            blameless = isinstance(error, (StopRequested, KeyboardInterrupt, OSError))
            for number in self._running if blameless else ():
                with suppress(sqlite3.Error):  # the disk may be what ends this
                    self._store.wait(number, count_attempt=False)
            self._running.clear()
            raise

    def abandon(self) -> None:
        """Give up what is running; it is measured again when the study goes on, and that is no fault of the trial."""
        if self._running:
            self._runner.cancel()
        for number in self._running:
            self._store.wait(number, count_attempt=False)
        self._running.clear()

    def _drained(self) -> str | None:
        """Finish what was begun."""
        while self._running:
            self._collect(False)
        return self.ended

    def _fill(self, only: Collection[int] | None) -> None:
        """Begin as many trials as the runner has room for; `only` these, whatever the budget, or any within it."""
        waiting: list[int] = []
        while self._queue and len(self._running) < self._runner.workers and not self.ended:
            number = self._queue.popleft()
            if only is not None and number not in only:
                waiting.append(number)
                continue
            trial = self._store.trial(number)
            key = (trial.architecture.fingerprint, trial.evaluator, trial.seed)
            earlier = self._store.result_of(*key)
            if earlier is not None:
                self._store.reuse(number, earlier)
                self.duplicates += not self._is_news(earlier)
                continue
            # One that is to be measured before, though it waits for another attempt, is not overtaken: which of two
            # equal trials is measured and which is its duplicate must not depend on what was killed.
            before = [self._store.trial(n) for n in (*self._running, *waiting)]
            same = any((t.architecture.fingerprint, t.evaluator, t.seed) == key for t in before)
            if same or self._not_before.get(number, 0.0) > time.monotonic():
                waiting.append(number)
                continue
            if only is None and (ended := self._over()):
                self.ended = ended
                waiting.append(number)
                break
            self._begin(trial)
        self._queue.extendleft(reversed(waiting))

    def _is_news(self, earlier: Trial) -> bool:
        """Whether a result of an earlier configuration is reused for the first time: a controller that proposes it has
        not run out of proposals."""
        news = self._store.batches.standings[earlier.batch] == "apart" and earlier.number not in self._met
        self._met.add(earlier.number)
        return news

    def _begin(self, trial: Trial) -> None:
        self.duplicates = 0
        folder = self._folder.fresh_trial_folder(trial.number, trial.architecture.fingerprint)
        started = self._store.start(trial.number)
        job = Job(
            trial.number, trial.architecture, trial.evaluator, trial.seed, folder, started.attempts,
            baseline=trial.baseline is not None,
        )  # fmt: skip
        self._running[trial.number] = job
        self._runner.submit(job)

    def _collect(self, free: bool) -> None:
        for done in self._runner.wait():
            job = self._running[done.number]
            if done.disk:
                # The candidate stays unfinished and is measured again on resume.
                raise OSError(done.disk, os.strerror(done.disk), str(self._folder.path))
            if done.lost and job.attempt < self._attempts:
                self._again(job, done.cause)
            else:
                self._record(done, free)
            del self._running[done.number]
            if job.folder.exists() and not any(job.folder.iterdir()):
                job.folder.rmdir()

    def _again(self, job: Job, cause: str) -> None:
        self._store.wait(job.number, count_attempt=True)
        pause = _BACK_OFF[min(job.attempt - 1, len(_BACK_OFF) - 1)]
        self._not_before[job.number] = time.monotonic() + pause
        self._queue.appendleft(job.number)
        self._logger.warning("trial %d is measured again (attempt %d): %s", job.number, job.attempt + 1, cause)

    def _record(self, done: JobResult, free: bool) -> None:
        trial = self._store.trial(done.number)
        if done.measurement is not None:
            finished = self._store.finish(trial.number, done.measurement, done.spent, stage_of(trial))
            self.failed = 0
            self._logger.info("trial %d done: %s", trial.number, in_words(done.measurement))
            self._shown(finished, None)
            return
        tail = "\n".join(done.trace.splitlines()[-30:])
        failed = self._store.fail(trial.number, done.cause, tail, done.spent, stage_of(trial))
        self.failed += 1
        self._logger.warning("trial %d failed: %s\n%s", trial.number, done.cause, tail)
        self._shown(failed, f"Trial {trial.number} failed and is left out: {done.cause}")
        if self.failed >= self._most and not free:
            self.ended = "failures"
