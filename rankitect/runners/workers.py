"""What runs in a process or on a machine that measures trials for a study elsewhere."""

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

from rankitect.contracts import TrialContext
from rankitect.study.checks import one_line
from rankitect.study.runner import Done, Job, measure

__all__ = ["TOO_LONG", "JobAnswer", "JobData", "SetUpError", "Setup", "parts_of", "quiet", "run_job"]

TOO_LONG = 77
"""Exit code of a process whose trial took longer than allowed."""


class SetUpError(Exception):
    """A worker cannot make the parts that measure: no trial is to blame."""


_BUILT: dict[str, Any] = {}
"""The parts of the latest setup: a worker measures many trials of one study."""


@dataclass(frozen=True)
class Setup:
    """What a worker needs to measure anything of a study.

    Attributes:
        data: The resolved configuration as plain data.
        threads: Of torch.
        gib: Memory that the process may take; None for any.
        key: Equal for equal setups of one study.
        seconds: After which a process that still measures a trial ends itself with code `TOO_LONG`; None for no limit.
        run_folder: Where workers can write artifacts themselves; None where they have no disk in common with the study.
    """

    data: Mapping[str, Any]
    threads: int | None
    gib: float | None
    key: str
    run_folder: str | None
    seconds: float | None = None


@dataclass(frozen=True)
class JobData:
    """One job as plain data.

    Attributes:
        number: The trial's.
        architecture: JSON.
        evaluator: Key of the evaluator.
        seed: Of the measurement.
        folder: Its folder, where there is a disk in common.
    """

    number: int
    architecture: str
    evaluator: str
    seed: int
    folder: str | None

    @classmethod
    def of(cls, job: Job, *, shared_disk: bool) -> JobData:
        """A job as plain data."""
        folder = str(job.folder) if shared_disk else None
        return cls(job.number, job.architecture.to_json(), job.evaluator, job.seed, folder)


@dataclass(frozen=True)
class JobAnswer:
    """What a worker gives back: plain data, and the artifacts where there is no disk in common.

    Attributes:
        done: What became of the job.
        files: Contents by path relative to the trial's folder.
    """

    done: Done
    files: Mapping[str, bytes] = field(default_factory=dict)


def run_job(setup: Setup, shared: Mapping[str, bytes], task: JobData) -> JobAnswer:
    """Measure one task.

    Args:
        setup: Of the study.
        shared: What evaluators have learned in the study's own process.
        task: The task.
    """
    try:
        parts = parts_of(setup, shared)
    except Exception as error:
        raise SetUpError(one_line(error)) from error
    architecture = parts.decode(task.architecture)
    if task.folder is not None and setup.run_folder is not None:
        return JobAnswer(_measured(parts, task, architecture, Path(setup.run_folder), Path(task.folder), setup.seconds))
    with tempfile.TemporaryDirectory(prefix="rankitect-") as place:
        run = Path(place)
        folder = run / "trials" / f"{task.number:06d}-{architecture.fingerprint[:8]}"  # as in the study's own folder
        folder.mkdir(parents=True)
        done = _measured(parts, task, architecture, run, folder, setup.seconds)
        if done.disk:  # of this machine, not of the study's run folder: another one may have space
            cause = f"{socket.gethostname()} cannot write to {place}: {done.cause}"
            done = replace(done, disk=0, lost=True, cause=cause)
        files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    return JobAnswer(done, files)


def _measured(parts: Any, task: JobData, architecture: Any, run: Path, folder: Path, seconds: float | None) -> Done:
    job = Job(task.number, architecture, task.evaluator, task.seed, folder)
    limit = threading.Timer(seconds, os._exit, [TOO_LONG]) if seconds is not None else None
    if limit is not None:
        limit.daemon = True
        limit.start()
    try:
        return measure(parts.evaluators[task.evaluator], job, TrialContext(run, folder, task.seed))
    finally:
        if limit is not None:
            limit.cancel()


def parts_of(setup: Setup, shared: Mapping[str, bytes], *, controller: bool = False) -> Any:
    """The parts of a study in this process, built once.

    Args:
        setup: Of the study.
        shared: What evaluators have learned in the study's own process.
        controller: Whether the controller and all else is wanted, and not only what measures.
    """
    key = (setup.key, controller)
    if _BUILT.get("key") == key:
        return _BUILT["parts"]
    from rankitect.config.parts import build
    from rankitect.config.resolve import restored
    from rankitect.training.host import configure_host

    if setup.gib is not None:
        most = int(setup.gib * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    configure_host(setup.threads)
    if setup.run_folder is None and "place" not in _BUILT:
        _BUILT["place"] = tempfile.TemporaryDirectory(prefix="rankitect-")  # removed when the process ends
    folder = Path(setup.run_folder if setup.run_folder is not None else _BUILT["place"].name)
    parts = build(restored(json.loads(json.dumps(setup.data))), folder, _silent, measuring=not controller)
    if shared and hasattr(parts.task, "receive"):
        parts.task.receive(shared)
    _BUILT.update(key=key, parts=parts)
    return parts


def _silent(text: str) -> None:
    pass


def quiet() -> None:
    """Let Ctrl-C be the study's matter, end with it however it ends, keep what libraries print from its progress."""
    import ctypes
    import signal

    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno() if hasattr(sys.stdout, "fileno") else 1)
