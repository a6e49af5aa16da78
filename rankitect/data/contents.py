"""The hash of what files hold, by which what was made from them is found again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from rankitect.data.files import file_sha256, write_whole
from rankitect.data.storage import DataFile, StoredFile, modified_ns, size_of
from rankitect.documents import read_json

__all__ = ["content_hash"]


def content_hash(files: Sequence[DataFile], memory: Path, most: int | None = None) -> str:
    """SHA-256 over the files' names and contents. A file is read again only when its size or time has changed.

    A file of an object store counts by its path, size and time: to hash it would be to fetch all of it.

    Args:
        files: The files, in their order.
        memory: A folder where the hashes are kept.
        most: Bytes of all files beyond which they count by name, size and time; None where all are to be read anyway.
    """
    total = hashlib.sha256()
    hashed = most is None or sum(map(size_of, files)) <= most
    for file in files:
        known: dict[str, object] = {"size": size_of(file), "time": modified_ns(file)}
        if isinstance(file, StoredFile) or not hashed:
            name = str(file) if isinstance(file, StoredFile) else file.name
            total.update(f"{name}\n{json.dumps(known)}\n".encode())
            continue
        path = os.path.realpath(file)
        known["path"] = path
        note = memory / f"{hashlib.sha256(path.encode()).hexdigest()[:24]}.json"
        noted: dict[str, object] = {}
        if note.is_file():
            try:
                noted = read_json(note, dict[str, object])
            except ValueError:
                noted = {}
        digest = noted.pop("sha256", None)
        if noted != known or not isinstance(digest, str):
            digest = file_sha256(file)
            memory.mkdir(parents=True, exist_ok=True)
            write_whole(note, json.dumps({**known, "sha256": digest}))
        total.update(f"{file.name}\n{digest}\n".encode())
    return total.hexdigest()
