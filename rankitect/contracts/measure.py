"""What a trained model is asked beside its task's quality: accuracy on questions, or a function of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar

from rankitect.contracts.plugin import plugin
from rankitect.contracts.records import Direction, Metric, MetricSpec, Role, Spent

__all__ = ["Answers", "DeclaredMeasure", "GivesAnswers", "Measure", "Measured", "declared_measure", "measure"]

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Answers:
    """A metric of each example, by which models are compared in pairs; the metric is their mean.

    Attributes:
        values: Of each example, [N].
        clusters: Number of the cluster of each example, where some are alike, [N]; None where each stands alone.
        direction: Whether less or more is better.
        of: What an example is called.
    """

    values: tuple[float, ...]
    clusters: tuple[int, ...] | None = None
    direction: Direction = "max"
    of: str = "question"


@dataclass(frozen=True)
class Measured:
    """What a measure found.

    Attributes:
        metrics: Every metric that it promised, by name.
        answers: Of those that are means over examples, the value of each example.
        spent: What it cost.
    """

    metrics: Mapping[str, Metric]
    answers: Mapping[str, Answers] = field(default_factory=dict)
    spent: Spent = field(default_factory=Spent)


class GivesAnswers(Protocol):
    """A quality (`rankitect.contracts.Quality`) that knows what each example gave to those of its metrics that are
    means."""

    @property
    def answers(self) -> Mapping[str, Answers]:
        """By the name of the metric."""
        ...


class Measure(Protocol):
    """Measures a model that is made and trained. Deterministic; leaves the model as it was.

    A measure class is a plug-in as all others are: it has a checked `Config` and a class method `from_config(config,
    parts)`. Its metrics have short names ("acc"): in a run they stand behind the measure's own, as in "arc_acc". A
    metric without a name has the measure's.
    """

    def specs(self, split: str) -> Sequence[MetricSpec]:
        """The metrics that `measure` gives.

        Args:
            split: "test", by which nothing is chosen, or the task's `search_split`; none where it asks nothing there.
        """
        ...

    def measure(self, model: Any, split: str, check: Callable[[], None]) -> Measured:
        """Measure a model.

        Args:
            model: A torch module; it keeps its mode.
            split: As for `specs`.
            check: Called now and then; may raise, to stop.
        """
        ...


class DeclaredMeasure(NamedTuple):
    """What `measure` was told of a function.

    Attributes:
        unit: Of the value.
        direction: Whether less or more is better.
        role: What the value says.
    """

    unit: str
    direction: Direction
    role: Role


_DECLARED: dict[Callable[..., Any], DeclaredMeasure] = {}


def measure(direction: Direction, *, unit: str = "", role: Role = "quality") -> Callable[[F], F]:
    """Declare a function of a trained model as a measure: `measures.<name>.target=my_file.my_function`.

    The function gets the model and the task; further parameters are keys of its section. It returns a number, or a
    sequence of numbers, one an example, whose mean is the metric, with an interval.

    >>> @measure("max", unit="share")
    ... def sparsity(model, task, above: float = 0.0):
    ...     return [float((w.abs() <= above).float().mean()) for w in model.parameters()]

    Args:
        direction: Whether less ("min") or more ("max") is better.
        unit: Of the number; "share" for what is shown as a percentage.
        role: Whether it says how good a model is, what it costs, or something else.
    """

    def declare(function: F) -> F:
        _DECLARED[function] = DeclaredMeasure(unit, direction, role)
        return plugin(function)

    return declare


def declared_measure(target: Callable[..., Any]) -> DeclaredMeasure | None:
    """What `measure` was told of a function; None for anything else."""
    return _DECLARED.get(target)
