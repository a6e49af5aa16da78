"""Which runner a configuration asks for."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rankitect.contracts import Estimates, Preloads, offers
from rankitect.errors import ConfigError
from rankitect.machine import usable_cores

if TYPE_CHECKING:
    from rankitect.config import Resolved
    from rankitect.config.schema import RunnerConfig
    from rankitect.contracts import Runner

__all__ = ["runner_of", "warm_up"]


def _alone(c: RunnerConfig) -> bool:
    """Whether the study's own process measures: one trial at a time, and no limit that only a process can enforce."""
    return c.kind == "local" and c.workers == 1 and c.trial_minutes is None and c.trial_gib is None


def _estimates(device: object) -> bool:
    return offers(device, Estimates) and device.estimate


def _gpus(resolved: Resolved) -> float:
    """GPUs that a trial declares to Ray: as configured, or one where models are placed on CUDA devices.

    Raises:
        ConfigError: A device is named by its number, which is another one in each task of Ray's.
    """
    from rankitect.training.placement import placement

    wanted, c = resolved.config.placement.device, resolved.config.runner
    if wanted.startswith("cuda:"):
        raise ConfigError(
            f"placement.device={wanted} with runner=ray: Ray gives each trial its own devices. Use "
            "placement.device=cuda."
        )
    return c.gpus if c.gpus is not None else float(placement().device.type == "cuda")


def warm_up(resolved: Resolved) -> None:
    """Begin what processes of the runner need, before the study's own process builds its parts."""
    if resolved.config.runner.kind == "local" and not _alone(resolved.config.runner):
        from rankitect.runners.pool import import_ahead

        task = resolved.plugins["task"].target
        import_ahead(task.preload if offers(task, Preloads) else ())


def runner_of(resolved: Resolved, folder: Path, stop: Callable[[], bool]) -> Runner | None:
    """The runner of a configuration; None where this process measures by itself.

    Args:
        resolved: The configuration.
        folder: The run folder.
        stop: Whether the user asked to stop.

    Raises:
        ConfigError: Latencies would be measured on whatever machine a trial comes to, Ray is not installed, or no
            cluster answers.
    """
    c = resolved.config.runner
    if _alone(c):
        return None
    if "device" in resolved.plugins and not _estimates(resolved.plugins["device"].target):
        raise ConfigError(
            f"device={resolved.plugins['device'].name} measures latencies, which trials beside each other would "
            "disturb: use runner=local with runner.workers=1 and without limits of a trial, or device=analytic."
        )
    from rankitect.runners.workers import WorkerSetup

    data = dict(resolved.data)
    if registry := resolved.config.report.registry:  # workers may have another working directory
        data["report"] = {**data["report"], "registry": os.path.realpath(registry)}

    def setup(run_folder: str | None, threads: int | None) -> WorkerSetup:
        key = hashlib.sha256(json.dumps([resolved.data, os.path.realpath(folder), os.getpid()]).encode()).hexdigest()
        seconds = 60 * c.trial_minutes if c.trial_minutes is not None and run_folder is not None else None
        return WorkerSetup(data, threads, c.trial_gib, key, run_folder, seconds)

    share = max(1, usable_cores() // c.workers)
    if c.kind == "local":
        from rankitect.runners.pool import Pool

        return Pool(c.workers, setup(os.path.realpath(folder), c.threads or share), stop)
    from rankitect.runners.cluster import Cluster

    threads = c.threads or max(1, round(c.cpus))
    return Cluster(
        c.workers,
        setup(None, threads),
        address=c.address,
        cpus=c.cpus,
        gpus=_gpus(resolved),
        together=c.together,
        attempts=c.attempts,
        minutes=c.trial_minutes,
        stop=stop,
    )
