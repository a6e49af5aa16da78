"""Small real parts for the study's tests: a space of integer pairs, a quadratic to minimise, and two search methods."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import sqlite3
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from rankitect.contracts import (
    Baseline,
    Measurement,
    Metric,
    MetricSpec,
    Proposal,
    Spent,
    TrialContext,
    plugin,
    replay,
)
from rankitect.documents import read_json
from rankitect.errors import MeasureError, RunFolderError, SpaceError
from rankitect.study.schema import COLUMNS


@dataclass(frozen=True)
class Point:
    """Stands where a graph's architecture stands, with the members that the study uses."""

    choices: dict[str, int]
    space: str = "grid"
    version: str = "1"

    def to_json(self) -> str:
        """As an architecture's, so that readers that know no toys recognise its fingerprint."""
        data = {"choices": self.choices, "space": self.space, "version": self.version}
        return json.dumps(data, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Point:
        return cls(**json.loads(text))

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.to_json().encode()).hexdigest()


@dataclass
class Quadratic:
    """(x - 3)^2 + noise of the seed, at a cost of x + y. `misbehave` maps x to what happens there."""

    name: str = "quadratic"
    seconds: float = 0.0
    misbehave: dict[int, str] = field(default_factory=dict)
    measured: list[tuple[str, int]] = field(default_factory=list)
    metrics: ClassVar = [MetricSpec("loss", "nat", "min", "quality"), MetricSpec("cost", "FLOP", "min", "cost")]

    def measure(self, architecture: Point, context: TrialContext) -> Measurement:
        x, y = architecture.choices["x"], architecture.choices["y"]
        self.measured.append((architecture.fingerprint, context.seed))
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            context.check()
            time.sleep(0.005)
        trouble = self.misbehave.get(x)
        if trouble == "raise":
            context.spent = Spent(train_tokens=5)
            raise RuntimeError("the model exploded")
        if trouble == "measure":
            raise MeasureError("measures.mine failed: TypeError: no words.")
        if trouble == "full":
            raise OSError(28, "No space left on device")
        if trouble == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        marker = context.run_folder / f"met-{x}-{y}"
        if trouble == "kill once" and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if trouble == "hang":
            time.sleep(600)
        if trouble == "memory":
            bytearray(8 * 2**30)[:: 2**12] = b"x" * 2**21
        loss = float("nan") if trouble == "nan" else (x - 3) ** 2 + y + random.random()
        weights = context.folder / "weights.bin"
        weights.write_bytes(f"{x} {y}".encode())
        return Measurement(
            {"loss": Metric(loss, "nat", n=16, ci95=(loss - 1, loss + 1)), "cost": Metric(x + y, "FLOP")},
            Spent(train_tokens=100, eval_tokens=10),
            {"weights": context.artifact(weights)},
        )


class RandomPoints:
    """Draws points from one sequential random generator, so that losing its place on resume would show."""

    def __init__(self, seed: int = 0, total: int = 12, size: int = 8, chunks: int = 3) -> None:
        self.generator, self.total, self.size, self.chunks = random.Random(seed), total, size, chunks
        self.proposed = 0
        self.told: list[Any] = []
        self.session: Any = None
        self.chunk_seconds = 0.0

    def prepare(self, session: Any) -> None:
        self.session = session
        done = session.state_dir / "chunks.json"
        for chunk in range(read_json(done, int, RunFolderError) if done.exists() else 0, self.chunks):
            session.check()
            time.sleep(self.chunk_seconds)
            session.charge(f"chunk {chunk}", Spent(train_tokens=1000))
            temporary = done.with_suffix(".tmp")
            temporary.write_text(json.dumps(chunk + 1))
            os.replace(temporary, done)
            session.progress(chunk + 1, self.chunks)

    def ask(self, n: int) -> list[Proposal]:
        out = []
        while self.proposed < self.total and len(out) < n:
            point = Point({"x": self.generator.randrange(self.size), "y": self.generator.randrange(3)})
            out.append(Proposal(point, tags={"index": self.proposed}))
            self.proposed += 1
        return out

    def tell(self, trials: list[Any]) -> None:
        self.told.extend(trials)

    def recover(self, trials: list[Any]) -> None:
        replay(self, trials)


class Freely(RandomPoints):
    """The same, asked ahead."""

    def waits(self) -> bool:
        return False

    def reopen(self, trials: list[Any]) -> None:
        self.ask(len(trials))


class Climber(RandomPoints):
    """Proposes a neighbour of the best point it was told of, so that its proposals depend on results."""

    def ask(self, n: int) -> list[Proposal]:
        done = [trial for trial in self.told if trial.ok]
        if not done:
            return super().ask(n)
        best = min(done, key=lambda trial: trial.measurement.metrics["loss"].value).architecture.choices
        n = min(n, self.total - self.proposed)
        self.proposed += n
        moves = [(self.generator.randint(-2, 2), self.generator.randint(-1, 1)) for _ in range(n)]
        return [
            Proposal(Point({"x": max(0, best["x"] + dx), "y": max(0, best["y"] + dy)}), tags={"move": [dx, dy]})
            for dx, dy in moves
        ]


# The same as plug-ins, for the command ------------------------------------------------------------------------------


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Grid:
    """The search space, with a baseline."""

    class Config(_Config):
        size: int = Field(8, ge=2)

    decode = staticmethod(Point.from_json)

    def __init__(self, config: Config) -> None:
        self.size = config.size

    def baselines(self, parts: Any) -> list[Baseline]:
        return [Baseline("production", Point({"x": 7, "y": 2}))]

    def check(self, parts: Any) -> None:
        if parts.config.confirm.candidates == 0:
            raise SpaceError("confirm.candidates is 0: this space wants its candidates confirmed.")


@plugin
def no_task(examples: int = 10) -> dict[str, int]:
    """The task, as a plain function."""
    return {"examples": examples}


class QuadraticPlugin(Quadratic):
    """The evaluator."""

    class Config(_Config):
        seconds: float = 0.0
        misbehave: dict[int, str] = {}

    @classmethod
    def from_config(cls, config: Config, parts: Any) -> QuadraticPlugin:
        return cls(seconds=config.seconds, misbehave=config.misbehave)


class FreelyPlugin(Freely):
    """A controller that is asked ahead."""

    class Config(_Config):
        total: int = 12

    @classmethod
    def from_config(cls, config: Config, parts: Any) -> FreelyPlugin:
        return cls(seed=parts.config.seed, total=config.total, size=parts.space.size, chunks=0)


class ClimberPlugin(Climber):
    """The controller."""

    class Config(_Config):
        total: int = 12
        chunk_seconds: float = 0.0

    @classmethod
    def from_config(cls, config: Config, parts: Any) -> ClimberPlugin:
        made = cls(seed=parts.config.seed, total=config.total, size=parts.space.size)
        made.chunk_seconds = config.chunk_seconds
        return made


def sql(file: Path, *statements: str) -> None:
    """Run statements on a study's file, as SQLite's own shell would."""
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def downgrade(file: Path) -> None:
    """Make the file one of format 2, without checksums."""
    drops = [f"ALTER TABLE {table} DROP COLUMN checksum" for table in COLUMNS]
    sql(file, *drops, "PRAGMA legacy_alter_table=ON", "ALTER TABLE batches RENAME TO b",
        "CREATE TABLE batches (batch INTEGER PRIMARY KEY, asked INTEGER)",
        "INSERT INTO batches SELECT batch, asked FROM b", "DROP TABLE b", "DELETE FROM meta WHERE key <> 'schema'",
        "UPDATE meta SET value = '2'")  # fmt: skip
