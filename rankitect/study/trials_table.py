"""trials.csv: all trials of a study as a table, written for people and read back by reports."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rankitect.contracts import Measurement, Metric, Spent, Trial
from rankitect.documents import parse_json
from rankitect.errors import RunFolderError, short
from rankitect.space.architecture import Architecture

__all__ = ["TRIALS", "WRITE_AGAIN", "read_trials", "trials_csv"]

TRIALS = "trials.csv"
WRITE_AGAIN = "Repeat the search's command: it writes the file again from study.db without measuring anything twice."

_ABOUT = (
    "number",
    "batch",
    "state",
    "evaluator",
    "seed",
    "fingerprint",
    "baseline",
    "duplicate_of",
    "attempts",
    "cause",
)
_AFTER = ("started", "ended", "tags", "architecture")
_SPENT = tuple(field.name for field in fields(Spent))
_REPEATS, _LOW, _HIGH = ".n", ".ci95_lo", ".ci95_hi"
_FORMULA = ("=", "+", "-", "@")


def _about(trial: Trial) -> tuple[Any, ...]:
    """The values of the columns `_ABOUT`."""
    return (
        trial.number, trial.batch, trial.state, trial.evaluator, trial.seed, trial.architecture.fingerprint,
        _guarded(trial.baseline), trial.duplicate_of, trial.attempts, _guarded(trial.cause),
    )  # fmt: skip


def trials_csv(trials: Sequence[Trial], times: Mapping[int, tuple[float | None, float | None]]) -> str:
    """All trials as a table: one row a trial, one column a metric.

    Columns: number, batch, state, evaluator, seed, fingerprint, baseline, duplicate_of, attempts, cause, those of
    `Spent`, started and ended (UTC), tags and architecture (JSON), then for each metric `name`, and `name.n`,
    `name.ci95_lo`, `name.ci95_hi` where any trial has them.

    Args:
        trials: In the order of the rows.
        times: When each started and ended, in seconds since 1970, by its number.
    """
    columns: dict[str, None] = {}
    rows = []
    for trial in trials:
        started, ended = times.get(trial.number, (None, None))
        row: dict[str, Any] = {
            **dict(zip(_ABOUT, _about(trial), strict=True)),
            **trial.spent.to_dict(),
            "started": _time(started),
            "ended": _time(ended),
            "tags": json.dumps(trial.tags, sort_keys=True),
            "architecture": trial.architecture.to_json(),
        }
        for name, metric in (trial.measurement.metrics if trial.measurement else {}).items():
            row[name] = metric.value
            if metric.n is not None:
                row[name + _REPEATS] = metric.n
            if metric.ci95 is not None:
                row[name + _LOW], row[name + _HIGH] = metric.ci95
        columns.update(dict.fromkeys(row))
        rows.append(row)
    file = io.StringIO()
    writer = csv.DictWriter(file, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _guarded(text: str | None) -> str:
    """Text that a spreadsheet will not take for a formula."""
    if text is None:
        return ""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _unguarded(text: str) -> str | None:
    """The inverse of `_guarded`."""
    return (text[1:] if text[:1] == "'" and text[1:].startswith(_FORMULA) else text) or None


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def read_trials(path: Path) -> tuple[Trial, ...]:
    """Read back what `trials_csv` wrote; a column of an earlier version that is missing counts as 0 or as nothing.

    The table does not hold everything: `asked` is 0, and metrics have no unit (the summary has it).

    Args:
        path: The file.

    Returns:
        The trials in order.

    Raises:
        RunFolderError: The file is not such a table, is not text, is cut off, or has a cell that cannot be read.
    """
    try:
        text = path.read_bytes().decode("utf-8")
        reader = csv.DictReader(io.StringIO(text, newline=""))
        header = reader.fieldnames or []
        if header and "state" not in header:
            raise RunFolderError(f"{path} is not a table of trials: it has no column `state`.")
        if text and not text.endswith("\n"):
            raise RunFolderError(f"{path} is cut off: its last line has no end. {WRITE_AGAIN}")
        metrics = _metrics(header)
        return tuple(_read_row(row, metrics, place) for place, row in enumerate(reader, 1))
    except (UnicodeDecodeError, csv.Error) as error:
        raise RunFolderError(f"{path} cannot be read as comma-separated text ({error}). {WRITE_AGAIN}") from error
    except ValueError as error:  # a mistake in a row
        if isinstance(error, RunFolderError):
            raise
        raise RunFolderError(f"{path} is damaged ({error}). {WRITE_AGAIN}") from error


def _metrics(header: Sequence[str]) -> list[str]:
    """The columns that are values of metrics: neither what every table has, nor what goes with another column."""
    known = {*_ABOUT, *_SPENT, *_AFTER}
    beside = {f"{name}{end}" for name in header for end in (_REPEATS, _LOW, _HIGH)}
    return [name for name in header if name not in known and name not in beside]


def _read_row(row: Mapping[str, str], metrics: Sequence[str], place: int) -> Trial:
    """The trial of one row; says which row it is that cannot be read."""
    try:
        return _trial(row, metrics)
    except KeyError as error:
        raise ValueError(f"it has no column {error}") from error
    except (TypeError, ValueError) as error:  # SpaceError is one of them
        raise ValueError(f"row {place}: {error}") from error


def _trial(row: Mapping[str, str], metrics: Sequence[str]) -> Trial:
    done = row["state"] == "DONE"
    return Trial(
        number=int(row["number"]),
        batch=int(row["batch"]),
        asked=0,
        architecture=_architecture(row["architecture"], row["fingerprint"]),
        evaluator=row["evaluator"],
        seed=int(row["seed"]),
        tags=parse_json(row["tags"], dict[str, Any]),
        state=row["state"],  # type: ignore[arg-type]  # as it was written
        measurement=Measurement({n: m for n in metrics if (m := _metric(row, n)) is not None}) if done else None,
        cause=_unguarded(row["cause"]),
        duplicate_of=int(row["duplicate_of"]) if row["duplicate_of"] else None,
        baseline=_unguarded(row["baseline"]),
        attempts=int(row["attempts"]),
        spent=Spent(**{name: _amount(row[name]) for name in _SPENT if row.get(name)}),  # type: ignore[arg-type]
    )


def _architecture(text: str, fingerprint: str) -> Architecture:
    """An architecture with the fingerprint that it was recorded under: spaces of a user's own kind have their own."""
    architecture = Architecture.from_json(text)
    if not re.fullmatch("[0-9a-f]{64}", fingerprint):
        raise ValueError(f"{short(repr(fingerprint), 80)} is no fingerprint")
    vars(architecture)["fingerprint"] = fingerprint
    return architecture


def _amount(text: str) -> int | float:
    return float(text) if "." in text or "e" in text else int(text)


def _metric(row: Mapping[str, str], name: str) -> Metric | None:
    if not row[name]:
        return None
    value = float(row[name])
    if not math.isfinite(value):
        raise ValueError(f"{name} of trial {row['number']} is {value}")
    repeats, low, high = (row.get(name + end) for end in (_REPEATS, _LOW, _HIGH))
    return Metric(value, "", int(repeats) if repeats else None, (float(low), float(high)) if low and high else None)
