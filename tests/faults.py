"""What can happen to a study from outside, for `test_soak`: each fault is done to a running search and its folder."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rankitect.errors import RunFolderError
from rankitect.study.store import Store
from tests.study.toys import Point

CONFIGS = Path(__file__).parent / "study" / "configs"
LEAPING = """
import pathlib, runpy, sys, time
clock, real = pathlib.Path(sys.argv.pop(1)), time.time
time.time = lambda: real() + float(clock.read_text() or 0)
runpy.run_module("rankitect.search", run_name="__main__", alter_sys=True)
"""
"""The command, with a clock that can be set while it runs."""

# One architecture of the study has no finite loss, another takes more memory than a trial may have.
MISBEHAVE = "evaluator.final.misbehave={5:'nan',1:memory}"


@dataclasses.dataclass
class Round:
    """A study under fire.

    Attributes:
        folder: Its run folder.
        runner: "inline", "processes" or "ray".
        cluster: Of the Ray rounds.
    """

    folder: Path
    runner: str
    cluster: Any = None
    process: subprocess.Popen[bytes] | None = None

    def start(self, *more: str) -> subprocess.Popen[bytes]:
        """The command, in a session of its own."""
        workers = {"inline": "1", "processes": "2", "ray": "3"}[self.runner]
        given = [f"runner.workers={workers}", *more]
        if self.runner == "ray":
            given += ["runner=ray", f"runner.address={self.cluster.address}", "runner.trial_gib=1"]
        if self.runner == "processes":
            given += ["runner.trial_gib=1"]
        command = [
            sys.executable, "-c", LEAPING, str(self.clock), "--config-dir", str(CONFIGS), "space=grid", "task=none",
            "controller=freely", "evaluator=quadratic", "allowed_packages=[rankitect,tests]", "report.page=false",
            "report.tensorboard=false", "runner.threads=1", "runner.ahead=2", MISBEHAVE,
            f"evaluator.final.seconds={0.4 if self.runner == 'ray' else 0.05}", f"output_dir={self.folder}", *given,
        ]  # fmt: skip
        if self.runner == "inline":
            command = ["prlimit", f"--data={3 * 2**30}", *command]
        if os.geteuid() == 0:  # root may write into read-only folders, other users may not
            command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        self.clock.write_text("0")
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True, env=environment,
            cwd=Path(__file__).parents[1],
        )  # fmt: skip
        return self.process

    @property
    def clock(self) -> Path:
        """By how many seconds the clock of the process is wrong."""
        return self.folder.parent / f"{self.folder.name}.clock"

    def finish(self, *more: str) -> None:
        """Run to the end, which must be good."""
        code, said = self.ended(self.start(*more))
        assert code == 0, said[-2000:]

    def ended(self, process: subprocess.Popen[bytes]) -> tuple[int, str]:
        """Exit code and what was said on standard error, once it is over."""
        try:
            _, said = process.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return process.returncode, said.decode()

    def finished(self) -> dict[int, Any]:
        """The finished trials by number, with what was measured; empty before the study is written."""
        if not (self.folder / "study.db").exists():
            return {}
        try:
            store = Store(self.folder / "study.db", Point.from_json, readonly=True)
        except RunFolderError:  # its process ended before the first page was written
            return {}
        with store:
            return {t.number: (t.state, t.measurement and t.measurement.metrics) for t in store.trials if t.finished}


def found(path: Path) -> dict[str, Any]:
    """What a run has found, what it was charged, and every trial."""
    summary = json.loads((path / "summary.json").read_text())
    stages = {
        name: {coin: amount for coin, amount in spent.items() if coin != "seconds"}
        for name, spent in summary["ledger"]["stages"].items()
    }
    with Store(path / "study.db", Point.from_json, readonly=True) as store:
        trials = [
            (t.number, t.architecture.fingerprint, t.state, t.duplicate_of, t.measurement and t.measurement.metrics)
            for t in store.trials
        ]
    return {
        "ledger": {"stages": stages, "trials": summary["ledger"]["trials"]},
        "trials": trials,
        "front": summary["pareto"],
    }


# The faults -------------------------------------------------------------------------------------------------------


def kill_driver(it: Round) -> None:
    """The process that leads the study, and its workers, with SIGKILL."""
    assert it.process is not None
    os.killpg(it.process.pid, signal.SIGKILL)


def kill_worker(it: Round) -> None:
    """A process that measures, or the one that makes those."""
    import psutil

    assert it.process is not None
    try:
        every = psutil.Process(it.process.pid).children(recursive=True)
        workers = [p.pid for p in every if "resource_tracker" not in " ".join(p.cmdline())]
        if workers:
            os.kill(random.choice(workers), signal.SIGKILL)
    except (psutil.Error, ProcessLookupError):
        pass


def kill_ray_node(it: Round) -> None:
    """A machine of the cluster with all that runs on it; another takes its place."""
    nodes = list(it.cluster.worker_nodes)
    it.cluster.remove_node(random.choice(nodes), allow_graceful=False)
    it.cluster.add_node(num_cpus=1)


def stop_politely(it: Round) -> None:
    """Ctrl-C, or what a scheduler sends."""
    assert it.process is not None
    it.process.send_signal(random.choice([signal.SIGINT, signal.SIGTERM]))


def kill_and_log(it: Round) -> Path | None:
    """Kill, and give the write-ahead log, where it holds more than its first page."""
    kill_driver(it)
    assert it.process is not None
    it.process.wait()
    log = it.folder / "study.db-wal"
    return log if log.exists() and log.stat().st_size > 4096 else None


def tear_log(it: Round) -> None:
    """A kill, and a write-ahead log whose last page never reached the disk."""
    if log := kill_and_log(it):
        with log.open("r+b") as file:
            file.truncate(log.stat().st_size - random.randrange(1, 4096))


def scribble_log(it: Round) -> None:
    """A kill, and a last page of the write-ahead log that holds nonsense."""
    if log := kill_and_log(it):
        with log.open("r+b") as file:
            file.seek(log.stat().st_size - 2048)
            file.write(random.randbytes(2048))


def jump_clock(it: Round) -> None:
    """The clock leaps by up to a year, forward or back, twice."""
    for _ in range(2):
        replacement = it.clock.with_suffix(".next")
        replacement.write_text(str(random.randint(-365 * 86400, 365 * 86400)))
        replacement.replace(it.clock)
        time.sleep(0.3)


def take_rights(it: Round) -> None:
    """The folder becomes read-only. The running search may end; one that is started then is refused, and says so."""
    places = [it.folder, *it.folder.rglob("*")] if it.folder.exists() else []
    modes = {p: p.stat().st_mode for p in places if p.exists()}
    for place, mode in modes.items():
        if place.exists():
            place.chmod(mode & ~0o222)
    assert it.process is not None
    try:
        _, said = it.ended(it.process)
        assert "Traceback" not in said, said
        if modes:
            code, said = it.ended(it.start())
            finished = (it.folder / "summary.json").exists() and '"finished"' in (
                it.folder / "summary.json"
            ).read_text()
            assert code in (2, 3) or (code == 0 and finished), (code, said)
            assert "Traceback" not in said, said
            assert str(it.folder) in said.replace("\n", ""), said
    finally:
        for place, mode in modes.items():
            if place.exists():
                place.chmod(mode)


def refused_while(it: Round, changed: Path, kept: bytes, outside: Path | None = None) -> None:
    """A search is refused without a traceback, or goes on as if nothing were; then the damage is mended."""
    secret = outside.read_bytes() if outside else b""
    code, said = it.ended(it.start())
    assert "Traceback" not in said, said
    assert code == 2 or (code == 0 and outside is None), (code, said)
    if outside is not None:
        assert outside.read_bytes() == secret
        outside.unlink()
    if code == 2:
        changed.unlink()
        changed.write_bytes(kept)


def flip_bytes(it: Round) -> None:
    """A kill, and a study's file in which one bit of some bytes is another: refused, or of no consequence."""
    kill_driver(it)
    assert it.process is not None
    it.process.wait()
    file = it.folder / "study.db"
    if not file.exists() or not file.stat().st_size:
        return
    log = file.with_name("study.db-wal")
    if log.exists() and log.stat().st_size:  # into the file with it, as the next start would do
        connection = sqlite3.connect(file)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
    kept = file.read_bytes()
    data = bytearray(kept)
    for _ in range(random.randint(1, 3)):
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    file.write_bytes(data)
    refused_while(it, file, kept)


