"""Faults at random instants: whatever happens, a study ends as it would have undisturbed.

A few rounds run with the suite; `make soak` runs hundreds (SOAK=200) and prints a table of what was injected and what
survived. Beside them, the fetching of assets and exports are killed. Every study has an architecture without a finite
loss and one that takes too much memory.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults import Round, found, possible

ROUNDS = int(os.environ.get("SOAK", "2"))
RAY_ROUNDS = max(1, ROUNDS // 5)
COLUMNS = ("injected", "in mid-run", "finished trials lost", "counted twice", "ledger differs", "result differs")
TABLE: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)

pytestmark = pytest.mark.slow


@dataclasses.dataclass
class Calm:
    """What an undisturbed run finds, and how long one takes by kind of runner."""

    found: dict[str, Any]
    folder: Path
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)

    def of(self, it: Round) -> float:
        """How long a run of this kind takes; the first one is run, and must find the same."""
        if it.runner not in self.seconds:
            folder = it.folder.parent / "calm"
            self.seconds[it.runner], there = undisturbed(dataclasses.replace(it, folder=folder))
            assert there == self.found
        return self.seconds[it.runner]


def undisturbed(it: Round) -> tuple[float, dict[str, Any]]:
    """Seconds of a run without faults, and what it found."""
    began = time.monotonic()
    it.finish()
    return time.monotonic() - began, found(it.folder)


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Calm:
    """An undisturbed run. One of its trials has failed."""
    folder = tmp_path_factory.mktemp("calm") / "run"
    seconds, there = undisturbed(Round(folder, "inline"))
    assert {"DONE", "FAILED"} <= {state for _, _, state, _, _ in there["trials"]}
    return Calm(there, folder, {"inline": seconds})


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Three nodes of Ray."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    for _ in range(2):
        made.add_node(num_cpus=1)
    yield made
    made.shutdown()


def shoot(it: Round, calm: Calm) -> None:
    """Some faults at random instants, then the rest of the study in peace."""
    expected, usual = calm.found, calm.of(it)
    held: dict[int, Any] = {}
    names = []
    lost = 0
    for _ in range(random.randint(1, 3)):
        fault = random.choice(possible(it.runner))
        process = it.start()
        time.sleep(random.uniform(0.2, usual))
        if process.poll() is None:
            names.append(fault.__name__)
            TABLE[fault.__name__]["in mid-run"] += (it.folder / "study.db").exists()
            fault(it)
        if process.poll() is None:
            it.ended(process)
        now = it.finished()
        if names and names[-1] in ("tear_log", "scribble_log"):
            held = now  # what never reached the disk is measured again
        lost += sum(now.get(number) != value for number, value in held.items())
        held = now
    it.finish()
    now = it.finished()
    lost += sum(now.get(number) != value for number, value in held.items())
    result = found(it.folder)
    counts = collections.Counter(number for number, *_ in result["trials"])
    for name in names or ["none in time"]:
        TABLE[name].update(
            {
                "injected": 1,
                "finished trials lost": lost,
                "counted twice": sum(count - 1 for count in counts.values()),
                "ledger differs": result["ledger"] != expected["ledger"],
                "result differs": result["front"] != expected["front"] or result["trials"] != expected["trials"],
            }
        )
    assert lost == 0, names
    assert result == expected, names
    leftovers = [p.name for p in it.folder.glob(".*.part")] + [p.name for p in it.folder.glob(".candidates.*")]
    assert leftovers == [], names


@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_study_ends_as_if_undisturbed(calm: Calm, tmp_path: Path, number: int) -> None:
    random.seed(1000 + number)
    shoot(Round(tmp_path / "run", ("inline", "processes")[number % 2]), calm)


@pytest.mark.parametrize("number", range(RAY_ROUNDS))
def test_a_study_on_ray_ends_as_if_undisturbed(calm: Calm, cluster: Any, tmp_path: Path, number: int) -> None:
    random.seed(5000 + number)
    shoot(Round(tmp_path / "run", "ray", cluster), calm)


CACHING = """
import pathlib, shutil, sys, time
from rankitect.data import assets
wheel, asset = pathlib.Path(sys.argv[1]), assets.Asset("it", "it==1", "no_such_module", "it/data", "", 0, "it")
object.__setattr__(asset, "size", int(sys.argv[3]))
object.__setattr__(asset, "sha256", sys.argv[2])
assets.ASSETS.clear()
assets.ASSETS["it"] = asset

