"""What measures an architecture, and what the study gives it for that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from rankitect.contracts.records import Measurement, MetricSpec, Spent, Trial

__all__ = [
    "Evaluator",
    "Exporter",
    "FollowsRecipe",
    "StopRequested",
    "TakesCandidates",
    "TrainsForSteps",
    "TrialContext",
]


class StopRequested(Exception):
    """Raised by `check()` in prepare or measure when the user asked the run to stop. Let it pass; save state first."""


@dataclass
class TrialContext:
    """What the study gives an evaluator for one measurement.

    Attributes:
        run_folder: The run folder; artifact paths are relative to it.
        folder: An empty folder inside the run folder, only for this trial's artifacts.
        seed: Seed of every random number of this measurement; equal seeds must give equal results.
        should_stop: True when the user asked to stop; poll it at safe points, or call `check`.
        progress: Called with (done, total, note) as often as convenient.
        state: Folder for checkpoints of this measurement, kept over a kill; None leaves their place to the evaluator.
        baseline: Whether it is a model to compare with, and none that the search has proposed.
        spent: What was spent so far. An evaluator may add to it as it goes, so that a failed trial is charged too.
    """

    run_folder: Path
    folder: Path
    seed: int
    should_stop: Callable[[], bool] = lambda: False
    progress: Callable[[int, int, str], None] = lambda done, total, note: None
    spent: Spent = field(default_factory=Spent)
    state: Path | None = None
    baseline: bool = False

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


class TakesCandidates(Protocol):
    """An evaluator that may find candidates trained already, by the search; baselines it trains."""

    takes_candidates: bool
    """Whether it does. Another seed then measures the same weights of a candidate again, and says nothing."""


class FollowsRecipe(Protocol):
    """An evaluator that makes models by the stages of the recipe."""

    follows_recipe: bool
    """Whether it does."""


class TrainsForSteps(Protocol):
    """An evaluator that trains every model for a number of steps of its own, on batches of the task's size."""

    def lasting(self, steps: int) -> Evaluator:
        """The same, for at least so many steps."""
        ...


class Exporter(Protocol):
    """Writes what is worth having of one Pareto candidate (graph.svg, a Hugging Face folder …) into its folder."""

    def __call__(self, trial: Trial, folder: Path) -> dict[str, str]:
        """Write files below `folder` (not yet at its final place) and return names with paths relative to it."""
        ...
