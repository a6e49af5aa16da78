"""What is in a study's file, decoded through models and held against each other before any of it is believed."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Json, JsonValue, TypeAdapter, ValidationError

from rankitect.contracts import Measurement, Spent, Trial
from rankitect.errors import RankitectError, RunFolderError, brief
from rankitect.study.charges import TRIAL, trial_key
from rankitect.study.confirming import CONFIRM
from rankitect.study.database import columns_of, counts_rows, damaged
from rankitect.study.files import is_inside
from rankitect.study.schema import COLUMNS, SPENDING

__all__ = ["Contents", "Recorded", "Standing", "read"]

Standing = Literal["own", "earlier", "apart"]
"""What a batch is to the configuration of now: `own`: proposed by it; `earlier`: by an earlier one (`resume=force`),
and it is not known yet whether this one proposes the same; `apart`: it does not, and its controller is not told of it.
"""


@dataclass(frozen=True)
class Recorded:
    """An architecture of which only what the file says is known, for readers without its space.

    Attributes:
        fingerprint: As it was recorded.
        text: Its JSON.
    """

    fingerprint: str
    text: str

    def to_json(self) -> str:
        """The JSON that was recorded."""
        return self.text


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)


def _relative(path: str) -> str:
    if not is_inside(path):
        raise ValueError("must be a path inside of the run folder")
    return path


Amount = Annotated[int, Field(ge=0)]
Number = int | float
"""Whole numbers stay such."""


class _Metric(_Strict):
    value: Number
    unit: str
    n: int | None = None
    ci95: tuple[Number, Number] | None = None


class _Spent(_Strict):
    train_examples: Amount = 0
    eval_examples: Amount = 0
    train_tokens: Amount = 0
    eval_tokens: Amount = 0
    teacher_tokens: Amount = 0
    generated_tokens: Amount = 0
    train_flops: Amount = 0
    latency_measurements: Amount = 0
    seconds: Number = 0.0


class _Measurement(_Strict):
    metrics: dict[str, _Metric]
    spent: _Spent
    artifacts: dict[str, Annotated[str, AfterValidator(_relative)]]
    notes: dict[str, JsonValue]
    reused: _Spent = _Spent()


class _Row(_Strict):
    """A row of `trials`, as SQLite gives it."""

    number: Annotated[int, Field(gt=0)]
    batch: Annotated[int, Field(ge=CONFIRM)]
    baseline: str | None
    fingerprint: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    evaluator: Annotated[str, Field(min_length=1)]
    seed: int
    architecture: str
    tags: Json[dict[str, JsonValue]]
    state: Literal["WAITING", "RUNNING", "DONE", "FAILED"]
    attempts: Annotated[int, Field(ge=0)]
    pid: int | None
    started: float | None
    ended: float | None
    duplicate_of: int | None
    measurement: Json[_Measurement] | None
    cause: str | None
    traceback: str | None


class _Charge(_Spent):
    """A row of `charges`."""

    key: Annotated[str, Field(min_length=1)]
    stage: Annotated[str, Field(min_length=1)]


class _Batch(_Strict):
    """A row of `batches`."""

    batch: Annotated[int, Field(ge=CONFIRM)]
    asked: Annotated[int, Field(ge=0)]
    standing: Standing = "own"


class _Session(_Strict):
    """A row of `sessions`."""

    id: int
    pid: int | None
    host: str | None
    started: float | None
    seconds: Annotated[float, Field(ge=0)]


_MODELS: dict[str, TypeAdapter[Any]] = {
    "batches": TypeAdapter(_Batch),
    "trials": TypeAdapter(_Row),
    "charges": TypeAdapter(_Charge),
    "sessions": TypeAdapter(_Session),
}


@dataclass(frozen=True)
class Contents:
    """Everything that a study's file says.

    Attributes:
        trials: By number, in order.
        standings: What each batch is to the configuration of now, by its number.
        totals: What was spent, by stage.
    """

    trials: dict[int, Trial]
    standings: dict[int, Standing]
    totals: dict[str, Spent]


def read(path: Path, connection: sqlite3.Connection, decode: Callable[[str], Any] | None) -> Contents:
    """Read a file whose pages and checksums are in order.

    Args:
        path: The file, for messages.
        connection: To it.
        decode: Makes an architecture from its JSON; None: each is a `Recorded`.

    Raises:
        RunFolderError: A row is not what a study writes, or does not go with the others; or architectures are of
            another space, and the message says how many.
    """
    batches = {b.batch: b for b in _rows(path, connection, "batches")}
    charges = {c.key: c for c in _rows(path, connection, "charges")}
    rows = {row.number: row for row in _rows(path, connection, "trials")}
    for _ in _rows(path, connection, "sessions"):
        pass
    _agree(path, rows, batches, charges)
    in_rows = counts_rows(path, connection)
    spent = {key: _spent(charge, in_rows) for key, charge in charges.items()}
    architectures = _architectures(path, rows, decode)
    trials = {
        number: Trial(
            number=number, batch=row.batch, asked=batches[row.batch].asked, architecture=architectures[number],
            evaluator=row.evaluator, seed=row.seed, tags=row.tags, state=row.state,
            measurement=None if row.measurement is None else Measurement.from_dict(row.measurement.model_dump()),
            cause=row.cause, duplicate_of=row.duplicate_of, baseline=row.baseline, attempts=row.attempts,
            spent=spent.get(trial_key(number), Spent()),
        )
        for number, row in sorted(rows.items())
    }  # fmt: skip
    totals: dict[str, Spent] = {}
    for key, charge in charges.items():
        totals[charge.stage] = totals.get(charge.stage, Spent()) + spent[key]
    return Contents(trials, {number: batch.standing for number, batch in batches.items()}, totals)


def _rows(path: Path, connection: sqlite3.Connection, table: str) -> list[Any]:
    present = columns_of(connection, table)
    columns = [name for name in COLUMNS[table] if name in present]
    out = []
    for row in connection.execute(f"SELECT {', '.join(columns)} FROM {table}"):
        try:
            out.append(_MODELS[table].validate_python(dict(zip(columns, row, strict=True))))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])[:80]
            what = f"{where}: {first['msg'][:100]}"
            raise damaged(path, f"row {str(row[0])[:40]!r} of table {table}, {what}") from None
    return out


def _spent(charge: _Charge, in_rows: bool) -> Spent:
    spent = Spent(**{name: charge.__dict__[name] for name in SPENDING})
    if not in_rows:
        return spent
    return replace(
        spent, train_examples=spent.train_tokens, eval_examples=spent.eval_tokens, train_tokens=0, eval_tokens=0
    )


def _agree(path: Path, rows: Mapping[int, _Row], batches: Mapping[int, _Batch], charges: Mapping[str, _Charge]) -> None:
    """Refuse rows that lack what they refer to, or that contradict each other."""
    for number, row in rows.items():
        if problem := _problem(row, rows, batches, charges):
            raise damaged(path, f"trial {number} {problem}")
    measured = {trial_key(n) for n, row in rows.items() if row.state in ("DONE", "FAILED") and row.duplicate_of is None}
    for key in charges:
        if key.startswith(TRIAL) and key not in measured:
            raise damaged(path, f"there is a charge for {key[:40]!r}, which was not measured")


def _problem(row: _Row, rows: Mapping[int, _Row], batches: Mapping[int, _Batch], charges: Mapping[str, _Charge]) -> str:
    """What is wrong with a trial beside the others; empty where nothing is."""
    finished = row.state in ("DONE", "FAILED")
    if row.batch not in batches:
        return f"is of batch {row.batch}, which is not in the table of batches"
    if (row.state == "DONE") != (row.measurement is not None) or (row.state == "FAILED") != (row.cause is not None):
        return f"is {row.state}, and its result says something else"
    if row.duplicate_of is None:
        return "has no charge" if finished and trial_key(row.number) not in charges else ""
    first = rows.get(row.duplicate_of)
    if not finished or first is None or first.duplicate_of is not None or first.state != row.state:
        return f"repeats trial {row.duplicate_of}, which has no such result"
    same = (first.fingerprint, first.evaluator, first.seed, first.measurement)
    if same != (row.fingerprint, row.evaluator, row.seed, row.measurement):
        return f"repeats trial {row.duplicate_of}, which is another"
    return ""


def _architectures(path: Path, rows: Mapping[int, _Row], decode: Callable[[str], Any] | None) -> dict[int, Any]:
    if decode is None:
        return {number: Recorded(row.fingerprint, row.architecture) for number, row in rows.items()}
    out: dict[int, Any] = {}
    strange: list[str] = []
    for number, row in rows.items():
        try:
            architecture = out[number] = decode(row.architecture)
        except RankitectError as error:
            strange.append(f"trial {number}: {error}")
            continue
        except (
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
            RecursionError,
        ) as error:  # a decoder of the user's own
            raise damaged(path, f"the architecture of trial {number} cannot be read: {error}") from error
        if architecture.fingerprint != row.fingerprint:
            raise damaged(path, f"the architecture of trial {number} has another fingerprint than was recorded")
    if strange:
        raise RunFolderError(
            f"{len(strange)} of {len(rows)} trials in {brief(path.parent)} do not fit this space "
            f"({brief(strange[0])}). Choose another output_dir=, or go on with the space that it was begun with."
        )
    return out
