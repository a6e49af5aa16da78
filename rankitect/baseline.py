"""The command `python -m rankitect.baseline`: the production models that searches compare with.

    python -m rankitect.baseline add dlrm run=runs/my-run candidate=2 note="live since May"
    python -m rankitect.baseline add legacy task=criteo module=my_models.legacy weights=legacy.safetensors
    python -m rankitect.baseline list
    python -m rankitect.baseline retire legacy

A search that runs takes a change up before its next trial; its report compares with the newest.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rankitect.errors import ConfigError, RankitectError, RunFolderError

__all__ = ["main"]

_KEYS = {
    "run": "run folder whose candidate goes live",
    "candidate": "its rank on the front, 1 by default",
    "task": "name of the task, where no run says it",
    "architecture": "file with an architecture (architecture.json)",
    "space": "file with the architecture's space (space.json), where it is not the searched one",
    "features": "file with a ranker's features (features.json)",
    "module": "dotted path of a function (features) -> torch module",
    "weights": "safetensors file with the module's weights; without, it is trained like candidates",
    "note": "for people",
    "registry": "the registry's folder, baselines by default",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Add, list or retire production models.

    Args:
        arguments: The command line without the program's name; the process's own when None.

    Returns:
        The exit code: 0, or 2 where something is wrong with what was asked.
    """
    keys = "\n".join(f"  {name}=…  {text}" for name, text in _KEYS.items())
    parser = argparse.ArgumentParser(
        prog="python -m rankitect.baseline",
        description="Add, list or retire the production models that searches compare with.",
        epilog=f"keys:\n{keys}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", choices=("add", "list", "retire"))
    parser.add_argument("words", nargs="*", metavar="NAME key=value", help="a name, and keys (see below)")
    options = parser.parse_intermixed_args(arguments)
    try:
        names, given = _split(options.words)
        return _act(options.action, names, given)
    except RankitectError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"Error: the registry cannot be written: {error}.", file=sys.stderr)
        return 2


def _split(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    names, given = [], {}
    for word in words:
        name, separator, value = word.partition("=")
        if not separator:
            names.append(word)
        elif name in _KEYS and value:
            given[name] = value
        else:
            raise ConfigError(f"'{word}' is none of {', '.join(f'{key}=…' for key in _KEYS)}.")
    return names, given


def _act(action: str, names: Sequence[str], given: Mapping[str, str]) -> int:
    from rankitect.production.registry import Registry

    registry = Registry(Path(given.get("registry", "baselines")))
    if action == "list":
        rows = [("name", "task", "added", "retired", "what", "note")]
        rows += [
            (e.label, e.task, e.added[:19], (e.retired or "")[:19], e.module or "architecture", e.note)
            for e in registry.entries()
        ]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        for row in rows:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        return 0
    if len(names) != 1:
        raise ConfigError(f"Give one name: python -m rankitect.baseline {action} NAME …")
    if action == "retire":
        print(f"{registry.retire(names[0]).label} is retired.")
        return 0
    entry = registry.add(names[0], **_what(given))
    print(f"{entry.label} is registered in {registry.folder} for task {entry.task}.")
    return 0


def _what(given: Mapping[str, str]) -> dict[str, Any]:
    """What is to be registered."""
    found: dict[str, Any] = {
        "note": given.get("note", ""),
        "task": given.get("task", ""),
        "module": given.get("module"),
    }
    if "run" in given:
        found |= _of_run(Path(given["run"]), given.get("candidate", "1"))
    for key in ("architecture", "features"):
        if key in given:
            found[key] = _json(Path(given[key]))
    for key in ("space", "weights"):
        if key in given:
            found[key] = _there(Path(given[key]))
    if not found["task"]:
        raise ConfigError("task= is missing: the name of the task that the baseline is for (a run says it: run=).")
    return found


def _of_run(run: Path, rank: str) -> dict[str, Any]:
    """A candidate of a run folder, with what belongs to it."""
    summary = _json(run / "summary.json")
    chosen = [c for c in summary["pareto"] if rank == str(c["rank"]) or c["fingerprint"].startswith(rank)]
    if not chosen:
        known = ", ".join(str(c["rank"]) for c in summary["pareto"]) or "none"
        raise ConfigError(f"{run} has no candidate {rank} on its front: {known}.")
    place = run / "candidates" / f"{chosen[0]['rank']:02d}-{chosen[0]['fingerprint'][:8]}"
    found: dict[str, Any] = {"architecture": chosen[0]["architecture"], "task": summary["task"]}
    if (place / "space.json").is_file():
        found["space"] = place / "space.json"
    if (place / "features.json").is_file():
        found["features"] = _json(place / "features.json")
    return found


def _json(path: Path) -> Any:
    try:
        return json.loads(_there(path).read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise RunFolderError(f"{path} is damaged ({error}).") from error


def _there(path: Path) -> Path:
    if not path.is_file():
        raise RunFolderError(f"There is no file {path}.")
    return path


if __name__ == "__main__":
    sys.exit(main())