def slowly(asset, folder, say):
    brought = folder / wheel.name
    with wheel.open("rb") as source, brought.open("wb") as sink:
        while piece := source.read(1 << 14):
            sink.write(piece)
            sink.flush()
            time.sleep(0.002)
    return brought

assets._download = slowly
print("begins", flush=True)
print(assets.fetch("it"), flush=True)
"""
"""Fetches an asset into the cache from a wheel, slowly."""


@pytest.mark.parametrize("number", range(max(1, ROUNDS // 4)))
def test_a_cache_of_assets_is_whole_after_kills(tmp_path: Path, number: int) -> None:
    choose = random.Random(7000 + number)
    content = choose.randbytes(600_000)
    wheel = tmp_path / "it-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("it/data", content)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    environment["RANKITECT_CACHE"] = str(tmp_path / "cache")
    command = [sys.executable, "-c", CACHING, str(wheel), hashlib.sha256(content).hexdigest(), str(len(content))]
    for kill in (True, True, False):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "begins\n"
        if kill:
            time.sleep(choose.uniform(0.0, 0.12))
            process.kill()
        rest = process.stdout.read()  # not `communicate`, which does not know what `readline` has read ahead
        process.wait(timeout=60)
        file = next((tmp_path / "cache" / "assets").rglob("data"), None)
        assert file is None or file.read_bytes() == content, "a part of a file has the name of the whole"
    assert rest.strip(), "the last one ended by itself"
    assert Path(rest.strip()).read_bytes() == content
    left = sorted(p.name for p in (tmp_path / "cache").rglob("*") if p.is_file())
    assert left == [".lock", "data"], "what the killed ones left is gone"


@pytest.mark.parametrize("number", range(max(1, ROUNDS // 4)))
def test_an_export_that_is_killed_leaves_no_part_of_a_file(calm: Calm, tmp_path: Path, number: int) -> None:
    choose = random.Random(8000 + number)
    folder = shutil.copytree(calm.folder, tmp_path / "run")
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    out = tmp_path / "trials.csv"
    command = [sys.executable, "-m", "rankitect.export", f"run={folder}", "to=csv", f"out={out}"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    time.sleep(choose.uniform(0.3, 2.0))
    process.kill()
    process.wait()
    assert subprocess.run(command, env=environment).returncode == (2 if out.exists() else 0)
    whole = folder / "trials.csv"
    assert len(out.read_text().splitlines()) == len(whole.read_text().splitlines())
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_what_was_injected() -> None:
    """Runs after the rounds: prints the table."""
    rows = sorted(TABLE.items())
    print(f"\n\n| fault | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}")
    for name, counts in rows:
        print(f"| {name.replace('_', ' ')} | {' | '.join(str(counts[c]) for c in COLUMNS)} |")
    assert not any(counts[column] for _, counts in rows for column in COLUMNS[2:])


def test_two_drivers_on_one_study(tmp_path: Path) -> None:
    """The second is refused and told who holds it."""
    first, second = Round(tmp_path / "run", "inline"), Round(tmp_path / "run", "inline")
    holder = first.start("evaluator.final.seconds=1")
    until = time.monotonic() + 60
    while not (tmp_path / "run" / "study.db").exists() and time.monotonic() < until:
        time.sleep(0.05)
    code, said = second.ended(second.start("evaluator.final.seconds=1"))
    os.killpg(holder.pid, signal.SIGKILL)
    holder.communicate()
    assert code == 2
    assert str(holder.pid) in said


@pytest.mark.skipif(shutil.which("mount") is None or os.geteuid() != 0, reason="needs root, to mount a small disk")
def test_a_full_disk_loses_nothing(calm: Calm, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        (disk / "ballast").write_bytes(b"x" * 150_000)
        it = Round(disk / "run", "inline")
        code, said = it.ended(it.start())
        assert code == 3, said[-1000:]
        (disk / "ballast").unlink()
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        it.finish()
        assert found(disk / "run") == calm.found
    finally:
        subprocess.run(["umount", str(disk)], check=True)
