"""The plain data of a study: metrics, what they cost, proposals and trials.

All of it is immutable and survives JSON, so that a killed run can be replayed from the store.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter
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
    "Role",
    "Spent",
    "Trial",
    "TrialState",
    "Unit",
]

JSON: TypeAlias = bool | int | float | str | Sequence["JSON"] | Mapping[str, "JSON"] | None
Direction: TypeAlias = Literal["min", "max"]
Role: TypeAlias = Literal["quality", "cost", "diagnostic"]
"""What a metric says: how good a model is, what it costs, or something else that is worth knowing."""
Unit: TypeAlias = Literal["examples", "tokens"]
"""What the data of a task are counted in."""
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
        role: Whether it says how good a model is ("quality"), what it costs ("cost"), or neither ("diagnostic"). Stated
            by whoever measures it; nobody infers it from the name.
        held_out: Another metric that is the same on data by which nothing was chosen. A search goes by this one, a
            report shows the other.
    """

    name: str
    unit: str
    direction: Direction
    role: Role
    held_out: str | None = None


@dataclass(frozen=True)
class Spent:
    """What something cost, in the units that every method is charged in. Instances add up with `+` and `sum`.

    Language models count tokens, all others examples; a task says which in `Task.unit`.

    Attributes:
        train_examples: Examples on which a gradient was computed.
        eval_examples: Examples that only went forward.
        train_tokens: Tokens on which a gradient was computed.
        eval_tokens: Tokens that only went forward, through the model that is trained or measured.
        teacher_tokens: Tokens that went forward through a teacher.
        generated_tokens: Tokens that were sampled from a model.
        train_flops: FLOPs of training, three times those of the forward passes; 0 where they were not counted.
        latency_measurements: Single timed runs of a model.
        seconds: Wall-clock seconds of the process.
    """

    train_examples: int = 0
    eval_examples: int = 0
    train_tokens: int = 0
    eval_tokens: int = 0
    teacher_tokens: int = 0
    generated_tokens: int = 0
    train_flops: int = 0
    latency_measurements: int = 0
    seconds: float = 0.0

    @classmethod
    def training(cls, amount: int, unit: Unit) -> Self:
        """An amount of data on which a gradient was computed."""
        return cls(train_examples=amount) if unit == "examples" else cls(train_tokens=amount)

    @classmethod
    def evaluation(cls, amount: int, unit: Unit) -> Self:
        """An amount of data that only went forward."""
        return cls(eval_examples=amount) if unit == "examples" else cls(eval_tokens=amount)

    @property
    def trained(self) -> int:
        """Examples and tokens on which a gradient was computed."""
        return self.train_examples + self.train_tokens

    @property
    def evaluated(self) -> int:
        """Examples and tokens that only went forward, through the model that is trained or measured."""
        return self.eval_examples + self.eval_tokens

    @property
    def data(self) -> int:
        """Examples and tokens trained and evaluated: what `budget.tokens` limits and methods are compared by."""
        return self.trained + self.evaluated

    def __add__(self, other: Spent) -> Spent:
        """The sum of both."""
        return Spent(*(one + more for one, more in zip(_AMOUNTS(self), _AMOUNTS(other), strict=True)))

    def __neg__(self) -> Spent:
        """What takes this away again when it is added."""
        return Spent(*(-amount for amount in _AMOUNTS(self)))

    def __radd__(self, other: int) -> Spent:
        """Lets `sum` begin with its 0."""
        if other != 0:
            return NotImplemented
        return self

    def amounts(self) -> tuple[Any, ...]:
        """The amounts in the order of the fields, as `Spent` takes them."""
        return _AMOUNTS(self)

    def to_dict(self) -> dict[str, Any]:
        """The amounts by name."""
        return dict(zip(_NAMES, _AMOUNTS(self), strict=True))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The amounts of `to_dict`, or of what holds them among other things, such as a ledger."""
        return cls(**{name: data[name] for name in _NAMES if name in data})


_NAMES = tuple(each.name for each in fields(Spent))
_AMOUNTS: Callable[[Spent], tuple[Any, ...]] = attrgetter(*_NAMES)
"""The amounts of a `Spent`. They are added up several times a trial; `dataclasses.astuple` takes ten times as long."""


@dataclass(frozen=True)
class Measurement:
    """What an evaluator found out about one architecture.

    Attributes:
        metrics: Every promised metric by name; more are allowed.
        spent: What the measurement cost. The study overwrites `seconds` with the wall time it observed.
        artifacts: Files by a short name ("weights", "onnx"), as paths relative to the run folder, with "/".
        notes: Anything else worth keeping; must survive JSON. "examples" makes reports compare models pairwise on the
            same examples: {"metric", "values", "clusters"}, where the metric is the exponential of the values' mean,
            and examples of one cluster (a document) are alike. "answers" does so for metrics that are means, by their
            names: {"direction", "values", "clusters"}. "not_known" lists promised metrics that a baseline
            cannot have, such as the costs of logged scores.
        reused: The part of `spent` that was not computed again, because its result was stored before: it is charged, so
            that methods stay comparable, and not paid.
    """

    metrics: dict[str, Metric]
    spent: Spent = Spent()
    artifacts: dict[str, str] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    reused: Spent = Spent()

    @property
    def computed(self) -> Spent:
        """The part of `spent` that was computed for this measurement; what was only read took none of its seconds."""
        return self.spent + -replace(self.reused, seconds=0.0)

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
            "reused": self.reused.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        return cls(
            metrics={name: Metric.from_dict(metric) for name, metric in data["metrics"].items()},
            spent=Spent.from_dict(data["spent"]),
            artifacts=dict(data["artifacts"]),
            notes=dict(data["notes"]),
            reused=Spent.from_dict(data.get("reused", {})),
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
        reference: Whether costs are shown as a share of its, and pictures compare with it, as with the backbone that
            all others are pruned from.
        logged: Whether it is what production answered when the data were logged: nobody knows its costs.
    """

    name: str
    architecture: Any
    registered: Mapping[str, Any] | None = None
    reference: bool = False
    logged: bool = False


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
