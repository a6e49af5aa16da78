"""A model of blocks as EleutherAI's lm-eval sees one: likelihoods of continuations, and generated text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rankitect.contracts import Spent
from rankitect.errors import DataError, shown
from rankitect.tasks.language.text import first_token

if TYPE_CHECKING:
    from torch import nn

    from rankitect.data.continuations import Continuation
    from rankitect.models.checkpoints import DecoderCheckpoint
    from rankitect.models.packed import Likelihood

__all__ = ["HarnessModel"]

_MOST = 256
"""Tokens of a generated answer, where a task does not say."""


class HarnessModel:
    """What lm-eval asks of a model (its class `LM`, by its members: the package need not be there to read this).

    Args:
        checkpoint: The pretrained model, whose tokenizer and context count.
        begin: Whether sequences begin with the first token; None as the model was trained.

    Attributes:
        spent: What the model that is asked has cost so far.
    """

    rank, world_size = 0, 1

    def __init__(self, checkpoint: DecoderCheckpoint, begin: bool | None) -> None:
        self._checkpoint = checkpoint
        self._begin = first_token(checkpoint, begin)
        self._model: Any = None
        self._check: Callable[[], None] | None = None
        self.spent = Spent()
        self.task_dict: dict[str, Any] = {}
        self.cache_hook = None

    def asking(self, model: nn.Module | None, check: Callable[[], None] | None = None) -> HarnessModel:
        """The same, of another model; nothing is spent yet.

        Args:
            model: Ids [B, T] to logits [B, T, V], causal; None only looks whether all that is asked fits its context.
            check: Called before every forward; may raise, to stop.
        """
        self._model, self._check, self.spent = model, check, Spent()
        return self

    @property
    def tokenizer_name(self) -> str:
        """Where the model is from."""
        return self._checkpoint.source

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """For each (text, continuation) the log-likelihood, and whether it is what the model would say.

        Raises:
            DataError: A sequence is longer than the model's context.
        """
        from rankitect.data.continuations import continuations

        pairs = [tuple(request.args) for request in requests]
        result = self._likelihoods(continuations(self._checkpoint.tokenizer, pairs, self._begin))
        return [(float(nats), bool(greedy)) for nats, greedy in zip(result.nats, result.greedy, strict=True)]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """The log-likelihood of whole texts.

        Raises:
            DataError: A text is longer than the model's context, or there is no token to predict its first from.
        """
        from rankitect.data.continuations import continuations

        pairs = [("", request.args[0]) for request in requests]
        return self._likelihoods(continuations(self._checkpoint.tokenizer, pairs, self._begin)).nats.tolist()

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """The likeliest text after each prompt, up to a text that ends it.

        Raises:
            DataError: A prompt with its answer is longer than the model's context, or sampling is asked for.
        """
        answers: list[str] = []
        asked = [(request.args[0], request.args[1]) for request in requests]
        for settings, group in groupby(asked, key=lambda pair: pair[1]):
            answers += self._generated([text for text, _ in group], settings)
        return answers

    def apply_chat_template(self, history: Any, add_generation_prompt: bool = True) -> str:
        """No chat is asked for."""
        raise DataError("measures ask plain prompts, and no chats.")

    @cached_property
    def _context(self) -> int:
        return self._checkpoint.config.context

    def _likelihoods(self, asked: list[Continuation]) -> Likelihood:
        import numpy as np

        from rankitect.models.packed import Likelihood, likelihoods, pack
        from rankitect.training.placement import placement

        for one in asked:
            self._refuse_long(len(one.tokens) - 1)
        if self._model is None:
            return Likelihood(np.zeros(len(asked)), np.zeros(len(asked), np.bool_), 0)
        groups = [list(group) for _, group in groupby(asked, key=lambda one: one.tokens[: one.start])]
        with placement().computing():
            result = likelihoods(self._model, pack(groups), check=self._check)
        self.spent += Spent(eval_tokens=result.forwarded)
        return result

    def _generated(self, texts: Sequence[str], settings: dict[str, Any]) -> list[str]:
        from rankitect.models.greedy import greedy_continuations
        from rankitect.training.placement import placement

        if settings.get("do_sample") and settings.get("temperature", 0):
            raise DataError(f"generation settings {shown(str(settings))}: answers are greedy, and not sampled.")
        until = settings.get("until", [])
        stops = [stop for stop in ([until] if isinstance(until, str) else until) if stop]
        most, tokenizer = int(settings.get("max_gen_toks", _MOST)), self._checkpoint.tokenizer
        first = () if self._begin is None else (self._begin,)
        prompts = [(*first, *ids.tolist()) for ids in tokenizer.encode_batch(list(texts))]
        for prompt in prompts:
            self._refuse_long(len(prompt) + most)

        if self._model is None:
            return [""] * len(prompts)

        def ended(tokens: list[int]) -> bool:
            text = tokenizer.decode(tokens)
            return any(stop in text for stop in stops)

        stop_ids = self._checkpoint.usage.stop_ids
        with placement().computing():
            continuations, forwarded = greedy_continuations(
                self._model, prompts, most, stop=stop_ids, ended=ended, check=self._check
            )
        self.spent += Spent(eval_tokens=forwarded, generated_tokens=sum(map(len, continuations)))
        answers = [tokenizer.decode(tokens) for tokens in continuations]
        for stop in stops:
            answers = [answer.partition(stop)[0] for answer in answers]
        return answers

    def _refuse_long(self, tokens: int) -> None:
        if tokens > self._context:
            raise DataError(
                f"a prompt has {tokens:,} tokens with its answer; the model was made for {self._context:,}."
            )
