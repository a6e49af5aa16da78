"""summary.json, the public interface of a finished run, and trials.csv beside it.

`Summary` is the schema: `Summary.model_json_schema()` gives it as JSON Schema, `read_summary` checks a file against it.
"""

from __future__ import annotations

import csv
import io
import json
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from rankitect.contracts import Direction, Role, Trial
from rankitect.errors import RunFolderError
from rankitect.study.earlier import up_to_date

__all__ = [
    "BaselineSummary",
    "CandidateSummary",
    "MetricSummary",
    "ObjectiveSummary",
    "RegisteredSummary",
    "Summary",
    "candidate_of",
    "read_summary",
    "trials_csv",
    "versions",
]

_PACKAGES = (
    "torch",
    "numpy",
    "scipy",
    "networkx",
    "pydantic",
    "hydra-core",
    "botorch",
    "executorch",
    "torchrec",
    "ray",
)

_AGAIN = "Repeat the search's command: it writes the summary again from study.db."
_PREFIX = 6
"""Digits of a fingerprint that can be no rank of a front."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class MetricSummary(_Model):
    """A value with its unit, its role and, where measured more than once, the number of repeats and a 95% interval."""

    value: float
    unit: str
    role: Role
    n: int | None = None
    ci95: tuple[float, float] | None = None


class ObjectiveSummary(_Model):
    """What the search optimised; `held_out` names the metric that is the same on data by which nothing was chosen."""

    name: str
    unit: str
    direction: Direction
    role: Role
    held_out: str | None = None


class RegisteredSummary(_Model):
    """A baseline from the registry of production models: since when, until when, and when this search took it up."""

    version: int
    added: str
    retired: str | None = None
    note: str = ""
    live: bool = True
    after_trials: int = 0


class BaselineSummary(_Model):
    """A model that the candidates are compared with."""

    name: str
    fingerprint: str
    metrics: dict[str, MetricSummary]
    registered: RegisteredSummary | None = None


class CandidateSummary(_Model):
    """A point of the Pareto front; rank 1 is the best in the first objective.

    `architecture` is the canonical JSON as an object, `artifacts` are paths relative to the run folder.
    """

    rank: int
    fingerprint: str
    architecture: dict[str, Any]
    metrics: dict[str, MetricSummary]
    artifacts: dict[str, str]


class Summary(_Model):
    """summary.json, schema 1.

    `ledger` has the totals of the search (the fields of `rankitect.contracts.Spent`), the same by `stages`, the counts
    of `trials`, `minutes` of wall clock, and how the run `ended`. `left_out` says which models could
    not be compared with, and why.
    """

    # The field's name is part of the public interface; pydantic's own method of that name is deprecated and not used.
    schema_: Literal[1] = 1
    space: str
    task: str
    controller: str
    seed: int
    objectives: list[ObjectiveSummary]
    baselines: list[BaselineSummary]
    pareto: list[CandidateSummary]
    ledger: dict[str, Any]
    left_out: dict[str, str] = {}
    versions: dict[str, str]
    reproduce: str

    model_config = ConfigDict(
        extra="forbid",
        allow_inf_nan=False,
        alias_generator=lambda name: "schema" if name == "schema_" else name,
        populate_by_name=True,
    )

    def to_json(self) -> str:
        """The file's text. Optional parts are left out where there is nothing to say."""
        data = self.model_dump(by_alias=True, mode="json")
        if not self.left_out:
            del data["left_out"]
        data["objectives"] = [{k: v for k, v in o.items() if v is not None} for o in data["objectives"]]
        for entry in (*data["baselines"], *data["pareto"]):
            entry["metrics"] = {
                name: {key: value for key, value in metric.items() if value is not None}
                for name, metric in entry["metrics"].items()
            }
        return json.dumps(data, indent=2, allow_nan=False) + "\n"


