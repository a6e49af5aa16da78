"""What a study is asked to do: what it searches for, how much it may spend, and when it gives up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rankitect.study.confirming import Confirmation
from rankitect.study.ledger import Budget
from rankitect.study.progress import Progress

if TYPE_CHECKING:
    from rankitect.config.schema import RunnerConfig
    from rankitect.contracts import Evaluator

__all__ = ["Hooks", "Limits", "StudyPlan", "Subject"]


@dataclass(frozen=True)
class Limits:
    """How proposals are asked for, and when a study gives up.

    Attributes:
        batch: The `n` of every `ask`.
        ahead: Batches that may be asked for beyond the oldest one whose results the controller was not told. The
            results of a search depend on it, but neither on the number of workers nor on their speed.
        attempts: How often a trial may end with its process before it counts as failed.
        failures: Failed trials in a row after which something is wrong with the run and not with the candidates.
        duplicates: Duplicates in a row after which the controller has nothing new to propose.
    """

    batch: int = 1
    ahead: int = 0
    attempts: int = 5
    failures: int = 20
    duplicates: int = 200

    @classmethod
    def of(cls, config: RunnerConfig) -> Limits:
        """The limits that a configuration sets."""
        ahead = config.workers - 1 if config.ahead is None else config.ahead
        return cls(config.batch, ahead, config.attempts, config.failures, config.duplicates)


@dataclass(frozen=True)
class StudyPlan:
    """What a study does, apart from the parts that it does it with.

    Attributes:
        objectives: Names of the final evaluator's metrics that the Pareto front is taken over.
        final: Key of the evaluator whose results are final.
        seed: Seed of the study.
        budget: When to stop.
        limits: How to ask, and when to give up.
        confirmation: How often what the search found is measured again.
    """

    objectives: Sequence[str]
    final: str = "final"
    seed: int = 0
    budget: Budget = field(default_factory=Budget)
    limits: Limits = field(default_factory=Limits)
    confirmation: Confirmation = field(default_factory=Confirmation)


@dataclass(frozen=True)
class Subject:
    """What is searched, and what measures it.

    Attributes:
        evaluators: Evaluators by the key that proposals use.
        decode: Makes an architecture from its JSON.
        space: The search space, for the controller.
        task: The task, for the controller.
    """

    evaluators: Mapping[str, Evaluator]
    decode: Callable[[str], Any]
    space: Any = None
    task: Any = None


@dataclass(frozen=True)
class Hooks:
    """How a study and the person who started it reach each other.

    Attributes:
        stop: Whether the user asked to stop.
        progress: Where to show progress.
    """

    stop: Callable[[], bool] = lambda: False
    progress: Progress = field(default_factory=lambda: Progress(quiet=True))
