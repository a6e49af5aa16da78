"""Reading a run folder: the summary, the table of trials, the configuration."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml  # type: ignore[import-untyped]
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from rankitect.config.schema import ReportConfig
from rankitect.contracts import Role
from rankitect.errors import RunFolderError
from rankitect.production.evidence import Evidence, load_evidence
from rankitect.production.settings import gates_problem
from rankitect.reports.cards import JSON
from rankitect.reports.trials import WRITE_AGAIN, Trial, read_trials
from rankitect.study.checks import one_line
from rankitect.study.earlier import counted_rows, in_examples, up_to_date

__all__ = ["Baseline", "Candidate", "Metric", "Objective", "Run", "Summary", "choices_of", "load_run"]

SCHEMA = 1


def _named(value: object) -> object:
    """A thing named in the summary, given as its name or as an object that has a name."""
    return value["name"] if isinstance(value, Mapping) and isinstance(value.get("name"), str) else value


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


Name = Annotated[str, BeforeValidator(_named)]


class _Record(BaseModel):
    # Later versions may add keys; what is not understood is left alone, so that an old report still opens a new run.
    model_config = ConfigDict(extra="allow", frozen=True)


class Metric(_Record):
    """A measured value, with its 95% interval and number of repeats or examples, where known."""

    value: Annotated[float | None, BeforeValidator(_finite)] = None
    unit: str = ""
    role: Role = "diagnostic"
    n: int | None = None
    ci95: tuple[float, float] | None = None


class Objective(_Record):
    """What the search minimised or maximised; `held_out` is the same metric on data by which nothing was chosen."""

    name: str
    unit: str = ""
    direction: Literal["min", "max"] = "min"
    role: Role = "quality"
    held_out: str | None = None


class Registered(_Record):
    """What the registry of production models says of a baseline, and after how many trials the search took it up."""

    version: int
    added: str
    retired: str | None = None
    note: str = ""
    live: bool = True
    after_trials: int = 0


class Baseline(_Record):
    """A model to compare with: the backbone, a plainly pruned version of it, or a registered production model."""

    name: str
    fingerprint: str | None = None
    metrics: dict[str, Metric] = {}
    architecture: Any = None
    registered: Registered | None = None


class Candidate(_Record):
    """A model on the Pareto front."""

    rank: int
    fingerprint: str
    architecture: Any = None
    metrics: dict[str, Metric] = {}
    artifacts: dict[str, str] = {}
    notes: Any = None


class Summary(_Record):
    """`summary.json`, schema 1. `choices` (every choice's allowed values) is optional."""

    schema_: int = Field(alias="schema")
    space: Name
    task: Name
    controller: Name
    seed: int
    objectives: list[Objective]
    baselines: list[Baseline] = []
    pareto: list[Candidate] = []
    ledger: Any = None
    versions: dict[str, Any] = {}
    reproduce: str = ""
    choices: dict[str, list[Any]] = {}
    left_out: dict[str, str] = {}


@dataclass(frozen=True)
class Run:
    """A run folder as read: the folder, its summary, its trials in order, and the configuration's text."""

    folder: Path
    summary: Summary
    trials: tuple[Trial, ...]
    trials_note: str
    config: str
    graphs: Mapping[str, str]

    @cached_property
    def settings(self) -> ReportConfig:
        """What the configuration says about the report; the defaults where it is of a version without.

        Raises:
            RunFolderError: It is damaged or gone, or its gates were changed after the run began.
        """
        path = self.folder / "config.yaml"
        if not self.config and (self.folder / "study.db").exists():
            raise RunFolderError(f"{path} is gone, and with it what a candidate must show. Put it back.")
        try:
            given = (yaml.safe_load(self.config) or {}).get("report") or {}
            if problem := gates_problem(self.config, given):
                raise RunFolderError(f"{path}: {problem}")
            known = {k: v for k, v in given.items() if k in ReportConfig.model_fields}
            return ReportConfig.model_validate(known)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise RunFolderError(f"{path}: report.{where}: {first['msg']}.") from error
        except (yaml.YAMLError, TypeError, AttributeError) as error:
            raise RunFolderError(f"{path} is damaged ({one_line(error)}). Put back what the search wrote.") from error

    @cached_property
    def evidence(self) -> Evidence | None:
        """The rows of the test data and the models' losses on them; None where the run keeps none."""
        return load_evidence(self.folder)

    @property
    def unit(self) -> str:
        """What is trained and evaluated: tokens of a text, or examples."""
        ledger = self.summary.ledger if isinstance(self.summary.ledger, Mapping) else {}
        return "examples" if ledger.get("train_examples") or ledger.get("eval_examples") else "tokens"

    def searched(self) -> tuple[Trial, ...]:
        """The trials without those that measured a baseline."""
        return tuple(trial for trial in self.trials if not trial.baseline)

    def architecture_of(self, baseline: Baseline) -> dict[str, JSON]:
        """The choices of a baseline, from the summary or else from the table of trials; empty where unknown."""
        own = choices_of(baseline.architecture)
        same = (t for t in self.trials if t.choices and t.fingerprint and t.fingerprint == baseline.fingerprint)
        first = None if own else next(same, None)
        return dict(first.choices) if first else own

    def graph_of(self, candidate: Candidate) -> str | None:
        """The SVG text of a candidate's graph, or None."""
        return self.graphs.get(candidate.fingerprint[:8])


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
    if not folder.exists():
        raise RunFolderError(f"{folder} does not exist. Give the folder that a search printed as its run folder.")
    if not folder.is_dir():
        raise RunFolderError(f"{folder} is a file. Give the run folder: the folder that holds summary.json.")
    summary, rows = _read_summary(folder)
    known = {objective.name for objective in summary.objectives}
    known.update(name for holder in (summary.baselines, summary.pareto) for item in holder for name in item.metrics)
    if not summary.choices:
        summary = summary.model_copy(update={"choices": _offered(folder)})
    table = folder / "trials.csv"
    trials = read_trials(table, known) if table.is_file() else ()
    if rows:
        trials = tuple(replace(trial, spent=in_examples(trial.spent)) for trial in trials)
    wanted = _trials_of(summary)
    if table.is_file() and len(trials) < wanted:
        raise RunFolderError(
            f"{table} has {len(trials)} of the {wanted} trials that summary.json counts: it was cut off or changed. "
            f"{WRITE_AGAIN}"
        )
    note = "" if trials else ("trials.csv has no rows" if table.is_file() else "the run folder has no trials.csv")
    return Run(
        folder,
        summary,
        trials,
        note,
        _text(folder / "config.yaml"),
        _graphs(folder),
    )


def _read_summary(folder: Path) -> tuple[Summary, bool]:
    """The summary, and whether the run is of a version that counted examples under the names of tokens."""
    path = folder / "summary.json"
    if not path.is_file():
        if (folder / "study.db").exists() or (folder / "config.yaml").exists():
            raise RunFolderError(
                f"{folder} has no summary.json yet: its search has not ended. Repeat the search's command to finish it."
            )
        raise RunFolderError(
            f"{folder} is not a run folder: it has no summary.json, study.db or config.yaml. "
            "Give the folder that a search printed as its run folder."
        )
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunFolderError(f"{path} is half-written or damaged ({error}). {WRITE_AGAIN}") from error
    if not isinstance(data, dict) or "schema" not in data:
        raise RunFolderError(f'{path} is not a search\'s summary: it must be an object with "schema": {SCHEMA}.')
    if data["schema"] != SCHEMA:
        raise RunFolderError(
            f"{path} has schema {data['schema']!r}; this version reads schema {SCHEMA}. "
            "Use the version of Rankitect that wrote it (see `versions` in the file)."
        )
    try:
        return Summary.model_validate(up_to_date(data)), counted_rows(data.get("ledger"))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        more = f" ({error.error_count() - 1} more like this)" if error.error_count() > 1 else ""
        raise RunFolderError(
            f"{path}: field `{where}`: {first['msg'].lower()}{more}. Repeat the search's command to write the summary "
            "again."
        ) from error


def _trials_of(summary: Summary) -> int:
    """How many trials the summary counts; 0 where it does not."""
    counts = summary.ledger.get("trials") if isinstance(summary.ledger, Mapping) else None
    return sum(n for n in counts.values() if isinstance(n, int)) if isinstance(counts, Mapping) else 0


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _offered(folder: Path) -> dict[str, list[Any]]:
    """What the space allows at each choice, from any candidate's space.json; empty where there is none to read."""
    for path in sorted((folder / "candidates").glob("*/space.json")):
        try:
            return {str(c["path"]): list(c["values"]) for c in json.loads(_text(path))["choices"]}
        except (KeyError, TypeError, ValueError):
            continue
    return {}


def _graphs(folder: Path) -> dict[str, str]:
    """The drawings in candidates/<rank>-<fingerprint8>/graph.svg, by the first eight digits of the fingerprint."""
    found = sorted((folder / "candidates").glob("*/graph.svg"))
    return {path.parent.name.rpartition("-")[2]: _text(path) for path in found}


def choices_of(architecture: object) -> dict[str, JSON]:
    """The choices of an architecture as recorded: an object with `choices`, its JSON text, or the bare mapping.

    Args:
        architecture: What a summary or a table of trials holds.

    Returns:
        The value of every choice, by its path; empty where there is nothing to read.
    """
    if isinstance(architecture, str):
        try:
            architecture = json.loads(architecture)
        except json.JSONDecodeError:
            return {}
    if not isinstance(architecture, Mapping):
        return {}
    inner = architecture.get("choices")
    return dict(inner) if isinstance(inner, Mapping) else {str(k): v for k, v in architecture.items() if "." in str(k)}
