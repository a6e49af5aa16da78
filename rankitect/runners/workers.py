"""What runs in a worker: a process, of this machine or another, that measures trials for a study elsewhere.

The study sends a `WorkerSetup` once and a `RemoteJob` for every trial, and gets a `RemoteResult` back. All three are
plain data, because a worker may be on a machine with no disk in common.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rankitect.contracts import Job, JobResult, TrialContext, offers
from rankitect.contracts.weights import SendsWeights
from rankitect.study.checks import one_line
from rankitect.study.runner import measure

__all__ = ["TOO_LONG", "RemoteJob", "RemoteResult", "SetUpError", "WorkerSetup", "parts_of", "quiet", "run_job"]

TOO_LONG = 77
"""Exit code of a process whose trial took longer than allowed."""


class SetUpError(Exception):
    """A worker cannot make the parts that measure: no trial is to blame."""


_BUILT: dict[str, Any] = {}
"""The parts of the latest setup: a worker measures many trials of one study."""


@dataclass(frozen=True)
class WorkerSetup:
    """What a worker needs to measure any trial of one study.

    Attributes:
        data: The resolved configuration as plain data.
        threads: Threads of torch.
        gib: Memory that the process may take, in GiB; None for any amount.
        key: Equal for equal setups of one study.
        seconds: Time after which a process that still measures a trial ends itself with code `TOO_LONG`; None for no
            limit.
        run_folder: Where workers can write artifacts themselves; None where they have no disk in common with the study.
    """

    data: Mapping[str, Any]
    threads: int | None
    gib: float | None
    key: str
    run_folder: str | None
    seconds: float | None = None


@dataclass(frozen=True)
class RemoteJob:
    """A `Job` as plain data, to be sent to a worker.

    Attributes:
        number: Number of the trial.
        architecture: The architecture's JSON.
        evaluator: Key of the evaluator.
        seed: Seed of the measurement.
        folder: The trial's folder, where there is a disk in common; else None.
        baseline: Whether it is a model to compare with.
    """

    number: int
    architecture: str
    evaluator: str
    seed: int
    folder: str | None
    baseline: bool = False

    @classmethod
    def of(cls, job: Job, *, shared_disk: bool) -> RemoteJob:
        """A job as plain data."""
        folder = str(job.folder) if shared_disk else None
        return cls(job.number, job.architecture.to_json(), job.evaluator, job.seed, folder, job.baseline)


@dataclass(frozen=True)
class RemoteResult:
    """What a worker sends back: a `JobResult`, and the artifacts where there is no disk in common.

    Attributes:
        result: What became of the job.
        files: Contents by path relative to the trial's folder.
    """

    result: JobResult
    files: Mapping[str, bytes] = field(default_factory=dict)


def run_job(setup: WorkerSetup, shared: Mapping[str, bytes], job: RemoteJob) -> RemoteResult:
    """Measure one trial in this process.

    Args:
        setup: The study's setup.
        shared: What evaluators have learned in the study's own process.
        job: The measurement to make.

    Raises:
        SetUpError: The parts that measure cannot be made here.
    """
    try:
        parts = parts_of(setup, shared)
    except Exception as error:
        raise SetUpError(one_line(error)) from error
    architecture = parts.decode(job.architecture)
    if job.folder is not None and setup.run_folder is not None:
        run, folder = Path(setup.run_folder), Path(job.folder)
        return RemoteResult(_measured(parts, job, architecture, run, folder, setup.seconds))
    with tempfile.TemporaryDirectory(prefix="rankitect-") as place:
        run = Path(place)
        # Named as in the study's own folder, so that paths in the measurement mean the same there.
        folder = run / "trials" / f"{job.number:06d}-{architecture.fingerprint[:8]}"
        folder.mkdir(parents=True)
        result = _measured(parts, job, architecture, run, folder, setup.seconds)
        if result.disk:  # the disk of this machine and not that of the study's run folder: another one may have space
            cause = f"{socket.gethostname()} cannot write to {place}: {result.cause}"
            result = replace(result, disk=0, lost=True, cause=cause)
        files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    return RemoteResult(result, files)


def _measured(
    parts: Any, job: RemoteJob, architecture: Any, run: Path, folder: Path, seconds: float | None
) -> JobResult:
    local = Job(job.number, architecture, job.evaluator, job.seed, folder, baseline=job.baseline)
    limit = threading.Timer(seconds, os._exit, [TOO_LONG]) if seconds is not None else None
    if limit is not None:
        limit.daemon = True
        limit.start()
    try:
        return measure(
            parts.evaluators[job.evaluator], local, TrialContext(run, folder, job.seed, baseline=job.baseline)
        )
    finally:
        if limit is not None:
            limit.cancel()


def parts_of(setup: WorkerSetup, shared: Mapping[str, bytes], *, controller: bool = False) -> Any:
    """The parts of a study in this process, built once.

    Args:
        setup: The study's setup.
        shared: What evaluators have learned in the study's own process.
        controller: Whether the controller and all other parts are wanted, and not only what measures.
    """
    key = (setup.key, controller)
    if _BUILT.get("key") == key:
        return _BUILT["parts"]
    from rankitect.config.parts import build
    from rankitect.config.resolve import restored
    from rankitect.training.host import configure_host
    from rankitect.training.placement import choose

    if setup.gib is not None:
        most = int(setup.gib * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    configure_host(setup.threads)
    if setup.run_folder is None and "place" not in _BUILT:
        _BUILT["place"] = tempfile.TemporaryDirectory(prefix="rankitect-")  # removed when the process ends
    folder = Path(setup.run_folder if setup.run_folder is not None else _BUILT["place"].name)
    resolved = restored(json.loads(json.dumps(setup.data)))
    choose(resolved.config.placement, _silent, resolved.config.runner.together)
    parts = build(resolved, folder, _silent, measuring=not controller)
    if shared and offers(parts.task, SendsWeights):
        parts.task.receive(shared)
    _BUILT.update(key=key, parts=parts)
    return parts


def _silent(text: str) -> None:
    pass


def quiet() -> None:
    """Set up a worker process: the study handles Ctrl-C, the worker ends when the study does, and what libraries print
    does not disturb the study's progress bar."""
    import ctypes
    import signal

    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno() if hasattr(sys.stdout, "fileno") else 1)
