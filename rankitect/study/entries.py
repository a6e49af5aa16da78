"""What a run folder may hold: plain files and folders, and links only among them.

A run folder may come from somebody else. Whoever reads or writes in it must not be led out of it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from rankitect.data.files import what_kind
from rankitect.errors import RunFolderError, brief
from rankitect.study.files import is_within

__all__ = ["IN_PLACE", "refuse_strange"]

IN_PLACE = ("study.lock", "log.txt", "study.db", "study.db-wal", "study.db-shm", "study.db-journal")
"""Files that are written in place, not replaced: another name of one, elsewhere, would be written as well."""
_REPLACED = (
    "config.yaml", "config.previous.yaml", "summary.json", "trials.csv", "examples.json", "answers.json",
    "contrasts.json",
)  # fmt: skip
_FOLDERS = ("candidates", "compared", "model", "report", "state", "tensorboard", "trials")


def refuse_strange(folder: Path) -> None:
    """Refuse a run folder with links that lead out of it or nowhere, with pipes, sockets and devices, and one with a
    folder where a file belongs, or the other way round.

    Args:
        folder: The run folder, which may itself be reached by a link.

    Raises:
        RunFolderError: Names the first such entry, and what to do.
    """
    for entry in _entries(folder):
        if problem := _problem(entry, folder):
            name = Path(entry.path).relative_to(folder)
            raise RunFolderError(
                f"{brief(folder)} holds {brief(name, 100)}, which {problem}. Nothing in it was read or written. If you "
                "know where it comes from, put a copy of what it means in its place."
            )


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Everything below a folder; links are not followed, and what vanishes meanwhile is left out."""
    waiting = [str(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as inner:
                entries = sorted(inner, key=lambda entry: entry.name)
        except FileNotFoundError:
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
            yield entry


def _problem(entry: os.DirEntry[str], folder: Path) -> str:
    """What is wrong with an entry; empty where nothing is."""
    top = Path(entry.path).parent == folder
    if entry.is_symlink():
        in_place = top and entry.name in IN_PLACE
        return "is a symbolic link" if in_place or not is_within(Path(entry.path), folder) else ""
    if top and entry.name in (*IN_PLACE, *_REPLACED) and entry.is_dir(follow_symlinks=False):
        return "is a folder, and must be a file"
    if top and entry.name in _FOLDERS and entry.is_file(follow_symlinks=False):
        return "is a file, and must be a folder"
    if entry.is_file(follow_symlinks=False) and entry.name not in IN_PLACE:
        return ""
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return ""
    if kind := what_kind(status):
        return f"is {kind}"
    own = stat.S_ISDIR(status.st_mode) or not top or status.st_nlink == 1
    return "" if own else "has another name elsewhere (it is a hard link)"
