"""The command `python -m rankitect.export`: a study, or one of its candidates, for other tools.

    python -m rankitect.export run=runs/my-run to=optuna        # optuna-dashboard sqlite:///runs/my-run/optuna.db
    python -m rankitect.export run=runs/my-run to=parquet out=trials.parquet
    python -m rankitect.export run=runs/my-run candidate=1 to=gguf precision=q8_0 out=model.gguf
    python -m rankitect.export run=runs/my-run candidate=1 to=executorch precision=8da4w out=program

TensorBoard scalars are in the run folder anyway (`report.tensorboard`), and so is trials.csv.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankitect.command_line import pairs
from rankitect.data.files import write_atomically
from rankitect.deploy.candidate_program import ProgramSettings
from rankitect.deploy.formats import FORMATS as MODELS
from rankitect.deploy.formats import export_candidate
from rankitect.documents import parse_json
from rankitect.errors import ConfigError, RunFolderError, brief
from rankitect.study.entries import refuse_strange
from rankitect.study.files import inside
from rankitect.study.summary import candidate_of, check_files, read_summary
from rankitect.study.trials_table import TRIALS, WRITE_AGAIN
from rankitect.terminal import Parser, answered, ended, say

if TYPE_CHECKING:
    import pandas as pd

    from rankitect.deploy.artifact import ProgramJudge
    from rankitect.models.candidate import LanguageCandidate
    from rankitect.study.summary import ObjectiveSummary

__all__ = ["main", "to_optuna", "to_table"]

FORMATS = {"optuna": "optuna.db", "parquet": "trials.parquet", "csv": "trials.flat.csv"}
_OF_PROGRAMS = ("prompt", "capacity", "text")
_OF_CANDIDATES = ("candidate", "precision", *_OF_PROGRAMS)
_KEYS = ("run", "to", "out", *_OF_CANDIDATES)


def main(arguments: Sequence[str] | None = None) -> int:
    """Export one study.

    Args:
        arguments: The command line without the program's name; the process's own when None.

    Returns:
        The exit code: 0; 2 where something is wrong with what was asked, 3 for a full disk.
    """
    parser = Parser(
        prog="python -m rankitect.export",
        description=(
            "Export a study: an Optuna storage, or a flat table with a column for each choice and metric. Or one of "
            "its language models in a format of other tools."
        ),
    )
    words = (
        f"run=FOLDER to={'|'.join(FORMATS)} [out=FILE], or candidate=RANK to={'|'.join(MODELS)} [precision=] [out=]; "
        "of to=executorch also [prompt=TOKENS] [capacity=TOKENS] [text=FILE]"
    )
    parser.add_argument("keys", nargs="+", metavar="key=value", help=words)
    options = parser.parse_args(arguments)
    return answered(lambda: _export(pairs(options.keys, _KEYS)))


def _export(given: Mapping[str, str]) -> int:
    form = given.get("to", "")
    if "run" not in given:
        raise ConfigError("run=FOLDER is missing: the folder that a search printed as its run folder.")
    if form not in (*FORMATS, *MODELS):
        said = f"is '{form}', which is no format" if form else "is missing"
        raise ConfigError(f"to= {said}: {', '.join(FORMATS)}; of a candidate, {', '.join(MODELS)}.")
    folder = Path(given["run"])
    if not folder.is_dir():
        raise RunFolderError(f"run={folder} is no folder: give the one that a search printed as its run folder.")
    if form in MODELS:
        return _export_candidate(folder, form, given)
    for key in _OF_CANDIDATES:
        if key in given:
            raise ConfigError(f"{key}= is for to={', '.join(MODELS)}, and to={form} exports the whole study.")
    out = Path(given.get("out", folder / FORMATS[form]))
    to_optuna(folder, out) if form == "optuna" else to_table(folder, out, form)
    say(out)
    return 0


def _export_candidate(folder: Path, form: str, given: Mapping[str, str]) -> int:
    """Write one candidate of a run in another format."""
    if "candidate" not in given:
        raise ConfigError(f"candidate= is missing: the rank of the candidate that to={form} exports.")
    program, precision = None, given.get("precision")
    if form == "executorch":
        program = ProgramSettings.of(precision, *(given.get(key) for key in _OF_PROGRAMS))
    elif (key := next((key for key in _OF_PROGRAMS if key in given), None)) is not None:
        raise ConfigError(f"{key}= is for to=executorch; to={form} has none.")
    summary = read_summary(folder)
    chosen = inside(folder, candidate_of(summary.pareto, given["candidate"], folder).folder)
    out = Path(given["out"]) if "out" in given else None
    if out is not None and not out.parent.is_dir():
        raise ConfigError(f"There is no folder {out.parent} for out=. Make it, or give another out=.")
    if out is not None and out.exists():
        raise ConfigError(f"{out} is there already. Give another out=, or delete it.")
    place, notes = export_candidate(chosen, form, out, precision, program=program, run=folder, judging=_judging)
    say(place)
    for note in notes:
        say(f"({note})")
    return 0


def _judging(run: Path, candidate: LanguageCandidate, capacity: int) -> ProgramJudge | None:
    """What judges programs of a run's candidates, where that is not their perplexity."""
    from rankitect.tasks.moderation.after import judge_of_run

    return judge_of_run(run, candidate, capacity)


