"""Whether a study's file is in order, and says of each trial what the table of trials says: for whoever only reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rankitect.contracts import Measurement, Trial
from rankitect.errors import RunFolderError, brief
from rankitect.study.database import reading
from rankitect.study.rows import read

__all__ = ["problem_of_store"]


def problem_of_store(path: Path, trials: Sequence[Trial]) -> str:
    """What is wrong with a study's file; nothing in its folder is changed, unless a search goes on there.

    Args:
        path: The file.
        trials: What trials.csv holds. It may be older than the file: only finished trials count, and of
            those that failed and may be tried again, only which they are.

    Returns:
        A sentence; empty where nothing is wrong.
    """
    try:
        # Where there is no log, nobody has the file open, so that SQLite need not leave one in the folder.
        with reading(path, alone=not path.with_name(f"{path.name}-wal").exists()) as connection:
            stored = read(path, connection, None).trials
    except RunFolderError as error:
        return str(error)
    for trial in trials:
        if trial.finished and (difference := _difference(trial, stored.get(trial.number))):
            return f"trial {trial.number} of trials.csv {difference} in {path.name}"
    return ""


def _difference(trial: Trial, stored: Trial | None) -> str:
    if stored is None:
        return "is not"
    for name in ("evaluator", "seed", "baseline", *(("state", "duplicate_of") if trial.ok else ())):
        if vars(trial)[name] != vars(stored)[name]:
            return f"has another {name}: {brief(vars(trial)[name], 60)}, and {brief(vars(stored)[name], 60)}"
    if trial.architecture.fingerprint != stored.architecture.fingerprint:
        return "has another architecture"
    if not trial.ok:
        return ""
    one, other = _values(trial.measurement), _values(stored.measurement)
    name = next((name for name in sorted({*one, *other}) if one.get(name) != other.get(name)), None)
    return "" if name is None else f"has another {brief(name, 80)}"


def _values(measurement: Measurement | None) -> dict[str, tuple[object, ...]]:
    """The metrics as the table has them: without units, and all values of one type."""
    metrics = measurement.metrics if measurement else {}
    return {name: (float(m.value), m.n, *map(float, m.ci95 or ())) for name, m in metrics.items()}