def hostile_links(it: Round) -> None:
    """A kill, and a file of the folder that is a link, or another name, of one outside: refused, and not written to."""
    kill_driver(it)
    assert it.process is not None
    it.process.wait()
    name = random.choice(["log.txt", "study.lock", "config.yaml"])
    file, outside = it.folder / name, it.folder.parent / f"{it.folder.name}.outside"
    if not (it.folder / "config.yaml").exists() or not file.exists():
        return
    outside.write_bytes(b"a file of the user's")
    kept = file.read_bytes()
    file.unlink()
    if name == "config.yaml" or random.random() < 0.5:
        file.symlink_to(outside)
    else:
        os.link(outside, file)
    refused_while(it, file, kept, outside)


EVERY: tuple[Callable[[Round], None], ...] = (
    kill_driver, stop_politely, tear_log, scribble_log, take_rights, jump_clock, flip_bytes, hostile_links,
)  # fmt: skip


def possible(runner: str) -> list[Callable[[Round], None]]:
    """The faults that can happen to a study that measures in such a way."""
    faults = list(EVERY)
    if runner == "processes":
        faults += [kill_worker, kill_worker]
    if runner == "ray":
        faults = [kill_driver, stop_politely, jump_clock, kill_ray_node, kill_ray_node]
    return [f for f in faults if f is not take_rights or shutil.which("setpriv") or os.geteuid() != 0]
