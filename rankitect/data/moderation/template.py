"""Exchanges as a guard model reads them: in its chat template, up to the token that is the verdict.

What was said stands between markup that the template writes and is itself tokenised as plain text, so that nothing in
it can end its message. The verdict is the one token that comes next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from rankitect.data.chat import Message
from rankitect.data.moderation.exchanges import Exchange
from rankitect.documents import as_kind
from rankitect.errors import AssetError, ConfigError, safe, short

if TYPE_CHECKING:
    from rankitect.data.tokenizer import Tokenizer

__all__ = ["GuardTemplate", "Verdicts"]

_PLACE = "\u2060exchange\u2060"
"""Stands for what was said while the template is rendered."""
_MOST = 2**20
"""Tokens of a part of a template in a file."""
_Token = Annotated[int, Field(ge=0, lt=2**31)]


@dataclass(frozen=True)
class Verdicts:
    """The tokens of the two verdicts.

    Attributes:
        safe: Id of the token that says safe.
        unsafe: Id of the token that says unsafe.
    """

    safe: int
    unsafe: int

    @property
    def ids(self) -> tuple[int, int]:
        """Both, safe first."""
        return self.safe, self.unsafe


@dataclass(frozen=True)
class GuardTemplate:
    """How exchanges become tokens.

    Attributes:
        before: Tokens before what was said, the first token of the model among them where it wants one.
        after: Tokens between what was said and the verdict.
        answer: Tokens between a prompt and its response.
        verdicts: The tokens of the verdicts.
        context: Tokens of the longest sequence; longer exchanges are cut.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    answer: tuple[int, ...]
    verdicts: Verdicts
    context: int

    @classmethod
    def of(
        cls,
        tokenizer: Tokenizer,
        instruction: str,
        words: tuple[str, str],
        context: int,
        begin: int | None = None,
        answer: str = "\n\nAnswer: ",
    ) -> GuardTemplate:
        """The template of a tokenizer, which renders conversations as its model was trained with.

        Args:
            tokenizer: The model's.
            instruction: What the system says; empty for nothing.
            words: What the verdicts are called, safe first; each must be one token after the template.
            context: Tokens of the longest sequence.
            begin: The token that a sequence begins with; None for none, or where the chat template writes it.
            answer: What stands between a prompt and its response.

        Raises:
            ConfigError: A verdict is no single token, both are the same, or the template leaves no room.
        """
        system = [Message("system", instruction)] if instruction else []
        text = tokenizer.chat.render([*system, Message("user", _PLACE)], answer=True)
        head, found, tail = text.partition(_PLACE)
        if not found:
            raise ConfigError("task: the backbone's chat template leaves out what the user says.")
        before, after = (tokenizer.encode_markup([part])[0].tolist() for part in (head, tail))
        if begin is not None and before[:1] != [begin]:
            before = [begin, *before]
        safe_id, unsafe_id = (_token(tokenizer, tail, word, key) for key, word in zip(_KEYS, words, strict=True))
        if safe_id == unsafe_id:
            raise ConfigError(f"task.safe and task.unsafe are the same token, {short(safe(repr(words[0])), 40)}.")
        template = cls(
            tuple(before), tuple(after), tuple(tokenizer.encode(answer).tolist()), Verdicts(safe_id, unsafe_id), context
        )
        if template.room < _LEAST:
            raise ConfigError(
                f"task.context is {context} tokens, of which the template takes {context - template.room}: at least "
                f"{_LEAST} are needed for what was said. Give a larger context or a shorter task.instruction."
            )
        return template

    @property
    def room(self) -> int:
        """Tokens for what was said."""
        return self.context - len(self.before) - len(self.after)

    def sequences(self, tokenizer: Tokenizer, exchanges: Sequence[Exchange]) -> list[tuple[int, ...]]:
        """The tokens of exchanges up to the verdict. Of those that are too long, the end of prompt or response is cut.

        Args:
            tokenizer: That of the template.
            exchanges: What was said.
        """
        prompts = tokenizer.encode_batch([one.prompt for one in exchanges])
        responses = tokenizer.encode_batch([one.response for one in exchanges])
        return [
            (*self.before, *self._said(prompt, response), *self.after)
            for prompt, response in zip(prompts, responses, strict=True)
        ]

    def _said(self, prompt: NDArray[np.int32], response: NDArray[np.int32]) -> list[int]:
        if not len(response):
            return prompt[: self.room].tolist()
        room = max(0, self.room - len(self.answer))
        # Neither may take more than half, unless the other leaves it room.
        kept = min(len(prompt), max(room // 2, room - len(response)))
        said: list[int] = prompt[:kept].tolist()
        return [*said, *self.answer, *response[: room - kept].tolist()][: self.room]

    @classmethod
    def from_json(cls, data: object, place: object) -> GuardTemplate:
        """The inverse of `to_json`.

        Args:
            data: Plain data from a file.
            place: The file, for messages.

        Raises:
            AssetError: They are no template.
        """
        stored = as_kind(data, _Stored, place, AssetError)
        before, after, answer = (tuple(ids) for ids in (stored.before, stored.after, stored.answer))
        template = cls(before, after, answer, Verdicts(stored.safe, stored.unsafe), stored.context)
        if template.room < 1:
            raise AssetError(f"{place}: a template of {stored.context} tokens has no room for what was said.")
        return template

    def to_json(self) -> dict[str, Any]:
        """As plain data, for the card of a program."""
        return {
            "before": list(self.before),
            "after": list(self.after),
            "answer": list(self.answer),
            "safe": self.verdicts.safe,
            "unsafe": self.verdicts.unsafe,
            "context": self.context,
        }


class _Stored(BaseModel):
    """A template in a file."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    before: list[_Token] = Field(max_length=_MOST)
    after: list[_Token] = Field(max_length=_MOST)
    answer: list[_Token] = Field(max_length=_MOST)
    safe: _Token
    unsafe: _Token
    context: int = Field(ge=1, le=2**24)


_KEYS = ("task.safe", "task.unsafe")
_LEAST = 8
"""Tokens of what was said that must find room."""


def _token(tokenizer: Tokenizer, tail: str, word: str, key: str) -> int:
    """The token of a verdict after the template.

    Raises:
        ConfigError: It is none, or more than one.
    """
    alone, whole = (tokenizer.encode_markup([text])[0].tolist() for text in (tail, tail + word))
    shown = short(safe(repr(word)), 40)
    if len(whole) == len(alone) + 1 and whole[:-1] == alone:
        return int(whole[-1])
    split = whole[len(alone) :] if whole[: len(alone)] == alone else []
    pieces = ", ".join(short(safe(repr(tokenizer.decode([one]))), 24) for one in split[:4])
    how = f"the tokenizer splits it into {len(split)} ({pieces})" if split else "it is joined with the template"
    raise ConfigError(
        f"{key} is {shown}, which is no single token after the template: {how}. Choose a word that is one token; a "
        "blank before it often makes the difference."
    )
