"""What evaluators, controllers and the study promise each other.

A plug-in needs only this module: it holds plain data and protocols, and imports no heavy package. A controller proposes
architectures, the study has them measured by evaluators and stores every result, and the controller is told. All
values that cross a contract are immutable and survive JSON, so that a killed run can be replayed from the store.

Vocabulary: *train tokens* are tokens on which a gradient was computed, *eval tokens* tokens that only went forward
(for a ranking task read "examples" for both), *seconds* are wall-clock seconds of the process.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    import logging
    from pathlib import Path

__all__ = [
    "ArchitectureLike",
    "Baseline",
    "Controller",
    "Direction",
    "Evaluator",
    "Exporter",
    "JSON",
    "Measurement",
    "Metric",
    "MetricSpec",
    "Proposal",
    "Session",
    "Spent",
    "StopRequested",
    "Trial",
    "TrialContext",
    "TrialState",
    "replay",
]

JSON: TypeAlias = None | bool | int | float | str | Sequence["JSON"] | Mapping[str, "JSON"]
Direction: TypeAlias = Literal["min", "max"]
TrialState: TypeAlias = Literal["WAITING", "RUNNING", "DONE", "FAILED"]


class StopRequested(Exception):
    """Raised by `check()` in prepare or measure when the user asked the run to stop. Let it pass; save state first."""


@runtime_checkable
class ArchitectureLike(Protocol):
    """The members of `rankitect.graph.Architecture` that the study relies on."""

    @property
    def space(self) -> str:
        """Name of the search space."""
        ...

    @property
    def version(self) -> str:
        """Version of the search space."""
        ...

    @property
    def choices(self) -> Mapping[str, Any]:
        """Value of every live choice by its path."""
        ...

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON, 64 hexadecimal digits."""
        ...

    def to_json(self) -> str:
        """Canonical JSON."""
        ...


