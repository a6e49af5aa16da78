"""The plain data of a study: metrics, what they cost, proposals and trials.

All of it is immutable and survives JSON, so that a killed run can be replayed from the store. *Train tokens* are tokens
on which a gradient was computed, *eval tokens* tokens that only went forward (for a ranking task read "examples" for
both), *seconds* are wall-clock seconds of the process.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol, Self, TypeAlias, runtime_checkable

__all__ = [
    "JSON",
    "ArchitectureLike",
    "Baseline",
    "Direction",
    "Measurement",
    "Metric",
    "MetricSpec",
    "Proposal",
    "Spent",
    "Trial",
    "TrialState",
]

JSON: TypeAlias = bool | int | float | str | Sequence["JSON"] | Mapping[str, "JSON"] | None
Direction: TypeAlias = Literal["min", "max"]
TrialState: TypeAlias = Literal["WAITING", "RUNNING", "DONE", "FAILED"]


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
    """A metric that an evaluator promises.

    Attributes:
        name: Its name.
        unit: Its unit.
        direction: Whether less ("min") or more ("max") is better.
        held_out: Another metric that is the same on data by which nothing was chosen. A search goes by this one, a
            report shows the other.
    """

    name: str
    unit: str
    direction: Direction
    held_out: str | None = None


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
        """The sum of both."""
        return Spent(
            self.train_tokens + other.train_tokens,
            self.eval_tokens + other.eval_tokens,
            self.latency_measurements + other.latency_measurements,
            self.seconds + other.seconds,
        )

    def __radd__(self, other: int) -> Spent:
        """Lets `sum` begin with its 0."""
        if other != 0:
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
        notes: Anything else worth keeping; must survive JSON. "examples" makes reports compare models pairwise on the
            same examples: {"metric", "values", "clusters"}, where the metric is the exponential of the values' mean,
            and examples of one cluster (a document) are alike.
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
    """A named model that the report compares with, measured by the final evaluator.

    Attributes:
        name: Its name.
        architecture: What is measured.
        registered: What the registry of production models says of it, if it is from there.
    """

    name: str
    architecture: Any
    registered: Mapping[str, Any] | None = None


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
