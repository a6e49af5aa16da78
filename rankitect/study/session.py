"""What the study lends to a controller."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankitect.contracts import Spent, StopRequested, Trial
from rankitect.study.ledger import PREPARE, Ledger

if TYPE_CHECKING:
    from rankitect.study.plan import Hooks, Subject
    from rankitect.study.store import Store

__all__ = ["Scalars", "StudySession"]


class Scalars:
    """TensorBoard scalars. The writer is made at the first value, so that runs without any stay light."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._writer: Any = None

    def add(self, name: str, value: float, step: int) -> None:
        """Write one value; does nothing where TensorBoard is absent or switched off."""
        if self._folder is None:
            return
        if self._writer is None:
            try:
                from tensorboard.summary import Writer  # type: ignore[import-untyped]
            except ImportError:
                self._folder = None
                return
            self._writer = Writer(str(self._folder))
        self._writer.add_scalar(name, value, step)

    def flush(self) -> None:
        """Hand everything to the operating system."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Close the file, if one was opened."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class StudySession:
    """The study's implementation of `rankitect.contracts.Session`.

    Args:
        subject: What is searched.
        seed: The study's seed.
        state_dir: Folder for the controller's checkpoints.
        store: The open store.
        ledger: The open ledger.
        hooks: Progress, and whether the user asked to stop.
        scalars: TensorBoard scalars.
        begun: Called when the controller charges its first work.
    """

    def __init__(
        self,
        subject: Subject,
        seed: int,
        state_dir: Path,
        store: Store,
        ledger: Ledger,
        hooks: Hooks,
        scalars: Scalars,
        begun: Callable[[], object] = lambda: None,
    ) -> None:
        self.space, self.task, self.seed = subject.space, subject.task, seed
        self.state_dir, self.logger = state_dir, logging.getLogger("rankitect")
        self._store, self._ledger, self._hooks, self._scalars = store, ledger, hooks, scalars
        self._begun = begun
        self._since: float | None = time.monotonic()  # None when `prepare` has ended

    @property
    def trials(self) -> list[Trial]:
        """Finished trials in order of proposal, baselines included."""
        return [trial for trial in self._store.trials if trial.finished]

    def charge(self, key: str, spent: Spent) -> None:
        """Charge the stage "prepare"; a later charge of the same key replaces the earlier. Seconds are the study's."""
        self._begun()
        self._ledger.charge(key, PREPARE, replace(spent, seconds=0.0))
        self._charge_clock()

    def prepared(self) -> None:
        """Ends `prepare`: the clock of that stage stops."""
        self._charge_clock()
        self._since = None

    def _charge_clock(self) -> None:
        """Charge the time so far, with every charge, so that a kill loses no more of the clock than of the work."""
        if self._since is not None:
            self._ledger.charge_session(PREPARE, Spent(seconds=time.monotonic() - self._since))

    def spent(self) -> Spent:
        """What the search has spent so far, without baselines."""
        return self._ledger.search()

    def remaining(self) -> float:
        """Share of the budget that is left, in [0, 1]."""
        return self._ledger.remaining()

    def remaining_trials(self) -> float:
        """Share of the trials that are left, in [0, 1]."""
        return self._ledger.remaining("budget.trials")

    def should_stop(self) -> bool:
        """True when the user asked to stop."""
        return self._hooks.stop()

    def check(self) -> None:
        """Raise StopRequested when the user asked to stop."""
        if self._hooks.stop():
            raise StopRequested

    def progress(self, done: int, total: int, note: str = "") -> None:
        """Show progress of prepare."""
        self._hooks.progress.update("prepare", done, total, note)

    def scalar(self, name: str, value: float, step: int) -> None:
        """Write a TensorBoard scalar."""
        self._scalars.add(name, value, step)
