"""A run folder as a report reads it: the summary and the trials in the study's own records, and the configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rankitect.config.schema import ReportConfig
from rankitect.contracts import Trial
from rankitect.documents import parse_yaml, read_json
from rankitect.errors import RankitectError, RunFolderError
from rankitect.production.answers import AnswerTable, load_answers
from rankitect.production.evidence import Evidence, load_evidence
from rankitect.production.settings import gates_problem
from rankitect.study.checks import one_line
from rankitect.study.confirming import CONFIRM
from rankitect.study.summary import BaselineSummary, CandidateSummary, Summary, check_files, read_summary
from rankitect.study.trials_table import TRIALS, WRITE_AGAIN, read_trials

__all__ = ["Run", "load_run", "value_of"]


@dataclass(frozen=True)
class Run:
    """A run folder as read.

    Attributes:
        folder: Its path.
        summary: summary.json.
        trials: The rows of trials.csv, in order.
        trials_note: Why there are no trials; "" where there are some.
        config: The text of config.yaml; "" where there is none.
        name: Its name, which a report keeps when the folder is moved.
    """

    folder: Path
    summary: Summary
    trials: tuple[Trial, ...]
    trials_note: str
    config: str
    name: str = ""

    @cached_property
    def settings(self) -> ReportConfig:
        """What the configuration says about the report; the defaults where an earlier version wrote no such section.

        Raises:
            RunFolderError: It is damaged or gone, or its gates were changed after the run began.
        """
        path = self.folder / "config.yaml"
        if not self.config and (self.folder / "study.db").exists():
            raise RunFolderError(f"{path} is gone, and with it what a candidate must show. Put it back.")
        try:
            given = parse_yaml(self.config or "{}", dict[str, Any], path, RunFolderError).get("report") or {}
            if problem := gates_problem(self.config, given):
                raise RunFolderError(f"{path}: {problem}")
            known = {k: v for k, v in given.items() if k in ReportConfig.model_fields}
            return ReportConfig.model_validate(known)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise RunFolderError(f"{path}: report.{where}: {first['msg']}.") from error
        except (TypeError, AttributeError) as error:
            raise RunFolderError(f"{path} is damaged ({one_line(error)}). Put back what the search wrote.") from error

    @cached_property
    def configuration(self) -> dict[str, Any]:
        """What config.yaml holds; nothing where it is damaged or gone."""
        try:
            return parse_yaml(self.config or "{}", dict[str, Any])
        except RankitectError:
            return {}

    def configured(self, section: str) -> dict[str, Any]:
        """One section of the configuration; nothing where there is none."""
        keys = self.configuration.get(section)
        return keys if isinstance(keys, dict) else {}

    @property
    def baselines_wanted(self) -> bool:
        """Whether the search was to measure baselines (`runner.baselines`)."""
        return bool(self.configured("runner").get("baselines", True))

    @property
    def place(self) -> str:
        """Where the search wrote it, as seen from where it was started."""
        return str(self.configuration.get("output_dir") or f"runs/{self.name}")

    @cached_property
    def evidence(self) -> Evidence | None:
        """The rows of the test data and the models' losses on them; None where the run keeps none."""
        return load_evidence(self.folder)

    @cached_property
    def answers(self) -> dict[str, AnswerTable]:
        """What each question gave each model, by the metric that is the mean of it; empty where nothing was asked."""
        return load_answers(self.folder)

    @cached_property
    def offered(self) -> dict[str, list[Any]]:
        """The values that the space allows at each choice; empty where no candidate's folder holds the space."""
        for path in sorted((self.folder / "candidates").glob("*/space.json")):
            try:
                return {str(c["path"]): list(c["values"]) for c in read_json(path, dict[str, Any])["choices"]}
            except (KeyError, TypeError, ValueError):
                continue
        return {}

    @property
    def unit(self) -> str:
        """What the run's training data are counted in: "examples" or "tokens"."""
        return self.summary.ledger.unit

    def searched(self) -> tuple[Trial, ...]:
        """The trials without those that measured a baseline."""
        return tuple(trial for trial in self.trials if trial.baseline is None)

    def charged(self) -> tuple[Trial, ...]:
        """The trials that the search is charged for: no baselines, and no repeats that confirm what it found."""
        return tuple(trial for trial in self.searched() if trial.batch != CONFIRM)

    def choices_of(self, baseline: BaselineSummary | None) -> Mapping[str, Any]:
        """The choices of a baseline, as the trial that measured it has them; empty where there is none."""
        if baseline is None:
            return {}
        measured = (t.architecture for t in self.trials if t.architecture.fingerprint == baseline.fingerprint)
        architecture = next(measured, None)
        return {} if architecture is None else architecture.choices

    def graph_of(self, candidate: CandidateSummary) -> str:
        """The SVG text of a candidate's graph; "" where there is none."""
        return _text(self.folder / candidate.folder / "graph.svg")


def value_of(trial: Trial, metric: str) -> float | None:
    """What a trial measured; None where it did not end well, or measured something else."""
    if trial.measurement is None or metric not in trial.measurement.metrics:
        return None
    return trial.measurement.metrics[metric].value


def load_run(folder: Path) -> Run:
    """Read a run folder.

    Args:
        folder: Where `summary.json` is.

    Returns:
        What was read. A missing `trials.csv` is no error: `trials` is empty and `trials_note` says why.

    Raises:
        RunFolderError: There is no such folder, it is not a run folder, its summary is missing, half-written, not of
            the known schema or misses a field, or `trials.csv` is damaged or has fewer trials than the summary.
    """
    summary = read_summary(folder)
    check_files(folder, summary)
    table = folder / TRIALS
    trials = read_trials(table) if table.is_file() else ()
    expected = sum(summary.ledger.trials.values())
    if table.is_file() and len(trials) < expected:
        raise RunFolderError(
            f"{table} has {len(trials)} of the {expected} trials that summary.json counts: it was cut off or changed. "
            f"{WRITE_AGAIN}"
        )
    name = os.path.basename(os.path.realpath(folder))
    note = "" if trials else (f"{TRIALS} has no rows" if table.is_file() else f"the run folder has no {TRIALS}")
    return Run(folder, summary, trials, note, _text(folder / "config.yaml"), name)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
