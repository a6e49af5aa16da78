"""The study: has a controller's proposals measured, and goes on where it was after any kind of end."""

from __future__ import annotations

import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rankitect.contracts import Baseline, Proposal, Spent, StopRequested, Trial
from rankitect.errors import ConfigError
from rankitect.study.checks import resolve_objectives
from rankitect.study.confirming import CONFIRM, Confirmation, wanted
from rankitect.study.dispatch import Dispatch, stage_of
from rankitect.study.files import explain_disk_trouble
from rankitect.study.ledger import Budget, Ledger
from rankitect.study.outputs import Labels, Outputs
from rankitect.study.progress import Progress
from rankitect.study.runner import Inline
from rankitect.study.session import Scalars, StudySession
from rankitect.study.store import Store

if TYPE_CHECKING:
    from rankitect.config.schema import RunnerConfig
    from rankitect.contracts import Controller, Evaluator, Exporter
    from rankitect.study.folder import RunFolder
    from rankitect.study.runner import Runner
    from rankitect.study.summary import Summary

__all__ = ["Limits", "Outcome", "Study"]

_WRITE_EVERY = 20.0  # seconds between two rewrites of trials.csv and summary.json while the run goes on
_RARELY = 30  # what takes longer with every trial is repeated so many times its own duration later, at the earliest
_QUICK = 0.005  # seconds below which the front is looked at after every trial


@dataclass(frozen=True)
class Limits:
    """When a study gives up.

    Attributes:
        batch: The `n` of every `ask`.
        ahead: Batches that may be asked for beyond the oldest one whose results the controller was not told. What is
            found depends on it, and not on how many workers there are or how fast they are.
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
        """The limits of a configuration."""
        ahead = config.workers - 1 if config.ahead is None else config.ahead
        return cls(config.batch, ahead, config.attempts, config.failures, config.duplicates)


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        ended: "finished" (the controller has no more proposals), "budget.minutes", "budget.tokens", "budget.trials",
            "exhausted" (only duplicates are left), "failures" (every recent trial failed), or "interrupted".
        summary: What summary.json holds.
    """

    ended: str
    summary: Summary