@dataclass(frozen=True)
class Metric:
    """One measured value.

    Attributes:
        value: The value; must be finite for the trial to count as done.
        unit: Its unit in words or symbols ("", "FLOP", "byte", "ms", "nat/token").
        n: How many repeats or examples it was measured over, where more than once.
        ci95: Lower and upper end of its 95% confidence interval, where known.
    """

    value: float
    unit: str
    n: int | None = None
    ci95: tuple[float, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The metric as in summary.json: {value, unit} and, where known, n and ci95."""
        out: dict[str, Any] = {"value": self.value, "unit": self.unit}
        if self.n is not None:
            out["n"] = self.n
        if self.ci95 is not None:
            out["ci95"] = [self.ci95[0], self.ci95[1]]
        return out

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        ci95 = data.get("ci95")
        return cls(data["value"], data["unit"], data.get("n"), None if ci95 is None else (ci95[0], ci95[1]))


@dataclass(frozen=True)
class MetricSpec:
    """A metric that an evaluator promises: its name, unit, and whether less ("min") or more ("max") is better."""

    name: str
    unit: str
    direction: Direction


@dataclass(frozen=True)
class Spent:
    """What something cost, in the coin that every method is charged in. Instances add up with `+` and `sum`.

    Attributes:
        train_tokens: Tokens (or examples) on which a gradient was computed.
        eval_tokens: Tokens (or examples) that only went forward.
        latency_measurements: Single timed runs of a model.
        seconds: Wall-clock seconds.
    """

    train_tokens: int = 0
    eval_tokens: int = 0
    latency_measurements: int = 0
    seconds: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.train_tokens + other.train_tokens,
            self.eval_tokens + other.eval_tokens,
            self.latency_measurements + other.latency_measurements,
            self.seconds + other.seconds,
        )

    def __radd__(self, other: int) -> Spent:
        if other != 0:  # only sum()'s start value
            return NotImplemented
        return self

    def to_dict(self) -> dict[str, Any]:
        """The four numbers by name."""
        return asdict(self)


@dataclass(frozen=True)
class Measurement:
    """What an evaluator found out about one architecture.

    Attributes:
        metrics: Every promised metric by name; more are allowed.
        spent: What the measurement cost. The study overwrites `seconds` with the wall time it observed.
        artifacts: Files by a short name ("weights", "onnx"), as paths relative to the run folder, with "/".
        notes: Anything else worth keeping; must survive JSON.
    """

    metrics: dict[str, Metric]
    spent: Spent = Spent()
    artifacts: dict[str, str] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    def not_finite(self) -> list[str]:
        """Names of metrics whose value or interval is not a finite number."""
        return [
            name
            for name, metric in self.metrics.items()
            if not all(math.isfinite(value) for value in (metric.value, *(metric.ci95 or ())))
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the store."""
        return {
            "metrics": {name: metric.to_dict() for name, metric in self.metrics.items()},
            "spent": self.spent.to_dict(),
            "artifacts": dict(self.artifacts),
            "notes": dict(self.notes),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        return cls(
            metrics={name: Metric.from_dict(metric) for name, metric in data["metrics"].items()},
            spent=Spent(**data["spent"]),
            artifacts=dict(data["artifacts"]),
            notes=dict(data["notes"]),
        )


@dataclass
class TrialContext:
    """What the study gives an evaluator for one measurement.

    Attributes:
        run_folder: The run folder; artifact paths are relative to it.
        folder: An empty folder inside the run folder, only for this trial's artifacts.
        seed: Seed of every random number of this measurement; equal seeds must give equal results.
        should_stop: True when the user asked to stop; poll it at safe points, or call `check`.
        progress: Called with (done, total, note) as often as convenient.
        spent: What was spent so far. An evaluator may add to it as it goes, so that a failed trial is charged too.
    """

    run_folder: Path
    folder: Path
    seed: int
    should_stop: Callable[[], bool] = lambda: False
    progress: Callable[[int, int, str], None] = lambda done, total, note: None
    spent: Spent = Spent()

    def check(self) -> None:
        """Return at once, unless the user asked to stop.

        Raises:
            StopRequested: The trial will be measured again, from its start, when the run is resumed.
        """
        if self.should_stop():
            raise StopRequested

    def artifact(self, path: Path) -> str:
        """Path of a file below `folder` in the form that `Measurement.artifacts` wants."""
        return path.relative_to(self.run_folder).as_posix()


class Evaluator(Protocol):
    """Measures one architecture. Deterministic under `context.seed`; never changes the architecture."""

    @property
    def name(self) -> str:
        """The field's word for the measurement ("perplexity after healing")."""
        ...

    @property
    def metrics(self) -> list[MetricSpec]:
        """The metrics that every measurement carries."""
        ...

    def measure(self, architecture: Any, context: TrialContext) -> Measurement:
        """Measure `architecture`.

        Raises:
            StopRequested: From `context.check()`.
            Exception: Anything else fails this trial with its cause recorded; the study goes on.
        """
        ...


@dataclass(frozen=True)
class Proposal:
    """One architecture that a controller wants measured.

    Attributes:
        architecture: The architecture.
        evaluator: Key of the evaluator in the study ("screen", "final").
        tags: Anything the controller wants back with the result, or shown in the report; must survive JSON.
        seed: Seed of the measurement; None takes the study's. One (architecture, evaluator, seed) is measured once.
    """

    architecture: Any
    evaluator: str = "final"
    tags: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None


@dataclass(frozen=True)
class Baseline:
    """A named model that the report compares with, measured by the final evaluator before the search begins."""

    name: str
    architecture: Any


@dataclass(frozen=True)
class Trial:
    """A stored trial.

    Attributes:
        number: Number in the study, from 1, in the order of proposal.
        batch: Number of the `ask` it came from, from 1; 0 for baselines.
        asked: The `n` of that `ask`.
        architecture: The architecture.
        evaluator: Key of the evaluator.
        seed: Seed of the measurement.
        tags: The proposal's tags.
        state: WAITING, RUNNING, DONE or FAILED.
        measurement: The result of a DONE trial.
        cause: One sentence, for a FAILED trial.
        duplicate_of: Number of the earlier trial whose result was reused.
        baseline: Name of the baseline, if it is one.
        attempts: How often it was started.
        spent: What the trial cost; nothing for a duplicate.
    """

    number: int
    batch: int
    asked: int
    architecture: Any
    evaluator: str
    seed: int
    tags: dict[str, Any]
    state: TrialState
    measurement: Measurement | None = None
    cause: str | None = None
    duplicate_of: int | None = None
    baseline: str | None = None
    attempts: int = 0
    spent: Spent = Spent()

    @property
    def ok(self) -> bool:
        """Whether there is a result."""
        return self.state == "DONE"

    @property
    def finished(self) -> bool:
        """Whether it is DONE or FAILED."""
        return self.state in ("DONE", "FAILED")


class Session(Protocol):
    """What a controller may use of the study it works for."""

    @property
    def space(self) -> Any:
        """The search space."""
        ...

    @property
    def task(self) -> Any:
        """The task."""
        ...

    @property
    def seed(self) -> int:
        """The study's seed."""
        ...

    @property
    def state_dir(self) -> Path:
        """Folder for the controller's checkpoints, inside the run folder. Write files atomically."""
        ...

    @property
    def logger(self) -> logging.Logger:
        """Goes to log.txt."""
        ...

    @property
    def trials(self) -> list[Trial]:
        """Finished trials in order of proposal, baselines included."""
        ...

    def charge(self, key: str, spent: Spent) -> None:
        """Charge the ledger's stage "prepare". A later charge of the same key replaces the earlier, so that work
        repeated after a crash is charged once; use a key per chunk of work, or one key with the total so far."""
        ...

    def spent(self) -> Spent:
        """What the search has spent so far, prepare and trials together, without baselines."""
        ...

    def remaining(self) -> float:
        """Share of the budget that is left, in [0, 1]: the least over minutes, tokens and trials; 1 without limits."""
        ...

    def should_stop(self) -> bool:
        """True when the user asked to stop. Save state, then call `check`."""
        ...

    def check(self) -> None:
        """Raises: StopRequested when the user asked to stop."""
        ...

    def progress(self, done: int, total: int, note: str = "") -> None:
        """Show progress of prepare."""
        ...

    def scalar(self, name: str, value: float, step: int) -> None:
        """Write a TensorBoard scalar."""
        ...


class Controller(Protocol):
    """A search method. It never measures by itself what an evaluator can measure.

    The order of calls, in a fresh run and in a resumed one: `prepare`, `recover` (resumed only), then `ask` and `tell`
    in turn until `ask` returns an empty list or the budget ends. Proposals must be a function of the seed and of the
    history alone, never of the clock, so that a resumed study goes on exactly as an undisturbed one would have.
    """

    def prepare(self, session: Session) -> None:
        """Train or load what the method needs. Called at every start: finished work is found in `session.state_dir`."""
        ...

    def ask(self, n: int) -> list[Proposal]:
        """Propose at most `n` architectures (fewer where the method works in rounds); an empty list ends the search."""
        ...

    def tell(self, trials: list[Trial]) -> None:
        """The results of the last `ask`, all of them, in its order; failed and duplicate trials included."""
        ...

    def recover(self, trials: list[Trial]) -> None:
        """Bring a fresh controller to the state after `trials` (whole batches, in order). `replay` does for most."""
        ...


class Exporter(Protocol):
    """Writes what is worth having of one Pareto candidate (graph.svg, a Hugging Face folder …) into its folder."""

    def __call__(self, trial: Trial, folder: Path) -> dict[str, str]:
        """Write files below `folder` (not yet at its final place) and return names with paths relative to it."""
        ...


def replay(controller: Controller, trials: list[Trial]) -> None:
    """Recover by going through the history again: the same `ask` and `tell` for every batch.

    The plain implementation of `Controller.recover`, right for every method whose `ask` is cheap and deterministic.
    """
    batches: dict[int, list[Trial]] = {}
    for trial in trials:
        batches.setdefault(trial.batch, []).append(trial)
    for batch in sorted(batches):
        controller.ask(batches[batch][0].asked)
        controller.tell(batches[batch])
