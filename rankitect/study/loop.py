"""The loop of a search: ask a controller for proposals, have them measured, tell it the results."""

from __future__ import annotations

import itertools
import json
import logging
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from rankitect.contracts import AsksAhead, Controller, Proposal, StopRequested, Trial, offers
from rankitect.errors import ConfigError
from rankitect.study.confirming import CONFIRM

if TYPE_CHECKING:
    from rankitect.study.dispatch import Dispatch
    from rankitect.study.ledger import Ledger
    from rankitect.study.plan import StudyPlan
    from rankitect.study.store import Store

__all__ = ["AskTellLoop"]


class AskTellLoop:
    """Batches of proposals between a controller and the trials of a study, in a fresh run and in a resumed one.

    Results are told batch by batch in the order of the asks, whatever order the trials end in: what a search proposes
    is then a function of the seed and of `Limits`, not of the clock.

    In a folder of another configuration (`resume=force`) a fresh controller is asked anew. As long as it proposes what
    is recorded, the records stand; what is skipped is thus decided by architecture, whatever the controller.

    Args:
        controller: The controller, prepared.
        plan: The study's plan.
        evaluators: Keys that proposals may name.
        store: The open store.
        ledger: The open ledger.
        dispatch: Has trials measured.
        stop: Whether the user asked to stop.
        before_ask: Called before every `ask`.
    """

    def __init__(
        self,
        controller: Controller,
        plan: StudyPlan,
        evaluators: Collection[str],
        store: Store,
        ledger: Ledger,
        dispatch: Dispatch,
        *,
        stop: Callable[[], bool],
        before_ask: Callable[[], None],
    ) -> None:
        self._controller, self._plan, self._evaluators = controller, plan, evaluators
        self._store, self._ledger, self._dispatch = store, ledger, dispatch
        self._stop, self._before_ask = stop, before_ask
        self._ahead = controller if offers(controller, AsksAhead) else None
        self._batches = self._recorded()  # every batch that was asked for, by its number
        self._open: deque[int] = deque()  # numbers of those whose results the controller was not told
        self._earlier = deque(sorted(n for n in self._batches if store.batches.standings[n] == "earlier"))

    def run(self) -> str:
        """Search until the controller has finished or a limit is reached; returns how it ended (`StudyOutcome.ended`).

        Raises:
            StopRequested: The user asked to stop.
            ConfigError: The controller proposed more than it was asked for, or named an evaluator that there is not.
        """
        self._recover()
        while True:
            limit = self._fill()
            if not self._open:
                return limit or "finished"
            number = self._open[0]
            if ended := self._dispatch.until(self._batches[number]):
                return ended
            self._controller.tell([self._store.trial(trial.number) for trial in self._batches[number]])
            self._open.popleft()
            if self._dispatch.duplicates >= self._plan.limits.duplicates:
                return "exhausted"

    def _recorded(self) -> dict[int, list[Trial]]:
        batches: dict[int, list[Trial]] = {}
        for trial in self._store.trials:
            apart = self._store.batches.standings[trial.batch] == "apart"
            if trial.baseline is None and trial.batch != CONFIRM and not apart:
                batches.setdefault(trial.batch, []).append(trial)
        return batches

    def _recover(self) -> None:
        """Bring a fresh controller to where an earlier process left it; open again what it had not been told."""
        numbers = sorted(self._batches.keys() - set(self._earlier))
        told = list(itertools.takewhile(lambda number: _finished(self._batches[number]), numbers))
        if self._plan.limits.ahead and self._ahead is not None:
            # More may be finished than an undisturbed run would have told it by now, because later batches were open
            # beside the oldest. It is told no more than that: what it proposes next depends on it.
            told = told[: max(0, len(numbers) - self._plan.limits.ahead - 1)]
        self._controller.recover([trial for number in told for trial in self._batches[number]])
        self._open.extend(numbers[len(told) :])
        for number in self._open:
            if self._ahead is not None:
                self._ahead.reopen(self._batches[number])
            else:
                self._ask_again(self._batches[number])
            self._dispatch.add(self._batches[number])

    def _fill(self) -> str | None:
        """Ask for batches until as many are open as may be; returns the limit of the budget that forbids more."""
        while len(self._open) <= self._plan.limits.ahead and not (self._open and self._must_wait()):
            if self._stop():
                raise StopRequested
            earlier = self._batches[self._earlier[0]] if self._earlier else []
            if not earlier and (limit := self._ledger.over()):
                return limit
            self._before_ask()
            asked = earlier[0].asked if earlier else self._size()
            proposals = self._controller.ask(asked) if asked else []
            if earlier and self._same(proposals, earlier):
                self._take_over(self._earlier.popleft())
                continue
            self._set_apart()
            if not proposals:
                break
            self._validate(proposals, asked)
            number = max(self._store.batches.standings, default=0) + 1
            self._batches[number] = self._store.add_batch(number, asked, proposals, self._plan.seed)
            self._dispatch.add(self._batches[number])
            self._open.append(number)
        return None

    def _same(self, proposals: Sequence[Proposal], recorded: Sequence[Trial]) -> bool:
        """Whether a controller proposes what is recorded of an earlier configuration."""
        seed = self._plan.seed
        wanted = [
            (
                p.architecture.fingerprint,
                p.evaluator,
                seed if p.seed is None else p.seed,
                json.loads(json.dumps(p.tags)),
            )
            for p in proposals
        ]
        return wanted == [(t.architecture.fingerprint, t.evaluator, t.seed, t.tags) for t in recorded]

    def _take_over(self, number: int) -> None:
        """A batch of an earlier configuration is what this one asks for as well: its results are told."""
        self._store.batches.own(number)
        self._dispatch.add(self._batches[number])
        self._open.append(number)

    def _set_apart(self) -> None:
        """From here on this configuration goes another way than the earlier one. What was measured stays, and is reused
        where it is proposed again; the controller is not told of the rest, as if the folder were new."""
        if self._earlier:
            logging.getLogger("rankitect").info(
                "resume=force: from batch %d on, other architectures are proposed than before", self._earlier[0]
            )
            dropped = self._store.withdraw(self._earlier)
            self._dispatch.forget(dropped)
            for number in self._earlier:
                del self._batches[number]
            self._earlier.clear()

    def _must_wait(self) -> bool:
        """Whether the controller wants all results before it is asked again."""
        return self._ahead is None or self._ahead.waits()

    def _size(self) -> int:
        """How many proposals to ask for: no more than the budget has trials left, so that no batch ends half measured.

        Trials that are open count as spent. With none open at least one is asked for, because the budget was found not
        to be used up a moment ago.
        """
        limit, batch = self._plan.budget.trials, self._plan.limits.batch
        if limit is None:
            return batch
        trials = (trial for number in self._open for trial in self._batches[number])
        begun = sum(not self._store.trial(trial.number).finished for trial in trials)
        return max(0 if begun else 1, min(batch, limit - self._ledger.measured() - begun))

    def _ask_again(self, recorded: Sequence[Trial]) -> None:
        """Repeat the `ask` of a batch that was cut short, so that the controller is where it was.

        The recorded proposals are measured, whatever the controller says now. If it proposes something else, it is not
        reproducible; a warning is better than losing what was recorded.
        """
        again = [proposal.architecture.fingerprint for proposal in self._controller.ask(recorded[0].asked)]
        if again != [trial.architecture.fingerprint for trial in recorded]:
            logging.getLogger("rankitect").warning(
                "the controller proposed other architectures on resume than before; the recorded ones are measured"
            )

    def _validate(self, proposals: Sequence[Proposal], asked: int) -> None:
        if len(proposals) > asked:
            raise ConfigError(f"The controller proposed {len(proposals)} architectures where {asked} were asked for.")
        for proposal in proposals:
            if proposal.evaluator not in self._evaluators:
                allowed = ", ".join(sorted(self._evaluators))
                raise ConfigError(f"The controller asked for evaluator '{proposal.evaluator}'; there are: {allowed}.")


def _finished(trials: Sequence[Trial]) -> bool:
    return all(trial.finished for trial in trials)
