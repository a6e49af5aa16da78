"""Trials as Ray tasks, on a running cluster that is given by its address, or on one that is started on this machine."""

from __future__ import annotations

import math
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rankitect.contracts import Controller, Job, JobResult, Session, Spent, StopRequested, TrainsInPrepare, offers
from rankitect.errors import ConfigError
from rankitect.runners.together import Resources
from rankitect.runners.workers import RemoteJob, RemoteResult, SetUpError, WorkerSetup, run_job
from rankitect.study.checks import one_line

__all__ = ["Cluster"]

_MOMENT = 0.2


class Cluster:
    """Ray tasks with declared resources. Configuration and shared weights are put once into the object store.

    Artifacts come back through the object store: nodes need no disk in common. A task whose worker or node is lost is
    given back as lost; the study has it measured again.

    Args:
        workers: How many trials may be under way at a time.
        setup: What a worker needs.
        address: Address of a running cluster; None starts one here.
        cpus: Processors that a task declares.
        gpus: GPUs that it declares.
        together: Processes that train one model side by side.
        attempts: How often such processes are begun again after one is lost.
        minutes: A trial that takes longer fails; None for no limit.
        stop: Whether the user asked to stop.

    Raises:
        ConfigError: Ray is not installed, or no cluster answers at the address.
    """

    def __init__(
        self,
        workers: int,
        setup: WorkerSetup,
        *,
        address: str | None = None,
        cpus: float = 1.0,
        gpus: float = 0.0,
        together: int = 1,
        attempts: int = 5,
        minutes: float | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.workers, self._stop, self._setup = workers, stop, setup
        self._gang = (together, {"CPU": cpus, **({"GPU": gpus} if gpus else {})}, attempts)
        self._seconds = None if minutes is None else 60.0 * minutes
        self._ray = _ray()
        self._own = not self._ray.is_initialized()
        if self._own:
            self._connect(address, math.ceil(max(workers * together * cpus, 1.0)))
        self._require(cpus, gpus, setup.gib)
        options: dict[str, Any] = {"num_cpus": cpus, "num_gpus": gpus, "max_retries": 0, "num_returns": "streaming"}
        if setup.gib is not None:
            options["memory"] = int(setup.gib * 2**30)
        self._run = self._ray.remote(**options)(_remote)
        if together > 1:
            self._run = self._ray.remote(**{**options, "num_cpus": 0, "num_gpus": 0})(_remote_together)
        self._known = self._ray.put(setup)
        self._shared = self._ray.put({})
        self._running: dict[Any, tuple[Job, float | None]] = {}  # and since when; None while it waits for its turn

    def _connect(self, address: str | None, cpus: int) -> None:
        paths = os.pathsep.join(p for p in sys.path if p)
        given: dict[str, Any] = {"runtime_env": {"env_vars": {"PYTHONPATH": paths}}}
        # "local" starts one even where another runs on this machine, to which Ray would connect by itself.
        own = {"address": "local", "num_cpus": cpus, "include_dashboard": False}
        given |= {"address": address} if address is not None else own
        try:
            _knock(address)  # Ray itself would try for minutes
            self._ray.init(log_to_driver=False, logging_level="error", **given)
        except (OSError, RuntimeError, ValueError) as error:
            where = f"No Ray cluster answers at runner.address={address}" if address else "No Ray cluster could start"
            raise ConfigError(
                f"{where} ({one_line(error)}). Start one with `ray start --head` and give the address that it prints, "
                "or leave runner.address out to have one started here."
            ) from error

    def _require(self, cpus: float, gpus: float, gib: float | None) -> None:
        """Make sure that some node can run a trial at all, and begin no more trials than there are processors for."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        need = {"CPU": cpus, "GPU": gpus, "memory": (gib or 0.0) * 2**30}
        if not any(all(node.get(kind, 0.0) >= amount for kind, amount in need.items()) for node in nodes):
            has = ", ".join(
                f"{n.get('CPU', 0):g} processors, {n.get('GPU', 0):g} GPUs and {n.get('memory', 0) / 2**30:.1f} GiB"
                for n in nodes
            )
            raise ConfigError(
                f"No node of the Ray cluster can run a trial of runner.cpus={cpus:g}, runner.gpus={gpus:g} and "
                f"runner.trial_gib={gib}: {has}."
            )
        shares = {"CPU": cpus, **({"GPU": gpus} if gpus else {})}
        fit = (min(int(node.get(kind, 0.0) / amount) for kind, amount in shares.items()) for node in nodes)
        most = sum(fit) // self._gang[0]
        if not most:
            raise ConfigError(
                f"runner.together={self._gang[0]} processes of runner.cpus={cpus:g} and runner.gpus={gpus:g} are more "
                "than the Ray cluster has processors or GPUs for."
            )
        self.workers = min(self.workers, most)

    def start(self, shared: Mapping[str, bytes]) -> None:
        """Hand what evaluators have learned to all nodes."""
        if shared:
            self._shared = self._ray.put(dict(shared))
            self._setup = WorkerSetup(**{**vars(self._setup), "key": f"{self._setup.key} prepared"})
            self._known = self._ray.put(self._setup)

    def prepare(self, session: Session, controller: Controller) -> None:
        """Have what a controller trains before its first proposal trained by processes side by side, where it trains
        anything and the configuration asks for that."""
        if self._gang[0] > 1 and offers(controller, TrainsInPrepare) and controller.trains:
            from rankitect.runners.together import prepare_together

            prepare_together(session, self._setup, *self._gang)

    def submit(self, job: Job) -> None:
        """Begin a job."""
        gang = self._gang if self._gang[0] > 1 else ()
        work = self._run.remote(self._known, self._shared, RemoteJob.of(job, shared_disk=False), *gang)
        self._running[work] = (job, None)

    def wait(self) -> list[JobResult]:
        """The results of the tasks that end within a moment.

        Raises:
            StopRequested: The user asked to stop.
            ConfigError: A worker cannot make the parts that measure.
        """
        if self._stop():
            raise StopRequested
        ended, _ = self._ray.wait(list(self._running), num_returns=1, timeout=_MOMENT)
        return [*(done for work in ended if (done := self._next(work)) is not None), *self._late()]

    def _late(self) -> list[JobResult]:
        """Cancel the trials that are beyond their time; they count as failed."""
        if self._seconds is None:
            return []
        cause = f"it took longer than runner.trial_minutes={self._seconds / 60:g}"
        late = []
        for work, (job, started) in list(self._running.items()):
            if (spent := _since(started)).seconds > self._seconds:
                self._ray.cancel(work, force=True)
                del self._running[work]
                late.append(JobResult(job.number, None, cause, "", spent))
        return late

    def _next(self, work: Any) -> JobResult | None:
        """Take what a task yields next: None where it has only begun, its result where it has ended."""
        from ray.exceptions import RayError, RayTaskError

        job, started = self._running.pop(work)
        try:
            answer: RemoteResult | None = self._ray.get(next(work))
        except RayTaskError as error:
            if isinstance(error.cause, SetUpError):
                raise ConfigError(f"A worker cannot be set up: {error.cause}") from error
            return JobResult(job.number, None, one_line(error.cause or error), str(error), _since(started))
        except RayError as error:
            cause = f"the worker or node that measured it was lost ({type(error).__name__})"
            return JobResult(job.number, None, cause, "", _since(started), lost=True)
        if answer is None:
            self._running[work] = (job, time.monotonic())
            return None
        _write(job.folder, answer.files)
        return answer.result

    def cancel(self) -> None:
        """Give up all tasks."""
        for reference in self._running:
            self._ray.cancel(reference, force=True)
        self._running.clear()

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        self.cancel()
        if self._own:
            self._ray.shutdown()


def _knock(address: str | None) -> None:
    """See whether anything listens at host:port.

    Raises:
        OSError: Nothing does.
    """
    host, _, port = (address or "").rpartition(":")
    if host and port.isdigit() and "//" not in host:
        socket.create_connection((host, int(port)), timeout=5.0).close()


def _since(started: float | None) -> Spent:
    """Seconds of a task that began then, if it did."""
    return Spent(seconds=0.0 if started is None else time.monotonic() - started)


def _remote(setup: WorkerSetup, shared: Mapping[str, bytes], job: RemoteJob) -> Iterator[RemoteResult | None]:
    """What a Ray task does: yield None when it begins, then its result."""
    yield None
    yield run_job(setup, shared, job)


def _remote_together(
    setup: WorkerSetup,
    shared: Mapping[str, bytes],
    job: RemoteJob,
    count: int,
    each: Resources,
    attempts: int,
) -> Iterator[RemoteResult | None]:
    """What a Ray task does where the model is trained by `count` processes."""
    from rankitect.runners.together import measure_together

    yield None
    yield measure_together(setup, shared, job, count, each, attempts)


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            "runner=ray needs Ray, which is not installed: pip install 'rankitect[ray]' (in this repository: make venv "
            "EXTRAS=ray)."
        ) from error
    return ray
