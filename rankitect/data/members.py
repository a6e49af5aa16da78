"""The files of a folder that came from somebody else: where they are, and what is there instead.

A folder of a model may be a copy of anybody's. What its files name, and where its links point to, must lie inside of
it; a link out of it would read a file that the user never named. The one exception is the cache of `huggingface_hub`,
whose folders consist of links to the `blobs` beside them.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from rankitect.errors import AssetError, shown

__all__ = ["listing", "member", "place_of"]

_LONGEST_NAME = 255
"""Bytes of a file's name on the file systems in use."""


def member(folder: Path, name: str) -> Path | None:
    """A file of a folder, by its name; None if there is nothing of this name.

    Args:
        folder: The folder, which may itself be a link.
        name: A plain name.

    Raises:
        AssetError: The name is not plain (it leads to another folder), or what has it is not a regular file, or a link
            that leads nowhere or out of the folder.
    """
    if not name or Path(name).name != name or not name.isprintable() or len(name.encode()) > _LONGEST_NAME:
        raise AssetError(f"{folder}: {shown(name)} is not the name of a file in this folder.")
    path = folder / name
    try:
        if not path.is_symlink() and not path.exists():
            return None
        target = path.resolve(strict=True)
    except (FileNotFoundError, RuntimeError) as error:  # the latter for a loop of links
        raise AssetError(f"{path} is a link that leads nowhere.") from error
    except OSError as error:
        raise AssetError(f"{path} cannot be opened ({error.strerror or error}).") from error
    root = Path(os.path.realpath(folder))
    in_cache = any(
        inner.parent.name == "snapshots" and target.parent == inner.parent.parent / "blobs"
        for inner in (root, *root.parents)
    )
    if not target.is_relative_to(root) and not in_cache:
        raise AssetError(
            f"{path} is a link out of its folder, to {shown(str(target))}, and is not followed. "
            "Copy the file into the folder, or give the folder that it lies in."
        )
    if not target.is_file():
        raise AssetError(f"{path} is not a file.")
    return path


def place_of(folder: Path, name: str) -> Path:
    """Where a file of a folder or of a folder in it lies, or would lie, if there is none.

    Args:
        folder: The folder, which may itself be a link.
        name: Plain names, with slashes between them.

    Raises:
        AssetError: As of `member`, or a folder on the way is a link out of the folder.
    """
    *above, last = PurePosixPath(name).parts or ("",)
    parent = folder.joinpath(*above)
    if above and not Path(os.path.realpath(parent)).is_relative_to(os.path.realpath(folder)):
        raise AssetError(f"{shown(str(parent))} is a link out of its folder, and is not followed.")
    return member(parent, last) or parent / last


def listing(folder: Path, most: int = 5) -> str:
    """What a folder holds, for a message about what it lacks."""
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        return f"It cannot be read ({error.strerror or error})."
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"It holds {', '.join(shown(name, 40) for name in names[:most])}{more}." if names else "It is empty."
