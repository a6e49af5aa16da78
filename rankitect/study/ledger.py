"""The budget of a study and what it has spent, counted alike for every method."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rankitect.contracts import Spent, Trial
from rankitect.study.confirming import CONFIRM
from rankitect.study.summary import LedgerSummary

if TYPE_CHECKING:
    from rankitect.study.store import Store

__all__ = ["BASELINES", "CONFIRMED", "PREPARE", "TRIALS", "Budget", "Ledger", "stage_of"]

PREPARE, TRIALS, BASELINES, CONFIRMED = "prepare", "trials", "baselines", "confirmation"


def stage_of(trial: Trial) -> str:
    """The stage of the ledger that a trial is charged to."""
    if trial.batch == CONFIRM:
        return CONFIRMED
    return TRIALS if trial.baseline is None else BASELINES


@dataclass(frozen=True)
class Budget:
    """Limits of a search; None is no limit. A trial that has begun when a limit is reached is finished.

    Attributes:
        minutes: Wall-clock minutes over all sessions of the run folder, baselines included.
        tokens: Tokens (or examples, where the task counts these) that prepare and trials train on and evaluate;
            baselines are not counted.
        trials: Measured trials, failures included; duplicates and baselines are not counted.
    """

    minutes: float | None = None
    tokens: int | None = None
    trials: int | None = None


class Ledger:
    """What was spent, by stage, kept in the store so that it survives a kill.

    The stages are "prepare" (charged by the controller), "trials", and "baselines" (shown, but not held against the
    search). Work that a kill undid is charged only when it is done again.

    Args:
        store: The study's store, open for writing.
        budget: The limits.
    """

    def __init__(self, store: Store, budget: Budget) -> None:
        self.budget = budget
        self._store = store
        self._session = store.charges.open_session()
        self._before = store.charges.worked()
        self._started = time.monotonic()

    def charge(self, key: str, stage: str, spent: Spent) -> None:
        """Charge a stage; a later charge of the same key replaces the earlier."""
        self._store.charges.charge(f"{stage}:{key}", stage, spent)

    def charge_session(self, stage: str, spent: Spent) -> None:
        """Charge a stage with what this session of the run has spent on it so far."""
        self.charge(f"session {self._session}", stage, spent)

    def search(self) -> Spent:
        """What prepare and trials have spent together."""
        totals = self._store.charges.totals()
        return sum((spent for stage, spent in totals.items() if stage not in (BASELINES, CONFIRMED)), Spent())

    def minutes(self) -> float:
        """Wall-clock minutes worked on this study, over all sessions."""
        return (self._before + time.monotonic() - self._started) / 60.0

    def measured(self) -> int:
        """Trials that count against the budget."""
        return self._store.counts["measured"]

    def save(self) -> None:
        """Record the wall-clock time of this session so far."""
        self._store.charges.keep_session(self._session, time.monotonic() - self._started)

    def _shares(self) -> dict[str, float]:
        spent = self.search()
        used = {
            "budget.minutes": (self.minutes(), self.budget.minutes),
            "budget.tokens": (spent.data, self.budget.tokens),
            "budget.trials": (self.measured(), self.budget.trials),
        }
        return {name: amount / limit for name, (amount, limit) in used.items() if limit is not None}

    def over(self) -> str | None:
        """The limit that is reached ("budget.minutes"), or None."""
        return next((name for name, share in self._shares().items() if share >= 1.0), None)

    def remaining(self, limit: str | None = None) -> float:
        """Share of the budget that is left, in [0, 1].

        Args:
            limit: The limit that is asked for ("budget.trials"); None for the one that ends first.
        """
        shares = self._shares()
        return max(0.0, 1.0 - (max(shares.values(), default=0.0) if limit is None else shares.get(limit, 0.0)))

    def summary(self, ended: str) -> LedgerSummary:
        """The ledger as in summary.json: totals of the search, then every stage, then the trials' counts.

        Args:
            ended: How the run ended.
        """
        trials = self._store.trials
        measured = [trial for trial in trials if trial.duplicate_of is None]
        counts = {
            "done": sum(trial.ok for trial in measured),
            "failed": sum(trial.state == "FAILED" for trial in measured),
            "duplicates": sum(trial.duplicate_of is not None for trial in trials),
            "waiting": sum(not trial.finished for trial in trials),
        }
        reused = self._reused(measured)
        of_search = sum((spent for stage, spent in reused.items() if stage not in (BASELINES, CONFIRMED)), Spent())
        # What was read took no time of this run, and its seconds were never in the total.
        computed = self.search() + -replace(of_search, seconds=0.0) if of_search != Spent() else None
        return LedgerSummary(
            **self.search().to_dict(),
            stages=self._store.charges.totals(),
            trials=counts,
            minutes=round(self.minutes(), 3),
            ended=ended,
            computed=computed,
            reused=reused,
        )

    def _reused(self, measured: Sequence[Trial]) -> dict[str, Spent]:
        """By stage, what was charged for results that were stored before; stages without any are left out."""
        reused: dict[str, Spent] = {}
        for trial in measured:
            if trial.measurement is not None and trial.measurement.reused != Spent():
                stage = stage_of(trial)
                reused[stage] = reused.get(stage, Spent()) + trial.measurement.reused
        return reused
