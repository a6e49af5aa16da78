"""The table of trials of a run, row by row."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from rankitect.contracts import Spent
from rankitect.errors import RunFolderError
from rankitect.reports.cards import JSON
from rankitect.study.confirming import CONFIRM

__all__ = ["Trial", "measured", "read_trials"]

_STATES = {
    "done": "done",
    "complete": "done",
    "completed": "done",
    "ok": "done",
    "finished": "done",
    "reused": "done",
    "duplicate": "done",
    "failed": "failed",
    "error": "failed",
    "infeasible": "infeasible",
    "invalid": "infeasible",
}
_SPENT = (*(each.name for each in fields(Spent)), "forward_evaluations")
_FLAGS = ("duplicate", "reused")
_CAUSE = ("cause", "error", "reason")
_CELL = re.compile(r".+\.\d+\.[^.]+$")
WRITE_AGAIN = "Repeat the search's command: it writes the file again from study.db without measuring anything twice."
_NOTHING = ("", "0", "false", "no", "none", "null", "nan")


@dataclass(frozen=True)
class Trial:
    """One row of trials.csv.

    Attributes:
        number: Its position in the study, from 0.
        state: "done", "failed", "infeasible", or what else the study wrote (a trial still running, for one).
        evaluator: Which measurement was made; trials of different evaluators are never compared.
        fingerprint: Identity of the architecture.
        duplicate: Whether an earlier result was reused instead of measuring again.
        baseline: Name of the baseline that this trial measured, or "".
        confirms: Whether it measures with another seed what the search found, and is not charged to the search.
        seed: Of its measurement.
        cause: Why it failed.
        metrics: Values by metric.
        spent: What it cost: tokens, measurements, seconds.
        choices: The architecture's choices, where the table has them.
    """

    number: int
    state: str
    evaluator: str = ""
    fingerprint: str = ""
    duplicate: bool = False
    baseline: str = ""
    confirms: bool = False
    seed: int | None = None
    cause: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    spent: Mapping[str, float] = field(default_factory=dict)
    choices: Mapping[str, JSON] = field(default_factory=dict)

    @property
    def model(self) -> str:
        """What identifies the model that it measured: trials of one architecture are of one model."""
        return self.fingerprint or f"trial {self.number}"


def read_trials(path: Path, metrics: Iterable[str]) -> tuple[Trial, ...]:
    """Read a table of trials.

    Metrics are columns named as in the summary (or `metric.NAME`), costs are `train_tokens`, `seconds` and so on (or
    `spent.NAME`), choices are `choice.PATH`, bare paths like `layers.3.ffn`, or an `architecture` column of JSON.

    Args:
        path: The file, comma-separated with a header.
        metrics: Names of metrics known from the summary.

    Returns:
        The rows in order.

    Raises:
        RunFolderError: The file is not text, is cut off, or its header misses `state`.
    """
    known = set(metrics)
    try:
        text = path.read_bytes().decode("utf-8")
        reader = csv.DictReader(io.StringIO(text, newline=""))
        header = reader.fieldnames or []
        if header and "state" not in header:
            raise RunFolderError(f"{path} is not a table of trials: it has no column `state`.")
        if text and not text.endswith("\n"):
            raise RunFolderError(f"{path} is cut off: its last line has no end. {WRITE_AGAIN}")
        return tuple(_trial(index, row, known) for index, row in enumerate(reader))
    except (UnicodeDecodeError, csv.Error) as error:
        raise RunFolderError(f"{path} cannot be read as comma-separated text ({error}). {WRITE_AGAIN}") from error


def measured(trials: Iterable[Trial]) -> set[str]:
    """The models that trials measured, each once, however often it was measured."""
    return {t.model for t in trials if t.state == "done" and not t.duplicate}


def _trial(index: int, row: Mapping[str | None, str | None], known: set[str]) -> Trial:
    cells = {name: text for name, text in row.items() if isinstance(name, str) and isinstance(text, str)}
    state = cells.get("state", "").strip().lower()
    found: dict[str, float] = {}
    spent: dict[str, float] = {}
    choices: dict[str, JSON] = {}
    for name, text in cells.items():
        head, _, tail = name.partition(".")
        number = _number(text)
        if name in known or (head in ("metric", "metrics") and tail):
            if number is not None:
                found[name if name in known else tail] = number
        elif name in _SPENT or (head == "spent" and tail):
            if number is not None:
                spent[tail if head == "spent" and tail else name] = number
        elif head in ("choice", "choices") and tail:
            _put(choices, tail, text)
        elif _CELL.match(name):
            _put(choices, name, text)
    if not choices:
        choices = _architecture(cells.get("architecture", "") or cells.get("choices", ""))
    refused = state == "failed" and _tags(cells.get("tags", "")).get("feasible") is False
    return Trial(
        number=index,
        state="infeasible" if refused else _STATES.get(state, state),
        evaluator=cells.get("evaluator", ""),
        fingerprint=cells.get("fingerprint", ""),
        duplicate=bool(cells.get("duplicate_of", "").strip())
        or state in ("reused", "duplicate")
        or any(cells.get(name, "").strip().lower() not in _NOTHING for name in _FLAGS),
        baseline=cells.get("baseline", "").strip(),
        confirms=cells.get("batch", "").strip() == str(CONFIRM),
        seed=int(seed) if (seed := cells.get("seed", "").strip()).isdigit() else None,
        cause=next((cells[name].strip() for name in _CAUSE if cells.get(name, "").strip()), ""),
        metrics=found,
        spent=spent,
        choices=choices,
    )


def _tags(text: str) -> dict[str, JSON]:
    try:
        tags = json.loads(text) if text else {}
    except json.JSONDecodeError:
        return {}
    return tags if isinstance(tags, dict) else {}


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _put(choices: dict[str, JSON], path: str, text: str) -> None:
    """Keep a choice's value with its type; an empty cell means that the choice was not live."""
    if text == "":
        return
    try:
        choices[path] = json.loads(text)
    except json.JSONDecodeError:
        choices[path] = {"True": True, "False": False}.get(text, text)


def _architecture(text: str) -> dict[str, JSON]:
    from rankitect.reports.reading import choices_of

    return choices_of(text) if text.startswith("{") else {}
