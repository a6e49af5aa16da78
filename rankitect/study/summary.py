"""summary.json, the public interface of a finished run.

`Summary` is the schema: `Summary.model_json_schema()` gives it as JSON Schema, `read_summary` checks a file against it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from rankitect.contracts import Direction, Metric, MetricSpec, Role, Spent
from rankitect.data.files import file_sha256
from rankitect.documents import read_json
from rankitect.errors import RunFolderError, brief
from rankitect.study.earlier import up_to_date
from rankitect.study.entries import refuse_strange
from rankitect.study.files import inside, is_inside
from rankitect.study.pareto import nondominated

__all__ = [
    "COMPARED",
    "FEWEST_SEEDS",
    "BaselineSummary",
    "BudgetSummary",
    "CandidateSummary",
    "LedgerSummary",
    "MetricSummary",
    "ObjectiveSummary",
    "RegisteredSummary",
    "Summary",
    "candidate_of",
    "check_files",
    "read_summary",
    "summarised",
]

_AGAIN = "Repeat the search's command: it writes the summary again from study.db."
_SCHEMA = 1
_PREFIX = 6
"""Digits of a fingerprint that can be no rank of a front."""
_SIZE = re.compile(r"([\s_@:(-]+\d+(\.\d+)?\s*%?|\d+(\.\d+)?\s*%)\)?$")
"""A size at the end of a name, set apart from it or a percentage: the digit of "dcnv2" is none."""
_PRUNED_BITS = re.compile(r"(.*?) \d+% (\d+ bits)")
COMPARED = "compared"
"""The folder, in a run folder, of what is exported of baselines to time them beside candidates."""
FEWEST_SEEDS = 3
"""Measurements from which on an interval over them is shown: that of two spans 18 times their difference."""


class _Model(BaseModel):
    # What a later version adds is left alone, so that this one still opens its folders.
    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, frozen=True)


class MetricSummary(_Model):
    """A value with its unit, its role and, where measured more than once, the number of repeats and a 95% interval.

    `direction` says which values are better; it is not known of metrics that nobody promised, nor in earlier summaries.
    """

    value: float
    unit: str
    role: Role
    direction: Direction | None = None
    n: int | None = None
    ci95: tuple[float, float] | None = None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The interval, where it says something: none of two measurements."""
        return None if self.n is not None and self.n < FEWEST_SEEDS else self.ci95


def summarised(metrics: Mapping[str, Metric], promised: Sequence[MetricSpec]) -> dict[str, MetricSummary]:
    """Metrics with what their evaluator says of them; what it does not promise is a diagnostic."""
    known = {spec.name: spec for spec in promised}
    return {
        name: MetricSummary(
            value=metric.value,
            unit=metric.unit,
            role=known[name].role if name in known else "diagnostic",
            direction=known[name].direction if name in known else None,
            n=metric.n,
            ci95=metric.ci95,
        )
        for name, metric in metrics.items()
    }


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


Fingerprint = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
"""SHA-256 in hexadecimal digits: folders are named after it."""


class BaselineSummary(_Model):
    """A model that the candidates are compared with.

    `reference` marks the one that costs are a share of and that pictures compare with, such as the backbone of pruned
    models; `logged` marks what production answered when the rows were logged, which has neither weights nor costs.
    """

    name: str
    fingerprint: Fingerprint
    metrics: dict[str, MetricSummary]
    registered: RegisteredSummary | None = None
    reference: bool = False
    logged: bool = False

    @property
    def folder(self) -> str:
        """Path of what was exported of it, relative to the run folder."""
        return f"{COMPARED}/{self.fingerprint[:8]}"

    @property
    def family(self) -> str:
        """The name without a size at its end: "uniform width 60%" and "uniform width 75%" are of one family, and so are
        "uniform 4 bits" and "uniform 8 bits", and pruned models of one number of bits."""
        pruned = _PRUNED_BITS.fullmatch(self.name)
        return f"{pruned[1]} {pruned[2]}" if pruned else _SIZE.sub("", self.name.removesuffix(" bits")).strip()


