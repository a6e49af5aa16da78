"""Training state in one safetensors file: tensors, and the rest as JSON in its header. Written beside, then renamed."""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rankitect.data.files import write_atomically
from rankitect.data.tensors import described, opened_tensors
from rankitect.errors import TrainingError, brief

__all__ = ["drop_damaged", "load_state", "save_state"]

_KEY, _CHECKSUM = "rankitect", "checksum"
_WITHOUT_CHECKSUM = ({_KEY}, {"state"})
"""What the header of earlier versions held: the JSON data alone, under one of two names."""
_SUFFIX = ".safetensors"
_log = logging.getLogger(__name__)


def save_state(path: Path, tensors: Mapping[str, Tensor], info: Mapping[str, Any]) -> None:
    """Writes tensors and JSON data atomically: after a crash, the old file or the new one is there, whole.

    Args:
        path: the file; its folder is made.
        tensors: by name; two names may not share memory.
        info: anything that JSON can hold.

    Raises:
        OSError: when the disk is full or may not be written; the old file is kept.
    """
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(info)
    about = {_KEY: text, _CHECKSUM: _checksum(plain, text)}
    write_atomically(path, lambda part: save_file(plain, part, about))


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads what `save_state` wrote, or what it wrote in earlier versions, without a checksum.

    Raises:
        TrainingError: when the file is damaged or of another kind.
    """
    wrong = (
        f"{brief(path)} is not a training state of Rankitect, or is damaged: delete it, or go on with resume=force, "
        "which does again what it was to save"
    )
    with opened_tensors(path, "pt", wrong, TrainingError) as file:
        about = file.metadata() or {}
        earlier = set(about) in _WITHOUT_CHECKSUM
        key = next(iter(about)) if earlier else _KEY
        info = described(file, key, finite=False)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        if not (earlier or about[_CHECKSUM] == _checksum(tensors, about[key])):
            raise ValueError("it is not what was written")
        return tensors, info


def _checksum(tensors: Mapping[str, Tensor], text: str) -> str:
    """CRC-32 over names, types, shapes and bytes: any byte that changed is noticed, in a few seconds for gigabytes."""
    total = zlib.crc32(text.encode())
    for name, tensor in sorted(tensors.items()):
        total = zlib.crc32(f"{name} {tensor.dtype} {list(tensor.shape)}".encode(), total)
        total = zlib.crc32(tensor.flatten().view(torch.uint8).numpy().data, total)
    return f"{total:08x}"


def drop_damaged(folder: Path, say: Callable[[str], object]) -> None:
    """Deletes the states in a folder if one of them is damaged, since they belong together.

    Args:
        folder: `state` of a run folder.
        say: told in a sentence, if so.
    """
    files = [path for path in sorted(folder.iterdir()) if path.is_file()] if folder.is_dir() else []
    for path in files:
        if _SUFFIX in path.suffixes and _damaged(path):
            for each in files:
                each.unlink()
            _log.warning("The saved state %s is damaged and was deleted.", path.name)
            say(f"The saved state {path.name} is damaged: what it was to save is done again.")
            return


def _damaged(path: Path) -> bool:
    try:
        load_state(path)
    except TrainingError:
        return True
    return False