class Study:
    """Trials of one run folder.

    Args:
        folder: The locked run folder.
        evaluators: Evaluators by the key that proposals use.
        objectives: Names of the final evaluator's metrics that the Pareto front is taken over.
        labels: Names for the summary.
        decode: Makes an architecture from its JSON.
        final: Key of the evaluator whose results are final.
        seed: Seed of the study.
        budget: When to stop.
        limits: When to give up.
        confirmation: How often what was found is measured again.
        space: Search space, handed to the controller.
        task: Task, handed to the controller.
        stop: Whether the user asked to stop.
        progress: Where to show progress.
        export: Writes more files for each candidate.
        runner: Measures trials; by default this process does.
        registry: Gives the production models that are registered at the moment; asked before every batch.
        left_out: Gives those of them that cannot be compared with, and why.
        keep_all: Keep artifacts of dominated trials.
        tensorboard: Write TensorBoard scalars.

    Raises:
        ConfigError: An objective that the final evaluator does not measure.
    """

    def __init__(
        self,
        folder: RunFolder,
        *,
        evaluators: Mapping[str, Evaluator],
        objectives: Sequence[str],
        labels: Labels,
        decode: Callable[[str], Any],
        final: str = "final",
        seed: int = 0,
        budget: Budget | None = None,
        limits: Limits | None = None,
        confirmation: Confirmation | None = None,
        space: Any = None,
        task: Any = None,
        stop: Callable[[], bool] = lambda: False,
        progress: Progress | None = None,
        export: Exporter | None = None,
        runner: Runner | None = None,
        registry: Callable[[], Sequence[Baseline]] = list,
        left_out: Callable[[], Mapping[str, str]] = dict,
        keep_all: bool = False,
        tensorboard: bool = True,
    ) -> None:
        self.folder, self.evaluators, self.final, self.seed = folder, dict(evaluators), final, seed
        self.limits, self._confirmation = limits or Limits(), confirmation or Confirmation()
        self.space, self.task, self.stop = space, task, stop
        self.progress = progress or Progress(quiet=True)
        self.logger = logging.getLogger("rankitect")
        self._labels, self._decode, self._budget = labels, decode, budget or Budget()
        self._objectives = resolve_objectives(objectives, self.evaluators[final].metrics)
        self._export, self._keep_all, self._registry, self._left_out = export, keep_all, registry, left_out
        self._scalars = Scalars(folder.path / "tensorboard" if tensorboard else None)
        self._runner = runner or Inline(self.evaluators, folder.path, stop, self._show_trial)
        self._expected = self._budget.trials
        self._written = time.monotonic()
        self._writing = self._front_again = 0.0

    def run(self, controller: Controller, baselines: Sequence[Baseline] = ()) -> Outcome:
        """Search until the controller has finished, the budget ends, or the user stops; resume what was begun.

        Raises:
            DiskError: The run folder cannot be written; nothing finished is lost.
            Exception: What the controller raised; nothing finished is lost.
        """
        with explain_disk_trouble(self.folder.path, _Kept(self), self._labels.reproduce):
            self.store = Store(self.folder.store_path, self._decode)
            try:
                self.ledger = Ledger(self.store, self._budget)
                self.outputs = Outputs(
                    self.folder, self.store, self._labels, self._objectives, self.final, self._export,
                    metrics=self.evaluators[self.final].metrics, keep_all=self._keep_all, registry=self._registry,
                    left_out=self._left_out,
                )  # fmt: skip
                self.dispatch = Dispatch(
                    self.store, self.folder, self._runner, attempts=self.limits.attempts,
                    failures=self.limits.failures, over=self.ledger.over, stop=self.stop, shown=self._show,
                )  # fmt: skip
                self.progress.start()
                return self._run(controller, baselines)
            finally:
                self._runner.close()
                self.progress.stop()
                self._scalars.close()
                self.store.close()

    def _run(self, controller: Controller, baselines: Sequence[Baseline]) -> Outcome:
        self._recover_killed()
        try:
            self._measure_baselines([*baselines, *self._registered()])
            ended = self._search(controller)
            if ended != "failures":
                self._confirm()
        except StopRequested:
            ended = "interrupted"
        finally:
            self.dispatch.abandon()
        self.ledger.save()
        self.logger.info("ended: %s", ended)
        return Outcome(ended, self._write(ended, with_candidates=ended != "interrupted"))

    def _recover_killed(self) -> None:
        """Trials that were running when their process ended are tried again, but not forever."""
        for trial in self.store.trials:
            if trial.state == "RUNNING":
                if trial.attempts >= self.limits.attempts:
                    cause = f"the process ended {trial.attempts} times while it measured this (out of memory?)"
                    self.store.fail(trial.number, cause, "", Spent(), stage_of(trial))
                else:
                    self.store.wait(trial.number, count_attempt=True)
                    self.logger.info("trial %d was killed while it ran; it is measured again", trial.number)

    def _measure_baselines(self, baselines: Sequence[Baseline]) -> None:
        known = {(trial.baseline, trial.architecture.fingerprint) for trial in self.store.baselines}
        new = [b for b in baselines if (b.name, b.architecture.fingerprint) not in known]
        if not new and all(trial.finished for trial in self.store.baselines):
            return
        if new:
            self.logger.info("baselines to measure: %s", ", ".join(b.name for b in new))
            proposals = [Proposal(baseline.architecture, self.final) for baseline in new]
            self.store.add_batch(0, len(new), proposals, self.seed, [baseline.name for baseline in new])
        self._measure(self.store.baselines)
        self.dispatch.failed = self.dispatch.duplicates = 0  # these counts are about the controller's proposals

    def _registered(self) -> list[Baseline]:
        return [b for b in self._registry() if b.registered is None or b.registered.get("live")]

    def _measure(self, trials: Sequence[Trial]) -> None:
        """Measure trials that the budget is no concern of."""
        self.dispatch.add(trials)
        self.dispatch.until(trials, free=True)

    def _confirm(self) -> None:
        """Measure the front and the baselines with more seeds. Comes on top of the budget, as the baselines do."""
        while True:
            self._measure([trial for trial in self.store.trials if trial.batch == CONFIRM])
            again = wanted(self.store.trials, self.final, self._objectives, self._confirmation, self.seed)
            if not again:
                return
            for name in dict.fromkeys(name for _, name in again):
                proposals = [proposal for proposal, whose in again if whose == name]
                names = [name] * len(proposals) if name is not None else None
                self.store.add_batch(CONFIRM, len(proposals), proposals, self.seed, names)

    def _search(self, controller: Controller) -> str:
        session = StudySession(
            space=self.space, task=self.task, seed=self.seed, state_dir=self.folder.state_dir, logger=self.logger,
            store=self.store, ledger=self.ledger, stop=self.stop, progress=self.progress, scalars=self._scalars,
        )  # fmt: skip
        if (upfront := getattr(self.task, "upfront", None)) is not None:
            session.charge("task", upfront)
        try:
            if (elsewhere := getattr(self._runner, "prepare", None)) is not None:
                elsewhere(session, controller)
            controller.prepare(session)
        finally:
            session.prepared()
        if self._expected is None:
            self._expected = getattr(controller, "expected_trials", None)
        self._runner.start(self.task.shared() if hasattr(self.task, "shared") else {})
        batches = self._batches()
        whole = list(itertools.takewhile(lambda n: _whole(batches[n]), sorted(batches)))
        if self.limits.ahead and hasattr(controller, "waits"):
            # As far as an undisturbed run would have told it by now, and no further: what it proposes depends on that.
            whole = whole[: max(0, len(batches) - self.limits.ahead - 1)]
        controller.recover([trial for number in whole for trial in batches[number]])
        open_ = deque(number for number in sorted(batches) if number not in whole)
        reopen = getattr(controller, "reopen", None)
        for number in open_:
            if reopen is not None:
                reopen(batches[number])
            else:
                self._ask_again(controller, batches[number])
            self.dispatch.add(batches[number])
        while True:
            ended = self._ask_ahead(controller, batches, open_)
            if not open_:
                return ended or "finished"
            number = open_[0]
            if stopped := self.dispatch.until(batches[number]):
                return stopped
            controller.tell([self.store.trial(trial.number) for trial in batches[number]])
            open_.popleft()
            if self.dispatch.duplicates >= self.limits.duplicates:
                return "exhausted"

    def _ask_ahead(self, controller: Controller, batches: dict[int, list[Trial]], open_: deque[int]) -> str | None:
        """Ask for batches until as many are open as may be; returns the limit of the budget that forbids more."""
        while len(open_) <= self.limits.ahead and not (open_ and self._must_wait(controller)):
            self._check_stop()
            if ended := self.ledger.over():
                return ended
            self._measure_baselines(self._registered())  # the registry may have changed
            asked = self._asked([trial for number in open_ for trial in batches[number]])
            proposals = controller.ask(asked) if asked else []
            if not proposals:
                break
            self._validate(proposals, asked)
            number = max(batches, default=0) + 1
            batches[number] = self.store.add_batch(number, asked, proposals, self.seed)
            self.dispatch.add(batches[number])
            open_.append(number)
        return None

    def _must_wait(self, controller: Controller) -> bool:
        """Whether a controller wants all results before it is asked again; one that does not say so does."""
        waits: Callable[[], bool] | None = getattr(controller, "waits", None)
        return True if waits is None else waits()

    def _asked(self, open_: Sequence[Trial]) -> int:
        """No more than the budget has trials left, so that a batch is not left half measured."""
        limit = self._budget.trials
        if limit is None:
            return self.limits.batch
        begun = sum(not self.store.trial(trial.number).finished for trial in open_)
        return max(0 if begun else 1, min(self.limits.batch, limit - self.ledger.measured() - begun))

    def _batches(self) -> dict[int, list[Trial]]:
        batches: dict[int, list[Trial]] = {}
        for trial in self.store.trials:
            if trial.baseline is None and trial.batch != CONFIRM:
                batches.setdefault(trial.batch, []).append(trial)
        return batches

    def _ask_again(self, controller: Controller, recorded: list[Trial]) -> None:
        """Repeat the `ask` of a batch that was cut short, so that the controller is where it was.

        What was recorded is what is measured. A controller that now proposes something else is not reproducible;
        better to say so than to lose the recorded proposals.
        """
        again = [proposal.architecture.fingerprint for proposal in controller.ask(recorded[0].asked)]
        if again != [trial.architecture.fingerprint for trial in recorded]:
            self.logger.warning(
                "the controller proposed other architectures on resume than before; the recorded ones are measured"
            )

    def _validate(self, proposals: Sequence[Proposal], asked: int) -> None:
        if len(proposals) > asked:
            raise ConfigError(f"The controller proposed {len(proposals)} architectures where {asked} were asked for.")
        for proposal in proposals:
            if proposal.evaluator not in self.evaluators:
                allowed = ", ".join(sorted(self.evaluators))
                raise ConfigError(f"The controller asked for evaluator '{proposal.evaluator}'; there are: {allowed}.")

    def _show(self, trial: Trial, trouble: str | None) -> None:
        if trouble is not None:
            self.progress.facts(failed=self.store.counts["FAILED"])
            self.progress.say(trouble)
            return
        measurement = trial.measurement
        if measurement is not None:
            for name, metric in measurement.metrics.items():
                self._scalars.add(f"{trial.evaluator}/{name}", metric.value, trial.number)
        now = time.monotonic()
        if now >= self._front_again and (front := self.outputs.front()):
            first = self._objectives[0]
            best = front[0].metrics[first.name]
            if trial.evaluator == self.final and self._confirmation.seeds < 2:
                # At once: with weights of every candidate a disk is soon full. Where more seeds follow, who is on the
                # front is open until the end.
                self.outputs.drop_dominated(front)
            self.progress.facts(best=f"{first.name} {best.value:.4g} {best.unit}".rstrip() + f", front {len(front)}")
            took = time.monotonic() - now
            self._front_again = now + (_RARELY * took if took > _QUICK else 0.0)
        self._advance(trial)
        if time.monotonic() - self._written > max(_WRITE_EVERY, _RARELY * self._writing):
            self.ledger.save()
            self._scalars.flush()
            self._write("running", with_candidates=False)

    def _show_trial(self, number: int, done: int, total: int, note: str = "") -> None:
        self._advance(self.store.trial(number), f"trial {number}: {done}/{total} {note}".rstrip())

    def _advance(self, trial: Trial, note: str = "") -> None:
        """Baselines are a stage of their own: they take as long as finalists, not as long as most trials."""
        if trial.baseline is None:
            self.progress.update("trials", self.ledger.measured(), self._expected, note)
        else:
            every = self.store.baselines
            self.progress.update("baselines", sum(other.finished for other in every), len(every), note)

    def _write(self, ended: str, *, with_candidates: bool) -> Summary:
        began = time.monotonic()
        summary = self.outputs.write(
            self.seed,
            {**self.ledger.to_dict(), "ended": ended},
            with_candidates=with_candidates,
        )
        self._written = time.monotonic()
        self._writing = self._written - began
        return summary

    def _check_stop(self) -> None:
        if self.stop():
            raise StopRequested


class _Kept:
    """Says what is safe at the moment it is asked, for the message about a full disk."""

    def __init__(self, study: Study) -> None:
        self._study = study

    def __str__(self) -> str:
        store = getattr(self._study, "store", None)
        finished = sum(trial.finished for trial in store.trials) if store is not None else 0
        return f"{finished} finished trials and the controller's last checkpoint"


def _whole(trials: Sequence[Trial]) -> bool:
    return all(trial.finished for trial in trials)