def _table(folder: Path) -> pd.DataFrame:
    """The trials with their choices in columns of their own; choices that are lists (of wires) as JSON."""
    import pandas as pd

    path = folder / TRIALS
    if not path.is_file():
        why = "is no run folder: give the one that a search printed as its run folder."
        if (folder / "study.db").is_file():
            why = (
                "has no trials.csv yet: a search writes it some seconds after its first trial, and when it ends. Wait "
                "a moment, or repeat the search's command."
            )
        raise RunFolderError(f"{folder} {why}")
    refuse_strange(folder)
    if (folder / "summary.json").is_file():
        check_files(folder, read_summary(folder))
    try:
        trials = pd.read_csv(path)
        chosen = [parse_json(text, dict[str, Any])["choices"] for text in trials.pop("architecture")]
        names = dict.fromkeys(name for choices in chosen for name in choices)
        columns = {f"choice.{name}": _column([choices.get(name) for choices in chosen]) for name in names}
        for name in trials.columns:
            if name == "duplicate_of" or str(name).endswith(".n"):
                trials[name] = trials[name].astype("Int64")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise RunFolderError(_damaged(path, error)) from error
    return pd.concat([trials, pd.DataFrame(columns, index=trials.index)], axis=1)


def _damaged(path: Path, error: Exception) -> str:
    return f"{path} is damaged ({error}). {WRITE_AGAIN}"


def _column(values: Sequence[Any]) -> pd.Series[Any]:
    """Values of a choice, None where it has no effect; whole numbers stay such beside missing ones."""
    import pandas as pd

    texts = [json.dumps(v) if isinstance(v, list) else v for v in values]
    kinds = {type(v) for v in texts if v is not None}
    if len(kinds) > 1 and not kinds <= {int, float}:
        texts = [v if v is None or isinstance(v, str) else json.dumps(v) for v in texts]
    return pd.Series(texts, dtype="Int64" if kinds == {int} else "boolean" if kinds == {bool} else None)


def _check_place(folder: Path, out: Path, form: str) -> None:
    """Only tables in the run folder, under the names that export gives them, are written over."""
    if not out.parent.is_dir():
        raise ConfigError(f"There is no folder {out.parent} for out=. Make it, or give another out=.")
    if not out.exists():
        return
    place, run = Path(os.path.realpath(out)), Path(os.path.realpath(folder))
    exported = place in {run / name for name in FORMATS.values()}
    if run in place.parents and not exported:
        raise ConfigError(f"{out} is a file of the run itself. Give another out=.")
    if form == "optuna" or place != run / FORMATS[form]:
        raise ConfigError(f"{out} is there already. Give another out=, or delete it.")


