"""Calibration statistics on disk: safetensors, written atomically."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from rankitect.data.files import write_atomically
from rankitect.documents import parse_json
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
    if not path.exists():
        return None
    statistics = Statistics()
    try:
        with safe_open(path, framework="pt") as file:
            about = parse_json((file.metadata() or {})["about"], dict[str, Any])
            statistics.influence, statistics.tokens = about["influence"], about["tokens"]
            for key in file.keys():  # noqa: SIM118 - no mapping
                if key == "residual":
                    statistics.residual = file.get_tensor(key)
                    continue
                name, owner, weight = key.split("|")
                if name not in FIELDS:
                    return None
                getattr(statistics, name)[owner, weight] = file.get_tensor(key)
    except (SafetensorError, OSError, LookupError, TypeError, ValueError):
        return None
    return statistics
