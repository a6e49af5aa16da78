"""Fuzzers of what is kept to save time: a cache gives what was written into it, or nothing."""

from __future__ import annotations

import functools
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from rankitect.data.kept import keep_record
from rankitect.data.windows import TextWindows
from rankitect.deploy.host import _read
from rankitect.deploy.latency_model import LatencyModel
from rankitect.deploy.timing import Timing
from rankitect.models.importance import Statistics
from rankitect.models.statistics_file import load_statistics, save_statistics
from rankitect.training.distill import TeacherTargets
from tests.fuzz import mutate
from tests.fuzz.harness import Fuzz

LINKS = ("loop", "nothing", "folder", "itself elsewhere", "another", "pipe")


@dataclass(frozen=True)
class Damage:
    """What lies in the place of a kept file: other content, or a link."""

    content: bytes
    whole: bytes
    link: str = ""

    @property
    def is_none(self) -> bool:
        """Whether the file is the one that was written."""
        return self.link in ("", "itself elsewhere") and self.content == self.whole


def damage(random: Random, whole: bytes) -> Damage:
    kind = random.random()
    if kind < 0.2:
        return Damage(whole, whole, random.choice(LINKS))
    if kind < 0.3:
        at = random.randrange(len(whole))  # a single bit, as a disk flips it
        return Damage(whole[:at] + bytes([whole[at] ^ 1 << random.randrange(8)]) + whole[at + 1 :], whole)
    return Damage(mutate.bytes_(random, whole), whole)


