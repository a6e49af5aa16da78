"""What carries out measurements: in the study's process, in processes of this machine, or on a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from rankitect.contracts.controller import Controller, Session
from rankitect.contracts.records import Measurement, Spent

__all__ = ["Job", "JobResult", "PreparesElsewhere", "Runner"]


@dataclass(frozen=True)
class Job:
    """One measurement to make.

    Attributes:
        number: Number of the trial.
        architecture: What is measured.
        evaluator: Key of the evaluator.
        seed: Seed of the measurement.
        folder: An empty folder for the trial's artifacts.
        attempt: How often the trial was started, this time included.
        baseline: Whether it is a model to compare with.
    """

    number: int
    architecture: Any
    evaluator: str
    seed: int
    folder: Path
    attempt: int = 1
    baseline: bool = False


@dataclass(frozen=True)
class JobResult:
    """What became of a job: a measurement, or the cause why there is none.

    Attributes:
        number: Number of the trial.
        measurement: The result.
        cause: Why it failed, in one line.
        trace: The traceback.
        spent: What it cost, seconds included.
        lost: The process or machine that measured it ended, so it is worth another attempt.
        disk: `errno` of a disk that could not be written, for which the candidate is not to blame; 0 otherwise.
    """

    number: int
    measurement: Measurement | None = None
    cause: str = ""
    trace: str = ""
    spent: Spent = field(default_factory=Spent)
    lost: bool = False
    disk: int = 0


class Runner(Protocol):
    """Measures jobs, up to `workers` of them at a time."""

    workers: int
    """Jobs that may be under way at the same time."""

    def start(self, shared: Mapping[str, bytes]) -> None:
        """Called once, when the controller has prepared and before its first proposal is submitted.

        Args:
            shared: What the evaluators of the study's process have learned by then, for those of other processes.
        """
        ...

    def submit(self, job: Job) -> None:
        """Take a job. The study never has more than `workers` jobs under way."""
        ...

    def wait(self) -> list[JobResult]:
        """Block until a job has ended, or for a moment; return those that have ended.

        Raises:
            StopRequested: The user asked to stop, and what was being measured is given up.
        """
        ...

    def cancel(self) -> None:
        """Give up all jobs that are under way."""
        ...

    def close(self) -> None:
        """End all processes."""
        ...


class PreparesElsewhere(Protocol):
    """A runner that can do a controller's `prepare` in processes of its own."""

    def prepare(self, session: Session, controller: Controller) -> None:
        """Called before `controller.prepare`, which then finds the work done in `session.state_dir`.

        Raises:
            StopRequested: The user asked to stop; what was done is kept.
            TrainingError: The processes failed.
        """
        ...
