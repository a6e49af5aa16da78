"""The study: has a controller's proposals measured, and goes on where it was after any kind of end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rankitect.errors import DiskError
from rankitect.study.checks import refuse_unfit, resolve_objectives
from rankitect.study.execution import Execution
from rankitect.study.files import explain_disk_trouble
from rankitect.study.plan import Hooks
from rankitect.study.store import Store

if TYPE_CHECKING:
    from rankitect.contracts import Baseline, Controller, Runner, Trial
    from rankitect.study.folder import RunFolder
    from rankitect.study.outputs import OutputOptions
    from rankitect.study.plan import StudyPlan, Subject
    from rankitect.study.summary import Summary

__all__ = ["Study", "StudyOutcome"]


@dataclass(frozen=True)
class StudyOutcome:
    """How a run ended.

    Attributes:
        ended: "finished" (the controller has no more proposals), "budget.minutes", "budget.tokens", "budget.trials",
            "exhausted" (only duplicates are left), "failures" (every recent trial failed), or "interrupted".
        summary: What summary.json holds.
    """

    ended: str
    summary: Summary


class Study:
    """The trials of one run folder.

    Args:
        folder: The locked run folder.
        subject: What is searched, and what measures it.
        plan: What to search for, how much to spend, when to give up.
        outputs: What is written for people.
        hooks: How the user is told of progress and can stop the run.
        runner: Carries out measurements; by default this process does.

    Raises:
        ConfigError: An objective is not a metric of the final evaluator.
    """

    def __init__(
        self,
        folder: RunFolder,
        subject: Subject,
        plan: StudyPlan,
        outputs: OutputOptions,
        hooks: Hooks | None = None,
        runner: Runner | None = None,
    ) -> None:
        self._folder, self._subject, self._plan, self._options = folder, subject, plan, outputs
        self._hooks, self._runner = hooks or Hooks(), runner
        self._objectives = resolve_objectives(plan.objectives, subject.evaluators[plan.final].metrics)
        self._store: Store | None = None

    def run(self, controller: Controller, baselines: Sequence[Baseline] = ()) -> StudyOutcome:
        """Search until the controller has finished, the budget ends, or the user stops; resume what was begun.

        Args:
            controller: Proposes what is measured.
            baselines: Models to compare with, measured first.

        Raises:
            DiskError: The run folder cannot be written; nothing finished is lost.
            RunFolderError: The store is damaged, or holds trials of another space; the folder is left as it was.
            Exception: What the controller raised; nothing finished is lost. Where that ends a command of another
                configuration (`resume=force`) before its preparation has begun, the folder is left as it was.
        """
        resume = self._options.labels.reproduce
        try:
            with explain_disk_trouble(self._folder.path, self._kept, resume):
                return self._run(controller, baselines)
        except DiskError:
            raise
        except Exception:
            if self._folder.changes:  # the folder goes back to the configuration that it belonged to
                self._folder.revert()
            raise

    def _run(self, controller: Controller, baselines: Sequence[Baseline]) -> StudyOutcome:
        with Store(self._folder.store_path, self._subject.decode, before_writing=self._accept) as self._store:
            if self._folder.changes:
                # Noted before the configuration is written: killed in between, the old one goes on with all its own.
                self._store.batches.question()
            try:
                self._folder.accept()
                execution = Execution(
                    self._folder, self._store, self._subject, self._plan, self._objectives, self._options,
                    self._hooks, self._runner,
                )  # fmt: skip
                return StudyOutcome(*execution.run(controller, baselines))
            finally:
                if self._runner is not None:
                    self._runner.close()

    def _accept(self, trials: Sequence[Trial]) -> None:
        """Refuse a folder whose trials this space does not know; else make it that of this command.

        Raises:
            RunFolderError: Says how many trials do not fit.
        """
        refuse_unfit(self._folder.path, trials, self._subject.space, thorough=bool(self._folder.changes))
        if self._folder.changes:
            self._folder.remember()
        else:
            self._folder.accept()

    def _kept(self) -> str:
        """What is safe, for the message about a full disk. The store may be closed already, or was never opened."""
        finished = 0 if self._store is None else sum(trial.finished for trial in self._store.trials)
        return f"{finished} finished trials and the controller's last checkpoint"
