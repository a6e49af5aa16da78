"""One model trained by several processes of a Ray cluster side by side (Ray Train, torch.distributed).

Every process builds the study's parts and runs the same program; `rankitect.training.parallel` gives each a part of
every batch and sums the gradients. The first process reports for all: what it writes, charges and shows goes through a
mailbox to the study, and so does the wish to stop the other way. When a process or a node is lost, Ray Train begins all
of them again, from the last state in the mailbox.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path
from typing import Any

from rankitect.contracts import Session, Spent, StopRequested, Trial
from rankitect.data.files import TEMPORARY, write_whole
from rankitect.errors import TrainingError
from rankitect.runners.workers import RemoteJob, RemoteResult, WorkerSetup, parts_of, run_job
from rankitect.study.checks import one_line

__all__ = ["Resources", "measure_together", "prepare_together"]

Resources = Mapping[str, float]
"""What a process declares to Ray, by Ray's names."""
_MOMENT = 0.2


class Mailbox:
    """Lies between the first process and the study (a Ray actor)."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files, self._events = dict(files), list[tuple[str, tuple[Any, ...]]]()
        self._new = dict[str, bytes]()
        self._study = (1.0, False, Spent())
        self.answer: Any = None

    def put(self, events: list[tuple[str, tuple[Any, ...]]], files: Mapping[str, bytes]) -> tuple[float, bool, Spent]:
        """Called by the first process with what happened and the files that changed. Returns the study's last words."""
        self._events += events
        self._files |= files
        self._new |= files
        return self._study

    def take(
        self, remaining: float, stop: bool, spent: Spent
    ) -> tuple[dict[str, bytes], list[tuple[str, tuple[Any, ...]]]]:
        """Called by the study with the share of its budget that is left, whether to stop, and what it has spent.

        Returns:
            The files and events that are new since the last call.
        """
        self._study = (remaining, stop, spent)
        new, events = self._new, self._events
        self._new, self._events = {}, []
        return new, events

    def files(self) -> dict[str, bytes]:
        """The state so far."""
        return self._files

    def finish(self, answer: Any) -> None:
        """Called by the first process with the result."""
        self.answer = answer

    def result(self) -> Any:
        """What `finish` was given."""
        return self.answer


class _Session:
    """What a controller may use of the study, in a process that trains with others; see `contracts.Session`."""

    def __init__(self, parts: Any, state_dir: Path, mailbox: Any, trials: list[Trial]) -> None:
        from rankitect.training.parallel import peers

        self.space, self.task, self.seed = parts.space, parts.task, parts.config.seed
        self.state_dir, self.logger = state_dir, logging.getLogger("rankitect")
        self.trials = trials
        self._mailbox, self._first = mailbox, peers().rank == 0
        self._events: list[tuple[str, tuple[Any, ...]]] = []
        self._sent = _written(state_dir)
        self._stop, self._spent = False, Spent()

    def charge(self, key: str, spent: Spent) -> None:
        self._events.append(("charge", (key, spent)))

    def progress(self, done: int, total: int, note: str = "") -> None:
        self._events.append(("progress", (done, total, note)))

    def scalar(self, name: str, value: float, step: int) -> None:
        self._events.append(("scalar", (name, value, step)))

    def spent(self) -> Spent:
        return self._spent

    def remaining(self) -> float:
        """Asked once before every step: this is where all processes agree whether to go on."""
        from rankitect.training.parallel import peers

        said = self.send() if self._first else (1.0, False, Spent())
        left, stop, *spent = peers().agree(said[0], float(said[1]), *astuple(said[2]))
        kinds = (type(value) for value in astuple(Spent()))  # counts are whole numbers, seconds are not
        self._stop = bool(stop)
        self._spent = Spent(*(kind(value) for kind, value in zip(kinds, spent, strict=True)))
        return left

    def remaining_trials(self) -> float:
        """All: there are none before the training has ended."""
        return 1.0

    def should_stop(self) -> bool:
        return self._stop

    def check(self) -> None:
        if self._stop:
            raise StopRequested

    def send(self) -> tuple[float, bool, Spent]:
        """Hand over what happened since, and the files that were written."""
        import ray

        now = _written(self.state_dir)
        changed = {
            name: (self.state_dir / name).read_bytes() for name, when in now.items() if self._sent.get(name) != when
        }
        self._sent = now
        events, self._events = self._events, []
        said: tuple[float, bool, Spent] = ray.get(self._mailbox.put.remote(events, changed))
        return said


