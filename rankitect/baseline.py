"""The command `python -m rankitect.baseline`: the production models that searches compare with.

    python -m rankitect.baseline add dlrm run=runs/my-run candidate=2 note="live since May"
    python -m rankitect.baseline add legacy task=criteo task.data.path=train.txt module=my_models.legacy \\
        weights=legacy.safetensors
    python -m rankitect.baseline list
    python -m rankitect.baseline retire legacy

A search that runs takes a change up before its next trial; its report compares with the newest.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankitect.command_line import keys_help, split_words
from rankitect.errors import ConfigError, RunFolderError, safe, short
from rankitect.terminal import Parser, answered, ended, say

if TYPE_CHECKING:
    from rankitect.production.registry import Registry

__all__ = ["main"]

_KEYS = {
    "run": "run folder whose candidate goes live",
    "candidate": "its rank on the front, 1 by default, or six or more digits of its fingerprint",
    "task": "name of the task (task= of the search), where no run says it",
    "architecture": "file with an architecture (architecture.json)",
    "space": "file with the architecture's space (space.json), where it is not the searched one",
    "features": "file with a ranker's features (features.json)",
    "task.…": "the task's keys as the search has them (task.data.path=clicks.csv), to try a module on real rows",
    "module": "dotted path of a function (features) -> torch module, called as module(numeric [B, N], ids [B, S]); it "
    "gives a logit a row",
    "weights": "safetensors file with the module's weights; without, it is trained like candidates",
    "allowed_packages": "packages that the task may come from, as the search has them",
    "note": "for people",
    "registry": "the registry's folder, baselines by default",
}
_BESIDE_RUN = {"run", "candidate", "note", "registry"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Add, list or retire production models.

    Args:
        arguments: The command line without the program's name; the process's own when None.

    Returns:
        The exit code: 0; 2 where something is wrong with what was asked, 3 for a full disk.
    """
    parser = Parser(
        prog="python -m rankitect.baseline",
        description="Add, list or retire the production models that searches compare with.",
        epilog=keys_help(_KEYS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", choices=("add", "list", "retire"))
    parser.add_argument("words", nargs="*", metavar="NAME key=value", help="a name, and keys (see below)")
    parser.add_argument("--config-dir", metavar="FOLDER", help="your own configurations, where the task is one of them")
    options = parser.parse_intermixed_args(arguments)

    def act() -> int:
        of_task = [word for word in options.words if word.startswith("task.")]
        names, given = split_words([word for word in options.words if word not in of_task], _KEYS)
        return _act(options.action, names, given, of_task, options.config_dir)

    return answered(act)


def _act(
    action: str, names: Sequence[str], given: Mapping[str, str], of_task: Sequence[str], config_dir: str | None
) -> int:
    from rankitect.production.registry import Registry

    registry = Registry(Path(given.get("registry", "baselines")))
    if registry.folder.exists() and not registry.folder.is_dir():
        raise ConfigError(f"registry={registry.folder} is a file: give a folder, which is made where there is none.")
    if action == "list":
        return _list(registry)
    if len(names) != 1:
        raise ConfigError(f"Give one name: python -m rankitect.baseline {action} NAME …")
    if action == "retire":
        say(f"{registry.retire(names[0]).label} is retired.")
        return 0
    if of_task and "module" not in given:
        raise ConfigError(f"'{of_task[0]}' says what data a module= is tried on, and there is none. Leave it out.")
    shown, fields = _of_run(given) if "run" in given else _of_files(given, config_dir)
    if fields.get("module") is not None and fields.get("architecture") is None:
        more = [f"allowed_packages={given['allowed_packages']}"] if "allowed_packages" in given else []
        fields["features"] = _tried(fields, [*more, *of_task], config_dir) or fields.get("features")
        shown += ", tried on real rows" if fields["features"] else ""
    entry = registry.add(names[0], note=given.get("note", ""), **fields)
    say(f"{entry.label} is registered in {registry.folder} for task {entry.task}: {shown}.")
    return 0


def _list(registry: Registry) -> int:
    entries, damaged = registry.read()
    rows = [("name", "task", "added", "retired", "what", "note")]
    rows += [
        (e.label, e.task, e.added[:19], (e.retired or "")[:19], e.module or "architecture", e.note) for e in entries
    ]
    # A registry may come from others: nothing in it may break the lines of the table.
    cells = [[short(safe(cell).replace("\n", " "), 100) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(rows[0]))]
    for row in cells:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for damage in damaged:
        say(f"Warning: {short(damage.reason, 400)}", sys.stderr)
    return 0


def _of_run(given: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    """A candidate of a run folder with what belongs to it: in words, and what is to be registered."""
    from rankitect.study.files import inside
    from rankitect.study.summary import candidate_of, read_summary

    for name in sorted(set(given) - _BESIDE_RUN):
        raise ConfigError(f"{name}= beside run=: the run says what its candidate is. Leave one of them out.")
    run = Path(given["run"])
    summary = read_summary(run)
    chosen = candidate_of(summary.pareto, given.get("candidate", "1"), run)
    short = chosen.fingerprint[:8]
    place = inside(run, f"candidates/{chosen.rank:02d}-{short}")
    _refuse_settings(place, f"candidate {chosen.rank} ({short}) of {run}")
    fields: dict[str, Any] = {"architecture": chosen.architecture, "task": summary.task}
    space, features = (inside(place, name) for name in ("space.json", "features.json"))
    if space.is_file():
        fields["space"] = space
    if features.is_file():
        fields["features"] = _json(features)
    return f"candidate {chosen.rank} ({short}) of {run}", fields


def _refuse_settings(candidate: Path, shown: str) -> None:
    """Refuse a candidate whose architecture is settings of a training, and not the model that was trained.

    A search trains baselines as it trains its candidates: the settings would be lost, and another model compared with.

    Raises:
        ConfigError: It is one.
    """
    if (candidate / "model.json").is_file():
        raise ConfigError(
            f"{shown} is no architecture but settings of a training, which a search cannot give to one baseline alone. "
            "Register the trained model: module=<a function that builds it> "
            f"weights={candidate / 'weights.safetensors'}."
        )


def _of_files(given: Mapping[str, str], config_dir: str | None) -> tuple[str, dict[str, Any]]:
    """A model that no run holds: in words, and what is to be registered."""
    from rankitect.production.registry import check_weights

    if "candidate" in given:
        raise ConfigError("candidate= needs run=: the run folder whose candidate it is.")
    if "task" not in given:
        raise ConfigError("task= is missing: the name of the task that the baseline is for (a run says it: run=).")
    tasks, spaces = (_configured(group, config_dir) for group in ("task", "space"))
    if given["task"] not in tasks:
        raise ConfigError(
            f"There is no task '{given['task']}': {', '.join(tasks)}. For one of your own give --config-dir=FOLDER, as "
            "the search has it."
        )
    fields: dict[str, Any] = {"task": given["task"], "module": given.get("module")}
    for key in ("space", "weights"):
        if key in given:
            fields[key] = _there(Path(given[key]))
    if "features" in given:
        fields["features"] = _features(Path(given["features"]))
    if "weights" in fields:
        check_weights(fields["weights"], fields["module"])
    shown = f"module {fields['module']}"
    if "architecture" in given:
        path = Path(given["architecture"])
        _refuse_settings(path.parent, f"architecture={path}")
        fields["architecture"] = _architecture(path, fields.get("space"), spaces)
        shown = f"the architecture of {path}"
    return shown, fields


def _tried(fields: Mapping[str, Any], of_task: Sequence[str], config_dir: str | None) -> dict[str, Any] | None:
    """The features that a module was made for, once it has run on real data; None for a task without such models.

    Raises:
        BaselineError: It does not run.
        ConfigError: The task's data are not given.
    """
    from rankitect.config import resolve
    from rankitect.config.parts import make_task
    from rankitect.contracts import offers
    from rankitect.contracts.hooks import TriesModules

    target = str(fields["module"])
    option = _configured("task", config_dir).get(fields["task"], fields["task"])
    resolved = resolve([f"task={option}", *of_task], Path(config_dir) if config_dir else None)
    if not offers(resolved.plugins["task"].target, TriesModules):
        return None
    task = make_task(resolved, Path(), lambda text: say(text, sys.stderr))
    assert offers(task, TriesModules)
    # Whoever names a module on the command line trusts its package, as with sections of reports.
    return dict(task.try_module(target, fields.get("weights"), [target.partition(".")[0]]))


def _configured(group: str, config_dir: str | None) -> dict[str, str]:
    """Names of the tasks or spaces that a search can be configured with, and the options that choose them.

    A file that cannot be read has the name of its option: whoever chooses it is told what is wrong with it.
    """
    from rankitect.config.compose import configs_folder, groups
    from rankitect.documents import as_kind, read_yaml

    names: dict[str, str] = {}
    for option, path in groups([configs_folder(), *([Path(config_dir)] if config_dir else [])])[group].items():
        name = option
        with contextlib.suppress(ConfigError):
            part = read_yaml(path, dict[str, Any])
            name = str(as_kind(part.get(group, part), dict[str, Any], path).get("name", option))
        names.setdefault(name, option)
    return names


def _architecture(path: Path, space: Path | None, known: Collection[str]) -> dict[str, Any]:
    """The architecture in a file, of a space that is known or given."""
    from rankitect.documents import read_text
    from rankitect.errors import SpaceError
    from rankitect.graph import Architecture

    try:
        architecture = Architecture.from_json(read_text(_there(path)))
    except SpaceError as error:
        raise ConfigError(
            f"architecture={path}: {str(error).rstrip('.')}. A candidate's folder has such an architecture.json."
        ) from error
    if space is None and architecture.space not in known:
        raise ConfigError(
            f"architecture={path} is of the space '{architecture.space}', none of {', '.join(known)}: give that "
            "space's file as space= (a candidate's space.json)."
        )
    about = _json(space) if space is not None else {"name": architecture.space, "version": architecture.version}
    space_of = (architecture.space, architecture.version)
    if not isinstance(about, dict) or (about.get("name"), str(about.get("version"))) != space_of:
        raise ConfigError(
            f"space={space} is not the space '{architecture.space}', version {architecture.version}, of {path}."
        )
    return architecture.to_data()


def _features(path: Path) -> dict[str, Any]:
    from rankitect.data.ranking.features import Features
    from rankitect.errors import DataError

    try:
        return Features.from_json(_json(path)).to_json()
    except (DataError, ValueError) as error:
        raise ConfigError(f"features={path} describes no features: give a candidate's features.json.") from error


def _json(path: Path) -> Any:
    from rankitect.documents import read_json

    return read_json(_there(path), error=RunFolderError)


def _there(path: Path) -> Path:
    if not path.is_file():
        raise RunFolderError(f"There is no file {path}.")
    return path


if __name__ == "__main__":
    sys.exit(ended(main))