def put(path: Path, given: Damage, another: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name("beside")
    if not given.link:
        path.write_bytes(given.content)
    elif given.link == "pipe":
        os.mkfifo(path)
    elif given.link == "folder":
        path.mkdir()
    else:
        if given.link in ("itself elsewhere", "another"):
            beside.write_bytes(given.content if given.link == "itself elsewhere" else another)
        path.symlink_to(path if given.link == "loop" else beside)


@functools.cache
def written(what: str) -> dict[str, bytes]:
    """The files that something keeps, by their place."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "cache"
        WRITERS[what](folder)
        return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


# --- calibration statistics -------------------------------------------------------------------------------------------
def gathered(seed: int) -> Statistics:
    rng = torch.Generator().manual_seed(seed)
    some = {("layer.0", "up"): torch.rand(4, 4, generator=rng), ("layer.1", "o"): torch.rand(3, 3, generator=rng)}
    slopes = {("layer.0", "up"): torch.rand(5, 5, generator=rng)}
    return Statistics(some, {}, {}, slopes, torch.rand(6, generator=rng), {"layer.0": 0.1 + seed, "layer.1": 0.7}, 4096)


STATISTICS = "statistics/abc.safetensors"


def write_statistics(folder: Path) -> None:
    save_statistics(folder / STATISTICS, gathered(0))
    save_statistics(folder / "statistics/xyz.safetensors", gathered(1))


class TestStatistics(Fuzz):
    """Kept calibration statistics. What is not what was written is gathered again."""

    both = False

    def make(self, random: Random) -> Damage:
        return damage(random, written("statistics")[STATISTICS])

    def read(self, data: Damage, folder: Path) -> Statistics | None:
        put(folder / STATISTICS, data, written("statistics")["statistics/xyz.safetensors"])
        return load_statistics(folder / STATISTICS)

    def confirm(self, data: Damage, value: Statistics | None) -> None:
        if value is None:
            assert not data.is_none
            return
        expected = gathered(0)
        assert (value.influence, value.tokens) == (expected.influence, expected.tokens)
        assert torch.equal(value.residual, expected.residual)
        for name in ("gram", "fisher", "taylor", "slopes"):
            got, want = getattr(value, name), getattr(expected, name)
            assert got.keys() == want.keys()
            assert all(torch.equal(got[key], want[key]) for key in want)


# --- a teacher's targets ----------------------------------------------------------------------------------------------
class Teacher(torch.nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(torch.randn(11, 11, generator=torch.Generator().manual_seed(seed)))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.table[ids]


def windows() -> TextWindows:
    """A text of 90 tokens, of which a window is 9."""

    def read(places: NDArray[np.int64], context: int) -> NDArray[np.int64]:
        return (places[:, None] * context + np.arange(context + 1)) % 11

    text = SimpleNamespace(vocab_size=11, fingerprint="t", split=lambda name: SimpleNamespace(read=read))
    return cast("TextWindows", SimpleNamespace(text=text))


def targets(folder: Path, seed: int = 0) -> TeacherTargets:
    return TeacherTargets(Teacher(seed), windows(), context=8, k=4, samples=2, cache=folder / "teacher")


WINDOWS = np.array([3, 5])


def write_targets(folder: Path) -> None:
    for seed in (0, 1):
        targets(folder, seed).at(WINDOWS)


@functools.cache
def expected_targets() -> Mapping[str, torch.Tensor]:
    return vars(targets(Path("/proc/nothing")).at(WINDOWS))  # where nothing can be kept


class TestTargets(Fuzz):
    """Kept targets of a teacher. What is not what was written is computed again."""

    cases = 60
    share = 0.3
    both = False

    def make(self, random: Random) -> tuple[Damage, str]:
        mine, other = (f"teacher/{targets(Path(), seed).folder.name}/0000/0000003.safetensors" for seed in (0, 1))
        another = random.choice([other, mine.replace("3.safetensors", "5.safetensors")])
        return damage(random, written("targets")[mine]), another

    def read(self, data: tuple[Damage, str], folder: Path) -> tuple[int, Mapping[str, torch.Tensor]]:
        mine = targets(folder)
        put(mine.folder / "0000" / "0000003.safetensors", data[0], written("targets")[data[1]])
        values = vars(mine.at(WINDOWS))
        return mine.computed, values

    def confirm(self, data: tuple[Damage, str], value: tuple[int, Mapping[str, torch.Tensor]]) -> None:
        assert value[0] == (1 if data[0].is_none else 2)
        for name, want in expected_targets().items():
            assert torch.equal(value[1][name], want), name


# --- latencies --------------------------------------------------------------------------------------------------------
FEATURES = np.random.default_rng(0).random((6, 2))
LATENCY = 1 + FEATURES @ np.array([2.0, 3.0])


LATENCIES = "latencies.safetensors"


def write_latencies(folder: Path) -> None:
    folder.mkdir()
    LatencyModel({"device": "host"}).fit(FEATURES, LATENCY).save(folder / LATENCIES)


class TestLatencyModel(Fuzz):
    """Saved latency models: a table of features and milliseconds."""

    cases = 100
    share = 0.3

    def make(self, random: Random) -> Damage:
        whole = written("latencies")[LATENCIES]
        if random.random() < 0.02:
            return Damage(whole, whole)
        while (given := damage(random, whole)).is_none:  # those that are read cost a fit
            pass
        return given

    def read(self, data: Damage, folder: Path) -> LatencyModel:
        put(folder / LATENCIES, data, b"")
        return LatencyModel.load(folder / LATENCIES, {"device": "host"})

    def confirm(self, data: Damage, value: LatencyModel) -> None:
        assert value.metadata == {"device": "host"}
        assert np.array_equal(value._features, FEATURES)  # type: ignore[arg-type]
        assert np.array_equal(value._latency, LATENCY)  # type: ignore[arg-type]


TIMING = Timing(1.5, 1.25, 1.75, 2.0, 2.5, 40, 1.01, True, 0.9, 3.5, 2.25, 1 << 20)


PART, OTHER = "host/part.json", "host/other.json"


def write_timings(folder: Path) -> None:
    keep_record(folder / OTHER, {**TIMING.to_json(), "p50": 9.0})
    keep_record(folder / PART, TIMING.to_json())


class TestKeptTimings(Fuzz):
    """Kept measurements of a part on this machine. What is not what was written is measured again."""

    both = False

    def make(self, random: Random) -> Damage:
        whole = written("timings")[PART]
        changed = random.random() < 0.3
        return Damage(mutate.json_text(random, json.loads(whole)), whole) if changed else damage(random, whole)

    def read(self, data: Damage, folder: Path) -> Timing | None:
        put(folder / PART, data, written("timings")[OTHER])
        return _read(folder / PART)

    def confirm(self, data: Damage, value: Timing | None) -> None:
        assert value in (None, TIMING)
        assert value is not None or not data.is_none


WRITERS: Mapping[str, Callable[[Path], None]] = {
    "statistics": write_statistics,
    "targets": write_targets,
    "latencies": write_latencies,
    "timings": write_timings,
}