def _written(folder: Path) -> dict[str, int]:
    """When each file was written."""
    return {
        p.relative_to(folder).as_posix(): p.stat().st_mtime_ns
        for p in sorted(folder.rglob("*"))
        if p.is_file() and not p.name.endswith((TEMPORARY, ".tmp"))
    }


# In the processes ---------------------------------------------------------------------------------------------------
def _prepare(given: Mapping[str, Any]) -> None:
    """What each process does to prepare a controller."""
    import ray

    from rankitect.training.parallel import join, peers

    join()
    with tempfile.TemporaryDirectory(prefix="rankitect-") as place:
        folder = Path(place)
        for name, content in ray.get(given["mailbox"].files.remote()).items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        parts = parts_of(given["setup"], {}, controller=True)
        session = _Session(parts, folder, given["mailbox"], given["trials"])
        with suppress(StopRequested):
            parts.controller.prepare(session)
        if peers().rank == 0:
            session.send()


def _measure(given: Mapping[str, Any]) -> None:
    """What each process does to measure a trial. The result that counts is that of the first process."""
    import ray

    from rankitect.training.parallel import join, peers

    join()
    answer = run_job(given["setup"], given["shared"], given["job"])
    if peers().rank == 0:
        ray.get(given["mailbox"].finish.remote(answer))


def _fit(loop: Any, given: Mapping[str, Any], count: int, each: Resources, attempts: int) -> str:
    """Run a function in `count` processes that torch.distributed joins. Returns the error in one line, or nothing."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    from rankitect.training.parallel import backend

    with tempfile.TemporaryDirectory(prefix="rankitect-") as place:
        trainer = TorchTrainer(
            loop,
            train_loop_config=dict(given),
            torch_config=TorchConfig(backend=backend("cuda" if each.get("GPU") else "cpu")),
            scaling_config=ScalingConfig(
                num_workers=count, use_gpu=bool(each.get("GPU")), resources_per_worker=dict(each)
            ),
            run_config=RunConfig(storage_path=place, failure_config=FailureConfig(max_failures=attempts - 1)),
        )
        try:
            error = trainer.fit().error
        except Exception as raised:
            error = raised
    return "" if error is None else one_line(error)


# In the study -------------------------------------------------------------------------------------------------------
def prepare_together(session: Session, setup: WorkerSetup, count: int, each: Resources, attempts: int) -> None:
    """Have the preparation of the controller done by so many processes. Its state is then in `session.state_dir`, from
    where the controller goes on as after an interruption.

    Args:
        session: The study's.
        setup: What the processes need.
        count: Number of processes.
        each: What each of them declares: "CPU" and perhaps "GPU".
        attempts: How often all of them may be begun.

    Raises:
        TrainingError: It failed.
        StopRequested: The user asked to stop; what was done is kept.
    """
    import ray

    folder = session.state_dir
    mailbox = ray.remote(num_cpus=0)(Mailbox).remote({name: (folder / name).read_bytes() for name in _written(folder)})
    given = {"setup": setup, "mailbox": mailbox, "trials": session.trials}
    running = ray.remote(num_cpus=0, max_retries=0)(_fit).remote(_prepare, given, count, each, attempts)
    handlers: dict[str, Callable[..., None]] = {
        "charge": session.charge, "progress": session.progress, "scalar": session.scalar,
    }  # fmt: skip
    done: list[Any] = []
    while not done:
        done, _ = ray.wait([running], timeout=_MOMENT)
        files, events = ray.get(mailbox.take.remote(session.remaining(), session.should_stop(), session.spent()))
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_whole(folder / name, content)
        for name, arguments in events:
            handlers[name](*arguments)
    if error := ray.get(running):
        raise TrainingError(f"Training in {count} processes side by side failed: {error}")
    session.check()


def measure_together(
    setup: WorkerSetup,
    shared: Mapping[str, bytes],
    job: RemoteJob,
    count: int,
    each: Resources,
    attempts: int,
) -> RemoteResult:
    """Measure a trial whose model is trained by `count` processes; runs as a Ray task of its own.

    Raises:
        TrainingError: It failed.
    """
    import ray

    mailbox = ray.remote(num_cpus=0)(Mailbox).remote({})
    given = {"setup": setup, "shared": shared, "mailbox": mailbox, "job": job}
    if error := _fit(_measure, given, count, each, attempts):
        raise TrainingError(f"Training in {count} processes side by side failed: {error}")
    answer: RemoteResult = ray.get(mailbox.result.remote())
    return answer
