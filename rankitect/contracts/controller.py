"""What proposes architectures: a search method, and what it may use of the study it works for."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from rankitect.contracts.records import Proposal, Spent, Trial

if TYPE_CHECKING:
    from rankitect.space.choice_space import ChoiceSpace

__all__ = [
    "AsksAhead",
    "Controller",
    "ExpectsTrials",
    "Session",
    "Specialised",
    "Specialises",
    "TrainsAsConfigured",
    "TrainsInPrepare",
    "WrapsEvaluators",
    "replay",
]


class Session(Protocol):
    """What a controller may use of the study it works for."""

    @property
    def space(self) -> Any:
        """The search space."""
        ...

    @property
    def task(self) -> object:
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
        repeated after a crash is charged once; use a key per chunk of work, or one key with the total so far. The study
        counts seconds itself and takes none from here."""
        ...

    def spent(self) -> Spent:
        """What the search has spent so far, prepare and trials together, without baselines."""
        ...

    def remaining(self) -> float:
        """Share of the budget that is left, in [0, 1]: the least over minutes, tokens and trials; 1 without limits."""
        ...

    def remaining_trials(self) -> float:
        """Share of the trials that are left, in [0, 1], whatever is left of the rest; 1 without a limit."""
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

    What only some controllers can do is a Protocol of its own, which a controller has by having its members:
    `AsksAhead`, `ExpectsTrials`, `TrainsInPrepare`, `TrainsAsConfigured`, `WrapsEvaluators` and `hooks.KeepsState`. The
    study asks with `contracts.offers`.

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


class AsksAhead(Protocol):
    """A controller that can be asked again before it was told the results of earlier proposals.

    The study then keeps up to `runner.ahead` batches open beside the oldest, so that no worker is idle. Results are
    told batch by batch, in the order of the asks. Without this capability every batch is told before the next ask.
    """

    def waits(self) -> bool:
        """Whether the next `ask` needs the results of all earlier proposals."""
        ...

    def reopen(self, trials: list[Trial]) -> None:
        """Take back, in a resumed run, one batch that had been asked for and not told. Called after `recover`, batch
        by batch, in the order of the asks; stands in place of `ask`, whose proposals are recorded already."""
        ...


class ExpectsTrials(Protocol):
    """A controller that knows how many trials it will ask for, for the estimate of the time left."""

    @property
    def expected_trials(self) -> int | None:
        """Trials over the whole search; None where that depends on the budget."""
        ...


class TrainsInPrepare(Protocol):
    """A controller whose `prepare` trains weights, so that several processes may do it side by side."""

    trains: ClassVar[bool]
    """True in a class whose `prepare` trains."""


class TrainsAsConfigured(Protocol):
    """A class of `TrainsInPrepare` whose configuration may leave the training out."""

    @classmethod
    def trains_weights(cls, config: Any, space: ChoiceSpace) -> bool:
        """Whether candidates will have weights that it has trained.

        Args:
            config: An instance of the class's own `Config`.
            space: What is searched.
        """
        ...


@dataclass(frozen=True)
class Specialised:
    """A network that was taken for a budget.

    Attributes:
        budget: Its name, for people.
        fingerprint: Of the network; None where none was measured in full.
    """

    budget: str
    fingerprint: str | None


class Specialises(Protocol):
    """A controller whose outcome is a network for each of several budgets; these stay with the Pareto front, whether
    they are on it or not."""

    def specialised(self, trials: Sequence[Trial]) -> list[Specialised]:
        """The budgets in order, each with its network.

        Args:
            trials: Finished trials of the study.
        """
        ...


class WrapsEvaluators(Protocol):
    """A controller that replaces evaluators when it is made, so that a worker that measures has to make it as well."""

    wraps_evaluators: ClassVar[bool]
    """True in such a class."""


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