class ProgramQualitySummary(_Model):
    """The quality of an exported program beside that of its model, in its bits (`model`) and in floats where these are
    not its own; lower is better, and `change` is relative to the floats. Where these are not known, `unrounded` is what
    the model's own weights give without rounding, with which nothing is compared."""

    metric: str
    model: float
    program: float
    amount: int
    unit: str
    floats: float | None = None
    unrounded: float | None = None
    change: float | None = None

    @property
    def whole(self) -> float:
        """The value of the model in floats."""
        return self.model if self.floats is None else self.floats


class ProgramSummary(_Model):
    """An exported program: its bits, its size and its quality on held-out inputs, where there were any."""

    precision: str
    bytes: int
    quality: ProgramQualitySummary | None = None


class CandidateSummary(_Model):
    """A point of the Pareto front; rank 1 is the best in the first objective.

    `architecture` is the canonical JSON as an object, `artifacts` are paths relative to the run folder, `program` is
    what its exported program is, where there is one.
    """

    rank: int
    fingerprint: Fingerprint
    architecture: dict[str, Any]
    metrics: dict[str, MetricSummary]
    artifacts: dict[str, str]
    program: ProgramSummary | None = None

    @property
    def choices(self) -> dict[str, Any]:
        """The value of every choice, by its path."""
        return dict(self.architecture["choices"])

    @property
    def folder(self) -> str:
        """Path of the candidate's files, relative to the run folder."""
        return f"candidates/{self.rank:02d}-{self.fingerprint[:8]}"

    @field_validator("artifacts")
    @classmethod
    def _are_inside(cls, artifacts: dict[str, str]) -> dict[str, str]:
        for path in artifacts.values():
            if not is_inside(path):
                raise ValueError("a path of an artifact must lie inside of the run folder")
        return artifacts

    @field_validator("architecture")
    @classmethod
    def _has_choices(cls, architecture: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(architecture.get("choices"), dict):
            raise ValueError("an architecture needs `choices`, a mapping")
        return architecture


@dataclass(frozen=True)
class LedgerSummary(Spent):
    """What the search spent in all, and what stands beside it in the summary.

    Attributes:
        stages: What each stage spent; baselines and confirmation are stages that the search is not charged for.
        trials: The number of trials that are done, failed, duplicates and waiting.
        minutes: Wall clock; None where it is not known.
        ended: How the run ended.
        computed: What of the search was really computed, where candidates share the results of stages that each is
            charged for; None where nothing was shared.
        reused: By stage, what was charged though its result was stored before and only read.
    """

    stages: dict[str, Spent] = field(default_factory=dict)
    trials: dict[str, int] = field(default_factory=dict)
    minutes: float | None = None
    ended: str = ""
    computed: Spent | None = None
    reused: dict[str, Spent] = field(default_factory=dict)

    @property
    def total(self) -> Spent:
        """The totals alone."""
        return Spent(*(getattr(self, each.name) for each in fields(Spent)))

    @property
    def unit(self) -> str:
        """What `data` counts: "examples" or "tokens"."""
        return (
            "examples" if any(s.train_examples or s.eval_examples for s in (self, *self.stages.values())) else "tokens"
        )


class BudgetSummary(_Model):
    """A budget that a network was taken for, which is among the candidates; no fingerprint: none was measured."""

    name: str
    fingerprint: Fingerprint | None = None


class Summary(_Model):
    """summary.json, schema 1.

    `pareto` holds the front, and the networks of `budgets` where others dominate them.
    `left_out` says which models could not be compared with, and why. `files` has the SHA-256 of the files that were
    written with it, by name. In the file stands the `checksum` of all the rest as well: what was changed since is not
    read. Summaries of earlier versions have neither.
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
    ledger: LedgerSummary
    budgets: list[BudgetSummary] = []
    left_out: dict[str, str] = {}
    versions: dict[str, str]
    reproduce: str
    files: dict[str, Fingerprint] = {}

    model_config = ConfigDict(
        alias_generator=lambda name: "schema" if name == "schema_" else name,
        populate_by_name=True,
    )

    @property
    def undominated(self) -> int:
        """How many candidates no other dominates: those of the front, without networks that are kept for a budget."""
        signs = {objective.name: 1.0 if objective.direction == "min" else -1.0 for objective in self.objectives}
        known = [c.metrics for c in self.pareto if all(name in c.metrics for name in signs)]
        return len(nondominated([[sign * own[name].value for name, sign in signs.items()] for own in known]))

    def to_json(self) -> str:
        """The file's text. Optional parts are left out where there is nothing to say."""
        data = self.model_dump(by_alias=True, mode="json")
        for optional in ("budgets", "left_out", "files"):
            if not data[optional]:
                del data[optional]
        data["objectives"] = [_known(o) for o in data["objectives"]]
        data["ledger"] = _known(data["ledger"])
        for entry in (*data["baselines"], *data["pareto"]):
            entry["metrics"] = {name: _known(metric) for name, metric in entry["metrics"].items()}
        data["checksum"] = _checksum(data)
        return json.dumps(data, indent=2, allow_nan=False) + "\n"


def _checksum(data: Mapping[str, Any]) -> str:
    """SHA-256 of everything in a summary but the checksum itself."""
    rest = {key: value for key, value in data.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _known(record: dict[str, Any]) -> dict[str, Any]:
    """A record without what is not known."""
    return {key: value for key, value in record.items() if value is not None}


def read_summary(folder: Path) -> Summary:
    """Read and check the summary of a run folder.

    Raises:
        RunFolderError: There is none yet, or it does not follow the schema.
    """
    path = folder / "summary.json"
    if not folder.exists():
        raise RunFolderError(f"{folder} does not exist. Give the folder that a search printed as its run folder.")
    if not folder.is_dir():
        raise RunFolderError(f"{folder} is a file. Give the run folder: the folder that holds summary.json.")
    if not path.is_file():
        begun = (folder / "study.db").exists() or (folder / "config.yaml").exists()
        raise RunFolderError(
            f"{folder} has no summary.json yet: its search has not ended. Repeat the search's command to finish it."
            if begun
            else f"{folder} is not a run folder: it has no summary.json, study.db or config.yaml. Give the folder that "
            "a search printed as its run folder."
        )
    refuse_strange(folder)
    data: object = read_json(path, error=RunFolderError, advice=f"It is half-written or damaged. {_AGAIN}")
    if isinstance(data, dict) and "kind" in data:
        raise RunFolderError(
            f"{path} is the summary of a {data['kind']}, not of a search: only a search has a report, an export and "
            "candidates."
        )
    if not isinstance(data, dict) or "schema" not in data:
        raise RunFolderError(f'{path} is not a search\'s summary: it must be an object with "schema": {_SCHEMA}.')
    if data["schema"] != _SCHEMA:
        raise RunFolderError(
            f"{path} has schema {data['schema']!r}; this version reads schema {_SCHEMA}. Use the version of Rankitect "
            "that wrote it (see `versions` in the file)."
        )
    if "checksum" in data and data["checksum"] != _checksum(data):
        raise RunFolderError(f"{brief(path)} is not what the search wrote: its checksum differs. {_AGAIN}")
    try:
        return Summary.model_validate(up_to_date(data))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        more = f" ({error.error_count() - 1} more like this)" if error.error_count() > 1 else ""
        raise RunFolderError(f"{path}: field `{where}`: {first['msg'].lower()}{more}. {_AGAIN}") from None


def check_files(folder: Path, summary: Summary) -> None:
    """Refuse files that are not those that were written with a summary; files that are gone are missed elsewhere.

    Raises:
        RunFolderError: Names the first such file.
    """
    for name, written in summary.files.items():
        path = inside(folder, name)
        if path.is_file() and file_sha256(path) != written:
            raise RunFolderError(
                f"{brief(path)} is not the file that the search wrote with its summary. Repeat the search's command: "
                "it writes the file again from study.db."
            )


def candidate_of(front: Sequence[CandidateSummary], wanted: str, folder: Path) -> CandidateSummary:
    """The candidate that a user means.

    Args:
        front: All candidates.
        wanted: A rank, or six or more digits that a fingerprint begins with.
        folder: The run folder, for the message.

    Raises:
        RunFolderError: There is no such candidate.
    """
    ranked = [c for c in front if wanted == str(c.rank)]
    meant = ranked or [c for c in front if len(wanted) >= _PREFIX and c.fingerprint.startswith(wanted)]
    if not meant:
        known = ", ".join(f"{c.rank} ({c.fingerprint[:8]})" for c in front) or "none yet"
        raise RunFolderError(
            f"There is no candidate '{wanted}' on the front of {folder}: {known}. Give a rank, or {_PREFIX} or more "
            "digits of a fingerprint."
        )
    return meant[0]
