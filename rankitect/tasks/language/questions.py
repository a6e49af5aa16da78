"""Questions as a language model is asked them: tokenised, packed, and held against what is right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Literal, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rankitect.contracts import Spent, Task
from rankitect.contracts.task import HasBackbone
from rankitect.data.storage import problem_of_place
from rankitect.errors import DataError
from rankitect.tasks.language.text import first_token

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from rankitect.data.continuations import Continuation
    from rankitect.data.questions import Question
    from rankitect.data.tokenizer import Tokenizer
    from rankitect.models.checkpoints import DecoderCheckpoint
    from rankitect.models.packed import Forest

__all__ = ["AnswersText", "Asked", "QuestionSettings", "ask"]


class AnswersText(Task, HasBackbone, Protocol):
    """A task of language models, with a tokenizer."""


class QuestionSettings(BaseModel):
    """Which questions are asked, and how an answer is judged."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(min_length=1, description="file, folder, glob or URI of questions as JSON lines")
    limit: int | None = Field(None, ge=1, le=10**9, description="questions to read, the first; null: all")
    answer: Literal["likelihood", "generated"] = Field(
        "likelihood",
        description="likelihood: the likeliest choice, or whether each token of an open answer is the likeliest; "
        "generated: the text that the model goes on with",
    )
    delimiter: str = Field(" ", description="between a query and what continues it")
    begin: bool | None = Field(
        None, description="whether sequences begin with the first token (bos); null: as the model was trained"
    )
    search: float = Field(
        0.0, ge=0, lt=1, description="share of the questions that a search chooses by; the others are reported"
    )
    seed: int = Field(0, ge=0, lt=2**32, description="seed of that division")
    tokens: int = Field(16, ge=1, le=4096, description="of a generated answer, at most")
    stop: list[Annotated[str, Field(min_length=1)]] = Field(["\n"], description="texts that end a generated answer")
    ignore_case: bool = Field(False, description="whether generated answers are compared in lower case")

    @model_validator(mode="after")
    def _placed(self) -> Self:
        # Not beside the field, as a message shows a field's value, which may hold a password.
        if (problem := problem_of_place(self.path)) is not None:
            raise ValueError(f"path: {problem}")
        return self


def ask(settings: QuestionSettings, checkpoint: DecoderCheckpoint, key: str = "path") -> dict[str, Asked]:
    """The questions that a configuration names, by what they are for: "search", if any are, and "test".

    Args:
        settings: Which questions.
        checkpoint: The pretrained model, whose tokenizer and context count.
        key: The key that has the path, for messages.

    Raises:
        DataError: A question is unusable, or too long for the model.
        ConfigError: Sequences are to begin with a token that the tokenizer does not have.
    """
    from rankitect.data.questions import divided, read_questions

    begin = first_token(checkpoint, settings.begin)
    sides = divided(read_questions(settings.path, key, settings.limit), settings.search, settings.seed)
    asked = {}
    for name, questions in zip(("search", "test"), sides, strict=True):
        if questions:
            asked[name] = Asked(tuple(questions), settings, checkpoint.tokenizer, checkpoint.usage.stop_ids, begin)
            asked[name].check(checkpoint.config.context)
    if "test" not in asked or (settings.search and "search" not in asked):
        raise DataError(f"{key}: the questions are too few to be divided (search={settings.search:g}).")
    return asked