def to_table(folder: Path, out: Path, form: str) -> None:
    """Write a flat table, Parquet or CSV.

    Raises:
        ConfigError: There is another file, or no folder for it.
        RunFolderError: The folder has no trials, or they are damaged.
        OSError: The file cannot be written.
    """
    _check_place(folder, out, form)
    table = _table(folder)
    write = table.to_parquet if form == "parquet" else table.to_csv
    write_atomically(out, lambda part: write(part, index=False))


def to_optuna(folder: Path, out: Path) -> None:
    """Write an Optuna storage (SQLite) with one study for each evaluator: optuna-dashboard opens it.

    Raises:
        ConfigError: Optuna is not installed, the file is there already, or it cannot be written.
        RunFolderError: The folder has no trials or no summary, or they are damaged.
        OSError: The file cannot be written.
    """
    try:
        import optuna
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError as error:
        raise ConfigError("to=optuna needs Optuna, which is not installed: pip install optuna.") from error
    _check_place(folder, out, "optuna")
    table, objectives = _table(folder), read_summary(folder).objectives
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    name = os.path.basename(os.path.realpath(folder))
    try:
        write_atomically(out, lambda part: _write_studies(part, name, table, objectives))
    except SQLAlchemyError as error:
        raise ConfigError(f"{brief(out)} cannot be written: {brief(str(error).splitlines()[0])}.") from error
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise RunFolderError(_damaged(folder / TRIALS, error)) from error


def _write_studies(path: Path, name: str, table: pd.DataFrame, objectives: Sequence[ObjectiveSummary]) -> None:
    import optuna

    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    for evaluator, trials in table.groupby("evaluator"):
        used = [o for o in objectives if o.name in trials and trials[o.name].notna().any()]
        if not used:
            continue
        study = optuna.create_study(
            study_name=f"{name} {evaluator}",
            storage=storage,
            directions=["minimize" if o.direction == "min" else "maximize" for o in used],
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names([o.name for o in used])
        rows = [row for _, row in trials.iterrows()]
        offered: dict[str, set[Any]] = {}
        for row in rows:
            for choice, value in _params(row).items():
                offered.setdefault(choice, set()).add(value)
        kinds = {n: optuna.distributions.CategoricalDistribution(sorted(v, key=repr)) for n, v in offered.items()}
        study.add_trials([_trial(row, [o.name for o in used], kinds) for row in rows])
    storage.engine.dispose()


def _params(row: pd.Series[Any]) -> dict[str, Any]:
    """The choices of a trial."""
    import pandas as pd

    cells = ((str(name), value) for name, value in row.items() if pd.notna(value))
    return {name.removeprefix("choice."): _plain(value) for name, value in cells if name.startswith("choice.")}


def _trial(row: pd.Series[Any], objectives: Sequence[str], kinds: Mapping[str, Any]) -> Any:
    import optuna
    import pandas as pd

    states, params = optuna.trial.TrialState, _params(row)
    done = row["state"] == "DONE" and all(pd.notna(row[name]) for name in objectives)
    state = (
        states.COMPLETE
        if done
        else {"WAITING": states.WAITING, "RUNNING": states.RUNNING}.get(row["state"], states.FAIL)
    )
    kept = ("number", "fingerprint", "baseline", "cause", "seed", "duplicate_of")
    trial = optuna.trial.create_trial(
        state=state,
        params=params,
        distributions={name: kinds[name] for name in params},
        values=[float(row[name]) for name in objectives] if done else None,
        user_attrs={name: _plain(row[name]) for name in kept if pd.notna(row[name])},
    )
    if state != states.WAITING:
        trial.datetime_start = _local(row["started"]) or _local(row["ended"]) or trial.datetime_start
    if state.is_finished():
        trial.datetime_complete = _local(row["ended"]) or trial.datetime_complete
    return trial


def _local(text: Any) -> datetime | None:
    """A time of trials.csv (UTC) as Optuna keeps it: this machine's, without a zone. A reused result has no start."""
    return datetime.fromisoformat(text).astimezone().replace(tzinfo=None) if isinstance(text, str) else None


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


if __name__ == "__main__":
    sys.exit(ended(main))
