"""Accuracy on a user's own questions: the likeliest of several choices, or the generated answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from rankitect.contracts import MetricSpec
from rankitect.contracts.measure import Answers, Measured
from rankitect.tasks.language.questions import AnswersText, QuestionSettings

if TYPE_CHECKING:
    from torch import nn

    from rankitect.config.parts import Parts
    from rankitect.tasks.language.questions import Asked

__all__ = ["ChoiceQuestions"]


class ChoiceQuestions:
    """Accuracy on questions from JSON lines: `acc`, `acc_norm` and, where it may differ, `acc_bytes` of questions with
    choices (see `rankitect.metrics.choices`); `acc` or `exact_match` of open ones.

    Choices are scored by their likelihood, those of a question together (`rankitect.models.packed`).
    """

    Config = QuestionSettings

    def __init__(self, asked: Mapping[str, Asked], search_split: str) -> None:
        self._asked, self._search = asked, search_split

    @classmethod
    def from_config(cls, config: QuestionSettings, parts: Parts) -> ChoiceQuestions:
        """Made from its section of the configuration.

        Raises:
            ConfigError: The task has no language models.
            DataError: A question is unusable, or too long for the models.
        """
        from rankitect.tasks.language.questions import ask

        task = parts.require(AnswersText, "measure choice_questions")
        return cls(ask(config, task.checkpoint), task.search_split)

    def _on(self, split: str) -> Asked | None:
        return self._asked.get("search" if split == self._search else "test")

    def specs(self, split: str) -> Sequence[MetricSpec]:
        """The accuracies; none on the split of a search where no questions are set apart for it."""
        asked = self._on(split)
        return [MetricSpec(name, "share", "max", "quality") for name in (asked.metrics if asked is not None else ())]

    def measure(self, model: nn.Module, split: str, check: Callable[[], None]) -> Measured:
        """Ask a model."""
        from rankitect.metrics.choices import accuracy

        asked = self._on(split)
        assert asked is not None  # whoever asks has seen that there are metrics
        right, spent = asked.answered(model, check)
        metrics = {name: accuracy(values) for name, values in right.items()}
        answers = {
            name: Answers(tuple(values.astype(float).tolist()), asked.clusters) for name, values in right.items()
        }
        return Measured(metrics, answers, spent)