@dataclass(frozen=True, eq=False)
class Asked:
    """Questions for any number of models of one tokenizer.

    Attributes:
        questions: All with choices, or all open.
        settings: How they are asked.
        tokenizer: Of the models.
        stop: Tokens that end an answer.
        begin: The token that a sequence begins with, or None.
    """

    questions: tuple[Question, ...]
    settings: QuestionSettings
    tokenizer: Tokenizer
    stop: tuple[int, ...]
    begin: int | None

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the accuracies."""
        if self.settings.answer == "generated":
            return ("exact_match",)
        if not self.questions[0].choices:
            return ("acc",)
        plain = all(choice.isascii() for one in self.questions for choice in one.choices)
        return ("acc", "acc_norm") if plain else ("acc", "acc_norm", "acc_bytes")

    @cached_property
    def clusters(self) -> tuple[int, ...] | None:
        """The number of each question's query; None where no two have the same."""
        numbers: dict[str, int] = {}
        codes = tuple(numbers.setdefault(one.query, len(numbers)) for one in self.questions)
        return codes if 1 < len(numbers) < len(codes) else None

    def check(self, context: int) -> None:
        """Refuse a question that is too long.

        Args:
            context: Tokens of the longest sequence that the model was made for.

        Raises:
            DataError: Names the question.
        """
        generated = self.settings.answer == "generated"
        for question, sequences in zip(self.questions, self.sequences, strict=True):
            # The last token of a continuation is predicted only.
            longest = max(len(one.tokens) - 1 for one in sequences) + (self.settings.tokens if generated else 0)
            if min(one.start for one in sequences) < 1:
                raise DataError(f"{question.place} has an empty query: there is nothing to go on from.")
            if longest > context:
                answer = f" with the {self.settings.tokens} of an answer" if generated else ""
                raise DataError(
                    f"{question.place} has {longest:,} tokens{answer}, and the model was made for {context:,}: leave "
                    "the question out, or shorten it."
                )

    @cached_property
    def sequences(self) -> list[list[Continuation]]:
        """Of each question: its choices or answers after the query; where the answer is generated, the query alone."""
        from rankitect.data.continuations import Continuation, continuations

        if self.settings.answer == "generated":
            queries = [(one.query.rstrip(), "") for one in self.questions]
            wholes = self.tokenizer.encode_batch([query for query, _ in queries])
            first = () if self.begin is None else (self.begin,)
            # One token more, as for a continuation of which the last token is predicted only.
            return [[Continuation((*first, *ids.tolist(), 0), len(first) + len(ids))] for ids in wholes]
        texts = [one.choices or one.answers for one in self.questions]
        pairs = [
            (one.query, self.settings.delimiter + text)
            for one, several in zip(self.questions, texts, strict=True)
            for text in several
        ]
        flat = iter(continuations(self.tokenizer, pairs, self.begin))
        return [[next(flat) for _ in several] for several in texts]

    @cached_property
    def _forest(self) -> Forest:
        from rankitect.models.packed import pack

        return pack(self.sequences)

    def answered(
        self, model: nn.Module, check: Callable[[], None] | None = None
    ) -> tuple[dict[str, NDArray[np.bool_]], Spent]:
        """Whether a model answers each question right, by metric, [Q]; and what asking cost.

        Args:
            model: Ids [B, T] to logits [B, T, V], causal; it keeps its mode.
            check: Called before every forward; may raise, to stop.
        """
        import numpy as np

        from rankitect.metrics.choices import right_choices
        from rankitect.models.packed import likelihoods
        from rankitect.training.placement import placement

        if self.settings.answer == "generated":
            return self._generated(model, check)
        with placement().computing():
            result = likelihoods(model, self._forest, check=check)
        spent = Spent(eval_tokens=result.forwarded)
        ends = np.cumsum([len(group) for group in self.sequences])[:-1]
        if not self.questions[0].choices:
            return {"acc": np.asarray([group.any() for group in np.split(result.greedy, ends)], np.bool_)}, spent
        choices, gold = [one.choices for one in self.questions], [one.gold for one in self.questions]
        right = right_choices(np.split(result.nats, ends), choices, gold)
        return {name: right[name] for name in self.metrics}, spent

    def _generated(
        self, model: nn.Module, check: Callable[[], None] | None
    ) -> tuple[dict[str, NDArray[np.bool_]], Spent]:
        import numpy as np

        from rankitect.models.greedy import greedy_continuations
        from rankitect.training.placement import placement

        prompts = [group[0].tokens[:-1] for group in self.sequences]
        with placement().computing():
            continuations, forwarded = greedy_continuations(
                model, prompts, self.settings.tokens, stop=self.stop, ended=self._ended, check=check
            )
        right = [
            self._plain(self._cut(self.tokenizer.decode(tokens))) in {self._plain(text) for text in one.answers}
            for one, tokens in zip(self.questions, continuations, strict=True)
        ]
        spent = Spent(eval_tokens=forwarded, generated_tokens=sum(map(len, continuations)))
        return {"exact_match": np.asarray(right, np.bool_)}, spent

    def _ended(self, tokens: Sequence[int]) -> bool:
        text = self.tokenizer.decode(list(tokens)).lstrip()
        return any(stop in text for stop in self.settings.stop)

    def _cut(self, text: str) -> str:
        """An answer without what comes after a text that ends it; blanks before it are no end."""
        text = text.lstrip()
        for stop in self.settings.stop:
            text = text.partition(stop)[0]
        return text

    def _plain(self, text: str) -> str:
        text = text.strip()
        return text.casefold() if self.settings.ignore_case else text
