"""What is shown and written while a study runs: progress, TensorBoard scalars, and the files for people."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rankitect.study.ledger import Ledger
from rankitect.study.outputs import Outputs
from rankitect.study.store import Store

if TYPE_CHECKING:
    from rankitect.contracts import Trial
    from rankitect.study.plan import StudyPlan
    from rankitect.study.progress import Progress
    from rankitect.study.session import Scalars
    from rankitect.study.summary import Summary

__all__ = ["Monitor"]

_WRITE_EVERY = 20.0
"""Seconds between two rewrites of trials.csv and summary.json while the run goes on."""
_PAUSE = 30
"""Work that grows with every trial (the front, the files) is repeated after this many times its own duration at the
earliest, so that it takes at most a thirtieth of a long run."""
_QUICK = 0.005
"""Seconds below which the front is computed after every trial."""


class Monitor:
    """Shows every measured trial, and keeps the files of the run folder up to date.

    Args:
        plan: The study's plan.
        store: The open store.
        ledger: The open ledger.
        outputs: Writes the files.
        progress: Where progress is shown.
        scalars: TensorBoard scalars.

    Attributes:
        expected: Trials of the whole search, for the estimate of the time left; None where nobody knows.
    """

    def __init__(
        self,
        plan: StudyPlan,
        store: Store,
        ledger: Ledger,
        outputs: Outputs,
        progress: Progress,
        scalars: Scalars,
    ) -> None:
        self._plan, self._store, self._ledger, self._outputs = plan, store, ledger, outputs
        self._progress, self._scalars = progress, scalars
        self.expected = plan.budget.trials
        self._written = time.monotonic()  # when the files were written last
        self._writing = 0.0  # seconds that this took
        self._next_front = 0.0  # when the front is computed again, at the earliest

    def trial_ended(self, trial: Trial, trouble: str | None) -> None:
        """Show a trial that has been measured.

        Args:
            trial: The finished trial.
            trouble: A sentence for the user, where it failed.
        """
        if trouble is not None:
            self._progress.facts(failed=self._store.counts["FAILED"])
            self._progress.say(trouble)
            return
        if trial.measurement is not None:
            for name, metric in trial.measurement.metrics.items():
                self._scalars.add(f"{trial.evaluator}/{name}", metric.value, trial.number)
        if time.monotonic() >= self._next_front:
            self._show_front(trial)
        self._advance(trial)
        if time.monotonic() - self._written > max(_WRITE_EVERY, _PAUSE * self._writing):
            self._ledger.save()
            self._scalars.flush()
            self.write("running", with_candidates=False)

    def trial_goes_on(self, number: int, done: int, total: int, note: str = "") -> None:
        """Show how far the measurement of a trial is."""
        self._advance(self._store.trial(number), f"trial {number}: {done}/{total} {note}".rstrip())

    def write(self, ended: str, *, with_candidates: bool) -> Summary:
        """Write the files for people; returns what summary.json holds.

        Args:
            ended: How the run ended, or "running".
            with_candidates: Whether to write the folders of the candidates too, which takes longer.
        """
        began = time.monotonic()
        summary = self._outputs.write(self._plan.seed, self._ledger.summary(ended), with_candidates=with_candidates)
        self._written = time.monotonic()
        self._writing = self._written - began
        return summary

    def _show_front(self, trial: Trial) -> None:
        began = time.monotonic()
        front = self._outputs.front()
        if not front:
            return
        first = self._outputs.objectives[0]
        best = front[0].metrics[first.name]
        if trial.evaluator == self._plan.final and self._plan.confirmation.seeds < 2:
            # At once, because a disk is soon full of the weights of every candidate. Where the front is confirmed
            # with more seeds, its members are not known before the end, and everything has to be kept until then.
            self._outputs.drop_dominated(front)
        self._progress.facts(best=f"{first.name} {best.value:.4g} {best.unit}".rstrip() + f", front {len(front)}")
        took = time.monotonic() - began
        self._next_front = began + (_PAUSE * took if took > _QUICK else 0.0)

    def _advance(self, trial: Trial, note: str = "") -> None:
        """Move the bar. Baselines have one of their own: each takes as long as a finalist, which most trials do not."""
        if trial.baseline is None:
            self._progress.update("trials", self._ledger.measured(), self.expected, note)
        else:
            baselines = self._store.baselines
            self._progress.update("baselines", sum(other.finished for other in baselines), len(baselines), note)
