"""Folders of a cache that hold large files: a manifest, written last, says what is there and what it must be.

What reads an entry maps its files into memory, so that only their sizes are looked at; `damaged` compares the hashes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rankitect.data.files import file_sha256, write_atomically
from rankitect.documents import read_json
from rankitect.errors import DataError

__all__ = ["complete", "damaged", "forget", "hash_kept", "manifest_of", "write_manifest"]

_MANIFEST = "manifest.json"


def write_manifest(folder: Path, files: Sequence[Path], hashes: Sequence[str], about: dict[str, Any]) -> None:
    """Write the manifest of an entry, with which it is complete.

    Args:
        folder: The entry.
        files: Its files.
        hashes: Their SHA-256, as `hash_kept` gives them.
        about: What else belongs into the manifest, as plain data.
    """
    known = {
        file.name: {"bytes": file.stat().st_size, "sha256": digest} for file, digest in zip(files, hashes, strict=True)
    }
    text = json.dumps({**about, "files": known}, indent=1)
    write_atomically(folder / _MANIFEST, lambda part: part.write_text(text, encoding="utf-8"))


def hash_kept(file: Path) -> str:
    """The SHA-256 of a file that is then on the disk."""
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())
    return file_sha256(file)


def manifest_of(folder: Path) -> dict[str, Any]:
    """The manifest of an entry.

    Raises:
        DataError: There is none, or it is damaged.
    """
    return read_json(folder / _MANIFEST, dict[str, Any], DataError)


def complete(folder: Path) -> bool:
    """True if the manifest is there, and every file with its size."""
    try:
        files = manifest_of(folder)["files"]
        return all((folder / name).stat().st_size == known["bytes"] for name, known in files.items())
    except (OSError, ValueError, KeyError):
        return False


def forget(folder: Path) -> None:
    """Delete the manifest of an entry that is to be made anew."""
    (folder / _MANIFEST).unlink(missing_ok=True)


def damaged(folder: Path) -> list[Path]:
    """Files of an entry that are not what its manifest says; reads all of them."""
    files = manifest_of(folder)["files"]
    return [folder / name for name, known in files.items() if file_sha256(folder / name) != known["sha256"]]
