"""Features of an architecture: one-hot columns for categories, numbers for what is ordered, bits for subsets, and
shares for mixtures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from rankitect.space.architecture import Architecture
from rankitect.space.choices import Choice, ChoiceValue
from rankitect.space.simplex import Simplex

__all__ = ["feature_names", "features"]


def _columns(choice: Choice) -> list[str]:
    if isinstance(choice, Simplex):
        return [f"{choice.path}:{member}" for member in choice.members]
    if choice.kind == "subset":
        members = max((m for v in choice.values if isinstance(v, tuple) for m in v), default=-1) + 1
        # A subset that is empty and one that has no effect are two things.
        return [f"{choice.path}:{m}" for m in range(members)] + ([f"{choice.path}:none"] if () in choice.index else [])
    if choice.ordered:
        return [choice.path]
    return [f"{choice.path}={v}" for v in choice.values]


def feature_names(choices: Mapping[str, Choice]) -> list[str]:
    """Names of the columns of `features`."""
    return [name for c in choices.values() for name in _columns(c)]


def _row(choice: Choice, value: ChoiceValue | None, width: int) -> list[float]:
    """One choice's part of a row; `width` is that of its columns."""
    if isinstance(choice, Simplex):
        return [part / choice.total for part in value] if isinstance(value, tuple) else [0.0] * width
    if choice.kind == "subset":
        members = value if isinstance(value, tuple) else ()
        bits = width - (() in choice.index)
        return [float(m in members) for m in range(bits)] + [float(value == ())] * (() in choice.index)
    if choice.ordered:
        return [-1.0 if value is None else choice.scaled[choice.index[value]]]
    return [float(value == v) for v in choice.values]


def features(choices: Mapping[str, Choice], architectures: Iterable[Architecture]) -> np.ndarray:
    """Encode architectures as float64 [n, columns].

    Ordered values are scaled to 0..1, real ones on their own scale; parts of a simplex are shares of its total. What
    has no effect is -1 in an ordered column and 0 elsewhere.
    """
    widths = {path: len(_columns(choice)) for path, choice in choices.items()}
    rows = [
        [entry for path, choice in choices.items() for entry in _row(choice, a.choices.get(path), widths[path])]
        for a in architectures
    ]
    return np.asarray(rows, dtype=np.float64).reshape(len(rows), -1)
