"""Where trials are measured: in this process, in a pool of processes (`pool`), or on a Ray cluster (`cluster`)."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rankitect.contracts import Measurement, Spent, StopRequested, TrialContext
from rankitect.study.checks import one_line, problem, seed_everything
from rankitect.study.files import disk_trouble

if TYPE_CHECKING:
    from rankitect.contracts import Evaluator

__all__ = ["Done", "Inline", "Job", "Runner", "measure"]


@dataclass(frozen=True)
class Job:
    """One measurement to make.

    Attributes:
        number: The trial's.
        architecture: What is measured.
        evaluator: Key of the evaluator.
        seed: Of the measurement.
        folder: For its artifacts, empty.
        attempt: How often it was started, this time included.
    """

    number: int
    architecture: Any
    evaluator: str
    seed: int
    folder: Path
    attempt: int = 1


@dataclass(frozen=True)
class Done:
    """What became of a job: a measurement, or the cause why there is none.

    Attributes:
        number: The trial's.
        measurement: The result.
        cause: Why it failed, in one line.
        trace: The traceback.
        spent: What it cost, seconds included.
        lost: The process or machine that measured it ended: it is worth another attempt.
        disk: `errno` of a disk that could not be written, which is not the candidate's fault; 0 otherwise.
    """

    number: int
    measurement: Measurement | None = None
    cause: str = ""
    trace: str = ""
    spent: Spent = field(default_factory=Spent)
    lost: bool = False
    disk: int = 0


class Runner(Protocol):
    """Measures jobs, some at a time."""

    workers: int

    def start(self, shared: Mapping[str, bytes]) -> None:
        """Called when the controller has prepared; `shared` is what evaluators have learned from it by then."""
        ...

    def submit(self, job: Job) -> None:
        """Take a job. At most `workers` are given at a time."""
        ...

    def wait(self) -> list[Done]:
        """Block until a job has ended, or for a moment; what has ended.

        Raises:
            StopRequested: The user asked to stop, and what was measured is given up.
        """
        ...

    def cancel(self) -> None:
        """Give up all jobs."""
        ...

    def close(self) -> None:
        """End all processes."""
        ...


def measure(evaluator: Evaluator, job: Job, context: TrialContext) -> Done:
    """Measure one job; the same wherever it runs.

    Args:
        evaluator: Measures.
        job: The job.
        context: What the evaluator gets.

    Raises:
        StopRequested: The user asked to stop.
    """
    started = time.monotonic()

    def spent(found: Spent) -> Spent:
        return replace(found, seconds=time.monotonic() - started)

    try:
        seed_everything(job.seed)
        measurement = evaluator.measure(job.architecture, context)
        trouble = problem(measurement, evaluator.metrics)
    except (StopRequested, KeyboardInterrupt):
        raise
    except Exception as error:
        disk = disk_trouble(error, context.run_folder)
        return Done(job.number, None, one_line(error), traceback.format_exc(), spent(context.spent), disk=disk)
    if trouble:
        return Done(job.number, None, trouble, "", spent(measurement.spent))
    return Done(job.number, measurement, spent=spent(measurement.spent))


class Inline:
    """One job at a time, in this process.

    Args:
        evaluators: By key.
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
        """Nothing: evaluators are this process's own."""

    def submit(self, job: Job) -> None:
        """Take a job."""
        self._jobs.append(job)

    def wait(self) -> list[Done]:
        """Measure the next job."""
        job = self._jobs.pop(0)
        progress = partial(self._progress, job.number)
        context = TrialContext(self._run_folder, job.folder, job.seed, self._stop, progress)
        return [measure(self._evaluators[job.evaluator], job, context)]

    def cancel(self) -> None:
        """Forget what has not begun."""
        self._jobs.clear()

    def close(self) -> None:
        """Nothing."""
