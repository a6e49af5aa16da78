"""Faults at random instants: whatever is killed, a study ends as it would have undisturbed.

A few rounds run with the suite; `make soak` runs hundreds (SOAK=200) and prints a table of what was injected and what
survived.
"""

from __future__ import annotations

import collections
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rankitect.study.store import Store
from tests.study.toys import Point

ROUNDS = int(os.environ.get("SOAK", "4"))
CONFIGS = Path(__file__).parent / "study" / "configs"
TABLE = collections.Counter[tuple[str, str]]()

pytestmark = pytest.mark.slow


def command(path: Path, workers: int, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "rankitect.search", "--config-dir", str(CONFIGS), "space=grid", "task=none",
        "controller=freely", "evaluator=quadratic", "allowed_packages=[rankitect,tests]", "report.page=false",
        "report.tensorboard=false", "runner.threads=1", "runner.ahead=2", f"runner.workers={workers}",
        "evaluator.final.seconds=0.05", f"output_dir={path}", *more,
    ]  # fmt: skip


def start(path: Path, workers: int, *more: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command(path, workers, *more), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
        cwd=Path(__file__).parents[1],
    )  # fmt: skip


def finish(path: Path, workers: int, *more: str) -> None:
    process = start(path, workers, *more)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said.decode()[-2000:]


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
    return {"pareto": summary["pareto"], "stages": stages, "trials": trials, "counts": summary["ledger"]["trials"]}


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], float]:
    """An undisturbed run, and how long it took."""
    path = tmp_path_factory.mktemp("calm") / "run"
    began = time.monotonic()
    finish(path, 1)
    return found(path), time.monotonic() - began


def children(pid: int) -> list[int]:
    """Processes that measure trials for a driver."""
    import psutil

    try:
        every = psutil.Process(pid).children(recursive=True)
        return [p.pid for p in every if "resource_tracker" not in " ".join(p.cmdline())]
    except psutil.Error:
        return []


def kill_driver(process: subprocess.Popen[bytes], path: Path) -> None:
    os.killpg(process.pid, signal.SIGKILL)


def kill_worker(process: subprocess.Popen[bytes], path: Path) -> None:
    for pid in children(process.pid)[:1]:
        os.kill(pid, signal.SIGKILL)


def stop_politely(process: subprocess.Popen[bytes], path: Path) -> None:
    process.send_signal(random.choice([signal.SIGINT, signal.SIGTERM]))


def tear_log(process: subprocess.Popen[bytes], path: Path) -> None:
    """A kill, and a write-ahead log whose last page never reached the disk."""
    kill_driver(process, path)
    process.wait()
    log = path / "study.db-wal"
    if log.exists() and log.stat().st_size > 4096:
        with log.open("r+b") as file:
            file.truncate(log.stat().st_size - random.randrange(1, 4096))


def scribble_log(process: subprocess.Popen[bytes], path: Path) -> None:
    """A kill, and a last page of the write-ahead log that holds nonsense."""
    kill_driver(process, path)
    process.wait()
    log = path / "study.db-wal"
    if log.exists() and log.stat().st_size > 4096:
        with log.open("r+b") as file:
            file.seek(log.stat().st_size - 2048)
            file.write(random.randbytes(2048))


FAULTS = (kill_driver, kill_worker, stop_politely, tear_log, scribble_log)


@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_study_ends_as_if_undisturbed(
    calm: tuple[dict[str, Any], float], tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, usual = calm
    random.seed(1000 + number)
    path, workers = tmp_path / "run", random.choice([1, 2])
    faults = random.randint(1, 3)
    injected = []
    for _ in range(faults):
        fault = random.choice(FAULTS if workers > 1 else [f for f in FAULTS if f is not kill_worker])
        process = start(path, workers)
        time.sleep(random.uniform(0.2, usual * 1.2))
        alive = process.poll() is None
        if alive:
            injected.append(fault.__name__)
            fault(process, path)
        try:
            process.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    finish(path, workers)
    same = found(path) == expected
    for name in injected or ["none in time"]:
        TABLE[name, "same result" if same else "DIFFERENT"] += 1
    assert same, injected
    leftovers = [p.name for p in path.rglob("*.tmp")] + [p.name for p in path.glob(".candidates.*")]
    assert leftovers == []


def test_what_was_injected(calm: tuple[dict[str, Any], float]) -> None:
    """Runs last: prints the table."""
    assert all(outcome == "same result" for _, outcome in TABLE)
    print(f"\n{'fault':<16} {'outcome':<14} times")
    for (fault, outcome), count in sorted(TABLE.items()):
        print(f"{fault:<16} {outcome:<14} {count}")


def test_two_drivers_on_one_study(tmp_path: Path) -> None:
    """The second is refused and told who holds it."""
    path = tmp_path / "run"
    first = start(path, 1, "evaluator.final.seconds=1")
    until = time.monotonic() + 60
    while not (path / "study.db").exists() and time.monotonic() < until:
        time.sleep(0.05)
    second = start(path, 1, "evaluator.final.seconds=1")
    _, said = second.communicate(timeout=60)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    assert second.returncode == 2
    assert str(first.pid) in said.decode()


@pytest.mark.skipif(shutil.which("mount") is None or os.geteuid() != 0, reason="needs root, to mount a small disk")
def test_a_full_disk_loses_nothing(calm: tuple[dict[str, Any], float], tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        (disk / "ballast").write_bytes(b"x" * 150_000)
        process = start(disk / "run", 1)
        _, said = process.communicate(timeout=120)
        assert process.returncode == 3, said.decode()[-1000:]
        (disk / "ballast").unlink()
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        finish(disk / "run", 1)
        assert found(disk / "run") == calm[0]
    finally:
        subprocess.run(["umount", str(disk)], check=True)
