"""Features of an architecture: one-hot columns for categories, numbers for ordinals, bits for subsets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from rankitect.graph.space import SearchSpace
    from rankitect.space.architecture import Architecture
    from rankitect.space.choices import Choice

__all__ = ["feature_names", "features"]


def _columns(choice: Choice) -> list[str]:
    if choice.kind == "subset":
        members = max((m for v in choice.values if isinstance(v, tuple) for m in v), default=-1) + 1
        # A subset that is empty and one that has no effect are two things.
        return [f"{choice.path}:{m}" for m in range(members)] + ([f"{choice.path}:none"] if () in choice.index else [])
    if choice.kind == "ordinal":
        return [choice.path]
    return [f"{choice.path}={v}" for v in choice.values]


def feature_names(space: SearchSpace) -> list[str]:
    """Names of the columns of `features`."""
    return [name for c in space.choices.values() for name in _columns(c)]


def features(space: SearchSpace, architectures: Iterable[Architecture]) -> np.ndarray:
    """Encode architectures as float64 [n, columns]; ordinals are scaled to 0..1, what has no effect is -1 or 0."""
    rows = []
    for a in architectures:
        row: list[float] = []
        for path, choice in space.choices.items():
            value = a.choices.get(path)
            if choice.kind == "subset":
                members = value if isinstance(value, tuple) else ()
                bits = len(_columns(choice)) - (() in choice.index)
                row += [float(m in members) for m in range(bits)] + [float(value == ())] * (() in choice.index)
            elif choice.kind == "ordinal":
                numbers = [float(v) for v in choice.values]  # type: ignore[arg-type]
                low, high = min(numbers), max(numbers)
                row.append(-1.0 if value is None else (float(value) - low) / max(high - low, 1.0))  # type: ignore[arg-type]
            else:
                row += [float(value == v) for v in choice.values]
        rows.append(row)
    return np.asarray(rows, dtype=np.float64).reshape(len(rows), -1)
