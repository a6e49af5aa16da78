"""What models answered, question by question: the rows behind the difference of two accuracies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankitect.contracts import Direction
from rankitect.documents import read_json
from rankitect.errors import RunFolderError, brief
from rankitect.metrics.choices import paired_difference
from rankitect.metrics.intervals import Estimate, mean_estimate, seeded_estimate
from rankitect.production.gates import Observed

__all__ = ["ANSWERS", "AnswerTable", "load_answers"]

ANSWERS = "answers.json"


@dataclass(frozen=True, eq=False)
class AnswerTable:
    """A metric of each question, for every model that was asked.

    Attributes:
        metric: Its name; it is the mean over the questions.
        values: By fingerprint of the architecture, of each training seed and question, [S, Q].
        clusters: Number of the cluster of each question, where some are alike, [Q].
        direction: Whether less ("min") or more ("max") is better.
        of: What a question is called: "question", "image".
    """

    metric: str
    values: Mapping[str, NDArray[np.float64]]
    clusters: NDArray[np.int64] | None = None
    direction: Direction = "max"
    of: str = "question"

    @property
    def questions(self) -> int:
        """How many there are."""
        return next((values.shape[1] for values in self.values.values()), 0)

    def mean(self, fingerprint: str) -> float:
        """The metric of a model, over its seeds."""
        return float(self.values[fingerprint].mean())

    def difference(self, one: str, other: str) -> Estimate:
        """How much larger the metric is of one model than of another, in pairs.

        Args:
            one: Fingerprint.
            other: Fingerprint.

        Raises:
            KeyError: One of them was not asked.
        """
        ours, theirs = self.values[one], self.values[other]
        if all(((values >= 0) & (values <= 1)).all() for values in (ours, theirs)):
            return paired_difference(ours, theirs, self.clusters)
        over = mean_estimate(ours.mean(0) - theirs.mean(0), clusters=self.clusters)
        return seeded_estimate(over, ours.mean(1).tolist(), theirs.mean(1).tolist())

    def change(self, one: str, other: str) -> Observed | None:
        """The difference relative to the other model's value, with its interval; None where one of both was not asked,
        or that value is 0. Arguments are those of `difference`."""
        if one not in self.values or other not in self.values or not self.mean(other):
            return None
        difference, whole = self.difference(one, other), self.mean(other)
        ends = sorted(end / abs(whole) for end in difference.interval())
        return Observed(difference.value / abs(whole), ends[0], ends[1], difference.vague)


def load_answers(folder: Path) -> dict[str, AnswerTable]:
    """The answers of a run folder by metric; empty where it has none.

    Raises:
        RunFolderError: The file is damaged.
    """
    path = folder / ANSWERS
    if not path.is_file():
        return {}
    try:
        return {name: _table(name, about) for name, about in read_json(path, dict[str, Any], RunFolderError).items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunFolderError(
            f"{path} is damaged ({error}). Repeat the search's command: it writes the file again."
        ) from error


def _table(name: str, about: Mapping[str, Any]) -> AnswerTable:
    values = {str(model): np.asarray(seeds, np.float64) for model, seeds in about["models"].items()}
    clusters = np.asarray(about["clusters"], np.int64) if about.get("clusters") is not None else None
    shapes = {array.shape[1:] for array in values.values()} | ({clusters.shape} if clusters is not None else set())
    if len(shapes) != 1 or any(array.ndim != 2 or not array.size for array in values.values()):
        raise ValueError("a model has another number of questions")
    if not all(np.isfinite(array).all() for array in values.values()):
        raise ValueError("a value is not finite")
    if about["direction"] not in ("min", "max"):
        raise ValueError("neither less nor more is better")
    return AnswerTable(name, values, clusters, about["direction"], brief(about.get("of", "question"), 40))
