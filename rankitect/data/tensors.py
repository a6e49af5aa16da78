"""Safetensors files: the one place where they are opened.

Such a file may come from elsewhere, or may have been cut short. Its header is checked by a parser in Rust, which may
panic, and its numbers may be of types and shapes that torch or numpy do not have, which each says in its own way.
Whatever is raised, the file cannot be used, and an error says so in one sentence.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rankitect.data.guard import guarded
from rankitect.documents import parse_json
from rankitect.errors import AssetError, RankitectError

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from safetensors import safe_open

__all__ = ["described", "opened_tensors", "read_arrays", "read_tensors"]


@contextlib.contextmanager
def opened_tensors(
    path: Path, framework: Literal["pt", "numpy"], refused: str, kind: type[RankitectError] = AssetError
) -> Iterator[safe_open]:
    """Open a file and take whatever fails while it is open for a fault of the file.

    Args:
        path: The file.
        framework: Whether its tensors become those of torch or arrays of numpy.
        refused: The beginning of the sentence that refuses it; the reason follows in brackets.
        kind: The error to raise.

    Raises:
        RankitectError: Of that kind: it is not there, is no plain file, is damaged, or does not hold what it must.
    """
    from safetensors import safe_open

    with guarded(refused, kind):
        if not path.is_file():  # opening a pipe would wait for a writer
            raise ValueError("it is no file" if path.exists() else "there is no such file")
        try:
            with safe_open(path, framework) as file:
                yield file
        except RankitectError as error:  # which does not name the file
            raise ValueError(str(error)) from error


def described(file: safe_open, key: str, *, finite: bool = True) -> dict[str, Any]:
    """A description as JSON that a file carries beside its tensors.

    Args:
        file: Opened.
        key: Its name among the file's metadata.
        finite: Whether infinities and NaN are refused.

    Raises:
        KeyError: There is none.
        ConfigError: It is no mapping in JSON.
    """
    return parse_json((file.metadata() or {})[key], dict[str, Any], "its description", finite=finite)


def read_tensors(path: Path, refused: str, kind: type[RankitectError] = AssetError) -> dict[str, torch.Tensor]:
    """All tensors of a file, on the processor, by name. Arguments and errors as of `opened_tensors`."""
    with opened_tensors(path, "pt", refused, kind) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping


def read_arrays(path: Path, refused: str, kind: type[RankitectError] = AssetError) -> dict[str, NDArray[Any]]:
    """All arrays of a file by name. Arguments and errors as of `opened_tensors`."""
    with opened_tensors(path, "numpy", refused, kind) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
