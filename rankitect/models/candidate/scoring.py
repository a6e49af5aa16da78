"""Language models that are loaded: what a text scores, and what follows it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from rankitect.data.tokenizer import Tokenizer
from rankitect.errors import ConfigError, DataError
from rankitect.models.candidate.base import Candidate
from rankitect.models.candidate.folder import brief
from rankitect.models.checkpoints.usage import Usage
from rankitect.models.families import DecoderConfig
from rankitect.models.greedy import greedy_continuations
from rankitect.models.supernet import device_of

__all__ = ["LanguageCandidate", "TextScore"]


@dataclass(frozen=True)
class TextScore:
    """How well a model predicts a text.

    Attributes:
        nats: Negative log-likelihood of the predicted tokens, summed, in nats.
        tokens: Tokens that were predicted: all of the text, but its very first where the model begins with no token of
            its own (bos).
    """

    nats: float
    tokens: int

    @property
    def perplexity(self) -> float:
        """exp(nats a token); lower is better."""
        try:
            return math.exp(self.nats / self.tokens)
        except OverflowError:
            return math.inf


def _texts(inputs: object) -> Iterable[object]:
    """One text or several as several. What gives names of columns or keys when it is iterated is refused.

    Raises:
        DataError: It is neither.
    """
    if isinstance(inputs, str | bytes):  # bytes are refused as any other element is
        return [inputs]
    if isinstance(inputs, Sequence | Iterator):
        return inputs
    if np.ndim(inputs) == 1:  # type: ignore[arg-type]  # arrays, and columns of pandas
        return list(inputs)  # type: ignore[call-overload]
    raise DataError(f"The inputs are of type {brief(type(inputs).__name__, 60)}. Give one text, or a list of texts.")


def _text(given: object) -> str:
    if not isinstance(given, str):
        raise DataError(f"{brief(repr(given), 60)} is of type {brief(type(given).__name__, 60)}. A text is a str.")
    return given


def _check_number(tokens: object) -> None:
    if isinstance(tokens, bool) or not isinstance(tokens, int | np.integer) or tokens < 1:
        raise ConfigError(f"tokens={brief(repr(tokens), 60)}: allowed are whole numbers from 1.")


@dataclass(frozen=True, eq=False)
class LanguageCandidate(Candidate):
    """A language model: token ids [B, T] int64 to logits [B, T, V].

    Attributes:
        tokenizer: The backbone's.
        config: The backbone's sizes and family.
        usage: How the backbone is used: chat template, begin and stop tokens, sampling defaults.
    """

    tokenizer: Tokenizer
    config: DecoderConfig
    usage: Usage

    def encode(self, text: str) -> torch.Tensor:
        """Token ids of a text where the model is, [1, T] int64. No token is added.

        Raises:
            DataError: It is no text, has no tokens, or cannot be encoded.
        """
        ids = torch.as_tensor(self.tokenizer.encode(_text(text))).long()[None]
        if not ids.numel():
            raise DataError("The text has no tokens.")
        return ids.to(device_of(self.model))

    @torch.inference_mode()
    def score(self, inputs: str | Sequence[str]) -> list[TextScore]:
        """How well the model predicts each text.

        A text longer than the backbone's context is read in windows, each of which is predicted from its own beginning
        on, as a search measures perplexity: with the first token (bos) where the backbone was trained so.

        Args:
            inputs: Texts of at least two tokens; of one where the first token is put before it.

        Raises:
            DataError: A text is too short, is no text, or cannot be encoded.
        """
        scores = []
        for number, text in enumerate(map(_text, _texts(inputs))):
            ids, nats = self._begun(self.encode(text)), 0.0
            if ids.shape[1] < 2:
                raise DataError(f"Text {number} ({brief(repr(text), 60)}) has one token: nothing to predict.")
            for start in range(0, ids.shape[1] - 1, self.config.context):
                window = ids[:, start : start + self.config.context + 1]
                logits = self.model(self._beginning(window[:, :-1]))[0].float()
                nats += float(F.cross_entropy(logits, window[0, 1:], reduction="sum"))
            scores.append(TextScore(nats, ids.shape[1] - 1))
        return scores

    @torch.inference_mode()
    def generate(self, prompt: str, tokens: int = 32) -> str:
        """The most probable next tokens after a prompt, until one of the stop tokens.

        The prompt begins with the first token (bos) where the backbone was trained so. Each token goes forward once, up
        to the backbone's context; after that, each further token is predicted from as many as that holds.

        Args:
            prompt: A text; special tokens written in it are plain characters.
            tokens: How many at most, from 1.

        Raises:
            DataError: The prompt is no text, has no tokens, or cannot be encoded.
            ConfigError: `tokens` is no whole number from 1.
        """
        _check_number(tokens)
        asked = self.encode(prompt)
        ids, answer = self._begun(asked), list[int]()
        within = max(0, min(tokens, self.config.context - ids.shape[1] + 1))
        if within:
            answer = greedy_continuations(self.model, ids.tolist(), within, stop=self.usage.stop_ids)[0][0]
            ids = torch.cat([ids, ids.new_tensor([answer])], dim=1)
        while within <= len(answer) < tokens:
            token = int(self.model(self._beginning(ids[:, -self.config.context :]))[0, -1].argmax())
            if token in self.usage.stop_ids:
                break
            answer.append(token)
            ids = torch.cat([ids, ids.new_tensor([[token]])], dim=1)
        return self.tokenizer.decode_after(asked[0].tolist(), answer)

    def _begun(self, ids: torch.Tensor) -> torch.Tensor:
        """Token ids [1, T], after the first token where the model begins with one: [1, T + 1]."""
        first = self.usage.first_token(self.tokenizer)
        return ids if first is None else torch.cat([ids.new_tensor([[first]]), ids], dim=1)

    def _beginning(self, window: torch.Tensor) -> torch.Tensor:
        """A window of a text, whose first token is the model's where it begins with one, as in a search."""
        first = self.usage.first_token(self.tokenizer)
        return window if first is None else torch.cat([window.new_tensor([[first]]), window[:, 1:]], dim=1)
