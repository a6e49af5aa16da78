"""Trials in processes of this machine. One that dies, hangs or takes too much memory takes no other down."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future
from concurrent.futures import wait as wait_for
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver
from typing import TYPE_CHECKING, Any

from rankitect.contracts import Job, JobResult, Spent, StopRequested
from rankitect.errors import ConfigError
from rankitect.runners.workers import TOO_LONG, RemoteJob, RemoteResult, SetUpError, WorkerSetup, quiet, run_job
from rankitect.study.checks import one_line

if TYPE_CHECKING:
    from pebble import ProcessPool

__all__ = ["Pool", "import_ahead"]

_MOMENT = 0.2
"""Seconds between two looks at whether the user asked to stop."""


_COMMON = (
    "torch",
    "rankitect.config.resolve",
    "rankitect.space.sampling",
    "rankitect.blocks",
    "rankitect.config.parts",
)


def context() -> Any:
    """How processes are started: never as a fork of this one, which has torch's threads. Such a fork may hang.

    On Linux they are forks of a server without threads that has the heavy packages imported (`import_ahead`).
    """
    return multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")


def import_ahead(modules: Sequence[str] = ()) -> None:
    """Have the server import what workers need while this process imports the same: a worker then starts at once.

    Args:
        modules: To be imported beside those that every worker needs.
    """
    if sys.platform == "linux":
        context().set_forkserver_preload([*_COMMON, *modules])
        forkserver.ensure_running()


class Pool:
    """Processes that live as long as the study, each with parts of its own.

    Args:
        workers: How many processes.
        setup: What a worker needs.
        stop: Whether the user asked to stop.
    """

    def __init__(self, workers: int, setup: WorkerSetup, stop: Callable[[], bool] = lambda: False) -> None:
        self.workers, self._setup, self._stop = workers, setup, stop
        self._shared: Mapping[str, bytes] = {}
        self._pool: ProcessPool | None = None
        self._running: dict[Future[Any], tuple[Job, float]] = {}

    def start(self, shared: Mapping[str, bytes]) -> None:
        """Replace the workers that were begun for baselines, which know nothing of what was learned since."""
        if shared:
            self.close()
            self._shared = shared
            self._setup = WorkerSetup(**{**vars(self._setup), "key": f"{self._setup.key} prepared"})

    def submit(self, job: Job) -> None:
        """Begin a job."""
        if self._pool is None or not self._pool.active:
            from pebble import ProcessPool

            self._pool = ProcessPool(max_workers=self.workers, initializer=quiet, context=context())
        arguments = [self._setup, self._shared, RemoteJob.of(job, shared_disk=True)]
        self._running[self._pool.schedule(run_job, args=arguments)] = (job, time.monotonic())

    def wait(self) -> list[JobResult]:
        """The results of the trials that end within a moment.

        Raises:
            StopRequested: The user asked to stop.
            ConfigError: A process cannot make the parts that measure.
        """
        if self._stop():
            raise StopRequested
        ended, _ = wait_for(list(self._running), timeout=_MOMENT, return_when=FIRST_COMPLETED)
        return [self._done(future, *self._running.pop(future)) for future in ended]

    def _done(self, future: Future[Any], job: Job, started: float) -> JobResult:
        from pebble import ProcessExpired

        spent = Spent(seconds=time.monotonic() - started)
        try:
            answer: RemoteResult = future.result()
        except ProcessExpired as error:
            if error.exitcode == TOO_LONG:
                minutes = (self._setup.seconds or 0.0) / 60
                return JobResult(job.number, None, f"it took longer than runner.trial_minutes={minutes:g}", "", spent)
            cause = f"the process that measured it ended with code {error.exitcode} (out of memory?)"
            return JobResult(job.number, None, cause, "", spent, lost=True)
        except BrokenProcessPool as error:
            self._pool = None
            return JobResult(job.number, None, f"the pool of processes broke ({one_line(error)})", "", spent, lost=True)
        except SetUpError as error:
            raise ConfigError(f"A process that measures trials cannot be set up: {error}") from error
        except Exception as error:
            return JobResult(job.number, None, one_line(error), "", spent)
        return answer.result

    def cancel(self) -> None:
        """End the processes with what they measure."""
        self.close()

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.stop()
            self._pool.join()
            self._pool = None
        self._running.clear()
