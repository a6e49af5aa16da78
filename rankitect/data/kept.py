"""What is kept to save time, with a checksum: nobody would notice a wrong bit in it.

Numbers of a cache go into a search as if they had just been computed. So each file says what was written, and one that
was cut, changed on the disk, or put there by something else is as good as none: what it held is computed again.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankitect.data.files import write_atomically, write_whole
from rankitect.data.tensors import described, opened_tensors
from rankitect.documents import read_json
from rankitect.errors import AssetError, safe

__all__ = ["keep_arrays", "keep_record", "kept_arrays", "kept_record", "read_sealed", "write_sealed"]

_SEAL = "sha256"


def write_sealed(path: Path, arrays: Mapping[str, NDArray[Any]], about: Mapping[str, Any]) -> None:
    """Write arrays as safetensors, with a description and a checksum of both; the whole file or none.

    Args:
        path: The file; its folder must exist.
        arrays: The arrays by name.
        about: The description, as plain data.

    Raises:
        OSError: The disk is full or cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    whole = {name: np.ascontiguousarray(values) for name, values in arrays.items()}
    header = {"about": json.dumps(about, sort_keys=True), _SEAL: _seal_of(whole, about)}
    try:
        write_atomically(path, lambda part: save_file(whole, part, header))
    except SafetensorError as error:  # how it says that the disk is full
        raise OSError(str(error)) from error


def read_sealed(path: Path, refused: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The arrays and the description that `write_sealed` wrote.

    Args:
        path: The file.
        refused: The beginning of the sentence that refuses it; the reason follows in brackets.

    Raises:
        AssetError: It is not there, is damaged, or holds anything else than what was written.
    """
    with opened_tensors(path, "numpy", refused) as file:
        about = described(file, "about")
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        if file.metadata().get(_SEAL) != _seal_of(arrays, about):
            raise ValueError("its checksum is not that of its content")
    return arrays, about


def keep_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], about: Mapping[str, Any]) -> None:
    """As `write_sealed`, for a place in a cache; what cannot be kept costs time, not the run."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_sealed(path, arrays, {"place": _place(path), "about": about})
    except OSError as error:
        _not_kept(path, error)


def kept_arrays(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]] | None:
    """The arrays and the description that `keep_arrays` wrote at this place; None where they are not there whole."""
    try:
        arrays, content = read_sealed(path, "It cannot be used")
    except AssetError:
        return None
    return (arrays, content["about"]) if content.get("place") == _place(path) else None


def keep_record(path: Path, record: Mapping[str, Any]) -> None:
    """Keep plain data as JSON with their checksum; what cannot be kept costs time, not the run."""
    content = {"place": _place(path), "about": record}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps({**content, _SEAL: _seal_of({}, content)}))
    except OSError as error:
        _not_kept(path, error)


def kept_record(path: Path) -> dict[str, Any] | None:
    """The data that `keep_record` wrote at this place; None where they are not there whole."""
    try:
        content = read_json(path, dict[str, Any], AssetError)
    except AssetError:
        return None
    seal = content.pop(_SEAL, None)
    whole = seal == _seal_of({}, content) and content.get("place") == _place(path)
    return content["about"] if whole else None


def _place(path: Path) -> str:
    """A file and its folder: another one that a link leads to is not taken for it."""
    return "/".join(path.parts[-2:])


def _seal_of(arrays: Mapping[str, NDArray[Any]], about: Mapping[str, Any]) -> str:
    """SHA-256 over the description and the names, types, shapes and bytes of arrays."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, values in sorted(arrays.items()):
        digest.update(f"\n{name} {values.dtype.str} {list(values.shape)}\n".encode())
        digest.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _not_kept(path: Path, error: OSError) -> None:
    logging.getLogger(__name__).warning("%s is not kept: %s", safe(str(path)), safe(error.strerror or str(error)))
