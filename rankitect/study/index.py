"""The trials of a study in memory: by number, by what they measured, and how many count as what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from rankitect.contracts import Trial
from rankitect.study.confirming import CONFIRM

__all__ = ["TrialIndex"]


class TrialIndex:
    """All trials, as they are in the study's file.

    Args:
        trials: By number, in order.

    Attributes:
        trials: The same, kept up to date.
        counts: How many trials are "FAILED", and how many are "measured" and count against the budget. Counted as
            trials come and end: going through thousands for each new one would take longer than measuring a cheap one.
    """

    def __init__(self, trials: Mapping[int, Trial]) -> None:
        self.trials: dict[int, Trial] = {}
        self.counts: Counter[str] = Counter()
        self._baselines: list[int] = []
        self._results: dict[tuple[str, str, int], int] = {}
        self.add(trials.values())

    def add(self, trials: Iterable[Trial]) -> None:
        """Take up new trials."""
        for trial in trials:
            self.trials[trial.number] = trial
            self.counts.update(_kinds(trial))
            if trial.baseline is not None and trial.batch != CONFIRM:
                self._baselines.append(trial.number)
            self._note_result(trial)

    def update(self, number: int, **changes: Any) -> Trial:
        """Change fields of a trial; gives the new one."""
        before = self.trials[number]
        trial = self.trials[number] = replace(before, **changes)
        self.counts.subtract(_kinds(before))
        self.counts.update(_kinds(trial))
        if self._results.get(_measured(trial)) == number:
            del self._results[_measured(trial)]
        self._note_result(trial)
        return trial

    def drop(self, trials: Iterable[Trial]) -> None:
        """Forget trials that were never finished."""
        for trial in trials:
            del self.trials[trial.number]

    def baselines(self) -> list[Trial]:
        """The trials of baselines, their confirmation apart."""
        return [self.trials[number] for number in self._baselines]

    def result_of(self, fingerprint: str, evaluator: str, seed: int) -> Trial | None:
        """The finished trial (done or failed) that measured this, if there is one."""
        number = self._results.get((fingerprint, evaluator, seed))
        return None if number is None else self.trials[number]

    def _note_result(self, trial: Trial) -> None:
        if trial.finished and trial.duplicate_of is None:
            self._results[_measured(trial)] = trial.number


def _measured(trial: Trial) -> tuple[str, str, int]:
    return trial.architecture.fingerprint, trial.evaluator, trial.seed


def _kinds(trial: Trial) -> list[str]:
    """What a trial counts as: "FAILED", and "measured" where it is held against the budget."""
    measured = trial.finished and trial.duplicate_of is None and trial.baseline is None and trial.batch != CONFIRM
    return [*(["measured"] if measured else []), *(["FAILED"] if trial.state == "FAILED" else [])]
