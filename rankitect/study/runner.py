"""How one trial is measured, and the runner that does so in the study's own process.

Runners that use other processes are in `rankitect.runners`.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rankitect.contracts import Job, JobResult, Spent, StopRequested, TrialContext
from rankitect.study.checks import one_line, problem, seed_everything
from rankitect.study.files import disk_trouble

if TYPE_CHECKING:
    from rankitect.contracts import Evaluator

__all__ = ["Inline", "measure"]


def measure(evaluator: Evaluator, job: Job, context: TrialContext) -> JobResult:
    """Measure one job; the same wherever it runs.

    Args:
        evaluator: Measures.
        job: The job.
        context: What the evaluator is given.

    Raises:
        StopRequested: The user asked to stop.
    """
    started = time.monotonic()

    def spent(charged: Spent) -> Spent:
        return replace(charged, seconds=time.monotonic() - started)

    try:
        seed_everything(job.seed)
        measurement = evaluator.measure(job.architecture, context)
        trouble = problem(measurement, evaluator.metrics)
    except (StopRequested, KeyboardInterrupt):
        raise
    except Exception as error:
        disk = disk_trouble(error, context.run_folder)
        return JobResult(job.number, None, one_line(error), traceback.format_exc(), spent(context.spent), disk=disk)
    if trouble:
        return JobResult(job.number, None, trouble, "", spent(measurement.spent))
    return JobResult(job.number, measurement, spent=spent(measurement.spent))


class Inline:
    """One job at a time, in this process.

    Args:
        evaluators: Evaluators by the key that jobs use.
        run_folder: The run folder.
        stop: Whether the user asked to stop.
        progress: Told trial, steps done, steps in all, and a note.
    """

    workers = 1

    def __init__(
        self,
        evaluators: Mapping[str, Evaluator],
        run_folder: Path,
        stop: Callable[[], bool] = lambda: False,
        progress: Callable[[int, int, int, str], None] = lambda number, done, total, note: None,
    ) -> None:
        self._evaluators, self._run_folder, self._stop, self._progress = evaluators, run_folder, stop, progress
        self._jobs: list[Job] = []

    def start(self, shared: Mapping[str, bytes]) -> None:
        """Does nothing, because the evaluators are those of this process and know what they have learned."""

    def submit(self, job: Job) -> None:
        """Take a job."""
        self._jobs.append(job)

    def wait(self) -> list[JobResult]:
        """Measure the next job."""
        job = self._jobs.pop(0)
        progress = partial(self._progress, job.number)
        context = TrialContext(self._run_folder, job.folder, job.seed, self._stop, progress, baseline=job.baseline)
        return [measure(self._evaluators[job.evaluator], job, context)]

    def cancel(self) -> None:
        """Forget what has not begun."""
        self._jobs.clear()

    def close(self) -> None:
        """Does nothing."""
