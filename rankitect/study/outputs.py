"""What a run leaves for people: trials.csv, summary.json and a folder for each candidate."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankitect.contracts import Measurement, Metric, MetricSpec
from rankitect.data.files import write_whole
from rankitect.documents import parse_json, read_json
from rankitect.errors import RankitectError
from rankitect.study.example_tables import hashes_of_tables, write_tables
from rankitect.study.files import copy_or_link, inside
from rankitect.study.pareto import MeasuredCandidate, baselines, candidates, pareto_front
from rankitect.study.summary import (
    COMPARED,
    BaselineSummary,
    BudgetSummary,
    CandidateSummary,
    LedgerSummary,
    MetricSummary,
    ObjectiveSummary,
    ProgramSummary,
    RegisteredSummary,
    Summary,
    summarised,
)
from rankitect.study.trials_table import TRIALS, trials_csv
from rankitect.study.versions import versions

if TYPE_CHECKING:
    from rankitect.contracts import Baseline, Exporter, Specialised, Trial
    from rankitect.study.folder import RunFolder
    from rankitect.study.store import Store

__all__ = ["Labels", "OutputOptions", "Outputs", "ProductionModels"]


@dataclass(frozen=True)
class Labels:
    """Names for the summary: of the space, task and controller, and the command that repeats the run."""

    space: str
    task: str
    controller: str
    reproduce: str


@dataclass(frozen=True)
class ProductionModels:
    """The registered production models. Both are asked again and again, because they may change while a search runs.

    Attributes:
        baselines: Gives the models that can be compared with, retired ones included.
        left_out: Gives the names of those that cannot, and why.
    """

    baselines: Callable[[], Sequence[Baseline]] = list
    left_out: Callable[[], Mapping[str, str]] = dict


@dataclass(frozen=True)
class OutputOptions:
    """What a study writes for people.

    Attributes:
        labels: Names for the summary.
        export: Writes more files for each candidate.
        export_baseline: Writes the program of a baseline, to time it beside those of candidates.
        registry: Registered production models.
        keep_all: Keep the artifacts of trials that other candidates dominate.
        tensorboard: Write TensorBoard scalars.
    """

    labels: Labels
    export: Exporter | None = None
    export_baseline: Exporter | None = None
    registry: ProductionModels = field(default_factory=ProductionModels)
    keep_all: bool = False
    tensorboard: bool = True


class Outputs:
    """Writes the files of a run folder from its store. Every call may be repeated.

    Args:
        folder: The run folder.
        store: Its store.
        options: What is written.
        objectives: What the front is taken over, from the final evaluator.
        final: Key of the final evaluator.
        metrics: What the final evaluator promises; what else it gives is a diagnostic.

    Attributes:
        references: Names of the baselines that costs are shown as a share of.
        logged: Names of the baselines that are logged scores.
        specialised: From finished trials to the network of each budget, where the controller finds such.
    """

    def __init__(
        self,
        folder: RunFolder,
        store: Store,
        options: OutputOptions,
        objectives: Sequence[MetricSpec],
        final: str,
        metrics: Sequence[MetricSpec],
    ) -> None:
        self.folder, self.store, self.labels, self.final = folder, store, options.labels, final
        self.objectives = list(objectives)
        self.references: Collection[str] = ()
        self.logged: Collection[str] = ()
        self.specialised: Callable[[Sequence[Trial]], Sequence[Specialised]] = _none
        self._specs = list(metrics)
        self._export, self._registry, self._keep_all = options.export, options.registry, options.keep_all
        self._export_baseline = options.export_baseline

    def front(self) -> list[MeasuredCandidate]:
        """The Pareto front of the candidates measured so far, and the networks of budgets that others dominate, in the
        order of the first objective."""
        every = candidates(self.store.trials, self.final)
        front = pareto_front(every, self.objectives)
        budgets = {each.fingerprint for each in self.specialised(self.store.trials)}
        budgets -= {candidate.trial.architecture.fingerprint for candidate in front}
        kept = [candidate for candidate in every if candidate.trial.architecture.fingerprint in budgets]
        if not kept:
            return front
        first = self.objectives[0]
        sign = 1.0 if first.direction == "min" else -1.0
        return sorted([*front, *kept], key=lambda candidate: sign * candidate.metrics[first.name].value)

    def write(self, seed: int, ledger: LedgerSummary, *, with_candidates: bool) -> Summary:
        """Write trials.csv, summary.json and, if asked, the candidates' folders (which takes longer)."""
        front = self.front()
        if with_candidates:
            artifacts = self._write_candidates(front)
            self._write_compared()
            self.drop_dominated(front)
            write_tables(self.folder.path, self.store.trials, self.final)
        else:
            artifacts = [dict((candidate.trial.measurement or _NONE).artifacts) for candidate in front]
        table = trials_csv(self.store.trials, self.store.times()).encode()
        write_whole(self.folder.path / TRIALS, table)
        summary = Summary(
            space=self.labels.space,
            task=self.labels.task,
            controller=self.labels.controller,
            seed=seed,
            objectives=[
                ObjectiveSummary(name=o.name, unit=o.unit, direction=o.direction, role=o.role, held_out=o.held_out)
                for o in self.objectives
            ],
            baselines=[
                BaselineSummary(
                    name=name,
                    fingerprint=c.trial.architecture.fingerprint,
                    metrics=self._metrics(c.metrics),
                    registered=self._registered(name),
                    reference=name in self.references,
                    logged=name in self.logged,
                )
                for name, c in baselines(self.store.trials, self.final)
            ],
            pareto=[
                CandidateSummary(
                    rank=rank,
                    fingerprint=candidate.trial.architecture.fingerprint,
                    architecture=parse_json(candidate.trial.architecture.to_json(), dict[str, Any]),
                    metrics=self._metrics(candidate.metrics),
                    artifacts=files,
                    program=self._program(files),
                )
                for rank, (candidate, files) in enumerate(zip(front, artifacts, strict=True), 1)
            ],
            ledger=ledger,
            budgets=[
                BudgetSummary(name=each.budget, fingerprint=each.fingerprint)
                for each in self.specialised(self.store.trials)
            ],
            left_out={**self._registry.left_out(), **self._failed_baselines()},
            versions=versions(),
            reproduce=self.labels.reproduce,
            files={
                TRIALS: hashlib.sha256(table).hexdigest(),
                **(hashes_of_tables(self.folder.path) if with_candidates else {}),
            },
        )
        write_whole(self.folder.path / "summary.json", summary.to_json())
        return summary

    def _metrics(self, metrics: Mapping[str, Metric]) -> dict[str, MetricSummary]:
        return summarised(metrics, self._specs)

    def _program(self, files: Mapping[str, str]) -> ProgramSummary | None:
        """What the card of a candidate's exported program says; None where there is no program of ours."""
        card = files.get("program_card")
        if card is None or not (self.folder.path / card).is_file():
            return None
        try:
            return read_json(self.folder.path / card, ProgramSummary)
        except RankitectError:  # a device of somebody's own may write another kind of card
            return None

    def _failed_baselines(self) -> dict[str, str]:
        """Models to compare with that could not be measured, and why."""
        tried = [t for t in self.store.trials if t.baseline is not None and t.evaluator == self.final]
        measured = {trial.baseline for trial in tried if trial.ok}
        failed = {str(t.baseline): t for t in tried if t.state == "FAILED" and t.baseline not in measured}
        return {name: f"{name} could not be measured: {trial.cause}" for name, trial in failed.items()}

    def _registered(self, name: str) -> RegisteredSummary | None:
        """What the registry says of a baseline, and after how many trials of the search it came."""
        models = (b.registered for b in self._registry.baselines() if b.name == name)
        entry = next((registered for registered in models if registered is not None), None)
        if entry is None:
            return None
        first = min(trial.number for trial in self.store.trials if trial.baseline == name)
        earlier = sum(trial.baseline is None and trial.number < first for trial in self.store.trials)
        return RegisteredSummary(**entry, after_trials=earlier)

    def _write_candidates(self, front: Sequence[MeasuredCandidate]) -> list[dict[str, str]]:
        """Build all folders beside the old ones and swap, so that a reader never sees a mixture of two fronts."""
        place = self.folder.path / "candidates"
        fresh, old = self.folder.path / ".candidates.new", self.folder.path / ".candidates.old"
        for leftover in (fresh, old):
            shutil.rmtree(leftover, ignore_errors=True)
        fresh.mkdir()
        written = []
        for rank, candidate in enumerate(front, 1):
            name = f"{rank:02d}-{candidate.trial.architecture.fingerprint[:8]}"
            folder = fresh / name
            folder.mkdir()
            write_whole(folder / "architecture.json", candidate.trial.architecture.to_json() + "\n")
            files = {"architecture": "architecture.json"}
            for artifact, path in (candidate.trial.measurement or _NONE).artifacts.items():
                files |= self._take(artifact, path, folder)
            if self._export is not None:
                files |= self._export(candidate.trial, folder)
            written.append({artifact: f"candidates/{name}/{path}" for artifact, path in files.items()})
        if place.exists():
            os.replace(place, old)
        os.replace(fresh, place)
        shutil.rmtree(old, ignore_errors=True)
        return written

    def _write_compared(self) -> None:
        """The programs of baselines, timed as those of candidates are; each once, as it takes minutes."""
        if self._export_baseline is None:
            return
        for name, baseline in baselines(self.store.trials, self.final):
            folder = self.folder.path / COMPARED / baseline.trial.architecture.fingerprint[:8]
            if folder.exists():
                continue
            fresh = folder.with_name(f".{folder.name}.new")
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
            if self._export_baseline(baseline.trial, fresh):
                os.replace(fresh, folder)
                continue
            shutil.rmtree(fresh)
            logging.getLogger("rankitect").info("%s has no program to time", name)
        place = self.folder.path / COMPARED
        if place.exists() and not any(place.iterdir()):
            place.rmdir()

    def _take(self, artifact: str, path: str, folder: Path) -> dict[str, str]:
        source = inside(self.folder.path, path)
        if source.is_dir():
            shutil.copytree(source, folder / source.name, copy_function=lambda a, b: copy_or_link(Path(a), Path(b)))
        elif source.is_file():
            copy_or_link(source, folder / source.name)
        else:
            logging.getLogger("rankitect").warning(
                "%s of candidate %s is gone (%s); a run in a new folder makes it again", artifact, folder.name, path
            )
            return {}
        return {artifact: source.name}

    def drop_dominated(self, front: Sequence[MeasuredCandidate]) -> None:
        """Delete artifacts that can never be wanted again, unless all are to be kept.

        A dominated candidate stays dominated, unless another seed of it is measured, which brings its own artifacts.
        """
        if self._keep_all:
            return
        kept = {candidate.trial.architecture.fingerprint for candidate in front}
        kept |= {trial.architecture.fingerprint for trial in self.store.trials if trial.baseline is not None}
        for trial in self.store.trials:
            if trial.finished and trial.evaluator == self.final and trial.architecture.fingerprint not in kept:
                shutil.rmtree(
                    self.folder.trial_folder(trial.number, trial.architecture.fingerprint), ignore_errors=True
                )


_NONE = Measurement({})


def _none(trials: Sequence[Trial]) -> list[Specialised]:
    """A search for no budgets."""
    return []
