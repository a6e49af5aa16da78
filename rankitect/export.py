"""The command `python -m rankitect.export`: a study for other tools.

    python -m rankitect.export run=runs/my-run to=optuna        # optuna-dashboard sqlite:///runs/my-run/optuna.db
    python -m rankitect.export run=runs/my-run to=parquet out=trials.parquet

TensorBoard scalars are in the run folder anyway (`report.tensorboard`), and so is trials.csv.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankitect.errors import ConfigError, RankitectError, RunFolderError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["main", "to_optuna", "to_table"]

FORMATS = {"optuna": "optuna.db", "parquet": "trials.parquet", "csv": "trials.flat.csv"}
_KEYS = ("run", "to", "out")


def main(arguments: Sequence[str] | None = None) -> int:
    """Export one study.

    Args:
        arguments: The command line without the program's name; the process's own when None.

    Returns:
        The exit code: 0, or 2 where something is wrong with what was asked.
    """
    parser = argparse.ArgumentParser(
        prog="python -m rankitect.export",
        description="Export a study: an Optuna storage, or a flat table with a column for each choice and metric.",
    )
    parser.add_argument("keys", nargs="+", metavar="key=value", help=f"run=FOLDER to={'|'.join(FORMATS)} [out=FILE]")
    options = parser.parse_args(arguments)
    given: dict[str, str] = {}
    for text in options.keys:
        name, _, value = text.partition("=")
        if name not in _KEYS or not value:
            return _wrong(f"'{text}' is none of {', '.join(f'{key}=…' for key in _KEYS)}.")
        given[name] = value
    form = given.get("to", "")
    if "run" not in given or form not in FORMATS:
        return _wrong(f"give run=FOLDER and to={'|'.join(FORMATS)}.")
    folder = Path(given["run"])
    out = Path(given.get("out", folder / FORMATS[form]))
    try:
        to_optuna(folder, out) if form == "optuna" else to_table(folder, out, form)
    except RankitectError as error:
        return _wrong(str(error))
    except OSError as error:
        return _wrong(f"{out} cannot be written: {error}.")
    print(out)
    return 0


def _table(folder: Path) -> pd.DataFrame:
    """The trials with their choices in columns of their own."""
    import pandas as pd

    path = folder / "trials.csv"
    if not path.is_file():
        raise RunFolderError(f"{folder} has no trials.csv: give the run folder of a search that has measured a trial.")
    try:
        trials = pd.read_csv(path)
        choices = pd.DataFrame([json.loads(text)["choices"] for text in trials.pop("architecture")])
    except (ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{path} is damaged ({error}). Repeat the search's command to write it again.") from error
    return pd.concat([trials, choices.add_prefix("choice.")], axis=1)


def to_table(folder: Path, out: Path, form: str) -> None:
    """Write a flat table, Parquet or CSV.

    Raises:
        RunFolderError: The folder has no trials, or they are damaged.
        OSError: The file cannot be written.
    """
    import pandas as pd

    table = _table(folder)
    if form == "parquet":
        for name in [name for name in table if pd.api.types.is_object_dtype(table[name])]:
            table[name] = table[name].map(lambda v: v if v is None or isinstance(v, str) else json.dumps(v))
        table.to_parquet(out, index=False)
    else:
        table.to_csv(out, index=False)


def to_optuna(folder: Path, out: Path) -> None:
    """Write an Optuna storage (SQLite) with one study for each evaluator: optuna-dashboard opens it.

    Raises:
        ConfigError: Optuna is not installed, or the file is there already.
        RunFolderError: The folder has no trials, or they are damaged.
    """
    try:
        import optuna
    except ImportError as error:
        raise ConfigError("to=optuna needs Optuna, which is not installed: pip install optuna.") from error
    if out.exists():
        raise ConfigError(f"{out} is there already: Optuna would add to it. Delete it, or give another out=.")
    table = _table(folder)
    objectives = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["objectives"]
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for evaluator, trials in table.groupby("evaluator"):
        names = [o for o in objectives if o["name"] in trials and trials[o["name"]].notna().any()]
        if not names:
            continue
        study = optuna.create_study(
            study_name=f"{folder.resolve().name} {evaluator}",
            storage=f"sqlite:///{out}",
            directions=["minimize" if o["direction"] == "min" else "maximize" for o in names],
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names([o["name"] for o in names])
        rows = [row for _, row in trials.iterrows()]
        offered: dict[str, set[Any]] = {}
        for row in rows:
            for name, value in _params(row).items():
                offered.setdefault(name, set()).add(value)
        kinds = {n: optuna.distributions.CategoricalDistribution(sorted(v, key=repr)) for n, v in offered.items()}
        study.add_trials([_trial(row, [o["name"] for o in names], kinds) for row in rows])


def _params(row: pd.Series[Any]) -> dict[str, Any]:
    """The choices of a trial; lists (of wires) as text."""
    found = {str(k).removeprefix("choice."): v for k, v in row.items() if str(k).startswith("choice.") and _is(v)}
    return {k: json.dumps(v) if isinstance(v, list) else _plain(v) for k, v in found.items()}


def _trial(row: pd.Series[Any], objectives: Sequence[str], kinds: Mapping[str, Any]) -> Any:
    import optuna
    import pandas as pd

    params = _params(row)
    done = row["state"] == "DONE" and all(pd.notna(row[name]) for name in objectives)
    kept = ("number", "fingerprint", "baseline", "cause", "seed")
    return optuna.trial.create_trial(
        state=optuna.trial.TrialState.COMPLETE if done else optuna.trial.TrialState.FAIL,
        params=params,
        distributions={name: kinds[name] for name in params},
        values=[float(row[name]) for name in objectives] if done else None,
        user_attrs={name: _plain(row[name]) for name in kept if _is(row[name])},
    )


def _is(value: object) -> bool:
    """Whether a cell holds something."""
    return isinstance(value, list) or (value is not None and value == value)


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _wrong(text: str) -> int:
    print(f"Error: {text}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
