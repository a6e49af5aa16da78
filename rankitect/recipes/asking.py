"""What a model is asked between the stages of a recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from rankitect.contracts import JSON, Spent

if TYPE_CHECKING:
    from torch import nn

    from rankitect.contracts.stage import StageMeasure
    from rankitect.recipes.pair import Pair
    from rankitect.recipes.recipe import StageResult

__all__ = ["Asked", "answer_of", "spent_on"]


class Asked:
    """Asks models, each once.

    Args:
        measure: The question; None: there is none.
        progress: Called with (done, total, note).

    Attributes:
        spent: What asking has cost by now.
    """

    def __init__(self, measure: StageMeasure | None, progress: Callable[[int, int, str], None]) -> None:
        self._measure, self._progress = measure, progress
        self.spent = Spent()

    def lacks(self, result: StageResult) -> bool:
        """Whether the model that a stage gave is yet to be asked."""
        return self._measure is not None and self._measure.key not in result.after

    def once(self, known: Mapping[str, JSON], stage: str, model: nn.Module, pair: Pair) -> Mapping[str, JSON]:
        """The answers of a model by key, those that are known and the one to the question.

        Args:
            known: Answers of this model.
            stage: After which it is asked; "" before all.
            model: The model.
            pair: What it is of.
        """
        measure = self._measure
        if measure is None or pair.space is None or measure.key in known:
            return known
        self._progress(0, 1, f"measuring after {stage}" if stage else "measuring before the first stage")
        answer, spent = measure.of(model, pair.space, pair.architecture)
        self.spent += spent
        return {**known, measure.key: {"answer": answer, "spent": spent.to_dict()}}


def answer_of(stored: JSON) -> JSON:
    """The answer in what `Asked.once` gives for a key; None where there is none."""
    return stored.get("answer") if isinstance(stored, Mapping) else None


def spent_on(stored: JSON) -> Spent:
    """What that answer has cost, whenever it was asked for."""
    spent = stored.get("spent") if isinstance(stored, Mapping) else None
    return Spent.from_dict(spent) if isinstance(spent, Mapping) else Spent()
