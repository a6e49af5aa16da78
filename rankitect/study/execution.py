"""One session of a study: from opening its store to the summary, in the order in which things happen."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rankitect.contracts import (
    Baseline,
    Controller,
    ExpectsTrials,
    MetricSpec,
    PreparesElsewhere,
    Proposal,
    Runner,
    Specialises,
    Spent,
    StopRequested,
    TakesCandidates,
    Trial,
    offers,
)
from rankitect.contracts.hooks import OwesUpfront
from rankitect.contracts.weights import SendsWeights
from rankitect.errors import BaselineError, MeasureError, short
from rankitect.study.confirming import CONFIRM, wanted
from rankitect.study.dispatch import Dispatch
from rankitect.study.ledger import PREPARE, Ledger, stage_of
from rankitect.study.loop import AskTellLoop
from rankitect.study.monitor import Monitor
from rankitect.study.outputs import Outputs
from rankitect.study.runner import Inline
from rankitect.study.session import Scalars, StudySession
from rankitect.study.states import settle

if TYPE_CHECKING:
    from rankitect.study.folder import RunFolder
    from rankitect.study.outputs import OutputOptions
    from rankitect.study.plan import Hooks, StudyPlan, Subject
    from rankitect.study.store import Store
    from rankitect.study.summary import Summary

__all__ = ["Execution"]


class Execution:
    """A study that is under way in this process.

    Args:
        folder: The locked run folder.
        store: The open store.
        subject: What is searched, and what measures it.
        plan: What the study does.
        objectives: The plan's objectives as metrics of the final evaluator.
        options: What is written for people.
        hooks: How the user is told and can stop.
        runner: Carries out measurements; None measures in this process.
    """

    def __init__(
        self,
        folder: RunFolder,
        store: Store,
        subject: Subject,
        plan: StudyPlan,
        objectives: Sequence[MetricSpec],
        options: OutputOptions,
        hooks: Hooks,
        runner: Runner | None,
    ) -> None:
        self._folder, self._store, self._subject, self._plan = folder, store, subject, plan
        self._objectives, self._registry, self._hooks = objectives, options.registry, hooks
        self._scalars = Scalars(folder.path / "tensorboard" if options.tensorboard else None)
        self._ledger = Ledger(store, plan.budget)
        metrics = subject.evaluators[plan.final].metrics
        self._outputs = Outputs(folder, store, options, objectives, plan.final, metrics=metrics)
        self._monitor = Monitor(plan, store, self._ledger, self._outputs, hooks.progress, self._scalars)
        self._runner = runner or Inline(subject.evaluators, folder.path, hooks.stop, self._monitor.trial_goes_on)
        self._dispatch = Dispatch(
            store, folder, self._runner, attempts=plan.limits.attempts, failures=plan.limits.failures,
            over=self._ledger.over, stop=hooks.stop, shown=self._trial_ended,
        )  # fmt: skip
        self._logger = logging.getLogger("rankitect")

    def run(self, controller: Controller, baselines: Sequence[Baseline]) -> tuple[str, Summary]:
        """Measure the baselines, search, confirm; returns how it ended and what summary.json holds."""
        self._outputs.references = {b.name for b in baselines if b.reference}
        self._outputs.logged = {b.name for b in baselines if b.logged}
        if offers(controller, Specialises):
            self._outputs.specialised = controller.specialised
        self._hooks.progress.start()
        try:
            self._recover_killed()
            ended = self._until_stopped(controller, baselines)
            self._ledger.save()
            self._logger.info("ended: %s", ended)
            return ended, self._monitor.write(ended, with_candidates=ended != "interrupted")
        finally:
            self._hooks.progress.stop()
            self._scalars.close()

    def _until_stopped(self, controller: Controller, baselines: Sequence[Baseline]) -> str:
        try:
            self._retry_production()
            self._measure_baselines([*baselines, *self._registered()])
            self._require_production()
            ended = self._search(controller)
            if ended != "failures":
                self._confirm()
            return ended
        except StopRequested:
            return "interrupted"
        finally:
            self._dispatch.abandon()

    def _recover_killed(self) -> None:
        """Trials that were running when their process ended are tried again, but not forever."""
        for trial in self._store.trials:
            if trial.state != "RUNNING":
                continue
            if trial.attempts >= self._plan.limits.attempts:
                cause = f"the process ended {trial.attempts} times while it measured this (out of memory?)"
                self._store.fail(trial.number, cause, "", Spent(), stage_of(trial))
            else:
                self._store.wait(trial.number, count_attempt=True)
                self._logger.info("trial %d was killed while it ran; it is measured again", trial.number)

    def _trial_ended(self, trial: Trial, trouble: str | None) -> None:
        """Show a trial that ended. A measure that fails on the reference model would fail on every other.

        Raises:
            MeasureError: It does.
        """
        self._monitor.trial_ended(trial, trouble)
        if trial.baseline in self._outputs.references and _of_a_measure(trial):
            raise MeasureError(
                f"The reference model ({trial.baseline}) could not be measured: {_said(trial)} Repeat the command once "
                "that is mended; nothing was searched yet."
            )

    def _registered(self) -> list[Baseline]:
        """Production models that are to be measured: those that are registered at this moment."""
        return [b for b in self._registry.baselines() if b.registered is None or b.registered.get("live")]

    def _retry_production(self) -> None:
        """Registered models that failed, and those on which a measure did, are tried again by every command: the cause
        may be gone."""
        live = {b.name for b in self._registered() if b.registered is not None}
        for trial in self._store.baselines:
            again = trial.baseline in live or _of_a_measure(trial)
            if trial.state == "FAILED" and trial.duplicate_of is None and again:
                self._logger.info("the model %s failed before and is measured again", trial.baseline)
                self._store.retry(trial.number)

    def _require_production(self) -> None:
        """A search that would be compared with a model which cannot be measured ends before it has spent anything.

        Raises:
            BaselineError: A registered model failed.
        """
        live = {b.name for b in self._registered() if b.registered is not None}
        done = {trial.baseline for trial in self._store.baselines if trial.ok}
        for trial in self._store.baselines:
            if trial.state == "FAILED" and trial.baseline in live - done:
                name = str(trial.baseline).rpartition(" v")[0]
                raise BaselineError(
                    f"The production model {trial.baseline} could not be measured: {short(str(trial.cause), 250)}. "
                    "Repeat the command once the cause is gone, or take the model out: "
                    f"python -m rankitect.baseline retire {name}."
                )

    def _measure_baselines(self, baselines: Sequence[Baseline]) -> None:
        known = {(trial.baseline, trial.architecture.fingerprint) for trial in self._store.baselines}
        new = [b for b in baselines if (b.name, b.architecture.fingerprint) not in known]
        if not new and all(trial.finished for trial in self._store.baselines):
            return
        if new:
            self._logger.info("baselines to measure: %s", ", ".join(b.name for b in new))
            proposals = [Proposal(baseline.architecture, self._plan.final) for baseline in new]
            self._store.add_batch(0, len(new), proposals, self._plan.seed, [baseline.name for baseline in new])
        self._measure(self._store.baselines)
        # Failures and duplicates in a row say something about the controller; baselines are not its proposals.
        self._dispatch.failed = self._dispatch.duplicates = 0

    def _measure(self, trials: Sequence[Trial]) -> None:
        """Measure trials outside the budget."""
        self._dispatch.add(trials)
        self._dispatch.until(trials, free=True)

    def _search(self, controller: Controller) -> str:
        self._prepare(controller)
        if self._monitor.expected is None and offers(controller, ExpectsTrials):
            self._monitor.expected = controller.expected_trials
        task = self._subject.task
        self._runner.start(task.shared() if offers(task, SendsWeights) else {})
        return AskTellLoop(
            controller, self._plan, self._subject.evaluators, self._store, self._ledger, self._dispatch,
            stop=self._hooks.stop, before_ask=self._measure_newly_registered,
        ).run()  # fmt: skip

    def _measure_newly_registered(self) -> None:
        """The registry of production models may change while a search runs."""
        self._measure_baselines(self._registered())

    def _prepare(self, controller: Controller) -> None:
        session = StudySession(
            self._subject, self._plan.seed, self._folder.state_dir, self._store, self._ledger, self._hooks,
            self._scalars, self._folder.begin,
        )  # fmt: skip
        task = self._subject.task
        if offers(task, OwesUpfront):
            self._ledger.charge("task", PREPARE, replace(task.upfront, seconds=0.0))
        settle(self._folder, controller)
        try:
            if offers(self._runner, PreparesElsewhere):
                self._runner.prepare(session, controller)
            controller.prepare(session)
        finally:
            session.prepared()
        self._folder.begin()

    def _confirm(self) -> None:
        """Measure the front and the baselines with more seeds. Like the baselines, this is outside the budget."""
        plan, confirmation = self._plan, self._plan.confirmation
        final = self._subject.evaluators[plan.final]
        if offers(final, TakesCandidates) and final.takes_candidates:
            confirmation = replace(confirmation, candidates=0)
        while True:
            self._measure([trial for trial in self._store.trials if trial.batch == CONFIRM])
            # A mean over seeds may put others on the front, which are then wanted as well.
            again = wanted(self._store.trials, plan.final, self._objectives, confirmation, plan.seed)
            if not again:
                return
            for name in dict.fromkeys(name for _, name in again):
                proposals = [proposal for proposal, baseline in again if baseline == name]
                names = [name] * len(proposals) if name is not None else None
                self._store.add_batch(CONFIRM, len(proposals), proposals, plan.seed, names)


_OF_MEASURE = f"{MeasureError.__name__}: "


def _of_a_measure(trial: Trial) -> bool:
    """Whether a measure is why a trial failed."""
    return str(trial.cause or "").startswith(_OF_MEASURE)


def _said(trial: Trial) -> str:
    """What the measure said, as a sentence."""
    cause = short(str(trial.cause).removeprefix(_OF_MEASURE), 320)
    return cause if cause.endswith(".") else f"{cause}."
