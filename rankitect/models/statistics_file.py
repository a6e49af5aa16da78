"""Calibration statistics on disk: safetensors with a checksum."""

from __future__ import annotations

from pathlib import Path

import torch

from rankitect.data.kept import keep_arrays, kept_arrays
from rankitect.models.importance import Statistics

__all__ = ["load_statistics", "save_statistics"]

FIELDS = ("gram", "fisher", "taylor", "slopes")


def save_statistics(path: Path, statistics: Statistics) -> None:
    """Write statistics; where they cannot be written, they are gathered again the next time."""
    arrays = {"residual": statistics.residual.numpy()}
    for name in FIELDS:
        for (owner, weight), tensor in getattr(statistics, name).items():
            arrays[f"{name}|{owner}|{weight}"] = tensor.numpy()
    keep_arrays(path, arrays, {"influence": statistics.influence, "tokens": statistics.tokens})


def load_statistics(path: Path) -> Statistics | None:
    """Read statistics; None where there are none, or they are not what was written."""
    kept, statistics = kept_arrays(path), Statistics()
    if kept is None:
        return None
    arrays, about = kept
    try:
        statistics.influence, statistics.tokens = about["influence"], about["tokens"]
        statistics.residual = torch.from_numpy(arrays.pop("residual"))
        for key, values in arrays.items():
            name, owner, weight = key.split("|")
            if name not in FIELDS:
                return None
            getattr(statistics, name)[owner, weight] = torch.from_numpy(values)
    except (KeyError, ValueError):  # of another version
        return None
    return statistics
