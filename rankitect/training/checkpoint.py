"""Training state in one safetensors file: tensors, and the rest as JSON in its header. Written beside, then renamed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from rankitect.data.files import write_atomically
from rankitect.data.guard import guarded
from rankitect.errors import TrainingError

__all__ = ["load_state", "save_state"]

_KEY = "rankitect"


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
    plain = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, lambda part: save_file(plain, part, {_KEY: json.dumps(info)}))


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads what `save_state` wrote.

    Raises:
        TrainingError: when the file is damaged or of another kind.
    """
    from safetensors import safe_open

    with (
        guarded(f"{path} is not a training state of Rankitect, or is damaged: delete it", TrainingError),
        safe_open(path, framework="pt") as file,
    ):
        info = json.loads((file.metadata() or {})[_KEY])
        return {name: file.get_tensor(name) for name in file.keys()}, info  # noqa: SIM118