def read_summary(folder: Path) -> Summary:
    """Read and check the summary of a run folder.

    Raises:
        RunFolderError: There is none yet, or it does not follow the schema.
    """
    path = folder / "summary.json"
    if not folder.is_dir():
        raise RunFolderError(
            f"There is no run folder {folder}: give the folder that a search printed as its run folder."
        )
    try:
        data = json.loads(path.read_bytes())
        return Summary.model_validate(up_to_date(data) if isinstance(data, dict) else data)
    except FileNotFoundError:
        raise RunFolderError(
            f"{folder} has no summary.json: not a run folder, or the run has not come so far."
        ) from None
    except OSError as error:
        raise RunFolderError(f"{path} cannot be read ({error.strerror}).") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunFolderError(f"{path} is half-written or damaged ({error}). {_AGAIN}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise RunFolderError(f"{path} is not a summary of schema 1: {where}: {first['msg']}. {_AGAIN}") from None


class _Ranked(Protocol):
    @property
    def rank(self) -> int: ...

    @property
    def fingerprint(self) -> str: ...


_R = TypeVar("_R", bound=_Ranked)


def candidate_of(front: Sequence[_R], wanted: str, folder: Path) -> _R:
    """The candidate that a user means.

    Args:
        front: All candidates.
        wanted: A rank, or six or more digits that a fingerprint begins with.
        folder: The run folder, for the message.

    Raises:
        RunFolderError: There is no such candidate.
    """
    ranked = [c for c in front if wanted == str(c.rank)]
    found = ranked or [c for c in front if len(wanted) >= _PREFIX and c.fingerprint.startswith(wanted)]
    if not found:
        known = ", ".join(f"{c.rank} ({c.fingerprint[:8]})" for c in front) or "none yet"
        raise RunFolderError(
            f"There is no candidate '{wanted}' on the front of {folder}: {known}. Give a rank, or {_PREFIX} or more "
            "digits of a fingerprint."
        )
    return found[0]


def versions() -> dict[str, str]:
    """Versions of what has an influence on results, without importing any of it."""
    import platform
    from importlib import metadata

    from rankitect import __version__

    found = {"rankitect": __version__, "python": platform.python_version(), **_commit()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


@cache
def _commit() -> dict[str, str]:
    """The commit of the code that runs, marked where files were changed; nothing where it is no checkout."""
    folder = Path(__file__).parents[2]
    if not (folder / ".git").exists():
        return {}
    try:
        told = [
            subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10, check=True)
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        ]
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"commit": told[0].stdout.strip() + ("+changes" if told[1].stdout.strip() else "")}


def _cell(text: str | None) -> str:
    """Text that a spreadsheet will not take for a formula."""
    if text is None:
        return ""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def trials_csv(trials: Sequence[Trial], times: Mapping[int, tuple[float | None, float | None]]) -> str:
    """All trials as a table: one row a trial, one column a metric.

    Columns: number, batch, state, evaluator, seed, fingerprint, baseline, duplicate_of, attempts, cause, those of
    `Spent`, started and ended (UTC), tags and architecture (JSON), then for each metric `name`, and `name.n`,
    `name.ci95_lo`, `name.ci95_hi` where any trial has them.
    """
    columns: dict[str, None] = {}
    rows = []
    for trial in trials:
        started, ended = times.get(trial.number, (None, None))
        row: dict[str, Any] = {
            "number": trial.number,
            "batch": trial.batch,
            "state": trial.state,
            "evaluator": trial.evaluator,
            "seed": trial.seed,
            "fingerprint": trial.architecture.fingerprint,
            "baseline": _cell(trial.baseline),
            "duplicate_of": trial.duplicate_of,
            "attempts": trial.attempts,
            "cause": _cell(trial.cause),
            **trial.spent.to_dict(),
            "started": _time(started),
            "ended": _time(ended),
            "tags": json.dumps(trial.tags, sort_keys=True),
            "architecture": trial.architecture.to_json(),
        }
        for name, metric in (trial.measurement.metrics if trial.measurement else {}).items():
            row[name] = metric.value
            if metric.n is not None:
                row[f"{name}.n"] = metric.n
            if metric.ci95 is not None:
                row[f"{name}.ci95_lo"], row[f"{name}.ci95_hi"] = metric.ci95
        columns.update(dict.fromkeys(row))
        rows.append(row)
    file = io.StringIO()
    writer = csv.DictWriter(file, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()
