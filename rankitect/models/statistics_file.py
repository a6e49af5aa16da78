"""Calibration statistics on disk: safetensors, written atomically."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save_file

from rankitect.data.files import write_atomically
from rankitect.data.tensors import described, opened_tensors
from rankitect.errors import AssetError
from rankitect.models.importance import Statistics

__all__ = ["load_statistics", "save_statistics"]

FIELDS = ("gram", "fisher", "taylor", "slopes")


def save_statistics(path: Path, statistics: Statistics) -> None:
    """Write statistics."""
    tensors = {"residual": statistics.residual.contiguous()}
    for name in FIELDS:
        for (owner, weight), tensor in getattr(statistics, name).items():
            tensors[f"{name}|{owner}|{weight}"] = tensor.contiguous()
    about = {"influence": statistics.influence, "tokens": statistics.tokens}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda part: save_file(tensors, part, metadata={"about": json.dumps(about)}))


def load_statistics(path: Path) -> Statistics | None:
    """Read statistics; None where there are none, or a crash cut them short."""
    statistics = Statistics()
    try:
        with opened_tensors(path, "pt", "These are no statistics") as file:
            about = described(file, "about")
            statistics.influence, statistics.tokens = about["influence"], about["tokens"]
            for key in file.keys():  # noqa: SIM118 - no mapping
                if key == "residual":
                    statistics.residual = file.get_tensor(key)
                    continue
                name, owner, weight = key.split("|")
                if name not in FIELDS:
                    return None
                getattr(statistics, name)[owner, weight] = file.get_tensor(key)
    except AssetError:
        return None
    return statistics
